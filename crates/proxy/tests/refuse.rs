//! What bad input gets: each row of the error table, by its status and code.

mod common;

use bytes::Bytes;
use common::{CHAT, Gateway, PATH, Server, post};
use http::Request;
use http_body_util::Full;
use routing::{Filter, Match, PathMatch, PoolKind, Target};
use tokio::io::AsyncWriteExt;

async fn server() -> Server {
    Server::fixed(200, "application/json", "{}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bodies_never_reach_a_server() {
    let server = server().await;
    let gateway = Gateway::to(&[&server]).await;
    let table = [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "body_not_an_object"),
        (r#"{"messages":[]}"#, "model_missing"),
        (r#"{"model":"a","model":"b"}"#, "duplicate_model"),
        (r#"{"model":1}"#, "model_not_a_string"),
        (
            r#"{"model":"m","kv_transfer_params":{"remote_host":"x"}}"#,
            "reserved_field",
        ),
        (r#"{"model":"m","x":NaN}"#, "invalid_json"),
    ];
    for (body, code) in table {
        let reply = gateway.post(PATH, body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (400, code),
            "{body}"
        );
        assert!(!reply.header("x-request-id").is_empty());
        assert_eq!(reply.header("content-type"), "application/json");
    }
    let reply = gateway.post(PATH, r#"{"model":1}"#).await;
    assert!(reply.text().contains("at byte 9"), "{}", reply.text());
    let anthropic = gateway.post("/v1/messages", "{").await;
    assert!(
        anthropic.text().contains(r#""type":"error""#),
        "{}",
        anthropic.text()
    );
    assert_eq!(server.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_over_the_limit_get_413() {
    let server = server().await;
    let gateway = Gateway::with(&[&server], |options| options.max_body = 1000, |_| {}).await;
    let big = format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(2_000_000));
    for path in [PATH, "/other"] {
        let reply = gateway.post(path, &big).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (413, "body_too_large"),
            "{path}"
        );
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n",
            big.len()
        );
        let answer = gateway.raw(chunked.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routes_own_limit_counts() {
    let server = server().await;
    let gateway = Gateway::with(&[&server], |_| {}, |rule| rule.policy.max_body = Some(10)).await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserved_headers_and_admin_routes_are_for_trusted_listeners() {
    let server = server().await;
    for trusted in [false, true] {
        let pool = common::pool(PoolKind::Inference, &[server.address]);
        let plan = common::plan(vec![common::rule(PoolKind::Inference)], pool, trusted);
        let gateway = Gateway::serve(common::options(), plan).await;
        let mut request = post(PATH, CHAT);
        request.headers_mut().insert(
            "x-prefiller-host-port",
            "10.0.0.1:1".parse().expect("value"),
        );
        assert_eq!(
            gateway.send(request).await.status,
            if trusted { 200 } else { 400 }
        );
        for path in ["/sleep", "/%73leep", "/v1/load_lora_adapter"] {
            let reply = gateway.post(path, "{}").await;
            assert_eq!(reply.status, if trusted { 200 } else { 404 }, "{path}");
        }
        let body = r#"{"model":"m","kv_transfer_params":{}}"#;
        assert_eq!(
            gateway.post(PATH, body).await.status,
            if trusted { 200 } else { 400 }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steering_headers_never_arrive() {
    let server = server().await;
    let gateway = Gateway::to(&[&server]).await;
    let mut request = post(PATH, CHAT);
    for name in [
        "x-gateway-destination-endpoint",
        "x-gateway-destination-endpoint-subset",
        "x-pointsman-endpoint",
    ] {
        request
            .headers_mut()
            .insert(name, "10.0.0.1:1".parse().expect("value"));
    }
    let reply = gateway.send(request).await;
    assert_eq!(reply.status, 200);
    assert!(
        server
            .last()
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-gateway")
                && !name.as_str().starts_with("x-pointsman"))
    );
    assert!(
        reply
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-pointsman"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_routes_backends_and_filters_have_their_statuses() {
    let server = server().await;
    let under = |path: &str| {
        let mut rule = common::rule(PoolKind::Inference);
        rule.matches = Match {
            path: PathMatch::Prefix(path.into()),
            ..Match::any()
        };
        rule
    };
    let mut invalid = under("/invalid");
    invalid.backends[0].target = Target::Invalid("Service default/gone not found".into());
    let mut empty = under("/empty");
    empty.backends.clear();
    let mut unknown = under("/filter");
    unknown
        .filters
        .push(Filter::Unsupported("ExtensionRef".into()));
    let pool = common::pool(PoolKind::Inference, &[server.address]);
    let gateway = Gateway::serve(
        common::options(),
        common::plan(vec![invalid, empty, unknown], pool, false),
    )
    .await;
    for (path, status, code) in [
        ("/none", 404, "no_route"),
        ("/invalid", 500, "backend_invalid"),
        ("/empty", 500, "backend_invalid"),
        ("/filter", 500, "filter_invalid"),
    ] {
        let reply = gateway.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (status, code),
            "{path}"
        );
    }
    assert_eq!(server.count(), 0);
}

/// Messages on whose length two readers may differ.
const TWO_WAYS: [(&str, &str); 20] = [
    (
        "length, then coding",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding, then length",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "differing lengths",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
    ),
    (
        "a list of lengths",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 6\r\n\r\nabcde",
    ),
    (
        "a signed length",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nabcde",
    ),
    (
        "a length in hex",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\nabcde",
    ),
    (
        "a negative length",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    ),
    (
        "a folded line",
        "POST /x HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "a folded coding",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "space before the colon",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\nabcde",
    ),
    (
        "an unknown coding",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked not last",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "another coding first",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two codings",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding in HTTP/1.0",
        "POST /x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a bad chunk size",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    ),
    ("no host", "GET /x HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    (
        "a control character",
        "GET /x HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
    ),
    (
        "a second request behind a bad one",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_can_be_read_in_two_ways_get_400_and_the_connection_closes() {
    let server = server().await;
    let gateway = Gateway::to(&[&server]).await;
    for (what, bytes) in TWO_WAYS {
        let answer = gateway.raw(bytes.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{what}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(|asked| {
        Box::pin(async move { http::Response::new(common::full(asked.uri.path().to_owned())) })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let answer = gateway
        .raw(b"GET /a HTTP/1.1\r\nhost: t\r\n\r\nPOST /b HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabcGET /c HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .await;
    let places: Vec<_> = ["\r\n\r\n/a", "\r\n\r\n/b", "\r\n\r\n/c"]
        .iter()
        .map(|body| answer.find(body))
        .collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_in_mid_body_gets_408() {
    let server = server().await;
    let gateway = Gateway::with(
        &[&server],
        |options| options.deadlines.client_header = std::time::Duration::from_millis(200),
        |_| {},
    )
    .await;
    let answer = gateway
        .raw(format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n{{").as_bytes())
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("client_timeout"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_head_is_not_waited_for_but_an_idle_connection_is() {
    let server = server().await;
    let patience = std::time::Duration::from_millis(300);
    let gateway = Gateway::with(
        &[&server],
        |options| options.deadlines.client_header = patience,
        |_| {},
    )
    .await;
    gateway.raw(b"POST / HTTP/1.1\r\nho").await;

    let mut trickle = tokio::net::TcpStream::connect(gateway.address)
        .await
        .expect("connect");
    let head = b"GET /x HTTP/1.1\r\nhost: test\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let mut cut = false;
    for byte in head {
        cut = trickle.write_all(&[*byte]).await.is_err();
        if cut {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(
        cut,
        "a byte every 20 ms held the connection for longer than {patience:?}"
    );

    let mut idle = tokio::net::TcpStream::connect(gateway.address)
        .await
        .expect("connect");
    for _ in 0..2 {
        idle.write_all(b"GET /x HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .expect("still open");
        let head = common::read_head(&mut idle).await.expect("an answer");
        assert!(head.starts_with(b"HTTP/1.1 200 "));
        common::read_body(&head, &mut idle).await;
        tokio::time::sleep(2 * patience).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_may_be_named_by_a_header_on_trusted_listeners_only() {
    let server = server().await;
    for (trusted, model) in [(false, "m"), (true, "forced")] {
        let pool = common::pool(PoolKind::Inference, &[server.address]);
        let plan = common::plan(vec![common::rule(PoolKind::Inference)], pool, trusted);
        let gateway = Gateway::serve(common::options(), plan).await;
        let mut request = post(PATH, CHAT);
        request.headers_mut().insert(
            "x-gateway-model-name-rewrite",
            "forced".parse().expect("value"),
        );
        assert_eq!(gateway.send(request).await.status, 200);
        let asked = server.last();
        assert_eq!(
            asked.body,
            CHAT.replacen("\"m\"", &format!("\"{model}\""), 1)
        );
        assert!(!asked.headers.contains_key("x-gateway-model-name-rewrite"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_means_503_with_a_time_to_come_back() {
    let mut options = common::options();
    options.threads = 2;
    let pool = common::pool(PoolKind::Service, &[]);
    let gateway = Gateway::serve(
        options,
        common::plan(vec![common::rule(PoolKind::Service)], pool, false),
    )
    .await;
    let request = Request::get("/x")
        .header("host", "t")
        .body(Full::<Bytes>::default())
        .expect("request");
    let reply = gateway.send(request).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (503, "no_ready_endpoint")
    );
    assert!(
        reply
            .header("retry-after")
            .parse::<u32>()
            .is_ok_and(|seconds| (1..=120).contains(&seconds))
    );
}
