//! Text in all four dialects, whole and streamed.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod support;

use serde_json::{Value, json};
use support::{fast, get, post, request, send, start};

fn chat(max_tokens: u32) -> Value {
    json!({
        "model": "tiny", "messages": [{"role": "user", "content": "tell me about trains and points"}],
        "max_tokens": max_tokens, "ignore_eos": true,
    })
}

fn with(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_chat_answers_with_usage() {
    let sim = start(fast()).await;
    let reply = post(&sim, "/v1/chat/completions", &chat(7)).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    let body = reply.json();
    assert_eq!(
        (&body["object"], &body["model"]),
        (&json!("chat.completion"), &json!("tiny"))
    );
    let choice = &body["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["role"]),
        (&json!("length"), &json!("assistant"))
    );
    assert_eq!(
        choice["message"]["content"]
            .as_str()
            .unwrap()
            .split(' ')
            .count(),
        7
    );
    assert_eq!(body["usage"]["completion_tokens"], 7);
    assert_eq!(
        body["usage"]["total_tokens"].as_u64(),
        body["usage"]["prompt_tokens"].as_u64().map(|p| p + 7)
    );
}

#[tokio::test]
async fn a_chat_streams_one_event_a_token() {
    let sim = start(fast()).await;
    let whole = post(&sim, "/v1/chat/completions", &chat(5)).await.json();
    let streamed = with(
        chat(5),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let reply = post(&sim, "/v1/chat/completions", &streamed).await;
    assert_eq!(
        reply.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    let chunks = reply.chunks();
    assert_eq!(chunks.len(), 1 + 5 + 1, "role, tokens, usage");
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let text: String = chunks[1..6]
        .iter()
        .map(|c| c["choices"][0]["delta"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(json!(text), whole["choices"][0]["message"]["content"]);
    let reasons: Vec<&Value> = chunks[..6]
        .iter()
        .map(|c| &c["choices"][0]["finish_reason"])
        .collect();
    assert!(reasons[..5].iter().all(|reason| reason.is_null()));
    assert_eq!(reasons[5], "length");
    assert_eq!(
        (
            &chunks[6]["choices"],
            &chunks[6]["usage"]["completion_tokens"]
        ),
        (&json!([]), &json!(5))
    );
    assert!(chunks[..6].iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn usage_in_streams_is_optional_and_can_be_continuous() {
    let sim = start(fast()).await;
    let bare = post(
        &sim,
        "/v1/chat/completions",
        &with(chat(2), json!({"stream": true})),
    )
    .await;
    assert_eq!(bare.chunks().len(), 3);
    let options = json!({"stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let all = post(&sim, "/v1/chat/completions", &with(chat(2), options)).await;
    let counts: Vec<u64> = all
        .chunks()
        .iter()
        .map(|c| c["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [0, 1, 2, 2]);
}

#[tokio::test]
async fn an_equal_prompt_hits_the_prefix_cache() {
    let sim = start(fast()).await;
    let long = "points and signals for every train on the line ".repeat(20);
    let body = json!({"model": "tiny", "prompt": long, "max_tokens": 2});
    let cached = |reply: &Value| {
        reply["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    let first = post(&sim, "/v1/completions", &body).await.json();
    assert_eq!(cached(&first), 0);
    let second = post(&sim, "/v1/completions", &body).await.json();
    let prompt = second["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached(&second), (prompt - 1) / 16 * 16);
    let salted = post(
        &sim,
        "/v1/completions",
        &with(body, json!({"cache_salt": "other"})),
    )
    .await
    .json();
    assert_eq!(cached(&salted), 0);
}

#[tokio::test]
async fn the_next_turn_hits_the_answer() {
    let sim = start(fast()).await;
    let first = post(&sim, "/v1/chat/completions", &chat(64)).await.json();
    let turns = json!([
        {"role": "user", "content": "tell me about trains and points"},
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": "go on"},
    ]);
    let second = post(
        &sim,
        "/v1/chat/completions",
        &with(chat(2), json!({"messages": turns})),
    )
    .await
    .json();
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    let both = first["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(
        cached,
        (both - 1) / 16 * 16,
        "the last token's keys are never computed"
    );
}

#[tokio::test]
async fn completions_take_text_ids_and_lists() {
    let sim = start(fast()).await;
    for (prompt, choices) in [
        (json!("hello world"), 2),
        (json!([1, 2, 3]), 2),
        (json!(["a", "b", "c"]), 6),
        (json!([[1, 2], [3]]), 4),
    ] {
        let body =
            json!({"model": "tiny", "prompt": prompt, "n": 2, "max_tokens": 3, "ignore_eos": true});
        let reply = post(&sim, "/v1/completions", &body).await.json();
        let got = reply["choices"].as_array().unwrap();
        assert_eq!(got.len(), choices, "{prompt}");
        assert_eq!(reply["usage"]["completion_tokens"], 3 * choices);
        assert!(
            got.iter()
                .enumerate()
                .all(|(i, choice)| choice["index"] == i)
        );
    }
}

#[tokio::test]
async fn streams_of_several_choices_end_once_each() {
    let sim = start(fast()).await;
    let body = json!({"model": "tiny", "prompt": ["a", "b"], "n": 2, "max_tokens": 4, "ignore_eos": true, "stream": true});
    let reply = post(&sim, "/v1/completions", &body).await;
    let chunks = reply.chunks();
    for index in 0..4 {
        let own: Vec<&Value> = chunks
            .iter()
            .map(|c| &c["choices"][0])
            .filter(|c| c["index"] == index)
            .collect();
        assert_eq!(own.len(), 4);
        assert_eq!(
            own.iter()
                .filter(|c| c["finish_reason"] == "length")
                .count(),
            1
        );
    }
    assert_eq!(reply.events().last(), Some(&"[DONE]"));
}

#[tokio::test]
async fn stop_strings_and_natural_ends_stop() {
    let sim = start(fast()).await;
    let whole = post(&sim, "/v1/chat/completions", &chat(30)).await.json();
    let text = whole["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let stop = text.split(' ').nth(3).unwrap();
    let cut = post(
        &sim,
        "/v1/chat/completions",
        &with(chat(30), json!({"stop": stop})),
    )
    .await
    .json();
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    assert_eq!(cut["choices"][0]["stop_reason"], stop);
    assert_eq!(
        cut["choices"][0]["message"]["content"],
        text[..text.find(stop).unwrap()]
    );
    let free = with(chat(1000), json!({"ignore_eos": false}));
    let free = post(&sim, "/v1/chat/completions", &free).await.json();
    assert_eq!(free["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn forced_tools_and_schemas_are_met() {
    let sim = start(fast()).await;
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters":
        {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}}}}]);
    let choice = json!({"type": "function", "function": {"name": "weather"}});
    let fields = json!({"tools": tools, "tool_choice": choice, "ignore_eos": false});
    let reply = post(
        &sim,
        "/v1/chat/completions",
        &with(chat(100), fields.clone()),
    )
    .await
    .json();
    let choice = &reply["choices"][0];
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (&choice["finish_reason"], &call["name"]),
        (&json!("tool_calls"), &json!("weather"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string());
    let streamed = with(with(chat(100), fields), json!({"stream": true}));
    let streamed = post(&sim, "/v1/chat/completions", &streamed).await;
    let deltas = streamed.chunks();
    let text: String = deltas
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), arguments);
}

#[tokio::test]
async fn anthropic_messages_speak_their_dialect() {
    let sim = start(fast()).await;
    let body = json!({"model": "tiny", "max_tokens": 3, "ignore_eos": true, "system": "be brief",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]});
    let whole = post(&sim, "/v1/messages", &body).await.json();
    assert_eq!(
        (&whole["type"], &whole["stop_reason"]),
        (&json!("message"), &json!("max_tokens"))
    );
    assert_eq!(whole["usage"]["output_tokens"], 3);
    let counted = post(&sim, "/v1/messages/count_tokens", &body).await.json();
    assert_eq!(counted["input_tokens"], whole["usage"]["input_tokens"]);
    let reply = post(&sim, "/v1/messages", &with(body, json!({"stream": true}))).await;
    let kinds: Vec<String> = reply
        .chunks()
        .iter()
        .map(|c| c["type"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, expected);
    assert!(!reply.text().contains("[DONE]"));
    let error = post(
        &sim,
        "/v1/messages",
        &json!({"model": "tiny", "messages": []}),
    )
    .await;
    assert_eq!(
        (error.status.as_u16(), &error.json()["type"]),
        (400, &json!("error"))
    );
}

#[tokio::test]
async fn responses_are_stored_and_continued() {
    let sim = start(fast()).await;
    let body =
        json!({"model": "tiny", "input": "hello", "max_output_tokens": 40, "ignore_eos": true});
    let first = post(&sim, "/v1/responses", &body).await.json();
    assert_eq!(
        (&first["status"], &first["usage"]["output_tokens"]),
        (&json!("incomplete"), &json!(40))
    );
    let id = first["id"].as_str().unwrap();
    assert_eq!(
        get(&sim, &format!("/v1/responses/{id}")).await.json(),
        first
    );
    let next = json!({"model": "tiny", "input": "more", "previous_response_id": id, "max_output_tokens": 2, "stream": true});
    let reply = post(&sim, "/v1/responses", &next).await;
    let chunks = reply.chunks();
    assert_eq!(chunks[0]["type"], "response.created");
    let last = &chunks.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert!(
        last["response"]["usage"]["input_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
            >= 16
    );
    assert!(
        chunks
            .iter()
            .enumerate()
            .all(|(i, chunk)| chunk["sequence_number"] == i)
    );
    let deleted = send(
        &sim,
        request(
            http::Method::DELETE,
            &format!("/v1/responses/{id}"),
            &[],
            "",
        ),
    )
    .await;
    assert_eq!(deleted.json()["deleted"], true);
    assert_eq!(get(&sim, &format!("/v1/responses/{id}")).await.status, 404);
    let lost = post(
        &sim,
        "/v1/responses",
        &json!({"input": "x", "previous_response_id": id}),
    )
    .await;
    assert_eq!(lost.status, 404);
}

#[tokio::test]
async fn request_ids_name_the_answer() {
    let sim = start(fast()).await;
    let body = json!({"prompt": "x", "max_tokens": 1}).to_string();
    let reply = send(
        &sim,
        request(
            http::Method::POST,
            "/v1/completions",
            &[("x-request-id", "abc-123")],
            body,
        ),
    )
    .await;
    assert_eq!(reply.json()["id"], "cmpl-abc-123");
}

#[tokio::test]
async fn logprobs_have_alternatives() {
    let sim = start(fast()).await;
    let body = with(chat(2), json!({"logprobs": true, "top_logprobs": 3}));
    let reply = post(&sim, "/v1/chat/completions", &body).await.json();
    let content = reply["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(
        (
            content.len(),
            content[0]["top_logprobs"].as_array().unwrap().len()
        ),
        (2, 3)
    );
    let body = json!({"prompt": "x", "max_tokens": 2, "ignore_eos": true, "logprobs": 1});
    let reply = post(&sim, "/v1/completions", &body).await.json();
    assert_eq!(
        reply["choices"][0]["logprobs"]["text_offset"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
