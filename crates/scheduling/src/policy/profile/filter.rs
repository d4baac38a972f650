//! Filters: who may be chosen.

use super::labels::{Book, Requirement};
use super::share;
use crate::cost::{Facts, Situation};
use crate::id::EndpointId;

/// Takes candidates away.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    /// Keeps those whose labels fulfil all requirements.
    Labels(Vec<Requirement>),
    /// Keeps those that have at least the share `threshold` of the prompt cached, unless there are none, or the best
    /// of them would need `penalty` seconds more to the first token than the best of the others. A share `exploration`
    /// of decisions is not filtered.
    PrefixAffinity {
        /// Share of the prompt, 0 to 1.
        threshold: f64,
        /// Share of decisions that pass unfiltered, 0 to 1.
        exploration: f64,
        /// Seconds; 0 and less: however long it takes.
        penalty: f64,
        /// Prompt tokens that a server computes in a second; `None`: by the cost model, with everything before it.
        throughput: Option<f64>,
    },
    /// Keeps those that are expected to meet the request's targets; if there are none, all. With a share
    /// `exploration` of decisions, those that are not.
    HeadroomTier {
        /// Share of decisions, 0 to 1.
        exploration: f64,
    },
    /// Keeps those that are at or under every limit.
    Utilization {
        /// The limits.
        limits: Vec<Limit>,
        /// When nobody is: keep all.
        or_all: bool,
    },
}

/// A limit on one gauge.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Limit {
    /// Of what.
    pub gauge: Gauge,
    /// The most it may be.
    pub most: f64,
    /// Whether it must be less than `most`, not only no more.
    pub strict: bool,
}

/// A gauge of an endpoint.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Gauge {
    /// Our requests in flight.
    Active,
    /// Requests in the engine's batch.
    Running,
    /// Requests in the engine's queue.
    Waiting,
    /// Share of its KV cache in use, 0 to 1.
    KvUsage,
    /// Prompt tokens in flight that are still to be computed.
    PendingTokens,
}

impl Gauge {
    /// Its value.
    pub fn of(self, facts: &Facts) -> f64 {
        match self {
            Self::Active => f64::from(facts.in_flight),
            Self::Running => (facts.sequences - facts.waiting).max(0.0),
            Self::Waiting => facts.waiting,
            Self::KvUsage => kv_usage(facts),
            Self::PendingTokens => facts.pending_tokens,
        }
    }
}

impl Limit {
    fn holds(&self, facts: &Facts) -> bool {
        let value = self.gauge.of(facts);
        value < self.most || (!self.strict && value <= self.most)
    }
}

/// Share of an endpoint's KV cache in use.
pub(super) fn kv_usage(facts: &Facts) -> f64 {
    (facts.kv_used / facts.kv_capacity.max(1.0)).clamp(0.0, 1.0)
}

/// Share of the prompt that an endpoint has cached.
pub(super) fn matched(situation: &Situation<'_>, facts: &Facts) -> f64 {
    (facts.hit_tokens / situation.prompt_tokens.max(1.0)).clamp(0.0, 1.0)
}

/// By how many seconds the first token is expected before the request's target; without a target, minus the
/// expectation itself.
pub(super) fn headroom(situation: &Situation<'_>, facts: &Facts) -> f64 {
    let target = situation.request.due;
    let left = target.map_or(0.0, |due| due.seconds_since(situation.now));
    left - situation.terms(facts).ttft()
}

impl Filter {
    /// The candidates of `left` that pass. `place` tells filters of one profile apart where chance decides.
    pub(super) fn keep(
        &self,
        situation: &Situation<'_>,
        left: Vec<usize>,
        book: &Book,
        place: usize,
    ) -> Vec<usize> {
        let facts = |at: usize| &situation.candidates[at];
        let explores = |probability: f64| coin(situation, place) < probability;
        match self {
            Self::Labels(requirements) => {
                let holds = |at: &usize| book.holds(facts(*at).endpoint, requirements);
                left.into_iter().filter(holds).collect()
            }
            Self::PrefixAffinity { exploration, .. } if explores(*exploration) => left,
            Self::PrefixAffinity {
                threshold,
                penalty,
                throughput,
                ..
            } => {
                let ttft = |at: usize| match throughput {
                    Some(speed) => facts(at).pending_tokens / speed.max(1.0),
                    None => situation.terms(facts(at)).ttft(),
                };
                let sticky = |at: usize| matched(situation, facts(at)) >= *threshold;
                affine(left, sticky, ttft, *penalty)
            }
            Self::HeadroomTier { exploration } => {
                let explore = explores(*exploration);
                let fine = |at: &usize| (headroom(situation, facts(*at)) >= 0.0) != explore;
                keep_or_all(left, fine)
            }
            Self::Utilization { limits, or_all } => {
                let fine = |at: &usize| limits.iter().all(|limit| limit.holds(facts(*at)));
                if *or_all {
                    keep_or_all(left, fine)
                } else {
                    left.into_iter().filter(fine).collect()
                }
            }
        }
    }
}

/// Those that are fine, or all if none is.
fn keep_or_all(left: Vec<usize>, fine: impl Fn(&usize) -> bool) -> Vec<usize> {
    let kept: Vec<usize> = left.iter().copied().filter(|at| fine(at)).collect();
    if kept.is_empty() { left } else { kept }
}

fn affine(
    left: Vec<usize>,
    sticky: impl Fn(usize) -> bool,
    ttft: impl Fn(usize) -> f64,
    penalty: f64,
) -> Vec<usize> {
    let (near, far): (Vec<usize>, Vec<usize>) = left.iter().partition(|&&at| sticky(at));
    let best = |of: &[usize]| of.iter().map(|&at| ttft(at)).fold(f64::INFINITY, f64::min);
    let late = penalty > 0.0 && !far.is_empty() && best(&near) - best(&far) > penalty;
    if near.is_empty() || late { left } else { near }
}

/// A number from 0 to 1 for one filter of one decision.
fn coin(situation: &Situation<'_>, place: usize) -> f64 {
    // No endpoint has such an index.
    let index = u32::MAX - u32::try_from(place).unwrap_or(0);
    share(situation.chance(EndpointId {
        index,
        generation: 0,
    }))
}
