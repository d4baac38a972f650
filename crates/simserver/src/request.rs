//! From request bodies to jobs.
//!
//! Fields are read from a JSON value by name, as leniently as vLLM reads them: unknown ones are ignored, wrong types
//! answer 400 with the field's place.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::generation::Job;
use crate::plan::Sampling;
use crate::state::State;
use crate::tokens;

/// How a client wants its answer.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// Id without its prefix.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: u64,
    /// The name to answer with.
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// A last chunk with usage.
    pub(crate) final_usage: bool,
    /// Usage in every chunk.
    pub(crate) continuous_usage: bool,
    /// The function that must be called.
    pub(crate) tool: Option<String>,
    /// Alternatives to show for each token.
    pub(crate) logprobs: Option<u32>,
}

/// A parsed generation request.
pub(crate) struct Call {
    pub(crate) job: Job,
    pub(crate) wishes: Wishes,
}

/// Reads a body as JSON object.
pub(crate) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| ApiError::bad_json(body, &error))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::validation(
            "model_attributes_type",
            "",
            "Input should be a valid dictionary",
        ))
    }
}

fn present<'a>(body: &'a Value, field: &str) -> Option<&'a Value> {
    body.get(field).filter(|value| !value.is_null())
}

/// A string field.
pub(crate) fn text<'a>(body: &'a Value, field: &str) -> Result<Option<&'a str>, ApiError> {
    present(body, field)
        .map(|value| {
            value.as_str().ok_or_else(|| {
                ApiError::validation("string_type", field, "Input should be a valid string")
            })
        })
        .transpose()
}

fn number(body: &Value, field: &str) -> Result<Option<i64>, ApiError> {
    present(body, field)
        .map(|value| {
            value.as_i64().ok_or_else(|| {
                ApiError::validation("int_type", field, "Input should be a valid integer")
            })
        })
        .transpose()
}

fn flag(body: &Value, field: &str) -> Result<bool, ApiError> {
    present(body, field).map_or(Ok(false), |value| {
        value.as_bool().ok_or_else(|| {
            ApiError::validation("bool_type", field, "Input should be a valid boolean")
        })
    })
}

/// A list field that must be there.
pub(crate) fn list<'a>(body: &'a Value, field: &str) -> Result<&'a [Value], ApiError> {
    match present(body, field) {
        None => Err(ApiError::missing(field)),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(ApiError::validation(
            "list_type",
            field,
            "Input should be a valid list",
        )),
    }
}

/// The model's name; none, null and empty mean the base model.
pub(crate) fn model(state: &State, body: &Value) -> Result<String, ApiError> {
    let name = text(body, "model")?.filter(|name| !name.is_empty());
    Ok(name.unwrap_or(&state.options.base_names()[0]).to_owned())
}

/// `/v1/chat/completions`.
pub(crate) fn chat(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
) -> Result<Call, ApiError> {
    let messages = list(body, "messages")?;
    let mut ids = Vec::new();
    tokens::encode_chat(messages, present(body, "tools"), &mut ids);
    let max = number(body, "max_completion_tokens")?.or(number(body, "max_tokens")?);
    let mut call = call(state, headers, body, vec![ids], max)?;
    if flag(body, "logprobs")? {
        call.wishes.logprobs = Some(number(body, "top_logprobs")?.unwrap_or(0).clamp(0, 20) as u32);
    }
    let schema = forced_tool(body).or_else(|| response_schema(body).map(|schema| (None, schema)));
    apply_schema(&mut call, schema);
    Ok(call)
}

/// `/v1/completions`.
pub(crate) fn completion(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
) -> Result<Call, ApiError> {
    let prompts = match present(body, "prompt") {
        Some(prompt) => prompts(prompt)?,
        None => {
            let message = "Either prompt or prompt_embeds must be provided and non-empty.";
            return Err(ApiError::bad_request(message).param("prompt"));
        }
    };
    // The completions API stops at 16 tokens unless told otherwise.
    let max = number(body, "max_tokens")?.or(Some(16));
    let mut call = call(state, headers, body, prompts, max)?;
    call.wishes.logprobs = number(body, "logprobs")?.map(|n| n.clamp(0, 20) as u32);
    Ok(call)
}

/// `/v1/messages`, Anthropic's dialect.
pub(crate) fn messages(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
) -> Result<Call, ApiError> {
    let ids = message_tokens(body)?;
    let max = number(body, "max_tokens")?.ok_or_else(|| ApiError::missing("max_tokens"))?;
    let mut call = call(state, headers, body, vec![ids], Some(max))?;
    if let Some(sampling) = &mut call.job.sampling {
        sampling.stop.extend(stops(present(body, "stop_sequences")));
    }
    apply_schema(&mut call, forced_anthropic_tool(body));
    Ok(call)
}

/// Token ids of an Anthropic request.
pub(crate) fn message_tokens(body: &Value) -> Result<Vec<u32>, ApiError> {
    let turns = list(body, "messages")?;
    let mut ids = Vec::new();
    if let Some(system) = present(body, "system") {
        tokens::encode_turn("system", &mut ids, |ids| {
            tokens::encode_content(Some(system), ids);
        });
    }
    tokens::encode_chat(turns, present(body, "tools"), &mut ids);
    Ok(ids)
}

/// `/v1/responses`: the call and the conversation that it stands for.
pub(crate) fn responses(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
) -> Result<(Call, Vec<Value>), ApiError> {
    let mut turns = Vec::new();
    if let Some(previous) = text(body, "previous_response_id")? {
        let stored = state.responses.lock().get(previous).cloned();
        let stored = stored.ok_or_else(|| unknown_response(previous))?;
        turns.extend(stored.messages);
    }
    match present(body, "input") {
        Some(Value::String(input)) => turns.push(json!({"role": "user", "content": input})),
        Some(Value::Array(items)) => turns.extend(items.iter().cloned()),
        Some(_) => {
            return Err(ApiError::validation(
                "string_type",
                "input",
                "Input should be a valid string or list",
            ));
        }
        None => return Err(ApiError::missing("input")),
    }
    let mut ids = Vec::new();
    if let Some(instructions) = text(body, "instructions")? {
        tokens::encode_turn("system", &mut ids, |ids| tokens::encode(instructions, ids));
    }
    tokens::encode_chat(&turns, present(body, "tools"), &mut ids);
    let max = number(body, "max_output_tokens")?;
    Ok((call(state, headers, body, vec![ids], max)?, turns))
}

/// A response id that is not stored here.
pub(crate) fn unknown_response(id: &str) -> ApiError {
    let message = format!("Response with id '{id}' not found.");
    ApiError::new(http::StatusCode::NOT_FOUND, "NotFoundError", message).param("response_id")
}

/// Prompts of the completions API: text, token ids, or a list of either.
pub(crate) fn prompts(prompt: &Value) -> Result<Vec<Vec<u32>>, ApiError> {
    let bad = || {
        ApiError::validation(
            "string_type",
            "prompt",
            "Input should be a string, token ids, or a list of them",
        )
    };
    match prompt {
        Value::String(text) => Ok(vec![encoded(text)]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            Ok(vec![token_list(items).ok_or_else(bad)?])
        }
        Value::Array(items) if !items.is_empty() => {
            let each = items.iter().map(|item| match item {
                Value::String(text) => Some(encoded(text)),
                Value::Array(ids) => token_list(ids),
                _ => None,
            });
            each.collect::<Option<_>>().ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}

fn encoded(text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokens::encode(text, &mut ids);
    ids
}

fn token_list(items: &[Value]) -> Option<Vec<u32>> {
    items
        .iter()
        .map(|item| item.as_u64().and_then(|id| u32::try_from(id).ok()))
        .collect()
}

/// What all generation requests have in common.
fn call(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
    prompts: Vec<Vec<u32>>,
    max_tokens: Option<i64>,
) -> Result<Call, ApiError> {
    let model = model(state, body)?;
    let target = state.resolve(&model)?;
    let n = number(body, "n")?.unwrap_or(1);
    if !(1..=128).contains(&n) {
        return Err(ApiError::bad_request(format!(
            "n must be between 1 and 128, got {n}."
        )));
    }
    let temperature = present(body, "temperature")
        .and_then(Value::as_f64)
        .unwrap_or(1.0);
    if temperature < 0.0 {
        return Err(ApiError::bad_request(format!(
            "temperature must be non-negative, got {temperature}."
        ))
        .param("temperature"));
    }
    if n > 1 && temperature == 0.0 {
        return Err(ApiError::bad_request(format!(
            "n must be 1 when using greedy sampling, got {n}."
        )));
    }
    check_lengths(state, &prompts, max_tokens)?;
    let sampling = sampling(body, max_tokens)?;
    let priority = number(body, "priority")?
        .unwrap_or(0)
        .clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    let salt = text(body, "cache_salt")?;
    if salt == Some("") {
        return Err(ApiError::bad_request(
            "Parameter 'cache_salt' must be a non-empty string if provided.",
        ));
    }
    let wishes = wishes(state, headers, body, model.clone())?;
    let cache_salt = salt.map(str::to_owned);
    let job = Job {
        model,
        target,
        prompts,
        n: n as u32,
        sampling: Some(sampling),
        cache_salt,
        priority,
    };
    Ok(Call { job, wishes })
}

fn wishes(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Value,
    model: String,
) -> Result<Wishes, ApiError> {
    let stream = flag(body, "stream")?;
    let options = present(body, "stream_options");
    if options.is_some() && !stream {
        return Err(ApiError::bad_request(
            "Stream options can only be defined when `stream=True`.",
        )
        .param("stream_options"));
    }
    let option = |name: &str| options.map_or(Ok(false), |options| flag(options, name));
    let forced = state.options.force_include_usage;
    let final_usage = option("include_usage")? || forced;
    let continuous_usage = (option("continuous_usage_stats")? && final_usage) || forced;
    Ok(Wishes {
        id: request_id(state, headers),
        created: crate::metrics::unix_seconds() as u64,
        model,
        stream,
        final_usage,
        continuous_usage,
        tool: None,
        logprobs: None,
    })
}

/// The client's `X-Request-Id`, else a random one.
pub(crate) fn request_id(state: &State, headers: &HeaderMap) -> String {
    let given = headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok());
    given.map_or_else(|| format!("{:016x}", state.random_id()), str::to_owned)
}

/// Prompts must leave room for an answer, and `max_tokens` must fit into it.
fn check_lengths(
    state: &State,
    prompts: &[Vec<u32>],
    max_tokens: Option<i64>,
) -> Result<(), ApiError> {
    let context = state.options.context();
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest >= context as usize {
        return Err(ApiError::too_long(context, longest));
    }
    match max_tokens {
        Some(max) if max < 1 => {
            Err(ApiError::bad_request(format!("max_tokens must be at least 1, got {max}.")).param("max_tokens"))
        }
        Some(max) if max > i64::from(context) - longest as i64 => Err(ApiError::bad_request(format!(
            "'max_tokens' or 'max_completion_tokens' is too large: {max}. This model's maximum context length is \
             {context} tokens and your request has {longest} input tokens ({max} > {context} - {longest})."
        ))
        .param("max_tokens")),
        _ => Ok(()),
    }
}

fn sampling(body: &Value, max_tokens: Option<i64>) -> Result<Sampling, ApiError> {
    let min_tokens = number(body, "min_tokens")?.unwrap_or(0).max(0);
    if max_tokens.is_some_and(|max| min_tokens > max) {
        let max = max_tokens.unwrap_or(0);
        return Err(ApiError::bad_request(format!(
            "min_tokens must be less than or equal to max_tokens={max}, got {min_tokens}."
        )));
    }
    Ok(Sampling {
        max_tokens: max_tokens.map(|max| max as u32),
        min_tokens: min_tokens.min(i64::from(u32::MAX)) as u32,
        ignore_eos: flag(body, "ignore_eos")?,
        stop: stops(present(body, "stop")),
        seed: number(body, "seed")?.unwrap_or(0) as u64,
        schema: None,
    })
}

fn stops(stop: Option<&Value>) -> Vec<String> {
    match stop {
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => stops
            .iter()
            .filter_map(|stop| stop.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

fn apply_schema(call: &mut Call, schema: Option<(Option<String>, Value)>) {
    let Some((tool, schema)) = schema else { return };
    call.wishes.tool = tool;
    if let Some(sampling) = &mut call.job.sampling {
        sampling.schema = Some(schema);
    }
}

/// The tool that `tool_choice` forces, with the schema of its arguments.
fn forced_tool(body: &Value) -> Option<(Option<String>, Value)> {
    let functions = || {
        present(body, "tools")?
            .as_array()
            .map(|tools| tools.iter().filter_map(|tool| tool.get("function")))
    };
    let function = match present(body, "tool_choice")? {
        Value::String(choice) if choice == "required" => functions()?.next()?,
        Value::Object(choice) => {
            let name = choice.get("function")?.get("name")?;
            functions()?.find(|function| function.get("name") == Some(name))?
        }
        _ => return None,
    };
    let name = function.get("name")?.as_str()?.to_owned();
    Some((
        Some(name),
        function
            .get("parameters")
            .cloned()
            .unwrap_or_else(|| json!({"type": "object"})),
    ))
}

fn forced_anthropic_tool(body: &Value) -> Option<(Option<String>, Value)> {
    let choice = present(body, "tool_choice")?;
    let tools = present(body, "tools")?.as_array()?;
    let tool = match choice.get("type")?.as_str()? {
        "any" => tools.first()?,
        "tool" => tools
            .iter()
            .find(|tool| tool.get("name") == choice.get("name"))?,
        _ => return None,
    };
    let name = tool.get("name")?.as_str()?.to_owned();
    Some((
        Some(name),
        tool.get("input_schema")
            .cloned()
            .unwrap_or_else(|| json!({"type": "object"})),
    ))
}

fn response_schema(body: &Value) -> Option<Value> {
    let format = present(body, "response_format")?;
    match format.get("type")?.as_str()? {
        "json_schema" => format.get("json_schema")?.get("schema").cloned(),
        "json_object" => {
            Some(json!({"type": "object", "properties": {"answer": {"type": "string"}}}))
        }
        _ => None,
    }
}
