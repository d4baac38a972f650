//! Response bodies of the mock: a whole one, or a paced stream of server-sent events.
//!
//! Every chunk must reach the socket as a write of its own, as a real server's do, or the cost
//! per chunk would be measured on batches. Therefore the body reports "pending" between any two
//! chunks, on which hyper flushes what it has: by the timer where there is a pace, by waking
//! itself where there is none.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Pace, Running};

const CHUNK: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const LAST: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":100,\"total_tokens\":110}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A body, and the request that it keeps running until it is gone.
pub(super) struct MockBody {
    content: Content,
    _running: Option<Running>,
}

enum Content {
    Whole(Option<Bytes>),
    Stream(Stream),
}

impl MockBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self {
            content: Content::Whole(Some(bytes)),
            _running: None,
        }
    }

    pub(super) fn stream(pace: Pace, running: Running) -> Self {
        Self {
            content: Content::Stream(Stream::new(pace)),
            _running: Some(running),
        }
    }

    pub(super) fn held_by(mut self, running: Running) -> Self {
        self._running = Some(running);
        self
    }
}

struct Stream {
    sent: usize,
    pace: Pace,
    due: Instant,
    timer: Pin<Box<Sleep>>,
    yielded: bool,
}

impl Stream {
    fn new(pace: Pace) -> Self {
        let due = Instant::now();
        Self {
            sent: 0,
            pace,
            due,
            timer: Box::pin(sleep_until(due)),
            yielded: false,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<&'static str>> {
        ready!(self.poll_pause(cx));
        let piece = match self.sent.checked_sub(self.pace.chunks) {
            None => Some(CHUNK),
            Some(0) => Some(LAST),
            Some(1) => Some(DONE),
            Some(_) => None,
        };
        self.sent += 1;
        Poll::Ready(piece)
    }

    /// Waits for the next chunk's time. What follows the content comes at once.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pace.every.is_zero() || self.sent >= self.pace.chunks {
            self.yielded = !self.yielded;
            if self.yielded {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        } else {
            ready!(self.timer.as_mut().poll(cx));
            self.due += self.pace.every;
            self.timer.as_mut().reset(self.due);
        }
        Poll::Ready(())
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.get_mut().content {
            Content::Whole(bytes) => bytes.take(),
            Content::Stream(stream) => {
                ready!(stream.poll_next(cx)).map(|s| Bytes::from_static(s.as_bytes()))
            }
        };
        Poll::Ready(bytes.map(|b| Ok(Frame::data(b))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
