//! What passes through unchanged, and what is changed on purpose.

mod common;

use bytes::Bytes;
use common::{CHAT, CHAT_STREAM, Gateway, PATH, Server, channel, full, post};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use routing::{ModelTable, ModelTarget, PoolKind};

const JSON: &str = r#"{"id":"cmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"yo"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_exchange_passes_byte_for_byte() {
    let server = Server::fixed(200, "application/json", JSON).await;
    let gateway = Gateway::to(&[&server]).await;
    let mut request = post(PATH, CHAT);
    request
        .headers_mut()
        .insert("x-request-id", "mine-1".parse().expect("value"));
    request.headers_mut().insert(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .expect("value"),
    );
    let reply = gateway.send(request).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, JSON));
    assert_eq!(reply.header("x-request-id"), "mine-1");
    assert_eq!(reply.header("content-type"), "application/json");
    let asked = server.last();
    assert_eq!(asked.body, CHAT);
    assert_eq!(asked.uri, PATH);
    assert_eq!(asked.headers["host"], "test");
    assert_eq!(asked.headers["x-request-id"], "mine-1");
    assert_eq!(asked.headers["content-length"], CHAT.len().to_string());
    assert_eq!(
        asked.headers["traceparent"],
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    );
    let page = gateway.metrics.encode_text();
    assert!(
        page.contains(r#"inference_objective_request_total"#),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_passes_frame_by_frame_before_it_ends() {
    let server = Server::start(|_| {
        Box::pin(async {
            let (frames, body) = channel();
            tokio::spawn(async move {
                for n in 0..3 {
                    let event = format!(
                        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{n}\"}}}}]}}\n\n"
                    );
                    frames.send(Ok(event.into())).await.expect("wanted");
                    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                }
                frames
                    .send(Ok(Bytes::from_static(b"data: [DONE]\n\n")))
                    .await
                    .expect("wanted");
            });
            Response::builder()
                .header("content-type", "text/event-stream; charset=utf-8")
                .body(body)
                .expect("response")
        })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let mut response = common::open(gateway.address, post(PATH, CHAT_STREAM)).await;
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let mut frames = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        frames.push(frame.expect("whole").into_data().expect("data"));
    }
    let text: Vec<&str> = frames
        .iter()
        .map(|frame| std::str::from_utf8(frame).expect("text"))
        .collect();
    assert!(text.len() >= 4, "frames were held back: {text:?}");
    assert_eq!(
        text.concat(),
        "data: {\"choices\":[{\"delta\":{\"content\":\"0\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"1\"}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"2\"}}]}\n\ndata: [DONE]\n\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_models_name_changes_in_a_body() {
    let server = Server::fixed(200, "application/json", JSON).await;
    let mut table = ModelTable::default();
    table.add_model(
        "m",
        1,
        vec![ModelTarget {
            name: "target-v2".into(),
            weight: 1,
        }],
    );
    let mut pool = common::pool(PoolKind::Inference, &[server.address]);
    pool.models = table.into();
    let gateway = Gateway::serve(
        common::options(),
        common::plan(vec![common::rule(PoolKind::Inference)], pool, false),
    )
    .await;
    let body = "{ \"x\": 1.50, \"model\" :\"m\", \"messages\":[ {\"role\":\"user\",\"content\":\"m\"} ], \"y\":\"\\u00e9\"}";
    let reply = gateway.post(PATH, body).await;
    assert_eq!(reply.status, 200);
    let expected = body.replacen("\"m\"", "\"target-v2\"", 1);
    assert_eq!(server.last().body, expected);
    assert_eq!(
        server.last().headers["content-length"],
        expected.len().to_string()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_server_are_kept() {
    let server = Server::fixed(200, "application/json", JSON).await;
    let gateway = Gateway::to(&[&server]).await;
    let before = server.connections.load(std::sync::atomic::Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    }
    let opened = server.connections.load(std::sync::atomic::Ordering::SeqCst) - before;
    // Probes of the fleet may come between.
    assert!(opened <= 3, "{opened} connections for 10 requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_errors_pass_as_they_are() {
    for status in [400, 404, 422, 429, 504] {
        let server = Server::start(move |_| {
            Box::pin(async move {
                Response::builder()
                    .status(status)
                    .header("retry-after", "7")
                    .header("server", "uvicorn")
                    .body(full("its own words"))
                    .expect("response")
            })
        })
        .await;
        let gateway = Gateway::to(&[&server]).await;
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text()),
            (status, "its own words")
        );
        assert_eq!(
            (reply.header("retry-after"), reply.header("server")),
            ("7", "uvicorn")
        );
        assert_eq!(server.count(), 1, "{status} was retried");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_empty_answers_and_lengths_pass_right() {
    let server = Server::start(|asked| {
        Box::pin(async move {
            let answer = Response::builder();
            match asked.uri.path() {
                "/head" => answer.header("content-length", "1234").body(full("")),
                "/204" => answer.status(204).body(full("")),
                "/304" => answer.status(304).header("etag", "\"1\"").body(full("")),
                _ => answer.body(full("four")),
            }
            .expect("response")
        })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let request = Request::head("/head")
        .header("host", "test")
        .body(Full::default())
        .expect("request");
    let head = gateway.send(request).await;
    assert_eq!(
        (
            head.status.as_u16(),
            head.header("content-length"),
            head.body.len()
        ),
        (200, "1234", 0)
    );
    for (path, status) in [("/204", 204), ("/304", 304)] {
        let reply = gateway.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0));
        assert_eq!(reply.header("transfer-encoding"), "");
    }
    let reply = gateway.get("/four?a=b").await;
    assert_eq!(
        (reply.text(), reply.header("content-length")),
        ("four", "4")
    );
    assert_eq!(server.last().uri, "/four?a=b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_continue_and_chunked_bodies_are_understood() {
    let server = Server::fixed(200, "application/json", JSON).await;
    let gateway = Gateway::to(&[&server]).await;
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{CHAT}\r\n0\r\n\r\n",
        CHAT.len()
    );
    let answer = gateway.raw(chunked.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    let asked = server.last();
    assert_eq!(asked.body, CHAT);
    assert_eq!(asked.headers["content-length"], CHAT.len().to_string());
    assert!(
        !asked.headers.contains_key("expect") && !asked.headers.contains_key("transfer-encoding")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_serve_one_port() {
    let server = Server::fixed(200, "application/json", JSON).await;
    let gateway = Gateway::with(&[&server], |options| options.threads = 4, |_| {}).await;
    let replies = futures_util::future::join_all((0..100).map(|_| gateway.post(PATH, CHAT))).await;
    assert!(
        replies
            .iter()
            .all(|reply| reply.status == 200 && reply.text() == JSON)
    );
    assert_eq!(server.count(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_made_where_a_client_brings_none_that_is_fit() {
    let server = Server::start(|_| {
        Box::pin(async {
            Response::builder()
                .header("x-request-id", "the server's")
                .body(full("x"))
                .expect("response")
        })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let long = "x".repeat(129);
    for bad in ["", "has space", long.as_str()] {
        let mut request = post(PATH, CHAT);
        request
            .headers_mut()
            .insert("x-request-id", bad.parse().expect("value"));
        let reply = gateway.send(request).await;
        let ids: Vec<_> = reply.headers.get_all("x-request-id").iter().collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(ids[0].len(), 36, "{bad:?} became {:?}", ids[0]);
        assert_eq!(server.last().headers["x-request-id"], ids[0]);
    }
}
