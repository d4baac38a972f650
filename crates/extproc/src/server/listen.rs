//! A port and the threads behind it.
//!
//! A proxy opens a handful of connections, one for each of its workers, and keeps them: chance, which spreads thousands
//! of clients well, would leave cores idle here. So one place accepts, and gives each connection to the thread that has
//! the fewest.
//!
//! **Windows.** A stream may have 64 KiB under way and a connection 64 MiB: a stream that nobody reads must not hold up
//! the others, and HTTP/2's own guard against tiny frames closes connections whose window is small.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;
use tonic::service::Routes;

use super::certificate::{Certificate, CertificateError};
use super::service::Service;

const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Envoy ends every stream with a reset: of those that were reset before they were looked at, this many may wait.
const RESETS: usize = 10_000;
const HANDSHAKE: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(30);
const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// Why a listener does not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The port cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Settings of a listener.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// TLS; without, plain HTTP/2.
    pub certificate: Option<Arc<Certificate>>,
    /// Threads.
    pub threads: usize,
}

/// What is served.
#[derive(Clone)]
struct Entry {
    process: Option<Service>,
    rest: Routes,
}

/// A port that is served.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    drain: CancellationToken,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    connections: Arc<AtomicUsize>,
    incoming: mpsc::UnboundedSender<std::net::TcpStream>,
    done: oneshot::Receiver<()>,
}

impl Listener {
    /// Serves `process`, where there is one, and beside it `rest`: health, reflection. Must be called inside a runtime.
    ///
    /// # Errors
    /// The port is in use, or a thread cannot be started.
    pub async fn start(
        options: ListenerOptions,
        process: Option<Service>,
        rest: Routes,
    ) -> Result<Self, ListenerError> {
        let address = options.address;
        let bind = |source| ListenerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let tls = match &options.certificate {
            Some(certificate) => Some(TlsAcceptor::from(Arc::new(certificate.config()?))),
            None => None,
        };
        let entry = Entry {
            process,
            rest: rest.prepare(),
        };
        let drain = CancellationToken::new();
        let workers = (0..options.threads.max(1))
            .map(|number| Worker::start(number, entry.clone(), tls.clone(), drain.clone()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(ListenerError::Thread)?;
        let queues: Vec<_> = workers
            .iter()
            .map(|worker| (worker.connections.clone(), worker.incoming.clone()))
            .collect();
        tokio::spawn(accept(listener, queues, drain.clone()));
        Ok(Self {
            address,
            drain,
            workers,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more streams and lets the running ones end; after `limit` they are cut.
    pub async fn drain(mut self, limit: Duration) {
        self.drain.cancel();
        let all = async {
            for worker in &mut self.workers {
                // A worker that is gone has drained.
                let _ = (&mut worker.done).await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("streams are cut: they took longer than the drain may");
        }
    }
}

/// Gives each connection to the worker with the fewest.
async fn accept(
    listener: TcpListener,
    queues: Vec<(Arc<AtomicUsize>, mpsc::UnboundedSender<std::net::TcpStream>)>,
    drain: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.cancelled() => return,
        };
        let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let idlest = queues
            .iter()
            .min_by_key(|(count, _)| count.load(Ordering::Relaxed));
        if let Some((count, queue)) = idlest {
            count.fetch_add(1, Ordering::Relaxed);
            if queue.send(stream).is_err() {
                return;
            }
        }
    }
}

impl Worker {
    fn start(
        number: usize,
        entry: Entry,
        tls: Option<TlsAcceptor>,
        drain: CancellationToken,
    ) -> io::Result<Self> {
        let (incoming, queue) = mpsc::unbounded_channel();
        let (ended, done) = oneshot::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name(format!("picker-{number}"))
            .spawn(move || {
                runtime.block_on(work(queue, entry, tls, count, drain));
                let _ = ended.send(());
            })?;
        Ok(Self {
            connections,
            incoming,
            done,
        })
    }
}

async fn work(
    mut queue: mpsc::UnboundedReceiver<std::net::TcpStream>,
    entry: Entry,
    tls: Option<TlsAcceptor>,
    count: Arc<AtomicUsize>,
    drain: CancellationToken,
) {
    let running = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            stream = queue.recv() => stream,
            () = drain.cancelled() => break,
        };
        let Some(stream) = stream else { break };
        let one = connection(stream, entry.clone(), tls.clone(), drain.clone());
        let count = count.clone();
        running.spawn(async move {
            if let Err(error) = one.await {
                tracing::debug!(%error, "a connection failed");
            }
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
    running.close();
    running.wait().await;
}

async fn connection(
    stream: std::net::TcpStream,
    entry: Entry,
    tls: Option<TlsAcceptor>,
    drain: CancellationToken,
) -> io::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    match tls {
        None => serve(stream, entry, drain).await,
        Some(tls) => {
            let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
            serve(stream, entry, drain).await;
        }
    }
    Ok(())
}

async fn serve<T>(stream: T, entry: Entry, drain: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| entry.clone().call(request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(RESETS)
        .keep_alive_interval(PING_EVERY);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = drain.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

impl Entry {
    async fn call(
        mut self,
        request: Request<Incoming>,
    ) -> Result<Response<tonic::body::Body>, std::convert::Infallible> {
        match &self.process {
            Some(process) if request.uri().path() == PROCESS => process.process(request),
            _ => self.rest.call(request).await,
        }
    }
}
