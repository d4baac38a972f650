//! Answers on their way: breaks, silence, clients that leave or are slow.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{CHAT, CHAT_STREAM, Gateway, PATH, Server, channel, post, read_body};
use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Sends the head of an answer and one piece of it, then does `then`.
async fn breaking(content_type: &'static str, piece: &'static str, wait: Duration) -> Server {
    Server::raw(move |head, mut stream| async move {
        read_body(&head, &mut stream).await;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let _ = stream.write_all((head + &chunk(piece)).as_bytes()).await;
        tokio::time::sleep(wait).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_event_stream_ends_with_an_event_in_the_callers_dialect() {
    let server = breaking("text/event-stream", EVENT, Duration::from_millis(50)).await;
    let gateway = Gateway::to(&[&server]).await;
    let reply = gateway.post(PATH, CHAT_STREAM).await;
    assert!(!reply.broken);
    let rest = reply.text().strip_prefix(EVENT).expect("what came first");
    let json: serde_json::Value =
        serde_json::from_str(rest.strip_prefix("data: ").expect("an event").trim()).expect("JSON");
    assert_eq!(json["error"]["code"], "upstream_broken");
    assert!(rest.ends_with("\n\n"));

    let anthropic =
        r#"{"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let reply = gateway.post("/v1/messages", anthropic).await;
    assert!(
        reply
            .text()
            .contains("event: error\ndata: {\"type\":\"error\""),
        "{}",
        reply.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_event_begins_on_a_line_of_its_own() {
    let server = breaking(
        "text/event-stream",
        "data: {\"half",
        Duration::from_millis(50),
    )
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let reply = gateway.post(PATH, CHAT_STREAM).await;
    assert!(
        reply
            .text()
            .starts_with("data: {\"half\n\ndata: {\"error\""),
        "{}",
        reply.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_else_that_breaks_is_broken_off() {
    let server = breaking("application/json", "{\"half\":", Duration::from_millis(50)).await;
    let gateway = Gateway::to(&[&server]).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert!(reply.broken);
    assert_eq!(reply.text(), "{\"half\":");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_between_tokens_ends_after_the_idle_deadline_and_not_before() {
    let server = breaking("text/event-stream", EVENT, Duration::from_secs(20)).await;
    let idle = Duration::from_millis(250);
    let gateway = Gateway::with(&[&server], |options| options.deadlines.idle = idle, |_| {}).await;
    let start = Instant::now();
    let reply = gateway.post(PATH, CHAT_STREAM).await;
    assert!(
        start.elapsed() >= idle && start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(
        reply.text().contains("\"idle_timeout\""),
        "{}",
        reply.text()
    );

    // A slow stream that never pauses for that long lives on.
    let steady = Server::start(|_| {
        Box::pin(async {
            let (frames, body) = channel();
            tokio::spawn(async move {
                for _ in 0..8 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let _ = frames.send(Ok(EVENT.into())).await;
                }
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .expect("response")
        })
    })
    .await;
    let gateway = Gateway::with(&[&steady], |options| options.deadlines.idle = idle, |_| {}).await;
    assert_eq!(
        gateway.post(PATH, CHAT_STREAM).await.text(),
        EVENT.repeat(8)
    );
    let limit = Duration::from_millis(250);
    let gateway = Gateway::with(
        &[&steady],
        |_| {},
        |rule| rule.policy.request_timeout = Some(limit),
    )
    .await;
    let reply = gateway.post(PATH, CHAT_STREAM).await;
    assert!(
        reply.text().contains("\"request_timeout\""),
        "{}",
        reply.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_stops_the_server_at_once() {
    for when in ["before the answer", "in the middle of it"] {
        let gone = Arc::new(AtomicBool::new(false));
        let seen = gone.clone();
        let started = Arc::new(AtomicBool::new(false));
        let begun = started.clone();
        let speaks = when == "in the middle of it";
        let server = Server::raw(move |head, mut stream| {
            let (seen, begun) = (seen.clone(), begun.clone());
            async move {
                read_body(&head, &mut stream).await;
                if speaks {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                    let _ = stream.write_all((head.to_owned() + &chunk(EVENT)).as_bytes()).await;
                }
                begun.store(true, Ordering::SeqCst);
                // Nothing more is written: only the closed connection can tell.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                seen.store(true, Ordering::SeqCst);
            }
        })
        .await;
        let gateway = Gateway::to(&[&server]).await;
        let mut stream = tokio::net::TcpStream::connect(gateway.address)
            .await
            .expect("connect");
        let request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{CHAT_STREAM}",
            CHAT_STREAM.len()
        );
        stream.write_all(request.as_bytes()).await.expect("send");
        common::eventually("the server has the request", || {
            started.load(Ordering::SeqCst)
        })
        .await;
        if speaks {
            let mut first = [0; 16];
            stream
                .read_exact(&mut first)
                .await
                .expect("the answer begins");
        }
        assert!(!gone.load(Ordering::SeqCst));
        drop(stream);
        common::eventually(when, || gone.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_slows_the_server() {
    const PIECE: usize = 64 << 10;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let server = Server::start(move |_| {
        let counter = counter.clone();
        Box::pin(async move {
            let (frames, body) = channel();
            tokio::spawn(async move {
                while frames
                    .send(Ok(Bytes::from(vec![b'x'; PIECE])))
                    .await
                    .is_ok()
                {
                    if counter.fetch_add(PIECE, Ordering::SeqCst) > (256 << 20) {
                        break;
                    }
                }
            });
            Response::new(body)
        })
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let response = common::open(gateway.address, post(PATH, CHAT)).await;
    // Not reading: the flow must come to a stop with no more than socket buffers full.
    let mut last = usize::MAX;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = sent.load(Ordering::SeqCst);
        if now == last {
            break;
        }
        last = now;
    }
    assert!(last < (64 << 20), "{last} bytes were taken from the server");
    let mut body = response.into_body();
    let before = sent.load(Ordering::SeqCst);
    let mut read = 0;
    while read < before + 10 * PIECE {
        read += body
            .frame()
            .await
            .expect("more")
            .expect("sound")
            .into_data()
            .expect("data")
            .len();
    }
    assert!(sent.load(Ordering::SeqCst) > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_inside_a_stream_passes_and_counts() {
    let body = format!(
        "{EVENT}data: {{\"error\":{{\"message\":\"EngineCore\",\"type\":\"InternalServerError\",\"code\":500}}}}\n\ndata: [DONE]\n\n"
    );
    let server = Server::fixed(200, "text/event-stream", body.clone()).await;
    let gateway = Gateway::to(&[&server]).await;
    let reply = gateway.post(PATH, CHAT_STREAM).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, body.as_str()));
    let page = || gateway.metrics.encode_text();
    common::eventually("the failure is counted", || {
        page().contains("in_band_error")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_a_stopping_server_gives_up_passes_and_counts() {
    let abort = r#"{"choices":[{"index":0,"text":"","delta":{},"finish_reason":"abort"}]}"#;
    let table = [
        (
            "text/event-stream",
            CHAT_STREAM,
            format!("{EVENT}data: {abort}\n\ndata: [DONE]\n\n"),
        ),
        ("application/json", CHAT, abort.to_owned()),
    ];
    for (kind, request, body) in table {
        let server = Server::fixed(200, kind, body.clone()).await;
        let gateway = Gateway::to(&[&server]).await;
        let reply = gateway.post(PATH, request).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, body.as_str()));
        let page = || gateway.metrics.encode_text();
        common::eventually("the failure is counted", || {
            page().contains("upstream_aborted")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_a_length_ends_with_its_connection() {
    let server = Server::raw(|head, mut stream| async move {
        read_body(&head, &mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end")
            .await;
    })
    .await;
    let gateway = Gateway::to(&[&server]).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text(), reply.broken),
        (200, "until the end", false)
    );
    assert_eq!(reply.header("connection"), "");
}
