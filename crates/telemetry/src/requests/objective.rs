//! The request families of the inference extension and of llm-d.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::ExchangeRecord;
use crate::families::{
    self as f, Counters, Gauges, Histograms, Labels, counter, histogram, owned_histogram, with,
};
use crate::owners::Owners;

/// The request families of the inference extension or of llm-d, which differ in names, bounds and labels.
#[derive(Debug)]
pub(super) struct ObjectiveFamilies {
    /// llm-d labels by flow and priority, and its time to first token by streaming.
    llmd: bool,
    pub(super) requests: Counters,
    errors: Counters,
    duration: Histograms,
    normalized: Histograms,
    ttft: Histograms,
    tpot: Histograms,
    predicted_ttft: Histograms,
    request_bytes: Histograms,
    response_bytes: Histograms,
    input: Histograms,
    output: Histograms,
    cached: Histograms,
    queued: Histograms,
    pub(super) running: Gauges,
}

impl ObjectiveFamilies {
    pub(super) fn gaie(r: &mut Registry) -> Self {
        let name = |rest: &str| format!("inference_objective_{rest}");
        Self {
            llmd: false,
            requests: f::counters(r, name("request"), "Requests"),
            errors: f::counters(r, name("request_error"), "Requests that failed"),
            duration: f::histograms(
                r,
                name("request_duration_seconds"),
                "Whole requests",
                f::LATENCY,
            ),
            normalized: f::histograms(
                r,
                name("normalized_time_per_output_token_seconds"),
                "Request duration by output tokens",
                f::NORMALIZED,
            ),
            ttft: f::histograms(
                r,
                name("request_ttft_seconds"),
                "Time to first token",
                f::LATENCY,
            ),
            tpot: f::histograms(
                r,
                name("request_tpot_seconds"),
                "Time per output token",
                f::PER_TOKEN,
            ),
            predicted_ttft: f::histograms(
                r,
                name("request_predicted_ttft_seconds"),
                "Time to first token as predicted when picking",
                f::LATENCY,
            ),
            request_bytes: f::histograms(r, name("request_sizes"), "Request body bytes", f::SIZES),
            response_bytes: f::histograms(
                r,
                name("response_sizes"),
                "Response body bytes",
                f::SIZES,
            ),
            input: f::histograms(r, name("input_tokens"), "Prompt tokens", f::PROMPT_TOKENS),
            output: f::histograms(
                r,
                name("output_tokens"),
                "Generated tokens",
                f::OUTPUT_TOKENS,
            ),
            cached: f::histograms(
                r,
                name("prompt_cached_tokens"),
                "Prompt tokens from the server's cache",
                f::PROMPT_TOKENS,
            ),
            queued: f::histograms(
                r,
                "inference_extension_flow_control_request_queue_duration_seconds",
                "Time in the queue",
                f::QUEUE,
            ),
            running: f::gauges(r, name("running_requests"), "Requests in progress"),
        }
    }

    pub(super) fn llmd(r: &mut Registry) -> Self {
        let name = |rest: &str| format!("llm_d_epp_{rest}");
        Self {
            llmd: true,
            requests: f::counters(r, name("request"), "Requests"),
            errors: f::counters(r, name("request_error"), "Requests that failed"),
            duration: f::histograms(
                r,
                name("request_duration_seconds"),
                "Whole requests",
                f::LATENCY,
            ),
            normalized: f::histograms(
                r,
                name("request_ntpot_seconds"),
                "Request duration by output tokens",
                f::NORMALIZED,
            ),
            ttft: f::histograms(
                r,
                name("request_ttft_seconds"),
                "Time to first token",
                f::FIRST_TOKEN,
            ),
            tpot: f::histograms(
                r,
                name("request_streaming_tpot_seconds"),
                "Time per output token of streams",
                f::BETWEEN_TOKENS,
            ),
            predicted_ttft: f::histograms(
                r,
                name("request_predicted_ttft_seconds"),
                "Time to first token as predicted when picking",
                f::FIRST_TOKEN,
            ),
            request_bytes: f::histograms(
                r,
                name("request_size_bytes"),
                "Request body bytes",
                f::SIZES,
            ),
            response_bytes: f::histograms(
                r,
                name("response_size_bytes"),
                "Response body bytes",
                f::SMALL_SIZES,
            ),
            input: f::histograms(
                r,
                name("request_input_tokens"),
                "Prompt tokens",
                f::PROMPT_TOKENS,
            ),
            output: f::histograms(
                r,
                name("request_output_tokens"),
                "Generated tokens",
                f::OUTPUT_TOKENS,
            ),
            cached: f::histograms(
                r,
                name("request_cached_tokens"),
                "Prompt tokens from the server's cache",
                f::PROMPT_TOKENS,
            ),
            queued: f::histograms(
                r,
                name("flow_control_request_queue_duration_seconds"),
                "Time in the queue",
                f::QUEUE,
            ),
            running: f::gauges(r, name("request_running"), "Requests in progress"),
        }
    }

    pub(super) fn labels(
        &self,
        model: &Arc<str>,
        target: &Arc<str>,
        fairness: &Arc<str>,
        priority: i32,
    ) -> Labels {
        let mut labels = vec![
            ("model_name", model.clone()),
            ("target_model_name", target.clone()),
        ];
        if self.llmd {
            labels.push(("fairness_id", fairness.clone()));
            labels.push(("priority", priority.to_string().into()));
        }
        labels
    }

    /// Running requests of llm-d carry the labels of its other request families; what is not known yet when a request
    /// starts stays empty.
    pub(super) fn running_labels(&self, model: &Arc<str>) -> Labels {
        if self.llmd {
            self.labels(model, model, &Arc::from(""), 0)
        } else {
            vec![("model_name", model.clone())]
        }
    }
}

/// The handles of one combination in [`ObjectiveFamilies`]. Histograms are made with the first success: a client that
/// asks for models nobody serves leaves counters behind, which are cheap, and no buckets.
#[derive(Debug)]
pub(super) struct Objective {
    labels: Labels,
    pool: Arc<str>,
    stream: bool,
    requests: Counter,
    served: OnceLock<Served>,
    /// By outcome, in the order of [`OUTCOMES`].
    queued: [OnceLock<Histogram>; OUTCOMES.len()],
}

/// What the queue may come to, in the words of the inference extension.
const OUTCOMES: [&str; 4] = [
    "Dispatched",
    "RejectedCapacity",
    "RejectedNoEndpoints",
    "EvictedTTL",
];

fn outcome(r: &ExchangeRecord<'_>) -> usize {
    match r.error_code {
        _ if !r.endpoint.is_empty() => 0,
        Some("no_ready_endpoint" | "no_candidate") => 2,
        Some("queue_ttl") => 3,
        _ => 1,
    }
}

/// The handles of requests that were served.
#[derive(Debug)]
struct Served {
    duration: Histogram,
    normalized: Histogram,
    ttft: Histogram,
    tpot: Histogram,
    predicted_ttft: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    input: Histogram,
    output: Histogram,
    cached: Histogram,
}

impl Served {
    fn new(families: &ObjectiveFamilies, labels: &Labels, stream: bool) -> Self {
        let streaming = if stream { "true" } else { "false" };
        let ttft_labels = if families.llmd {
            with(labels, "streaming", streaming)
        } else {
            labels.clone()
        };
        Self {
            duration: histogram(&families.duration, labels),
            normalized: histogram(&families.normalized, labels),
            ttft: histogram(&families.ttft, &ttft_labels),
            tpot: histogram(&families.tpot, labels),
            predicted_ttft: histogram(&families.predicted_ttft, labels),
            request_bytes: histogram(&families.request_bytes, labels),
            response_bytes: histogram(&families.response_bytes, labels),
            input: histogram(&families.input, labels),
            output: histogram(&families.output, labels),
            cached: histogram(&families.cached, labels),
        }
    }
}

impl Objective {
    pub(super) fn new(
        families: &ObjectiveFamilies,
        labels: Labels,
        stream: bool,
        pool: &Arc<str>,
    ) -> Self {
        Self {
            requests: counter(&families.requests, &labels),
            labels,
            pool: pool.clone(),
            stream,
            served: OnceLock::new(),
            queued: Default::default(),
        }
    }

    pub(super) fn record(
        &self,
        r: &ExchangeRecord<'_>,
        failure: Option<&'static str>,
        families: &ObjectiveFamilies,
        owners: &Owners,
    ) {
        self.requests.inc();
        if !r.queued.is_zero() {
            self.queued(outcome(r), families, owners)
                .observe(r.queued.as_secs_f64());
        }
        if let Some(code) = failure {
            families
                .errors
                .get_or_create(&with(&self.labels, "error_code", code))
                .inc();
            return;
        }
        let served = self
            .served
            .get_or_init(|| Served::new(families, &self.labels, self.stream));
        let seconds = r.duration.as_secs_f64();
        served.duration.observe(seconds);
        served.request_bytes.observe(r.request_bytes as f64);
        served.response_bytes.observe(r.response_bytes as f64);
        observe(&served.ttft, r.ttft.map(|t| t.as_secs_f64()));
        observe(&served.predicted_ttft, r.predicted_ttft);
        if r.stream || !families.llmd {
            observe(&served.tpot, r.time_per_output_token());
        }
        let Some(usage) = r.usage else { return };
        served.input.observe(f64::from(usage.prompt));
        served.output.observe(f64::from(usage.completion));
        observe(&served.cached, usage.cached.map(f64::from));
        if usage.completion > 0 {
            served
                .normalized
                .observe(seconds / f64::from(usage.completion));
        }
    }

    fn queued(&self, outcome: usize, families: &ObjectiveFamilies, owners: &Owners) -> &Histogram {
        self.queued[outcome].get_or_init(|| {
            let outcome = OUTCOMES[outcome];
            let labels = with(
                &with(&self.labels, "outcome", outcome),
                "inference_pool",
                &self.pool,
            );
            owned_histogram(&families.queued, labels, &self.pool, owners)
        })
    }
}

pub(super) fn observe(histogram: &Histogram, value: Option<f64>) {
    if let Some(value) = value {
        histogram.observe(value);
    }
}
