//! Requests that generate text.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Answer, Failure, json_answer};
use crate::answers;
use crate::error::ApiError;
use crate::generation::{Broken, Generation};
use crate::request::{self, Call, Wishes};
use crate::state::{State, Stored};
use crate::streams::{self, Chat, Completion, Dialect, Messages, ResponseEvents};

pub(super) async fn chat(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let call = request::chat(state, headers, &request::parse(body)?)?;
    let dialect = |wishes: Wishes| -> Box<dyn Dialect> { Box::new(Chat::new(wishes)) };
    serve(state, call, dialect, answers::chat).await
}

pub(super) async fn completions(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let call = request::completion(state, headers, &request::parse(body)?)?;
    let dialect = |wishes: Wishes| -> Box<dyn Dialect> { Box::new(Completion::new(wishes)) };
    serve(state, call, dialect, answers::completion).await
}

pub(super) async fn messages(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let call = request::messages(state, headers, &request::parse(body)?)?;
    let dialect = |wishes: Wishes| -> Box<dyn Dialect> { Box::new(Messages::new(wishes)) };
    serve(state, call, dialect, answers::anthropic).await
}

/// Streams or waits for the whole answer.
async fn serve(
    state: &Arc<State>,
    call: Call,
    dialect: impl FnOnce(Wishes) -> Box<dyn Dialect>,
    whole: impl FnOnce(&Generation, &Wishes) -> Value,
) -> Answer {
    let mut generation = Generation::start(state, call.job)?;
    if call.wishes.stream {
        return Ok(stream(generation, dialect(call.wishes)));
    }
    wait(&mut generation).await?;
    Ok(json_answer(
        StatusCode::OK,
        &whole(&generation, &call.wishes),
    ))
}

/// Waits for a generation's end.
pub(super) async fn wait(generation: &mut Generation) -> Result<(), Failure> {
    generation.finish().await.map_err(|broken| match broken {
        Broken::Engine => Failure::Api(ApiError::engine_died()),
        Broken::Reset => Failure::Cut,
    })
}

fn stream(generation: Generation, dialect: Box<dyn Dialect>) -> Response<crate::server::Body> {
    let mut answer = Response::new(streams::body(generation, dialect));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

pub(super) fn count_tokens(state: &State, body: &Bytes) -> Answer {
    let body = request::parse(body)?;
    state.resolve(&request::model(state, &body)?)?;
    let count = request::message_tokens(&body)?.len();
    let value =
        json!({"input_tokens": count, "context_management": {"original_input_tokens": count}});
    Ok(json_answer(StatusCode::OK, &value))
}

pub(super) async fn responses(state: &Arc<State>, headers: &HeaderMap, body: &Bytes) -> Answer {
    let request = request::parse(body)?;
    let (call, turns) = request::responses(state, headers, &request)?;
    let mut generation = Generation::start(state, call.job)?;
    if call.wishes.stream {
        let events = ResponseEvents {
            wishes: call.wishes,
            request,
            messages: turns,
            state: Arc::clone(state),
            number: 0,
        };
        return Ok(stream(generation, Box::new(events)));
    }
    wait(&mut generation).await?;
    let value = answers::response(&generation, &call.wishes, &request, true);
    store_response(
        state,
        &call.wishes,
        &request,
        turns,
        generation.choices[0].text(),
        &value,
    );
    Ok(json_answer(StatusCode::OK, &value))
}

/// Keeps an answer for later turns, unless the client asked not to (`store: false`).
pub(crate) fn store_response(
    state: &State,
    wishes: &Wishes,
    request: &Value,
    mut messages: Vec<Value>,
    text: &str,
    body: &Value,
) {
    if request.get("store") == Some(&Value::Bool(false)) {
        return;
    }
    messages.push(json!({"role": "assistant", "content": text}));
    let stored = Stored {
        body: body.clone(),
        messages,
    };
    state
        .responses
        .lock()
        .put(answers::response_id(wishes), stored);
}

pub(super) fn response_by_id(state: &State, method: &Method, path: &str) -> Answer {
    let id = path.trim_start_matches("/v1/responses/");
    let mut responses = state.responses.lock();
    if method == Method::DELETE {
        return if responses.remove(id) {
            Ok(json_answer(
                StatusCode::OK,
                &json!({"id": id, "object": "response.deleted", "deleted": true}),
            ))
        } else {
            Err(request::unknown_response(id).into())
        };
    }
    let stored = responses
        .get(id)
        .ok_or_else(|| request::unknown_response(id))?;
    Ok(json_answer(StatusCode::OK, &stored.body))
}
