//! Reaching servers: HTTP/2, TLS, base URLs, trailers.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{CHAT, Gateway, PATH, Server, Speaks};
use http::HeaderValue;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::{AppProtocol, PoolKind};

/// Says who it is.
async fn named(name: &'static str) -> Server {
    Server::fixed(200, "text/plain", name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_speak_http2_share_one_connection() {
    let server = Server::start_with(
        |asked| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let host = asked
                    .uri
                    .authority()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                http::Response::new(common::full(host))
            })
        },
        Speaks::Http2,
    )
    .await;
    let mut pool = common::pool(PoolKind::Service, &[server.address]);
    pool.protocol = AppProtocol::H2c;
    let plan = common::plan(vec![common::rule(PoolKind::Service)], pool, false);
    let gateway = Gateway::serve(common::options(), plan).await;
    assert_eq!(gateway.post("/x", "body").await.text(), "test");
    let before = server.connections.load(std::sync::atomic::Ordering::SeqCst);
    let replies = futures_util::future::join_all((0..20).map(|_| gateway.post("/x", "body"))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    let opened = server.connections.load(std::sync::atomic::Ordering::SeqCst) - before;
    assert!(opened <= 1, "{opened}");
    assert_eq!(server.last().body, "body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_given_by_url_get_their_own_host_and_path() {
    let server = named("a").await;
    let mut pool = common::pool(PoolKind::Urls, &[server.address]);
    pool.endpoints[0].base_path = Some("/base".into());
    let plan = common::plan(vec![common::rule(PoolKind::Urls)], pool, false);
    let gateway = Gateway::serve(common::options(), plan).await;
    assert_eq!(
        gateway.post("/v1/chat/completions?x=1", CHAT).await.status,
        200
    );
    let asked = server.last();
    assert_eq!(asked.uri, "/base/v1/chat/completions?x=1");
    assert_eq!(asked.headers["host"], server.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_from_an_http2_server_to_an_http2_client() {
    let server = Server::start_with(
        |_| {
            Box::pin(async {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let body = common::full("message").with_trailers(async move { Some(Ok(trailers)) });
                http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(BodyExt::boxed(body))
                    .expect("response")
            })
        },
        Speaks::Http2,
    )
    .await;
    let mut pool = common::pool(PoolKind::Service, &[server.address]);
    pool.protocol = AppProtocol::H2c;
    let plan = common::plan(vec![common::rule(PoolKind::Service)], pool, false);
    let gateway = Gateway::serve(common::options(), plan).await;
    let stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .expect("connect");
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("handshake");
    tokio::spawn(connection);
    let request = http::Request::post("http://t/pkg.Service/Call")
        .header("te", "trailers")
        .body(common::full("ask"))
        .expect("request");
    let answer = client
        .send_request(request)
        .await
        .expect("an answer")
        .into_body()
        .collect()
        .await
        .expect("whole");
    assert_eq!(answer.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(answer.to_bytes(), "message");
    assert_eq!(server.last().headers["te"], "trailers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_reached_over_tls_only_when_their_certificate_is_right() {
    let made =
        rcgen::generate_simple_self_signed(vec!["inner.test".to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
                .expect("a key"),
        )
        .expect("usable");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new(common::full("secret")))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    for (name, status) in [("inner.test", 200), ("other.test", 502)] {
        let mut pool = common::pool(PoolKind::Service, &[address]);
        pool.tls = Some(routing::UpstreamTls {
            server_name: Some(name.into()),
            verify: routing::Verify::Roots(made.cert.pem().into_bytes().into()),
            ..routing::UpstreamTls::default()
        });
        let plan = common::plan(vec![common::rule(PoolKind::Service)], pool, false);
        let gateway = Gateway::serve(common::options(), plan).await;
        let reply = gateway.get("/x").await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_finishes_its_handshake_is_a_connect_timeout() {
    let silent = Server::raw(|_, _| async {}).await;
    let made =
        rcgen::generate_simple_self_signed(vec!["inner.test".to_owned()]).expect("a certificate");
    let mut pool = common::pool(PoolKind::Inference, &[silent.address]);
    pool.tls = Some(routing::UpstreamTls {
        server_name: Some("inner.test".into()),
        verify: routing::Verify::Roots(made.cert.pem().into_bytes().into()),
        ..routing::UpstreamTls::default()
    });
    let mut options = common::options();
    options.deadlines.connect = Duration::from_millis(200);
    let plan = common::plan(vec![common::rule(PoolKind::Inference)], pool, false);
    let gateway = Gateway::serve(options, plan).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (504, "connect_timeout")
    );
}
