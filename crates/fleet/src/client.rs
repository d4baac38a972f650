//! The small HTTP client that asks servers about themselves: GET, one kept connection, bounded answers.
//!
//! A connection is given up whenever an exchange on it did not end well, also when the caller stopped waiting. Servers
//! close idle connections as they like (vLLM after five seconds), so an exchange that fails on a kept connection is
//! tried once more on a new one.

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::AppProtocol;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::{Endpoint, Error};

/// Largest answer that is read: a metrics page of a busy server has less than a megabyte.
const MAX_BODY: usize = 4 << 20;

/// A client of one server.
#[derive(Debug, Default)]
pub(crate) struct Client {
    kept: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: Sender,
    driver: AbortHandle,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Gets `path`. The caller bounds the time.
    pub(crate) async fn get(
        &mut self,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<(StatusCode, Bytes), Error> {
        if let Some(mut connection) = self.kept.take()
            && let Ok(answer) = connection.exchange(endpoint, path).await
        {
            self.kept = Some(connection);
            return Ok(answer);
        }
        let mut connection = Connection::open(endpoint).await?;
        let answer = connection.exchange(endpoint, path).await?;
        self.kept = Some(connection);
        Ok(answer)
    }
}

/// Whether the server takes connections.
pub(crate) async fn connects(endpoint: &Endpoint) -> Result<(), Error> {
    TcpStream::connect(endpoint.address())
        .await
        .map(drop)
        .map_err(Error::Connect)
}

impl Connection {
    async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let tcp = TcpStream::connect(endpoint.address())
            .await
            .map_err(Error::Connect)?;
        tcp.set_nodelay(true).map_err(Error::Connect)?;
        match endpoint.tls() {
            None => Self::speak(TokioIo::new(tcp), endpoint.protocol()).await,
            Some(tls) => {
                let connector = TlsConnector::from(tls.config().clone());
                let stream = connector
                    .connect(tls.name().clone(), tcp)
                    .await
                    .map_err(Error::Connect)?;
                Self::speak(TokioIo::new(stream), endpoint.protocol()).await
            }
        }
    }

    async fn speak<T>(io: T, protocol: AppProtocol) -> Result<Self, Error>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, driver) = match protocol {
            AppProtocol::Http => {
                let (sender, connection) = http1::handshake(io).await?;
                (
                    Sender::Http1(sender),
                    tokio::spawn(async move { drop(connection.await) }),
                )
            }
            AppProtocol::H2c => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                (
                    Sender::Http2(sender),
                    tokio::spawn(async move { drop(connection.await) }),
                )
            }
        };
        Ok(Self {
            sender,
            driver: driver.abort_handle(),
        })
    }

    async fn exchange(
        &mut self,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<(StatusCode, Bytes), Error> {
        let path = format!("{}{path}", endpoint.base_path().unwrap_or_default());
        let request = Request::builder()
            .method(Method::GET)
            .header(USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "*/*");
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let request = request
                    .uri(path)
                    .header(HOST, endpoint.authority())
                    .body(Empty::new())?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let scheme = if endpoint.tls().is_some() {
                    "https"
                } else {
                    "http"
                };
                let uri = Uri::builder()
                    .scheme(scheme)
                    .authority(endpoint.authority())
                    .path_and_query(path)
                    .build()?;
                let request = request
                    .uri(uri)
                    .version(Version::HTTP_2)
                    .body(Empty::new())?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        Ok((status, read(response.into_body()).await?))
    }
}

/// The body, if it is not too large.
async fn read(mut body: Incoming) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            if whole.len() + data.len() > MAX_BODY {
                return Err(Error::TooLarge(MAX_BODY));
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}
