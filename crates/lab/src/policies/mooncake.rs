//! Mooncake's Conductor, Algorithm 1 (arXiv 2407.00079), on engines that cannot fetch blocks from each other.
//!
//! ```text
//! TTFT_i = T_queue_i + T_prefill(prompt, hit_i)        pick the least
//! refuse if TTFT > 30 s, or if a step with one more decode takes longer than 300 ms
//! ```
//!
//! The algorithm's other branch, to fetch the best prefix from its owner when it is longer than the local one by a
//! factor, costs a transfer that does not exist here, so it is never the cheaper one.

use rand_chacha::ChaCha8Rng;

use super::manifest as m;
use super::predicted::tpot;
use super::rule::{Ask, Rule, Verdict, least};

/// The conductor.
pub(super) struct Conductor {
    /// Whether it refuses jobs that would miss the SLOs, as the paper does.
    pub(super) refuses: bool,
}

impl Rule for Conductor {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let Some(engine) = least(ask.engines().iter().copied(), |e| ttft(ask, e), rng) else {
            return Verdict::Refuse;
        };
        let late = ttft(ask, engine) > m::MOONCAKE_TTFT_SECONDS
            || tpot(ask, engine) > m::MOONCAKE_TBT_SECONDS;
        if self.refuses && late {
            return Verdict::Refuse;
        }
        Verdict::Send(engine)
    }
}

fn ttft(ask: &Ask<'_>, engine: usize) -> f64 {
    let view = &ask.fleet.engines[engine];
    view.work_left(ask.now) + view.prefill_seconds(ask.cached(engine), ask.uncached(engine))
}
