//! A gateway in front of small servers on loopback, and clients for it.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod picker;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fleet::{Fleet, FleetOptions, ScrapeOptions};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proxy::{Proxy, ProxyOptions};
use routing::{
    AppProtocol, Backend, EndpointSpec, Host, Listener, Match, Picker, Plan, PoolKey, PoolKind,
    PoolSpec, PortPlan, RoutePolicy, Rule, Target,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use server::{Answer, Asked, Body, Server, Speaks, channel, full, read_body, read_head};

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
        labels: Arc::default(),
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
        trusted,
        rules: rules.into_iter().map(Arc::new).collect(),
        ..Listener::default()
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
        options_of_fleet.scheduling.flow.empty_ttl = Duration::from_millis(200);
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
