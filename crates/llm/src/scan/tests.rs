use proptest::prelude::*;

use super::*;

const SSE: Option<&str> = Some("text/event-stream; charset=utf-8");

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../tests/fixtures/", $name))
    };
}

/// Feeds an answer in pieces of the given lengths; tells the outcome, the tokens and how often the first one came.
fn scan(
    dialect: Dialect,
    kind: Option<&str>,
    body: &[u8],
    mut cuts: impl Iterator<Item = usize>,
) -> (Outcome, u32, u32) {
    let mut scanner = ResponseScanner::new(dialect, kind, 200);
    let (mut tokens, mut firsts) = (0, 0);
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        let signals = scanner.feed(piece);
        tokens += signals.tokens;
        firsts += u32::from(signals.first_token);
        rest = later;
    }
    (scanner.finish(), tokens, firsts)
}

fn whole(dialect: Dialect, body: &str) -> (Outcome, u32, u32) {
    scan(dialect, SSE, body.as_bytes(), std::iter::empty())
}

fn usage(prompt_tokens: u32, completion_tokens: u32, cached_tokens: Option<u32>) -> Option<Usage> {
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens,
    })
}

fn good(id: &str, reason: &'static str, usage: Option<Usage>) -> Outcome {
    Outcome {
        usage,
        finish_reason: Some(reason.into()),
        response_id: Some(id.into()),
        complete: true,
        ..Outcome::default()
    }
}

/// Streams as real servers sent them, and what is to be seen in them: outcome and content events.
fn streams() -> Vec<(&'static str, Dialect, Outcome, u32)> {
    let mut all = completion_streams();
    all.extend(event_streams());
    all
}

fn completion_streams() -> Vec<(&'static str, Dialect, Outcome, u32)> {
    let done = |outcome| Outcome {
        done_marker: true,
        ..outcome
    };
    let died = InBandError {
        code: "InternalServerError".into(),
        status: Some(500),
    };
    vec![
        (
            fixture!("vllm-completion-stream-usage.sse"),
            Dialect::Completions,
            done(good(
                "cmpl-996018c4684f1c06",
                "length",
                usage(6, 4, Some(0)),
            )),
            4,
        ),
        (
            fixture!("vllm-chat-stream-usage.sse"),
            Dialect::ChatCompletions,
            done(good(
                "chatcmpl-805b60e73f200324",
                "length",
                usage(21, 3, Some(16)),
            )),
            3,
        ),
        (
            fixture!("vllm-chat-tools-named-stream.sse"),
            Dialect::ChatCompletions,
            done(good(
                "chatcmpl-a8f794afd9e94d18",
                "length",
                usage(113, 24, Some(96)),
            )),
            0,
        ),
        (
            fixture!("vllm-ending-abort.sse"),
            Dialect::Completions,
            Outcome {
                aborted: true,
                ..done(good("cmpl-1", "abort", None))
            },
            1,
        ),
        (
            fixture!("vllm-ending-engine-died.sse"),
            Dialect::Completions,
            Outcome {
                response_id: Some("cmpl-1".into()),
                in_band_error: Some(died),
                ..done(Outcome {
                    complete: true,
                    ..Outcome::default()
                })
            },
            1,
        ),
    ]
}

fn event_streams() -> Vec<(&'static str, Dialect, Outcome, u32)> {
    vec![
        (
            fixture!("vllm-messages-stream.sse"),
            Dialect::Messages,
            good(
                "chatcmpl-b4d4f7dadce3d880",
                "max_tokens",
                usage(21, 3, Some(0)),
            ),
            3,
        ),
        (
            fixture!("llamacpp-messages-stream.sse"),
            Dialect::Messages,
            good(
                "chatcmpl-N16PmZ6fOIAo7sge36Jtk9Su4EfLbyHC",
                "max_tokens",
                usage(21, 3, Some(20)),
            ),
            3,
        ),
        (
            fixture!("llamacpp-responses-stream.sse"),
            Dialect::Responses,
            good(
                "resp_HnyzpyeU0RrXVGUvAeFKHOWXh0GkjZGJ",
                "completed",
                usage(14, 3, Some(13)),
            ),
            3,
        ),
    ]
}

#[test]
fn real_streams_cut_at_every_byte() {
    for (body, dialect, wanted, tokens) in streams() {
        let crlf = body.replace('\n', "\r\n");
        for body in [body, &crlf] {
            let expected = (wanted.clone(), tokens, tokens.min(1));
            for at in 1..=body.len() {
                assert_eq!(
                    scan(dialect, SSE, body.as_bytes(), std::iter::once(at)),
                    expected,
                    "cut at {at} in {body}"
                );
            }
            assert_eq!(
                scan(dialect, SSE, body.as_bytes(), std::iter::repeat(1)),
                expected,
                "byte by byte"
            );
        }
    }
}

#[test]
fn a_stream_that_breaks_off_is_not_complete() {
    for (body, dialect, _, _) in streams() {
        let end = body.trim_end().rfind("data: ").expect("a last event");
        for at in [0, 1, end / 2, end, end + 5, body.trim_end().len() - 1] {
            let (outcome, ..) = scan(dialect, SSE, &body.as_bytes()[..at], std::iter::empty());
            assert!(
                !outcome.complete && !outcome.done_marker,
                "{at} bytes of {body}"
            );
        }
    }
}

#[test]
fn what_must_be_sent_before_an_error_event() {
    let cases = [
        ("", ""),
        ("data: {}\n\n", ""),
        ("data: {}\r\n\r\n", ""),
        (": ping\n\n", ""),
        ("data: {}\n", "\n"),
        ("data: {}\n\ndata: {\"a", "\n\n"),
        ("event: x\n", "\n"),
        ("d", "\n\n"),
    ];
    for (sent, wanted) in cases {
        let mut scanner = ResponseScanner::new(Dialect::ChatCompletions, SSE, 200);
        scanner.feed(sent.as_bytes());
        assert_eq!(scanner.pending_line_end(), wanted.as_bytes(), "{sent:?}");
    }
}

fn chat_event(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n"
    )
}

#[test]
fn what_counts_as_content() {
    let cases = [
        (r#"{"role":"assistant","content":""}"#, 0),
        (r#"{"role":"assistant","content":null}"#, 0),
        (r#"{"role":"assistant"}"#, 0),
        (r"{}", 0),
        (r#"{"content":"x"}"#, 1),
        (r#"{"role":"assistant","content":"x"}"#, 1),
        (r#"{"reasoning_content":"x","content":null}"#, 1),
        (r#"{"reasoning":"x"}"#, 1),
        (
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#,
            1,
        ),
        (r#"{"tool_calls":[]}"#, 0),
    ];
    for (delta, tokens) in cases {
        assert_eq!(
            whole(Dialect::ChatCompletions, &chat_event(delta)).1,
            tokens,
            "{delta}"
        );
    }
    let two = "data: {\"choices\":[{\"index\":0,\"text\":\"a\"},{\"index\":1,\"text\":\"b\"}]}\n\n";
    assert_eq!(whole(Dialect::Completions, two).1, 2);
}

#[test]
fn lines_that_are_no_data_say_nothing() {
    for line in [
        ": comment",
        "event: error",
        "id: 1",
        "retry: 5",
        "data",
        "data:",
        "data: x",
        "data: [1]",
        "data: {\"error\":",
        "dat: {}",
    ] {
        let (outcome, tokens, _) = whole(Dialect::ChatCompletions, &format!("{line}\n\n"));
        assert_eq!((outcome, tokens), (Outcome::default(), 0), "{line}");
    }
}

#[test]
fn a_prompt_cannot_fake_an_ending() {
    let text = serde_json::to_string(r#"data: [DONE] {"error":{"code":500},"finish_reason":"abort","usage":{"prompt_tokens":9}}"#)
        .expect("a string");
    let (outcome, tokens, _) = whole(
        Dialect::ChatCompletions,
        &chat_event(&format!("{{\"content\":{text}}}")),
    );
    assert_eq!(
        (outcome, tokens),
        (
            Outcome {
                response_id: Some("c".into()),
                ..Outcome::default()
            },
            1
        )
    );
}

#[test]
fn errors_of_each_dialect() {
    let cases = [
        (
            Dialect::ChatCompletions,
            r#"{"error":{"message":"secret","type":"x y","code":503}}"#,
            "x y",
            Some(503),
        ),
        (
            Dialect::ChatCompletions,
            r#"{"error":{"code":"rate_limit"}}"#,
            "rate_limit",
            None,
        ),
        (
            Dialect::ChatCompletions,
            r#"{"error":"secret"}"#,
            "error",
            None,
        ),
        (
            Dialect::Messages,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"secret"}}"#,
            "overloaded_error",
            None,
        ),
        (
            Dialect::Responses,
            r#"{"type":"error","code":"ERR","message":"secret","sequence_number":1}"#,
            "ERR",
            None,
        ),
        (
            Dialect::Responses,
            r#"{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"server_error","message":"secret"}}}"#,
            "server_error",
            None,
        ),
    ];
    for (dialect, data, code, status) in cases {
        let (outcome, ..) = whole(dialect, &format!("event: x\ndata: {data}\n\n"));
        assert_eq!(
            outcome.in_band_error,
            Some(InBandError {
                code: code.into(),
                status
            }),
            "{data}"
        );
        assert!(!format!("{outcome:?}").contains("secret"), "{data}");
    }
}

#[test]
fn long_lines_are_judged_by_their_ends() {
    let text = "t\\\"usage\\\":{\\\"input_tokens\\\":1}".repeat(20_000);
    let delta = chat_event(&format!("{{\"content\":\"{text}\"}}"));
    let event = format!(
        "event: response.completed\ndata: {{\"response\":{{\"id\":\"r1\",\"output\":[\"{text}\"],\"status\":\"completed\",\"usage\":\
         {{\"input_tokens\":14,\"input_tokens_details\":{{\"cached_tokens\":2}},\"output_tokens\":3}},\"user\":null}},\
         \"sequence_number\":9,\"type\":\"response.completed\"}}\n\n"
    );
    for size in [1000, 8191, 70_000, 1_000_000] {
        let cut =
            |dialect, body: &str| scan(dialect, SSE, body.as_bytes(), std::iter::repeat(size));
        assert_eq!(cut(Dialect::ChatCompletions, &delta).1, 1);
        let (outcome, tokens, _) = cut(Dialect::Responses, &event);
        assert_eq!(
            (outcome, tokens),
            (good("r1", "completed", usage(14, 3, Some(2))), 0),
            "{size}"
        );
    }
}

#[test]
fn long_lines_are_not_kept() {
    let mut scanner = ResponseScanner::new(Dialect::ChatCompletions, SSE, 200);
    scanner.feed(b"data: {\"");
    for _ in 0..1000 {
        scanner.feed(&[b'x'; 16_384]);
    }
    assert!(scanner.held.head().len() + scanner.held.tail().len() <= 80 * 1024);
}

#[test]
fn unstreamed_answers() {
    let json = Some("application/json");
    let cases = [
        (
            fixture!("vllm-completion.json"),
            good("cmpl-9903a1e9fb471dfa", "length", usage(6, 4, Some(0))),
        ),
        (
            fixture!("vllm-chat.json"),
            good("chatcmpl-a018f570b3bef228", "length", usage(21, 4, Some(0))),
        ),
        (
            fixture!("vllm-responses.json"),
            good(
                "resp_9d1533fab732e043",
                "max_output_tokens",
                usage(14, 4, Some(0)),
            ),
        ),
        (
            fixture!("vllm-messages.json"),
            good(
                "chatcmpl-ac4c5b5d8ef247e3",
                "max_tokens",
                usage(21, 4, Some(0)),
            ),
        ),
        (
            fixture!("llamacpp-messages.json"),
            good(
                "chatcmpl-9HmXAEY3FCG9YoJzaOjAUlueB0vAeUQJ",
                "max_tokens",
                usage(21, 4, Some(20)),
            ),
        ),
        (
            fixture!("llamacpp-responses.json"),
            good(
                "resp_8RSubyfIwFsBC1YQHMmXPlOLOAnfnYxu",
                "completed",
                usage(14, 4, Some(3)),
            ),
        ),
        (
            r#"{"text":"x","meta_info":{"id":"i","finish_reason":{"type":"length","length":4},"prompt_tokens":5,"completion_tokens":4,"cached_tokens":1}}"#,
            Outcome {
                response_id: None,
                ..good("", "length", usage(5, 4, Some(1)))
            },
        ),
    ];
    for (body, wanted) in cases {
        for size in [1, 7, 100_000] {
            let (outcome, tokens, firsts) = scan(
                Dialect::ChatCompletions,
                json,
                body.as_bytes(),
                std::iter::repeat(size),
            );
            assert_eq!((&outcome, tokens, firsts), (&wanted, 0, 0), "{body}");
        }
        let (outcome, ..) = scan(
            Dialect::ChatCompletions,
            json,
            &body.as_bytes()[..body.len() / 2],
            std::iter::empty(),
        );
        assert_eq!(outcome, Outcome::default(), "half of {body}");
    }
}

#[test]
fn an_unstreamed_answer_can_be_aborted_or_an_error() {
    let json = Some("application/json");
    let aborted = br#"{"id":"c","choices":[{"index":0,"text":"a","finish_reason":"abort"}]}"#;
    let (outcome, ..) = scan(Dialect::Completions, json, aborted, std::iter::empty());
    assert!(outcome.aborted && outcome.complete);
    let error = br#"{"error":{"message":"x","type":"InternalServerError","code":500}}"#;
    let (outcome, ..) = scan(Dialect::Completions, json, error, std::iter::empty());
    assert_eq!(
        outcome.in_band_error.and_then(|error| error.status),
        Some(500)
    );
}

#[test]
fn a_long_unstreamed_answer() {
    let body = format!(
        r#"{{"id":"embd-1","data":[{}],"model":"m","usage":{{"prompt_tokens":7,"total_tokens":7,"completion_tokens":0}}}}"#,
        "0.25,".repeat(100_000) + "1"
    );
    let (outcome, ..) = scan(
        Dialect::Embeddings,
        Some("application/json"),
        body.as_bytes(),
        std::iter::repeat(9999),
    );
    let wanted = Outcome {
        finish_reason: None,
        ..good("embd-1", "", usage(7, 0, None))
    };
    assert_eq!(outcome, wanted);
}

#[test]
fn llamacpps_own_stream() {
    let body = "data: {\"index\":0,\"content\":\"a\",\"tokens\":[1],\"stop\":false}\n\n\
                data: {\"index\":0,\"content\":\"\",\"stop\":true,\"tokens_predicted\":4,\"tokens_evaluated\":6}\n\n";
    let (outcome, tokens, _) = whole(Dialect::Completions, body);
    assert_eq!(
        (outcome.usage, outcome.complete, tokens),
        (usage(6, 4, None), true, 1)
    );
}

#[test]
fn other_bodies_pass_unseen() {
    for (kind, status) in [
        (SSE, 503),
        (Some("application/json"), 500),
        (Some("audio/wav"), 200),
        (None, 200),
    ] {
        let mut scanner = ResponseScanner::new(Dialect::ChatCompletions, kind, status);
        assert_eq!(scanner.feed(b"{\"error\":{}}\n\n"), Signals::default());
        assert_eq!(
            scanner.finish(),
            Outcome {
                complete: true,
                ..Outcome::default()
            }
        );
    }
}

proptest! {
    /// However a stream is cut, the same is seen in it.
    #[test]
    fn cuts_do_not_matter(cuts in proptest::collection::vec(1..400_usize, 0..30)) {
        for (body, dialect, wanted, tokens) in streams() {
            let seen = scan(dialect, SSE, body.as_bytes(), cuts.iter().copied());
            prop_assert_eq!(seen, (wanted, tokens, tokens.min(1)));
        }
    }

    /// No bytes make scanning panic.
    #[test]
    fn scanning_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for kind in [SSE, Some("application/json")] {
            scan(Dialect::Responses, kind, &body, std::iter::repeat(17));
            scan(Dialect::Responses, kind, &[b"data: ", &body[..], b"\n"].concat(), std::iter::repeat(17));
        }
    }
}

/// vLLM tells the whole prompt first, when it does not know yet what is cached, and the parts at the end.
#[test]
fn cached_tokens_of_messages_are_counted_once() {
    let body = concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"id":"c","usage":{"input_tokens":759,"output_tokens":0}}}"#,
        "\n\nevent: message_delta\n",
        r#"data: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":23,"output_tokens":3,"cache_creation_input_tokens":128,"cache_read_input_tokens":608}}"#,
        "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let (outcome, ..) = scan(Dialect::Messages, SSE, body.as_bytes(), std::iter::empty());
    assert_eq!(outcome.usage, usage(759, 3, Some(608)));
    assert!(outcome.complete);
}
