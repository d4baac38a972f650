//! Families of flow control: what waited, how long, what came of it, and who was ended for others.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use crate::families::{self as f, Counters, Histograms, owned, owned_histogram};
use crate::owners::Owners;

#[derive(Debug)]
pub(crate) struct Flow {
    wait: Histograms,
    evicted: Counters,
}

impl Flow {
    pub(crate) fn new(r: &mut Registry) -> Self {
        Self {
            wait: f::histograms(
                r,
                "pointsman_queue_wait_seconds",
                "Time requests waited in the queue, by priority and what came of it",
                f::QUEUE,
            ),
            evicted: f::counters(
                r,
                "pointsman_evicted",
                "Running requests that were ended for others, by reason",
            ),
        }
    }

    pub(crate) fn waited(
        &self,
        pool: &Arc<str>,
        priority: i32,
        outcome: &'static str,
        wait: Duration,
        owners: &Owners,
    ) {
        let labels = vec![
            ("pool", pool.clone()),
            ("priority", priority.to_string().into()),
            ("outcome", outcome.into()),
        ];
        owned_histogram(&self.wait, labels, pool, owners).observe(wait.as_secs_f64());
    }

    pub(crate) fn evicted(&self, pool: &Arc<str>, reason: &'static str, owners: &Owners) {
        let labels = vec![("pool", pool.clone()), ("reason", reason.into())];
        owned(&self.evicted, labels, pool, &Arc::from(""), owners).inc();
    }
}
