//! A gateway in front of small servers on loopback, and clients for it.
#![allow(dead_code, unreachable_pub)]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fleet::{Fleet, FleetOptions, ScrapeOptions};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use proxy::{Proxy, ProxyOptions};
use routing::{
    AppProtocol, Backend, EndpointSpec, Host, Listener, Match, Picker, Plan, PoolKey, PoolKind,
    PoolSpec, PortPlan, RoutePolicy, Rule, Target,
};
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

/// The pool of the tests.
pub fn key(kind: PoolKind) -> PoolKey {
    PoolKey {
        kind,
        namespace: "default".into(),
        name: "pool".into(),
    }
}

/// A pool of these servers.
pub fn pool(kind: PoolKind, servers: &[SocketAddr]) -> PoolSpec {
    let endpoint = |address: &SocketAddr| EndpointSpec {
        host: Host::Ip(address.ip()),
        port: address.port(),
        name: address.to_string(),
        ready: true,
        base_path: None,
    };
    PoolSpec {
        key: key(kind),
        endpoints: servers.iter().map(endpoint).collect(),
        protocol: AppProtocol::Http,
        tls: None,
        picker: Picker::Inside,
        models: Arc::default(),
    }
}

/// A rule that sends everything to the pool.
pub fn rule(kind: PoolKind) -> Rule {
    Rule {
        route: "HTTPRoute default/test".into(),
        name: None,
        hostnames: Vec::new(),
        matches: Match::any(),
        filters: Vec::new(),
        backends: vec![Backend {
            weight: 1,
            target: Target::Pool(key(kind)),
            filters: Vec::new(),
        }],
        policy: RoutePolicy::default(),
    }
}

/// A plan with one port, one listener, one pool.
pub fn plan(rules: Vec<Rule>, pool: PoolSpec, trusted: bool) -> Plan {
    let listener = Listener {
        name: "default/gateway/http".into(),
        hostname: None,
        certificates: Vec::new(),
        trusted,
        rules: rules.into_iter().map(Arc::new).collect(),
    };
    let port = PortPlan {
        port: 0,
        tls: false,
        listeners: vec![listener],
    };
    Plan {
        ports: [(0, port)].into(),
        pools: [(pool.key.clone(), Arc::new(pool))].into(),
    }
}

/// Short limits, so that tests of long ones are short.
pub fn options() -> ProxyOptions {
    ProxyOptions {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ..ProxyOptions::default()
    }
}

/// A running gateway.
pub struct Gateway {
    pub proxy: Proxy,
    pub plan: Arc<ArcSwap<Plan>>,
    pub fleet: Arc<Fleet>,
    pub metrics: Arc<telemetry::Metrics>,
    pub address: SocketAddr,
}

impl Gateway {
    /// In front of an inference pool of these servers.
    pub async fn to(servers: &[&Server]) -> Self {
        Self::with(servers, |_| {}, |_| {}).await
    }

    /// The same with changed options and rule.
    pub async fn with(
        servers: &[&Server],
        change: impl FnOnce(&mut ProxyOptions),
        route: impl FnOnce(&mut Rule),
    ) -> Self {
        let servers: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
        let mut options = options();
        change(&mut options);
        let mut rule = rule(PoolKind::Inference);
        route(&mut rule);
        Self::serve(
            options,
            plan(vec![rule], pool(PoolKind::Inference, &servers), false),
        )
        .await
    }

    /// Of any plan.
    pub async fn serve(options: ProxyOptions, plan: Plan) -> Self {
        Self::learning(options, plan, false).await
    }

    /// The same, with a fleet that may ask the servers for their models.
    pub async fn learning(options: ProxyOptions, plan: Plan, learn_models: bool) -> Self {
        let metrics = telemetry::Metrics::new();
        let scrape = ScrapeOptions {
            enabled: false,
            ..ScrapeOptions::default()
        };
        let mut options_of_fleet = FleetOptions {
            scrape,
            learn_models,
            ..FleetOptions::default()
        };
        options_of_fleet.scheduling.empty_wait = Duration::from_millis(200);
        let fleet = Fleet::new(options_of_fleet, metrics.clone());
        fleet.apply(plan.pools.values());
        fleet.learned(Duration::from_secs(5)).await;
        let plan = Arc::new(ArcSwap::from_pointee(plan));
        let proxy =
            Proxy::start(options, plan.clone(), fleet.clone(), metrics.clone()).expect("starts");
        let address = *proxy.addresses().first().expect("a port");
        Self {
            proxy,
            plan,
            fleet,
            metrics,
            address,
        }
    }

    /// Sends a request on a connection of its own and reads the whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        send(self.address, request).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &str) -> Reply {
        self.send(post(path, body)).await
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Reply {
        let request = Request::get(path)
            .header("host", "test")
            .body(Full::default())
            .expect("request");
        self.send(request).await
    }

    /// Sends bytes as they are and reads to the end.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(bytes).await.expect("send");
        let mut answer = Vec::new();
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(
            read.is_ok(),
            "the connection stays open after {}",
            String::from_utf8_lossy(&answer)
        );
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A POST with a JSON body.
pub fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "test")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("request")
}

/// An answer read to its end, or to where it broke.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub broken: bool,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// `error.code` of the body.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        json["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("ASCII"))
    }
}

/// One request on a connection of its own.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let response = open(address, request).await;
    let (head, mut body) = response.into_parts();
    let mut whole = Vec::new();
    let mut broken = false;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => whole.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
            Err(_) => {
                broken = true;
                break;
            }
        }
    }
    Reply {
        status: head.status,
        headers: head.headers,
        body: whole.into(),
        broken,
    }
}

/// The head of an answer, its body still to come.
pub async fn open(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("handshake");
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.expect("an answer")
}

/// Waits until `condition` holds, which it must soon.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..400 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// A chat request.
pub const CHAT: &str =
    r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"x_unknown":1.50}"#;
/// A streamed chat request.
pub const CHAT_STREAM: &str =
    r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
/// The path of both.
pub const PATH: &str = "/v1/chat/completions";
