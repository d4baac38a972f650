//! What goes wrong, on purpose or at the end.

mod support;

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use simserver::{FailureKind, Faults, SimOptions};
use support::{connect, fast, get, open, post, request, send, start, try_send, until};

fn endless() -> Value {
    json!({"prompt": "x", "max_tokens": 50_000, "ignore_eos": true, "stream": true})
}

fn short(stream: bool) -> Value {
    json!({"prompt": "x", "max_tokens": 10, "ignore_eos": true, "stream": stream})
}

fn faulty(faults: Faults) -> SimOptions {
    SimOptions { faults, ..fast() }
}

/// The tokens that a stream brought.
fn tokens(events: &[Value]) -> usize {
    events
        .iter()
        .filter(|event| {
            event["choices"][0]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        })
        .count()
}

#[tokio::test]
async fn a_disconnect_frees_the_engine() {
    let sim = start(SimOptions {
        speed: 1.0,
        ..fast()
    })
    .await;
    let streaming = open(&sim, "/v1/completions", &endless()).await;
    let mut waiting = connect(sim.address()).await;
    let mut whole = endless();
    whole["stream"] = json!(false);
    let whole = request(Method::POST, "/v1/completions", &[], whole.to_string());
    let pending = tokio::spawn(async move { waiting.send_request(whole).await.map(|_| ()) });
    until("both run", || sim.stats().running == 2).await;
    assert_eq!(get(&sim, "/load").await.json()["server_load"], 2);
    drop(streaming);
    until("one runs", || sim.stats().running == 1).await;
    pending.abort();
    until("none runs", || sim.stats().running == 0).await;
    assert_eq!((sim.stats().aborted, sim.stats().kv_usage), (2, 0.0));
    assert_eq!(get(&sim, "/load").await.json()["server_load"], 0);
    let page = get(&sim, "/metrics").await;
    let abort =
        r#"vllm:request_success_total{engine="0",finished_reason="abort",model_name="tiny"} 0.0"#;
    assert!(page.text().contains(abort), "vLLM does not count them");
}

#[tokio::test]
async fn a_slow_client_does_not_hold_up_the_engine() {
    let sim = start(SimOptions {
        speed: 2000.0,
        ..fast()
    })
    .await;
    let unread = open(
        &sim,
        "/v1/completions",
        &json!({"prompt": "x", "max_tokens": 20_000, "ignore_eos": true, "stream": true}),
    )
    .await;
    until("the engine is done", || sim.stats().finished == 1).await;
    let body = unread.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&body).unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("data: {"))
            .count(),
        20_000
    );
}

#[tokio::test]
async fn an_engine_that_dies_says_so_in_the_stream() {
    let sim = start(faulty(Faults {
        fail_after_tokens: Some(3),
        ..Faults::default()
    }))
    .await;
    let reply = post(&sim, "/v1/completions", &short(true)).await;
    assert_eq!(reply.status, 200);
    let chunks = reply.chunks();
    assert_eq!(
        (tokens(&chunks), &chunks.last().unwrap()["error"]["code"]),
        (3, &json!(500))
    );
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(
        post(&sim, "/v1/completions", &short(false)).await.status,
        500
    );
    until("nothing runs", || sim.stats().running == 0).await;
}

#[tokio::test]
async fn a_stall_keeps_the_connection_open() {
    let sim = start(faulty(Faults {
        stall_after_tokens: Some(2),
        ..Faults::default()
    }))
    .await;
    let mut body = open(&sim, "/v1/completions", &short(true))
        .await
        .into_body();
    let mut text = String::new();
    while text.matches("data: ").count() < 2 {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    until("the engine is done", || sim.stats().finished == 1).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(50), body.frame())
            .await
            .is_err()
    );
    assert_eq!(text.matches("data: ").count(), 2);
}

#[tokio::test]
async fn resets_cut_before_or_within_an_answer() {
    let sim = start(faulty(Faults {
        reset_rate: 1.0,
        ..Faults::default()
    }))
    .await;
    let attempt = request(
        Method::POST,
        "/v1/completions",
        &[],
        short(true).to_string(),
    );
    assert!(try_send(sim.address(), attempt).await.is_err());
    assert_eq!(
        get(&sim, "/health").await.status,
        200,
        "only inference is cut"
    );
    let sim = start(faulty(Faults {
        reset_after_tokens: Some(3),
        ..Faults::default()
    }))
    .await;
    let attempt = request(
        Method::POST,
        "/v1/completions",
        &[],
        short(true).to_string(),
    );
    assert!(try_send(sim.address(), attempt).await.is_err());
    until("nothing runs", || sim.stats().running == 0).await;
}

#[tokio::test]
async fn failures_come_at_their_rate_and_of_their_kind() {
    let kinds = vec![FailureKind::RateLimit];
    let sim = start(faulty(Faults {
        failure_rate: 0.5,
        failure_types: kinds,
        ..Faults::default()
    }))
    .await;
    let mut failed = 0;
    for _ in 0..60 {
        match post(&sim, "/v1/completions", &short(false))
            .await
            .status
            .as_u16()
        {
            200 => {}
            429 => failed += 1,
            other => panic!("{other}"),
        }
    }
    assert!((15..=45).contains(&failed), "{failed} of 60");
    assert_eq!(get(&sim, "/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_header_asks_for_an_error() {
    let sim = start(fast()).await;
    for (code, status) in [("418", 418), ("503", 503), ("nonsense", 400)] {
        let headers = [("x-return-error", code)];
        let reply = send(
            &sim,
            request(
                Method::POST,
                "/v1/completions",
                &headers,
                short(false).to_string(),
            ),
        )
        .await;
        assert_eq!(reply.status.as_u16(), status);
    }
}

#[tokio::test]
async fn faults_change_at_run_time() {
    let sim = start(fast()).await;
    assert_eq!(get(&sim, "/admin/config").await.json()["failure_rate"], 0.0);
    let set = post(
        &sim,
        "/admin/config",
        &json!({"failure_rate": 1.0, "failure_types": ["server_error"]}),
    )
    .await;
    assert_eq!(
        (set.status.as_u16(), &set.json()["failure_rate"]),
        (200, &json!(1.0))
    );
    assert_eq!(
        post(&sim, "/v1/completions", &short(false)).await.status,
        500
    );
    assert_eq!(
        post(
            &sim,
            "/admin/config",
            &json!({"failure_rate": 0.0, "typo": 1})
        )
        .await
        .status,
        400
    );
    assert_eq!(sim.faults().failure_rate, 1.0, "all or nothing");
    sim.set_faults(Faults {
        unhealthy: true,
        ..Faults::default()
    })
    .unwrap();
    assert_eq!(get(&sim, "/health").await.status, 503);
    assert!(
        sim.set_faults(Faults {
            reset_rate: 2.0,
            ..Faults::default()
        })
        .is_err()
    );
}

#[tokio::test]
async fn metrics_can_freeze_or_vanish() {
    let sim = start(fast()).await;
    post(&sim, "/admin/config", &json!({"metrics": "frozen"})).await;
    let before = get(&sim, "/metrics").await;
    post(&sim, "/v1/completions", &short(false)).await;
    assert_eq!(get(&sim, "/metrics").await.body, before.body);
    post(&sim, "/admin/config", &json!({"metrics": "off"})).await;
    assert_eq!(get(&sim, "/metrics").await.status, 404);
    post(&sim, "/admin/config", &json!({"metrics": "on"})).await;
    assert_ne!(get(&sim, "/metrics").await.body, before.body);
}

#[tokio::test]
async fn a_starting_server_is_not_ready() {
    let sim = start(SimOptions {
        startup: Duration::from_secs(3600),
        ..fast()
    })
    .await;
    assert_eq!(get(&sim, "/health").await.status, 503);
    assert_eq!(
        post(&sim, "/v1/completions", &short(false)).await.status,
        503
    );
}

#[tokio::test]
async fn stopping_aborts_streams_cleanly() {
    let sim = start(SimOptions {
        speed: 1.0,
        ..fast()
    })
    .await;
    let address = sim.address();
    let body = open(&sim, "/v1/completions", &endless()).await.into_body();
    until("it runs", || {
        sim.stats().running == 1 && sim.stats().generation_tokens > 0
    })
    .await;
    let reading = tokio::spawn(body.collect());
    sim.shutdown().await;
    let bytes = reading.await.unwrap().expect("a clean end").to_bytes();
    let text = std::str::from_utf8(&bytes).unwrap();
    let events: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!(
        (
            &last["choices"][0]["finish_reason"],
            &last["choices"][0]["text"]
        ),
        (&json!("abort"), &json!(""))
    );
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn draining_finishes_streams_and_refuses_new_ones() {
    let sim = start(SimOptions {
        speed: 10.0,
        shutdown_timeout: Duration::from_secs(20),
        ..fast()
    })
    .await;
    let address = sim.address();
    let long = json!({"prompt": "x", "max_tokens": 1000, "ignore_eos": true, "stream": true});
    let running = open(&sim, "/v1/completions", &long).await;
    until("it runs", || sim.stats().running == 1).await;
    let down = tokio::spawn(sim.shutdown());
    tokio::task::yield_now().await;
    let refused = request(
        Method::POST,
        "/v1/completions",
        &[],
        short(false).to_string(),
    );
    let refused = try_send(address, refused).await.unwrap();
    assert_eq!(refused.status, 500);
    assert!(
        refused
            .text()
            .contains("cannot schedule new futures after shutdown")
    );
    assert_eq!(
        try_send(address, request(Method::GET, "/health", &[], ""))
            .await
            .unwrap()
            .status,
        200
    );
    let bytes = running.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert!(text.contains(r#""finish_reason":"length""#) && text.ends_with("data: [DONE]\n\n"));
    down.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_crash_says_nothing() {
    let sim = start(SimOptions {
        speed: 1.0,
        ..fast()
    })
    .await;
    let body = open(&sim, "/v1/completions", &endless()).await.into_body();
    until("it runs", || sim.stats().generation_tokens > 0).await;
    let reading = tokio::spawn(body.collect());
    sim.kill().await;
    assert!(reading.await.unwrap().is_err(), "cut in the middle");
}
