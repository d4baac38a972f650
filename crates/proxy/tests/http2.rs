//! HTTP/2 on both sides, and streams that nobody reads.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{CHAT, Gateway, PATH, Server, Speaks, channel, post};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::{PoolKind, UpstreamTls, Verify};
use tokio::net::TcpStream;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_clients_are_served_without_tls() {
    let server = Server::fixed(200, "application/json", "{}").await;
    let gateway = Gateway::to(&[&server]).await;
    let mut client = http2_client(&gateway).await;
    let response = client
        .send_request(h2(PATH, CHAT))
        .await
        .expect("an answer");
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, Version::HTTP_2)
    );
    assert!(!response.headers().contains_key("connection"));
    let asked = server.last();
    assert_eq!(asked.headers["host"], "h2.test");
    assert_eq!(asked.body, CHAT);
    let refused = client
        .send_request(h2("/sleep", "{}"))
        .await
        .expect("an answer");
    assert_eq!(refused.status(), 404);
    let trailers = refused.into_body().collect().await.expect("whole");
    assert!(trailers.to_bytes().starts_with(b"{\"error\""));
}

/// Streams that nobody reads must not stop others on the same connection: h2 closes a connection on which many small
/// frames lie unread, and hyper's default windows let a few stalled streams hold all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_of_a_server_neither_kill_nor_starve_the_others() {
    let server = Server::start_with(
        move |_| {
            Box::pin(async move {
                let (frames, body) = channel();
                tokio::spawn(async move {
                    while frames
                        .send(Ok(Bytes::from_static(&[b'x'; 100])))
                        .await
                        .is_ok()
                    {}
                });
                Response::new(body)
            })
        },
        Speaks::Http2,
    )
    .await;
    let mut pool = common::pool(PoolKind::Service, &[server.address]);
    pool.protocol = routing::AppProtocol::H2c;
    let plan = common::plan(vec![common::rule(PoolKind::Service)], pool, false);
    let gateway = Gateway::serve(common::options(), plan).await;
    let mut live = common::open(gateway.address, post("/live", "{}"))
        .await
        .into_body();
    // These clients take a kilobyte of each stream and then nothing.
    let stream = TcpStream::connect(gateway.address).await.expect("connect");
    let (mut client, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    let mut stalled = Vec::new();
    for _ in 0..40 {
        stalled.push(
            client
                .send_request(h2("/stalled", "{}"))
                .await
                .expect("an answer"),
        );
    }
    let mut seen = 0;
    while seen < 2 << 20 {
        let frame = tokio::time::timeout(Duration::from_secs(5), live.frame())
            .await
            .expect("starved");
        seen += frame
            .expect("ended")
            .expect("killed")
            .into_data()
            .expect("data")
            .len();
    }
    assert_eq!(server.count(), 41);
    drop(stalled);
}

/// The same towards clients: their stalled uploads share a connection with everything else they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_uploads_of_a_client_neither_kill_nor_starve_its_other_requests() {
    // A server that never answers the TLS handshake: the gateway takes nothing of the bodies.
    let waits = Server::raw(|_, _| async {}).await;
    let made =
        rcgen::generate_simple_self_signed(vec!["waits.test".to_owned()]).expect("a certificate");
    let quick = Server::fixed(200, "text/plain", "quick").await;
    let mut slow = common::rule(PoolKind::Service);
    slow.matches = routing::Match {
        path: routing::PathMatch::Prefix("/stalled".into()),
        ..routing::Match::any()
    };
    let mut fast = common::rule(PoolKind::Service);
    let mut other = common::pool(PoolKind::Service, &[quick.address]);
    other.key.name = "quick".into();
    fast.backends[0].target = routing::Target::Pool(other.key.clone());
    let mut silent = common::pool(PoolKind::Service, &[waits.address]);
    silent.tls = Some(UpstreamTls {
        server_name: Some("waits.test".into()),
        verify: Verify::Roots(made.cert.pem().into_bytes().into()),
        ..UpstreamTls::default()
    });
    let mut plan = common::plan(vec![slow, fast], silent, false);
    plan.pools.insert(other.key.clone(), Arc::new(other));
    let mut options = common::options();
    options.deadlines.connect = Duration::from_secs(60);
    let gateway = Gateway::serve(options, plan).await;

    let stream = TcpStream::connect(gateway.address).await.expect("connect");
    let (client, connection) =
        http2::handshake::<_, _, common::Body>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("handshake");
    tokio::spawn(connection);
    let mut uploads = Vec::new();
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let (frames, body) = channel();
        let sent = sent.clone();
        tokio::spawn(async move {
            while frames
                .send(Ok(Bytes::from_static(&[b'x'; 100])))
                .await
                .is_ok()
            {
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
        let request = Request::post("http://h2.test/stalled")
            .body(body)
            .expect("request");
        uploads.push(tokio::spawn(client.clone().send_request(request)));
    }
    let mut before = usize::MAX;
    while sent.load(Ordering::SeqCst) != before {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for _ in 0..5 {
        let request = Request::post("http://h2.test/x")
            .body(common::full("y".repeat(100_000)))
            .expect("request");
        let answer =
            tokio::time::timeout(Duration::from_secs(5), client.clone().send_request(request))
                .await;
        assert_eq!(answer.expect("starved").expect("killed").status(), 200);
    }
    assert!(uploads.iter().all(|upload| !upload.is_finished()));
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
}
