//! Answers as server-sent events.
//!
//! A stream's body is pulled by the connection: it formats events when the client has room for them, so a slow
//! client costs nothing but its own wait. Each token is an event of its own, however many came since the last pull.

mod anthropic;
mod openai;
mod responses;

use std::fmt::Write;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::Value;

pub(crate) use anthropic::Messages;
pub(crate) use openai::{Chat, Completion};
pub(crate) use responses::ResponseEvents;

use crate::error::ApiError;
use crate::generation::{Broken, Generation, News};
use crate::server::{Body, Cut};

/// How an API tells a generation's story.
pub(crate) trait Dialect: Send {
    /// Before the first token.
    fn open(&mut self, generation: &Generation, out: &mut String);
    /// One token of a choice; `reason` comes with the last one.
    fn token(
        &mut self,
        generation: &Generation,
        choice: usize,
        token: u32,
        reason: Option<&'static str>,
        out: &mut String,
    );
    /// An end without a token.
    fn end(
        &mut self,
        generation: &Generation,
        choice: usize,
        reason: &'static str,
        out: &mut String,
    );
    /// After the last choice.
    fn close(&mut self, generation: &Generation, out: &mut String);
    /// In place of the rest.
    fn error(&mut self, error: &ApiError, out: &mut String);
}

struct Teller {
    generation: Generation,
    dialect: Box<dyn Dialect>,
    opened: bool,
    over: bool,
}

/// The body of a stream.
pub(crate) fn body(generation: Generation, dialect: Box<dyn Dialect>) -> Body {
    let teller = Teller {
        generation,
        dialect,
        opened: false,
        over: false,
    };
    let events = stream::unfold(teller, |mut teller| async move {
        let frame = teller.tell().await?;
        Some((frame.map(Frame::data), teller))
    });
    StreamBody::new(events).boxed_unsync()
}

impl Teller {
    /// The next events.
    async fn tell(&mut self) -> Option<Result<Bytes, Cut>> {
        if self.over {
            return None;
        }
        let news = self.generation.next().await;
        let mut out = String::new();
        if !self.opened {
            self.opened = true;
            self.dialect.open(&self.generation, &mut out);
        }
        match news {
            Ok(Some(news)) => self.tell_news(news, &mut out),
            Ok(None) => {
                self.over = true;
                self.dialect.close(&self.generation, &mut out);
            }
            Err(Broken::Engine) => {
                self.over = true;
                self.dialect.error(&ApiError::engine_died(), &mut out);
            }
            Err(Broken::Reset) => {
                self.over = true;
                return Some(Err(Cut));
            }
        }
        Some(Ok(Bytes::from(out)))
    }

    fn tell_news(&mut self, news: News, out: &mut String) {
        for token in news.from..news.to {
            let reason = news
                .reason
                .filter(|reason| token + 1 == news.to && *reason != "abort");
            self.dialect
                .token(&self.generation, news.choice, token, reason, out);
        }
        match news.reason {
            Some(reason) if news.from == news.to || reason == "abort" => {
                self.dialect.end(&self.generation, news.choice, reason, out);
            }
            _ => {}
        }
    }
}

/// Writes `data: …`.
fn data(out: &mut String, json: &str) {
    let _ = write!(out, "data: {json}\n\n");
}

/// Writes `event: …` and its data.
fn event(out: &mut String, name: &str, value: &Value) {
    let _ = write!(out, "event: {name}\ndata: {value}\n\n");
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
