//! Requests that read but do not write: embeddings and scores.
//!
//! They cost the engine what their prompts cost. Vectors are drawn from the text's hash and have length one; scores
//! measure the tokens that two texts share, so that rankings make sense.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use simulator::BlockHash;

use super::{Answer, Failure, json_answer};
use crate::error::ApiError;
use crate::generation::{Generation, Job};
use crate::metrics::unix_seconds;
use crate::request;
use crate::state::State;
use crate::tokens;

const DIMENSIONS: u64 = 384;
const MOST_DIMENSIONS: u64 = 65_536;

/// A pooling request that the engine has worked off.
struct Done {
    model: String,
    id: String,
    prompts: Vec<Vec<u32>>,
    usage: Value,
}

async fn run(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
    prompts: Vec<Vec<u32>>,
) -> Result<Done, Failure> {
    let model = request::model(state, body)?;
    let target = state.resolve(&model)?;
    let job = Job {
        model: model.clone(),
        target,
        prompts: prompts.clone(),
        n: 1,
        sampling: None,
        cache_salt: request::text(body, "cache_salt")?.map(str::to_owned),
        priority: 0,
    };
    let mut generation = Generation::start(state, job)?;
    super::generate::wait(&mut generation).await?;
    let tokens = generation.prompt_tokens;
    let usage = json!({
        "prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": null,
    });
    Ok(Done {
        model,
        id: request::request_id(state, headers),
        prompts,
        usage,
    })
}

/// `input` in any of its forms, or a chat's messages.
fn inputs(body: &Value) -> Result<Vec<Vec<u32>>, ApiError> {
    if body.get("messages").is_some_and(Value::is_array) {
        let mut ids = Vec::new();
        tokens::encode_chat(request::list(body, "messages")?, None, &mut ids);
        return Ok(vec![ids]);
    }
    let input = body
        .get("input")
        .filter(|input| !input.is_null())
        .ok_or_else(|| ApiError::missing("input"))?;
    request::prompts(input)
}

fn vector(ids: &[u32], dimensions: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(BlockHash::root(b"embedding").child(ids).0);
    let raw: Vec<f32> = (0..dimensions)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let length = raw
        .iter()
        .map(|x| x * x)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    raw.into_iter().map(|x| x / length).collect()
}

fn encoded(vector: &[f32], body: &Value) -> Value {
    if body.get("encoding_format").and_then(Value::as_str) == Some("base64") {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        return Value::from(STANDARD.encode(bytes));
    }
    json!(vector)
}

fn list(done: &Done, prefix: &str, data: Vec<Value>) -> Value {
    json!({
        "id": format!("{prefix}-{}", done.id), "object": "list", "created": unix_seconds() as u64,
        "model": done.model, "data": data, "usage": done.usage,
    })
}

fn dimensions(body: &Value) -> Result<u64, ApiError> {
    match body.get("dimensions").filter(|value| !value.is_null()) {
        None => Ok(DIMENSIONS),
        Some(value) => match value.as_u64() {
            Some(dimensions @ 1..=MOST_DIMENSIONS) => Ok(dimensions),
            _ => Err(ApiError::validation(
                "int_type",
                "dimensions",
                "Input should be a valid positive integer",
            )),
        },
    }
}

pub(super) async fn embeddings(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    let dimensions = dimensions(&body)?;
    let done = run(state, headers, &body, inputs(&body)?).await?;
    let data = done.prompts.iter().enumerate().map(|(index, ids)| {
        json!({"index": index, "object": "embedding", "embedding": encoded(&vector(ids, dimensions), &body)})
    });
    let data = data.collect();
    Ok(json_answer(StatusCode::OK, &list(&done, "embd", data)))
}

pub(super) async fn pooling(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    let dimensions = dimensions(&body)?;
    let done = run(state, headers, &body, inputs(&body)?).await?;
    let data = done.prompts.iter().enumerate().map(|(index, ids)| {
        json!({"index": index, "object": "pooling", "data": encoded(&vector(ids, dimensions), &body)})
    });
    let data = data.collect();
    Ok(json_answer(StatusCode::OK, &list(&done, "pool", data)))
}

pub(super) async fn classify(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    let done = run(state, headers, &body, inputs(&body)?).await?;
    let data = done.prompts.iter().enumerate().map(|(index, ids)| {
        let yes = f64::from(vector(ids, 2)[0].abs());
        let label = if yes >= 0.5 { "LABEL_1" } else { "LABEL_0" };
        json!({"index": index, "label": label, "probs": [1.0 - yes, yes], "num_classes": 2})
    });
    let data = data.collect();
    Ok(json_answer(StatusCode::OK, &list(&done, "classify", data)))
}

/// The text of a query or document: a string, or an object with `text`.
fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("text")?.as_str())
}

fn texts<'a>(body: &'a Value, names: &[&str]) -> Result<Vec<&'a str>, ApiError> {
    let found = names
        .iter()
        .find_map(|name| body.get(*name).filter(|value| !value.is_null()));
    let value = found.ok_or_else(|| ApiError::missing(names[0]))?;
    let texts: Option<Vec<&str>> = match value {
        Value::Array(items) => items.iter().map(text_of).collect(),
        one => text_of(one).map(|text| vec![text]),
    };
    let texts = texts.filter(|texts| !texts.is_empty());
    texts.ok_or_else(|| {
        ApiError::validation(
            "string_type",
            names[0],
            "Input should be a string or a list of strings",
        )
    })
}

/// A prompt for each pair, and the pairs' scores.
fn pairs(pairs: &[(&str, &str)]) -> (Vec<Vec<u32>>, Vec<f64>) {
    let encode = |text: &str| {
        let mut ids = Vec::new();
        tokens::encode(text, &mut ids);
        ids
    };
    let each = pairs.iter().map(|(query, document)| {
        let (mut query, document) = (encode(query), encode(document));
        let (a, b): (BTreeSet<u32>, BTreeSet<u32>) = (
            query.iter().copied().collect(),
            document.iter().copied().collect(),
        );
        let shared = a.intersection(&b).count() as f64 / a.union(&b).count().max(1) as f64;
        query.push(tokens::token_id("<|sep|>"));
        query.extend(document);
        (query, shared)
    });
    each.unzip()
}

pub(super) async fn rerank(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    let query = texts(&body, &["query"])?[0];
    let documents = texts(&body, &["documents"])?;
    let (prompts, scores) = pairs(
        &documents
            .iter()
            .map(|document| (query, *document))
            .collect::<Vec<_>>(),
    );
    let done = run(state, headers, &body, prompts).await?;
    let mut ranked: Vec<(usize, f64)> = scores.into_iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let top = body
        .get("top_n")
        .and_then(Value::as_u64)
        .filter(|top| *top > 0)
        .unwrap_or(u64::MAX);
    ranked.truncate(usize::try_from(top).unwrap_or(usize::MAX));
    let results = ranked.iter().map(|(index, score)| {
        json!({"index": index, "document": {"text": documents[*index], "multi_modal": null}, "relevance_score": score})
    });
    let value = json!({
        "id": format!("rerank-{}", done.id), "model": done.model, "usage": done.usage,
        "results": results.collect::<Vec<_>>(),
    });
    Ok(json_answer(StatusCode::OK, &value))
}

pub(super) async fn score(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    let first = texts(&body, &["text_1", "queries"])?;
    let second = texts(&body, &["text_2", "documents", "items"])?;
    if first.len() != 1 && first.len() != second.len() {
        return Err(ApiError::bad_request("Input lengths must be either 1:1, 1:N or N:N").into());
    }
    let both: Vec<(&str, &str)> = first.iter().copied().cycle().zip(second).collect();
    let (prompts, scores) = pairs(&both);
    let done = run(state, headers, &body, prompts).await?;
    let data = scores
        .iter()
        .enumerate()
        .map(|(index, score)| json!({"index": index, "object": "score", "score": score}));
    let data = data.collect();
    Ok(json_answer(StatusCode::OK, &list(&done, "score", data)))
}
