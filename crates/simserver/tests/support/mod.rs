//! A server and a client for it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its own part; a failure is a panic"
)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use simserver::{SimHandle, SimOptions};
use tokio::net::TcpStream;

/// Options under which a test takes milliseconds.
pub(crate) fn fast() -> SimOptions {
    SimOptions {
        model: "tiny".into(),
        speed: 200.0,
        seed: 1,
        ..SimOptions::default()
    }
}

pub(crate) async fn start(options: SimOptions) -> SimHandle {
    simserver::spawn(options).await.unwrap()
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The payloads of `data:` lines.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect()
    }

    /// The payloads that are JSON.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        self.events()
            .iter()
            .filter(|event| **event != "[DONE]")
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }
}

pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

pub(crate) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sim");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into())).unwrap()
}

/// Sends a request on a connection of its own and hands back the head with the body still to come.
pub(crate) async fn open(sim: &SimHandle, path: &str, body: &Value) -> http::Response<Incoming> {
    let mut sender = connect(sim.address()).await;
    sender
        .send_request(request(Method::POST, path, &[], body.to_string()))
        .await
        .unwrap()
}

pub(crate) async fn send(sim: &SimHandle, request: Request<Full<Bytes>>) -> Reply {
    try_send(sim.address(), request).await.unwrap()
}

pub(crate) async fn try_send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Reply, hyper::Error> {
    let mut sender = connect(address).await;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body,
    })
}

pub(crate) async fn post(sim: &SimHandle, path: &str, body: &Value) -> Reply {
    send(sim, request(Method::POST, path, &[], body.to_string())).await
}

pub(crate) async fn get(sim: &SimHandle, path: &str) -> Reply {
    send(sim, request(Method::GET, path, &[], "")).await
}

/// Waits until the condition holds, at most five seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not come true");
}
