//! Metrics of endpoint pickers outside: who was asked, how long it took, what came of it.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use crate::families::{self as f, Counters, Histograms, owned, owned_histogram};
use crate::owners::Owners;

/// Families of pickers.
#[derive(Debug)]
pub(crate) struct Pickers {
    requests: Counters,
    duration: Histograms,
    failures: Counters,
    mismatches: Counters,
    ignored: Counters,
}

impl Pickers {
    pub(crate) fn new(r: &mut Registry) -> Self {
        Self {
            requests: f::counters(
                r,
                "pointsman_picker_requests",
                "Requests put to an endpoint picker outside, by what came of it",
            ),
            duration: f::histograms(
                r,
                "pointsman_picker_duration_seconds",
                "Time an endpoint picker outside took to decide",
                f::QUEUE,
            ),
            failures: f::counters(
                r,
                "pointsman_picker_failures",
                "Failures of endpoint pickers outside, by reason",
            ),
            mismatches: f::counters(
                r,
                "pointsman_picker_mismatches",
                "Picks whose header and metadata named different servers",
            ),
            ignored: f::counters(
                r,
                "pointsman_picker_ignored_mutations",
                "Header changes of pickers that are not theirs to make",
            ),
        }
    }

    pub(crate) fn asked(&self, pool: &str, outcome: &'static str, took: Duration, owners: &Owners) {
        let pool: Arc<str> = pool.into();
        let labels = vec![("pool", pool.clone()), ("outcome", outcome.into())];
        owned(&self.requests, labels, &pool, &Arc::from(""), owners).inc();
        let labels = vec![("pool", pool.clone())];
        owned_histogram(&self.duration, labels, &pool, owners).observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, pool: &str, reason: &'static str, owners: &Owners) {
        let labels = vec![("pool", pool.into()), ("reason", reason.into())];
        owned(&self.failures, labels, &pool.into(), &Arc::from(""), owners).inc();
    }

    pub(crate) fn mismatched(&self, pool: &str, owners: &Owners) {
        let labels = vec![("pool", pool.into())];
        owned(
            &self.mismatches,
            labels,
            &pool.into(),
            &Arc::from(""),
            owners,
        )
        .inc();
    }

    pub(crate) fn ignored(&self, pool: &str, count: u64, owners: &Owners) {
        let labels = vec![("pool", pool.into())];
        owned(&self.ignored, labels, &pool.into(), &Arc::from(""), owners).inc_by(count);
    }
}
