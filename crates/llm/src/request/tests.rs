use proptest::prelude::*;

use super::*;
use crate::{ChainSeed, PrefixChain, splice_model};

const JSON_DIALECTS: [Dialect; 13] = [
    Dialect::ChatCompletions,
    Dialect::Completions,
    Dialect::Embeddings,
    Dialect::Responses,
    Dialect::Messages,
    Dialect::CountTokens,
    Dialect::Rerank,
    Dialect::Score,
    Dialect::Classify,
    Dialect::Pooling,
    Dialect::Tokenize,
    Dialect::Detokenize,
    Dialect::Generate,
];

fn chat(body: &str) -> Result<RequestView<'_>> {
    read(
        Dialect::ChatCompletions,
        Some("application/json"),
        body.as_bytes(),
    )
}

fn chain(dialect: Dialect, body: &str) -> PrefixChain {
    let view = read(dialect, None, body.as_bytes()).expect(body);
    view.prompt.chain(&ChainSeed {
        model: "m",
        cache_salt: None,
    })
}

#[test]
fn everything_a_chat_says() {
    let body = r#" {"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},
        "max_tokens":5,"max_completion_tokens":7,"n":2,"cache_salt":"s\u0041","priority":-3,"unknown":{"model":[1,{}]},
        "model":"Qwen\/Qwen3"}"#;
    let view = chat(body).expect("valid");
    let model = view.model.expect("named");
    assert_eq!(model.name, "Qwen/Qwen3");
    assert_eq!(&body[model.span], r#""Qwen\/Qwen3""#);
    assert!(view.stream && view.include_usage);
    assert_eq!(
        (view.max_tokens, view.n, view.priority),
        (Some(7), 2, Some(-3))
    );
    assert_eq!(view.cache_salt.as_deref(), Some("sA"));
    assert_eq!(view.reserved_field, None);
    assert!(!view.prompt.is_empty());
}

#[test]
fn what_is_borrowed_stays_borrowed() {
    let view = chat(r#"{"model":"m","cache_salt":"s","messages":[]}"#).expect("valid");
    assert!(matches!(
        view.model,
        Some(ModelField {
            name: Cow::Borrowed("m"),
            ..
        })
    ));
    assert!(matches!(view.cache_salt, Some(Cow::Borrowed("s"))));
}

#[test]
fn bad_models() {
    use RequestError as E;
    let cases = [
        (r#"{"messages":[]}"#, E::ModelMissing { at: 14 }),
        (r"{}", E::ModelMissing { at: 1 }),
        (r#"{"model":null}"#, E::ModelMissing { at: 9 }),
        (r#"{"model":1}"#, E::ModelNotAString { at: 9 }),
        (r#"{"model":true}"#, E::ModelNotAString { at: 9 }),
        (r#"{"model": ["a"]}"#, E::ModelNotAString { at: 10 }),
        (r#"{"model":{"model":"a"}}"#, E::ModelNotAString { at: 9 }),
        (r#"{"model":"\ud800"}"#, E::ModelNotAString { at: 9 }),
        (r#"{"model":"a","model":"b"}"#, E::ModelTwice { at: 13 }),
        (
            r#"{"model":"a","mod\u0065l":"a"}"#,
            E::ModelTwice { at: 13 },
        ),
        (r#"{"model":null,"model":"b"}"#, E::ModelTwice { at: 14 }),
        (
            r#"{"model":1,"model":"b","model":2}"#,
            E::ModelTwice { at: 11 },
        ),
        (r#"["model"]"#, E::NotAnObject { at: 0 }),
        (r#" "model""#, E::NotAnObject { at: 1 }),
        (r"null", E::NotAnObject { at: 0 }),
    ];
    for (body, wanted) in cases {
        let error = chat(body).expect_err(body);
        assert_eq!(error, wanted, "{body}");
        assert!(
            error
                .message()
                .ends_with(&format!("at byte {}", error.at())),
            "{error}"
        );
    }
}

#[test]
fn broken_json_beats_a_bad_model() {
    let cases = [
        (r#"{"model":"a","x": tru GARBAGE"#, 18),
        ("{\"model\":\"a\",\"x\":\"\u{1}\"}", 18),
        (r#"{"model":"a"} trailing"#, 14),
        (r#"{"model":"a","model":"b""#, 24),
        (r#"{"model":1,"x":NaN}"#, 15),
        (r#"[1,2"#, 4),
    ];
    for (body, at) in cases {
        let error = chat(body).expect_err(body);
        assert_eq!(
            (error.code(), error.at()),
            ("invalid_json", at),
            "{body}: {error}"
        );
    }
    let error = read(
        Dialect::Completions,
        None,
        b"{\"model\":\"a\",\"prompt\":\"\xff\"}",
    )
    .expect_err("not UTF-8");
    assert_eq!((error.code(), error.at()), ("invalid_json", 23));
    for depth in [200, 1_000_000] {
        let body = format!(r#"{{"model":"a","messages":{}"#, "[".repeat(depth));
        assert_eq!(
            chat(&body).map_err(|e| e.code()).err(),
            Some("json_too_deep")
        );
        let body = format!(r#"{{"model":"a","x":{}"#, r#"{"a":["#.repeat(depth));
        assert_eq!(
            chat(&body).map_err(|e| e.code()).err(),
            Some("json_too_deep")
        );
    }
}

#[test]
fn which_dialects_need_a_model() {
    for dialect in JSON_DIALECTS {
        let needs = read(dialect, None, b"{}").err() == Some(RequestError::ModelMissing { at: 1 });
        assert_eq!(needs, needs_model(dialect), "{dialect:?}");
        assert_eq!(
            read(dialect, None, br#"{"model":null}"#).is_err(),
            needs,
            "{dialect:?}"
        );
        assert!(
            read(dialect, None, br#"{"model":2}"#).is_err(),
            "{dialect:?}"
        );
        assert!(
            read(dialect, None, br#"{"model":""}"#).is_ok(),
            "{dialect:?}"
        );
    }
}

#[test]
fn fields_of_a_wrong_type_are_the_servers_to_judge() {
    let body = r#"{"model":"m","messages":5,"stream":[],"stream_options":1,"max_tokens":"x","n":-1,"cache_salt":{},
        "priority":"high","tools":{},"stop":1e999}"#;
    let view = chat(body).expect("forwardable");
    assert_eq!(
        (view.stream, view.include_usage, view.max_tokens, view.n),
        (false, false, None, 1)
    );
    assert_eq!((view.cache_salt, view.priority), (None, None));
    for dialect in JSON_DIALECTS {
        for value in [
            "5",
            "null",
            "[5]",
            "[null]",
            "[[]]",
            "[[[]]]",
            r#"{"a":1}"#,
            r#"[{"role":5,"content":{}}]"#,
            "true",
        ] {
            for field in [
                "messages",
                "prompt",
                "input",
                "system",
                "tools",
                "query",
                "documents",
                "instructions",
                "text",
            ] {
                let body = format!(r#"{{"model":"m","{field}":{value}}}"#);
                assert!(
                    read(dialect, None, body.as_bytes()).is_ok(),
                    "{dialect:?} {body}"
                );
            }
        }
    }
}

#[test]
fn truth_and_numbers_as_servers_take_them() {
    for (raw, wanted) in [
        ("true", true),
        ("1", true),
        ("\"true\"", true),
        ("false", false),
        ("0", false),
        ("null", false),
    ] {
        let body = format!(r#"{{"model":"m","stream":{raw}}}"#);
        assert_eq!(chat(&body).expect("valid").stream, wanted, "{raw}");
    }
    for (raw, wanted) in [
        ("16", Some(16)),
        ("16.0", Some(16)),
        ("1e2", Some(100)),
        ("-1", None),
        ("1e99", Some(u32::MAX)),
    ] {
        let body = format!(r#"{{"model":"m","max_tokens":{raw}}}"#);
        assert_eq!(chat(&body).expect("valid").max_tokens, wanted, "{raw}");
    }
}

#[test]
fn repeated_fields_count_last() {
    let first = chain(
        Dialect::Completions,
        &format!(r#"{{"model":"m","prompt":"{}"}}"#, "b".repeat(600)),
    );
    let body = format!(
        r#"{{"model":"m","prompt":["{}","x"],"prompt":"{}"}}"#,
        "a".repeat(600),
        "b".repeat(600)
    );
    assert_eq!(chain(Dialect::Completions, &body), first);
}

#[test]
fn reserved_fields_are_found_wherever_servers_read_them() {
    let cases = [
        (r#""kv_transfer_params":{}"#, Some("kv_transfer_params")),
        (
            r#""kv_transfer_p\u0061rams":{"a":1}"#,
            Some("kv_transfer_params"),
        ),
        (r#""kv_transfer_params":null"#, None),
        (
            r#""vllm_xargs":{"kv_transfer_params":"x"}"#,
            Some("kv_transfer_params"),
        ),
        (
            r#""extra_args":{"a":1,"ec_transfer_params":{}}"#,
            Some("ec_transfer_params"),
        ),
        (
            r#""sampling_params":{"extra_args":{"kv_transfer_params":{}}}"#,
            Some("kv_transfer_params"),
        ),
        (
            r#""bootstrap_host":"10.0.0.1","bootstrap_room":1"#,
            Some("bootstrap_host"),
        ),
        (r#""routed_dp_rank":0"#, Some("routed_dp_rank")),
        (r#""cache_hit_threshold":0.5"#, Some("cache_hit_threshold")),
        (r#""metadata":{"kv_transfer_params":{}}"#, None),
        (r#""kv_transfer_param":{}"#, None),
    ];
    for dialect in JSON_DIALECTS {
        for (fields, wanted) in cases {
            let body = format!(r#"{{"model":"m",{fields}}}"#);
            let view = read(dialect, None, body.as_bytes()).expect("valid");
            assert_eq!(view.reserved_field, wanted, "{dialect:?} {fields}");
        }
    }
}

#[test]
fn responses_state() {
    let read = |body: &'static str| read(Dialect::Responses, None, body.as_bytes()).expect("valid");
    let view = read(
        r#"{"model":"m","input":"x","previous_response_id":"resp_1","conversation":{"id":"conv_1"}}"#,
    );
    assert_eq!(view.previous_response_id.as_deref(), Some("resp_1"));
    assert_eq!(view.conversation.as_deref(), Some("conv_1"));
    assert_eq!(
        read(r#"{"model":"m","conversation":"conv_2"}"#)
            .conversation
            .as_deref(),
        Some("conv_2")
    );
}

#[test]
fn splicing_a_name_that_needs_escapes() {
    let body = bytes::Bytes::from_static(br#"{ "model" : "old" , "n": 1.50 }"#);
    let span = chat(std::str::from_utf8(&body).expect("text"))
        .expect("valid")
        .model
        .expect("named")
        .span;
    let [head, value, tail] = splice_model(&body, span, true, "a\"b\\c\n");
    assert_eq!(head, br#"{ "model" : "#.as_slice());
    assert_eq!(value, br#""a\"b\\c\n""#.as_slice());
    assert_eq!(tail, br#" , "n": 1.50 }"#.as_slice());
    assert_eq!(head.as_ptr(), body.as_ptr(), "no copy");
}

proptest! {
    /// Whatever else the body holds, only the model's value changes, and the new one reads back.
    #[test]
    fn splicing_changes_the_model_alone(
        before in proptest::collection::btree_map("[a-l]{1,6}", ".{0,20}", 0..4),
        after in proptest::collection::btree_map("[n-z]{1,6}", any::<f64>().prop_filter("finite", |x| x.is_finite()), 0..4),
        old in ".{0,12}",
        new in ".{0,12}",
    ) {
        let text = |value: &str| serde_json::to_string(value).expect("a string");
        let front: String = before.iter().map(|(key, value)| format!("\"{key}\" :\t{},", text(value))).collect();
        let back: String = after.iter().map(|(key, value)| format!(", \"{key}\":{value:e}")).collect();
        let body = format!("{{{front}\"model\":{}{back}}}", text(&old));
        let view = chat(&body).expect("valid");
        let model = view.model.expect("named");
        prop_assert_eq!(&model.name, &old);
        let parts = splice_model(&bytes::Bytes::from(body.clone()), model.span, true, &new);
        let spliced = String::from_utf8(parts.concat()).expect("text");
        prop_assert_eq!(&spliced, &format!("{{{front}\"model\":{}{back}}}", text(&new)));
        let again = chat(&spliced).expect("valid").model.expect("named");
        prop_assert_eq!(again.name, new);
    }

    /// No bytes make reading panic, in any dialect.
    #[test]
    fn reading_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for dialect in JSON_DIALECTS {
            let _ = read(dialect, None, &body).map(|view| view.prompt.chain(&ChainSeed { model: "m", cache_salt: None }));
        }
        let _ = read(Dialect::AudioTranscriptions, Some("multipart/form-data; boundary=b"), &body);
    }
}
