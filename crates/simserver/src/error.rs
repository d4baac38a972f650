//! Errors in vLLM's words.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use simulator::Refused;

/// An answer that is an error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status}: {message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) kind: &'static str,
    pub(crate) param: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            kind,
            param: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestError", message)
    }

    pub(crate) fn param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// A field that must be there and is not.
    pub(crate) fn missing(field: &str) -> Self {
        Self::validation("missing", field, "Field required")
    }

    /// A field of the wrong type or value, in the words of the framework's validator.
    pub(crate) fn validation(kind: &str, field: &str, message: &str) -> Self {
        let place = format!("body.{field}");
        let message = format!(
            "1 validation error:\n  {{'type': '{kind}', 'loc': '{place}', 'msg': '{message}'}}"
        );
        Self::new(StatusCode::BAD_REQUEST, "Bad Request", message).param(&place)
    }

    /// A body that is not JSON.
    pub(crate) fn bad_json(body: &[u8], error: &serde_json::Error) -> Self {
        let place = format!("body.{}", byte_offset(body, error.line(), error.column()));
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': '{place}', 'msg': 'JSON decode error', 'ctx': \
             {{'error': '{error}'}}}}"
        );
        Self::new(StatusCode::BAD_REQUEST, "Bad Request", message).param(&place)
    }

    pub(crate) fn unknown_model(model: &str, aliases: &str) -> Self {
        let message = format!("The model `{model}` does not exist. Valid aliases: {aliases}.");
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", message).param("model")
    }

    pub(crate) fn too_long(limit: u32, tokens: usize) -> Self {
        Self::bad_request(format!(
            "This model's maximum context length is {limit} tokens. However, your prompt contains at least {tokens} \
             input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the \
             input prompt. (parameter=input_tokens, value={tokens})"
        ))
        .param("input_tokens")
    }

    pub(crate) fn draining() -> Self {
        let message = "cannot schedule new futures after shutdown";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            message,
        )
    }

    pub(crate) fn engine_died() -> Self {
        let message =
            "EngineCore encountered an issue. See stack trace (above) for the root cause.";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            message,
        )
    }

    pub(crate) fn starting() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Service Unavailable",
            "The server is starting.",
        )
    }

    pub(crate) fn refused(refused: Refused, context: u32) -> Self {
        match refused {
            Refused::TooLong { tokens, .. } => Self::too_long(context, tokens as usize),
            Refused::QueueFull { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Service Unavailable",
                "The engine is currently busy and cannot accept new requests. Please try again later or on a \
                 different instance.",
            ),
            Refused::Empty => Self::bad_request("The prompt cannot be empty").param("prompt"),
            Refused::DuplicateId | Refused::NoAdapters => Self::bad_request(refused.to_string()),
        }
    }

    /// The error object, as in bodies and stream events.
    pub(crate) fn object(&self) -> Value {
        json!({
            "message": self.message, "type": self.kind, "param": self.param, "code": self.status.as_u16(),
        })
    }

    /// The body, in OpenAI's or in Anthropic's dialect.
    pub(crate) fn body(&self, anthropic: bool) -> Bytes {
        let value = if anthropic {
            self.anthropic()
        } else {
            json!({ "error": self.object() })
        };
        Bytes::from(value.to_string())
    }

    pub(crate) fn anthropic(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "overloaded_error",
            _ => "api_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": self.message}})
    }
}

fn byte_offset(body: &[u8], line: usize, column: usize) -> usize {
    let before: usize = body
        .split_inclusive(|b| *b == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + column.saturating_sub(1)).min(body.len())
}
