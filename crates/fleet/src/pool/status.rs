//! A pool as status pages, metrics and explanations show it.

use std::sync::Arc;

use scheduling::{EndpointView, Health};
use telemetry::{EndpointSnapshot, PoolSnapshot};

use super::Pool;
use crate::{Endpoint, EndpointStatus, RecordedDecision};

impl Pool {
    /// All servers now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let views = self.views();
        views
            .into_iter()
            .map(|(endpoint, view)| status(&endpoint, &view))
            .collect()
    }

    /// The last decisions that were explained, newest first.
    #[must_use]
    pub fn recent_decisions(&self) -> Vec<RecordedDecision> {
        self.ring.list()
    }

    /// The pool for the metrics page.
    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        let stats = self.core.lock().pool.stats();
        let now = self.shared.now();
        let ttl = self.shared.options.scheduling.scrape_ttl;
        let endpoints = self.views().into_iter().map(|(endpoint, view)| {
            let load = endpoint.fresh_load(now, ttl);
            EndpointSnapshot {
                name: endpoint.name.clone(),
                ready: is_ready(&view),
                in_flight: view.in_flight,
                waiting: load.waiting,
                running: load.running,
                kv_usage: load.kv_usage,
            }
        });
        PoolSnapshot {
            pool: self.label.clone(),
            name: self.key.name.as_str().into(),
            endpoints: endpoints.collect(),
            queued: stats.queued_by_priority,
            queued_bytes: stats.queued_bytes,
            saturation: stats.saturation,
            index_blocks: stats.index_blocks,
            saturated: stats.saturated,
        }
    }

    /// The server with the least to do among those that are up and that `may` allows.
    pub(crate) fn idlest(&self, may: impl Fn(&Endpoint) -> bool) -> Option<Arc<Endpoint>> {
        let views = self.views().into_iter();
        let up = views.filter(|(endpoint, view)| is_ready(view) && may(endpoint));
        let work = |view: &EndpointView| (view.pending_seconds, f64::from(view.in_flight));
        let idlest = up.min_by(|(_, a), (_, b)| {
            let ((a, more), (b, other)) = (work(a), work(b));
            a.total_cmp(&b).then(more.total_cmp(&other))
        });
        idlest.map(|(endpoint, _)| endpoint)
    }

    fn views(&self) -> Vec<(Arc<Endpoint>, EndpointView)> {
        let roster = self.roster.load_full();
        let core = self.core.lock();
        let view =
            |endpoint: &Arc<Endpoint>| Some((endpoint.clone(), core.pool.endpoint(endpoint.id)?));
        roster.endpoints().iter().filter_map(view).collect()
    }

    pub(crate) fn view(&self, endpoint: &Endpoint) -> Option<EndpointView> {
        self.core.lock().pool.endpoint(endpoint.id)
    }
}

/// Up and not on its way out.
pub(crate) fn is_ready(view: &EndpointView) -> bool {
    !view.draining && matches!(view.health, Health::Up | Health::Suspect)
}

fn status(endpoint: &Endpoint, view: &EndpointView) -> EndpointStatus {
    let seen = endpoint.seen.lock();
    EndpointStatus {
        name: endpoint.name().to_owned(),
        address: endpoint.address,
        ready: is_ready(view),
        health: view.health.name(),
        draining: view.draining,
        open: view.open,
        in_flight: view.in_flight,
        siblings_in_flight: view.siblings_in_flight,
        decoding: view.decoding,
        pending_tokens: view.pending_tokens,
        waiting: view.waiting,
        running: view.running,
        kv_usage: view.kv_usage,
        kv_capacity_tokens: view.kv_capacity_tokens,
        cached_blocks: view.cached_blocks,
        adapters: view.adapters,
        scrape_age_ms: view
            .scrape_age
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        engine: seen.engine,
        models: seen.models.clone(),
        error: seen.error.clone(),
    }
}
