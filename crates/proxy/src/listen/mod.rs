//! Accepting connections and speaking HTTP on them.

mod framing;
mod hello;
mod session;
mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use telemetry::ConnectionSide;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use socket::bind;

use crate::LocalExec;
use crate::exchange::{Client, serve};
use crate::tls::Handshakes;
use crate::upstream::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::worker::Worker;
use framing::Guarded;
use hello::{Session, greet};

/// Streams one HTTP/2 client may have open at once.
const MAX_STREAMS: u32 = 256;

/// How long a client's HTTP/1.1 connection may stay without a request; longer than clients keep theirs, so that it is they
/// who close, and no request meets a connection just being closed.
const CLIENT_IDLE: Duration = Duration::from_secs(600);

/// A port as its workers serve it.
#[derive(Debug)]
pub(crate) struct Port {
    /// The port as the plan names it.
    pub(crate) planned: u16,
    /// Whether clients speak TLS.
    pub(crate) tls: AtomicBool,
    /// What becomes of their handshakes; replaced when a Secret changes.
    pub(crate) handshakes: ArcSwapOption<Handshakes>,
    /// Cancelled when the port is no longer served.
    pub(crate) closing: CancellationToken,
    /// Cancelled when what still runs on a closed port must end.
    pub(crate) closed: CancellationToken,
}

/// A listening socket for one worker.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) port: Arc<Port>,
    pub(crate) listener: std::net::TcpListener,
}

/// When a connection ends.
#[derive(Debug, Clone)]
struct Signals {
    /// The worker drains.
    drain: CancellationToken,
    /// The worker ends.
    abort: CancellationToken,
    port: Arc<Port>,
}

impl Signals {
    async fn graceful(&self) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.port.closing.cancelled() => {}
        }
    }

    async fn now(&self) {
        tokio::select! {
            () = self.abort.cancelled() => {}
            () = self.port.closed.cancelled() => {}
        }
    }
}

/// Accepts connections until the port closes or the worker drains.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    opened: Opened,
    drain: CancellationToken,
    abort: CancellationToken,
) {
    let Opened { port, listener } = opened;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(port = port.planned, %error, "cannot serve a port");
            return;
        }
    };
    let signals = Signals { drain, abort, port };
    let spawn = |accepted: io::Result<(TcpStream, SocketAddr)>| match accepted {
        Ok((stream, from)) => {
            let served = connection(worker.clone(), stream, from.ip(), signals.clone());
            tokio::task::spawn_local(worker.running.track_future(served));
            true
        }
        Err(_) => false,
    };
    loop {
        tokio::select! {
            biased;
            () = signals.graceful() => break,
            accepted = listener.accept() => {
                // Out of file descriptors, most likely; they come back as connections end.
                if !spawn(accepted) {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    // What the kernel has accepted for this socket would be reset with it.
    while let Ok(Ok(accepted)) = timeout(Duration::ZERO, listener.accept()).await {
        spawn(Ok(accepted));
    }
}

/// Serves one connection, whatever it speaks.
async fn connection(worker: Rc<Worker>, stream: TcpStream, from: IpAddr, signals: Signals) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    let set = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection was gone at once");
        return;
    }
    let _open = worker.metrics.connection(ConnectionSide::Client);
    let patience = worker.options.deadlines.client_header;
    let mut client = Client {
        worker,
        port: signals.port.planned,
        tls: signals.port.tls.load(Ordering::Relaxed),
        sni: None,
        address: from,
    };
    if !client.tls {
        let early = timeout(patience, speaks_http2(&stream));
        let http2 = tokio::select! {
            biased;
            () = signals.now() => return,
            early = early => match early {
                Ok(Ok(http2)) => http2,
                _ => return,
            },
            // A connection on which nothing was ever sent owes nobody an answer.
            () = signals.graceful() => match timeout(Duration::from_millis(100), speaks_http2(&stream)).await {
                Ok(Ok(http2)) => http2,
                _ => return,
            },
        };
        return speak(client, stream, http2, &signals).await;
    }
    let Some(handshakes) = signals.port.handshakes.load_full() else {
        return;
    };
    let handshake = timeout(patience, greet(&handshakes, stream));
    let session = tokio::select! {
        biased;
        () = signals.now() => return,
        session = handshake => match session {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => {
                tracing::debug!(%error, client = %from, "a TLS handshake failed");
                return;
            }
            Err(_) => return,
        },
    };
    match session {
        Session::Http(stream) => {
            let session = stream.get_ref().1;
            client.sni = session.server_name().map(str::to_owned);
            let http2 = session.alpn_protocol() == Some(b"h2");
            speak(client, stream, http2, &signals).await;
        }
        Session::Opened(stream, name) => pass(&client, (stream, &[]), &name, &signals).await,
        Session::Sealed(stream, first, name) => {
            pass(&client, (stream, &first), &name, &signals).await;
        }
    }
}

/// Passes a session on to a server, for as long as it may last.
async fn pass<S>(client: &Client, stream: (S, &[u8]), name: &str, signals: &Signals)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let passed = session::pass(&client.worker, client.port, name, stream);
    let passed = tokio::select! {
        biased;
        () = signals.now() => return,
        passed = passed => passed,
    };
    if let Err(error) = passed {
        tracing::debug!(%error, name, client = %client.address, "a TLS session ended");
    }
}

/// Looks at the first bytes without taking them: HTTP/2 with prior knowledge begins with `PRI` (RFC 9113, section 3.4),
/// and no method of HTTP/1.1 does.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 3];
    loop {
        let seen = stream.peek(&mut first).await?;
        if first[..seen] != b"PRI"[..seen] || seen == 0 {
            return Ok(false);
        }
        if seen == first.len() {
            return Ok(true);
        }
        // `P` may be the beginning of `POST`. The bytes stay readable, so the socket cannot wake us for more.
        sleep(Duration::from_millis(5)).await;
    }
}

async fn speak<S>(client: Client, stream: S, http2: bool, signals: &Signals)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if http2 {
        speak_h2(client, stream, signals).await;
    } else {
        speak_h1(client, stream, signals).await;
    }
}

async fn speak_h1<S>(client: Client, stream: S, signals: &Signals)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = client.worker.options.deadlines.client_header;
    let client = Rc::new(client);
    let service = service_fn(move |request| serve(client.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_IDLE)
        .serve_connection(TokioIo::new(Guarded::new(stream, patience)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return said(ended),
        () = signals.graceful() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => said(ended),
        () = signals.now() => {}
    }
}

async fn speak_h2<S>(client: Client, stream: S, signals: &Signals)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Rc::new(client);
    let service = service_fn(move |request| serve(client.clone(), request));
    let connection = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return said(ended),
        () = signals.graceful() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => said(ended),
        () = signals.now() => {}
    }
}

/// A client that breaks its connection is nothing to be alarmed about.
fn said(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended");
    }
}
