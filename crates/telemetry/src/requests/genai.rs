//! OpenTelemetry's families.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Key;
use super::objective::observe;
use crate::ExchangeRecord;
use crate::families::{self as f, Histograms, Labels, histogram, with};

/// OpenTelemetry's families for generative AI, semantic conventions v1.41.
#[derive(Debug)]
pub(super) struct GenAiFamilies {
    server_duration: Histograms,
    client_duration: Histograms,
    first_token: Histograms,
    per_token: Histograms,
    usage: Histograms,
}

impl GenAiFamilies {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            server_duration: f::histograms(
                r,
                "gen_ai_server_request_duration_seconds",
                "Whole requests",
                f::GENAI_DURATION,
            ),
            client_duration: f::histograms(
                r,
                "gen_ai_client_operation_duration_seconds",
                "Whole operations",
                f::GENAI_DURATION,
            ),
            first_token: f::histograms(
                r,
                "gen_ai_server_time_to_first_token_seconds",
                "Time to first token",
                f::GENAI_FIRST_TOKEN,
            ),
            per_token: f::histograms(
                r,
                "gen_ai_server_time_per_output_token_seconds",
                "Time per output token after the first",
                f::GENAI_PER_TOKEN,
            ),
            usage: f::histograms(
                r,
                "gen_ai_client_token_usage",
                "Tokens used",
                f::GENAI_TOKENS,
            ),
        }
    }
}

/// The handles of one combination.
#[derive(Debug)]
pub(super) struct GenAi {
    labels: Labels,
    served: OnceLock<Served>,
}

#[derive(Debug)]
struct Served {
    server_duration: Histogram,
    client_duration: Histogram,
    first_token: Histogram,
    per_token: Histogram,
    input: Histogram,
    output: Histogram,
}

impl Served {
    fn new(families: &GenAiFamilies, labels: &Labels) -> Self {
        let ok = with(labels, "error_type", "");
        Self {
            server_duration: histogram(&families.server_duration, &ok),
            client_duration: histogram(&families.client_duration, &ok),
            first_token: histogram(&families.first_token, labels),
            per_token: histogram(&families.per_token, labels),
            input: histogram(&families.usage, &with(labels, "gen_ai_token_type", "input")),
            output: histogram(
                &families.usage,
                &with(labels, "gen_ai_token_type", "output"),
            ),
        }
    }
}

impl GenAi {
    pub(super) fn new(key: &Key<'_>, model: &Arc<str>, target: &Arc<str>) -> Self {
        let labels: Labels = vec![
            ("gen_ai_operation_name", key.operation.into()),
            ("gen_ai_provider_name", key.provider.into()),
            ("gen_ai_original_model", model.clone()),
            ("gen_ai_request_model", target.clone()),
            ("gen_ai_response_model", target.clone()),
        ];
        Self {
            labels,
            served: OnceLock::new(),
        }
    }

    pub(super) fn record(
        &self,
        r: &ExchangeRecord<'_>,
        failure: Option<&'static str>,
        families: &GenAiFamilies,
    ) {
        let seconds = r.duration.as_secs_f64();
        if let Some(code) = failure {
            // A client's mistake about a model that was never served must not make buckets.
            if r.status >= 500 || self.served.get().is_some() {
                let labels = with(&self.labels, "error_type", code);
                families
                    .server_duration
                    .get_or_create(&labels)
                    .observe(seconds);
                families
                    .client_duration
                    .get_or_create(&labels)
                    .observe(seconds);
            }
            return;
        }
        let served = self
            .served
            .get_or_init(|| Served::new(families, &self.labels));
        served.server_duration.observe(seconds);
        served.client_duration.observe(seconds);
        observe(&served.first_token, r.ttft.map(|t| t.as_secs_f64()));
        observe(&served.per_token, r.time_per_output_token());
        if let Some(usage) = r.usage {
            served.input.observe(f64::from(usage.prompt));
            served.output.observe(f64::from(usage.completion));
        }
    }
}
