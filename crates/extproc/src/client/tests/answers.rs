//! From a server's answer to what the client gets.

use super::*;
use http::StatusCode;

use crate::proto::ext_proc::TrailersResponse;
use crate::proto::ext_proc::common_response::ResponseStatus;
use crate::proto::mode::ProcessingMode;
use crate::proto::mode::processing_mode::{BodySendMode, HeaderSendMode};

/// What the client has got, in one text: `H` head, bytes, `T` trailers, `.` end, `!` an answer of the picker.
fn seen(call: &mut Call) -> String {
    let mut text = String::new();
    for event in events(call) {
        match event {
            Event::Head(_) => text.push('H'),
            Event::Data(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
            Event::Trailers(_) => text.push('T'),
            Event::End => text.push('.'),
            Event::Immediate(_) => text.push('!'),
        }
    }
    text
}

fn answering(call: &mut Call, end: bool) {
    let served = Some(SERVER.parse().unwrap());
    call.answer_head(StatusCode::OK, &HeaderMap::new(), end, served);
}

fn data(call: &mut Call, text: &str, end: bool) {
    call.answer_data(Bytes::copy_from_slice(text.as_bytes()), end);
}

#[test]
fn the_head_tells_who_served() {
    let mut call = decided();
    answering(&mut call, false);
    let messages = messages(&mut call);
    let served = messages[0]
        .metadata_context
        .as_ref()
        .unwrap()
        .text("envoy.lb", "x-gateway-destination-endpoint-served");
    assert_eq!(served.as_deref(), Some(SERVER));
    let Some(Request::ResponseHeaders(head)) = &messages[0].request else {
        panic!("{messages:?}");
    };
    let status = &head.headers.as_ref().unwrap().headers[0];
    assert_eq!(
        (status.key.as_str(), &status.raw_value[..]),
        (":status", &b"200"[..])
    );
}

#[test]
fn each_piece_goes_on_when_it_comes_back() {
    let mut call = decided();
    answering(&mut call, false);
    data(&mut call, "one", false);
    assert_eq!(seen(&mut call), "");
    call.receive(response_head(&[])).unwrap();
    assert_eq!(seen(&mut call), "H");
    call.receive(response_body(Some(streamed("one", false))))
        .unwrap();
    assert_eq!(seen(&mut call), "one");
    data(&mut call, "two", true);
    call.receive(response_body(Some(streamed("two", true))))
        .unwrap();
    assert_eq!(seen(&mut call), "two.");
    assert!(call.is_done() && !call.owes());
}

#[test]
fn replies_in_any_shape() {
    let replace = {
        let mut reply = common(&[], Some(Mutation::Body("other".into())));
        reply.status = ResponseStatus::ContinueAndReplace as i32;
        super::reply(Response::ResponseHeaders(HeadersResponse {
            response: Some(reply),
        }))
    };
    let table: [(&str, Vec<ProcessingResponse>, &str); 8] = [
        (
            "only read",
            vec![response_head(&[]), response_body(None), response_body(None)],
            "Habcdef.",
        ),
        (
            "read before the head",
            vec![response_body(None), response_body(None), response_head(&[])],
            "Habcdef.",
        ),
        (
            "changed",
            vec![
                response_head(&[]),
                response_body(Some(streamed("xyz!", true))),
            ],
            "Hxyz!.",
        ),
        (
            "gathered",
            vec![
                response_head(&[]),
                response_body(Some(streamed("abcdef", true))),
            ],
            "Habcdef.",
        ),
        (
            "pieces replaced",
            vec![
                response_head(&[]),
                response_body(Some(Mutation::Body("X".into()))),
                response_body(Some(Mutation::ClearBody(true))),
            ],
            "HX.",
        ),
        ("replaced with the head", vec![replace], "Hother."),
        ("an answer instead", vec![immediate(503)], "!"),
        (
            "late words",
            vec![
                response_head(&[]),
                response_body(Some(streamed("abcdef", true))),
                response_body(None),
                response_head(&[]),
            ],
            "Habcdef.",
        ),
    ];
    for (what, replies, expected) in table {
        let mut call = decided();
        answering(&mut call, false);
        data(&mut call, "abc", false);
        data(&mut call, "def", true);
        for reply in replies {
            call.receive(reply).unwrap();
        }
        assert_eq!(seen(&mut call), expected, "{what}");
        assert!(call.is_done(), "{what}");
    }
}

#[test]
fn an_answer_without_a_body_ends_with_its_head() {
    let mut call = decided();
    answering(&mut call, true);
    call.receive(response_head(&[("x-a", "1")])).unwrap();
    assert_eq!(seen(&mut call), "H.");
}

#[test]
fn trailers_come_last() {
    let mut call = decided();
    answering(&mut call, false);
    data(&mut call, "abc", false);
    call.answer_end(Some(&HeaderMap::new()));
    call.receive(response_head(&[])).unwrap();
    call.receive(response_body(Some(streamed("abc", true))))
        .unwrap();
    assert_eq!(seen(&mut call), "Habc");
    assert!(call.owes());
    let trailers = TrailersResponse {
        header_mutation: None,
    };
    call.receive(reply(Response::ResponseTrailers(trailers)))
        .unwrap();
    assert_eq!(seen(&mut call), "T.");
}

/// What has been seen when a picker dies after these replies, and whether the rest can pass.
fn dies(replies: &[ProcessingResponse]) -> (String, bool) {
    let mut call = decided();
    answering(&mut call, false);
    data(&mut call, "abc", false);
    data(&mut call, "def", false);
    for reply in replies {
        call.receive(reply.clone()).unwrap();
    }
    let resumes = call.give_up();
    data(&mut call, "ghi", true);
    (seen(&mut call), resumes)
}

#[test]
fn without_the_picker_the_rest_passes_from_where_it_stopped() {
    let echo = |text: &str| response_body(Some(streamed(text, false)));
    let table = [
        ("before the head", vec![], "Habcdefghi."),
        ("after the head", vec![response_head(&[])], "Habcdefghi."),
        (
            "in the middle of a piece",
            vec![response_head(&[]), echo("ab")],
            "Habcdefghi.",
        ),
        (
            "between pieces",
            vec![response_head(&[]), echo("abcd")],
            "Habcdefghi.",
        ),
        (
            "when all has come back",
            vec![response_head(&[]), echo("abcdef")],
            "Habcdefghi.",
        ),
        (
            "a picker that only reads",
            vec![response_head(&[]), response_body(None)],
            "Habcdefghi.",
        ),
        (
            "one that replaces pieces",
            vec![
                response_head(&[]),
                response_body(Some(Mutation::Body("X".into()))),
            ],
            "HXdefghi.",
        ),
    ];
    for (what, replies, expected) in table {
        assert_eq!(dies(&replies), (expected.to_owned(), true), "{what}");
    }
    let (_, resumes) = dies(&[response_head(&[]), echo("abX")]);
    assert!(!resumes, "what was changed cannot be continued");
    let (_, resumes) = dies(&[response_head(&[]), echo("abcdefMORE")]);
    assert!(!resumes, "nor what was added to");
}

#[test]
fn a_good_end_is_no_interest_in_the_rest() {
    let mut call = decided();
    call.ended().unwrap();
    answering(&mut call, false);
    data(&mut call, "abc", true);
    assert_eq!(seen(&mut call), "Habc.");

    let mut call = decided();
    answering(&mut call, false);
    data(&mut call, "abc", false);
    call.receive(response_head(&[])).unwrap();
    call.receive(response_body(Some(streamed("X", false))))
        .unwrap();
    assert_eq!(call.ended().unwrap_err().code(), "ended");
}

#[test]
fn modes_take_parts_away() {
    let mode = |header: HeaderSendMode, body: BodySendMode| {
        let mut reply = picks(SERVER);
        reply.mode_override = Some(ProcessingMode {
            response_header_mode: header as i32,
            response_body_mode: body as i32,
            ..ProcessingMode::default()
        });
        let mut call = call_with("");
        call.receive(reply).unwrap();
        sent(&mut call);
        answering(&mut call, false);
        call
    };
    let mut call = mode(HeaderSendMode::Skip, BodySendMode::None);
    data(&mut call, "abc", true);
    assert_eq!(
        (sent(&mut call).len(), seen(&mut call).as_str()),
        (0, "Habc.")
    );

    let mut call = mode(HeaderSendMode::Send, BodySendMode::None);
    data(&mut call, "abc", false);
    assert_eq!((sent(&mut call).len(), seen(&mut call).as_str()), (1, ""));
    call.receive(response_head(&[])).unwrap();
    data(&mut call, "def", true);
    assert_eq!(
        (sent(&mut call).len(), seen(&mut call).as_str()),
        (0, "Habcdef.")
    );

    let mut call = mode(HeaderSendMode::Default, BodySendMode::None);
    data(&mut call, "abc", true);
    assert_eq!(sent(&mut call).len(), 2, "nothing was asked for");
}

#[test]
fn an_answer_of_the_picker_may_come_while_the_server_works_and_not_after_the_head() {
    let mut call = decided();
    assert!(!call.owes());
    call.receive(immediate(429)).unwrap();
    assert_eq!(seen(&mut call), "!");

    let mut call = decided();
    answering(&mut call, false);
    call.receive(response_head(&[])).unwrap();
    assert_eq!(
        call.receive(immediate(429)).unwrap_err().code(),
        "malformed"
    );
}
