//! AIBrix's `prefix-cache`.
//!
//! ```text
//! if the running requests are too uneven: the least running
//! else by (match in percent descending, running ascending): the first with running <= mean + f*sd
//! else the least running
//! ```
//!
//! Running requests are the gateway's own count. Two gates were shipped: the difference of most and least above a bound,
//! and, later, the most above `2*(mean + 1)` with a difference of at least 8, which matches only among the least
//! running.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::manifest as m;
use super::rule::{Ask, Rule, Verdict, least};

/// When matching gives way to balance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gate {
    /// Most less least above this.
    Difference(f64),
    /// Most above this many times `mean + 1`, and most less least at least [`m::AIBRIX_GAP`].
    Ratio(f64),
}

/// `prefix-cache`.
pub(super) struct PrefixCache {
    pub(super) gate: Gate,
    pub(super) deviations: f64,
}

impl Rule for PrefixCache {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let running: Vec<f64> = ask
            .fleet
            .engines
            .iter()
            .map(|view| f64::from(view.in_flight))
            .collect();
        let counts: Vec<f64> = ask.engines().iter().map(|&e| running[e]).collect();
        let stats = Spread::of(&counts);
        let all = ask.engines().iter().copied();
        let candidates: Vec<usize> = match self.gate {
            Gate::Difference(bound) if stats.most - stats.least > bound => Vec::new(),
            Gate::Ratio(bound)
                if stats.most > bound * (stats.mean + 1.0)
                    && stats.most - stats.least >= m::AIBRIX_GAP =>
            {
                all.filter(|&e| running[e] <= stats.least).collect()
            }
            _ => all.collect(),
        };
        let warm = self.warmest(ask, candidates, &running, &stats, rng);
        warm.or_else(|| least(ask.engines().iter().copied(), |e| running[e], rng))
            .map_or(Verdict::Refuse, Verdict::Send)
    }
}

impl PrefixCache {
    fn warmest(
        &self,
        ask: &Ask<'_>,
        mut candidates: Vec<usize>,
        running: &[f64],
        stats: &Spread,
        rng: &mut ChaCha8Rng,
    ) -> Option<usize> {
        let percent = |e: usize| (100.0 * ask.matched(e)) as u32;
        candidates.retain(|&e| ask.hits[e] > 0);
        candidates.shuffle(rng);
        candidates.sort_by(|&a, &b| {
            let by_match = percent(b).cmp(&percent(a));
            by_match.then(running[a].total_cmp(&running[b]))
        });
        let bound = stats.mean + self.deviations * stats.deviation;
        candidates.into_iter().find(|&e| running[e] <= bound)
    }
}

/// How some loads are spread.
struct Spread {
    least: f64,
    most: f64,
    mean: f64,
    deviation: f64,
}

impl Spread {
    fn of(loads: &[f64]) -> Self {
        let count = loads.len().max(1) as f64;
        let mean = loads.iter().sum::<f64>() / count;
        let variance = loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>() / count;
        Self {
            least: loads.iter().copied().fold(f64::INFINITY, f64::min),
            most: loads.iter().copied().fold(0.0, f64::max),
            mean,
            deviation: variance.sqrt(),
        }
    }
}
