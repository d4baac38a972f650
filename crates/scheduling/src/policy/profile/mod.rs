//! A policy made of filters, scorers and a picker: what an `EndpointPickerConfig` describes.
//!
//! Filters take candidates away, in order. Each scorer then gives every candidate that is left a number from 0 to 1;
//! the sum of the numbers, each times its weight, is the candidate's score, and the picker chooses by it. The formulas
//! are those of the scheduler plugins of the Gateway API Inference Extension and of llm-d; what they are fed with is
//! what this core knows at the moment of the decision, which is never older than a page of metrics and counts its own
//! dispatches at once.
//!
//! Costs are negated scores: of two candidates that score the same, the one that got a request least recently is first.

mod filter;
mod labels;
mod scorer;
#[cfg(test)]
mod tests;

pub use filter::{Filter, Gauge, Limit};
pub use labels::{Labels, Requirement};
pub use scorer::{Headroom, Scorer};

use std::sync::Arc;

use super::{NAMED, Policy, Ranking};
use crate::cost::{Facts, Situation};
use crate::id::EndpointId;
use labels::Book;

/// How the winner is chosen among scores.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Picker {
    /// The highest score. The default.
    #[default]
    MaxScore,
    /// Any, with equal chance, whatever the scores.
    Random,
    /// Any, with a chance that is proportional to its score (Efraimidis and Spirakis 2006: the largest `u^(1/score)`).
    WeightedRandom,
}

/// What to choose by.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Profile {
    /// Who may be chosen; each takes candidates away from what those before it left.
    pub filters: Vec<Filter>,
    /// Scorers with their weights.
    pub scorers: Vec<(Scorer, f64)>,
    /// Who is chosen.
    pub picker: Picker,
}

/// The policy of a profile.
#[derive(Clone, Debug)]
pub struct ProfilePolicy {
    profile: Arc<Profile>,
    book: Book,
}

impl ProfilePolicy {
    /// Chooses by this profile.
    pub fn new(profile: Arc<Profile>) -> Self {
        Self {
            profile,
            book: Book::default(),
        }
    }

    /// The weighted sum of what scorers say, for each candidate in `left`.
    fn scores(&self, situation: &Situation<'_>, left: &[usize]) -> Vec<f64> {
        let mut sums = vec![0.0; left.len()];
        for (scorer, weight) in &self.profile.scorers {
            let scores = scorer.scores(situation, left, &self.book);
            for (sum, score) in sums.iter_mut().zip(scores) {
                *sum += weight * score;
            }
        }
        sums
    }

    fn left(&self, situation: &Situation<'_>) -> Vec<usize> {
        let mut left: Vec<usize> = (0..situation.candidates.len()).collect();
        for (place, filter) in self.profile.filters.iter().enumerate() {
            left = filter.keep(situation, left, &self.book, place);
        }
        left
    }
}

impl Policy for ProfilePolicy {
    fn name(&self) -> &'static str {
        "profile"
    }

    fn rank(&self, situation: &Situation<'_>, ranking: &mut Ranking) {
        ranking.clear();
        let left = self.left(situation);
        let scores = self.scores(situation, &left);
        // What a filter took away costs more than anything and is never named.
        ranking
            .costs
            .resize(situation.candidates.len(), f64::INFINITY);
        for (&at, score) in left.iter().zip(scores) {
            let endpoint = situation.candidates[at].endpoint;
            ranking.costs[at] = match self.profile.picker {
                Picker::MaxScore => -score,
                Picker::Random => -share(situation.chance(endpoint)),
                Picker::WeightedRandom => weighted(share(situation.chance(endpoint)), score),
            };
        }
        ranking.order_by_cost(situation);
        let costs = &ranking.costs;
        ranking.order.retain(|at| costs[*at].is_finite());
        ranking.order.truncate(NAMED);
        ranking.reason = match self.profile.picker {
            Picker::MaxScore => "highest score",
            Picker::Random => "chance",
            Picker::WeightedRandom => "chance by score",
        };
    }

    fn terms(&self, situation: &Situation<'_>, facts: &Facts) -> Vec<(&'static str, f64)> {
        let left = self.left(situation);
        let position = left
            .iter()
            .position(|&at| situation.candidates[at].endpoint == facts.endpoint);
        let Some(place) = position else {
            return Vec::new();
        };
        let scorers = self.profile.scorers.iter();
        let term = |(scorer, weight): &(Scorer, f64)| {
            let scores = scorer.scores(situation, &left, &self.book);
            (scorer.name(), weight * scores[place])
        };
        scorers.map(term).collect()
    }

    fn labelled(&mut self, endpoint: EndpointId, labels: &Arc<Labels>) {
        self.book.set(endpoint, labels);
    }
}

/// A number from 0 to 1, both excluded.
fn share(chance: u64) -> f64 {
    ((chance >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// A cost whose order is that of `u^(1/score)`, the largest first: `-ln(u)/score` ascends as the key descends. Without
/// a score a candidate comes after those that have one, by chance.
fn weighted(u: f64, score: f64) -> f64 {
    /// Beyond what any score above the least that counts can give, within what orders exactly.
    const LAST: f64 = 1e6;
    if score > 1e-4 {
        (-u.ln() / score).min(LAST)
    } else {
        LAST + u
    }
}
