//! The endpoint picker of the Gateway API Inference Extension, which llm-d inherited.
//!
//! ```text
//! score_i = wp*matched_i + wq*Q_i + wk*(1 - kv_i) [+ wn*N_i] [+ wl*L_i]        argmax, at random among equals
//! Q_i     = (qmax - q_i)/(qmax - qmin), 1 if all are equal; q = waiting requests of the last page
//! N_i     = 1/2 for a prompt that is warm anywhere; else by how long ago the endpoint last got a cold one
//! L_i     = 1 adapter resident, 0.8 a slot is free, 0.6 somebody waits for it there, 0 else
//! ```
//!
//! Only jobs of negative priority are ever refused, while the pool is saturated:
//! `mean of max(q_i/5, kv_i/0.8) >= 1`, where a page older than 200 ms counts as saturated.

use rand_chacha::ChaCha8Rng;

use super::fleet::Fleet;
use super::manifest as m;
use super::rule::{Ask, Rule, Verdict, least_of_all};

/// Weights of the scorers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weights {
    pub(super) prefix: f64,
    pub(super) queue: f64,
    pub(super) kv: f64,
    pub(super) no_hit_lru: f64,
    pub(super) lora: f64,
}

/// The blend.
pub(super) struct Gaie {
    weights: Weights,
    /// When each endpoint last got a cold prompt, as a count of cold prompts; 0: never.
    cold: Vec<u64>,
    cold_prompts: u64,
    refuses: bool,
}

impl Gaie {
    /// `refuses`: whether it refuses jobs of negative priority itself, or leaves admission to flow control.
    pub(super) fn new(weights: Weights, engines: usize, refuses: bool) -> Self {
        Self {
            weights,
            cold: vec![0; engines],
            cold_prompts: 0,
            refuses,
        }
    }

    fn scores(&self, ask: &Ask<'_>) -> Vec<f64> {
        let weights = &self.weights;
        let queue = queue_scores(ask.fleet);
        let idle = self.no_hit_lru(ask);
        ask.fleet
            .engines
            .iter()
            .enumerate()
            .map(|(i, view)| {
                weights.prefix * ask.matched(i)
                    + weights.queue * queue[i]
                    + weights.kv * (1.0 - view.kv_usage()).clamp(0.0, 1.0)
                    + weights.no_hit_lru * idle[i]
                    + weights.lora * lora_score(ask, i)
            })
            .collect()
    }

    /// Cold prompts go first to endpoints that never got one, in order, then to the one that got one longest ago.
    fn no_hit_lru(&self, ask: &Ask<'_>) -> Vec<f64> {
        let engines = self.cold.len();
        if is_warm(ask) {
            return vec![m::GAIE_WARM_SCORE; engines];
        }
        let mut order: Vec<usize> = (0..engines).collect();
        order.sort_by_key(|&engine| (self.cold[engine], engine));
        let mut scores = vec![1.0; engines];
        if engines > 1 {
            for (place, engine) in order.into_iter().enumerate() {
                scores[engine] = 1.0 - place as f64 / (engines - 1) as f64;
            }
        }
        scores
    }
}

impl Rule for Gaie {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        if self.refuses && ask.job.priority < 0 && saturation(ask.fleet, ask.now) >= 1.0 {
            return Verdict::Refuse;
        }
        let scores = self.scores(ask);
        least_of_all(ask, |engine| -scores[engine], rng)
    }

    fn sent(&mut self, ask: &Ask<'_>, engine: usize) {
        if !is_warm(ask) {
            self.cold_prompts += 1;
            self.cold[engine] = self.cold_prompts;
        }
    }
}

fn is_warm(ask: &Ask<'_>) -> bool {
    ask.hits.iter().any(|&hit| hit > 0)
}

fn queue_scores(fleet: &Fleet) -> Vec<f64> {
    let waiting = || fleet.engines.iter().map(|view| f64::from(view.waiting()));
    let most = waiting().fold(0.0, f64::max);
    let least = waiting().fold(f64::INFINITY, f64::min);
    waiting()
        .map(|q| {
            if most > least {
                (most - q) / (most - least)
            } else {
                1.0
            }
        })
        .collect()
}

fn lora_score(ask: &Ask<'_>, engine: usize) -> f64 {
    let view = &ask.fleet.engines[engine];
    let Some(adapter) = ask.job.adapter else {
        return 0.0;
    };
    if view.resident.contains(&adapter) {
        m::GAIE_LORA_RESIDENT
    } else if view.resident.len() + view.wanted.len() < view.config.lora.max_loras {
        m::GAIE_LORA_FREE
    } else if view.wanted.contains(&adapter) {
        m::GAIE_LORA_WAITING
    } else {
        0.0
    }
}

/// How full the pool is; from 1 on it is saturated. Endpoints without a fresh page count 1.
pub(super) fn saturation(fleet: &Fleet, now: f64) -> f64 {
    let of = |view: &super::fleet::View| match view.gauge {
        Some(gauge) if now - gauge.at <= m::GAIE_STALE_SECONDS => {
            let queue = f64::from(gauge.waiting) / m::GAIE_QUEUE_THRESHOLD;
            queue.max(gauge.kv_usage / m::GAIE_KV_THRESHOLD)
        }
        _ => 1.0,
    };
    let up = || fleet.engines.iter().filter(|view| view.up);
    let sum: f64 = up().map(of).sum();
    sum / up().count().max(1) as f64
}
