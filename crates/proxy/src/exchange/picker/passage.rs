//! An answer that passes through a picker.
//!
//! The server's bytes go to the picker as they come, and what the picker gives back goes to the client as it comes;
//! neither direction waits for the other. A picker that does not read stops the server, as a slow client would. A picker
//! that fails in the middle: with `FailOpen` the rest passes untouched from exactly where it stopped, as long as it gave
//! back what it was given; otherwise, and with `FailClose`, the answer breaks off with `picker_failed`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use extproc::client::{self, Dialogue, Event, Failure};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use telemetry::Metrics;

use super::silence::Silence;
use super::{Shown, forget_length};
use crate::body::Source;
use crate::refusal::Refusal;
use crate::upstream::SendError;
use crate::worker::Worker;

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassageError {
    /// The server broke it off.
    #[error(transparent)]
    Server(#[from] hyper::Error),
    /// The picker did.
    #[error(transparent)]
    Picker(Failure),
}

/// A server's answer on its way through a picker.
#[derive(Debug)]
pub(crate) struct Passage {
    upstream: Incoming,
    /// The server has said everything.
    server_done: bool,
    /// Something of the body has been taken from the server.
    touched: bool,
    trailers: HeaderMap,
    /// Until the answer is over.
    dialogue: Option<Box<Dialogue>>,
    /// An event that was looked at too early.
    next: Option<Event>,
    head_out: bool,
    streams: bool,
    fail_open: bool,
    silence: Silence,
    pool: String,
    metrics: Arc<Metrics>,
}

impl Passage {
    pub(super) fn new(
        upstream: Incoming,
        dialogue: Dialogue,
        fail_open: bool,
        pool: String,
        worker: &Rc<Worker>,
    ) -> Self {
        Self {
            upstream,
            server_done: false,
            touched: false,
            trailers: HeaderMap::new(),
            dialogue: Some(Box::new(dialogue)),
            next: None,
            head_out: false,
            streams: false,
            fail_open,
            silence: Silence::new(worker.options.deadlines.picker_silence),
            pool,
            metrics: worker.metrics.clone(),
        }
    }

    /// Shows the head to the picker and waits for what it makes of it. The body moves meanwhile: a picker may want to
    /// see it first.
    pub(super) async fn head(
        mut self,
        mut head: response::Parts,
        served: Option<SocketAddr>,
    ) -> Result<Shown, Refusal> {
        let end = self.upstream.is_end_stream();
        self.server_done = end;
        self.streams = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if let Some(dialogue) = &mut self.dialogue {
            dialogue.answer_head(head.status, &head.headers, end, served);
        }
        let event = std::future::poll_fn(|cx| self.poll_event(cx)).await;
        let mutations = match event.map_err(refusal)? {
            Event::Immediate(immediate) => {
                self.finish();
                return Ok(Shown::Instead(immediate));
            }
            Event::Head(mutations) => mutations,
            Event::Data(_) | Event::Trailers(_) | Event::End => {
                return Err(Refusal::Picker(Failure::Malformed(
                    "a body before its head",
                )));
            }
        };
        self.head_out = true;
        let changes = client::apply_to_answer(&mutations, &mut head.headers);
        if let Some(status) = changes.status {
            head.status = status;
        }
        if changes.ignored > 0 {
            self.metrics.picker_ignored(&self.pool, changes.ignored);
        }
        self.next = self
            .dialogue
            .as_mut()
            .and_then(|dialogue| dialogue.next_event());
        let done = self
            .dialogue
            .as_ref()
            .is_none_or(|dialogue| dialogue.is_done());
        let untouched = self.next.is_none() || (end && self.next == Some(Event::End));
        if done && untouched && !self.touched {
            self.finish();
            let source = Source::Server(self.upstream);
            return Ok(Shown::Passes(Response::from_parts(head, source)));
        }
        forget_length(&mut head.headers);
        let source = Source::Passage(Box::new(self));
        Ok(Shown::Passes(Response::from_parts(head, source)))
    }

    /// Whether the server's part has been read to its end, so that its connection can be used again.
    pub(crate) fn server_is_done(&self) -> bool {
        self.server_done
    }

    /// The next thing that goes on to the client.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, PassageError>> {
        if let Some(event) = self.next.take() {
            return Poll::Ready(Ok(event));
        }
        loop {
            let Some(dialogue) = &mut self.dialogue else {
                return Poll::Ready(Ok(Event::End));
            };
            if let Some(event) = dialogue.next_event() {
                return Poll::Ready(Ok(event));
            }
            match dialogue.poll_receive(cx) {
                Poll::Ready(received) => {
                    self.silence.reset();
                    received.or_else(|failure| self.lost(failure))?;
                    continue;
                }
                Poll::Pending => {}
            }
            if let Poll::Ready(fed) = self.poll_server(cx) {
                fed?;
                continue;
            }
            if !self.is_waiting_for_picker() {
                self.silence.reset();
            } else if self.silence.poll_over(cx) {
                self.lost(Failure::Timeout(self.silence.limit))?;
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Takes the next piece from the server and gives it to the picker.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PassageError>> {
        let Some(dialogue) = &mut self.dialogue else {
            return Poll::Pending;
        };
        if self.server_done {
            return Poll::Pending;
        }
        ready!(dialogue.poll_room(cx));
        let frame = ready!(Pin::new(&mut self.upstream).poll_frame(cx)).transpose()?;
        self.touched = true;
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.server_done = self.upstream.is_end_stream();
                dialogue.answer_data(data, self.server_done);
            }
            Some(Err(other)) => {
                self.server_done = true;
                self.trailers = other.into_trailers().unwrap_or_default();
                dialogue.answer_end(Some(&self.trailers));
            }
            None => {
                self.server_done = true;
                dialogue.answer_end(None);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A picker may gather a whole answer before it gives any of it back, so its silence counts in the middle of one only
    /// where the answer is a stream of events.
    fn is_waiting_for_picker(&self) -> bool {
        let owes = self
            .dialogue
            .as_ref()
            .is_some_and(|dialogue| dialogue.owes());
        owes && (self.streams || self.server_done || !self.head_out)
    }

    /// The picker failed; the answer goes on without it where that may be and can be.
    fn lost(&mut self, failure: Failure) -> Result<(), PassageError> {
        self.metrics.picker_failed(&self.pool, failure.code());
        let resumed = self.fail_open
            && self
                .dialogue
                .as_mut()
                .is_some_and(|dialogue| dialogue.give_up());
        tracing::info!(pool = self.pool, resumed, %failure, "the endpoint picker failed an answer");
        if resumed {
            Ok(())
        } else {
            Err(PassageError::Picker(failure))
        }
    }

    fn finish(&mut self) {
        if let Some(dialogue) = self.dialogue.take() {
            dialogue.finish();
        }
    }

    /// The body's next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PassageError>>> {
        loop {
            let frame = match ready!(self.poll_event(cx))? {
                Event::Data(data) => Frame::data(data),
                Event::Trailers(mutation) => {
                    let mut trailers = std::mem::take(&mut self.trailers);
                    client::apply_to_trailers(&mutation, &mut trailers);
                    Frame::trailers(trailers)
                }
                Event::End => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Event::Head(_) => continue,
                Event::Immediate(_) => {
                    let late = Failure::Malformed("an immediate response after the head");
                    return Poll::Ready(Some(Err(PassageError::Picker(late))));
                }
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }
}

/// What a client gets when an answer breaks off before its head is out.
fn refusal(error: PassageError) -> Refusal {
    match error {
        PassageError::Picker(failure) => Refusal::Picker(failure),
        PassageError::Server(error) => Refusal::Upstream(SendError::Reset {
            unsent: false,
            error,
        }),
    }
}
