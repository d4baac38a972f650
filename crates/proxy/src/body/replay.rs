//! A streamed request body that another server can be sent again, as long as little of it has gone out.
//!
//! What passes is also kept, up to a window. A body that outgrows the window is passed on all the same, but then the
//! request belongs to the one server that has seen it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::copy::Writer;

/// The body of one request over all attempts.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    shared: Rc<RefCell<Shared>>,
    /// Frames of `kept` that this attempt has sent.
    sent: usize,
}

#[derive(Debug)]
struct Shared {
    incoming: Incoming,
    kept: VecDeque<Bytes>,
    room: usize,
    overflowed: bool,
    passed: u64,
    limit: u64,
    fault: Option<Fault>,
    /// Copies for mirrors.
    copies: Vec<Writer>,
}

/// What a client did wrong with a body while it was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It grew over its limit.
    OverLimit,
    /// Its framing or its connection broke.
    Broken,
}

/// A body that grew over its limit while it was passed on.
#[derive(Debug, thiserror::Error)]
#[error("the request body is over the limit")]
pub(crate) struct OverLimit;

impl Replay {
    /// A body of at most `limit` bytes, of which `window` are kept; what passes is shown to `copies`.
    pub(crate) fn new(incoming: Incoming, window: usize, limit: u64, copies: Vec<Writer>) -> Self {
        let shared = Shared {
            incoming,
            kept: VecDeque::new(),
            room: window,
            overflowed: false,
            passed: 0,
            limit,
            fault: None,
            copies,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
            sent: 0,
        }
    }

    /// The same body from its start, for another attempt; `None` when its start is gone.
    pub(crate) fn again(&self) -> Option<Self> {
        let shared = self.shared.borrow();
        (!shared.overflowed && shared.fault.is_none()).then(|| Self {
            shared: self.shared.clone(),
            sent: 0,
        })
    }

    /// What is wrong with the body, as far as it has come.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.shared.borrow().fault
    }

    /// Bytes read from the client so far.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.borrow().passed
    }
}

impl Shared {
    fn keep(&mut self, data: &Bytes) {
        if self.overflowed {
            return;
        }
        if data.len() <= self.room {
            self.room -= data.len();
            self.kept.push_back(data.clone());
        } else {
            self.overflowed = true;
            self.kept.clear();
        }
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let mut shared = this.shared.borrow_mut();
        if let Some(data) = shared.kept.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        let frame = match ready!(Pin::new(&mut shared.incoming).poll_frame(cx)) {
            None => {
                shared.copies.iter().for_each(Writer::finish);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                shared.fault = Some(Fault::Broken);
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            shared.passed += data.len() as u64;
            if shared.passed > shared.limit {
                shared.fault = Some(Fault::OverLimit);
                return Poll::Ready(Some(Err(OverLimit.into())));
            }
            shared.copies.iter().for_each(|copy| copy.pass(data));
            if shared.incoming.is_end_stream() {
                shared.copies.iter().for_each(Writer::finish);
            }
            shared.keep(data);
            this.sent += usize::from(!shared.overflowed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.kept.len() <= self.sent && shared.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        if self.sent == 0 && shared.passed == 0 {
            shared.incoming.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
