//! Policies: who ranks the endpoints of a decision.
//!
//! [`Policy`] is the one joint of the core. A policy sees facts, all of them, and orders the candidates; it owns
//! neither queue nor charges nor health. The pool asks it again whenever something changed, so ranking must not have
//! effects; [`Policy::taken`] tells what came of it.

mod expected_cost;
pub mod profile;
mod simple;
#[cfg(test)]
mod tests;

pub use expected_cost::ExpectedCost;
pub use simple::{LeastRequest, Random, RoundRobin};

use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::PolicyKind;
use crate::cost::{Facts, Situation};
use crate::id::EndpointId;
use profile::Labels;

/// How many endpoints a decision names: the winner and its fallbacks.
pub(crate) const NAMED: usize = 4;

/// Ranks endpoints for a request.
pub trait Policy: std::fmt::Debug + Send {
    /// The name used in explanations.
    fn name(&self) -> &'static str;

    /// Orders the candidates: fills `ranking` with a cost each and the best few in order.
    fn rank(&self, situation: &Situation<'_>, ranking: &mut Ranking);

    /// The parts of a candidate's cost by name, for explanations.
    fn terms(&self, _situation: &Situation<'_>, _facts: &Facts) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Whether costs are seconds, so that waiting for a better endpoint that is not open can be worth it.
    fn waits(&self) -> bool {
        false
    }

    /// An endpoint has these labels now.
    fn labelled(&mut self, _endpoint: EndpointId, _labels: &Arc<Labels>) {}

    /// A request went there.
    fn taken(&mut self, _endpoint: EndpointId) {}
}

/// The policy of that name.
pub fn of(kind: PolicyKind) -> Box<dyn Policy> {
    match kind {
        PolicyKind::ExpectedCost => Box::new(ExpectedCost),
        PolicyKind::RoundRobin => Box::<RoundRobin>::default(),
        PolicyKind::LeastRequest => Box::new(LeastRequest),
        PolicyKind::Random => Box::new(Random),
    }
}

/// The outcome of ranking; reused between decisions.
#[derive(Debug, Default)]
pub struct Ranking {
    /// Cost of each candidate, in the order of the candidates; infinite for one that must not be chosen.
    pub costs: Vec<f64>,
    /// Positions of the best few candidates, best first.
    pub order: SmallVec<[usize; NAMED]>,
    /// Why the first is first, as half a sentence.
    pub reason: &'static str,
}

impl Ranking {
    /// Starts over.
    pub fn clear(&mut self) {
        self.costs.clear();
        self.order.clear();
        self.reason = "";
    }

    /// Orders by cost. Costs that are equal to 10 microseconds are a tie, which goes to the endpoint that got a
    /// request least recently, then to chance.
    pub fn order_by_cost(&mut self, situation: &Situation<'_>) {
        let key = |at: usize| {
            let facts = &situation.candidates[at];
            let cost = (self.costs[at] * 1e5).clamp(-1e15, 1e15) as i64;
            (cost, facts.last_dispatch, situation.chance(facts.endpoint))
        };
        let mut best: SmallVec<[_; NAMED + 1]> = SmallVec::new();
        for at in 0..self.costs.len() {
            let entry = (key(at), at);
            if best.len() == NAMED && best.last().is_some_and(|last| entry >= *last) {
                continue;
            }
            let place = best.partition_point(|other| *other < entry);
            best.insert(place, entry);
            best.truncate(NAMED);
        }
        self.order.clear();
        self.order.extend(best.iter().map(|(_, at)| *at));
    }

    /// Takes over an order that somebody else has made.
    pub(crate) fn follow(&mut self, ids: &[EndpointId], candidates: &[Facts]) {
        self.order.clear();
        for id in ids {
            let at = candidates.iter().position(|it| it.endpoint == *id);
            self.order.extend(at.filter(|at| !self.order.contains(at)));
        }
        self.reason = "decided outside";
    }

    /// Puts one candidate first, the others keep their order.
    pub fn put_first(&mut self, candidate: usize) {
        self.order.retain(|at| *at != candidate);
        self.order.insert(0, candidate);
        self.order.truncate(NAMED);
    }
}
