//! Request families of our own.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::families::{self as f, Counters, Histograms, owned, owned_histogram};
use crate::owners::Owners;
use crate::{Ended, ExchangeRecord};

/// What only this program counts.
#[derive(Debug)]
pub(super) struct OwnFamilies {
    requests: Counters,
    errors: Counters,
    retries: Counters,
    seen_ttft: Histograms,
    predicted_ttft: Histograms,
    ttft_ratio: Histograms,
    prefix_tokens: Counters,
}

impl OwnFamilies {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            requests: f::counters(
                r,
                "pointsman_requests",
                "Finished exchanges by server, status and how they ended",
            ),
            errors: f::counters(r, "pointsman_errors", "Failed exchanges by error code"),
            retries: f::counters(r, "pointsman_retries", "Attempts after the first"),
            seen_ttft: f::histograms(
                r,
                "pointsman_ttft_seconds",
                "Time to first token where it was predicted",
                f::LATENCY,
            ),
            predicted_ttft: f::histograms(
                r,
                "pointsman_predicted_ttft_seconds",
                "Time to first token as predicted when picking",
                f::LATENCY,
            ),
            ttft_ratio: f::histograms(
                r,
                "pointsman_ttft_seen_to_predicted_ratio",
                "Time from pick to first token as seen, by what was predicted: 1 is a perfect prediction",
                f::CALIBRATION,
            ),
            prefix_tokens: f::counters(
                r,
                "pointsman_prompt_tokens",
                "Prompt tokens: all, predicted and reported as cached, of requests whose server reports them",
            ),
        }
    }

    pub(super) fn errors(&self, pool: &Arc<str>, code: &'static str, owners: &Owners) -> Counter {
        owned(
            &self.errors,
            vec![("pool", pool.clone()), ("code", code.into())],
            pool,
            &Arc::from(""),
            owners,
        )
    }
}

#[derive(Debug)]
pub(super) struct Own {
    retries: Counter,
    seen_ttft: Histogram,
    predicted_ttft: Histogram,
    ttft_ratio: Histogram,
    prompt_tokens: Counter,
    predicted_tokens: Counter,
    reported_tokens: Counter,
}

impl Own {
    pub(super) fn new(families: &OwnFamilies, pool: &Arc<str>, owners: &Owners) -> Self {
        let by_pool = || vec![("pool", pool.clone())];
        let nobody = Arc::from("");
        let tokens = |kind: &str| {
            let labels = vec![("pool", pool.clone()), ("kind", kind.into())];
            owned(&families.prefix_tokens, labels, pool, &nobody, owners)
        };
        Self {
            retries: owned(&families.retries, by_pool(), pool, &nobody, owners),
            seen_ttft: owned_histogram(&families.seen_ttft, by_pool(), pool, owners),
            predicted_ttft: owned_histogram(&families.predicted_ttft, by_pool(), pool, owners),
            ttft_ratio: owned_histogram(&families.ttft_ratio, by_pool(), pool, owners),
            prompt_tokens: tokens("all"),
            predicted_tokens: tokens("predicted_cached"),
            reported_tokens: tokens("reported_cached"),
        }
    }

    pub(super) fn record(&self, r: &ExchangeRecord<'_>) {
        self.retries.inc_by(u64::from(r.attempts.saturating_sub(1)));
        if let (Some(predicted), Some(seen)) = (r.predicted_ttft, r.ttft) {
            self.predicted_ttft.observe(predicted);
            self.seen_ttft.observe(seen.as_secs_f64());
            if predicted > 0.0 {
                let seen = seen.saturating_sub(r.queued);
                self.ttft_ratio.observe(seen.as_secs_f64() / predicted);
            }
        }
        if let Some((usage, cached)) = r.usage.and_then(|usage| Some((usage, usage.cached?))) {
            self.prompt_tokens.inc_by(u64::from(usage.prompt));
            self.predicted_tokens
                .inc_by(u64::from(r.hit_tokens_predicted));
            self.reported_tokens.inc_by(u64::from(cached));
        }
    }
}

/// The request counters of one server. There are few pairs of status and ending, so a list serves.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) pool: Arc<str>,
    pub(super) endpoint: Arc<str>,
    pub(super) counters: Mutex<Vec<(u16, Ended, Counter)>>,
    pub(super) owners: Arc<Owners>,
}

impl Server {
    pub(super) fn count(&self, r: &ExchangeRecord<'_>, families: &OwnFamilies) {
        let mut counters = self.counters.lock();
        if let Some((_, _, counter)) = counters
            .iter()
            .find(|(status, ended, _)| (*status, *ended) == (r.status, r.ended))
        {
            counter.inc();
            return;
        }
        let labels = vec![
            ("pool", self.pool.clone()),
            ("endpoint", self.endpoint.clone()),
            ("status", r.status.to_string().into()),
            ("ended", r.ended.as_str().into()),
        ];
        let counter = owned(
            &families.requests,
            labels,
            &self.pool,
            &self.endpoint,
            &self.owners,
        );
        counter.inc();
        counters.push((r.status, r.ended, counter));
    }
}
