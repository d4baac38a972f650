//! Siblings' connections to us: what they tell goes into the cores.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use routing::PoolKey;
use rustc_hash::{FxHashMap, FxHashSet};
use scheduling::{SharedEvent, SiblingId};
use telemetry::{Metrics, SharedEvents as Counted};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::wire::{Batch, Frames, Garbled, PATH};
use super::{MOST_SIBLINGS, Ways};
use crate::Fleet;

/// Which process talks.
pub(super) const INSTANCE: &str = "x-pointsman-instance";
/// Whoever has not said a right word after this is no sibling.
const GREETING: Duration = Duration::from_secs(5);
/// A sibling that does not answer a ping for so long is lost.
const PING: Duration = Duration::from_secs(5);
/// Pools of one sibling, those counted that it no longer has.
const MOST_POOLS: usize = 1 << 16;
/// How often it is looked whether what was missed is here now; the sibling is then asked to tell everything anew.
const LOOK: Duration = Duration::from_secs(1);
const MOST_MISSED: usize = 1024;
const ASK: Bytes = Bytes::from_static(b"?");
/// Largest head of a request.
const HEAD: u32 = 16 << 10;

/// One pool of one sibling.
type Who = (PoolKey, SiblingId);

/// Pools, and servers of pools, that a sibling spoke of and that are not here: it may have seen them first.
type Missed = FxHashSet<(PoolKey, Option<u64>)>;

/// Listens.
pub(super) struct Hearer {
    fleet: Weak<Fleet>,
    metrics: Arc<Metrics>,
    ways: Arc<Ways>,
    forget_after: Duration,
    /// Connections that each has. One may have two: it reaches us by two addresses.
    present: Mutex<FxHashMap<Who, usize>>,
    /// It was said that somebody sends what we do not understand.
    told_garbled: AtomicBool,
    told_refused: AtomicBool,
}

/// Takes connections.
pub(super) async fn accept(listener: TcpListener, hearer: Arc<Hearer>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            // Siblings are few; a crowd is something else and may come again.
            Ok(_) if connections.len() >= 2 * MOST_SIBLINGS => {}
            Ok((stream, _)) => {
                connections.spawn(Arc::clone(&hearer).connection(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a sibling");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Hearer {
    pub(super) fn new(fleet: &Arc<Fleet>, ways: Arc<Ways>, forget_after: Duration) -> Arc<Self> {
        Arc::new(Self {
            fleet: Arc::downgrade(fleet),
            metrics: Arc::clone(fleet.metrics()),
            ways,
            forget_after,
            present: Mutex::default(),
            told_garbled: AtomicBool::new(false),
            told_refused: AtomicBool::new(false),
        })
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(certificates) = &self.ways.certificates else {
            return self.serve(stream).await;
        };
        let tls = TlsAcceptor::from(certificates.configs().server);
        match timeout(GREETING, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => self.refuse(&format!("TLS: {error}")),
            Err(_) => {}
        }
    }

    async fn serve<T>(self: Arc<Self>, stream: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let greeted = Arc::new(Notify::new());
        let known = Arc::clone(&greeted);
        let service = service_fn(move |request| {
            let answer = self.answer(request, &known);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(2)
            .max_header_list_size(HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(served);
        tokio::select! {
            _ = served.as_mut() => return,
            () = greeted.notified() => {}
            () = sleep(GREETING) => return,
        }
        // However it ends, its end is what counts.
        let _ = served.await;
    }

    /// Whether the caller may talk; if it may, listens to it from now on.
    fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        greeted: &Notify,
    ) -> Response<Channel<Bytes>> {
        let (ends, body) = Channel::new(1);
        let mut response = Response::new(body);
        let head = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
        let mine = format!("{:016x}", self.ways.instance);
        let status = if request.method() != Method::POST || request.uri().path() != PATH {
            self.refuse("it speaks another version");
            StatusCode::NOT_FOUND
        } else if !self.ways.token.admits(head(AUTHORIZATION.as_str())) {
            self.refuse("it does not know the token");
            StatusCode::UNAUTHORIZED
        } else if head(INSTANCE) == Some(mine.as_bytes()) {
            StatusCode::MISDIRECTED_REQUEST
        } else {
            greeted.notify_one();
            tokio::spawn(Arc::clone(self).listen(request.into_body(), ends));
            StatusCode::OK
        };
        *response.status_mut() = status;
        response
    }

    /// Says once that somebody is not let in.
    fn refuse(&self, why: &str) {
        if !self.told_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "somebody who calls as a sibling is not listened to");
        }
    }

    /// Listens to a sibling to its end, and waits whether it comes back.
    async fn listen(self: Arc<Self>, body: Incoming, answer: Sender<Bytes>) {
        let mut heard = FxHashSet::default();
        // When this is over the answer ends, and with it the connection.
        if self.hear(body, answer, &mut heard).await.is_err()
            && !self.told_garbled.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("a sibling says what cannot be understood");
        }
        let left: Vec<Who> = {
            let mut present = self.present.lock();
            let gone = |who: &Who| {
                let connections = present.get_mut(who)?;
                *connections -= 1;
                (*connections == 0).then(|| who.clone())
            };
            heard.iter().filter_map(gone).collect()
        };
        sleep(self.forget_after).await;
        for who in left {
            self.forget(&who);
        }
    }

    /// A sibling that did not come back.
    fn forget(&self, who: &Who) {
        {
            let mut present = self.present.lock();
            if present.get(who).is_none_or(|connections| *connections > 0) {
                return;
            }
            present.remove(who);
        }
        if let Some(pool) = self.fleet.upgrade().and_then(|fleet| fleet.pool(&who.0)) {
            pool.hear(who.1, [SharedEvent::Forgotten]);
        }
    }

    async fn hear(
        &self,
        mut body: Incoming,
        mut answer: Sender<Bytes>,
        heard: &mut FxHashSet<Who>,
    ) -> Result<(), Garbled> {
        let mut frames = Frames::default();
        let mut missed = Missed::default();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = look.tick() => {
                    if self.came(&mut missed) && answer.send_data(ASK).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some(Ok(frame)) = frame else {
                return Ok(());
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            frames.push(data);
            while let Some(batch) = frames.next()? {
                if heard.len() > MOST_POOLS {
                    return Err(Garbled);
                }
                self.take(batch, heard, &mut missed);
            }
        }
    }

    /// Whether something that a sibling spoke of in vain is here now.
    fn came(&self, missed: &mut Missed) -> bool {
        let Some(fleet) = self.fleet.upgrade() else {
            return false;
        };
        let before = missed.len();
        missed.retain(|(key, token)| {
            fleet.pool(key).is_none_or(|pool| {
                token.is_some_and(|token| pool.endpoint_by_token(token).is_none())
            })
        });
        missed.len() < before
    }

    /// Gives a batch to its pool, if it is here.
    fn take(&self, batch: Batch, heard: &mut FxHashSet<Who>, missed: &mut Missed) {
        let Some(fleet) = self.fleet.upgrade() else {
            return;
        };
        let Some(key) = batch.key() else {
            return;
        };
        let Some(pool) = fleet.pool(&key) else {
            note(missed, &key, None);
            return;
        };
        let sibling = SiblingId(batch.teller);
        let who = (key.clone(), sibling);
        if !heard.contains(&who) {
            *self.present.lock().entry(who.clone()).or_default() += 1;
            heard.insert(who);
        }
        if batch.anew {
            pool.hear(sibling, [SharedEvent::Forgotten, SharedEvent::Alive]);
        }
        self.metrics
            .shared(Counted::Received, batch.events.len() as u64);
        let roster = pool.roster.load_full();
        let mut endpoint = |token| {
            let found = roster.by_token(token).map(|endpoint| endpoint.id);
            if found.is_none() {
                note(missed, &key, Some(token));
            }
            found
        };
        let events = batch.events.into_iter();
        pool.hear(sibling, events.filter_map(|told| told.event(&mut endpoint)));
    }
}

fn note(missed: &mut Missed, key: &PoolKey, token: Option<u64>) {
    if missed.len() < MOST_MISSED {
        missed.insert((key.clone(), token));
    }
}
