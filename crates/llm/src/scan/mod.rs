//! Watching an answer pass.
//!
//! The bytes go to the client untouched and at once; the scanner looks at the same chunks and keeps almost nothing: of
//! a stream at most one partial line, of a JSON answer up to 64 KiB, of anything longer its first 64 KiB and last 8.
//! Chunks may be cut anywhere, also inside a character or between CR and LF.
//!
//! What the end means differs by dialect, and status 200 means little (all seen on real servers):
//!
//! * OpenAI's completions end with `data: [DONE]`. vLLM sends it also after `data: {"error":…}` when its engine died,
//!   and after `finish_reason: "abort"` when it is going away. Usage comes in a chunk of its own with no choices, or in
//!   every chunk.
//! * OpenAI's responses end with an event `response.completed`, `.incomplete` or `.failed`, which holds the usage and
//!   repeats the whole answer, so that the line may be very long.
//! * Anthropic's messages end with `message_stop`; usage is split between `message_start` and `message_delta`.
//! * llama.cpp's own `/completion` ends with `"stop":true`.
//! * Other streams, and what is neither JSON nor a stream, end where the transport says.

mod facts;
mod held;

use std::borrow::Cow;

use crate::Dialect;
use facts::{Counts, Facts};
use held::Held;

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
    /// The server's `type`, or else its `code`, cut to 64 plain characters.
    pub code: String,
    /// The HTTP status that the error would have had, when its code is one.
    pub status: Option<u16>,
}

/// How an answer went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The last usage seen.
    pub usage: Option<Usage>,
    /// The last finish or stop reason; for the responses API the reason why it is incomplete, or its status.
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

/// How the body is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Events,
    Json,
    Opaque,
}

/// Where in its lines a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between two events.
    Between,
    /// Behind a line of an event.
    LineStart,
    /// Inside a line.
    Line,
}

/// Watches the bytes of one answer.
#[derive(Debug)]
pub struct ResponseScanner {
    dialect: Dialect,
    mode: Mode,
    held: Held,
    place: Place,
    seen_content: bool,
    ended: bool,
    counts: Counts,
    outcome: Outcome,
}

impl ResponseScanner {
    /// A scanner for the answer to a request of `dialect`. Answers of an error status are not looked into.
    #[must_use]
    pub fn new(dialect: Dialect, content_type: Option<&str>, status: u16) -> Self {
        let mode = if (200..300).contains(&status) {
            mode_of(content_type)
        } else {
            Mode::Opaque
        };
        Self {
            dialect,
            mode,
            held: Held::default(),
            place: Place::Between,
            seen_content: false,
            ended: false,
            counts: Counts::default(),
            outcome: Outcome::default(),
        }
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) -> Signals {
        match self.mode {
            Mode::Events => self.feed_events(chunk),
            Mode::Json => {
                self.held.push(chunk);
                Signals::default()
            }
            Mode::Opaque => Signals::default(),
        }
    }

    /// What must be sent before a new event can start, if the stream broke off here: nothing, or line ends.
    #[must_use]
    pub fn pending_line_end(&self) -> &'static [u8] {
        match (self.mode, self.place) {
            (Mode::Events, Place::Line) => b"\n\n",
            (Mode::Events, Place::LineStart) => b"\n",
            _ => b"",
        }
    }

    /// The body is over, in whatever way; tells what was seen. A scanner is spent after this.
    pub fn finish(&mut self) -> Outcome {
        match self.mode {
            Mode::Events => self.finish_events(),
            Mode::Json => self.finish_json(),
            Mode::Opaque => self.outcome.complete = true,
        }
        self.outcome.usage = self.counts.usage();
        std::mem::take(&mut self.outcome)
    }

    fn feed_events(&mut self, chunk: &[u8]) -> Signals {
        let mut tokens = 0;
        let mut rest = chunk;
        while let Some(length) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(length);
            tokens += self.end_line(line);
            rest = after.get(1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            self.held.push(rest);
            self.place = Place::Line;
        }
        let first_token = tokens > 0 && !self.seen_content;
        self.seen_content |= first_token;
        Signals {
            first_token,
            tokens,
        }
    }

    /// A line ends with these bytes; earlier ones may be held.
    fn end_line(&mut self, last: &[u8]) -> u32 {
        if self.held.is_empty() {
            return self.line(last);
        }
        let mut held = std::mem::take(&mut self.held);
        held.push(last);
        let tokens = match held.whole() {
            Some(line) => self.line(line),
            None => self.long_line(&held),
        };
        held.clear();
        self.held = held;
        tokens
    }

    fn line(&mut self, line: &[u8]) -> u32 {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.place = if line.is_empty() {
            Place::Between
        } else {
            Place::LineStart
        };
        let Some(data) = data_of(line) else { return 0 };
        if data == b"[DONE]" {
            self.outcome.done_marker = true;
            return 0;
        }
        let Some(facts) = Facts::of_event(data) else {
            return 0;
        };
        let content = facts.content;
        self.learn(&facts);
        content
    }

    /// A line of which only both ends are known. If it is not the last event, it is an image or audio, thus content.
    fn long_line(&mut self, held: &Held) -> u32 {
        self.place = Place::LineStart;
        if data_of(held.head()).is_none() {
            return 0;
        }
        let facts = Facts::of_ends(held.head(), held.tail());
        let content = u32::from(!facts.ends);
        self.learn(&facts);
        content
    }

    fn learn(&mut self, facts: &Facts<'_>) {
        self.counts.merge(&facts.counts);
        self.ended |= facts.ends;
        if let Some(reason) = facts.finish_reason {
            let reason = reason.with(known_reason);
            self.outcome.aborted |= reason == "abort";
            self.outcome.finish_reason = Some(reason);
        }
        if let (None, Some(id)) = (&self.outcome.response_id, facts.id) {
            self.outcome.response_id = Some(id.to_cow().into_owned());
        }
        if self.outcome.in_band_error.is_none() {
            self.outcome.in_band_error.clone_from(&facts.error);
        }
    }

    fn finish_events(&mut self) {
        // A last line without its line end counts if it is whole; half a line is no JSON and says nothing.
        self.end_line(b"");
        self.outcome.complete = match self.dialect {
            Dialect::ChatCompletions | Dialect::Completions => {
                self.outcome.done_marker || self.ended
            }
            Dialect::Responses | Dialect::Messages => self.ended,
            _ => true,
        };
    }

    fn finish_json(&mut self) {
        let held = std::mem::take(&mut self.held);
        let facts = match held.whole() {
            Some(body) => Facts::of_document(body),
            None => Some(Facts::of_ends(held.head(), held.tail()))
                .filter(|_| held.tail().trim_ascii_end().ends_with(b"}")),
        };
        self.outcome.complete = facts.is_some();
        if let Some(facts) = facts {
            self.learn(&facts);
        }
    }
}

fn mode_of(content_type: Option<&str>) -> Mode {
    let kind = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if kind.eq_ignore_ascii_case("text/event-stream") {
        Mode::Events
    } else if kind.eq_ignore_ascii_case("application/json") {
        Mode::Json
    } else {
        Mode::Opaque
    }
}

/// The value of a `data` line (HTML standard, 9.2.6: one space after the colon is not part of it).
fn data_of(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"data:").map(<[u8]>::trim_ascii)
}

/// The usual reasons without an allocation.
fn known_reason(reason: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 14] = [
        "stop",
        "length",
        "abort",
        "tool_calls",
        "function_call",
        "content_filter",
        "error",
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "max_output_tokens",
        "completed",
        "failed",
    ];
    match KNOWN.into_iter().find(|known| *known == reason) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(reason.chars().take(64).collect()),
    }
}

#[cfg(test)]
mod tests;
