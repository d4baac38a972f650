//! Metrics of finished requests.
//!
//! A record touches about two dozen series. Looking each of them up by its labels would cost more than the rest of the
//! work, so the handles of one combination of pool, model, target, flow and priority are kept together, and found by a
//! hash of the borrowed names: no string is built for a request whose combination was seen before.
//!
//! Names come from clients, so they are bounded: after 1,000 distinct models, or flows, further ones are reported as
//! `other`, and after 10,000 combinations all are.

mod genai;
mod objective;
mod own;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use crate::families::{FloatGauge, gauge};
use crate::owners::Owners;
use crate::{ExchangeRecord, Names};
use genai::{GenAi, GenAiFamilies};
use objective::{Objective, ObjectiveFamilies};
use own::{Own, OwnFamilies, Server};

/// Distinct names of one sort before `other`.
const MAX_NAMES: usize = 1_000;
/// Distinct combinations before all names are `other`.
const MAX_SERIES: usize = 10_000;
const OTHER: &str = "other";

/// What a combination is made of; borrowed from a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    pool: &'a str,
    model: &'a str,
    target: &'a str,
    fairness: &'a str,
    priority: i32,
    operation: &'static str,
    provider: &'static str,
    stream: bool,
}

impl<'a> Key<'a> {
    fn of(r: &'a ExchangeRecord<'_>) -> Self {
        Self {
            pool: r.pool,
            model: r.model,
            target: r.served_model(),
            fairness: r.fairness,
            priority: r.priority,
            operation: r.operation(),
            provider: r.provider(),
            stream: r.stream,
        }
    }

    fn hash(&self) -> u64 {
        let mut hasher = FxHasher::default();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// An owned combination with the handles of its series.
#[derive(Debug)]
struct Series {
    pool: Arc<str>,
    model: Arc<str>,
    target: Arc<str>,
    fairness: Arc<str>,
    priority: i32,
    operation: &'static str,
    provider: &'static str,
    stream: bool,
    objectives: Vec<Objective>,
    genai: Option<GenAi>,
    own: Own,
}

impl Series {
    fn is(&self, key: &Key<'_>) -> bool {
        let own = Key {
            pool: &self.pool,
            model: &self.model,
            target: &self.target,
            fairness: &self.fairness,
            priority: self.priority,
            operation: self.operation,
            provider: self.provider,
            stream: self.stream,
        };
        own == *key
    }
}

/// All request families and the handles in use.
#[derive(Debug)]
pub(crate) struct Requests {
    objectives: Vec<ObjectiveFamilies>,
    genai: Option<GenAiFamilies>,
    own: OwnFamilies,
    series: RwLock<FxHashMap<u64, Arc<Series>>>,
    servers: RwLock<FxHashMap<u64, Arc<Server>>>,
    running: RwLock<FxHashMap<Arc<str>, Arc<[FloatGauge]>>>,
    models: Mutex<FxHashSet<Arc<str>>>,
    flows: Mutex<FxHashSet<Arc<str>>>,
    owners: Arc<Owners>,
}

impl Requests {
    pub(crate) fn new(registry: &mut Registry, names: Names, owners: Arc<Owners>) -> Self {
        let mut objectives = Vec::new();
        if names.gaie {
            objectives.push(ObjectiveFamilies::gaie(registry));
        }
        if names.llmd {
            objectives.push(ObjectiveFamilies::llmd(registry));
        }
        Self {
            objectives,
            genai: names.otel.then(|| GenAiFamilies::new(registry)),
            own: OwnFamilies::new(registry),
            series: RwLock::default(),
            servers: RwLock::default(),
            running: RwLock::default(),
            models: Mutex::default(),
            flows: Mutex::default(),
            owners,
        }
    }

    /// Adds one finished exchange to every family it belongs to.
    pub(crate) fn record(&self, r: &ExchangeRecord<'_>) {
        let failure = r.failure();
        self.server(r).count(r, &self.own);
        let series = self.series(&Key::of(r));
        if !r.model.is_empty() {
            for (objective, families) in series.objectives.iter().zip(&self.objectives) {
                objective.record(r, failure, families, &self.owners);
            }
            if let (Some(genai), Some(families)) = (&series.genai, &self.genai) {
                genai.record(r, failure, families);
            }
        }
        series.own.record(r);
        if let Some(code) = failure {
            self.own.errors(&series.pool, code, &self.owners).inc();
        }
    }

    /// The gauges that count requests of a model in progress.
    pub(crate) fn running(&self, model: &str) -> Arc<[FloatGauge]> {
        if let Some(known) = self.running.read().get(model) {
            return known.clone();
        }
        let model = admit(&self.models, model);
        let gauges = self
            .objectives
            .iter()
            .map(|families| gauge(&families.running, &families.running_labels(&model)));
        let gauges: Arc<[FloatGauge]> = gauges.collect();
        self.running.write().insert(model, gauges.clone());
        gauges
    }

    /// Makes the request counters of a model exist with the value zero, so that dashboards and autoscalers see "none
    /// yet" and not "no data".
    pub(crate) fn expect_model(&self, model: &str, target: &str) {
        let (model, target) = (admit(&self.models, model), admit(&self.models, target));
        for families in &self.objectives {
            let labels = families.labels(&model, &target, &Arc::from(""), 0);
            drop(families.requests.get_or_create(&labels));
        }
    }

    /// Drops all handles: after series were removed, a kept handle would count into nothing.
    pub(crate) fn forget_handles(&self) {
        self.series.write().clear();
        self.servers.write().clear();
    }

    fn series(&self, key: &Key<'_>) -> Arc<Series> {
        if let Some(found) = self.find(key) {
            return found;
        }
        let full = self.series.read().len() >= MAX_SERIES;
        let pick = |names, name| {
            if full {
                Arc::from(OTHER)
            } else {
                admit(names, name)
            }
        };
        let (model, target) = (
            pick(&self.models, key.model),
            pick(&self.models, key.target),
        );
        let fairness = pick(&self.flows, key.fairness);
        let folded = Key {
            model: &model,
            target: &target,
            fairness: &fairness,
            ..*key
        };
        if let Some(found) = self.find(&folded) {
            return found;
        }
        let made = Arc::new(self.make(&folded));
        // With a full table only `other` gets here, once for each pool and priority.
        if self.series.read().len() < 2 * MAX_SERIES {
            self.series.write().insert(folded.hash(), made.clone());
        }
        made
    }

    fn find(&self, key: &Key<'_>) -> Option<Arc<Series>> {
        self.series
            .read()
            .get(&key.hash())
            .filter(|series| series.is(key))
            .cloned()
    }

    fn make(&self, key: &Key<'_>) -> Series {
        let (pool, model, target, fairness): (Arc<str>, Arc<str>, Arc<str>, Arc<str>) = (
            key.pool.into(),
            key.model.into(),
            key.target.into(),
            key.fairness.into(),
        );
        let named = !key.model.is_empty();
        let objective = |families: &ObjectiveFamilies| {
            let labels = families.labels(&model, &target, &fairness, key.priority);
            Objective::new(families, labels, key.stream, &pool)
        };
        Series {
            objectives: if named {
                self.objectives.iter().map(objective).collect()
            } else {
                Vec::new()
            },
            genai: self
                .genai
                .as_ref()
                .filter(|_| named)
                .map(|_| GenAi::new(key, &model, &target)),
            own: Own::new(&self.own, &pool, &self.owners),
            pool,
            model,
            target,
            fairness,
            priority: key.priority,
            operation: key.operation,
            provider: key.provider,
            stream: key.stream,
        }
    }

    fn server(&self, r: &ExchangeRecord<'_>) -> Arc<Server> {
        let mut hasher = FxHasher::default();
        (r.pool, r.endpoint).hash(&mut hasher);
        let hash = hasher.finish();
        let known =
            |server: &&Arc<Server>| *server.pool == *r.pool && *server.endpoint == *r.endpoint;
        if let Some(found) = self.servers.read().get(&hash).filter(known) {
            return found.clone();
        }
        let made = Arc::new(Server {
            pool: r.pool.into(),
            endpoint: r.endpoint.into(),
            counters: Mutex::default(),
            owners: self.owners.clone(),
        });
        self.servers.write().insert(hash, made.clone());
        made
    }
}

/// The name itself while there is room for another one.
fn admit(names: &Mutex<FxHashSet<Arc<str>>>, name: &str) -> Arc<str> {
    let mut names = names.lock();
    if let Some(known) = names.get(name) {
        return known.clone();
    }
    if names.len() >= MAX_NAMES {
        return OTHER.into();
    }
    let name: Arc<str> = name.into();
    names.insert(name.clone());
    name
}
