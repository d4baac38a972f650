//! Models, errors, adapters, metrics, pooling: everything that is not text.

mod support;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use simserver::{LoraModule, SimOptions};
use support::{connect, fast, get, open, post, request, send, start, until};

/// The value of the first sample whose line starts so.
fn sample(page: &str, start: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(start))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn with_lora(max_loras: usize) -> SimOptions {
    let module = |name: &str| LoraModule {
        name: name.into(),
        path: format!("/adapters/{name}"),
    };
    SimOptions {
        enable_lora: true,
        max_loras,
        lora_modules: vec![module("l0"), module("l1")],
        ..fast()
    }
}

#[tokio::test]
async fn models_list_names_and_adapters() {
    let options = SimOptions {
        served_model_names: vec!["a".into(), "b".into()],
        ..with_lora(1)
    };
    let sim = start(options).await;
    let models = get(&sim, "/v1/models").await.json();
    let ids: Vec<&Value> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["a", "b", "l0", "l1"]);
    assert_eq!(
        (&models["data"][0]["root"], &models["data"][0]["parent"]),
        (&json!("tiny"), &Value::Null)
    );
    assert_eq!(models["data"][0]["max_model_len"], 131_072);
    assert_eq!(
        (&models["data"][2]["parent"], &models["data"][2]["root"]),
        (&json!("a"), &json!("/adapters/l0"))
    );
    let reply = post(
        &sim,
        "/v1/completions",
        &json!({"model": "tiny", "prompt": "x"}),
    )
    .await;
    assert_eq!(
        reply.status, 404,
        "the path is no name when others are served"
    );
}

/// Path, body, status, type, and what the message says.
#[rustfmt::skip]
const ERRORS: &[(&str, &str, u16, &str, &str)] = &[
    ("/v1/completions", r#"{"model": "nope", "prompt": "x"}"#, 404, "NotFoundError", "Valid aliases: tiny."),
    ("/v1/chat/completions", r#"{"model": "tiny"}"#, 400, "Bad Request", "Field required"),
    ("/v1/completions", r#"{"model": "tiny"}"#, 400, "BadRequestError", "Either prompt"),
    ("/v1/completions", r#"{"model": 5, "prompt": "x"}"#, 400, "Bad Request", "valid string"),
    ("/v1/completions", r#"{"prompt": "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"}"#, 400, "BadRequestError", "maximum context length is 25 tokens"),
    ("/v1/completions", r#"{"prompt": "x", "max_tokens": 25}"#, 400, "BadRequestError", "is too large: 25"),
    ("/v1/completions", r#"{"prompt": "x", "max_tokens": 0}"#, 400, "BadRequestError", "at least 1"),
    ("/v1/completions", r#"{"prompt": []}"#, 400, "Bad Request", "token ids"),
    ("/v1/completions", r#"{"prompt": [1, -2]}"#, 400, "Bad Request", "token ids"),
    ("/v1/completions", r#"{"prompt": ""}"#, 400, "BadRequestError", "cannot be empty"),
    ("/v1/completions", r#"{"prompt": "x", "n": 0}"#, 400, "BadRequestError", "between 1 and 128"),
    ("/v1/completions", r#"{"prompt": "x", "n": 2, "temperature": 0}"#, 400, "BadRequestError", "greedy"),
    ("/v1/completions", r#"{"prompt": "x", "temperature": -1}"#, 400, "BadRequestError", "non-negative"),
    ("/v1/completions", r#"{"prompt": "x", "cache_salt": ""}"#, 400, "BadRequestError", "non-empty"),
    ("/v1/completions", r#"{"prompt": "x", "stream": "yes"}"#, 400, "Bad Request", "boolean"),
    ("/v1/completions", r#"{"prompt": "x", "min_tokens": 9, "max_tokens": 3}"#, 400, "BadRequestError", "min_tokens"),
    ("/v1/chat/completions", r#"{"messages": [], "stream_options": {}}"#, 400, "BadRequestError", "stream=True"),
    ("/v1/chat/completions", r#"{"messages": "x"}"#, 400, "Bad Request", "valid list"),
    ("/v1/responses", r#"{"model": "tiny"}"#, 400, "Bad Request", "Field required"),
    ("/v1/embeddings", r#"{"model": "tiny"}"#, 400, "Bad Request", "Field required"),
    ("/v1/embeddings", r#"{"input": "x", "dimensions": 0}"#, 400, "Bad Request", "positive"),
    ("/rerank", r#"{"query": "x", "documents": []}"#, 400, "Bad Request", "list of strings"),
    ("/v1/load_lora_adapter", r#"{"lora_name": "x", "lora_path": "/x"}"#, 400, "BadRequestError", "not enabled"),
];

#[tokio::test]
async fn errors_are_vllms() {
    let sim = start(SimOptions {
        max_model_len: Some(25),
        ..fast()
    })
    .await;
    for (path, body, status, kind, message) in ERRORS {
        let reply = send(&sim, request(Method::POST, path, &[], *body)).await;
        let error = &reply.json()["error"];
        let got = (reply.status.as_u16(), error["type"].as_str());
        assert_eq!(got, (*status, Some(*kind)), "{path} {body}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(message),
            "{path} {body}: {error}"
        );
        assert_eq!(error["code"], *status);
    }
    assert_eq!(sim.stats().finished, 0);
}

#[tokio::test]
async fn broken_json_names_its_place() {
    let sim = start(fast()).await;
    for (body, place) in [
        ("{\"model\": \"a\",}", "body.14"),
        ("{\n\"a\": nul}", "body."),
        ("", "body.0"),
        ("[]", "body."),
    ] {
        let reply = send(&sim, request(Method::POST, "/v1/completions", &[], body)).await;
        let error = reply.json()["error"].clone();
        assert_eq!(reply.status, 400);
        assert!(
            error["param"].as_str().unwrap().starts_with(place),
            "{body}: {error}"
        );
    }
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let sim = start(SimOptions {
        max_body_bytes: 100,
        ..fast()
    })
    .await;
    let lost = post(&sim, "/v1/nothing", &json!({})).await;
    assert_eq!(
        (lost.status.as_u16(), lost.json()),
        (404, json!({"detail": "Not Found"}))
    );
    let wrong = get(&sim, "/v1/chat/completions").await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.headers["allow"]),
        (405, &"POST".parse().unwrap())
    );
    let large = post(&sim, "/v1/completions", &json!({"prompt": "x".repeat(200)})).await;
    assert_eq!(large.status, 413);
}

#[tokio::test]
async fn small_routes_answer() {
    let sim = start(fast()).await;
    for path in ["/health", "/ping"] {
        let reply = get(&sim, path).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    }
    assert!(get(&sim, "/version").await.json()["version"].is_string());
    assert_eq!(get(&sim, "/load").await.json(), json!({"server_load": 0}));
    let body = json!({"prompt": "time way people", "return_token_strs": true});
    let tokens = post(&sim, "/tokenize", &body).await.json();
    assert_eq!(
        (&tokens["count"], &tokens["token_strs"]),
        (&json!(4), &json!(["time", " way", " peopl", "e"]))
    );
    let chat = json!({"messages": [{"role": "user", "content": "x"}]});
    assert!(
        post(&sim, "/tokenize", &chat).await.json()["count"]
            .as_u64()
            .unwrap()
            > 5
    );
    let words = post(&sim, "/tokenize", &json!({"prompt": " time way"}))
        .await
        .json();
    let text = post(&sim, "/detokenize", &json!({"tokens": words["tokens"]}))
        .await
        .json();
    assert_eq!(text["prompt"], " time way");
    assert_eq!(
        post(&sim, "/reset_prefix_cache", &json!({})).await.status,
        200
    );
}

#[tokio::test]
async fn pooling_routes_answer() {
    let sim = start(fast()).await;
    let embedded = post(
        &sim,
        "/v1/embeddings",
        &json!({"model": "tiny", "input": ["a", "b", "a"]}),
    )
    .await
    .json();
    let vector = |index: usize| {
        embedded["data"][index]["embedding"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(vector(0).len(), 384);
    assert_eq!(vector(0), vector(2));
    assert_ne!(vector(0), vector(1));
    assert_eq!(
        embedded["usage"],
        json!({"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0, "prompt_tokens_details": null})
    );
    let small = json!({"input": "a", "dimensions": 3, "encoding_format": "base64"});
    let small = post(&sim, "/v1/embeddings", &small).await.json();
    assert_eq!(small["data"][0]["embedding"].as_str().unwrap().len(), 16);
    let documents = json!(["rain in the city", "trains run on rails", "nothing"]);
    let body = json!({"query": "which trains run", "documents": documents, "top_n": 2});
    let ranked = post(&sim, "/rerank", &body).await.json();
    assert_eq!(
        (
            ranked["results"].as_array().unwrap().len(),
            &ranked["results"][0]["index"]
        ),
        (2, &json!(1))
    );
    let scored = post(
        &sim,
        "/score",
        &json!({"text_1": "a b", "text_2": ["a b", "c"]}),
    )
    .await
    .json();
    assert_eq!(
        (&scored["data"][0]["score"], &scored["data"][1]["score"]),
        (&json!(1.0), &json!(0.0))
    );
    let classes = post(&sim, "/classify", &json!({"input": ["good", "bad"]}))
        .await
        .json();
    assert_eq!(classes["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        post(&sim, "/pooling", &json!({"input": "x"})).await.json()["data"][0]["object"],
        "pooling"
    );
    assert_eq!(sim.stats().generation_tokens, 0);
}

#[tokio::test]
async fn transcriptions_take_a_form() {
    let sim = start(fast()).await;
    let clip = "x".repeat(64_000);
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n--b\r\nContent-Disposition: form-data; \
         name=\"file\"; filename=\"a.wav\"\r\n\r\n{clip}\r\n--b--\r\n"
    );
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    let reply = send(
        &sim,
        request(Method::POST, "/v1/audio/transcriptions", &kind, body),
    )
    .await
    .json();
    assert_eq!(reply["usage"], json!({"type": "duration", "seconds": 2}));
    assert!(!reply["text"].as_str().unwrap().is_empty());
    assert_eq!(sim.stats().prompt_tokens, 20);
    let bad = send(
        &sim,
        request(Method::POST, "/v1/audio/transcriptions", &kind, "--b--"),
    )
    .await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn adapters_come_and_go() {
    let sim = start(with_lora(1)).await;
    let load = json!({"lora_name": "l2", "lora_path": "/adapters/l2"});
    let reply = post(&sim, "/v1/load_lora_adapter", &load).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (200, "Success: LoRA adapter 'l2' added successfully.")
    );
    let twice = post(&sim, "/v1/load_lora_adapter", &load).await;
    assert_eq!(
        (twice.status.as_u16(), &twice.json()["error"]["type"]),
        (400, &json!("InvalidUserInput"))
    );
    let used = post(
        &sim,
        "/v1/completions",
        &json!({"model": "l2", "prompt": "x", "max_tokens": 2}),
    )
    .await
    .json();
    assert_eq!(used["model"], "l2");
    let unload = json!({"lora_name": "l2"});
    assert_eq!(
        post(&sim, "/v1/unload_lora_adapter", &unload).await.status,
        200
    );
    let gone = post(&sim, "/v1/unload_lora_adapter", &unload).await;
    assert_eq!(
        (gone.status.as_u16(), &gone.json()["error"]["type"]),
        (404, &json!("NotFoundError"))
    );
    assert_eq!(
        post(
            &sim,
            "/v1/completions",
            &json!({"model": "l2", "prompt": "x"})
        )
        .await
        .status,
        404
    );
}

#[tokio::test]
async fn adapter_slots_show_in_the_metrics() {
    let sim = start(SimOptions {
        speed: 1.0,
        lora_load: Duration::ZERO,
        ..with_lora(1)
    })
    .await;
    assert!(
        !get(&sim, "/metrics")
            .await
            .text()
            .contains("lora_requests_info"),
        "absent before the first use"
    );
    let body = |model: &str| json!({"model": model, "prompt": "x", "max_tokens": 5000, "ignore_eos": true, "stream": true});
    let first = open(&sim, "/v1/completions", &body("l0")).await;
    until("l0 runs", || sim.stats().running == 1).await;
    let second = open(&sim, "/v1/completions", &body("l1")).await;
    until("l1 waits", || sim.stats().deferred == 1).await;
    let page = get(&sim, "/metrics").await;
    let newest = |page: &str| {
        let lines = page
            .lines()
            .filter_map(|line| line.strip_prefix("vllm:lora_requests_info"));
        let newest = lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .max_by(|a, b| {
                a.1.parse::<f64>()
                    .unwrap()
                    .total_cmp(&b.1.parse::<f64>().unwrap())
            });
        newest.unwrap().0.to_owned()
    };
    let labels = r#"{max_lora="1",running_lora_adapters="l0",waiting_lora_adapters="l1"}"#;
    assert_eq!(newest(page.text()), labels);
    assert_eq!(
        sample(
            page.text(),
            r#"vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="deferred"}"#
        ),
        Some(1.0)
    );
    drop(first);
    until("l1 runs", || {
        sim.stats().waiting == 0 && sim.stats().running == 1
    })
    .await;
    drop(second);
    until("nothing runs", || sim.stats().running == 0).await;
    let page = get(&sim, "/metrics").await;
    assert!(page.text().contains(labels), "old label sets stay");
    assert_eq!(
        newest(page.text()),
        r#"{max_lora="1",running_lora_adapters="",waiting_lora_adapters=""}"#
    );
}

#[tokio::test]
async fn metrics_count_requests() {
    let sim = start(SimOptions {
        num_gpu_blocks: Some(500),
        ..fast()
    })
    .await;
    let prompt = "points and signals for every train ".repeat(10);
    for _ in 0..3 {
        post(
            &sim,
            "/v1/completions",
            &json!({"prompt": prompt, "max_tokens": 4, "ignore_eos": true}),
        )
        .await;
    }
    let reply = get(&sim, "/metrics").await;
    assert_eq!(
        reply.headers["content-type"],
        "text/plain; version=1.0.0; charset=utf-8"
    );
    let page = reply.text();
    let base = r#"{engine="0",model_name="tiny"}"#;
    let stats = sim.stats();
    for (name, value) in [
        ("vllm:num_requests_running", 0.0),
        ("vllm:kv_cache_usage_perc", 0.0),
        ("vllm:generation_tokens_total", 12.0),
        ("vllm:prompt_tokens_total", stats.prompt_tokens as f64),
        ("vllm:prefix_cache_hits_total", stats.prefix_hits as f64),
        ("vllm:prompt_tokens_cached_total", stats.prefix_hits as f64),
        ("vllm:time_to_first_token_seconds_count", 3.0),
        ("vllm:inter_token_latency_seconds_count", 9.0),
        ("vllm:e2e_request_latency_seconds_count", 3.0),
        ("vllm:request_generation_tokens_sum", 12.0),
    ] {
        assert_eq!(
            sample(page, &format!("{name}{base}")),
            Some(value),
            "{name}"
        );
    }
    assert!(stats.prefix_hits > 0);
    assert_eq!(
        sample(
            page,
            r#"vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"}"#
        ),
        Some(3.0)
    );
    assert_eq!(
        sample(
            page,
            r#"http_requests_total{handler="/v1/completions",method="POST",status="2xx"}"#
        ),
        Some(3.0)
    );
    let info = page
        .lines()
        .find(|line| line.starts_with("vllm:cache_config_info{"))
        .unwrap();
    assert!(info.contains(r#"block_size="16""#) && info.contains(r#"num_gpu_blocks="500""#));
}

#[tokio::test]
async fn a_full_queue_answers_503() {
    let options = SimOptions {
        speed: 1.0,
        max_num_seqs: 1,
        max_num_queued_reqs: Some(1),
        ..fast()
    };
    let sim = start(options).await;
    let body = json!({"prompt": "x", "max_tokens": 5000, "ignore_eos": true, "stream": true});
    let _first = open(&sim, "/v1/completions", &body).await;
    until("one runs", || sim.stats().running == 1).await;
    let _second = open(&sim, "/v1/completions", &body).await;
    until("one waits", || sim.stats().waiting == 1).await;
    let third = post(&sim, "/v1/completions", &body).await;
    assert_eq!(
        (third.status.as_u16(), &third.json()["error"]["type"]),
        (503, &json!("Service Unavailable"))
    );
    assert!(!third.headers.contains_key("retry-after"));
    let page = get(&sim, "/metrics").await;
    let name = r#"vllm:admission_rejections_total{model_name="tiny",reason="max_num_queued_reqs"}"#;
    assert_eq!(sample(page.text(), name), Some(1.0));
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let options = SimOptions {
        keep_alive_timeout: Duration::from_millis(100),
        ..fast()
    };
    let sim = start(options).await;
    let mut sender = connect(sim.address()).await;
    let reply = sender
        .send_request(request(Method::GET, "/health", &[], ""))
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    drop(reply);
    until("the server closes", || sender.is_closed()).await;
}

#[tokio::test]
async fn http2_is_spoken_on_request() {
    let sim = start(SimOptions {
        h2c: true,
        ..fast()
    })
    .await;
    let socket = tokio::net::TcpStream::connect(sim.address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(socket);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let reply = sender
        .send_request(request(Method::GET, "http://sim/health", &[], ""))
        .await
        .unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.version()),
        (200, http::Version::HTTP_2)
    );
    assert_eq!(
        get(&sim, "/health").await.status,
        200,
        "and HTTP/1.1 as before"
    );
}
