//! Which path does what.

mod audio;
mod generate;
mod models;
mod pooling;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

pub(crate) use generate::store_response;

use crate::error::ApiError;
use crate::faults::MetricsMode;
use crate::metrics;
use crate::request;
use crate::server::{Body, Cut};
use crate::state::State;

/// Why a handler has no answer of its own.
pub(crate) enum Failure {
    /// An error to be told.
    Api(ApiError),
    /// The connection is to be reset.
    Cut,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

pub(crate) type Answer = Result<Response<Body>, Failure>;

/// A known path. The label is its name in `http_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Chat,
    Completions,
    Responses,
    ResponseById,
    Messages,
    CountTokens,
    Embeddings,
    Pooling,
    Rerank,
    Score,
    Classify,
    Transcriptions,
    Models,
    LoadAdapter,
    UnloadAdapter,
    Tokenize,
    Detokenize,
    ResetPrefixCache,
    Health,
    Ping,
    Version,
    Load,
    Metrics,
    Admin,
}

const POST: &[Method] = &[Method::POST];
const GET: &[Method] = &[Method::GET];

fn find(path: &str) -> Option<(Route, &'static str, &'static [Method])> {
    const GET_POST: &[Method] = &[Method::GET, Method::POST];
    const GET_DELETE: &[Method] = &[Method::GET, Method::DELETE];
    Some(match path {
        "/v1/chat/completions" => (Route::Chat, "/v1/chat/completions", POST),
        "/v1/completions" => (Route::Completions, "/v1/completions", POST),
        "/v1/responses" => (Route::Responses, "/v1/responses", POST),
        "/v1/messages" => (Route::Messages, "/v1/messages", POST),
        "/v1/messages/count_tokens" => (Route::CountTokens, "/v1/messages/count_tokens", POST),
        "/v1/embeddings" => (Route::Embeddings, "/v1/embeddings", POST),
        "/pooling" => (Route::Pooling, "/pooling", POST),
        "/rerank" | "/v1/rerank" | "/v2/rerank" => (Route::Rerank, "/rerank", POST),
        "/score" | "/v1/score" => (Route::Score, "/score", POST),
        "/classify" => (Route::Classify, "/classify", POST),
        "/v1/audio/transcriptions" => (Route::Transcriptions, "/v1/audio/transcriptions", POST),
        "/v1/models" => (Route::Models, "/v1/models", GET),
        "/v1/load_lora_adapter" => (Route::LoadAdapter, "/v1/load_lora_adapter", POST),
        "/v1/unload_lora_adapter" => (Route::UnloadAdapter, "/v1/unload_lora_adapter", POST),
        "/tokenize" => (Route::Tokenize, "/tokenize", POST),
        "/detokenize" => (Route::Detokenize, "/detokenize", POST),
        "/reset_prefix_cache" => (Route::ResetPrefixCache, "/reset_prefix_cache", POST),
        "/health" => (Route::Health, "/health", GET),
        "/ping" => (Route::Ping, "/ping", GET_POST),
        "/version" => (Route::Version, "/version", GET),
        "/load" => (Route::Load, "/load", GET),
        "/metrics" => (Route::Metrics, "/metrics", GET),
        "/admin/config" => (Route::Admin, "/admin/config", GET_POST),
        path if path.starts_with("/v1/responses/") => (
            Route::ResponseById,
            "/v1/responses/{response_id}",
            GET_DELETE,
        ),
        _ => return None,
    })
}

impl Route {
    /// Whether failures are injected here and a starting or stopping server refuses it.
    fn is_inference(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Completions
                | Self::Responses
                | Self::Messages
                | Self::Embeddings
                | Self::Pooling
                | Self::Rerank
                | Self::Score
                | Self::Classify
                | Self::Transcriptions
        )
    }
}

/// Answers a request. An error means that its connection is to be reset.
pub(crate) async fn handle(
    state: Arc<State>,
    parts: Parts,
    body: Incoming,
) -> Result<Response<Body>, Cut> {
    let Some((route, label, methods)) = find(parts.uri.path()) else {
        return Ok(json_answer(
            StatusCode::NOT_FOUND,
            &json!({"detail": "Not Found"}),
        ));
    };
    if !methods.contains(&parts.method) {
        let mut answer = json_answer(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({"detail": "Method Not Allowed"}),
        );
        let allowed = methods
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            answer.headers_mut().insert(ALLOW, allowed);
        }
        return Ok(answer);
    }
    let answer = match collect(&state, body).await {
        Ok(body) => dispatch(&state, route, &parts, &body).await,
        Err(error) => Err(error.into()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure::Api(error)) => {
            let anthropic = matches!(route, Route::Messages | Route::CountTokens);
            bytes_answer(error.status, "application/json", error.body(anthropic))
        }
        Err(Failure::Cut) => return Err(Cut),
    };
    state
        .host
        .with_metrics(|_, metrics| metrics.http(label, &parts.method, answer.status().as_u16()));
    Ok(answer)
}

async fn collect(state: &State, body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, state.options.max_body_bytes)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = "The request body is too large.";
            Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                message,
            ))
        }
        Err(error) => Err(ApiError::bad_request(format!(
            "There was an error reading the body: {error}"
        ))),
    }
}

async fn dispatch(state: &Arc<State>, route: Route, parts: &Parts, body: &Bytes) -> Answer {
    if route.is_inference() {
        gate(state, parts)?;
    }
    match route {
        Route::Chat => generate::chat(state, &parts.headers, body).await,
        Route::Completions => generate::completions(state, &parts.headers, body).await,
        Route::Responses => generate::responses(state, &parts.headers, body).await,
        Route::ResponseById => generate::response_by_id(state, &parts.method, parts.uri.path()),
        Route::Messages => generate::messages(state, &parts.headers, body).await,
        Route::CountTokens => generate::count_tokens(state, body),
        Route::Embeddings => pooling::embeddings(state, &parts.headers, body).await,
        Route::Pooling => pooling::pooling(state, &parts.headers, body).await,
        Route::Rerank => pooling::rerank(state, &parts.headers, body).await,
        Route::Score => pooling::score(state, &parts.headers, body).await,
        Route::Classify => pooling::classify(state, &parts.headers, body).await,
        Route::Transcriptions => audio::transcriptions(state, &parts.headers, body).await,
        Route::Models => Ok(models::list(state)),
        Route::LoadAdapter => models::load_adapter(state, body),
        Route::UnloadAdapter => models::unload_adapter(state, body),
        Route::Tokenize => models::tokenize(state, body),
        Route::Detokenize => models::detokenize(body),
        Route::ResetPrefixCache => Ok(reset_prefix_cache(state)),
        Route::Health | Route::Ping => Ok(health(state)),
        Route::Version => Ok(json_answer(
            StatusCode::OK,
            &json!({"version": env!("CARGO_PKG_VERSION")}),
        )),
        Route::Load => Ok(json_answer(
            StatusCode::OK,
            &json!({"server_load": state.in_flight.load(Ordering::Relaxed)}),
        )),
        Route::Metrics => metrics_page(state).await,
        Route::Admin => admin(state, &parts.method, body),
    }
}

/// What stops an inference request before it is read: the server's own state and injected failures.
fn gate(state: &Arc<State>, parts: &Parts) -> Result<(), Failure> {
    if state.starting() {
        return Err(ApiError::starting().into());
    }
    if state.draining.load(Ordering::Relaxed) {
        return Err(ApiError::draining().into());
    }
    if let Some(code) = parts.headers.get("x-return-error") {
        let status = code.to_str().ok().and_then(|code| code.parse().ok());
        let status = status
            .and_then(|code: u16| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::BAD_REQUEST);
        return Err(ApiError::new(status, "InjectedError", "asked for by X-Return-Error").into());
    }
    let faults = state.faults();
    if state.chance(faults.reset_rate) {
        return Err(Failure::Cut);
    }
    if state.chance(faults.failure_rate) {
        let (code, kind, message) = state.draw_failure(&faults).answer();
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Err(ApiError::new(status, kind, message).into());
    }
    Ok(())
}

fn health(state: &State) -> Response<Body> {
    let well = !state.starting() && !state.faults().unhealthy;
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    bytes_answer(status, "application/json", Bytes::new())
}

fn reset_prefix_cache(state: &State) -> Response<Body> {
    let done = state.host.reset_prefix_cache();
    bytes_answer(
        if done {
            StatusCode::OK
        } else {
            StatusCode::CONFLICT
        },
        "application/json",
        Bytes::new(),
    )
}

async fn metrics_page(state: &State) -> Answer {
    let faults = state.faults();
    if faults.metrics_delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.metrics_delay_ms)).await;
    }
    let live = || {
        state
            .host
            .with_metrics(|stats, m| metrics::render(&state.options, stats, m))
    };
    let page = match faults.metrics {
        MetricsMode::On => {
            *state.frozen_metrics.lock() = None;
            live()
        }
        MetricsMode::Frozen => state.frozen_metrics.lock().get_or_insert_with(live).clone(),
        MetricsMode::Off => {
            return Ok(json_answer(
                StatusCode::NOT_FOUND,
                &json!({"detail": "Not Found"}),
            ));
        }
    };
    Ok(bytes_answer(
        StatusCode::OK,
        "text/plain; version=1.0.0; charset=utf-8",
        Bytes::from(page),
    ))
}

fn admin(state: &State, method: &Method, body: &Bytes) -> Answer {
    if method == Method::POST {
        let patch = request::parse(body)?;
        let mut faults = state.faults.lock();
        let new = faults
            .patched(&patch)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        if new.metrics != faults.metrics {
            *state.frozen_metrics.lock() = None;
        }
        *faults = Arc::new(new);
    }
    let shown = serde_json::to_value(&*state.faults()).unwrap_or(Value::Null);
    Ok(json_answer(StatusCode::OK, &shown))
}

/// An answer with a JSON body.
pub(crate) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    bytes_answer(status, "application/json", Bytes::from(value.to_string()))
}

/// An answer with a whole body.
pub(crate) fn bytes_answer(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<Body> {
    let mut answer = Response::new(
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
