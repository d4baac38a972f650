//! Reaching a server: TCP, TLS where the pool wants it, and the HTTP handshake, all within one deadline.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet::Endpoint;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use routing::AppProtocol;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::link::{Driver, Link};
use crate::LocalExec;

/// A server that cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Not within the deadline.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// TCP refused.
    #[error("connect: {0}")]
    Tcp(io::Error),
    /// The handshake failed or the certificate is not what the policy asks for.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The HTTP handshake failed.
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    /// The request's body cannot be sent a second time.
    #[error("the request's body is spent")]
    Spent,
}

/// See crates `h2` and `hyper`: a stalled stream must neither starve nor kill its connection, so a stream's window is
/// small and the connection's large.
pub(crate) const STREAM_WINDOW: u32 = 64 << 10;
/// The window of a whole HTTP/2 connection.
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;

pub(super) async fn connect(
    endpoint: &Arc<Endpoint>,
    limit: Duration,
) -> Result<Link, ConnectError> {
    timeout(limit, open(endpoint))
        .await
        .unwrap_or(Err(ConnectError::Timeout(limit)))
}

async fn open(endpoint: &Arc<Endpoint>) -> Result<Link, ConnectError> {
    let tcp = TcpStream::connect(endpoint.address())
        .await
        .map_err(ConnectError::Tcp)?;
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let http2 = endpoint.protocol() == AppProtocol::H2c;
    let Some(tls) = endpoint.tls() else {
        return handshake(TokioIo::new(tcp), http2).await;
    };
    let connector = TlsConnector::from(tls.config().clone());
    let stream = connector
        .connect(tls.name().clone(), tcp)
        .await
        .map_err(ConnectError::Tls)?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    handshake(TokioIo::new(stream), http2 || agreed).await
}

async fn handshake<I>(io: I, http2: bool) -> Result<Link, ConnectError>
where
    I: Read + Write + Unpin + Send + 'static,
{
    if http2 {
        let (sender, connection) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(Duration::from_secs(20))
            .handshake(io)
            .await
            .map_err(ConnectError::Http)?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a server's HTTP/2 connection ended");
            }
        });
        return Ok(Link::H2 {
            sender,
            driver: Rc::new(Driver(task.abort_handle())),
        });
    }
    let (sender, connection) = http1::Builder::new()
        .handshake(io)
        .await
        .map_err(ConnectError::Http)?;
    let task = tokio::task::spawn_local(async move {
        // Errors reach the exchange that has the connection; between exchanges they only mean that it is closed.
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "a server's connection ended");
        }
    });
    Ok(Link::H1 {
        sender,
        _driver: Driver(task.abort_handle()),
    })
}
