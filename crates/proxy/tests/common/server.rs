//! Model servers of the tests.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A body of a test server.
pub type Body = BoxBody<Bytes, std::io::Error>;
/// What a test server comes up with.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, and lists no models.
    Http1,
    /// HTTP/1.1, and `GET /v1/models` is asked of the test.
    Models,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What a server was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub uri: http::Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A model server that does what a test says. Probes and scrapes of the fleet get 404 and are not counted.
pub struct Server {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Paths by which the fleet learns about servers.
fn is_probe(method: &Method, path: &str) -> bool {
    method == Method::GET
        && matches!(
            path,
            "/metrics" | "/health" | "/v1/models" | "/get_server_info"
        )
}

impl Server {
    /// A server whose answers `answer` makes.
    pub async fn start<F>(answer: F) -> Self
    where
        F: Fn(Asked) -> Answer + Send + Sync + 'static,
    {
        Self::start_with(answer, Speaks::Http1).await
    }

    /// The same, speaking something else.
    pub async fn start_with<F>(answer: F, kind: Speaks) -> Self
    where
        F: Fn(Asked) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (log, count, answer) = (asked.clone(), connections.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (log, answer) = (log.clone(), answer.clone());
                        async move { serve(request, &log, &*answer, kind == Speaks::Models).await }
                    });
                    let io = TokioIo::new(stream);
                    if kind == Speaks::Http2 {
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .await;
                    }
                });
            }
        });
        Self {
            address,
            asked,
            connections,
            task,
        }
    }

    /// A server that always gives the same answer.
    pub async fn fixed(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::start(move |_| {
            let body = body.clone();
            Box::pin(async move {
                Response::builder()
                    .status(status)
                    .header("content-type", content_type)
                    .body(full(body))
                    .expect("response")
            })
        })
        .await
    }

    /// A server whose connections are handled byte by byte. Connections of the fleet are answered with 404 before
    /// `handle` is asked; it gets the head of the request and the rest of the connection.
    pub async fn raw<F, Fut>(handle: F) -> Self
    where
        F: Fn(Vec<u8>, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let connections: Arc<AtomicUsize> = Arc::default();
        let (count, handle) = (connections.clone(), Arc::new(handle));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (count, handle) = (count.clone(), handle.clone());
                tokio::spawn(async move {
                    let Some(head) = read_head(&mut stream).await else {
                        return;
                    };
                    let line = String::from_utf8_lossy(&head);
                    let path = line.split(' ').nth(1).unwrap_or_default();
                    if line.starts_with("GET ") && is_probe(&Method::GET, path) {
                        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    handle(head, stream).await;
                });
            }
        });
        Self {
            address,
            asked: Arc::default(),
            connections,
            task,
        }
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.asked.lock().len()
    }

    /// The last request.
    pub fn last(&self) -> Asked {
        self.asked.lock().last().cloned().expect("a request")
    }
}

async fn serve(
    request: Request<Incoming>,
    log: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(Asked) -> Answer + Send + Sync),
    lists: bool,
) -> std::io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    // Only servers with models of their own have something to say to this.
    if head.uri.path() == "/v1/models" && lists {
        let asked = Asked {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            body: Bytes::new(),
        };
        return Ok(answer(asked).await);
    }
    if is_probe(&head.method, head.uri.path()) {
        return Ok(Response::builder()
            .status(404)
            .body(full(""))
            .expect("response"));
    }
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let asked = Asked {
        method: head.method,
        uri: head.uri,
        headers: head.headers,
        body,
    };
    log.lock().push(asked.clone());
    Ok(answer(asked).await)
}

/// Reads until the empty line.
pub async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(head)
}

/// Reads the head's body by its content-length.
pub async fn read_body(head: &[u8], stream: &mut TcpStream) -> Vec<u8> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |n| n.trim().parse().expect("n"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("body");
    body
}

/// A whole body.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A body of frames sent through a channel; an error breaks it off.
pub fn channel() -> (tokio::sync::mpsc::Sender<std::io::Result<Bytes>>, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
    let frames = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|item| item.map(|data| data.map(Frame::data)))
    });
    (
        sender,
        BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(frames)))),
    )
}

/// Makes a stream shareable for a boxed body.
struct SyncStream<S>(Mutex<S>);

impl<S: futures_util::Stream + Unpin> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.lock()).poll_next(cx)
    }
}
