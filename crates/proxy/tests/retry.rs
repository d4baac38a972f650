//! Asking another server: when, how often, and what the client sees of it.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{CHAT, Gateway, PATH, Server, read_body, read_head};
use http::StatusCode;
use routing::{PoolKind, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// A server that reads a request and closes without a word.
async fn resetting() -> Server {
    Server::raw(|head, mut stream| async move {
        read_body(&head, &mut stream).await;
    })
    .await
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind")
        .local_addr()
        .expect("bound")
}

async fn good() -> Server {
    Server::fixed(200, "application/json", r#"{"good":true}"#).await
}

/// A gateway whose pool has these addresses.
async fn gateway(servers: &[SocketAddr]) -> Gateway {
    let pool = common::pool(PoolKind::Inference, servers);
    Gateway::serve(
        common::options(),
        common::plan(vec![common::rule(PoolKind::Inference)], pool, false),
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inference_moves_on_from_a_server_that_fails_before_the_first_byte() {
    let good = good().await;
    let reset = resetting().await;
    let statuses = [500, 502, 503];
    let mut bad = vec![("refused", nobody().await), ("reset", reset.address)];
    let mut servers = Vec::new();
    for status in statuses {
        let server = Server::fixed(status, "text/plain", "no").await;
        bad.push(("status", server.address));
        servers.push(server);
    }
    for (what, address) in bad {
        let gateway = gateway(&[address, good.address]).await;
        // Whichever is asked first, every request is served.
        for _ in 0..4 {
            let reply = gateway.post(PATH, CHAT).await;
            assert_eq!(
                (reply.status.as_u16(), reply.text()),
                (200, r#"{"good":true}"#),
                "{what} {address}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_say_500_the_last_servers_answer_is_the_clients() {
    let servers = [
        Server::fixed(500, "application/json", r#"{"error":"shutting down"}"#).await,
        Server::fixed(500, "application/json", r#"{"error":"shutting down"}"#).await,
    ];
    let gateway = Gateway::to(&[&servers[0], &servers[1]]).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (500, r#"{"error":"shutting down"}"#)
    );
    assert_eq!((servers[0].count(), servers[1].count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_better_than_none() {
    let busy = Server::fixed(503, "text/plain", "queue full").await;
    let gateway = gateway(&[busy.address, nobody().await]).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (503, "queue full"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_two_more_servers_are_asked() {
    let servers = [
        resetting().await,
        resetting().await,
        resetting().await,
        resetting().await,
    ];
    let gateway = Gateway::to(&servers.each_ref()).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (502, "upstream_reset")
    );
    let asked: usize = servers
        .iter()
        .map(|server| server.connections.load(Ordering::SeqCst))
        .sum();
    assert_eq!(asked, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_502_and_without_a_budget_nobody_else_is_asked() {
    let reply = gateway(&[nobody().await]).await.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (502, "connect_failed")
    );
    let servers = [resetting().await, resetting().await];
    let gateway = Gateway::with(
        &servers.each_ref(),
        |options| options.retry.budget_ratio = 0.0,
        |_| {},
    )
    .await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 502);
    let asked: usize = servers
        .iter()
        .map(|server| server.connections.load(Ordering::SeqCst))
        .sum();
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_requests_are_repeated_only_where_it_is_safe() {
    for (method, expected) in [
        ("POST", 1),
        ("PATCH", 1),
        ("PUT", 2),
        ("GET", 2),
        ("DELETE", 2),
    ] {
        let servers = [resetting().await, resetting().await];
        let gateway = Gateway::to(&servers.each_ref()).await;
        let request = http::Request::builder()
            .method(method)
            .uri("/thing")
            .header("host", "t")
            .body(http_body_util::Full::from(if method == "GET" {
                ""
            } else {
                "body"
            }))
            .expect("request");
        assert_eq!(gateway.send(request).await.status, 502);
        let asked: usize = servers
            .iter()
            .map(|server| server.connections.load(Ordering::SeqCst))
            .sum();
        assert_eq!(asked, expected, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_body_is_replayed_whole() {
    let reset = resetting().await;
    let echo = Server::start(|asked| {
        Box::pin(async move { http::Response::new(common::full(asked.body)) })
    })
    .await;
    let gateway = Gateway::to(&[&reset, &echo]).await;
    for _ in 0..4 {
        let body = "abc".repeat(30_000);
        let request = http::Request::put("/thing")
            .header("host", "t")
            .body(http_body_util::Full::from(body.clone()))
            .expect("request");
        let reply = gateway.send(request).await;
        assert_eq!((reply.status.as_u16(), reply.text() == body), (200, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_the_server_just_closed_costs_nothing() {
    // Answers once per connection, promises to keep it, and closes it as soon as the next request comes.
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let server = Server::raw(move |head, mut stream| {
        let count = count.clone();
        async move {
            read_body(&head, &mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(OK).await;
            let mut first = [0];
            let _ = stream.read(&mut first).await;
        }
    })
    .await;
    let gateway = Gateway::with(
        &[&server],
        |options| options.retry.extra_servers = 0,
        |_| {},
    )
    .await;
    for _ in 0..6 {
        assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    }
    assert_eq!(served.load(Ordering::SeqCst), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed_before_the_server_does() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let server = Server::raw(move |head, mut stream| {
        let count = count.clone();
        async move {
            read_body(&head, &mut stream).await;
            let _ = stream.write_all(OK).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let gateway = Gateway::with(
        &[&server],
        |options| options.upstream_idle = Duration::from_millis(200),
        |_| {},
    )
    .await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    common::eventually("the idle connection is closed", || {
        ended.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routes_own_retry_replaces_ours() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let server = Server::start(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let status = if number < 3 { 429 } else { 200 };
            http::Response::builder()
                .status(status)
                .body(common::full("x"))
                .expect("response")
        })
    })
    .await;
    let retry = |attempts| Retry {
        codes: vec![StatusCode::TOO_MANY_REQUESTS],
        attempts,
        backoff: Duration::from_millis(5),
    };
    let gateway = Gateway::with(
        &[&server],
        |_| {},
        |rule| rule.policy.retry = Some(retry(3)),
    )
    .await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    assert_eq!(count.swap(0, Ordering::SeqCst), 4);
    let gateway = Gateway::with(
        &[&server],
        |_| {},
        |rule| rule.policy.retry = Some(retry(1)),
    )
    .await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 429);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deadline_before_the_answer_has_its_own_name() {
    let silent = Server::raw(|head, mut stream| async move {
        read_body(&head, &mut stream).await;
        let _ = read_head(&mut stream).await;
    })
    .await;
    let short = Duration::from_millis(150);
    let gateway = Gateway::with(
        &[&silent],
        |options| options.deadlines.first_byte = short,
        |_| {},
    )
    .await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (504, "first_byte_timeout")
    );
    let gateway = Gateway::with(
        &[&silent],
        |_| {},
        |rule| rule.policy.backend_timeout = Some(short),
    )
    .await;
    assert_eq!(gateway.post(PATH, CHAT).await.code(), "first_byte_timeout");
    let gateway = Gateway::with(
        &[&silent],
        |_| {},
        |rule| rule.policy.request_timeout = Some(short),
    )
    .await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (504, "request_timeout")
    );
}

/// A server that is well until the first request for inference comes: that gets `begin`, and from then on nothing but
/// probes is answered, with 503. Returns its address and the number of requests that it holds.
async fn freezing(begin: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let held = Arc::new(AtomicUsize::new(0));
    let count = held.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    if head.starts_with(b"POST") {
                        count.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(begin).await;
                        return std::future::pending().await;
                    }
                    let well = count.load(Ordering::SeqCst) == 0;
                    let status = if well {
                        "200 OK"
                    } else {
                        "503 Service Unavailable"
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_frozen_server_has_not_begun_to_answer_goes_to_another() {
    let (frozen, held) = freezing(b"").await;
    let well = Server::fixed(200, "application/json", r#"{"id":"x"}"#).await;
    let pool = common::pool(PoolKind::Inference, &[frozen, well.address]);
    let plan = common::plan(vec![common::rule(PoolKind::Inference)], pool, false);
    let gateway = Gateway::serve(common::options(), plan).await;
    let ask = || gateway.post(PATH, CHAT);
    let replies = tokio::time::timeout(Duration::from_secs(30), async {
        tokio::join!(ask(), ask(), ask(), ask(), ask(), ask())
    });
    let (a, b, c, d, e, f) = replies
        .await
        .expect("nobody waits for the frozen server for ever");
    assert_eq!(
        [a, b, c, d, e, f].map(|reply| reply.status),
        [StatusCode::OK; 6]
    );
    assert!(
        held.load(Ordering::SeqCst) > 0,
        "the frozen server got none of them"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_frozen_server_ends_with_an_error_long_before_the_idle_deadline() {
    let begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: {}\r\n";
    let (frozen, _) = freezing(begin).await;
    let pool = common::pool(PoolKind::Inference, &[frozen]);
    let plan = common::plan(vec![common::rule(PoolKind::Inference)], pool, false);
    let gateway = Gateway::serve(common::options(), plan).await;
    let reply = tokio::time::timeout(Duration::from_secs(40), gateway.post(PATH, CHAT));
    let reply = reply.await.expect("it ends by itself");
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.text().starts_with("data: {}"), "{}", reply.text());
    assert!(reply.text().contains("upstream_silent"), "{}", reply.text());
}
