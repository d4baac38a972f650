//! What is run for the goals: policies, places, seeds, circumstances.

use super::desk::{Condition, Place};
use crate::compare::{Catalog, Plan};

/// The product with its default policy.
pub(super) const OURS: &str = "pointsman";
/// The endpoint picker of the Gateway API inference extension as it ships, and its strongest published setting.
pub(super) const GAIE: &str = "gaie";
pub(super) const GAIE_LRU: &str = "gaie-no-hit-lru";

/// The published policies that are run everywhere: of each family the form that ships and the strongest one.
pub(super) const FIELD: [&str; 18] = [
    "round-robin",
    "least-request",
    "p2c",
    GAIE,
    GAIE_LRU,
    "gaie-tuned",
    "llm-d-sticky",
    "llm-d-sticky-tuned",
    "predicted-latency-greedy",
    "smg-cache-aware-tuned",
    "dynamo",
    "dynamo-tuned",
    "aibrix-prefix-cache",
    "chwbl-tuned",
    "preble-e2",
    "mooncake-tuned",
    "lmetric",
    "lpwl",
];

/// The same for the short run.
const SMALL_FIELD: [&str; 5] = ["round-robin", "least-request", GAIE_LRU, "lmetric", "lpwl"];

/// Seconds of arrivals in the short run, for workloads that do not end by themselves.
const SHORT: f64 = 240.0;

/// How much is run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scope {
    pub(super) small: bool,
    /// The folder of the traces has Mooncake's conversations.
    pub(super) traces: bool,
    pub(super) seeds: Vec<u64>,
}

/// Seeds of the judged runs begin here: far from those with which anything was tuned.
const FIRST_SEED: u64 = 101;

impl Scope {
    pub(super) fn new(small: bool, traces: bool) -> Self {
        // Six values are the fewest whose range is an interval of 95 %.
        let count = if small { 3 } else { 6 };
        Self {
            small,
            traces,
            seeds: (FIRST_SEED..FIRST_SEED + count).collect(),
        }
    }

    pub(super) fn field(&self) -> &'static [&'static str] {
        if self.small { &SMALL_FIELD } else { &FIELD }
    }

    /// The conversations of Mooncake, or what is made to look like them.
    pub(super) fn mooncake(&self) -> &'static str {
        if self.traces {
            "mooncake"
        } else {
            "mooncake-like"
        }
    }

    pub(super) fn usual(&self) -> Condition {
        self.condition("usual", |_| {})
    }

    /// The usual circumstances with a change: step noise 2 %, half a millisecond of network, a scrape each 50 ms, one
    /// gateway.
    pub(super) fn condition(
        &self,
        name: &'static str,
        change: impl FnOnce(&mut Plan),
    ) -> Condition {
        let mut plan = Plan {
            seeds: self.seeds.clone(),
            drain: 300.0,
            horizon: self.small.then_some(SHORT),
            ..Plan::default()
        };
        change(&mut plan);
        Condition { name, plan }
    }

    /// Where nobody may be worse than the best published policy: the catalogue's own loads.
    pub(super) fn matrix(&self, catalog: &dyn Catalog) -> Vec<Place> {
        let names: &[&str] = if self.small {
            &["zipf", "b2b"]
        } else {
            &[
                "toolagent-like",
                "b2b",
                "b2b-private",
                "zipf",
                "agentic",
                "chat",
                "reasoning",
                "rag",
                "azure-code-like",
                "burst",
                "sharegpt",
                "lora",
            ]
        };
        let mut places = Vec::new();
        for name in std::iter::once(&self.mooncake()).chain(names) {
            let Ok(setting) = catalog.setting(name, None) else {
                continue;
            };
            let most = if self.small { 1 } else { 2 };
            let skip = setting.loads.len().saturating_sub(most);
            for load in setting.loads.into_iter().skip(skip) {
                places.push(Place::new(name, load, &format!("{load}")));
            }
        }
        places
    }
}
