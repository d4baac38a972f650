//! llm-d's present default, "sticky until saturated".
//!
//! ```text
//! sticky = endpoints that hold at least 0.8 of the prompt
//! TTFT_i = pending_i / R                               R = peak prefill tokens a second
//! if least TTFT among sticky - least TTFT among the others > T: forget about sticky
//! pick   = argmin among what is left of pending_i + u_i
//! ```
//!
//! `pending` is the uncached tokens in flight; they leave it at the first token.

use rand_chacha::ChaCha8Rng;

use super::manifest as m;
use super::rule::{Ask, Rule, Verdict, least};
use super::work::work;

/// The engines whose affinity counts: those with enough of the prompt, unless they are behind the others by more than
/// `penalty` seconds; else all.
pub(super) fn affine(
    ask: &Ask<'_>,
    threshold: f64,
    penalty: f64,
    ttft: impl Fn(usize) -> f64,
) -> Vec<usize> {
    let (sticky, others): (Vec<usize>, Vec<usize>) = ask
        .engines()
        .iter()
        .partition(|&&engine| ask.matched(engine) >= threshold);
    let best = |of: &[usize]| of.iter().map(|&e| ttft(e)).fold(f64::INFINITY, f64::min);
    let too_late = !others.is_empty() && best(&sticky) - best(&others) > penalty;
    if sticky.is_empty() || too_late {
        return ask.engines().to_vec();
    }
    sticky
}

/// Peak prefill speed, tokens a second.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peak {
    /// The recipe's, whatever the engine.
    Published,
    /// Each engine's own, on a prompt of one full step.
    Own,
}

/// Affinity, then the least token load.
pub(super) struct Sticky {
    pub(super) peak: Peak,
    pub(super) penalty_seconds: f64,
}

impl Sticky {
    fn ttft(&self, ask: &Ask<'_>, engine: usize) -> f64 {
        let view = &ask.fleet.engines[engine];
        let peak = match self.peak {
            Peak::Published => m::LLMD_PEAK_TOKENS,
            Peak::Own => {
                let step = view.config.max_batched_tokens;
                f64::from(step) / view.prefill_seconds(0, step)
            }
        };
        view.pending_tokens as f64 / peak
    }
}

impl Rule for Sticky {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let among = affine(ask, m::LLMD_AFFINITY, self.penalty_seconds, |engine| {
            self.ttft(ask, engine)
        });
        let pick = least(
            among,
            |engine| work(ask, engine).min(m::LLMD_LOAD_CEILING),
            rng,
        );
        pick.map_or(Verdict::Refuse, Verdict::Send)
    }
}
