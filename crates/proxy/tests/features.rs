//! Filters, weights, tunnels, explanations.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{CHAT, Gateway, PATH, Server, post, read_head};
use http::{HeaderName, HeaderValue, StatusCode};
use routing::{
    Backend, Filter, HeaderChange, Match, PathMatch, PathRewrite, PoolKind, Redirect, Rewrite,
    Target,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Says who it is.
async fn named(name: &'static str) -> Server {
    Server::fixed(200, "text/plain", name).await
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_of_rule_and_backend_apply() {
    let server = Server::start(|_| {
        Box::pin(async {
            http::Response::builder()
                .header("x-server", "1")
                .header("x-away", "1")
                .body(common::full(""))
                .expect("response")
        })
    })
    .await;
    let gateway = Gateway::with(
        &[&server],
        |_| {},
        |rule| {
            rule.matches = Match {
                path: PathMatch::Prefix("/api".into()),
                ..Match::any()
            };
            rule.filters = vec![
                Filter::RequestHeaders(HeaderChange {
                    set: vec![header("x-set", "rule")],
                    add: vec![header("x-add", "2")],
                    remove: vec![HeaderName::from_static("x-drop")],
                }),
                Filter::Rewrite(Rewrite {
                    hostname: Some("inner.test".into()),
                    path: Some(PathRewrite::Prefix("/v2".into())),
                }),
                Filter::ResponseHeaders(HeaderChange {
                    set: vec![header("x-answer", "rule")],
                    remove: vec![HeaderName::from_static("x-away")],
                    ..HeaderChange::default()
                }),
            ];
            rule.backends[0].filters = vec![Filter::RequestHeaders(HeaderChange {
                set: vec![header("x-set", "backend")],
                ..HeaderChange::default()
            })];
        },
    )
    .await;
    let request = http::Request::get("/api/x?q=1")
        .header("host", "outer.test")
        .header("x-set", "client")
        .header("x-add", "1")
        .header("x-drop", "1")
        .body(Default::default())
        .expect("request");
    let reply = gateway.send(request).await;
    assert_eq!(
        (
            reply.header("x-answer"),
            reply.header("x-server"),
            reply.header("x-away")
        ),
        ("rule", "1", "")
    );
    let asked = server.last();
    assert_eq!(asked.uri, "/v2/x?q=1");
    assert_eq!(asked.headers["host"], "inner.test");
    assert_eq!(asked.headers["x-set"], "backend");
    assert_eq!(
        asked.headers.get_all("x-add").iter().collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert!(!asked.headers.contains_key("x-drop"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_say_where_to() {
    let table = [
        (
            Redirect {
                scheme: Some("https".into()),
                hostname: None,
                path: None,
                port: None,
                status: StatusCode::MOVED_PERMANENTLY,
            },
            301,
            "https://a.test/x?q=1",
        ),
        (
            Redirect {
                scheme: None,
                hostname: Some("b.test".into()),
                path: None,
                port: Some(8443),
                status: StatusCode::FOUND,
            },
            302,
            "http://b.test:8443/x?q=1",
        ),
        (
            Redirect {
                scheme: Some("https".into()),
                hostname: None,
                path: Some(PathRewrite::Full("/y".into())),
                port: Some(443),
                status: StatusCode::TEMPORARY_REDIRECT,
            },
            307,
            "https://a.test/y?q=1",
        ),
        (
            Redirect {
                scheme: Some("http".into()),
                hostname: None,
                path: None,
                port: Some(80),
                status: StatusCode::FOUND,
            },
            302,
            "http://a.test/x?q=1",
        ),
    ];
    let server = named("never").await;
    for (redirect, status, location) in table {
        let gateway = Gateway::with(
            &[&server],
            |_| {},
            |rule| rule.filters = vec![Filter::Redirect(redirect)],
        )
        .await;
        let request = http::Request::get("/x?q=1")
            .header("host", "a.test:1234")
            .body(Default::default())
            .expect("request");
        let reply = gateway.send(request).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("location")),
            (status, location)
        );
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_share_out_the_traffic() {
    let (a, b) = (named("a").await, named("b").await);
    let mut other = common::pool(PoolKind::Inference, &[b.address]);
    other.key.name = "other".into();
    let mut rule = common::rule(PoolKind::Inference);
    rule.backends[0].weight = 3;
    rule.backends.push(Backend {
        weight: 1,
        target: Target::Pool(other.key.clone()),
        filters: Vec::new(),
    });
    let mut plan = common::plan(
        vec![rule],
        common::pool(PoolKind::Inference, &[a.address]),
        false,
    );
    plan.pools.insert(other.key.clone(), Arc::new(other));
    let gateway = Gateway::serve(common::options(), plan).await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/x").await.status, 200);
    }
    assert!((120..=180).contains(&a.count()), "{} of 200", a.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_a_tunnel_to_one_server() {
    let server = Server::raw(|head, mut stream| async move {
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(text.contains("connection: upgrade\r\n") && text.contains("upgrade: websocket\r\n"), "{text}");
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n")
            .await;
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            bytes[..read].make_ascii_uppercase();
            let _ = stream.write_all(&bytes[..read]).await;
        }
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let mut client = tokio::net::TcpStream::connect(gateway.address)
        .await
        .expect("connect");
    client
        .write_all(b"GET /v1/realtime HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .expect("send");
    let head = String::from_utf8(read_head(&mut client).await.expect("an answer")).expect("text");
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-accept: x"),
        "{head}"
    );
    // What looks like a contradictory head is only bytes now.
    for message in [
        "hello",
        "a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        client.write_all(message.as_bytes()).await.expect("send");
        let mut echo = vec![0; message.len()];
        client.read_exact(&mut echo).await.expect("echo");
        assert_eq!(
            String::from_utf8(echo).expect("text"),
            message.to_ascii_uppercase()
        );
    }
    // A drain waits for it.
    let drain = tokio::spawn(gateway.proxy.drain(Duration::from_secs(20)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write_all(b"still").await.expect("send");
    let mut echo = [0; 5];
    client.read_exact(&mut echo).await.expect("echo");
    assert!(!drain.is_finished());
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), drain)
        .await
        .expect("drained")
        .expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upgrade_is_an_answer_and_closes() {
    let server = named("plain").await;
    let gateway = Gateway::to(&[&server]).await;
    let answer = gateway
        .raw(b"GET /x HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("plain"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_explained_to_those_who_ask_and_may_know() {
    let server = named("a").await;
    for (explain, asks) in [(false, true), (true, false), (true, true)] {
        let gateway = Gateway::with(&[&server], |options| options.explain = explain, |_| {}).await;
        let mut request = post(PATH, CHAT);
        if asks {
            request
                .headers_mut()
                .insert("x-pointsman-explain", HeaderValue::from_static("1"));
        }
        let reply = gateway.send(request).await;
        let expected = if explain && asks {
            server.address.to_string()
        } else {
            String::new()
        };
        assert_eq!(reply.header("x-pointsman-endpoint"), expected);
        if explain && asks {
            let decision: serde_json::Value =
                serde_json::from_str(reply.header("x-pointsman-decision")).expect("JSON");
            assert_eq!(decision["winner"], expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_clients_get_answers_that_end_with_the_connection() {
    let server = Server::start(|_| {
        Box::pin(async {
            let (frames, body) = common::channel();
            tokio::spawn(async move {
                let _ = frames.send(Ok("one".into())).await;
                let _ = frames.send(Ok("two".into())).await;
            });
            http::Response::new(body)
        })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let answer = gateway.raw(b"GET /x HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nonetwo"),
        "{answer}"
    );
}
