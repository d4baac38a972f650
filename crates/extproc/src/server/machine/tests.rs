//! The stream, mode by mode, as tables: what comes, what goes.

use bytes::Bytes;

use super::*;
use crate::proto::core::{HeaderMap, HeaderValue};
use crate::proto::ext_proc::body_mutation::Mutation;
use crate::proto::ext_proc::processing_response::Response;
use crate::proto::ext_proc::{CommonResponse, HttpTrailers};
use crate::proto::mode::processing_mode::BodySendMode;

const LIMIT: usize = 1 << 20;

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(request),
        ..ProcessingRequest::default()
    }
}

fn head(end_of_stream: bool) -> Request {
    Request::RequestHeaders(http_headers(end_of_stream))
}

fn http_headers(end_of_stream: bool) -> HttpHeaders {
    HttpHeaders {
        headers: Some(HeaderMap {
            headers: vec![HeaderValue {
                key: ":method".into(),
                raw_value: "POST".into(),
                ..HeaderValue::default()
            }],
        }),
        end_of_stream,
    }
}

fn with_modes(request: BodySendMode, answer: BodySendMode, end: bool) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(head(end)),
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: request.into(),
            response_body_mode: answer.into(),
            send_body_without_waiting_for_header_response: false,
        }),
        ..ProcessingRequest::default()
    }
}

fn piece(body: &[u8], end_of_stream: bool) -> HttpBody {
    HttpBody {
        body: Bytes::copy_from_slice(body),
        end_of_stream,
    }
}

fn body(bytes: &[u8], end: bool) -> ProcessingRequest {
    message(Request::RequestBody(piece(bytes, end)))
}

fn answer_head(end: bool) -> ProcessingRequest {
    message(Request::ResponseHeaders(http_headers(end)))
}

fn answer_body(bytes: &[u8], end: bool) -> ProcessingRequest {
    message(Request::ResponseBody(piece(bytes, end)))
}

fn trailers() -> ProcessingRequest {
    message(Request::RequestTrailers(HttpTrailers::default()))
}

fn answer_trailers() -> ProcessingRequest {
    message(Request::ResponseTrailers(HttpTrailers::default()))
}

fn picked() -> Verdict {
    Verdict::Forward(Box::new(Forward {
        headers: HeaderMutation {
            set_headers: vec![reply::set("x-pick", "a")],
            remove_headers: vec![],
        },
        metadata: Some(crate::metadata::text_struct("k", "v")),
        clear_route_cache: true,
        ..Forward::default()
    }))
}

fn rewritten(parts: [&'static [u8]; 3]) -> Verdict {
    let Verdict::Forward(mut forward) = picked() else {
        unreachable!()
    };
    forward.body = Some(parts.map(Bytes::from_static));
    Verdict::Forward(forward)
}

/// A reply in one word, `!` for a pick in it, and what it sends of a body.
fn word(reply: &ProcessingResponse) -> String {
    let of = |name: &str, common: Option<&CommonResponse>| {
        let common = common.expect("always there");
        let pick = common.header_mutation.is_some() && reply.dynamic_metadata.is_some();
        let pick = if pick { "!" } else { "" };
        let body = match common
            .body_mutation
            .as_ref()
            .and_then(|m| m.mutation.as_ref())
        {
            None => String::new(),
            Some(Mutation::Body(body)) => format!("={}", text(body)),
            Some(Mutation::ClearBody(_)) => "=".to_owned(),
            Some(Mutation::StreamedResponse(piece)) => {
                let end = if piece.end_of_stream { "." } else { "" };
                format!(":{}{end}", text(&piece.body))
            }
        };
        format!("{name}{pick}{body}")
    };
    match reply.response.as_ref().expect("always there") {
        Response::RequestHeaders(r) => of("head", r.response.as_ref()),
        Response::RequestBody(r) => of("body", r.response.as_ref()),
        Response::RequestTrailers(_) => "trailers".to_owned(),
        Response::ResponseHeaders(r) => of("HEAD", r.response.as_ref()),
        Response::ResponseBody(r) => of("BODY", r.response.as_ref()),
        Response::ResponseTrailers(_) => "TRAILERS".to_owned(),
        Response::ImmediateResponse(_) => "immediate".to_owned(),
    }
}

fn text(bytes: &Bytes) -> String {
    if bytes.len() > 20 {
        return format!("<{}>", bytes.len());
    }
    String::from_utf8_lossy(bytes).into_owned()
}

/// Feeds messages; a decision is answered with `verdict` at once, and stands as `?` and what was seen of the body.
fn run(
    machine: &mut Machine,
    messages: impl IntoIterator<Item = ProcessingRequest>,
    verdict: impl Fn() -> Verdict,
) -> String {
    let mut words = Vec::new();
    for message in messages {
        match machine.receive(message).expect("allowed") {
            Event::Decide(seen) => {
                words.push(format!(
                    "?{}",
                    match seen.body {
                        SeenBody::None => "none".to_owned(),
                        SeenBody::Unseen => "unseen".to_owned(),
                        SeenBody::Whole(body) => text(&body),
                        SeenBody::Part(body) => format!("{}...", text(&body)),
                        SeenBody::TooLarge => "large".to_owned(),
                    }
                ));
                machine.decided(verdict());
            }
            Event::AnswerHead(answer) => words.push(
                if answer.body_follows {
                    "*head+"
                } else {
                    "*head"
                }
                .to_owned(),
            ),
            Event::AnswerPiece(piece) => {
                let end = if piece.last { "." } else { "" };
                words.push(format!("*{}{end}", text(&piece.bytes)));
            }
            Event::AnswerTrailers => words.push("*trailers".to_owned()),
            Event::Nothing => {}
        }
        while let Some(reply) = machine.reply() {
            words.push(word(&reply));
        }
    }
    words.join(" ")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mode_has_its_order_of_replies() {
    use BodySendMode::{Buffered, BufferedPartial, FullDuplexStreamed, None, Streamed};
    let big = vec![b'x'; PIECE + 1];
    let answer = || {
        vec![
            answer_head(false),
            answer_body(b"a", false),
            answer_body(b"", true),
        ]
    };
    let table: Vec<(&str, Vec<ProcessingRequest>, &str)> = vec![
        (
            "full duplex: head held, then body; several ends",
            [
                vec![
                    with_modes(FullDuplexStreamed, FullDuplexStreamed, false),
                    body(b"ab", false),
                    body(b"cd", false),
                    body(b"", true),
                    body(b"", true),
                ],
                answer(),
                vec![answer_body(b"", true)],
            ]
            .concat(),
            "?abcd head! body:abcd. *head+ HEAD *a BODY:a *. BODY:.",
        ),
        (
            "full duplex: trailers end both bodies",
            vec![
                with_modes(FullDuplexStreamed, FullDuplexStreamed, false),
                body(b"ab", false),
                trailers(),
                answer_head(false),
                answer_body(b"a", false),
                answer_trailers(),
            ],
            "?ab head! body:ab trailers *head+ HEAD *a BODY:a *trailers TRAILERS",
        ),
        (
            "full duplex: a body that is empty after all",
            vec![
                with_modes(FullDuplexStreamed, FullDuplexStreamed, false),
                body(b"", true),
            ],
            "? head! body:.",
        ),
        (
            "full duplex: no body",
            vec![
                with_modes(FullDuplexStreamed, FullDuplexStreamed, true),
                answer_head(true),
            ],
            "?none head! *head HEAD",
        ),
        (
            "full duplex: long bodies go in pieces",
            vec![
                with_modes(FullDuplexStreamed, FullDuplexStreamed, false),
                body(&big, true),
                answer_head(false),
                answer_body(&big, true),
            ],
            "?<62001> head! body:<62000> body:x. *head+ HEAD *<62001>. BODY:<62000> BODY:x.",
        ),
        (
            "buffered: head at once, pick with the body",
            [
                vec![with_modes(Buffered, Streamed, false), body(b"ab", true)],
                answer(),
            ]
            .concat(),
            "head ?ab body! *head+ HEAD *a BODY *. BODY",
        ),
        (
            "buffered: no body",
            vec![with_modes(Buffered, None, true), answer_head(false)],
            "?none head! *head HEAD",
        ),
        (
            "buffered: body, then trailers",
            vec![
                with_modes(Buffered, None, false),
                body(b"ab", false),
                trailers(),
            ],
            "head ?ab body! trailers",
        ),
        (
            "buffered: trailers alone",
            vec![with_modes(Buffered, None, false), trailers()],
            "head ? trailers",
        ),
        (
            "buffered in part",
            vec![with_modes(BufferedPartial, None, false), body(b"ab", false)],
            "head ?ab... body!",
        ),
        (
            "streamed: pick with the head, one reply each",
            [
                vec![
                    with_modes(Streamed, Streamed, false),
                    body(b"ab", false),
                    body(b"", true),
                    trailers(),
                ],
                answer(),
            ]
            .concat(),
            "?unseen head! body body trailers *head+ HEAD *a BODY *. BODY",
        ),
        (
            "heads only",
            vec![with_modes(None, None, false), answer_head(false)],
            "?unseen head! *head HEAD",
        ),
        (
            "nothing said, body comes: full duplex",
            [
                vec![message(head(false)), body(b"ab", false), body(b"c", true)],
                answer(),
            ]
            .concat(),
            "?abc head! body:abc. *head+ HEAD *a BODY:a *. BODY:.",
        ),
        (
            "the proxy answers by itself in the middle",
            vec![
                with_modes(FullDuplexStreamed, FullDuplexStreamed, false),
                body(b"ab", false),
                answer_head(false),
                answer_body(b"a", true),
            ],
            "*head+ HEAD *a. BODY:a.",
        ),
        (
            "an answer without its head",
            vec![
                with_modes(None, FullDuplexStreamed, true),
                answer_body(b"a", true),
            ],
            "?none head! *a. BODY:a.",
        ),
    ];
    for (name, messages, expected) in table {
        let mut machine = Machine::new(LIMIT);
        let found = run(&mut machine, messages, picked);
        assert_eq!(found, expected, "{name}");
        assert!(machine.closed().is_ok(), "{name}");
    }
}

#[test]
fn a_rewritten_body_goes_where_the_mode_wants_it() {
    use BodySendMode::{Buffered, FullDuplexStreamed, None};
    let new = || rewritten([b"A", b"B", b"C"]);
    for (mode, expected) in [
        (FullDuplexStreamed, "?ab head! body:ABC."),
        (Buffered, "head ?ab body!=ABC"),
    ] {
        let mut machine = Machine::new(LIMIT);
        let messages = [with_modes(mode, None, false), body(b"ab", true)];
        assert_eq!(run(&mut machine, messages, new), expected);
    }
}

#[test]
fn a_refusal_is_the_last_word() {
    let refuse = || Verdict::Refuse(Box::default());
    let mut machine = Machine::new(LIMIT);
    let duplex = BodySendMode::FullDuplexStreamed;
    let messages = [
        with_modes(duplex, duplex, false),
        body(b"ab", true),
        body(b"more", true),
        answer_head(true),
    ];
    assert_eq!(run(&mut machine, messages, refuse), "?ab immediate");
    assert!(machine.is_over());
}

#[test]
fn a_request_that_must_end_is_answered_while_it_can_be() {
    let duplex = BodySendMode::FullDuplexStreamed;
    let streamed = BodySendMode::Streamed;
    let event = Some(Bytes::from_static(b"bye"));
    let begun = |mode, more: &[ProcessingRequest]| {
        [&[with_modes(duplex, mode, true), answer_head(false)], more].concat()
    };
    let piece = [answer_body(b"data", false)];
    let end = [answer_body(b"", true)];
    for (messages, event, said, over) in [
        (
            vec![with_modes(duplex, duplex, true)],
            event.clone(),
            Some("immediate"),
            true,
        ),
        (begun(duplex, &[]), event.clone(), Some("BODY:bye."), false),
        (
            begun(duplex, &piece),
            event.clone(),
            Some("BODY:bye."),
            false,
        ),
        (begun(duplex, &piece), None, None, true),
        (begun(duplex, &end), event.clone(), None, true),
        (begun(streamed, &piece), event, None, true),
    ] {
        let mut machine = Machine::new(LIMIT);
        let _ = run(&mut machine, messages, picked);
        let answered = machine.interrupt(ImmediateResponse::default(), event);
        assert_eq!(answered, said.is_some());
        let reply = machine.reply().map(|reply| word(&reply));
        assert_eq!(reply.as_deref(), said);
        assert_eq!(machine.is_over(), over);
        // What the server still says reaches nobody.
        if !over {
            assert_eq!(run(&mut machine, piece.clone(), picked), "");
        }
    }
}

#[test]
fn a_body_over_the_limit_is_not_held() {
    for pieces in [
        vec![LIMIT + 1],
        vec![LIMIT, 1],
        vec![LIMIT - 5, 0, 6, LIMIT],
    ] {
        let duplex = BodySendMode::FullDuplexStreamed;
        let mut machine = Machine::new(LIMIT);
        let bodies = pieces.iter().map(|size| body(&vec![0; *size], false));
        let messages = std::iter::once(with_modes(duplex, duplex, false)).chain(bodies);
        let refuse = || Verdict::Refuse(Box::default());
        assert_eq!(
            run(&mut machine, messages, refuse),
            "?large immediate",
            "{pieces:?}"
        );
        assert_eq!(machine.body.len(), 0);
    }
}

#[test]
fn messages_that_do_not_belong_are_violations() {
    let duplex = BodySendMode::FullDuplexStreamed;
    let ok = || with_modes(duplex, duplex, true);
    let unknown_mode = |number| ProcessingRequest {
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: number,
            ..ProtocolConfiguration::default()
        }),
        ..message(head(false))
    };
    let table = [
        (vec![ProcessingRequest::default()], Violation::Empty),
        (vec![body(b"a", true)], Violation::NoHead),
        (vec![trailers()], Violation::NoHead),
        (vec![answer_head(true)], Violation::NoHead),
        (vec![answer_body(b"", true)], Violation::NoHead),
        (vec![ok(), ok()], Violation::SecondHead),
        (
            vec![ok(), answer_head(false), answer_head(false)],
            Violation::SecondHead,
        ),
        (vec![ok(), ProcessingRequest::default()], Violation::Empty),
        (vec![unknown_mode(5)], Violation::Mode(5)),
        (vec![unknown_mode(-1)], Violation::Mode(-1)),
    ];
    for (messages, expected) in table {
        let mut machine = Machine::new(LIMIT);
        let mut last = None;
        for message in messages {
            last = machine.receive(message).err();
        }
        assert_eq!(last, Some(expected));
    }
}

#[test]
fn an_end_in_the_middle_of_a_request_is_an_error() {
    let duplex = BodySendMode::FullDuplexStreamed;
    let mut machine = Machine::new(LIMIT);
    assert_eq!(machine.closed(), Ok(()), "before anything was said");
    for messages in [
        vec![with_modes(duplex, duplex, false)],
        vec![with_modes(duplex, duplex, false), body(b"a", false)],
        vec![with_modes(duplex, duplex, false), body(b"a", true)],
    ] {
        let mut machine = Machine::new(LIMIT);
        for message in messages {
            let _ = machine.receive(message).unwrap();
        }
        assert_eq!(machine.closed(), Err(Violation::EndedEarly));
    }
}

#[test]
fn a_proxy_that_waits_without_saying_so_is_answered() {
    let mut machine = Machine::new(LIMIT);
    assert!(matches!(machine.nothing_came(), Event::Nothing));
    assert!(matches!(
        machine.receive(message(head(false))),
        Ok(Event::Nothing)
    ));
    assert!(machine.may_be_waited_for());
    let Event::Decide(seen) = machine.nothing_came() else {
        panic!("a decision is due");
    };
    assert_eq!(seen.body, SeenBody::Unseen);
    // What comes while the decision is made is owed a reply each.
    let early = [body(b"a", false), body(b"b", true)];
    assert_eq!(run(&mut machine, early, picked), "");
    machine.decided(picked());
    let mut words = Vec::new();
    while let Some(reply) = machine.reply() {
        words.push(word(&reply));
    }
    assert_eq!(words.join(" "), "head! body body");
    assert!(!machine.may_be_waited_for());
    assert!(matches!(machine.nothing_came(), Event::Nothing));
}

#[test]
fn an_observer_is_never_answered() {
    let duplex = BodySendMode::FullDuplexStreamed;
    let mut machine = Machine::new(LIMIT);
    let mut first = with_modes(duplex, duplex, false);
    first.observability_mode = true;
    let messages = [
        first,
        body(b"a", true),
        answer_head(false),
        answer_body(b"a", true),
    ];
    assert_eq!(run(&mut machine, messages, picked), "");
    assert!(machine.closed().is_ok());
}

#[test]
fn the_body_that_goes_back_is_the_memory_that_came() {
    let duplex = BodySendMode::FullDuplexStreamed;
    let mut machine = Machine::new(LIMIT);
    let bytes = Bytes::from(vec![7; 200_000]);
    let _ = machine.receive(with_modes(duplex, duplex, false)).unwrap();
    let event = machine
        .receive(message(Request::RequestBody(HttpBody {
            body: bytes.clone(),
            end_of_stream: true,
        })))
        .unwrap();
    assert!(matches!(event, Event::Decide(_)));
    machine.decided(picked());
    let mut at = 0;
    while let Some(reply) = machine.reply() {
        let Some(Response::RequestBody(reply)) = reply.response else {
            continue;
        };
        let mutation = reply.response.and_then(|c| c.body_mutation?.mutation);
        let Some(Mutation::StreamedResponse(piece)) = mutation else {
            panic!("a piece");
        };
        assert_eq!(piece.body.as_ptr(), bytes[at..].as_ptr());
        at += piece.body.len();
    }
    assert_eq!(at, bytes.len());
}
