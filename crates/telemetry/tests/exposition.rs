//! The pages as Prometheus reads them, and the access log.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tables are long"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use telemetry::{
    ConnectionSide, Ended, EndpointSnapshot, ExchangeRecord, Metrics, Names, PoolSnapshot, Usage,
};

fn record() -> ExchangeRecord<'static> {
    ExchangeRecord {
        request_id: "req-1",
        method: "POST",
        path: "/v1/chat/completions",
        host: "a.test",
        route: "default/r",
        pool: "default/p",
        endpoint: "pod-1",
        dialect: "chat_completions",
        model: "chat",
        target_model: "llama-v1",
        status: 200,
        attempts: 2,
        stream: true,
        request_bytes: 100,
        response_bytes: 2000,
        queued: Duration::from_millis(20),
        ttft: Some(Duration::from_millis(500)),
        duration: Duration::from_millis(2500),
        usage: Some(Usage {
            prompt: 1000,
            completion: 21,
            cached: Some(640),
        }),
        hit_tokens_predicted: 512,
        predicted_ttft: Some(0.4),
        ..ExchangeRecord::default()
    }
}

fn snapshot(endpoints: &[&str]) -> PoolSnapshot {
    let endpoint = |name: &&str| EndpointSnapshot {
        name: (*name).into(),
        ready: true,
        in_flight: 3,
        waiting: Some(4),
        running: Some(8),
        kv_usage: Some(0.5),
    };
    PoolSnapshot {
        pool: "default/p".into(),
        name: "p".into(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        queued: vec![(0, 7)],
        queued_bytes: vec![(0, 7000)],
        saturation: 0.75,
        index_blocks: 99,
        saturated: true,
    }
}

/// The value of the sample that starts with `series`, labels included.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

fn assert_values(page: &str, table: &[(&str, f64)]) {
    for (series, expected) in table {
        let found = value(page, series);
        let near = found.is_some_and(|found| (found - expected).abs() < 1e-9);
        assert!(near, "{series}: {found:?}, expected {expected}\n{page}");
    }
}

#[test]
fn one_exchange_shows_under_every_name() {
    let metrics = Metrics::new();
    metrics.record(&record());
    let pool = "default/p".into();
    metrics.waited(&pool, 0, "dispatched", Duration::from_millis(20));
    metrics.evicted(&pool, "evicted");
    let page = metrics.encode_text();
    let m = "model_name=\"chat\",target_model_name=\"llama-v1\"";
    let r = format!("{m},fairness_id=\"\",priority=\"0\"");
    let g = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_original_model=\"chat\",\
             gen_ai_request_model=\"llama-v1\",gen_ai_response_model=\"llama-v1\"";
    assert_values(
        &page,
        &[
            (&format!("inference_objective_request_total{{{m}}}"), 1.0),
            (
                &format!("inference_objective_request_duration_seconds_sum{{{m}}}"),
                2.5,
            ),
            (
                &format!("inference_objective_request_duration_seconds_bucket{{le=\"3.0\",{m}}}"),
                1.0,
            ),
            (
                &format!("inference_objective_request_duration_seconds_bucket{{le=\"2.0\",{m}}}"),
                0.0,
            ),
            (
                &format!("inference_objective_request_ttft_seconds_sum{{{m}}}"),
                0.5,
            ),
            (
                &format!("inference_objective_request_tpot_seconds_sum{{{m}}}"),
                0.1,
            ),
            (
                &format!("inference_objective_normalized_time_per_output_token_seconds_sum{{{m}}}"),
                2.5 / 21.0,
            ),
            (
                &format!("inference_objective_request_sizes_sum{{{m}}}"),
                100.0,
            ),
            (
                &format!("inference_objective_response_sizes_sum{{{m}}}"),
                2000.0,
            ),
            (
                &format!("inference_objective_input_tokens_sum{{{m}}}"),
                1000.0,
            ),
            (
                &format!("inference_objective_output_tokens_sum{{{m}}}"),
                21.0,
            ),
            (
                &format!("inference_objective_prompt_cached_tokens_sum{{{m}}}"),
                640.0,
            ),
            (&format!("llm_d_epp_request_total{{{r}}}"), 1.0),
            (
                &format!("llm_d_epp_request_ttft_seconds_sum{{{r},streaming=\"true\"}}"),
                0.5,
            ),
            (
                &format!("llm_d_epp_request_cached_tokens_sum{{{r}}}"),
                640.0,
            ),
            (
                &format!("gen_ai_server_time_to_first_token_seconds_sum{{{g}}}"),
                0.5,
            ),
            (
                &format!("gen_ai_server_time_per_output_token_seconds_sum{{{g}}}"),
                0.1,
            ),
            (
                &format!("gen_ai_server_request_duration_seconds_count{{{g},error_type=\"\"}}"),
                1.0,
            ),
            (
                &format!("gen_ai_client_token_usage_sum{{{g},gen_ai_token_type=\"input\"}}"),
                1000.0,
            ),
            (
                &format!("gen_ai_client_token_usage_sum{{{g},gen_ai_token_type=\"output\"}}"),
                21.0,
            ),
            (
                "pointsman_requests_total{pool=\"default/p\",endpoint=\"pod-1\",status=\"200\",ended=\"complete\"}",
                1.0,
            ),
            ("pointsman_retries_total{pool=\"default/p\"}", 1.0),
            (
                "pointsman_queue_wait_seconds_count{pool=\"default/p\",priority=\"0\",outcome=\"dispatched\"}",
                1.0,
            ),
            (
                "pointsman_evicted_total{pool=\"default/p\",reason=\"evicted\"}",
                1.0,
            ),
            // Seen 0.5 s, of which 0.02 s in the queue; predicted 0.4 s.
            (
                "pointsman_ttft_seen_to_predicted_ratio_bucket{le=\"1.1\",pool=\"default/p\"}",
                0.0,
            ),
            (
                "pointsman_ttft_seen_to_predicted_ratio_bucket{le=\"1.25\",pool=\"default/p\"}",
                1.0,
            ),
            (
                "pointsman_predicted_ttft_seconds_sum{pool=\"default/p\"}",
                0.4,
            ),
            ("pointsman_ttft_seconds_sum{pool=\"default/p\"}", 0.5),
            (
                "pointsman_prompt_tokens_total{pool=\"default/p\",kind=\"predicted_cached\"}",
                512.0,
            ),
            (
                "pointsman_prompt_tokens_total{pool=\"default/p\",kind=\"reported_cached\"}",
                640.0,
            ),
        ],
    );
    let outcome = format!("{m},outcome=\"Dispatched\",inference_pool=\"default/p\"");
    assert_values(
        &page,
        &[(
            &format!(
                "inference_extension_flow_control_request_queue_duration_seconds_count{{{outcome}}}"
            ),
            1.0,
        )],
    );
}

#[test]
fn failures_are_counted_and_not_timed() {
    let metrics = Metrics::new();
    let failed = ExchangeRecord {
        status: 429,
        error_code: Some("sheddable_saturated"),
        endpoint: "",
        usage: None,
        ..record()
    };
    metrics.record(&failed);
    metrics.record(&ExchangeRecord {
        ended: Ended::ClientGone,
        status: 200,
        ..record()
    });
    let page = metrics.encode_text();
    let m = "model_name=\"chat\",target_model_name=\"llama-v1\"";
    assert_values(
        &page,
        &[
            (&format!("inference_objective_request_total{{{m}}}"), 2.0),
            (
                &format!(
                    "inference_objective_request_error_total{{{m},error_code=\"sheddable_saturated\"}}"
                ),
                1.0,
            ),
            (
                &format!("inference_objective_request_duration_seconds_count{{{m}}}"),
                1.0,
            ),
            (
                "pointsman_errors_total{pool=\"default/p\",code=\"sheddable_saturated\"}",
                1.0,
            ),
        ],
    );
}

#[test]
fn both_expositions_name_counters_alike() {
    let metrics = Metrics::new();
    metrics.record(&record());
    let (open, text) = (metrics.encode_openmetrics(), metrics.encode_text());
    assert!(open.ends_with("# EOF\n"));
    assert!(!text.contains("# EOF"));
    assert!(open.contains("# TYPE inference_objective_request counter\n"));
    assert!(text.contains("# TYPE inference_objective_request_total counter\n"));
    let samples = |page: &str| {
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(samples(&open), samples(&text));
    // Every sample belongs to the TYPE line before it, and no family is described twice.
    let mut seen = std::collections::HashSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(family.clone()), "{family} twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(&family);
            assert!(
                matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
                "{name} under {family}"
            );
        }
    }
}

#[test]
fn vocabularies_can_be_switched_off() {
    let metrics = Metrics::with_names(Names {
        gaie: false,
        llmd: true,
        otel: false,
        extproc: false,
    });
    metrics.record(&record());
    metrics.set_pools(&[snapshot(&["pod-1"])]);
    let page = metrics.encode_text();
    let off = |line: &str| line.starts_with("inference_") || line.starts_with("gen_ai_");
    assert!(!page.lines().any(off), "{page}");
    assert!(page.contains("llm_d_epp_request_total{"), "{page}");
    assert_values(&page, &[("llm_d_epp_ready_endpoints{name=\"p\"}", 1.0)]);
}

#[test]
fn series_go_with_their_servers_and_pools() {
    let metrics = Metrics::new();
    metrics.record(&record());
    metrics.scrape_failed("default/p", "pod-2");
    metrics.shed("default/p", "queue_full");
    metrics.set_pools(&[snapshot(&["pod-1", "pod-2"])]);
    let page = metrics.encode_text();
    assert_values(
        &page,
        &[
            ("inference_pool_average_queue_size{name=\"p\"}", 4.0),
            (
                "inference_pool_average_kv_cache_utilization{name=\"p\"}",
                0.5,
            ),
            ("inference_pool_ready_pods{name=\"p\"}", 2.0),
            ("inference_extension_prefix_indexer_size", 99.0),
            (
                "llm_d_epp_prefix_indexer_size{plugin_name=\"p\",plugin_type=\"prefix-index\"}",
                99.0,
            ),
            (
                "inference_pool_per_pod_queue_size{name=\"p\",model_server_pod=\"pod-2-rank-0\"}",
                4.0,
            ),
            (
                "llm_d_epp_per_endpoint_queue_size{name=\"p\",model_server_endpoint=\"pod-2\"}",
                4.0,
            ),
            (
                "pointsman_queue_size{pool=\"default/p\",priority=\"0\"}",
                7.0,
            ),
            (
                "pointsman_queue_bytes{pool=\"default/p\",priority=\"0\"}",
                7000.0,
            ),
            ("pointsman_pool_saturation_ratio{pool=\"default/p\"}", 0.75),
            (
                "pointsman_in_flight_requests{pool=\"default/p\",endpoint=\"pod-2\"}",
                3.0,
            ),
        ],
    );
    metrics.set_pools(&[PoolSnapshot {
        queued: Vec::new(),
        ..snapshot(&["pod-1"])
    }]);
    let page = metrics.encode_text();
    assert!(!page.contains("pod-2"), "{page}");
    assert_values(
        &page,
        &[(
            "pointsman_queue_size{pool=\"default/p\",priority=\"0\"}",
            0.0,
        )],
    );
    assert!(page.contains("pointsman_requests_total{pool=\"default/p\",endpoint=\"pod-1\""));
    // A handle from before the pruning must not swallow what comes after it.
    metrics.record(&record());
    let requests = "pointsman_requests_total{pool=\"default/p\",endpoint=\"pod-1\",status=\"200\",ended=\"complete\"}";
    assert_values(&metrics.encode_text(), &[(requests, 2.0)]);
    metrics.set_pools(&[]);
    let page = metrics.encode_text();
    assert!(
        !page.contains("default/p") && !page.contains("name=\"p\""),
        "{page}"
    );
    assert!(
        page.contains("inference_objective_request_total{model_name=\"chat\""),
        "models stay"
    );
}

#[test]
fn names_that_clients_choose_are_bounded() {
    let metrics = Metrics::new();
    let names: Vec<String> = (0..1500).map(|n| format!("model-{n}")).collect();
    for name in &names {
        let unknown = ExchangeRecord {
            status: 404,
            model: name,
            target_model: "",
            ..record()
        };
        metrics.record(&unknown);
    }
    let page = metrics.encode_text();
    assert!(
        !page.contains("inference_objective_request_duration_seconds_bucket"),
        "no buckets for unknown models"
    );
    let series = page
        .lines()
        .filter(|line| line.starts_with("inference_objective_request_total{"))
        .count();
    assert_eq!(series, 1001);
    assert_values(
        &page,
        &[(
            "inference_objective_request_total{model_name=\"other\",target_model_name=\"other\"}",
            500.0,
        )],
    );
}

#[test]
fn guards_and_states() {
    let metrics = Metrics::new();
    let running = metrics.running("chat");
    let connection = metrics.connection(ConnectionSide::Client);
    metrics.expect_model("idle", "idle");
    metrics.config_reloaded(false);
    metrics.decided(Duration::from_micros(50), Some(0.25));
    metrics.decided(Duration::from_micros(50), None);
    let hooked = Arc::new(Mutex::new(0));
    let count = hooked.clone();
    metrics.before_encode(move |_| *count.lock().unwrap() += 1);
    let page = metrics.encode_text();
    assert_values(
        &page,
        &[
            (
                "inference_objective_running_requests{model_name=\"chat\"}",
                1.0,
            ),
            (
                "inference_objective_request_total{model_name=\"idle\",target_model_name=\"idle\"}",
                0.0,
            ),
            ("pointsman_connections{side=\"client\"}", 1.0),
            ("pointsman_connections{side=\"server\"}", 0.0),
            ("pointsman_config_reload_failures_total", 1.0),
            ("pointsman_config_last_reload_successful", 0.0),
            (
                "inference_extension_scheduler_attempts_total{status=\"success\"}",
                1.0,
            ),
            (
                "inference_extension_scheduler_attempts_total{status=\"failure\"}",
                1.0,
            ),
            (
                "inference_extension_scheduler_e2e_duration_seconds_count",
                2.0,
            ),
        ],
    );
    drop((running, connection));
    let page = metrics.encode_text();
    assert_values(
        &page,
        &[
            (
                "inference_objective_running_requests{model_name=\"chat\"}",
                0.0,
            ),
            ("pointsman_connections{side=\"client\"}", 0.0),
        ],
    );
    assert_eq!(*hooked.lock().unwrap(), 2);
}

/// A writer that tests can read.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_access_log_is_one_event() {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || telemetry::access_log(&record()));
    let bytes = buffer.0.lock().unwrap().clone();
    let event: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let fields = &event["fields"];
    assert_eq!(event["target"], "access");
    assert_eq!(fields["request_id"], "req-1");
    assert_eq!(fields["status"], 200);
    assert_eq!(fields["queued_ms"], 20.0);
    assert_eq!(fields["cached_tokens"], 640);
    assert_eq!(fields["ended"], "complete");
    assert!(
        fields.get("error").is_none() && fields.get("client").is_none(),
        "{fields}"
    );
}
