//! From a request to a pick.

use proptest::prelude::*;

use super::*;
use crate::client::message::PIECE;
use crate::client::{Destination, LISTED};
use crate::proto::ext_proc::common_response::ResponseStatus;
use crate::proto::mode::processing_mode::BodySendMode;

#[test]
fn the_request_goes_out_whole_with_its_pseudo_headers_and_the_protocol() {
    let mut headers = HeaderMap::new();
    headers.insert("host", "a.test".parse().unwrap());
    headers.insert("x-bytes", http::HeaderValue::from_bytes(b"\xff").unwrap());
    let more = [(
        http::HeaderName::from_static("x-gateway-inference-objective"),
        http::HeaderValue::from_static("gold"),
    )];
    let head = RequestHead {
        method: &Method::POST,
        scheme: "https",
        authority: "a.test",
        path: "/v1/x?q=1",
        headers: &headers,
        more: &more,
    };
    let body = Bytes::from(vec![b'x'; PIECE * 2 + 1]);
    let subset = ["10.0.0.1:8000".parse().unwrap(), "[::1]:9".parse().unwrap()];
    let mut call = Call::new(&head, Some(body), Some(&subset), 1 << 20);
    let messages = messages(&mut call);
    let first = &messages[0];
    let config = first.protocol_config.expect("set");
    assert_eq!(
        config.request_body_mode,
        BodySendMode::FullDuplexStreamed as i32
    );
    assert_eq!(
        config.response_body_mode,
        BodySendMode::FullDuplexStreamed as i32
    );
    assert!(config.send_body_without_waiting_for_header_response);
    let Some(Request::RequestHeaders(sent)) = &first.request else {
        panic!("{first:?}");
    };
    assert!(!sent.end_of_stream);
    let fields: Vec<(&str, &[u8])> = sent
        .headers
        .as_ref()
        .unwrap()
        .headers
        .iter()
        .map(|field| (field.key.as_str(), &field.raw_value[..]))
        .collect();
    assert_eq!(
        fields,
        [
            (":method", &b"POST"[..]),
            (":scheme", b"https"),
            (":authority", b"a.test"),
            (":path", b"/v1/x?q=1"),
            ("x-bytes", b"\xff"),
            ("x-gateway-inference-objective", b"gold"),
        ]
    );
    let hint = first
        .metadata_context
        .as_ref()
        .unwrap()
        .get(
            "envoy.lb.subset_hint",
            "x-gateway-destination-endpoint-subset",
        )
        .unwrap();
    assert!(matches!(hint.kind, Some(Kind::ListValue(list)) if list.values.len() == 2));
    let pieces: Vec<(usize, bool)> = messages[1..]
        .iter()
        .map(|message| match &message.request {
            Some(Request::RequestBody(body)) => (body.body.len(), body.end_of_stream),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pieces, [(PIECE, false), (PIECE, false), (1, true)]);
}

#[test]
fn a_request_without_a_body_ends_with_its_head() {
    let mut call = call_with("");
    let messages = sent(&mut call);
    assert!(matches!(&messages[..], [Request::RequestHeaders(head)] if head.end_of_stream));
}

fn pick(replies: Vec<ProcessingResponse>, body: &str) -> crate::client::Pick {
    match outcome(replies, body, false) {
        Ok(Verdict::Pick(pick)) => pick,
        other => panic!("{other:?}"),
    }
}

#[test]
fn picks_are_taken_from_either_place_and_metadata_wins() {
    let both = |header: &str, metadata: &str| {
        let mut reply = picks_in_metadata(metadata);
        reply.response = picks(header).response;
        reply
    };
    let table = [
        (picks(SERVER), SERVER, false),
        (picks_in_metadata(SERVER), SERVER, false),
        (both(SERVER, SERVER), SERVER, false),
        (both("10.9.9.9:1", SERVER), SERVER, true),
    ];
    for (reply, expected, mismatch) in table {
        let pick = pick(vec![reply.clone()], "");
        assert_eq!(
            pick.destination.endpoints,
            [expected.parse().unwrap()],
            "{reply:?}"
        );
        assert_eq!(pick.mismatch, mismatch, "{reply:?}");
    }
}

#[test]
fn lists_are_read_with_bounds() {
    let many = vec!["10.0.0.1:1"; 10_000].join(",");
    let table: [(&str, usize, usize); 10] = [
        ("10.0.0.1:80", 1, 0),
        ("10.0.0.1:80, [::1]:81 ,10.0.0.2:80", 3, 0),
        ("", 0, 0),
        (",,", 0, 0),
        ("10.0.0.1", 0, 1),
        ("server:80", 0, 1),
        ("10.0.0.1:99999", 0, 1),
        ("::1:80", 0, 1),
        ("nonsense,10.0.0.1:80", 1, 1),
        (&many, LISTED, 0),
    ];
    for (list, endpoints, unreadable) in table {
        let read = Destination::read(list);
        assert_eq!(
            (read.endpoints.len(), read.unreadable),
            (endpoints, unreadable),
            "{list:.40}"
        );
    }
}

#[test]
fn bodies_come_back_in_any_shape() {
    let replace = |status: ResponseStatus, body: Option<Mutation>| {
        let mut reply = common(&[(DESTINATION, SERVER)], body);
        reply.status = status as i32;
        reply_of_head(reply)
    };
    let table: [(&str, Vec<ProcessingResponse>, Option<&str>); 9] = [
        (
            "echoed",
            vec![
                picks(SERVER),
                request_body(Some(streamed("hel", false))),
                request_body(Some(streamed("lo", true))),
            ],
            None,
        ),
        (
            "changed",
            vec![picks(SERVER), request_body(Some(streamed("heLLo!", true)))],
            Some("heLLo!"),
        ),
        (
            "cut short",
            vec![picks(SERVER), request_body(Some(streamed("he", true)))],
            Some("he"),
        ),
        (
            "emptied",
            vec![picks(SERVER), request_body(Some(streamed("", true)))],
            Some(""),
        ),
        ("only read", vec![picks(SERVER), request_body(None)], None),
        (
            "read before the head",
            vec![request_body(None), picks(SERVER)],
            None,
        ),
        (
            "replaced piece",
            vec![
                picks(SERVER),
                request_body(Some(Mutation::Body("new".into()))),
            ],
            Some("new"),
        ),
        (
            "cleared",
            vec![picks(SERVER), request_body(Some(Mutation::ClearBody(true)))],
            Some(""),
        ),
        (
            "replaced with the head",
            vec![replace(
                ResponseStatus::ContinueAndReplace,
                Some(Mutation::Body("all".into())),
            )],
            Some("all"),
        ),
    ];
    for (what, replies, expected) in table {
        let pick = pick(replies, "hello");
        assert_eq!(pick.body.as_deref(), expected.map(str::as_bytes), "{what}");
    }
}

fn reply_of_head(response: CommonResponse) -> ProcessingResponse {
    reply(Response::RequestHeaders(HeadersResponse {
        response: Some(response),
    }))
}

#[test]
fn a_pick_may_come_with_the_body() {
    let late = reply(Response::RequestBody(BodyResponse {
        response: Some(common(
            &[(DESTINATION, SERVER), ("x-a", "1")],
            Some(streamed("hello", true)),
        )),
    }));
    let pick = pick(vec![head(&[]), late], "hello");
    assert_eq!(pick.destination.endpoints, [SERVER.parse().unwrap()]);
    assert_eq!((pick.mutations.len(), pick.body), (1, None));
}

#[test]
fn what_goes_wrong_has_a_name() {
    let big = "x".repeat(1001);
    let table: [(&str, Vec<ProcessingResponse>, bool, &str); 11] = [
        ("nothing yet", vec![], false, "waits"),
        ("only the head", vec![picks(SERVER)], false, "waits"),
        (
            "only the body",
            vec![request_body(Some(streamed("hello", true)))],
            false,
            "waits",
        ),
        ("silent end", vec![], true, "ended"),
        (
            "end in a body that it changes",
            vec![picks(SERVER), request_body(Some(streamed("J", false)))],
            true,
            "ended",
        ),
        (
            "no pick",
            vec![head(&[]), request_body(Some(streamed("hello", true)))],
            false,
            "bad_pick",
        ),
        (
            "nonsense",
            vec![picks("somewhere"), request_body(None)],
            false,
            "bad_pick",
        ),
        (
            "empty list",
            vec![picks(""), request_body(None)],
            false,
            "bad_pick",
        ),
        (
            "reply to no answer",
            vec![response_head(&[])],
            false,
            "malformed",
        ),
        (
            "over the limit",
            vec![picks(SERVER), request_body(Some(streamed(&big, true)))],
            false,
            "malformed",
        ),
        (
            "immediate without a status",
            vec![immediate(0)],
            false,
            "malformed",
        ),
    ];
    for (what, replies, ends, word) in table {
        assert_eq!(outcome(replies, "hello", ends), Err(word), "{what}");
    }
}

#[test]
fn an_end_after_the_pick_leaves_the_rest_as_it_was() {
    for replies in [
        vec![picks(SERVER)],
        vec![picks(SERVER), request_body(Some(streamed("hel", false)))],
        vec![picks_in_metadata(SERVER), request_body(None)],
    ] {
        let Ok(Verdict::Pick(pick)) = outcome(replies, "hello", true) else {
            panic!("a pick");
        };
        assert_eq!(pick.body, None);
    }
}

#[test]
fn refusals_are_answers() {
    for code in [429, 503, 200] {
        let Ok(Verdict::Immediate(answer)) = outcome(vec![immediate(code)], "hello", false) else {
            panic!("an answer");
        };
        assert_eq!(i32::from(answer.status.as_u16()), code);
        assert_eq!(&answer.body[..], b"later");
    }
}

proptest! {
    /// However a body is cut on its way back, it is found to be the same; and one changed byte is found as well.
    #[test]
    fn echoes_are_recognised(body in "[a-z]{1,200}", cuts in proptest::collection::vec(1_usize..20, 0..30), spoil in proptest::option::of(0_usize..200)) {
        let mut back = body.clone().into_bytes();
        let spoilt = spoil.filter(|at| *at < back.len());
        if let Some(at) = spoilt {
            back[at] = b'!';
        }
        let mut replies = vec![picks(SERVER)];
        let text = String::from_utf8(back).unwrap();
        let mut rest = text.as_str();
        for cut in cuts {
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            replies.push(request_body(Some(streamed(piece, false))));
            rest = left;
        }
        replies.push(request_body(Some(streamed(rest, true))));
        let pick = pick(replies, &body);
        prop_assert_eq!(pick.body.as_deref(), spoilt.map(|_| text.as_bytes()));
    }
}
