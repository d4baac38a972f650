//! Predicted latency, with a model as good as it gets: the engine's own step time instead of llm-d's learned trees.
//!
//! ```text
//! TTFT_i = work left before the job + its own prefill + the decodes' share of each step + half a step + wait for KV
//! TPOT_i = a step with one more decode
//! ```
//!
//! The shipped rule keeps the endpoints that hold 0.8 of the prompt (with probability 0.99, unless they are more than
//! 5 s behind), then takes the least of `0.8*TTFT + 0.2*TPOT`, each scaled to 0..1 among what is left. The greedy one
//! takes the least TTFT.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::llmd::affine;
use super::manifest as m;
use super::rule::{Ask, Rule, Verdict, least, least_of_all};

/// Predicted seconds to the job's first token on an engine.
pub(super) fn ttft(ask: &Ask<'_>, engine: usize) -> f64 {
    let view = &ask.fleet.engines[engine];
    let uncached = ask.uncached(engine);
    let tokens = view.pending_tokens + u64::from(uncached);
    let steps = tokens.div_ceil(u64::from(view.config.max_batched_tokens.max(1)));
    view.work_left(ask.now)
        + view.prefill_seconds(ask.cached(engine), uncached)
        + steps as f64 * view.decode_share()
        + view.decode_seconds(None) / 2.0
        + kv_wait(ask, engine)
}

/// Seconds until enough jobs ended to make room, by the last page's KV use.
fn kv_wait(ask: &Ask<'_>, engine: usize) -> f64 {
    let view = &ask.fleet.engines[engine];
    let need = view.kv_usage() * view.kv_tokens() + f64::from(ask.uncached(engine));
    let short = (need - view.kv_tokens()).max(0.0);
    view.release_rate().map_or(0.0, |rate| short / rate)
}

/// Predicted seconds a token on an engine.
pub(super) fn tpot(ask: &Ask<'_>, engine: usize) -> f64 {
    ask.fleet.engines[engine].decode_seconds(Some(ask.job.prompt_tokens))
}

/// The least predicted TTFT.
pub(super) struct Greedy;

impl Rule for Greedy {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        least_of_all(ask, |engine| ttft(ask, engine), rng)
    }
}

/// Gates and blend as llm-d ships them.
pub(super) struct Predicted;

impl Rule for Predicted {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let all = 0..ask.fleet.engines.len();
        let ttfts: Vec<f64> = all.clone().map(|e| ttft(ask, e)).collect();
        let tpots: Vec<f64> = all.map(|e| tpot(ask, e)).collect();
        let among = if rng.random_bool(m::PREDICTED_EXPLORE) {
            ask.engines().to_vec()
        } else {
            affine(
                ask,
                m::PREDICTED_AFFINITY,
                m::PREDICTED_PENALTY_SECONDS,
                |e| ttfts[e],
            )
        };
        let (first, rate) = (Scale::over(&among, &ttfts), Scale::over(&among, &tpots));
        let weights = match (first.width > 0.0, rate.width > 0.0) {
            (true, true) => (m::PREDICTED_TTFT_WEIGHT, m::PREDICTED_TPOT_WEIGHT),
            (true, false) => (1.0, 0.0),
            (false, _) => (0.0, 1.0),
        };
        let cost = |e: usize| weights.0 * first.of(ttfts[e]) + weights.1 * rate.of(tpots[e]);
        least(among, cost, rng).map_or(Verdict::Refuse, Verdict::Send)
    }
}

/// Least and width of some values, to scale them to 0..1.
struct Scale {
    least: f64,
    width: f64,
}

impl Scale {
    fn over(among: &[usize], values: &[f64]) -> Self {
        let of = || among.iter().map(|&engine| values[engine]);
        let least = of().fold(f64::INFINITY, f64::min);
        let most = of().fold(f64::NEG_INFINITY, f64::max);
        Self {
            least,
            width: most - least,
        }
    }

    fn of(&self, value: f64) -> f64 {
        if self.width > 0.0 {
            (value - self.least) / self.width
        } else {
            0.0
        }
    }
}
