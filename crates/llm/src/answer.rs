//! Errors in the caller's own dialect.

use bytes::Bytes;
use http::StatusCode;

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
    if path.contains("/messages") {
        Style::Anthropic
    } else {
        Style::OpenAi
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

impl ErrorBody {
    /// An error whose `kind` follows from the status.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            kind: "",
            param: None,
        }
    }

    /// The whole body of an error answer (`application/json`).
    #[must_use]
    pub fn render(&self, style: Style) -> Bytes {
        let _ = style;
        Bytes::new()
    }

    /// The event that ends a broken stream (`text/event-stream`).
    #[must_use]
    pub fn stream_error_event(&self, style: Style, dialect: Dialect) -> Bytes {
        let _ = (style, dialect);
        Bytes::new()
    }
}

impl From<&RequestError> for ErrorBody {
    fn from(error: &RequestError) -> Self {
        let mut body = Self::new(StatusCode::BAD_REQUEST, error.code(), error.message());
        body.param = error.param().map(String::from);
        body
    }
}
