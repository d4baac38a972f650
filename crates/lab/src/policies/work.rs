//! Policies that count uncached prompt tokens, which the gateway tracks from dispatch to the first token.
//!
//! ```text
//! LPWL:    argmin  pending_i + u_i                       (least pending work left)
//! LMetric: argmin (pending_i + u_i) * (batch_i + 1)      (arXiv 2603.15202)
//! ```
//!
//! `pending` is the uncached tokens of prompts without a first token, `u` the job's own uncached tokens there, `batch`
//! the requests in flight. LMetric's paper multiplies by the batch as it is; the one more is the job itself, and keeps
//! idle engines apart.

use rand_chacha::ChaCha8Rng;

use super::rule::{Ask, Rule, Verdict, least_of_all};

/// Least pending work left.
pub(super) struct Lpwl;

impl Rule for Lpwl {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        least_of_all(ask, |engine| work(ask, engine), rng)
    }
}

/// Pending work times batch.
pub(super) struct LMetric;

impl Rule for LMetric {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let cost = |engine: usize| {
            let batch = ask.fleet.engines[engine].in_flight + 1;
            work(ask, engine) * f64::from(batch)
        };
        least_of_all(ask, cost, rng)
    }
}

/// Uncached tokens before an engine, the job's own included.
pub(super) fn work(ask: &Ask<'_>, engine: usize) -> f64 {
    ask.fleet.engines[engine].pending_tokens as f64 + f64::from(ask.uncached(engine))
}
