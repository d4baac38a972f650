//! Connections to servers: one set per worker thread, so that taking and giving back needs no lock.
//!
//! The rule: an HTTP/1.1 connection serves one exchange at a time. It is given back when the answer has been read to
//! its end, and only then; an exchange that ends any other way closes its connection at once, because closing is how a
//! model server learns that nobody wants the rest. The connection used last is taken first, so that surplus ones grow
//! old and go. Old means idle for `upstream_idle`, which is kept below the servers' own limit: a request that meets a
//! connection just being closed fails through nobody's fault, and is then sent once more on a fresh one.
//!
//! An HTTP/2 server gets one connection per worker, which all exchanges share.

mod connect;
mod link;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet::Endpoint;
use http::{Request, Response};
use hyper::body::Incoming;
use rustc_hash::FxHashMap;
use tokio::time::{Instant, timeout};

pub(crate) use connect::{CONNECTION_WINDOW, ConnectError, STREAM_WINDOW};
pub(crate) use link::Link;

use crate::body::RequestBody;

/// Why there is no answer from a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// It cannot be reached; it has seen nothing of the request.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the answer's head.
    #[error("the connection broke before the answer: {error}")]
    Reset {
        /// The server cannot have seen the request.
        unsent: bool,
        /// What happened.
        error: hyper::Error,
    },
    /// The server fails its probes, and another one could answer.
    #[error("the server fell silent before the answer")]
    Silent,
    /// No head of an answer came in time.
    #[error("no answer within {0:?}")]
    FirstByte(Duration),
}

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Upstreams {
    shelves: RefCell<FxHashMap<u64, Shelf>>,
    connect: Duration,
    idle: Duration,
}

/// The connections to one server.
#[derive(Debug, Default)]
struct Shelf {
    idle: Vec<(Link, Instant)>,
    shared: Option<(Link, Instant)>,
}

impl Upstreams {
    pub(crate) fn new(connect: Duration, idle: Duration) -> Self {
        Self {
            shelves: RefCell::default(),
            connect,
            idle,
        }
    }

    /// Sends one request to `endpoint` and waits for the head of the answer. `request` makes the request; it is asked
    /// again when a kept connection turns out to be dead, and may then refuse.
    pub(crate) async fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        patience: Duration,
        mut request: impl FnMut() -> Option<Request<RequestBody>>,
        repeatable: bool,
    ) -> Result<(Response<Incoming>, Link), SendError> {
        if let Some(mut link) = self.take(endpoint.uid())
            && let Some(first) = request()
        {
            match Self::attempt(&mut link, first, patience).await {
                Err(SendError::Reset { unsent, error }) if unsent || repeatable => {
                    tracing::debug!(endpoint = endpoint.name(), %error, "a kept connection was dead");
                }
                other => return other.map(|answer| (answer, link)),
            }
        }
        let mut link = self.connect(endpoint).await?;
        let Some(request) = request() else {
            return Err(ConnectError::Spent.into());
        };
        let answer = Self::attempt(&mut link, request, patience).await?;
        Ok((answer, link))
    }

    /// A connection of its own, for a tunnel.
    pub(crate) async fn dedicated(&self, endpoint: &Arc<Endpoint>) -> Result<Link, ConnectError> {
        connect::connect(endpoint, self.connect).await
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>) -> Result<Link, ConnectError> {
        let link = connect::connect(endpoint, self.connect).await?;
        if let Some(shared) = link.share() {
            let mut shelves = self.shelves.borrow_mut();
            shelves.entry(endpoint.uid()).or_default().shared = Some((shared, Instant::now()));
        }
        Ok(link)
    }

    pub(crate) async fn attempt(
        link: &mut Link,
        request: Request<RequestBody>,
        patience: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        match timeout(patience, link.send(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err((unsent, error))) => Err(SendError::Reset { unsent, error }),
            Err(_) => Err(SendError::FirstByte(patience)),
        }
    }

    /// The freshest connection to a server that can take a request now.
    fn take(&self, uid: u64) -> Option<Link> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&uid)?;
        if let Some((link, used)) = &mut shelf.shared {
            if !link.is_closed() {
                *used = Instant::now();
                return link.share();
            }
            shelf.shared = None;
        }
        let oldest = Instant::now().checked_sub(self.idle);
        while let Some((link, since)) = shelf.idle.pop() {
            if oldest.is_some_and(|oldest| since < oldest) {
                shelf.idle.clear();
            } else if link.is_ready() {
                return Some(link);
            }
        }
        None
    }

    /// Gives a connection back whose answer has been read to the end.
    pub(crate) fn give_back(&self, uid: u64, link: Link) {
        if link.is_shared() || link.is_closed() {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        shelves
            .entry(uid)
            .or_default()
            .idle
            .push((link, Instant::now()));
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        let Some(oldest) = Instant::now().checked_sub(self.idle) else {
            return;
        };
        self.shelves.borrow_mut().retain(|_, shelf| {
            let stale = shelf.idle.partition_point(|(_, since)| *since < oldest);
            shelf.idle.drain(..stale);
            if shelf
                .shared
                .as_ref()
                .is_some_and(|(link, used)| link.is_closed() || (*used < oldest && link.is_alone()))
            {
                shelf.shared = None;
            }
            !shelf.idle.is_empty() || shelf.shared.is_some()
        });
    }
}

/// Sweeps for as long as the worker lives.
pub(crate) async fn sweeper(upstreams: Rc<Upstreams>) {
    let period = (upstreams.idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        upstreams.sweep();
    }
}
