//! The default policy: least expected cost in seconds, and cold prefixes spread.
//!
//! The cost is that of [`cost`](crate::cost). One rule comes on top. A prompt that no endpoint has a tenth of is
//! *cold*: where it goes decides where its followers will go, so cold prompts should spread evenly even if one endpoint
//! happens to be cheapest again and again. Among the endpoints whose cost is within a tolerance of the least, it goes to
//! the one that got the least of them lately. The tolerance is one step plus `kappa` times the prompt's own prefill
//! times the reuse to expect, for that is what a balanced home of a prefix is worth: nothing where prompts are never
//! used again, many prefills where they are used over and over.

use super::{Policy, Ranking};
use crate::cost::{Facts, Situation};

/// Share of a prompt that somebody must have cached for it not to be cold.
const WARM_SHARE: f64 = 0.1;

/// Least expected cost.
#[derive(Clone, Debug, Default)]
pub struct ExpectedCost;

impl Policy for ExpectedCost {
    fn name(&self) -> &'static str {
        "expected-cost"
    }

    fn rank(&self, situation: &Situation<'_>, ranking: &mut Ranking) {
        ranking.clear();
        let mut warmest: f64 = 0.0;
        for facts in situation.candidates {
            warmest = warmest.max(facts.hit_tokens);
            ranking.costs.push(situation.terms(facts).total());
        }
        ranking.order_by_cost(situation);
        ranking.reason = "least expected cost";
        if warmest < WARM_SHARE * situation.prompt_tokens {
            spread_cold(situation, ranking);
        }
    }

    fn terms(&self, situation: &Situation<'_>, facts: &Facts) -> Vec<(&'static str, f64)> {
        situation.terms(facts).named()
    }

    fn waits(&self) -> bool {
        true
    }
}

fn spread_cold(situation: &Situation<'_>, ranking: &mut Ranking) {
    let Some(&cheapest) = ranking.order.first() else {
        return;
    };
    let terms = situation.terms(&situation.candidates[cheapest]);
    let tolerance = terms.step + situation.prices.kappa * situation.expected_reuse * terms.prefill;
    let limit = ranking.costs[cheapest] + tolerance;
    let least_given = (0..ranking.costs.len())
        .filter(|&at| ranking.costs[at] <= limit)
        .min_by_key(|&at| {
            let facts = &situation.candidates[at];
            (
                (facts.cold_level * 1e6) as i64,
                (ranking.costs[at] * 1e5) as i64,
                facts.last_dispatch,
                situation.chance(facts.endpoint),
            )
        });
    if let Some(home) = least_given {
        ranking.put_first(home);
        ranking.reason =
            "cold prompt: given the least of them lately, within tolerance of the least cost";
    }
}
