//! What operators and clients can see: explanations, decisions, metrics, the access log; and what nobody may see.

mod support;

use support::objects::THE_TWO_OBJECTS;
use support::{
    Answer, CHAT, Folder, Pointsman, Server, Sim, chat, eventually, get, post, send, slice,
};

const SECRET_PROMPT: &str = "the-secret-of-the-prompt";
const SECRET_KEY: &str = "sk-the-secret-key";
const SECRET_QUERY: &str = "the-secret-of-the-query";

#[test]
fn explanations_are_for_those_who_may_know() {
    let servers = [Server::named("a", &[]), Server::named("b", &[])];
    let addresses = [servers[0].address, servers[1].address];
    let explain = [("x-pointsman-explain", "1")];
    let shy = Pointsman::urls(&addresses, &[]);
    let reply = send(shy.data, "POST", CHAT, &explain, &chat("m"));
    assert!(
        !reply
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("x-pointsman")),
        "off for strangers: {:?}",
        reply.headers
    );
    for flag in ["--explain", "--trusted"] {
        let open = Pointsman::urls(&addresses, &[flag]);
        open.wait_ready(2);
        let silent = post(open.data, CHAT, &chat("m"));
        assert!(
            !silent
                .headers
                .iter()
                .any(|(name, _)| name.starts_with("x-pointsman")),
            "only when asked"
        );
        let reply = send(open.data, "POST", CHAT, &explain, &chat("m"));
        let by = reply.header("x-pointsman-endpoint").to_owned();
        let index = addresses
            .iter()
            .position(|address| address.to_string() == by)
            .expect("one of ours");
        assert_eq!(support::server::served_by(&reply), ["a", "b"][index]);
        let decision: serde_json::Value =
            serde_json::from_str(reply.header("x-pointsman-decision")).expect("JSON");
        assert_eq!(decision["winner"], by);
        assert_eq!(decision["candidates"].as_array().expect("a list").len(), 2);
    }
}

#[test]
fn decisions_hold_every_candidate_term_by_term() {
    let sims = [
        Sim::start(&["--model", "llama"]),
        Sim::start(&["--model", "llama"]),
        Sim::start(&["--model", "llama"]),
    ];
    let gateway = Pointsman::urls(&sims.each_ref().map(|sim| sim.address), &[]);
    gateway.wait_ready(3);
    let headers = [
        ("x-request-id", "explained"),
        ("content-type", "application/json"),
    ];
    assert_eq!(
        send(gateway.data, "POST", CHAT, &headers, &chat("llama")).status,
        200
    );
    let decision = eventually("the decision", || {
        let all = get(gateway.admin, "/decisions").json();
        all["decisions"]
            .as_array()?
            .iter()
            .find(|decision| decision["request_id"] == "explained")
            .cloned()
    });
    assert_eq!(
        (&decision["policy"], &decision["model"]),
        (&"expected-cost".into(), &"llama".into())
    );
    let winner = decision["winner"].as_str().expect("a name");
    assert!(!decision["reason"].as_str().expect("a sentence").is_empty());
    let candidates = decision["candidates"].as_array().expect("a list");
    let mut names: Vec<&str> = candidates
        .iter()
        .map(|candidate| candidate["endpoint"].as_str().expect("a name"))
        .collect();
    assert!(names.contains(&winner));
    names.sort_unstable();
    let mut known = sims.each_ref().map(|sim| sim.address.to_string());
    known.sort();
    assert_eq!(names, known);
    for candidate in candidates {
        let terms = candidate["terms"].as_array().expect("terms");
        assert!(
            !terms.is_empty()
                && terms
                    .iter()
                    .all(|term| term[0].is_string() && term[1].is_number()),
            "{candidate}"
        );
        let sum: f64 = terms.iter().filter_map(|term| term[1].as_f64()).sum();
        let total = candidate["total"].as_f64().expect("a number");
        assert!(
            (sum - total).abs() < 1e-6 * total.abs().max(1.0),
            "the terms make the total: {candidate}"
        );
    }
    let access = gateway.access("explained");
    assert_eq!(
        access["endpoint"], winner,
        "it went where the decision says"
    );
    assert!(
        !get(gateway.admin, "/decisions").text().contains("hello"),
        "no prompt"
    );
}

/// Serves the two objects before a simulated server and sends a chat, a stream, an embedding, a failure and a refusal.
fn busy() -> (Sim, Folder, Pointsman) {
    let names = [
        "--enable-lora",
        "--max-loras",
        "2",
        "--lora-modules",
        "llama-3-8b-customer-v1=/1",
        "llama-3-8b-customer-v2=/2",
    ];
    let sim = Sim::start(&[&["--model", "llama-3-8b"][..], &names].concat());
    let slice = slice(
        "ai-workloads",
        "s",
        "app: llama-server, version: v1",
        sim.address,
    );
    let folder = Folder::new(&[("objects.yaml", THE_TWO_OBJECTS), ("slices.yaml", &slice)]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let stream = r#"{"model":"customer-support","stream":true,"stream_options":{"include_usage":true},"max_tokens":9,"ignore_eos":true,"messages":[{"role":"user","content":"PROMPT"}]}"#;
    for (id, path, body) in [
        (
            "whole",
            CHAT,
            stream
                .replace("true", "false")
                .replace(r#","stream_options":{"include_usage":false}"#, ""),
        ),
        ("stream", CHAT, stream.to_owned()),
        ("wrong", CHAT, "{".to_owned()),
        (
            "unknown",
            "/v1/completions",
            r#"{"model":"nobody-has-it","prompt":"PROMPT"}"#.to_owned(),
        ),
    ] {
        let headers = [
            ("x-request-id", id),
            ("authorization", &format!("Bearer {SECRET_KEY}")),
            ("content-type", "application/json"),
        ];
        let body = body.replace("PROMPT", SECRET_PROMPT);
        let reply = send(
            gateway.data,
            "POST",
            &format!("{path}?key={SECRET_QUERY}"),
            &headers,
            &body,
        );
        assert!(!reply.broken, "{id}");
        gateway.access(id);
    }
    (sim, folder, gateway)
}

#[test]
fn the_access_log_tells_what_happened_and_nothing_secret() {
    let (sim, _folder, gateway) = busy();
    let address = sim.address.to_string();
    for (id, streams) in [("whole", false), ("stream", true)] {
        let line = gateway.access(id);
        assert_eq!(line["endpoint"], address, "{line}");
        assert_eq!(
            (&line["status"], &line["model"], &line["priority"]),
            (&200.into(), &"customer-support".into(), &1.into()),
            "{line}"
        );
        assert!(
            line["target_model"]
                .as_str()
                .expect("named")
                .starts_with("llama-3-8b-customer-v"),
            "{line}"
        );
        assert_eq!(
            (&line["pool"], &line["stream"], &line["ended"]),
            (
                &"ai-workloads/llama-pool".into(),
                &streams.into(),
                &"complete".into()
            ),
            "{line}"
        );
        assert_eq!(
            (&line["path"], &line["method"]),
            (&CHAT.into(), &"POST".into()),
            "{line}"
        );
        if streams {
            assert_eq!(
                (&line["completion_tokens"], &line["finish"]),
                (&9.into(), &"length".into()),
                "{line}"
            );
            assert!(
                line["ttft_ms"].as_f64().expect("measured") > 0.0
                    && line["duration_ms"].as_f64() >= line["ttft_ms"].as_f64(),
                "{line}"
            );
        }
        assert!(
            line["prompt_tokens"].as_u64().expect("counted") > 0,
            "{line}"
        );
    }
    let wrong = gateway.access("wrong");
    assert_eq!(
        (&wrong["status"], &wrong["error"], wrong.get("endpoint")),
        (&400.into(), &"invalid_json".into(), None),
        "{wrong}"
    );
    let unknown = gateway.access("unknown");
    assert_eq!(
        (&unknown["status"], &unknown["priority"]),
        (&404.into(), &(-1).into()),
        "{unknown}"
    );
    let seen = [
        gateway.log(),
        gateway.metrics(),
        get(gateway.admin, "/decisions").text(),
        get(gateway.admin, "/status").text(),
    ];
    for secret in [SECRET_PROMPT, SECRET_KEY, SECRET_QUERY] {
        assert!(
            seen.iter().all(|text| !text.contains(secret)),
            "{secret} is told"
        );
    }
}

#[test]
fn metrics_have_the_names_that_dashboards_read_in_both_expositions() {
    let (_sim, _folder, gateway) = busy();
    let page = get(gateway.admin, "/metrics");
    assert_eq!(
        page.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let open = send(
        gateway.admin,
        "GET",
        "/metrics",
        &[("accept", "application/openmetrics-text; version=1.0.0")],
        "",
    );
    assert_eq!(
        open.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(open.text().ends_with("# EOF\n") && !page.text().contains("# EOF"));
    let names = [
        "inference_objective_request_total",
        "inference_objective_request_error_total",
        "inference_objective_request_duration_seconds_count",
        "inference_objective_request_sizes_count",
        "inference_objective_response_sizes_count",
        "inference_objective_input_tokens_count",
        "inference_objective_output_tokens_count",
        "inference_objective_running_requests",
        "inference_pool_average_kv_cache_utilization",
        "inference_pool_average_queue_size",
        "inference_pool_per_pod_queue_size",
        "inference_pool_ready_pods",
        "gen_ai_server_time_to_first_token_seconds_count",
        "gen_ai_server_time_per_output_token_seconds_count",
        "gen_ai_server_request_duration_seconds_count",
        "gen_ai_client_token_usage_count",
        "pointsman_config_reload_failures_total",
        "pointsman_config_last_reload_successful",
    ];
    for text in [page.text(), open.text()] {
        for name in names {
            let found = text.lines().any(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            });
            assert!(found, "{name} is missing");
        }
    }
    let of_model = [r#"model_name="customer-support""#];
    assert_eq!(
        gateway.metric("inference_objective_request_total", &of_model),
        Some(2.0)
    );
    assert_eq!(
        gateway.metric("inference_objective_running_requests", &of_model),
        Some(0.0)
    );
    assert_eq!(
        gateway.metric("inference_pool_ready_pods", &["llama-pool"]),
        Some(1.0)
    );
    assert_eq!(
        gateway
            .metric(
                "gen_ai_client_token_usage_sum",
                &[r#"gen_ai_token_type="output""#]
            )
            .map(|sum| sum >= 9.0),
        Some(true)
    );
}

#[test]
fn series_of_a_server_that_left_are_gone() {
    let servers = [Server::named("a", &[]), Server::named("b", &[])];
    let labels = "app: llama-server, version: v1";
    let both = slice("ai-workloads", "stays", labels, servers[0].address)
        + &slice("ai-workloads", "leaves", labels, servers[1].address);
    let folder = Folder::new(&[("objects.yaml", THE_TWO_OBJECTS), ("slices.yaml", &both)]);
    let gateway = Pointsman::files(folder.path(), &["--policy", "round-robin"]);
    gateway.wait_ready(2);
    for _ in 0..4 {
        post(gateway.data, CHAT, &chat("customer-support"));
    }
    assert_eq!(servers.each_ref().map(Server::count), [2, 2]);
    let [stays, leaves] = servers
        .each_ref()
        .map(|server| format!("\"{}\"", server.address));
    eventually("both are told", || {
        let page = gateway.metrics();
        (page.contains(&stays) && page.contains(&leaves)).then_some(())
    });
    folder.write(
        "slices.yaml",
        &slice("ai-workloads", "stays", labels, servers[0].address),
    );
    gateway.wait_ready(1);
    eventually("its series go", || {
        (!gateway.metrics().contains(&leaves)).then_some(())
    });
    assert!(gateway.metrics().contains(&stays));
}

#[test]
fn the_admin_port_answers_and_the_data_port_does_not_know_it() {
    let server = Server::start(&[], |asked| {
        Answer::json(404, format!("the server's {}", asked.target))
    });
    let gateway = Pointsman::urls(&[server.address], &[]);
    gateway.wait_ready(1);
    assert_eq!(get(gateway.admin, "/healthz").status, 200);
    let ready = gateway.readyz();
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()));
    let page = get(gateway.admin, "/");
    assert!(
        page.header("content-type").starts_with("text/html") && page.text().contains("Pointsman")
    );
    assert_eq!(get(gateway.admin, "/other").status, 404);
    assert_eq!(post(gateway.admin, "/metrics", "").status, 405);
    assert_eq!(
        get(gateway.data, "/decisions").text(),
        "the server's /decisions"
    );
}
