//! Sockets, connections, and how a server ends.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use simulator::Stats;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::args::SimArgs;
use crate::options::SimOptions;
use crate::routes;
use crate::state::State;

/// Time for aborted streams to write their last events.
const FAREWELL: Duration = Duration::from_secs(3);

/// A response body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection is reset on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is reset on purpose")]
pub(crate) struct Cut;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    /// No new connections; those that are open close when idle.
    Closing,
    /// Everything ends now.
    Gone,
}

/// A running server. Dropping it leaves the server running until its runtime ends.
pub struct SimHandle {
    address: SocketAddr,
    state: Arc<State>,
    phase: watch::Sender<Phase>,
    accept: JoinHandle<()>,
    engine: JoinHandle<()>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Bad options, or an address that cannot be bound.
pub async fn run(args: SimArgs) -> anyhow::Result<()> {
    let options = SimOptions::try_from(args)?;
    let handle = spawn(options).await?;
    tracing::info!(address = %handle.address(), "simulated server is listening");
    wait_for_signal().await?;
    tracing::info!("stopping");
    handle.shutdown().await;
    Ok(())
}

#[cfg(unix)]
async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => result,
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// Starts a server on the current runtime.
///
/// # Errors
/// Bad options, or an address that cannot be bound.
pub async fn spawn(options: SimOptions) -> anyhow::Result<SimHandle> {
    options.check()?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let state = State::new(options);
    let (phase, phases) = watch::channel(Phase::Serving);
    let engine = tokio::spawn(Arc::clone(&state.host).drive());
    let accept = tokio::spawn(accept(listener, Arc::clone(&state), phases));
    Ok(SimHandle {
        address,
        state,
        phase,
        accept,
        engine,
    })
}

impl SimHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A snapshot of its engine.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.host.stats()
    }

    /// The failures it injects.
    #[must_use]
    pub fn faults(&self) -> crate::Faults {
        (*self.state.faults()).clone()
    }

    /// Replaces the failures to inject; requests that run keep those they began with.
    ///
    /// # Errors
    /// A rate outside 0 to 1.
    pub fn set_faults(&self, faults: crate::Faults) -> Result<(), crate::faults::FaultsError> {
        *self.state.faults.lock() = Arc::new(faults.checked()?);
        Ok(())
    }

    /// Ends like vLLM on SIGTERM: with a shutdown timeout, requests may finish within it while new ones get 500;
    /// then, or at once without one, streams end with the finish reason `abort`, and the port closes.
    pub async fn shutdown(self) {
        let timeout = self.state.options.shutdown_timeout;
        if timeout > Duration::ZERO {
            self.drain(timeout).await;
        }
        self.stop().await;
    }

    /// Refuses new inference requests with 500 and waits until the running ones are done, or the timeout is over.
    pub async fn drain(&self, timeout: Duration) {
        self.state.draining.store(true, Ordering::Relaxed);
        let idle = async {
            while self.state.in_flight.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(timeout, idle).await;
    }

    /// Ends all streams with the finish reason `abort` and closes the port.
    pub async fn stop(self) {
        self.state.draining.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Closing);
        self.state.host.abort_all();
        let mut accept = self.accept;
        if tokio::time::timeout(FAREWELL, &mut accept).await.is_err() {
            self.phase.send_replace(Phase::Gone);
            let _ = accept.await;
        }
        self.engine.abort();
    }

    /// Ends as a crash does: every connection is reset in mid-air, nothing is said.
    pub async fn kill(self) {
        self.phase.send_replace(Phase::Gone);
        let _ = self.accept.await;
        self.engine.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, mut phases: watch::Receiver<Phase>) {
    let mut connections = JoinSet::new();
    let for_connections = phases.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, Arc::clone(&state), for_connections.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = reached(&mut phases, Phase::Closing) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the end has come so far. A server whose handle was dropped has no end.
async fn reached(phases: &mut watch::Receiver<Phase>, far: Phase) {
    if phases.wait_for(|phase| *phase >= far).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn connection(socket: TcpStream, state: Arc<State>, mut phases: watch::Receiver<Phase>) {
    let _ = socket.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Socket {
        stream: socket,
        reset: Arc::clone(&reset),
    });
    let service = {
        let (state, reset) = (Arc::clone(&state), Arc::clone(&reset));
        service_fn(move |request| answer(Arc::clone(&state), Arc::clone(&reset), request))
    };
    let idle = state.options.keep_alive_timeout;
    if state.options.h2c {
        let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_connection_window_size(16 << 20);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = serving.as_mut() => return,
            _ = reached(&mut phases, Phase::Closing) => serving.as_mut().graceful_shutdown(),
        }
        finish(serving, phases, &reset).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(idle);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = serving.as_mut() => return,
            _ = reached(&mut phases, Phase::Closing) => serving.as_mut().graceful_shutdown(),
        }
        finish(serving, phases, &reset).await;
    }
}

/// Lets a connection write what it has to, unless everything ends now.
async fn finish<F: Future>(
    serving: Pin<&mut F>,
    mut phases: watch::Receiver<Phase>,
    reset: &AtomicBool,
) {
    tokio::select! {
        biased;
        _ = reached(&mut phases, Phase::Gone) => reset.store(true, Ordering::Relaxed),
        _ = serving => {}
    }
}

async fn answer(
    state: Arc<State>,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let (parts, body) = request.into_parts();
    match routes::handle(state, parts, body).await {
        Ok(answer) => Ok(answer.map(|body| {
            let mark = move |cut| {
                reset.store(true, Ordering::Relaxed);
                cut
            };
            body.map_err(mark).boxed_unsync()
        })),
        Err(cut) => {
            reset.store(true, Ordering::Relaxed);
            Err(cut)
        }
    }
}

/// A socket that can end with a reset instead of a clean end.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // With a zero linger time, closing sends RST and discards what is unsent.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
