//! gRPC on HTTP/2, for streams that are mostly idle.
//!
//! A picker holds one stream for every request that runs anywhere behind its proxies, waiting for the next token. tonic
//! keeps a buffer for each direction that stays as large as the largest message was: with prompts of 64 KiB that would be
//! most of the memory. Here a message is gathered in a buffer of its own, which lives as long as what is kept of it, and a
//! long piece of a body goes back as the very memory that it came in: only the few bytes before it are written.
//!
//! The framing is that of gRPC over HTTP/2: a flag byte, four bytes of length, the message; the status in the trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;

use crate::proto::ext_proc::body_mutation::Mutation;
use crate::proto::ext_proc::processing_response::Response as Reply;
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};

/// Flag and length.
const PREFIX: usize = 5;
/// A message whose length is only claimed gets this much memory at first.
const TRUSTED: usize = 1 << 20;
/// Replies are put together up to this many bytes.
const TOGETHER: usize = 32 << 10;
/// From this many bytes on a piece is not copied.
const LONG: usize = 4 << 10;

/// The proxy's messages.
#[derive(Debug)]
pub(super) struct Messages<B> {
    body: B,
    /// What is left of the frame that came last.
    frame: Bytes,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    begun: usize,
    message: BytesMut,
    limit: usize,
}

impl<B> Messages<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self {
            body,
            frame: Bytes::new(),
            prefix: [0; PREFIX],
            begun: 0,
            message: BytesMut::new(),
            limit,
        }
    }

    /// The next message that is here as a whole.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let missing = (PREFIX - self.begun).min(self.frame.len());
        let end = self.begun + missing;
        if let Some(room) = self.prefix.get_mut(self.begun..end) {
            self.frame.copy_to_slice(room);
        }
        self.begun = end;
        let [flag, length @ ..] = self.prefix;
        if self.begun < PREFIX {
            return Ok(None);
        }
        if flag != 0 {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.limit {
            let limit = self.limit;
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes is over the limit of {limit}"
            )));
        }
        if self.message.is_empty() && self.frame.len() >= length {
            self.begun = 0;
            return Ok(Some(self.frame.split_to(length)));
        }
        if self.message.is_empty() {
            self.message.reserve(length.min(TRUSTED));
        }
        let missing = (length - self.message.len()).min(self.frame.len());
        self.message
            .extend_from_slice(&self.frame.split_to(missing));
        if self.message.len() < length {
            return Ok(None);
        }
        self.begun = 0;
        Ok(Some(std::mem::take(&mut self.message).freeze()))
    }
}

impl<B> Stream for Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<ProcessingRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.take()? {
                let message = ProcessingRequest::decode(message)
                    .map_err(|error| Status::invalid_argument(format!("malformed: {error}")));
                return Poll::Ready(Some(message));
            }
            // An empty slice would still hold the memory it is of.
            self.frame = Bytes::new();
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) if self.begun > 0 => {
                    self.begun = 0;
                    let status = Status::invalid_argument("the stream ended inside a message");
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    let status = Status::cancelled(error.into().to_string());
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.frame = data;
                    }
                }
            }
        }
    }
}

/// Our messages, as a body.
#[derive(Debug)]
pub(super) struct Replies<S> {
    replies: S,
    /// A piece whose beginning was sent.
    piece: Option<Bytes>,
    /// How it ends.
    end: Option<Status>,
    over: bool,
}

impl<S> Replies<S> {
    /// The answer to a call, with these messages.
    pub(super) fn answer(replies: S) -> Response<Self> {
        let body = Self {
            replies,
            piece: None,
            end: None,
            over: false,
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::OK;
        answer.headers_mut().insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        answer
    }

    fn trailers(&mut self) -> Option<Frame<Bytes>> {
        self.over = true;
        let status = self.end.take()?;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            // A message that cannot be a header goes without.
            trailers.insert(
                Status::GRPC_STATUS,
                HeaderValue::from(i32::from(status.code())),
            );
        }
        Some(Frame::trailers(trailers))
    }
}

impl<S> Body for Replies<S>
where
    S: Stream<Item = Result<ProcessingResponse, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.piece.take() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let mut buffer = BytesMut::new();
        while self.end.is_none() && self.piece.is_none() && buffer.len() < TOGETHER {
            match Pin::new(&mut self.replies).poll_next(cx) {
                Poll::Ready(Some(Ok(reply))) => self.piece = encode(reply, &mut buffer),
                Poll::Ready(Some(Err(status))) => self.end = Some(status),
                Poll::Ready(None) => self.end = Some(Status::ok("")),
                Poll::Pending if buffer.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !buffer.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(buffer.freeze()))));
        }
        Poll::Ready(self.trailers().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.over && self.piece.is_none()
    }
}

/// Writes a reply; of a long piece of a body only what comes before it, and returns the piece.
fn encode(reply: ProcessingResponse, buffer: &mut BytesMut) -> Option<Bytes> {
    if let Some((tag, body, end)) = long_piece(&reply) {
        let body = body.clone();
        encode_around(tag, body.len(), end, buffer);
        return Some(body);
    }
    let length = reply.encoded_len();
    buffer.reserve(PREFIX + length);
    put_prefix(length, buffer);
    reply.encode_raw(buffer);
    None
}

fn put_prefix(length: usize, buffer: &mut BytesMut) {
    buffer.put_u8(0);
    // A reply is a piece of at most some 60 KB, or a body within the limit.
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Field number in the reply, bytes and end of a long piece, if that is all the reply says.
fn long_piece(reply: &ProcessingResponse) -> Option<(u32, &Bytes, bool)> {
    let (tag, body) = match reply.response.as_ref()? {
        Reply::RequestBody(body) => (3, body),
        Reply::ResponseBody(body) => (4, body),
        _ => return None,
    };
    let common = body.response.as_ref()?;
    let Some(Mutation::StreamedResponse(piece)) = common.body_mutation.as_ref()?.mutation.as_ref()
    else {
        return None;
    };
    let alone = reply.dynamic_metadata.is_none() && common.header_mutation.is_none();
    (alone && piece.body.len() >= LONG).then_some((tag, &piece.body, piece.end_of_stream))
}

/// Everything of a reply that comes before the bytes of its piece. Fields of a message may stand in any order, so the
/// bytes can come last. From the outside in: reply, body response (1), common response (3), body mutation (3), streamed
/// response, whose bytes are field 1 and whose end is field 2.
fn encode_around(tag: u32, length: usize, end: bool, buffer: &mut BytesMut) {
    let nest = |tag: u32, inner: usize| key_len(tag) + encoded_len_varint(inner as u64) + inner;
    let streamed = usize::from(end) * 2 + nest(1, length);
    let mutation = nest(3, streamed);
    let common = nest(3, mutation);
    let body = nest(1, common);
    let all = nest(tag, body);
    // At once and exactly, so that it is one allocation.
    buffer.reserve(PREFIX + all - length);
    put_prefix(all, buffer);
    for (tag, inner) in [(tag, body), (1, common), (3, mutation), (3, streamed)] {
        encode_key(tag, WireType::LengthDelimited, buffer);
        encode_varint(inner as u64, buffer);
    }
    if end {
        encode_key(2, WireType::Varint, buffer);
        encode_varint(1, buffer);
    }
    encode_key(1, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::super::reply;
    use super::*;
    use crate::proto::ext_proc::HttpBody;
    use crate::proto::ext_proc::processing_request::Request;

    /// A body of frames.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn message(body: &[u8]) -> ProcessingRequest {
        ProcessingRequest {
            request: Some(Request::RequestBody(HttpBody {
                body: Bytes::copy_from_slice(body),
                end_of_stream: false,
            })),
            ..ProcessingRequest::default()
        }
    }

    fn framed(messages: &[ProcessingRequest]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            let encoded = message.encode_to_vec();
            bytes.push(0);
            bytes.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
            bytes.extend(encoded);
        }
        bytes
    }

    fn read(bytes: &[u8], size: usize, limit: usize) -> Result<Vec<ProcessingRequest>, Status> {
        let frames = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let mut messages = Messages::new(Frames(frames), limit);
        let mut cx = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        while let Poll::Ready(Some(message)) = Pin::new(&mut messages).poll_next(&mut cx) {
            out.push(message?);
        }
        Ok(out)
    }

    #[test]
    fn messages_come_through_however_they_are_cut() {
        let messages = [
            message(b""),
            message(b"ab"),
            message(&[7; 3000]),
            ProcessingRequest::default(),
        ];
        let bytes = framed(&messages);
        for size in [1, 2, 4, 5, 6, 7, 100, 3000, 1 << 20] {
            assert_eq!(read(&bytes, size, 1 << 20).unwrap(), messages, "{size}");
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let good = framed(&[message(b"abc")]);
        let mut compressed = good.clone();
        compressed[0] = 1;
        let cases: [(&[u8], usize, tonic::Code); 5] = [
            (&compressed, 100, tonic::Code::Unimplemented),
            (&good, 3, tonic::Code::OutOfRange),
            (&good[..3], 100, tonic::Code::InvalidArgument),
            (&good[..7], 100, tonic::Code::InvalidArgument),
            (
                &[0, 0, 0, 0, 2, 0xff, 0xff],
                100,
                tonic::Code::InvalidArgument,
            ),
        ];
        for (bytes, limit, code) in cases {
            for size in [1, 100] {
                assert_eq!(
                    read(bytes, size, limit).unwrap_err().code(),
                    code,
                    "{bytes:?}"
                );
            }
        }
    }

    #[test]
    fn long_pieces_are_not_copied_and_read_as_if_they_were() {
        for length in [0, 1, LONG - 1, LONG, 62_000] {
            for end in [false, true] {
                for make in [reply::request_piece, reply::answer_piece] {
                    let body = Bytes::from(vec![7; length]);
                    let expected = make(body.clone(), end);
                    let mut buffer = BytesMut::new();
                    let piece = encode(expected.clone(), &mut buffer);
                    assert_eq!(piece.is_some(), length >= LONG);
                    if let Some(piece) = piece {
                        assert_eq!(piece.as_ptr(), body.as_ptr());
                        buffer.extend_from_slice(&piece);
                    }
                    let said = u32::from_be_bytes(buffer[1..PREFIX].try_into().unwrap());
                    assert_eq!(said as usize, buffer.len() - PREFIX);
                    let read = ProcessingResponse::decode(&buffer[PREFIX..]).unwrap();
                    assert_eq!(read, expected, "{length} {end}");
                }
            }
        }
    }
}
