//! The policies that need no cost: baselines, and what is left when nothing is known but the load.

use super::{Policy, Ranking};
use crate::cost::{Facts, Situation};
use crate::id::EndpointId;

/// One after the other, by index.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    next: u32,
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn rank(&self, situation: &Situation<'_>, ranking: &mut Ranking) {
        ranking.clear();
        let distance = |facts: &Facts| f64::from(facts.endpoint.index.wrapping_sub(self.next));
        ranking
            .costs
            .extend(situation.candidates.iter().map(distance));
        ranking.order_by_cost(situation);
        ranking.reason = "its turn";
    }

    fn taken(&mut self, endpoint: EndpointId) {
        self.next = endpoint.index.wrapping_add(1);
    }
}

/// The fewest of our requests in flight; ties go round.
#[derive(Clone, Debug, Default)]
pub struct LeastRequest;

impl Policy for LeastRequest {
    fn name(&self) -> &'static str {
        "least-request"
    }

    fn rank(&self, situation: &Situation<'_>, ranking: &mut Ranking) {
        ranking.clear();
        // A failure lately weighs like requests in flight: two for each half second of penalty.
        let load = |facts: &Facts| f64::from(facts.in_flight) + 4.0 * facts.health_seconds;
        ranking.costs.extend(situation.candidates.iter().map(load));
        ranking.order_by_cost(situation);
        ranking.reason = "fewest requests in flight";
    }

    fn terms(&self, _situation: &Situation<'_>, facts: &Facts) -> Vec<(&'static str, f64)> {
        vec![
            ("in_flight", f64::from(facts.in_flight)),
            ("health", 4.0 * facts.health_seconds),
        ]
    }
}

/// Any, with equal chance.
#[derive(Clone, Debug, Default)]
pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn rank(&self, situation: &Situation<'_>, ranking: &mut Ranking) {
        ranking.clear();
        let chance =
            |facts: &Facts| (situation.chance(facts.endpoint) >> 11) as f64 / (1_u64 << 53) as f64;
        ranking
            .costs
            .extend(situation.candidates.iter().map(chance));
        ranking.order_by_cost(situation);
        ranking.reason = "chance";
    }
}
