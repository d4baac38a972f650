//! A call on a stream.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::net::SocketAddr;

use super::lines::Connection;
use super::wire::Wire;
use super::{Call, Event, Failure, Verdict};

/// A call that is under way.
#[derive(Debug)]
pub struct Dialogue {
    call: Call,
    wire: Wire,
    /// The picker has ended the stream.
    over: bool,
}

impl Dialogue {
    /// Begins a call on a connection.
    pub(super) fn begin(call: Call, connection: &Connection) -> Self {
        let mut dialogue = Self {
            call,
            wire: Wire::open(connection),
            over: false,
        };
        dialogue.flush();
        dialogue
    }

    /// Waits for the decision, at most `patience`.
    ///
    /// # Errors
    /// There is none.
    pub async fn verdict(&mut self, patience: Duration) -> Result<Verdict, Failure> {
        let decided = std::future::poll_fn(|cx| self.poll_verdict(cx));
        tokio::time::timeout(patience, decided)
            .await
            .unwrap_or(Err(Failure::Timeout(patience)))
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<Result<Verdict, Failure>> {
        loop {
            if let Some(verdict) = self.call.verdict() {
                return Poll::Ready(Ok(verdict));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Takes the next message in. After the picker has ended the stream this stays pending.
    ///
    /// # Errors
    /// The stream broke, or what came makes no sense.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.over {
            return Poll::Pending;
        }
        let taken = match ready!(self.wire.poll_receive(cx)) {
            Some(Ok(reply)) => self.call.receive(reply),
            Some(Err(status)) => {
                self.over = true;
                Err(status.into())
            }
            None => {
                self.over = true;
                self.call.ended()
            }
        };
        Poll::Ready(taken)
    }

    /// Ready when more of the answer may be told.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over || self.call.is_done() {
            return Poll::Ready(());
        }
        self.wire.poll_room(cx)
    }

    /// See [`Call::answer_head`].
    pub fn answer_head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
        served: Option<SocketAddr>,
    ) {
        self.call.answer_head(status, headers, end, served);
        self.flush();
    }

    /// See [`Call::answer_data`].
    pub fn answer_data(&mut self, data: Bytes, end: bool) {
        self.call.answer_data(data, end);
        self.flush();
    }

    /// See [`Call::answer_end`].
    pub fn answer_end(&mut self, trailers: Option<&HeaderMap>) {
        self.call.answer_end(trailers);
        self.flush();
    }

    /// See [`Call::next_event`].
    pub fn next_event(&mut self) -> Option<Event> {
        self.call.next_event()
    }

    /// See [`Call::give_up`].
    pub fn give_up(&mut self) -> bool {
        self.over = true;
        self.call.give_up()
    }

    /// See [`Call::owes`].
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.over && self.call.owes()
    }

    /// See [`Call::is_done`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.call.is_done()
    }

    /// Ends the call in good order.
    pub fn finish(self) {
        self.wire.finish();
    }

    fn flush(&mut self) {
        while let Some(message) = self.call.next_message() {
            if !self.over {
                self.wire.send(message);
            }
        }
    }
}
