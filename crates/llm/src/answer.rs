//! Errors in the caller's own dialect.
//!
//! SDKs choose the exception by the HTTP status and show `error.message`; programs match on `error.code`. Anthropic's
//! format has no code of its own, its SDKs keep unknown members, so the code stands there too.
//!
//! A stream that breaks after its first byte has already said 200. What makes each SDK raise an error instead of
//! ending quietly:
//!
//! * OpenAI (Python and JavaScript) raises on any event whose data has an `error` member, and stops reading there. No
//!   `[DONE]` follows: a client that overlooked the error would take it for a good end.
//! * OpenAI's responses API has an event of its own, `type: "error"` with the fields at the top, which the SDK hands
//!   to the caller like any other event. With an `error` member beside them it raises as well.
//! * Anthropic's raise on an event named `error` and read its data as an error body.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::{Dialect, RequestError};

/// Whose error format a caller understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`.
    Anthropic,
}

/// The error format for a path.
#[must_use]
pub fn style_of(path: &str) -> Style {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    match path.strip_prefix("/messages") {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?']) => Style::Anthropic,
        _ => Style::OpenAi,
    }
}

/// An error before it is written in a dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// The status of the answer.
    pub status: StatusCode,
    /// The machine-readable reason, a stable snake_case word.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// OpenAI's `type`; Anthropic's follows from the status.
    pub kind: &'static str,
    /// The field at fault.
    pub param: Option<String>,
}

#[derive(Serialize)]
struct OpenAiBody<'e> {
    error: OpenAiError<'e>,
}

#[derive(Serialize)]
struct OpenAiError<'e> {
    message: &'e str,
    r#type: &'e str,
    param: Option<&'e str>,
    code: &'e str,
}

#[derive(Serialize)]
struct AnthropicBody<'e> {
    r#type: &'e str,
    error: AnthropicError<'e>,
}

#[derive(Serialize)]
struct AnthropicError<'e> {
    r#type: &'e str,
    message: &'e str,
    code: &'e str,
}

#[derive(Serialize)]
struct ResponsesEvent<'e> {
    r#type: &'e str,
    code: &'e str,
    message: &'e str,
    param: Option<&'e str>,
    error: OpenAiError<'e>,
}

impl ErrorBody {
    /// An error whose `kind` follows from the status.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            kind: openai_kind(status),
            param: None,
        }
    }

    /// The whole body of an error answer (`application/json`).
    #[must_use]
    pub fn render(&self, style: Style) -> Bytes {
        Bytes::from(self.json(style))
    }

    /// The event that ends a broken stream (`text/event-stream`). If the stream may have broken inside a line, send
    /// [`crate::ResponseScanner::pending_line_end`] first.
    #[must_use]
    pub fn stream_error_event(&self, style: Style, dialect: Dialect) -> Bytes {
        let event = match (style, dialect) {
            (Style::Anthropic, _) => format!("event: error\ndata: {}\n\n", self.json(style)),
            (Style::OpenAi, Dialect::Responses) => {
                format!("event: error\ndata: {}\n\n", self.responses_json())
            }
            (Style::OpenAi, _) => format!("data: {}\n\n", self.json(style)),
        };
        Bytes::from(event)
    }

    fn json(&self, style: Style) -> String {
        match style {
            Style::OpenAi => json(&OpenAiBody {
                error: self.openai(),
            }),
            Style::Anthropic => json(&AnthropicBody {
                r#type: "error",
                error: AnthropicError {
                    r#type: anthropic_kind(self.status),
                    message: &self.message,
                    code: self.code,
                },
            }),
        }
    }

    fn responses_json(&self) -> String {
        json(&ResponsesEvent {
            r#type: "error",
            code: self.code,
            message: &self.message,
            param: self.param.as_deref(),
            error: self.openai(),
        })
    }

    fn openai(&self) -> OpenAiError<'_> {
        OpenAiError {
            message: &self.message,
            r#type: self.kind,
            param: self.param.as_deref(),
            code: self.code,
        }
    }
}

impl From<&RequestError> for ErrorBody {
    fn from(error: &RequestError) -> Self {
        let mut body = Self::new(StatusCode::BAD_REQUEST, error.code(), error.message());
        body.param = error.param().map(String::from);
        body
    }
}

/// Strings and options alone always serialise.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// OpenAI's documented types.
fn openai_kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        503 => "service_unavailable",
        _ => "server_error",
    }
}

/// Anthropic's documented types.
fn anthropic_kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests;
