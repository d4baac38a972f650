//! Gauges of pools and servers, set from one picture of everything that lives.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Names;
use crate::families::{self as f, FloatGauge, Gauges, Labels};
use crate::owners::Owners;

/// A pool at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolSnapshot {
    /// The pool's name as requests are recorded with: `namespace/name`.
    pub pool: Arc<str>,
    /// The pool's bare name, which is what dashboards of the inference extension select by.
    pub name: Arc<str>,
    /// Its servers.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Requests waiting here, by priority.
    pub queued: Vec<(i32, usize)>,
    /// Bytes of their bodies, by priority.
    pub queued_bytes: Vec<(i32, u64)>,
    /// How full it is, 0 to 1.
    pub saturation: f64,
    /// Blocks in the prefix index.
    pub index_blocks: usize,
    /// No server is open.
    pub saturated: bool,
}

/// A server at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// May be chosen.
    pub ready: bool,
    /// Requests we have there.
    pub in_flight: u32,
    /// The engine's own queue.
    pub waiting: Option<u32>,
    /// Requests the engine runs.
    pub running: Option<u32>,
    /// Share of KV cache in use, 0 to 1.
    pub kv_usage: Option<f64>,
}

#[derive(Debug)]
pub(crate) struct Pools {
    gaie: Option<PoolFamilies>,
    llmd: Option<PoolFamilies>,
    queue_size: Gauges,
    queue_bytes: Gauges,
    saturation: Gauges,
    saturated: Gauges,
    index_blocks: Gauges,
    ready: Gauges,
    in_flight: Gauges,
    waiting: Gauges,
    running: Gauges,
    kv_usage: Gauges,
    /// Priorities that ever waited, by pool: one that waits no more is 0, not what it was.
    priorities: Mutex<FxHashMap<Arc<str>, BTreeSet<i32>>>,
    owners: Arc<Owners>,
}

/// The pool families that the inference extension and llm-d share under different names.
#[derive(Debug)]
struct PoolFamilies {
    llmd: bool,
    kv_usage: Gauges,
    queue: Gauges,
    running: Option<Gauges>,
    ready: Gauges,
    endpoint_queue: Gauges,
    flow_queue: Gauges,
    /// The inference extension knows one index for all pools, llm-d one for each.
    index_size: IndexSize,
}

#[derive(Debug)]
enum IndexSize {
    One(FloatGauge),
    Each(Gauges),
}

impl PoolFamilies {
    fn gaie(r: &mut Registry) -> Self {
        let index_size = FloatGauge::default();
        let help = "Blocks in the prefix index";
        r.register(
            "inference_extension_prefix_indexer_size",
            help,
            index_size.clone(),
        );
        Self {
            llmd: false,
            kv_usage: f::gauges(
                r,
                "inference_pool_average_kv_cache_utilization",
                "Average share of KV cache in use over the pool's servers",
            ),
            queue: f::gauges(
                r,
                "inference_pool_average_queue_size",
                "Average queue of the pool's servers",
            ),
            running: None,
            ready: f::gauges(
                r,
                "inference_pool_ready_pods",
                "Servers of the pool that may be chosen",
            ),
            endpoint_queue: f::gauges(
                r,
                "inference_pool_per_pod_queue_size",
                "Queue of one server",
            ),
            flow_queue: f::gauges(
                r,
                "inference_extension_flow_control_queue_size",
                "Requests waiting in flow control",
            ),
            index_size: IndexSize::One(index_size),
        }
    }

    fn llmd(r: &mut Registry) -> Self {
        Self {
            llmd: true,
            kv_usage: f::gauges(
                r,
                "llm_d_epp_average_kv_cache_utilization",
                "Average share of KV cache in use over the pool's servers",
            ),
            queue: f::gauges(
                r,
                "llm_d_epp_average_queue_size",
                "Average queue of the pool's servers",
            ),
            running: Some(f::gauges(
                r,
                "llm_d_epp_average_running_requests",
                "Average running requests of the pool's servers",
            )),
            ready: f::gauges(
                r,
                "llm_d_epp_ready_endpoints",
                "Servers of the pool that may be chosen",
            ),
            endpoint_queue: f::gauges(
                r,
                "llm_d_epp_per_endpoint_queue_size",
                "Queue of one server",
            ),
            flow_queue: f::gauges(
                r,
                "llm_d_epp_flow_control_queue_size",
                "Requests waiting in flow control",
            ),
            index_size: IndexSize::Each(f::gauges(
                r,
                "llm_d_epp_prefix_indexer_size",
                "Blocks in the prefix index",
            )),
        }
    }

    fn set(&self, pool: &PoolSnapshot, queued: &[(i32, usize)], set: &Setter<'_>) {
        let name = || vec![("name", pool.name.clone())];
        set.pool(&self.kv_usage, name(), average(pool, |e| e.kv_usage));
        set.pool(
            &self.queue,
            name(),
            average(pool, |e| e.waiting.map(f64::from)),
        );
        if let Some(running) = &self.running {
            set.pool(running, name(), average(pool, |e| e.running.map(f64::from)));
        }
        set.pool(
            &self.ready,
            name(),
            pool.endpoints.iter().filter(|e| e.ready).count() as f64,
        );
        if let IndexSize::Each(family) = &self.index_size {
            let labels = vec![
                ("plugin_name", pool.name.clone()),
                ("plugin_type", "prefix-index".into()),
            ];
            set.pool(family, labels, pool.index_blocks as f64);
        }
        for (priority, size) in queued {
            let labels = vec![
                ("fairness_id", "".into()),
                ("priority", priority.to_string().into()),
                ("inference_pool", pool.name.clone()),
                ("model_name", "".into()),
                ("target_model_name", "".into()),
            ];
            set.pool(&self.flow_queue, labels, *size as f64);
        }
        for endpoint in &pool.endpoints {
            let server = if self.llmd {
                ("model_server_endpoint", endpoint.name.clone())
            } else {
                (
                    "model_server_pod",
                    format!("{}-rank-0", endpoint.name).into(),
                )
            };
            let queue = endpoint.waiting.map_or(0.0, f64::from);
            set.endpoint(
                &self.endpoint_queue,
                vec![("name", pool.name.clone()), server],
                &endpoint.name,
                queue,
            );
        }
    }
}

/// The mean over the servers that say something; 0 when none does.
fn average(pool: &PoolSnapshot, value: impl Fn(&EndpointSnapshot) -> Option<f64>) -> f64 {
    let values = pool.endpoints.iter().filter_map(value);
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), v| (sum + v, count + 1));
    if count == 0 {
        0.0
    } else {
        sum / f64::from(count)
    }
}

/// Sets gauges on behalf of one pool and remembers whom they belong to.
struct Setter<'a> {
    pool: &'a Arc<str>,
    owners: &'a Owners,
}

impl Setter<'_> {
    fn pool(&self, family: &Gauges, labels: Labels, value: f64) {
        self.endpoint(family, labels, &Arc::from(""), value);
    }

    fn endpoint(&self, family: &Gauges, labels: Labels, endpoint: &Arc<str>, value: f64) {
        if let Some(known) = family.get(&labels) {
            known.set(value);
            return;
        }
        family.get_or_create(&labels).set(value);
        let family = family.clone();
        self.owners
            .keep(self.pool, endpoint, move || family.remove(&labels));
    }

    /// A value that is no longer known becomes NaN.
    fn optional(&self, family: &Gauges, labels: Labels, endpoint: &Arc<str>, value: Option<f64>) {
        match value {
            Some(value) => self.endpoint(family, labels, endpoint, value),
            None => {
                if let Some(known) = family.get(&labels) {
                    known.set(f64::NAN);
                }
            }
        }
    }
}

impl Pools {
    pub(crate) fn new(r: &mut Registry, names: Names, owners: Arc<Owners>) -> Self {
        Self {
            gaie: names.gaie.then(|| PoolFamilies::gaie(r)),
            llmd: names.llmd.then(|| PoolFamilies::llmd(r)),
            queue_size: f::gauges(
                r,
                "pointsman_queue_size",
                "Requests waiting here, by priority",
            ),
            queue_bytes: f::gauges(
                r,
                "pointsman_queue_bytes",
                "Bytes of bodies waiting here, by priority",
            ),
            saturation: f::gauges(
                r,
                "pointsman_pool_saturation_ratio",
                "How full the pool's servers are, 0 to 1; at 1 none of them takes work",
            ),
            saturated: f::gauges(
                r,
                "pointsman_pool_saturated",
                "1: no server of the pool is open",
            ),
            index_blocks: f::gauges(
                r,
                "pointsman_prefix_index_blocks",
                "Blocks in the prefix index",
            ),
            ready: f::gauges(r, "pointsman_endpoint_ready", "1: the server may be chosen"),
            in_flight: f::gauges(
                r,
                "pointsman_in_flight_requests",
                "Requests now at the server",
            ),
            waiting: f::gauges(
                r,
                "pointsman_endpoint_waiting_requests",
                "The server's own queue, as scraped",
            ),
            running: f::gauges(
                r,
                "pointsman_endpoint_running_requests",
                "Requests the server runs, as scraped",
            ),
            kv_usage: f::gauges(
                r,
                "pointsman_endpoint_kv_cache_usage_ratio",
                "Share of KV cache in use, as scraped",
            ),
            priorities: Mutex::default(),
            owners,
        }
    }

    /// Sets everything from the picture and removes what is not in it; says whether anything was removed.
    pub(crate) fn set(&self, pools: &[PoolSnapshot]) -> bool {
        let mut alive: FxHashSet<(&str, &str)> = FxHashSet::default();
        for pool in pools {
            alive.insert((&pool.pool, ""));
            alive.extend(pool.endpoints.iter().map(|e| (&*pool.pool, &*e.name)));
        }
        let removed = self
            .owners
            .prune(|pool, endpoint| alive.contains(&(pool, endpoint)));
        for pool in pools {
            self.set_pool(pool);
        }
        if let Some(PoolFamilies {
            index_size: IndexSize::One(gauge),
            ..
        }) = &self.gaie
        {
            gauge.set(pools.iter().map(|pool| pool.index_blocks as f64).sum());
        }
        removed
    }

    /// The queue by priority, with those that waited before.
    fn queued(&self, pool: &PoolSnapshot) -> Vec<(i32, usize)> {
        let mut priorities = self.priorities.lock();
        let known = priorities.entry(pool.pool.clone()).or_default();
        known.extend(pool.queued.iter().map(|(priority, _)| *priority));
        let size = |priority: i32| {
            pool.queued
                .iter()
                .find(|(p, _)| *p == priority)
                .map_or(0, |(_, size)| *size)
        };
        known
            .iter()
            .map(|&priority| (priority, size(priority)))
            .collect()
    }

    fn set_pool(&self, pool: &PoolSnapshot) {
        let set = Setter {
            pool: &pool.pool,
            owners: &self.owners,
        };
        let queued = self.queued(pool);
        for families in [&self.gaie, &self.llmd].into_iter().flatten() {
            families.set(pool, &queued, &set);
        }
        let by_pool = || vec![("pool", pool.pool.clone())];
        set.pool(
            &self.saturated,
            by_pool(),
            f64::from(u8::from(pool.saturated)),
        );
        set.pool(&self.saturation, by_pool(), pool.saturation);
        set.pool(&self.index_blocks, by_pool(), pool.index_blocks as f64);
        for (priority, size) in &queued {
            let labels = vec![
                ("pool", pool.pool.clone()),
                ("priority", priority.to_string().into()),
            ];
            let bytes = pool.queued_bytes.iter().find(|(p, _)| p == priority);
            let bytes = bytes.map_or(0, |(_, bytes)| *bytes);
            set.pool(&self.queue_bytes, labels.clone(), bytes as f64);
            set.pool(&self.queue_size, labels, *size as f64);
        }
        for endpoint in &pool.endpoints {
            let labels = || {
                vec![
                    ("pool", pool.pool.clone()),
                    ("endpoint", endpoint.name.clone()),
                ]
            };
            let name = &endpoint.name;
            set.endpoint(
                &self.ready,
                labels(),
                name,
                f64::from(u8::from(endpoint.ready)),
            );
            set.endpoint(
                &self.in_flight,
                labels(),
                name,
                f64::from(endpoint.in_flight),
            );
            set.optional(
                &self.waiting,
                labels(),
                name,
                endpoint.waiting.map(f64::from),
            );
            set.optional(
                &self.running,
                labels(),
                name,
                endpoint.running.map(f64::from),
            );
            set.optional(&self.kv_usage, labels(), name, endpoint.kv_usage);
        }
    }
}
