//! Whole answers: the bodies of requests that do not stream.

use serde_json::{Value, json};

use crate::generation::{Choice, Generation};
use crate::request::Wishes;
use crate::tokens;

/// Names this program as vLLM names its build.
pub(crate) const FINGERPRINT: &str = concat!("pointsman-sim-", env!("CARGO_PKG_VERSION"));

/// OpenAI's usage object.
pub(crate) fn usage(generation: &Generation) -> Value {
    let (prompt, completion) = (generation.prompt_tokens, generation.generated());
    json!({
        "prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion,
        "prompt_tokens_details": {
            "cached_tokens": generation.cached_tokens(), "created_cache_tokens": null, "multimodal_tokens": null,
        },
        "completion_tokens_details": null,
    })
}

/// `/v1/completions`.
pub(crate) fn completion(generation: &Generation, wishes: &Wishes) -> Value {
    let choices = generation.choices.iter().enumerate().map(|(index, choice)| {
        json!({
            "index": index, "text": choice.text(), "logprobs": completion_logprobs(choice, wishes),
            "finish_reason": choice.reason, "stop_reason": choice.plan.stopped_by, "token_ids": null,
            "prompt_logprobs": null, "prompt_token_ids": null,
        })
    });
    json!({
        "id": format!("cmpl-{}", wishes.id), "object": "text_completion", "created": wishes.created,
        "model": wishes.model, "choices": choices.collect::<Vec<_>>(), "service_tier": null,
        "system_fingerprint": FINGERPRINT, "usage": usage(generation), "kv_transfer_params": null,
    })
}

/// `/v1/chat/completions`.
pub(crate) fn chat(generation: &Generation, wishes: &Wishes) -> Value {
    let choices = generation.choices.iter().enumerate().map(|(index, choice)| {
        let logprobs = wishes.logprobs.map(|top| {
            let tokens = (0..choice.tokens()).map(|i| token_logprob(choice.plan.slice(i, i + 1), top));
            json!({"content": tokens.collect::<Vec<_>>()})
        });
        json!({
            "index": index, "message": message(choice, wishes, index), "logprobs": logprobs,
            "finish_reason": chat_reason(choice.reason, wishes), "stop_reason": choice.plan.stopped_by,
            "token_ids": null,
        })
    });
    json!({
        "id": format!("chatcmpl-{}", wishes.id), "object": "chat.completion", "created": wishes.created,
        "model": wishes.model, "choices": choices.collect::<Vec<_>>(), "service_tier": null,
        "system_fingerprint": FINGERPRINT, "usage": usage(generation), "prompt_logprobs": null,
        "prompt_token_ids": null, "kv_transfer_params": null,
    })
}

fn message(choice: &Choice, wishes: &Wishes, index: usize) -> Value {
    let mut message = json!({
        "role": "assistant", "content": choice.text(), "refusal": null, "annotations": null, "audio": null,
        "function_call": null, "reasoning": null,
    });
    if let Some(tool) = &wishes.tool {
        let call = json!({
            "id": tool_call_id(wishes, index), "type": "function",
            "function": {"name": tool, "arguments": choice.text()},
        });
        message["content"] = Value::Null;
        message["tool_calls"] = json!([call]);
    }
    message
}

/// The id of the tool call of a choice.
pub(crate) fn tool_call_id(wishes: &Wishes, index: usize) -> String {
    format!("chatcmpl-tool-{}-{index}", wishes.id)
}

/// The finish reason as the chat API calls it.
pub(crate) fn chat_reason(reason: Option<&'static str>, wishes: &Wishes) -> Option<&'static str> {
    match reason {
        Some("stop") if wishes.tool.is_some() => Some("tool_calls"),
        other => other,
    }
}

/// One token of a chat's logprobs. The numbers are made up, but sorted and negative.
pub(crate) fn token_logprob(piece: &str, top: u32) -> Value {
    let entry = |piece: &str, rank: u32| {
        let logprob = -0.5 - f64::from(rank) * 0.75;
        json!({"token": piece, "logprob": logprob, "bytes": piece.as_bytes()})
    };
    let others = (0..top).map(|rank| match rank {
        0 => entry(piece, 0),
        rank => entry(
            tokens::decode(tokens::token_id(piece).wrapping_add(rank)),
            rank,
        ),
    });
    let mut token = entry(piece, 0);
    token["top_logprobs"] = Value::Array(others.collect());
    token
}

fn completion_logprobs(choice: &Choice, wishes: &Wishes) -> Option<Value> {
    let top = wishes.logprobs?;
    let pieces: Vec<&str> = (0..choice.tokens())
        .map(|i| choice.plan.slice(i, i + 1))
        .collect();
    let offsets: Vec<usize> = pieces
        .iter()
        .scan(0, |at, piece| {
            Some(std::mem::replace(at, *at + piece.len()))
        })
        .collect();
    let tops = pieces.iter().map(|piece| {
        let token = token_logprob(piece, top.max(1));
        let ranked = token["top_logprobs"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let named = ranked
            .iter()
            .filter_map(|t| Some((t["token"].as_str()?.to_owned(), t["logprob"].clone())));
        Value::Object(named.collect())
    });
    Some(json!({
        "text_offset": offsets, "token_logprobs": vec![-0.5; pieces.len()], "tokens": pieces,
        "top_logprobs": tops.collect::<Vec<_>>(),
    }))
}

/// `/v1/messages`.
pub(crate) fn anthropic(generation: &Generation, wishes: &Wishes) -> Value {
    let choice = &generation.choices[0];
    let content = match &wishes.tool {
        Some(tool) => json!({
            "type": "tool_use", "id": format!("toolu_{}", wishes.id), "name": tool,
            "input": serde_json::from_str::<Value>(choice.text()).unwrap_or_else(|_| json!({})),
        }),
        None => json!({"type": "text", "text": choice.text()}),
    };
    json!({
        "id": format!("chatcmpl-{}", wishes.id), "type": "message", "role": "assistant", "content": [content],
        "model": wishes.model, "stop_reason": anthropic_reason(choice, wishes),
        "stop_sequence": choice.plan.stopped_by, "usage": anthropic_usage(generation),
    })
}

/// Anthropic's usage object: tokens read from the cache do not count as input.
pub(crate) fn anthropic_usage(generation: &Generation) -> Value {
    let cached = generation.cached_tokens();
    json!({
        "input_tokens": generation.prompt_tokens - cached, "output_tokens": generation.generated(),
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
    })
}

/// Anthropic's word for how a choice ended.
pub(crate) fn anthropic_reason(choice: &Choice, wishes: &Wishes) -> Option<&'static str> {
    match choice.reason {
        Some("length") => Some("max_tokens"),
        Some("stop") if wishes.tool.is_some() => Some("tool_use"),
        Some("stop") if choice.plan.stopped_by.is_some() => Some("stop_sequence"),
        Some("stop") => Some("end_turn"),
        other => other,
    }
}

/// `/v1/responses`; without the output while it is in progress.
pub(crate) fn response(
    generation: &Generation,
    wishes: &Wishes,
    request: &Value,
    done: bool,
) -> Value {
    let choice = &generation.choices[0];
    let cut = done && choice.reason == Some("length");
    let status = match (done, choice.reason) {
        (false, _) => "in_progress",
        (_, Some("length")) => "incomplete",
        (_, Some("abort")) => "cancelled",
        _ => "completed",
    };
    let output = if done {
        vec![output_item(choice, wishes, "completed")]
    } else {
        Vec::new()
    };
    json!({
        "id": response_id(wishes), "created_at": wishes.created,
        "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
        "instructions": request.get("instructions"), "metadata": request.get("metadata"), "model": wishes.model,
        "object": "response", "output": output, "parallel_tool_calls": true,
        "temperature": request.get("temperature").cloned().unwrap_or_else(|| json!(1.0)), "tool_choice": "none",
        "tools": [], "top_p": request.get("top_p").cloned().unwrap_or_else(|| json!(1.0)), "background": false,
        "max_output_tokens": request.get("max_output_tokens"),
        "previous_response_id": request.get("previous_response_id"), "service_tier": "auto", "status": status,
        "truncation": "disabled", "usage": done.then(|| response_usage(generation)), "user": request.get("user"),
    })
}

/// The id under which a response is stored.
pub(crate) fn response_id(wishes: &Wishes) -> String {
    format!("resp_{}", wishes.id)
}

/// The message inside a response.
pub(crate) fn output_item(choice: &Choice, wishes: &Wishes, status: &str) -> Value {
    let content =
        json!({"annotations": [], "text": choice.text(), "type": "output_text", "logprobs": null});
    json!({
        "id": format!("msg_{}", wishes.id), "content": if status == "completed" { json!([content]) } else { json!([]) },
        "role": "assistant", "status": status, "type": "message",
    })
}

fn response_usage(generation: &Generation) -> Value {
    let (input, output) = (generation.prompt_tokens, generation.generated());
    json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": generation.cached_tokens()},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output,
    })
}
