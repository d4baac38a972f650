//! Models, adapters and the tokeniser.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Answer, bytes_answer, json_answer};
use crate::error::ApiError;
use crate::options::LoraModule;
use crate::request;
use crate::server::Body;
use crate::state::State;
use crate::tokens;

/// `/v1/models`: every served name, then the adapters with the base model as parent.
pub(super) fn list(state: &State) -> Response<Body> {
    let options = &state.options;
    let created = crate::metrics::unix_seconds() as u64;
    let entry = |id: &str, root: &str, parent: Option<&str>, max_model_len: Option<u32>| {
        json!({
            "id": id, "object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": parent,
            "max_model_len": max_model_len, "permission": [],
        })
    };
    let base = &options.base_names()[0];
    let mut models: Vec<Value> = options
        .base_names()
        .iter()
        .map(|name| entry(name, &options.model, None, Some(options.context())))
        .collect();
    let adapters = state.adapters.lock();
    models.extend(
        adapters
            .iter()
            .map(|module| entry(&module.name, &module.path, Some(base), None)),
    );
    json_answer(StatusCode::OK, &json!({"object": "list", "data": models}))
}

fn need_lora(state: &State) -> Result<(), ApiError> {
    if state.options.enable_lora {
        Ok(())
    } else {
        Err(ApiError::bad_request(
            "LoRA is not enabled. Restart with --enable-lora.",
        ))
    }
}

fn required<'a>(body: &'a Value, field: &str) -> Result<&'a str, ApiError> {
    let value = request::text(body, field)?.filter(|value| !value.is_empty());
    value.ok_or_else(|| {
        let message = format!("'{field}' needs to be provided.");
        ApiError::new(StatusCode::BAD_REQUEST, "InvalidUserInput", message)
    })
}

pub(super) fn load_adapter(state: &State, body: &Bytes) -> Answer {
    need_lora(state)?;
    let body = request::parse(body)?;
    let (name, path) = (required(&body, "lora_name")?, required(&body, "lora_path")?);
    let in_place = body.get("load_inplace") == Some(&Value::Bool(true));
    let mut adapters = state.adapters.lock();
    let known = adapters.iter().any(|module| module.name == name);
    if (known && !in_place) || state.options.base_names().iter().any(|base| base == name) {
        let message = format!(
            "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set \
             'load_inplace' to True."
        );
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "InvalidUserInput", message).into());
    }
    adapters.retain(|module| module.name != name);
    adapters.push(LoraModule {
        name: name.to_owned(),
        path: path.to_owned(),
    });
    Ok(success(&format!(
        "Success: LoRA adapter '{name}' added successfully."
    )))
}

pub(super) fn unload_adapter(state: &State, body: &Bytes) -> Answer {
    need_lora(state)?;
    let body = request::parse(body)?;
    let name = required(&body, "lora_name")?;
    let mut adapters = state.adapters.lock();
    let before = adapters.len();
    adapters.retain(|module| module.name != name);
    if adapters.len() == before {
        let message = format!("The lora adapter '{name}' cannot be found.");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "NotFoundError", message).into());
    }
    state.host.unload_adapter(name);
    Ok(success(&format!(
        "Success: LoRA adapter '{name}' removed successfully."
    )))
}

fn success(message: &str) -> Response<Body> {
    bytes_answer(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        Bytes::from(message.to_owned()),
    )
}

pub(super) fn tokenize(state: &Arc<State>, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    state.resolve(&request::model(state, &body)?)?;
    let mut ids = Vec::new();
    let prompt = request::text(&body, "prompt")?;
    match prompt {
        Some(prompt) => tokens::encode(prompt, &mut ids),
        None => tokens::encode_chat(
            request::list(&body, "messages")?,
            body.get("tools"),
            &mut ids,
        ),
    }
    let wanted = body.get("return_token_strs") == Some(&Value::Bool(true));
    let strings = prompt
        .filter(|_| wanted)
        .map(|prompt| tokens::pieces(prompt).collect::<Vec<_>>());
    let value = json!({
        "count": ids.len(), "max_model_len": state.options.context(), "tokens": ids, "token_strs": strings,
    });
    Ok(json_answer(StatusCode::OK, &value))
}

pub(super) fn detokenize(body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    let bad = || ApiError::validation("int_type", "tokens", "Input should be a list of token ids");
    let ids = request::list(&body, "tokens")?;
    let pieces = ids.iter().map(|id| {
        id.as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .map(tokens::decode)
    });
    let text: String = pieces.collect::<Option<_>>().ok_or_else(bad)?;
    Ok(json_answer(StatusCode::OK, &json!({ "prompt": text })))
}
