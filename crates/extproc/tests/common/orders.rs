//! A proxy's stream to the picker from bytes: malformed messages, and messages in any order. Driven by proptest here and by
//! the fuzzer in `fuzz/`.
//!
//! The first byte chooses the modes. Each step that follows is a byte that says which message comes and some bytes of it:
//! a part of a request in any phase, or raw protobuf. Whatever comes, the machine must not panic, must reply within
//! bounds, and in full duplex must send an answer's body back as it came.

use bytes::Bytes;
use extproc::proto::ext_proc::body_mutation::Mutation;
use extproc::proto::ext_proc::processing_request::Request;
use extproc::proto::ext_proc::processing_response::Response;
use extproc::proto::ext_proc::{
    HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration,
};
use extproc::server::{Event, Forward, Machine, PIECE, Verdict};
use prost::Message;

const LIMIT: usize = 1 << 20;

fn part(kind: u8, bytes: &[u8]) -> Option<Request> {
    let end = kind & 0x80 != 0;
    let body = || HttpBody {
        // Long enough, sometimes, to be cut.
        body: Bytes::from(bytes.repeat(if kind & 0x40 == 0 { 1 } else { 5000 })),
        end_of_stream: end,
    };
    let head = || HttpHeaders {
        headers: None,
        end_of_stream: end,
    };
    Some(match kind & 7 {
        0 => Request::RequestHeaders(head()),
        1 | 2 => Request::RequestBody(body()),
        3 => Request::RequestTrailers(HttpTrailers::default()),
        4 => Request::ResponseHeaders(head()),
        5 => Request::ResponseBody(body()),
        6 => Request::ResponseTrailers(HttpTrailers::default()),
        _ => return ProcessingRequest::decode(bytes).ok()?.request,
    })
}

/// Drives a machine with these bytes and checks what it does.
pub(crate) fn drive(data: &[u8]) {
    let Some((&modes, mut rest)) = data.split_first() else {
        return;
    };
    // A proxy that does not say its modes is not held to full duplex: what it sends decides that.
    let told = modes & 0x80 == 0;
    let duplex = told && modes & 7 == 4 && (modes >> 3) & 7 == 4;
    let config = told.then_some(ProtocolConfiguration {
        request_body_mode: i32::from(modes & 7),
        response_body_mode: i32::from((modes >> 3) & 7),
        send_body_without_waiting_for_header_response: false,
    });
    let mut first = config;
    let mut machine = Machine::new(LIMIT);
    let (mut answer, mut echoed) = (Vec::new(), Vec::new());
    let mut answer_ended = false;
    while let Some((&kind, tail)) = rest.split_first() {
        let length = usize::from(tail.first().copied().unwrap_or(0)) % 32;
        let bytes = tail.get(1..).unwrap_or_default();
        let bytes = &bytes[..length.min(bytes.len())];
        rest = tail.get(1 + bytes.len()..).unwrap_or_default();
        let message = ProcessingRequest {
            request: part(kind, bytes),
            protocol_config: first.take(),
            ..ProcessingRequest::default()
        };
        let event = match machine.receive(message) {
            Ok(event) => event,
            Err(_) => return,
        };
        match event {
            Event::Decide(_) if kind & 0x20 == 0 => {
                machine.decided(Verdict::Forward(Box::<Forward>::default()));
            }
            Event::Decide(_) => machine.decided(Verdict::Refuse(Box::default())),
            Event::AnswerPiece(piece) if !answer_ended => {
                answer.extend_from_slice(&piece.bytes);
                answer_ended = piece.last;
            }
            _ => {}
        }
        let mut replies = 0;
        while let Some(reply) = machine.reply() {
            replies += 1;
            if let Some(Response::ResponseBody(body)) = reply.response
                && let Some(Mutation::StreamedResponse(piece)) = body
                    .response
                    .and_then(|common| common.body_mutation?.mutation)
            {
                assert!(piece.body.len() <= PIECE);
                echoed.extend_from_slice(&piece.body);
            }
        }
        assert!(
            replies <= 4 + LIMIT / PIECE + 2,
            "{replies} replies to one message"
        );
        if duplex && !machine.is_over() {
            assert_eq!(answer, echoed);
        }
    }
    let _ = machine.closed();
}
