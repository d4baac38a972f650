//! The answer on its way to the client.
//!
//! Frames pass untouched and at once: a frame is asked of the server only when the client's connection asks for one,
//! so a slow client slows the server, and nothing is held. What passes is shown to the exchange, which counts and scans
//! it. There is no task and no channel: the body is polled by the client's connection and dropped by it when the client
//! goes, which closes the connection to the server and so stops the generation.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use telemetry::Ended;
use tokio::time::{Instant, Sleep};

use super::source::Source;
use crate::exchange::{Exchange, PassageError};
use crate::refusal::EVICTED;
use crate::upstream::Link;

/// The body of every answer.
#[derive(Debug)]
pub(crate) struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Full(Option<Bytes>),
    Streamed(Box<Streamed>),
}

/// An answer that broke off in the middle; the client's connection breaks off with it.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub(crate) struct BrokenOff(&'static str);

impl From<Infallible> for BrokenOff {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(Kind::Full(None))
    }

    /// A body that is there.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }
}

/// A server's body passing through.
#[derive(Debug)]
pub(crate) struct Streamed {
    upstream: Source,
    link: Option<Link>,
    exchange: Option<Box<Exchange>>,
    clock: Clock,
}

/// How long a server may send nothing before its probes are looked at, and half of that from one look to the next. A
/// process that is frozen, or whose engine was killed under it, keeps its connections open and says nothing; when it
/// fails its probes as well, there is no point in waiting for the idle deadline.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// Watches over the time between frames, and over the time of the whole exchange.
///
/// Arming a timer for every token would be the dearest thing done for it, so the timer runs until the earliest moment at
/// which a deadline could have passed, and looks then how long the server has really been silent.
#[derive(Debug)]
struct Clock {
    idle: Duration,
    until: Option<Instant>,
    silent_since: Option<Instant>,
    look_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What the time says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The server has been silent for a while: see whether it still lives.
    Look,
    /// The server was silent for too long.
    Idle,
    /// The exchange took too long.
    Total,
}

impl Clock {
    fn new(idle: Duration, until: Option<Instant>) -> Self {
        Self {
            idle,
            until,
            silent_since: None,
            look_at: None,
            timer: None,
        }
    }

    fn frame_came(&mut self) {
        self.silent_since = None;
        self.look_at = None;
    }

    /// The server is silent now; says when that has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        let idle_at = since + self.idle;
        let look_at = *self.look_at.get_or_insert(since + LOOK_AFTER);
        let last = self.until.map_or(idle_at, |until| until.min(idle_at));
        let deadline = last.min(look_at);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                if deadline < last {
                    self.look_at = Some(deadline + LOOK_AFTER / 2);
                    return Poll::Ready(Late::Look);
                }
                let idle = deadline == idle_at;
                return Poll::Ready(if idle { Late::Idle } else { Late::Total });
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// The time of the whole exchange is over although frames keep coming.
    fn over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Streamed {
    /// A body that passes `upstream` through and then gives `link` back.
    pub(crate) fn body(
        upstream: Source,
        link: Link,
        exchange: Box<Exchange>,
        until: Option<Instant>,
    ) -> ResponseBody {
        let clock = Clock::new(exchange.worker().options.deadlines.idle, until);
        let mut streamed = Self {
            upstream,
            link: Some(link),
            exchange: Some(exchange),
            clock,
        };
        if streamed.upstream.is_end_stream() {
            streamed.completed();
            return ResponseBody::empty();
        }
        ResponseBody(Kind::Streamed(Box::new(streamed)))
    }

    fn completed(&mut self) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        exchange.completed();
        let link = self.link.take().filter(|_| self.upstream.server_is_done());
        if let (Some(link), Some(uid)) = (link, exchange.keeps_connections_to()) {
            exchange.worker().upstreams.give_back(uid, link);
        }
    }

    /// Ends the body before its time. An event stream gets a last event that says why; anything else breaks off, so
    /// that nobody takes half of it for the whole.
    fn broke(
        &mut self,
        ended: Ended,
        code: &'static str,
        sentence: &str,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.link = None;
        let Some(mut exchange) = self.exchange.take() else {
            return Poll::Ready(None);
        };
        // To an announced length nothing can be added.
        let open_ended = self.upstream.size_hint().exact().is_none();
        Poll::Ready(Some(
            match exchange.broke(ended, code, sentence).filter(|_| open_ended) {
                Some(event) => Ok(Frame::data(event)),
                None => Err(BrokenOff(code)),
            },
        ))
    }

    fn server_is_silent(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.server_is_silent())
    }

    fn late(&mut self, late: Late) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match late {
            Late::Look => self.broke(
                Ended::UpstreamBroken,
                "upstream_silent",
                "the server fell silent and fails its probes",
            ),
            Late::Idle => self.broke(
                Ended::Deadline,
                "idle_timeout",
                "the server stopped sending",
            ),
            Late::Total => self.broke(
                Ended::Deadline,
                "request_timeout",
                "the route's time for a request is over",
            ),
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.exchange.is_none() {
            return Poll::Ready(None);
        }
        let exchange = self.exchange.as_mut();
        if let Some(Poll::Ready(eviction)) = exchange.map(|exchange| exchange.poll_evicted(cx)) {
            return self.broke(Ended::Evicted, eviction.reason.code(), EVICTED);
        }
        match self.upstream.poll_frame(cx) {
            Poll::Pending => loop {
                match self.clock.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Late::Look) if !self.server_is_silent() => {}
                    Poll::Ready(late) => return self.late(late),
                }
            },
            Poll::Ready(Some(Ok(frame))) => {
                if self.clock.over() {
                    return self.late(Late::Total);
                }
                self.clock.frame_came();
                if let (Some(data), Some(exchange)) = (frame.data_ref(), &mut self.exchange) {
                    exchange.passed(data);
                }
                // With a known length the client's connection will not ask again.
                if self.upstream.is_end_stream() {
                    self.completed();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(PassageError::Picker(error)))) => {
                tracing::debug!(%error, "the endpoint picker broke an answer off");
                self.broke(
                    Ended::PickerBroken,
                    "picker_failed",
                    "the endpoint picker broke the answer off",
                )
            }
            Poll::Ready(Some(Err(PassageError::Server(error)))) => {
                tracing::debug!(%error, "a server broke its answer off");
                self.broke(
                    Ended::UpstreamBroken,
                    "upstream_broken",
                    "the server broke its answer off",
                )
            }
            Poll::Ready(None) => {
                self.completed();
                Poll::Ready(None)
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Streamed(streamed) => streamed.exchange.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Streamed(streamed) => streamed.upstream.size_hint(),
        }
    }
}
