use proptest::prelude::*;

use super::*;
use crate::{Dialect, read};

fn seeded(dialect: Dialect, body: &str, model: &str, cache_salt: Option<&str>) -> PrefixChain {
    read(dialect, None, body.as_bytes())
        .expect(body)
        .prompt
        .chain(&ChainSeed { model, cache_salt })
}

fn chain(dialect: Dialect, body: &str) -> PrefixChain {
    seeded(dialect, body, "m", None)
}

fn completion(prompt: &str) -> PrefixChain {
    let prompt = serde_json::to_string(prompt).expect("a string");
    chain(
        Dialect::Completions,
        &format!(r#"{{"model":"m","prompt":{prompt}}}"#),
    )
}

/// How many leading hashes two chains share.
fn shared(a: &PrefixChain, b: &PrefixChain) -> usize {
    a.hashes
        .iter()
        .zip(&b.hashes)
        .take_while(|(a, b)| a == b)
        .count()
}

#[test]
fn the_formula() {
    let text = "x".repeat(600);
    let stream = [&[Tag::Text as u8][..], text.as_bytes()].concat();
    let first = xxh64(&stream[..256], xxh64(b"m", 0));
    let second = xxh64(&stream[256..512], first);
    let chain = completion(&text);
    assert_eq!(chain.hashes, [first, second]);
    assert_eq!(
        (chain.prompt_bytes, chain.prompt_tokens, chain.block_bytes),
        (601, 151, 256)
    );
}

#[test]
fn model_and_salt_change_everything() {
    let body = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(2000));
    let all: Vec<_> = [
        ("m", None),
        ("m", Some("")),
        ("m", Some("a")),
        ("m", Some("b")),
        ("n", None),
        ("n", Some("a")),
    ]
    .into_iter()
    .map(|(model, salt)| seeded(Dialect::Completions, &body, model, salt))
    .collect();
    for (i, a) in all.iter().enumerate() {
        assert_eq!(a.hashes.len(), 7);
        for b in &all[..i] {
            assert_eq!(shared(a, b), 0);
            assert!(a.hashes.iter().all(|hash| !b.hashes.contains(hash)));
        }
    }
}

fn conversation(system: &str, turns: &[(&str, &str)]) -> String {
    let turns: Vec<_> = turns
        .iter()
        .map(|(role, text)| serde_json::json!({"role": role, "content": text}))
        .collect();
    let mut messages = vec![serde_json::json!({"role": "system", "content": system})];
    messages.extend(turns);
    serde_json::json!({"model": "m", "messages": messages}).to_string()
}

#[test]
fn a_conversation_that_goes_on_keeps_its_prefix() {
    let long = "lorem ipsum ".repeat(100);
    let one = chain(
        Dialect::ChatCompletions,
        &conversation(&long, &[("user", &long)]),
    );
    let two = chain(
        Dialect::ChatCompletions,
        &conversation(
            &long,
            &[("user", &long), ("assistant", "ok"), ("user", &long)],
        ),
    );
    assert_eq!(shared(&one, &two), one.hashes.len());
    assert!(two.hashes.len() > one.hashes.len());
    let other = chain(
        Dialect::ChatCompletions,
        &conversation("short", &[("user", &long)]),
    );
    assert_eq!(shared(&one, &other), 0, "another system prompt");
    let role = chain(
        Dialect::ChatCompletions,
        &conversation(&long, &[("assistant", &long)]),
    );
    assert_eq!(shared(&one, &role), 4, "the same up to the role");
}

#[test]
fn the_same_prompt_in_other_clothes() {
    let long = "word ".repeat(200);
    let same = [
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{long}\n"}}]}}"#),
        format!(
            r#"{{"messages":[{{"content":"{long}\n","role":"user"}}],"model":"m","temperature":1}}"#
        ),
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"{long}\n"}}]}}]}}"#
        ),
        format!(
            r#"{{"model":"m","messages":[ {{"id":"x","role":"user","content":"{long}\u000a"}} ]}}"#
        ),
        format!(r#"{{"model":"m","messages":[[{{"role":"user","content":"{long}\u000a"}}]]}}"#),
    ];
    let wanted = chain(Dialect::ChatCompletions, &same[0]);
    for body in &same {
        assert_eq!(chain(Dialect::ChatCompletions, body), wanted, "{body}");
    }
    let responses = [
        format!(r#"{{"model":"m","input":"{long}\n"}}"#),
        format!(r#"{{"model":"m","input":[{{"role":"user","content":"{long}\n"}}]}}"#),
        format!(
            r#"{{"model":"m","input":[{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{long}\n"}}]}}]}}"#
        ),
    ];
    for body in &responses {
        assert_eq!(chain(Dialect::Responses, body), wanted, "{body}");
    }
    let messages = format!(
        r#"{{"messages":[{{"role":"user","content":"{long}\n"}}],"system":"{long}","model":"m"}}"#
    );
    let openai = conversation(&long, &[("user", &format!("{long}\n"))]);
    assert_eq!(
        chain(Dialect::Messages, &messages),
        chain(Dialect::ChatCompletions, &openai)
    );
}

#[test]
fn tools_come_first_wherever_they_stand() {
    let tools = format!(
        r#"[{{"type":"function","function":{{"name":"f","description":"{}"}}}}]"#,
        "d".repeat(600)
    );
    let long = "x".repeat(600);
    let turn = format!(r#"[{{"role":"user","content":"{long}"}}]"#);
    let front = chain(
        Dialect::ChatCompletions,
        &format!(r#"{{"tools":{tools},"messages":{turn},"model":"m"}}"#),
    );
    let back = chain(
        Dialect::ChatCompletions,
        &format!(r#"{{"model":"m","messages":{turn},"tools":{tools}}}"#),
    );
    assert_eq!(front, back);
    let other =
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"y"}}],"tools":{tools}}}"#);
    assert_eq!(shared(&front, &chain(Dialect::ChatCompletions, &other)), 2);
    let without = chain(
        Dialect::ChatCompletions,
        &format!(r#"{{"model":"m","messages":{turn}}}"#),
    );
    assert_eq!(shared(&front, &without), 0);
    let empty = chain(
        Dialect::ChatCompletions,
        &format!(r#"{{"model":"m","messages":{turn},"tools":[]}}"#),
    );
    assert_eq!(empty, without);
}

#[test]
fn the_billing_line_does_not_count() {
    let body = |line: &str| {
        let long = "s".repeat(600);
        format!(
            r#"{{"model":"m","system":[{line}{{"type":"text","text":"{long}"}}],"messages":[]}}"#
        )
    };
    let plain = chain(Dialect::Messages, &body(""));
    for n in [1, 2] {
        let line = format!(r#"{{"type":"text","text":"x-anthropic-billing-header: cch={n}"}},"#);
        assert_eq!(chain(Dialect::Messages, &body(&line)), plain);
    }
}

fn image(url: &str) -> PrefixChain {
    let text = "t".repeat(300);
    let parts = format!(
        r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}},{{"type":"text","text":"{text}"}}"#
    );
    chain(
        Dialect::ChatCompletions,
        &format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}},{parts}]}}]}}"#
        ),
    )
}

#[test]
fn attachments_count_by_digest() {
    let small = image("data:image/png;base64,AAAA");
    let large = image(&format!("data:image/png;base64,{}", "A".repeat(100_000)));
    assert_eq!(small.media, 1);
    assert_eq!(
        small.prompt_tokens, large.prompt_tokens,
        "base64 is not text"
    );
    assert_eq!(
        shared(&small, &large),
        1,
        "the text in front is shared, the image is not"
    );
    assert_eq!(image("https://x/a.png"), image("https:\\/\\/x\\/a.png"));
    assert_eq!(small.hashes.len(), (300 + 4 * 768 + 300) / 256);
}

#[test]
fn every_shape_of_attachment() {
    let parts = [
        r#"{"type":"image_url","image_url":{"url":"u","detail":"low"}}"#,
        r#"{"type":"input_image","image_url":"u"}"#,
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"u"}}"#,
        r#"{"type":"image","source":{"type":"url","url":"u"}}"#,
        r#"{"type":"document","source":{"type":"url","url":"u"}}"#,
        r#"{"type":"input_audio","input_audio":{"data":"u","format":"wav"}}"#,
        r#"{"type":"video_url","video_url":{"url":"u"}}"#,
        r#"{"type":"input_file","file_id":"u"}"#,
        r#"{"type":"file","file":{"file_data":"u"}}"#,
        r#"{"type":"image_url","image_url":null,"uuid":"u"}"#,
    ];
    for part in parts {
        let one = |part: &str| {
            chain(
                Dialect::ChatCompletions,
                &format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#),
            )
        };
        assert_eq!(one(part).media, 1, "{part}");
        assert!(one(part).prompt_tokens > 500, "{part}");
        assert_eq!(
            shared(&one(part), &one(&part.replace("\"u\"", "\"v\""))),
            0,
            "{part}"
        );
    }
}

#[test]
fn tool_calls_count_without_their_ids() {
    let body = |id: &str, arguments: &str| {
        chain(
            Dialect::ChatCompletions,
            &format!(
                r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"id":"{id}","type":"function",
                "function":{{"name":"f","arguments":"{arguments}"}}}}]}},{{"role":"tool","tool_call_id":"{id}",
                "content":"{}"}}]}}"#,
                "r".repeat(600)
            ),
        )
    };
    assert_eq!(body("call_1", "{}"), body("call_2", "{}"));
    assert_eq!(shared(&body("call_1", "{}"), &body("call_1", "[]")), 0);
    let block = |input: &str, id: &str| {
        chain(
            Dialect::Messages,
            &format!(
                r#"{{"model":"m","messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"{id}","name":"f",
                "input":{input}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{id}",
                "content":[{{"type":"text","text":"{}"}}]}}]}}]}}"#,
                "r".repeat(600)
            ),
        )
    };
    assert_eq!(block(r#"{"a":1}"#, "x"), block(r#"{"a":1}"#, "y"));
    assert_eq!(
        shared(&block(r#"{"a":1}"#, "x"), &block(r#"{"a":2}"#, "x")),
        0
    );
}

#[test]
fn token_ids_count_four_bytes() {
    let ids = |n: u32| {
        (0..n)
            .map(|id| (id * 7).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let body = |prompt: String| {
        chain(
            Dialect::Completions,
            &format!(r#"{{"model":"m","prompt":{prompt}}}"#),
        )
    };
    let long = body(format!("[{}]", ids(200)));
    assert_eq!((long.prompt_tokens, long.hashes.len()), (200, 3));
    assert_eq!(shared(&long, &body(format!("[{}]", ids(128)))), 2);
    assert_eq!(body(format!("[[{}]]", ids(200))), long);
    let several = body(format!("[[{}],[{}]]", ids(200), ids(50)));
    assert_eq!((several.prompt_tokens, several.hashes), (250, long.hashes));
}

#[test]
fn of_several_prompts_the_first_gives_the_prefix() {
    let (a, b) = ("a".repeat(600), "b".repeat(400));
    let list = chain(
        Dialect::Completions,
        &format!(r#"{{"model":"m","prompt":["{a}","{b}"]}}"#),
    );
    let one = completion(&a);
    assert_eq!(list.hashes, one.hashes);
    assert!(list.prompt_tokens >= one.prompt_tokens + 100);
    let rank = |query: &str| {
        chain(
            Dialect::Rerank,
            &format!(r#"{{"model":"m","documents":["{b}",{{"text":"{a}"}}],"query":"{query}"}}"#),
        )
    };
    assert_eq!(
        shared(&rank(&a), &rank(&b)),
        0,
        "the query stands in front of the documents"
    );
    assert!(rank(&a).prompt_tokens > 350);
}

proptest! {
    /// Two texts share exactly the blocks that lie whole in their common prefix.
    #[test]
    fn shared_text_is_shared_blocks(common in ".{0,900}", a in "[a-m]{1,600}", b in "[n-z]{1,600}") {
        let (one, two) = (completion(&format!("{common}{a}")), completion(&format!("{common}{b}")));
        prop_assert_eq!(shared(&one, &two), (common.len() + 1) / BLOCK_BYTES);
        prop_assert_eq!(one.hashes.len(), one.prompt_bytes / BLOCK_BYTES);
    }

    /// Pushing in any pieces gives the same hashes.
    #[test]
    fn pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..2000), cuts in proptest::collection::vec(1..700_usize, 0..12)) {
        let mut whole = Blocks::new(7);
        whole.push(&bytes);
        let mut cut = Blocks::new(7);
        let mut rest = &bytes[..];
        for at in cuts {
            let (piece, later) = rest.split_at(at.min(rest.len()));
            cut.push(piece);
            rest = later;
        }
        cut.push(rest);
        prop_assert_eq!(whole.hashes, cut.hashes);
    }
}
