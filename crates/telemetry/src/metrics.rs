//! The one object that all metrics live in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::families::{self as f, Counters, FloatGauge, Labels};
use crate::flow::Flow;
use crate::owners::Owners;
use crate::pickers::Pickers;
use crate::pools::{PoolSnapshot, Pools};
use crate::record::ExchangeRecord;
use crate::requests::Requests;
use crate::sharing::{SharedEvents, Sharing};
use crate::streams::{BodyRouted, Stream, Streams};
use crate::text::from_openmetrics;

/// Which vocabularies are written besides `pointsman_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// `inference_objective_*`, `inference_pool_*`, `inference_extension_*`.
    pub gaie: bool,
    /// `llm_d_epp_*`.
    pub llmd: bool,
    /// `gen_ai_*`.
    pub otel: bool,
    /// `llm_d_epp_extproc_*` and `bbr_*`: for a process that serves external processing.
    pub extproc: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            gaie: true,
            llmd: true,
            otel: true,
            extproc: false,
        }
    }
}

/// Whose connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionSide {
    /// A client's to us.
    Client,
    /// Ours to a server.
    Server,
}

type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metric families of a process.
pub struct Metrics {
    registry: Registry,
    requests: Requests,
    pools: Pools,
    pickers: Pickers,
    flow: Flow,
    decisions: Vec<Decisions>,
    shed: Counters,
    scrape_failures: Counters,
    mirrored: Counters,
    rewrites: Vec<Counters>,
    reload_failures: Counter,
    reload_ok: FloatGauge,
    connections: [Arc<[FloatGauge]>; 2],
    sharing: Sharing,
    streams: Option<Streams>,
    owners: Arc<Owners>,
    hooks: Mutex<Vec<Hook>>,
}

/// How long deciding took, and whether a server was found.
#[derive(Debug)]
struct Decisions {
    duration: Histogram,
    success: Counter,
    failure: Counter,
    hit_ratio: Histogram,
}

impl Decisions {
    fn new(r: &mut Registry, prefix: &str) -> Self {
        let duration = Histogram::new(f::DECISION.iter().copied());
        let help = "Time a decision took, waiting left out";
        r.register(
            format!("{prefix}_scheduler_e2e_duration_seconds"),
            help,
            duration.clone(),
        );
        let hit_ratio = Histogram::new(f::RATIO.iter().copied());
        let help = "Share of the prompt predicted to be cached on the picked server";
        r.register(
            format!("{prefix}_prefix_indexer_hit_ratio"),
            help,
            hit_ratio.clone(),
        );
        let attempts = f::counters(
            r,
            format!("{prefix}_scheduler_attempts"),
            "Decisions by result",
        );
        let by_status = |status: &str| f::counter(&attempts, &vec![("status", status.into())]);
        Self {
            duration,
            success: by_status("success"),
            failure: by_status("failure"),
            hit_ratio,
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All vocabularies.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_names(Names::default())
    }

    /// Chosen vocabularies.
    #[must_use]
    pub fn with_names(names: Names) -> Arc<Self> {
        let mut registry = Registry::default();
        let r = &mut registry;
        let owners = Arc::new(Owners::default());
        let prefixes = [
            ("inference_extension", names.gaie),
            ("llm_d_epp", names.llmd),
        ];
        let prefixes: Vec<&str> = prefixes
            .into_iter()
            .filter_map(|(name, on)| on.then_some(name))
            .collect();
        let connections = f::gauges(r, "pointsman_connections", "Open connections");
        let side = |side: &str| Arc::from([f::gauge(&connections, &vec![("side", side.into())])]);
        build_info(r, &prefixes);
        let reload_failures = Counter::default();
        let help = "Configurations that did not load";
        r.register(
            "pointsman_config_reload_failures",
            help,
            reload_failures.clone(),
        );
        let reload_ok = FloatGauge::default();
        reload_ok.set(1.0);
        r.register(
            "pointsman_config_last_reload_successful",
            "1: the last reload succeeded",
            reload_ok.clone(),
        );
        let metrics = Self {
            requests: Requests::new(r, names, owners.clone()),
            pools: Pools::new(r, names, owners.clone()),
            pickers: Pickers::new(r),
            flow: Flow::new(r),
            decisions: prefixes
                .iter()
                .map(|prefix| Decisions::new(r, prefix))
                .collect(),
            shed: f::counters(
                r,
                "pointsman_shed",
                "Requests turned away by the picker, by reason",
            ),
            scrape_failures: f::counters(
                r,
                "pointsman_scrape_failures",
                "Metric pages that could not be read",
            ),
            mirrored: f::counters(
                r,
                "pointsman_mirrored_requests",
                "Copies of requests for a mirror, by what came of them",
            ),
            rewrites: prefixes
                .iter()
                .map(|prefix| {
                    f::counters(
                        r,
                        format!("{prefix}_model_rewrite_decisions"),
                        "Model names rewritten",
                    )
                })
                .collect(),
            reload_failures,
            reload_ok,
            connections: [side("client"), side("server")],
            sharing: Sharing::new(r),
            streams: names.extproc.then(|| Streams::new(r)),
            owners,
            hooks: Mutex::default(),
            registry,
        };
        Arc::new(metrics)
    }

    /// Adds a finished exchange to all request families.
    pub fn record(&self, r: &ExchangeRecord<'_>) {
        self.requests.record(r);
    }

    /// A request for `model` is in progress until the guard is dropped.
    #[must_use]
    pub fn running(&self, model: &str) -> Open {
        Open::new(self.requests.running(model))
    }

    /// Makes the request counters of a configured model exist before its first request.
    pub fn expect_model(&self, model: &str, target: &str) {
        self.requests.expect_model(model, target);
    }

    /// A decision was made: how long it took (waiting left out), and the share of the prompt predicted to be cached if
    /// a server was found.
    pub fn decided(&self, took: Duration, hit_ratio: Option<f64>) {
        for decisions in &self.decisions {
            decisions.duration.observe(took.as_secs_f64());
            match hit_ratio {
                Some(ratio) => {
                    decisions.success.inc();
                    decisions.hit_ratio.observe(ratio);
                }
                None => {
                    decisions.failure.inc();
                }
            }
        }
    }

    /// The picker turned a request away.
    pub fn shed(&self, pool: &str, reason: &'static str) {
        self.count_for(
            &self.shed,
            pool,
            "",
            vec![("pool", pool.into()), ("reason", reason.into())],
        );
    }

    /// A request left the queue of `pool`: for a server (`dispatched`), or refused with this code.
    pub fn waited(&self, pool: &Arc<str>, priority: i32, outcome: &'static str, wait: Duration) {
        self.flow
            .waited(pool, priority, outcome, wait, &self.owners);
    }

    /// A running request of `pool` was ended for others.
    pub fn evicted(&self, pool: &Arc<str>, reason: &'static str) {
        self.flow.evicted(pool, reason, &self.owners);
    }

    /// A picker outside was asked: what came of it, and how long it took.
    pub fn picker_asked(&self, pool: &str, outcome: &'static str, took: Duration) {
        self.pickers.asked(pool, outcome, took, &self.owners);
    }

    /// A picker outside failed, before or after its pick.
    pub fn picker_failed(&self, pool: &str, reason: &'static str) {
        self.pickers.failed(pool, reason, &self.owners);
    }

    /// A picker outside named different servers in header and metadata.
    pub fn picker_mismatched(&self, pool: &str) {
        self.pickers.mismatched(pool, &self.owners);
    }

    /// A picker outside asked for header changes that were not made.
    pub fn picker_ignored(&self, pool: &str, count: u64) {
        self.pickers.ignored(pool, count, &self.owners);
    }

    /// A copy of a request for the mirror `pool` came to its end.
    pub fn mirrored(&self, pool: &str, outcome: &'static str) {
        let labels = vec![("pool", pool.into()), ("outcome", outcome.into())];
        self.count_for(&self.mirrored, pool, "", labels);
    }

    /// A server's metric page could not be fetched or read.
    pub fn scrape_failed(&self, pool: &str, endpoint: &str) {
        let labels = vec![("pool", pool.into()), ("endpoint", endpoint.into())];
        self.count_for(&self.scrape_failures, pool, endpoint, labels);
    }

    /// A rewrite named `rewrite` chose `target` for `model`.
    pub fn rewritten(&self, rewrite: &str, model: &str, target: &str) {
        let labels = vec![
            ("model_rewrite_name", rewrite.into()),
            ("model_name", model.into()),
            ("target_model", target.into()),
        ];
        for family in &self.rewrites {
            family.get_or_create(&labels).inc();
        }
    }

    /// A stream of a proxy is open until the guard is dropped.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(self.streams.clone())
    }

    /// A body-based router has looked at a body.
    pub fn body_routed(&self, outcome: BodyRouted) {
        if let Some(streams) = &self.streams {
            streams.routed(outcome);
        }
    }

    /// A sibling is told what this process charges until the guard is dropped.
    #[must_use]
    pub fn sibling(&self) -> Open {
        Open::new(self.sharing.siblings.clone())
    }

    /// Events that replicas tell each other.
    pub fn shared(&self, what: SharedEvents, events: u64) {
        self.sharing.count(what, events);
    }

    /// A configuration was loaded, or was not.
    pub fn config_reloaded(&self, ok: bool) {
        self.reload_ok.set(f64::from(u8::from(ok)));
        if !ok {
            self.reload_failures.inc();
        }
    }

    /// A connection is open until the guard is dropped.
    #[must_use]
    pub fn connection(&self, side: ConnectionSide) -> Open {
        Open::new(self.connections[side as usize].clone())
    }

    /// The present state of every pool. Series of pools and servers that are not in it are removed.
    pub fn set_pools(&self, pools: &[PoolSnapshot]) {
        if self.pools.set(pools) {
            self.requests.forget_handles();
        }
    }

    /// Calls `hook` before each page is written; it brings gauges up to date.
    pub fn before_encode(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        self.hooks.lock().push(Box::new(hook));
    }

    /// The page in OpenMetrics 1.0 (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    #[must_use]
    pub fn encode_openmetrics(&self) -> String {
        for hook in self.hooks.lock().iter() {
            hook(self);
        }
        let mut page = String::with_capacity(64 << 10);
        match text::encode(&mut page, &self.registry) {
            Ok(()) => page,
            // Writing to a string fails only if a metric's own encoding does; an unfinished page must not be read.
            Err(fmt::Error) => String::from("# EOF\n"),
        }
    }

    /// The page in the text format (`text/plain; version=0.0.4; charset=utf-8`).
    #[must_use]
    pub fn encode_text(&self) -> String {
        from_openmetrics(&self.encode_openmetrics())
    }

    fn count_for(&self, family: &Counters, pool: &str, endpoint: &str, labels: Labels) {
        if let Some(known) = family.get(&labels) {
            known.inc();
            return;
        }
        family.get_or_create(&labels).inc();
        let family = family.clone();
        self.owners.keep(&pool.into(), &endpoint.into(), move || {
            family.remove(&labels)
        });
    }
}

fn build_info(r: &mut Registry, prefixes: &[&str]) {
    let version = env!("CARGO_PKG_VERSION");
    let own = f::gauges(r, "pointsman_build_info", "1, with the version as label");
    own.get_or_create(&vec![("version", version.into())])
        .set(1.0);
    for prefix in prefixes {
        let info = f::gauges(r, format!("{prefix}_info"), "1, with the build as labels");
        info.get_or_create(&vec![("commit", "".into()), ("build_ref", version.into())])
            .set(1.0);
    }
}

/// Counts one in some gauges while it lives.
#[derive(Debug)]
pub struct Open(Arc<[FloatGauge]>);

impl Open {
    fn new(gauges: Arc<[FloatGauge]>) -> Self {
        for gauge in gauges.iter() {
            gauge.inc();
        }
        Self(gauges)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for gauge in self.0.iter() {
            gauge.dec();
        }
    }
}
