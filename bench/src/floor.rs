//! The floor: the least that a hyper reverse proxy can do.
//!
//! Round robin over the backends, bodies streamed both ways, `TCP_NODELAY` on both sides, the
//! keep-alive pool of hyper-util; nothing is read, retried, counted or logged. Whatever a gateway
//! costs above this is its own doing, which makes the floor the unit of the bench.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::Error;

struct Floor {
    client: Client<HttpConnector, Incoming>,
    backends: Vec<String>,
    next: AtomicUsize,
}

impl Floor {
    fn new(backends: &[SocketAddr]) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(connector),
            backends: backends.iter().map(ToString::to_string).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Sends a request to the next backend in turn; the body follows as it arrives.
    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let to = self.backends[turn % self.backends.len()].as_str();
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(to)
            .path_and_query(path)
            .build()?;
        Ok(self.client.request(request).await?)
    }

    async fn serve_connection(self: Arc<Self>, io: TcpStream) {
        // A connection that fails is its client's business: the load generator counts it.
        let _ = io.set_nodelay(true);
        let service = service_fn(move |request| {
            let floor = Arc::clone(&self);
            async move { floor.forward(request).await }
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(io), service)
            .await;
    }
}

/// Serves until dropped: every connection of `listener` is forwarded to `backends` in turn.
///
/// # Panics
/// When `backends` is empty and a request comes.
pub async fn serve(listener: TcpListener, backends: &[SocketAddr]) {
    let floor = Arc::new(Floor::new(backends));
    loop {
        if let Ok((io, _)) = listener.accept().await {
            tokio::spawn(Arc::clone(&floor).serve_connection(io));
        }
    }
}
