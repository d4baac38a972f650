//! The first message of a TLS session, looked at before it is decided what becomes of the session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{Handshakes, Manner};

/// A fatal alert `unrecognized_name` (RFC 6066, section 3) as a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A session whose fate is decided.
pub(super) enum Session {
    /// HTTP is in it.
    Http(TlsStream<Recorded>),
    /// What is in it is for a server.
    Opened(TlsStream<Recorded>, String),
    /// It is for a server as it is; the bytes that have been looked at come first.
    Sealed(TcpStream, Vec<u8>, String),
}

/// Reads the first message of a session and goes on as the listener for its name wants.
pub(super) async fn greet(handshakes: &Handshakes, stream: TcpStream) -> io::Result<Session> {
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), Recorded::new(stream)).await?;
    let name = start.client_hello().server_name().map(str::to_owned);
    match handshakes.of(name.as_deref()) {
        Some(Manner::Http(config)) => {
            start.io.forget();
            Ok(Session::Http(start.into_stream(config.clone()).await?))
        }
        Some(Manner::Open(config)) => {
            start.io.forget();
            let stream = start.into_stream(config.clone()).await?;
            Ok(Session::Opened(stream, name.unwrap_or_default()))
        }
        Some(Manner::Pass) => {
            let Recorded { stream, seen } = start.io;
            let name = name.unwrap_or_default();
            Ok(Session::Sealed(stream, seen.unwrap_or_default(), name))
        }
        None => {
            if handshakes.answers() {
                start.io.write_all(&UNRECOGNIZED_NAME).await?;
            }
            Err(io::Error::other("no listener is for this name"))
        }
    }
}

/// A connection that remembers what was read from it.
#[derive(Debug)]
pub(super) struct Recorded {
    stream: TcpStream,
    seen: Option<Vec<u8>>,
}

impl Recorded {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            seen: Some(Vec::new()),
        }
    }

    /// What was read need not be known any more, nor what will be.
    fn forget(&mut self) {
        self.seen = None;
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(seen) = &mut self.seen {
            seen.extend_from_slice(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
