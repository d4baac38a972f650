//! Watching an answer pass.

use std::borrow::Cow;

use crate::Dialect;

/// What one chunk of an answer told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// The first content of a stream was in this chunk. True at most once per answer, never for an unstreamed one.
    pub first_token: bool,
    /// Content events in this chunk, about one token each.
    pub tokens: u32,
}

/// Token counts as the server reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Tokens of the prompt that came from the prefix cache, if the server says.
    pub cached_tokens: Option<u32>,
}

/// An error that came inside an answer of status 200. The server's message is left out: it may quote the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InBandError {
    /// The server's `code` or `type`, cut to 64 plain characters.
    pub code: String,
    /// The HTTP status that the error would have had, when its code is one.
    pub status: Option<u16>,
}

/// How an answer went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The last usage seen.
    pub usage: Option<Usage>,
    /// The last finish or stop reason.
    pub finish_reason: Option<Cow<'static, str>>,
    /// The answer's id, which names state that lives in this server.
    pub response_id: Option<String>,
    /// An error inside a successful response.
    pub in_band_error: Option<InBandError>,
    /// `data: [DONE]` was seen.
    pub done_marker: bool,
    /// The answer ended the way its dialect says. Always true for formats that only the transport can end.
    pub complete: bool,
    /// The server gave up on the request because it is going away (`finish_reason: "abort"`).
    pub aborted: bool,
}

/// Watches the bytes of one answer. It copies at most one partial line of them.
#[derive(Debug)]
pub struct ResponseScanner {
    outcome: Outcome,
}

impl ResponseScanner {
    /// A scanner for the answer to a request of `dialect`.
    #[must_use]
    pub fn new(dialect: Dialect, content_type: Option<&str>, status: u16) -> Self {
        let _ = (dialect, content_type, status);
        Self {
            outcome: Outcome::default(),
        }
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) -> Signals {
        let _ = chunk;
        Signals::default()
    }

    /// What must be sent before an event can start, when the stream broke off here: nothing or line ends.
    #[must_use]
    pub fn pending_line_end(&self) -> &'static [u8] {
        b""
    }

    /// The body is over, in whatever way.
    pub fn finish(&mut self) -> Outcome {
        std::mem::take(&mut self.outcome)
    }
}
