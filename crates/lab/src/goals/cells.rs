//! What is run for the goals: policies, places, seeds, circumstances.

use super::desk::{Condition, Place};
use crate::compare::Plan;

/// The product with its default policy.
pub(super) const OURS: &str = "pointsman";
/// The endpoint picker of the Gateway API inference extension as it ships, and its strongest published setting.
pub(super) const GAIE: &str = "gaie";
pub(super) const GAIE_LRU: &str = "gaie-no-hit-lru";

/// The published policies that are run everywhere: of each family the form that ships and the strongest one.
pub(super) const FIELD: [&str; 15] = [
    "round-robin",
    "least-request",
    GAIE,
    GAIE_LRU,
    "gaie-tuned",
    "llm-d-sticky-tuned",
    "predicted-latency-greedy",
    "smg-cache-aware-tuned",
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

    /// Where nobody may be worse than the best published policy: loads up to .95 of what the bound can carry.
    pub(super) fn matrix(&self) -> Vec<Place> {
        let mut places = vec![Place::new(self.mooncake(), MOONCAKE_LOAD, "x2.4")];
        let scarce: &[f64] = if self.small { &[1.0] } else { &SCARCE_LOADS };
        let scarce = scarce
            .iter()
            .map(|load| Place::new("agentic", *load, &format!("{load}")));
        places.extend(scarce);
        if !self.small {
            // Its capacity is far above what any fleet of this size is asked for.
            places.push(Place::new("lora", 200.0, "200 requests/s"));
        }
        for (workload, capacity, standing) in CAPACITIES {
            let elsewhere =
                [MOONCAKE, LOOK_ALIKE].contains(&workload) && workload != self.mooncake();
            if elsewhere || (self.small && !["zipf", "b2b"].contains(&workload)) {
                continue;
            }
            let shares = match standing {
                _ if self.small => &SHARES[..1],
                Standing::All => &SHARES[..],
                Standing::Edge => &SHARES[1..],
            };
            for share in shares {
                let load = share * capacity;
                places.push(Place::new(workload, load, &format!("{share} of capacity")));
            }
        }
        places
    }
}

/// The multiple of Mooncake's trace that G1 speaks of.
pub(super) const MOONCAKE_LOAD: f64 = 2.4;

/// Sessions a second of the agents at which KV space is scarce, for G2.
pub(super) const SCARCE_LOADS: [f64; 2] = [0.8, 1.0];

/// Shares of the bound's capacity at which the matrix stands.
const SHARES: [f64; 2] = [0.75, 0.95];

/// Which of [`SHARES`] are asked for.
#[derive(Debug, Clone, Copy)]
enum Standing {
    All,
    /// The last only: lower loads are in the matrix by themselves, or tell nothing new.
    Edge,
}

const MOONCAKE: &str = "mooncake";
const LOOK_ALIKE: &str = "mooncake-like";

/// What the bound can carry of each workload of the matrix, in its own unit: `lab bound WORKLOAD --capacity --seeds 1`,
/// kept here because finding it takes longer than the runs. It only decides where cells stand.
const CAPACITIES: [(&str, f64, Standing); 13] = [
    (MOONCAKE, 3.08, Standing::Edge),
    (LOOK_ALIKE, 3.11, Standing::Edge),
    ("toolagent-like", 4.32, Standing::All),
    ("b2b", 12.1, Standing::All),
    ("b2b-private", 8.76, Standing::Edge),
    ("zipf", 79.1, Standing::All),
    ("agentic", 1.46, Standing::Edge),
    ("chat", 8.04, Standing::All),
    ("reasoning", 10.9, Standing::Edge),
    ("rag", 8.56, Standing::All),
    ("azure-code-like", 8.18, Standing::Edge),
    ("burst", 51.0, Standing::Edge),
    ("sharegpt", 427.0, Standing::Edge),
];
