//! Listeners: TLS with SNI, new plans, drain.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{CHAT, CHAT_STREAM, Gateway, PATH, Server, channel, post};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::ListenProblemKind;
use routing::{Certificate, Hostname, Listener, Plan, PoolKind, PortPlan};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const EVENT: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"012345678901234567890123456789\"}}]}\n\n";

/// Streams an event every 2 ms until nobody wants more.
async fn endless() -> Server {
    Server::start(|_| {
        Box::pin(async {
            let (frames, body) = channel();
            tokio::spawn(async move {
                while frames
                    .send(Ok(Bytes::from_static(EVENT.as_bytes())))
                    .await
                    .is_ok()
                {
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .expect("response")
        })
    })
    .await
}

struct Identity {
    certificate: Certificate,
    der: CertificateDer<'static>,
}

fn identity(name: &str) -> Identity {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    Identity {
        der: made.cert.der().clone(),
        certificate: Certificate {
            source: format!("default/{name}"),
            chain: made.cert.pem().into_bytes().into(),
            key: made.signing_key.serialize_pem().into_bytes().into(),
        },
    }
}

fn tls_listener(name: &str, certificates: Vec<Certificate>) -> Listener {
    Listener {
        name: format!("default/gateway/{name}"),
        hostname: Some(Hostname::parse(name)),
        certificates,
        rules: vec![Arc::new(common::rule(PoolKind::Inference))],
        ..Listener::default()
    }
}

fn tls_plan(server: &Server, listeners: Vec<Listener>) -> Plan {
    let mut plan = common::plan(
        vec![],
        common::pool(PoolKind::Inference, &[server.address]),
        false,
    );
    plan.ports = [(
        0,
        PortPlan {
            port: 0,
            tls: true,
            listeners,
        },
    )]
    .into();
    plan
}

async fn tls(
    gateway: &Gateway,
    name: &str,
    trust: &[&Identity],
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for identity in trust {
        roots.add(identity.der.clone()).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("shown")[0]
        .clone()
        .into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_gets_its_certificate() {
    let server = Server::fixed(200, "application/json", "{}").await;
    let (exact, wild) = (identity("a.test"), identity("*.b.test"));
    let listeners = |exact: &Identity| {
        vec![
            tls_listener("a.test", vec![exact.certificate.clone()]),
            tls_listener("*.b.test", vec![wild.certificate.clone()]),
        ]
    };
    let gateway = Gateway::serve(common::options(), tls_plan(&server, listeners(&exact))).await;
    let trust = [&exact, &wild];
    assert_eq!(
        shown(&tls(&gateway, "a.test", &trust, &[]).await.expect("a.test")),
        exact.der
    );
    assert_eq!(
        shown(
            &tls(&gateway, "x.b.test", &trust, &[])
                .await
                .expect("x.b.test")
        ),
        wild.der
    );
    assert!(tls(&gateway, "c.test", &trust, &[]).await.is_err());

    let stream = tls(&gateway, "a.test", &trust, &[b"h2", b"http/1.1"])
        .await
        .expect("a.test");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    let request = |host: &str| {
        Request::post(format!("https://{host}{PATH}"))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(CHAT))
            .expect("request")
    };
    assert_eq!(
        client
            .send_request(request("a.test"))
            .await
            .expect("an answer")
            .status(),
        200
    );
    // The connection was opened for another listener.
    assert_eq!(
        client
            .send_request(request("x.b.test"))
            .await
            .expect("an answer")
            .status(),
        421
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_come_with_a_new_plan_and_bad_ones_stop_nobody_else() {
    let server = Server::fixed(200, "application/json", "{}").await;
    let (exact, wild) = (identity("a.test"), identity("*.b.test"));
    let plan = |certificate: &Certificate| {
        tls_plan(
            &server,
            vec![
                tls_listener("a.test", vec![certificate.clone()]),
                tls_listener("*.b.test", vec![wild.certificate.clone()]),
            ],
        )
    };
    let gateway = Gateway::serve(common::options(), plan(&exact.certificate)).await;
    let old = tls(&gateway, "a.test", &[&exact], &[b"h2"])
        .await
        .expect("a.test");
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(old))
        .await
        .expect("handshake");
    tokio::spawn(connection);

    let renewed = identity("a.test");
    gateway.plan.store(Arc::new(plan(&renewed.certificate)));
    assert_eq!(gateway.proxy.apply(), []);
    let fresh = tls(&gateway, "a.test", &[&renewed], &[])
        .await
        .expect("renewed");
    assert_eq!(shown(&fresh), renewed.der);
    let request = Request::post(format!("https://a.test{PATH}"))
        .body(Full::<Bytes>::from(CHAT))
        .expect("request");
    assert_eq!(
        client
            .send_request(request)
            .await
            .expect("the old connection goes on")
            .status(),
        200
    );

    let broken = Certificate {
        chain: b"no PEM".to_vec().into(),
        ..renewed.certificate.clone()
    };
    gateway.plan.store(Arc::new(plan(&broken)));
    let kinds: Vec<_> = gateway
        .proxy
        .apply()
        .iter()
        .map(|problem| problem.kind)
        .collect();
    assert_eq!(kinds, [ListenProblemKind::Certificate]);
    assert!(
        tls(&gateway, "x.b.test", &[&wild], &[]).await.is_ok(),
        "the rest serves"
    );

    // The same port without TLS.
    let mut plain = plan(&renewed.certificate);
    if let Some(port) = plain.ports.get_mut(&0) {
        port.tls = false;
        port.listeners
            .iter_mut()
            .for_each(|listener| listener.hostname = None);
    }
    gateway.plan.store(Arc::new(plain));
    assert_eq!(gateway.proxy.apply(), []);
    assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_come_and_go_with_the_plan_and_a_taken_one_is_reported() {
    let server = Server::fixed(200, "application/json", "{}").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("bind")
        .local_addr()
        .expect("bound")
        .port();
    let mut options = common::options();
    options.threads = 2;
    options.drain = Duration::from_millis(300);
    let with = |ports: &[u16]| {
        let mut plan = common::plan(
            vec![common::rule(PoolKind::Inference)],
            common::pool(PoolKind::Inference, &[server.address]),
            false,
        );
        let one = plan.ports.remove(&0).expect("port 0");
        let rules = &one.listeners[0].rules;
        plan.ports = ports
            .iter()
            .map(|&port| {
                let listener = Listener {
                    name: "l".into(),
                    rules: rules.clone(),
                    ..Listener::default()
                };
                (
                    port,
                    PortPlan {
                        port,
                        tls: false,
                        listeners: vec![listener],
                    },
                )
            })
            .collect();
        plan
    };
    let gateway = Gateway::serve(options, with(&[0])).await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    let in_use = taken.local_addr().expect("bound").port();
    gateway.plan.store(Arc::new(with(&[free, in_use])));
    let problems = gateway.proxy.apply();
    assert_eq!(
        problems
            .iter()
            .map(|p| (p.port, p.kind))
            .collect::<Vec<_>>(),
        [(in_use, ListenProblemKind::InUse)]
    );
    let addresses = gateway.proxy.addresses();
    assert_eq!(
        addresses
            .iter()
            .map(std::net::SocketAddr::port)
            .collect::<Vec<_>>(),
        [free]
    );
    assert_eq!(
        common::send(addresses[0], post(PATH, CHAT)).await.status,
        200
    );
    let mut closed = false;
    for _ in 0..100 {
        closed = TcpStream::connect(gateway.address).await.is_err();
        if closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(closed, "the old port is still open");
    drop(taken);
    assert_eq!(gateway.proxy.apply(), []);
    assert_eq!(gateway.proxy.addresses().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_runs_and_closes_what_is_idle() {
    let (proceed, wait) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_| {
        let mut wait = wait.clone();
        Box::pin(async move {
            let (frames, body) = channel();
            tokio::spawn(async move {
                let _ = frames.send(Ok(EVENT.into())).await;
                let _ = wait.wait_for(|go| *go).await;
                let _ = frames.send(Ok("data: [DONE]\n\n".into())).await;
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .expect("response")
        })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let mut idle = TcpStream::connect(gateway.address).await.expect("connect");
    let mut client = http2_client(&gateway).await;
    let running = common::open(gateway.address, post(PATH, CHAT_STREAM)).await;
    let running2 = client
        .send_request(h2(PATH, CHAT_STREAM))
        .await
        .expect("an answer");
    let address = gateway.address;
    let drain = tokio::spawn(gateway.proxy.drain(Duration::from_secs(20)));
    let mut nothing = [0];
    let read = tokio::time::timeout(Duration::from_secs(5), idle.read(&mut nothing))
        .await
        .expect("closed");
    assert!(matches!(read, Ok(0) | Err(_)));
    for _ in 0..100 {
        if TcpStream::connect(address).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        TcpStream::connect(address).await.is_err(),
        "still accepting"
    );
    assert!(!drain.is_finished());
    proceed.send(true).expect("somebody waits");
    for body in [running.into_body(), running2.into_body()] {
        let whole = body.collect().await.expect("not cut").to_bytes();
        assert_eq!(whole, format!("{EVENT}data: [DONE]\n\n"));
    }
    tokio::time::timeout(Duration::from_secs(10), drain)
        .await
        .expect("drained")
        .expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_ever() {
    let server = endless().await;
    let gateway = Gateway::to(&[&server]).await;
    let running = common::open(gateway.address, post(PATH, CHAT_STREAM)).await;
    let drain = gateway.proxy.drain(Duration::from_millis(200));
    tokio::time::timeout(Duration::from_secs(10), drain)
        .await
        .expect("drained");
    assert!(
        running.into_body().collect().await.is_err(),
        "cut off without a proper end"
    );
}

async fn http2_client(gateway: &Gateway) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(gateway.address).await.expect("connect");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    sender
}

fn h2(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(format!("http://h2.test{path}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/json")
        .body(Full::from(body))
        .expect("request")
}
