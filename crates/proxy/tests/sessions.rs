//! TLS: clients that prove who they are, sessions that are passed on, and what servers are shown.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{CHAT, Gateway, PATH, Server};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use routing::{
    AltName, Certificate, ClientAuth, Hostname, Listener, ListenerMode, Plan, PoolKind, PortPlan,
    UpstreamTls, Verify,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(vec![]).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

/// A certificate for these names.
fn certificate(authority: &Authority, names: &[&str]) -> Certificate {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("params");
    let made = params.signed_by(&key, authority).expect("signed");
    Certificate {
        source: "default/cert".into(),
        chain: made.pem().into_bytes().into(),
        key: key.serialize_pem().into_bytes().into(),
    }
}

fn pem(authority: &Authority) -> Arc<[u8]> {
    authority.pem().into_bytes().into()
}

fn chain(certificate: &Certificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(&certificate.chain)
        .collect::<Result<_, _>>()
        .expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(&certificate.key).expect("PEM");
    (chain, key)
}

fn listener(name: &str, certificate: &Certificate) -> Listener {
    Listener {
        name: format!("default/gateway/{name}"),
        hostname: Some(Hostname::parse(name)),
        certificates: vec![certificate.clone()],
        rules: vec![Arc::new(common::rule(PoolKind::Service))],
        ..Listener::default()
    }
}

fn plan(servers: &[SocketAddr], listeners: Vec<Listener>) -> Plan {
    let mut plan = common::plan(vec![], common::pool(PoolKind::Service, servers), false);
    let port = PortPlan {
        port: 0,
        tls: true,
        listeners,
    };
    plan.ports = [(0, port)].into();
    plan
}

/// A session with what listens at `address`.
async fn session(
    address: SocketAddr,
    name: &str,
    trusted: &Authority,
    shown: Option<&Certificate>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = chain(certificate);
            builder.with_client_auth_cert(chain, key).expect("fits")
        }
    };
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Status of `GET /` on a session; `None`: there is none, or it is broken off.
async fn ask(stream: std::io::Result<TlsStream<TcpStream>>, host: &str) -> Option<u16> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream.ok()?))
            .await
            .ok()?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", host)
        .body(Full::<bytes::Bytes>::default())
        .expect("request");
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await.ok()?;
    Some(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_asks_its_clients_for_certificates() {
    let server = Server::fixed(200, "text/plain", "ok").await;
    let own = authority("own");
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let with = |name: &str, auth: Option<(&Authority, bool)>| Listener {
        clients: auth.map(|(roots, optional)| ClientAuth {
            roots: pem(roots),
            optional,
        }),
        ..listener(name, &certificate(&own, &[name]))
    };
    let listeners = vec![
        with("ours.test", Some((&ours, false))),
        with("theirs.test", Some((&theirs, false))),
        with("lenient.test", Some((&ours, true))),
        with("open.test", None),
    ];
    let gateway = Gateway::serve(common::options(), plan(&[server.address], listeners)).await;
    let of_ours = certificate(&ours, &["client"]);
    let of_theirs = certificate(&theirs, &["client"]);
    let (ok, no) = (Some(200), None);
    for (name, shown, expected) in [
        ("ours.test", Some(&of_ours), ok),
        ("ours.test", Some(&of_theirs), no),
        ("ours.test", None, no),
        ("theirs.test", Some(&of_ours), no),
        ("theirs.test", Some(&of_theirs), ok),
        ("lenient.test", Some(&of_ours), ok),
        ("lenient.test", Some(&of_theirs), ok),
        ("lenient.test", None, ok),
        ("open.test", None, ok),
        ("open.test", Some(&of_theirs), ok),
    ] {
        let stream = session(gateway.address, name, &own, shown).await;
        assert_eq!(
            ask(stream, name).await,
            expected,
            "{name} {}",
            shown.is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_authorities_are_broken_lets_nobody_in() {
    let server = Server::fixed(200, "text/plain", "ok").await;
    let own = authority("own");
    let broken = Listener {
        clients: Some(ClientAuth {
            roots: b"no PEM".to_vec().into(),
            optional: false,
        }),
        ..listener("a.test", &certificate(&own, &["a.test"]))
    };
    let sound = listener("b.test", &certificate(&own, &["b.test"]));
    let plan = plan(&[server.address], vec![broken, sound]);
    let gateway = Gateway::serve(common::options(), plan).await;
    assert_eq!(gateway.proxy.apply().len(), 1);
    for (name, expected) in [("a.test", None), ("b.test", Some(200))] {
        let stream = session(gateway.address, name, &own, None).await;
        assert_eq!(ask(stream, name).await, expected, "{name}");
    }
}

/// Says `name` to everybody and then says back what it is told.
async fn echo(name: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    async fn talk(name: &str, mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
        let _ = stream.write_all(name.as_bytes()).await;
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            let _ = stream.write_all(&buffer[..read]).await;
            let _ = stream.flush().await;
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => talk(name, stream).await,
                    Some(config) => {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            talk(name, stream).await;
                        }
                    }
                }
            });
        }
    });
    address
}

fn server_config(
    certificate: &Certificate,
    clients: Option<&Authority>,
) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            )
            .build()
            .expect("a verifier");
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = chain(certificate);
    Arc::new(builder.with_single_cert(chain, key).expect("fits"))
}

/// What comes first on a session, and whether it echoes.
async fn heard(stream: std::io::Result<TlsStream<TcpStream>>) -> Option<String> {
    let mut stream = stream.ok()?;
    let mut first = [0; 4];
    stream.read_exact(&mut first).await.ok()?;
    let long = vec![b'x'; 100_000];
    stream.write_all(&long[..1000]).await.ok()?;
    stream.flush().await.ok()?;
    let mut back = vec![0; 1000];
    stream.read_exact(&mut back).await.ok()?;
    assert_eq!(back, long[..1000]);
    Some(String::from_utf8_lossy(&first).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_go_to_a_server_by_name_sealed_or_opened() {
    let (own, inner) = (authority("own"), authority("inner"));
    let sealed = echo(
        "seal",
        Some(server_config(&certificate(&inner, &["a.test"]), None)),
    )
    .await;
    let opened = echo("open", None).await;
    let web = Server::fixed(200, "text/plain", "ok").await;
    let mode = |mode: ListenerMode, name: &str, pool: &str| {
        let mut rule = common::rule(PoolKind::Service);
        let key = routing::PoolKey {
            name: pool.into(),
            ..common::key(PoolKind::Service)
        };
        rule.backends[0].target = routing::Target::Pool(key);
        Listener {
            mode,
            rules: vec![Arc::new(rule)],
            ..listener(name, &certificate(&own, &[name]))
        }
    };
    let listeners = vec![
        mode(ListenerMode::TlsPassthrough, "a.test", "sealed"),
        mode(ListenerMode::TlsTerminate, "b.test", "opened"),
        listener("c.test", &certificate(&own, &["c.test"])),
        Listener {
            rules: vec![],
            ..mode(ListenerMode::TlsPassthrough, "d.test", "sealed")
        },
    ];
    let mut plan = plan(&[web.address], listeners);
    for (name, address) in [("sealed", sealed), ("opened", opened)] {
        let mut pool = common::pool(PoolKind::Service, &[address]);
        pool.key.name = name.into();
        plan.pools.insert(pool.key.clone(), Arc::new(pool));
    }
    let gateway = Gateway::serve(common::options(), plan).await;
    let at = gateway.address;
    // The server's own certificate is seen through the one, ours on the other.
    assert_eq!(
        heard(session(at, "a.test", &inner, None).await)
            .await
            .as_deref(),
        Some("seal")
    );
    assert!(session(at, "a.test", &own, None).await.is_err());
    assert_eq!(
        heard(session(at, "b.test", &own, None).await)
            .await
            .as_deref(),
        Some("open")
    );
    assert_eq!(
        ask(session(at, "c.test", &own, None).await, "c.test").await,
        Some(200)
    );
    // HTTP for another listener's name is misdirected.
    assert_eq!(
        ask(session(at, "c.test", &own, None).await, "b.test").await,
        Some(421)
    );
    for name in ["d.test", "z.test"] {
        assert!(session(at, name, &inner, None).await.is_err(), "{name}");
    }
    // What is no TLS is refused.
    let mut plain = TcpStream::connect(at).await.expect("connect");
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        .await
        .expect("send");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_passes_over_servers_that_are_dead() {
    let own = authority("own");
    let alive = echo("open", None).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let dead = gone.local_addr().expect("bound");
    drop(gone);
    let opened = Listener {
        mode: ListenerMode::TlsTerminate,
        ..listener("a.test", &certificate(&own, &["a.test"]))
    };
    let gateway = Gateway::serve(common::options(), plan(&[dead, alive], vec![opened])).await;
    for _ in 0..10 {
        let stream = session(gateway.address, "a.test", &own, None).await;
        assert_eq!(heard(stream).await.as_deref(), Some("open"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_shown_a_certificate_and_held_to_their_names() {
    let (inner, clients) = (authority("inner"), authority("clients"));
    let config = server_config(&certificate(&inner, &["inner.test"]), Some(&clients));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let config = config.clone();
            tokio::spawn(async move {
                let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new(common::full("{}")))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    let known = certificate(&clients, &["gateway"]);
    let unknown = certificate(&inner, &["gateway"]);
    let dns = |name: &str| AltName::Dns(name.to_owned());
    for (client, alt_names, status) in [
        (Some(&known), vec![], 200),
        (None, vec![], 502),
        (Some(&unknown), vec![], 502),
        (Some(&known), vec![dns("inner.test")], 200),
        (
            Some(&known),
            vec![dns("other.test"), dns("inner.test")],
            200,
        ),
        (Some(&known), vec![dns("other.test")], 502),
        (
            Some(&known),
            vec![AltName::Uri("spiffe://inner.test".into())],
            502,
        ),
    ] {
        let mut pool = common::pool(PoolKind::Inference, &[address]);
        pool.tls = Some(UpstreamTls {
            server_name: Some("inner.test".into()),
            verify: Verify::Roots(pem(&inner)),
            client: client.cloned(),
            alt_names: alt_names.clone(),
        });
        let rules = vec![common::rule(PoolKind::Inference)];
        let gateway = Gateway::serve(common::options(), common::plan(rules, pool, false)).await;
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(reply.status, status, "{} {alt_names:?}", client.is_some());
    }
}
