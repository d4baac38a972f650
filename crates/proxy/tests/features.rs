//! Filters, sessions, state that lives in one server, tunnels, lists, explanations, HTTP/2 servers.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{CHAT, Gateway, PATH, Server, Speaks, post, read_head};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::{
    AppProtocol, Backend, Filter, HeaderChange, Match, PathMatch, PathRewrite, PoolKind, Redirect,
    Rewrite, SessionKind, SessionPersistence, Target,
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

fn session(kind: SessionKind) -> SessionPersistence {
    SessionPersistence {
        kind,
        name: "sid".into(),
        absolute_timeout: None,
        idle_timeout: None,
        permanent: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_with_its_server_until_that_is_gone() {
    let servers = [named("a").await, named("b").await, named("c").await];
    for kind in [SessionKind::Cookie, SessionKind::Header] {
        let gateway = Gateway::with(
            &servers.each_ref(),
            |_| {},
            |rule| rule.policy.session = Some(session(kind)),
        )
        .await;
        let first = gateway.post(PATH, CHAT).await;
        let token = match kind {
            SessionKind::Cookie => first
                .header("set-cookie")
                .split(';')
                .next()
                .expect("a cookie")
                .to_owned(),
            SessionKind::Header => first.header("sid").to_owned(),
        };
        assert!(token.len() > 40, "{token:?}");
        let again = || {
            let mut request = post(PATH, CHAT);
            let name = if kind == SessionKind::Cookie {
                "cookie"
            } else {
                "sid"
            };
            request
                .headers_mut()
                .insert(name, token.parse().expect("value"));
            request
        };
        for _ in 0..8 {
            let reply = gateway.send(again()).await;
            assert_eq!(reply.text(), first.text());
            assert_eq!(reply.header("set-cookie"), "");
        }
        // Its server leaves the pool: the session moves and is told so.
        let left: Vec<_> = servers
            .iter()
            .zip(["a", "b", "c"])
            .filter(|(_, name)| *name != first.text())
            .map(|(server, _)| server.address)
            .collect();
        let plan = common::plan(vec![], common::pool(PoolKind::Inference, &left), false);
        gateway.fleet.apply(plan.pools.values());
        let moved = gateway.send(again()).await;
        assert_ne!(moved.text(), first.text());
        let told = if kind == SessionKind::Cookie {
            "set-cookie"
        } else {
            "sid"
        };
        assert!(!moved.header(told).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_continued_where_it_lives_and_nowhere_else() {
    let make = |id: &'static str| async move {
        Server::start(move |asked| {
            Box::pin(async move {
                let mine = asked.uri.path() == format!("/v1/responses/{id}")
                    || asked.uri.path() == "/v1/responses";
                let body = format!(r#"{{"id":"{id}","object":"response","status":"completed"}}"#);
                http::Response::builder()
                    .status(if mine { 200 } else { 404 })
                    .header("content-type", "application/json")
                    .body(common::full(body))
                    .expect("response")
            })
        })
        .await
    };
    let servers = [
        make("resp_a").await,
        make("resp_b").await,
        make("resp_c").await,
    ];
    let gateway = Gateway::to(&servers.each_ref()).await;
    // An id that nobody remembers: servers are asked in turn.
    for id in ["resp_a", "resp_b", "resp_c"] {
        assert_eq!(
            gateway.get(&format!("/v1/responses/{id}")).await.status,
            200,
            "{id}"
        );
    }
    assert_eq!(gateway.get("/v1/responses/resp_none").await.status, 404);
    let first = gateway
        .post("/v1/responses", r#"{"model":"m","input":"hi"}"#)
        .await;
    let id = serde_json::from_slice::<serde_json::Value>(&first.body).expect("JSON")["id"]
        .as_str()
        .expect("id")
        .to_owned();
    let next = format!(r#"{{"model":"m","input":"more","previous_response_id":"{id}"}}"#);
    for _ in 0..6 {
        assert_eq!(gateway.post("/v1/responses", &next).await.body, first.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_makes_is_asked_for_where_it_was_made() {
    let make = |id: &'static str| async move {
        Server::start(move |asked| {
            Box::pin(async move {
                let mine = asked.method == http::Method::POST || asked.uri.path().contains(id);
                http::Response::builder()
                    .status(if mine { 200 } else { 404 })
                    .header("content-type", "application/json")
                    .body(common::full(format!(r#"{{"object":"file","id":"{id}"}}"#)))
                    .expect("response")
            })
        })
        .await
    };
    let servers = [make("file-a").await, make("file-b").await];
    let gateway = Gateway::to(&servers.each_ref()).await;
    let made = gateway.post("/v1/files", "content").await;
    let id = if made.text().contains("file-a") {
        "file-a"
    } else {
        "file-b"
    };
    let total = || servers[0].count() + servers[1].count();
    let before = total();
    for _ in 0..6 {
        assert_eq!(
            gateway.get(&format!("/v1/files/{id}/content")).await.status,
            200
        );
    }
    // DELETE cannot be tried on one server after the other.
    let request = http::Request::delete(format!("/v1/files/{id}"))
        .header("host", "t")
        .body(Default::default())
        .expect("request");
    assert_eq!(gateway.send(request).await.status, 200);
    assert_eq!(total() - before, 7, "other servers were asked");
}

/// Lists a model of its own.
async fn with_model(model: &'static str) -> Server {
    let answer = move |asked: common::Asked| -> common::Answer {
        Box::pin(async move {
            let path = asked.uri.path();
            let list =
                format!(r#"{{"object":"list","data":[{{"id":"{model}","object":"model"}}]}}"#);
            let (status, body) = match path {
                "/v1/models" => (200, list),
                _ if path == format!("/v1/models/{model}") => {
                    (200, format!(r#"{{"id":"{model}"}}"#))
                }
                PATH => (200, format!(r#"{{"served_by":"{model}"}}"#)),
                _ => (404, "{}".to_owned()),
            };
            http::Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(common::full(body))
                .expect("response")
        })
    };
    Server::start_with(answer, Speaks::Models).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_are_chosen_by_model_and_list_theirs_together() {
    let (a, b) = (with_model("model-a").await, with_model("model-b").await);
    let mut other = common::pool(PoolKind::Inference, &[b.address]);
    other.key.name = "other".into();
    let mut rule = common::rule(PoolKind::Inference);
    rule.backends[0].target =
        Target::ByModel([common::key(PoolKind::Inference), other.key.clone()].into());
    let mut plan = common::plan(
        vec![rule],
        common::pool(PoolKind::Inference, &[a.address]),
        false,
    );
    plan.pools.insert(other.key.clone(), Arc::new(other));
    let gateway = Gateway::learning(common::options(), plan, true).await;
    for (model, server) in [
        ("model-a", "model-a"),
        ("model-b", "model-b"),
        ("unknown", "model-a"),
    ] {
        let reply = gateway
            .post(PATH, &CHAT.replacen("\"m\"", &format!("\"{model}\""), 1))
            .await;
        assert_eq!(
            reply.text(),
            format!(r#"{{"served_by":"{server}"}}"#),
            "{model}"
        );
    }
    let list = gateway.get("/v1/models").await;
    assert!(
        list.text().contains("model-a") && list.text().contains("model-b"),
        "{}",
        list.text()
    );
    for (model, status) in [("model-a", 200), ("model-b", 200), ("unknown", 404)] {
        assert_eq!(
            gateway.get(&format!("/v1/models/{model}")).await.status,
            status,
            "{model}"
        );
    }
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
        });
        let plan = common::plan(vec![common::rule(PoolKind::Service)], pool, false);
        let gateway = Gateway::serve(common::options(), plan).await;
        let reply = gateway.get("/x").await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
    }
    server.abort();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_finishes_its_handshake_is_a_connect_timeout() {
    let silent = Server::raw(|_, _| async {}).await;
    let made =
        rcgen::generate_simple_self_signed(vec!["inner.test".to_owned()]).expect("a certificate");
    let mut pool = common::pool(PoolKind::Inference, &[silent.address]);
    pool.tls = Some(routing::UpstreamTls {
        server_name: Some("inner.test".into()),
        verify: routing::Verify::Roots(made.cert.pem().into_bytes().into()),
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
