//! A model server of a few lines, and a fleet over some of them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::{Fleet, FleetOptions, Pool};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{CertifiedKey, KeyPair};
use routing::{AppProtocol, EndpointSpec, Host, Picker, PoolKey, PoolKind, PoolSpec};
use rustls_pki_types::PrivateKeyDer;
use telemetry::Metrics;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What a server answers, and what it was asked.
#[derive(Debug)]
pub struct Script {
    pub health: u16,
    pub metrics: Option<String>,
    pub models: Option<String>,
    pub asked: Vec<String>,
    pub connections: usize,
}

/// A model server. Stops when dropped.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn models(ids: &[&str]) -> String {
    let list: Vec<_> = ids
        .iter()
        .map(|id| match id.split_once('<') {
            Some((adapter, base)) => {
                serde_json::json!({"id": adapter, "object": "model", "parent": base})
            }
            None => serde_json::json!({"id": id, "object": "model", "parent": null}),
        })
        .collect();
    serde_json::json!({"object": "list", "data": list}).to_string()
}

pub fn vllm(waiting: u32, running: u32) -> String {
    format!(
        "vllm:num_requests_waiting{{engine=\"0\"}} {waiting}\nvllm:num_requests_running{{engine=\"0\"}} {running}\n\
         vllm:kv_cache_usage_perc{{engine=\"0\"}} 0.25\n\
         vllm:cache_config_info{{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"1000\"}} 1.0\n"
    )
}

fn script(ids: &[&str]) -> Script {
    let models = Some(models(ids));
    Script {
        health: 200,
        metrics: Some(vllm(0, 0)),
        models,
        asked: Vec::new(),
        connections: 0,
    }
}

impl Server {
    /// A healthy vLLM with these models (`adapter<base` for adapters).
    pub async fn start(ids: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), ids, AppProtocol::Http).await
    }

    /// The same behind TLS.
    pub async fn start_tls(ids: &[&str], identity: &CertifiedKey<KeyPair>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.der().clone()], key)
            .unwrap();
        let acceptor = Some(TlsAcceptor::from(Arc::new(config)));
        Self::listen(
            "127.0.0.1:0".parse().unwrap(),
            ids,
            AppProtocol::Http,
            acceptor,
        )
        .await
    }

    pub async fn start_at(address: SocketAddr, ids: &[&str], protocol: AppProtocol) -> Self {
        Self::listen(address, ids, protocol, None).await
    }

    async fn listen(
        address: SocketAddr,
        ids: &[&str],
        protocol: AppProtocol,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        // The address of a server that was lost is taken again while its connections linger.
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
        .unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script(ids)));
        let task = tokio::spawn(serve(listener, script.clone(), protocol, tls));
        Self {
            address,
            script,
            task,
        }
    }

    pub fn asked(&self, path: &str) -> usize {
        self.script
            .lock()
            .asked
            .iter()
            .filter(|asked| *asked == path)
            .count()
    }

    pub fn spec(&self) -> EndpointSpec {
        spec(self.address)
    }
}

async fn serve(
    listener: TcpListener,
    script: Arc<Mutex<Script>>,
    protocol: AppProtocol,
    tls: Option<TlsAcceptor>,
) {
    // Dropped with this task, so that a lost server takes its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        script.lock().connections += 1;
        let (script, tls) = (script.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => speak(TokioIo::new(stream), script, protocol).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        speak(TokioIo::new(stream), script, protocol).await;
                    }
                }
            }
        });
    }
}

async fn speak<T>(io: T, script: Arc<Mutex<Script>>, protocol: AppProtocol)
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(&script, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    // A client that leaves is no failure of the server.
    let _ = match protocol {
        AppProtocol::Http => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await
        }
        AppProtocol::H2c => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await
        }
    };
}

fn answer(script: &Mutex<Script>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut script = script.lock();
    let path = request.uri().path().to_owned();
    script.asked.push(path.clone());
    let (status, body) = match path.as_str() {
        "/health" => (script.health, String::new()),
        "/metrics" => script
            .metrics
            .clone()
            .map_or((404, String::new()), |page| (200, page)),
        "/v1/models" => script
            .models
            .clone()
            .map_or((404, String::new()), |list| (200, list)),
        _ => (404, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub fn spec(address: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        host: Host::Ip(address.ip()),
        port: address.port(),
        name: format!("pod-{}", address.port()),
        ready: true,
        labels: Arc::default(),
        base_path: None,
    }
}

pub fn key() -> PoolKey {
    PoolKey {
        kind: PoolKind::Inference,
        namespace: "default".to_owned(),
        name: "p".to_owned(),
    }
}

pub fn pool_of(endpoints: Vec<EndpointSpec>) -> Arc<PoolSpec> {
    let models = Arc::default();
    let protocol = AppProtocol::Http;
    Arc::new(PoolSpec {
        key: key(),
        endpoints,
        protocol,
        tls: None,
        picker: Picker::Inside,
        models,
    })
}

/// Short times, so that tests are.
pub fn options() -> FleetOptions {
    let mut options = FleetOptions::default();
    options.scrape.fast = Duration::from_millis(10);
    options.scrape.slow = Duration::from_millis(50);
    options.probe.period = Duration::from_millis(50);
    options.probe.suspect_period = Duration::from_millis(20);
    options.scheduling.health.backoff = Duration::from_millis(50);
    options
}

pub struct World {
    pub fleet: Arc<Fleet>,
    pub metrics: Arc<Metrics>,
}

impl World {
    pub async fn new(options: FleetOptions, endpoints: Vec<EndpointSpec>) -> Self {
        let metrics = Metrics::new();
        let fleet = Fleet::new(options, metrics.clone());
        fleet.apply([pool_of(endpoints)].iter());
        fleet.learned(Duration::from_secs(10)).await;
        Self { fleet, metrics }
    }

    pub async fn over(servers: &[&Server]) -> Self {
        Self::new(
            options(),
            servers.iter().map(|server| server.spec()).collect(),
        )
        .await
    }

    pub fn apply(&self, endpoints: Vec<EndpointSpec>) {
        self.fleet.apply([pool_of(endpoints)].iter());
    }

    pub fn pool(&self) -> Arc<Pool> {
        self.fleet.pool(&key()).unwrap()
    }

    /// A sample of the metrics page.
    pub fn sample(&self, series: &str) -> Option<f64> {
        let page = self.metrics.encode_text();
        let line = page.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// Waits until something holds; fails after ten seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
