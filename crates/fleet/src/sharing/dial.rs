//! Connections to siblings: who they are, and one task for each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use telemetry::Metrics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::hear::INSTANCE;
use super::tell::{Peer, QUEUE};
use super::wire::PATH;
use super::{MOST_SIBLINGS, SiblingName, Ways};
use crate::Error;

/// Longest wait for an address.
const LOOKUP: Duration = Duration::from_secs(5);
/// Longest wait for a connection, and again for leave to talk.
const CONNECT: Duration = Duration::from_secs(2);
/// A sibling that does not answer a ping for so long is lost.
const PING: Duration = Duration::from_secs(5);
/// Time between two attempts, doubled up to the longest.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(5);

/// Who the siblings are now.
pub(super) struct Directory {
    names: Vec<SiblingName>,
    ways: Arc<Ways>,
    joins: mpsc::Sender<Peer>,
    metrics: Arc<Metrics>,
    /// By address and name: a certificate is for a name.
    tasks: BTreeMap<(SocketAddr, String), AbortHandle>,
    /// What each name meant last.
    found: Vec<Option<Vec<SocketAddr>>>,
    told_many: bool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

impl Directory {
    pub(super) fn new(
        names: Vec<SiblingName>,
        ways: Arc<Ways>,
        joins: mpsc::Sender<Peer>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            found: vec![Some(Vec::new()); names.len()],
            names,
            ways,
            joins,
            metrics,
            tasks: BTreeMap::new(),
            told_many: false,
        }
    }

    /// Follows the names.
    pub(super) async fn run(mut self, period: Duration) {
        loop {
            for at in 0..self.names.len() {
                self.look_up(at).await;
            }
            self.reconcile();
            sleep(period).await;
        }
    }

    /// Looks a name up. The last answer is better than none, and an error is said once.
    async fn look_up(&mut self, at: usize) {
        let SiblingName { host, port } = &self.names[at];
        let looked = timeout(LOOKUP, lookup_host((host.as_str(), *port))).await;
        match looked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(addresses) => self.found[at] = Some(addresses.collect()),
            Err(error) if self.found[at].as_ref().is_some_and(Vec::is_empty) => {
                tracing::warn!(siblings = host, %error, "siblings' name does not resolve");
                self.found[at] = None;
            }
            Err(_) => {}
        }
    }

    fn reconcile(&mut self) {
        // By address alone: a sibling that two names lead to is one.
        let mut wanted: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for (name, addresses) in self.names.iter().zip(&self.found) {
            for address in addresses.iter().flatten() {
                let host = || name.host.clone();
                wanted.entry(*address).or_insert_with(host);
            }
        }
        if wanted.len() > MOST_SIBLINGS && !self.told_many {
            self.told_many = true;
            tracing::warn!(
                found = wanted.len(),
                told = MOST_SIBLINGS,
                "too many siblings"
            );
        }
        let wanted: BTreeMap<_, _> = wanted.into_iter().take(MOST_SIBLINGS).collect();
        self.tasks.retain(|(address, host), task| {
            let stays = wanted.get(address) == Some(host);
            if !stays {
                task.abort();
            }
            stays
        });
        for who in wanted {
            if !self.tasks.contains_key(&who) {
                let dialer = Dialer {
                    address: who.0,
                    host: who.1.clone(),
                    ways: Arc::clone(&self.ways),
                    joins: self.joins.clone(),
                    metrics: Arc::clone(&self.metrics),
                    said: String::new(),
                };
                self.tasks
                    .insert(who, tokio::spawn(dialer.run()).abort_handle());
            }
        }
    }
}

/// Why a sibling is not told.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Failed(#[from] Error),
    #[error("it knows another token")]
    Token,
    #[error("it speaks another version")]
    Version,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it is this process")]
    Myself,
}

/// Keeps up the connection to one sibling.
struct Dialer {
    address: SocketAddr,
    host: String,
    ways: Arc<Ways>,
    joins: mpsc::Sender<Peer>,
    metrics: Arc<Metrics>,
    /// The last trouble; the same is not said again.
    said: String,
}

/// Ends the task that drives a connection with the connection's use.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Dialer {
    async fn run(mut self) {
        let mut wait = SOON;
        loop {
            match self.talk().await {
                Ok(()) => {
                    tracing::info!(sibling = %self.address, "the connection to a sibling ended");
                    wait = SOON;
                }
                // Addresses do not change hands from one process to another of ours without notice: look again later.
                Err(Refused::Myself) => wait = LATER,
                Err(error) => {
                    let text = error.to_string();
                    if text != self.said {
                        tracing::warn!(sibling = %self.address, error = text, "a sibling is not told");
                        self.said = text;
                    }
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(LATER);
        }
    }

    /// Connects and talks until the connection ends.
    async fn talk(&mut self) -> Result<(), Refused> {
        let connected = timeout(CONNECT, TcpStream::connect(self.address)).await;
        let tcp = connected
            .map_err(|_| Error::Timeout)?
            .map_err(Error::Connect)?;
        tcp.set_nodelay(true).map_err(Error::Connect)?;
        let Some(certificates) = &self.ways.certificates else {
            return self.talk_over(tcp).await;
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| Error::ServerName(self.host.clone()))?;
        let tls = TlsConnector::from(certificates.configs().client);
        let stream = timeout(CONNECT, tls.connect(name, tcp)).await;
        let stream = stream
            .map_err(|_| Error::Timeout)?
            .map_err(Error::Connect)?;
        self.talk_over(stream).await
    }

    async fn talk_over<T>(&mut self, stream: T) -> Result<(), Refused>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Http)?;
        let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        let (queue, body) = Outgoing::new();
        let bytes = Arc::clone(&body.bytes);
        let answer = timeout(CONNECT, sender.send_request(self.request(body)?)).await;
        let answer = answer.map_err(|_| Error::Timeout)?.map_err(Error::Http)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(Refused::Token),
            StatusCode::NOT_FOUND => return Err(Refused::Version),
            StatusCode::MISDIRECTED_REQUEST => return Err(Refused::Myself),
            other => return Err(Refused::Status(other)),
        }
        tracing::info!(sibling = %self.address, "a sibling is told");
        self.said.clear();
        let _connected = self.metrics.sibling();
        let asked = Arc::new(AtomicBool::new(false));
        let peer = Peer::new(queue, bytes, Arc::clone(&asked));
        if self.joins.send(peer).await.is_ok() {
            until_end(answer.into_body(), &asked).await;
        }
        Ok(())
    }

    fn request(&self, body: Outgoing) -> Result<Request<Outgoing>, Error> {
        let scheme = match self.ways.certificates {
            Some(_) => "https",
            None => "http",
        };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(self.address.to_string())
            .path_and_query(PATH)
            .build()?;
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(uri)
            .header(CONTENT_TYPE, "application/grpc+proto")
            .header(USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .header(INSTANCE, format!("{:016x}", self.ways.instance));
        if let Some(token) = self.ways.token.read()? {
            request = request.header(AUTHORIZATION, token);
        }
        Ok(request.body(body)?)
    }
}

/// Whatever comes in the answer asks for everything anew. It ends when the sibling listens no more.
async fn until_end(mut body: Incoming, asked: &AtomicBool) {
    while let Some(Ok(_)) = body.frame().await {
        asked.store(true, Ordering::Relaxed);
    }
}

/// A request body from a queue.
#[derive(Debug)]
struct Outgoing {
    queue: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let bytes = Arc::default();
        (sender, Self { queue, bytes })
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let frame = ready!(this.queue.poll_recv(cx));
        if let Some(frame) = &frame {
            this.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }
}
