//! Scorers: how good each candidate is, from 0 to 1.
//!
//! ```text
//! queue            (max - q)/(max - min) of requests in the engines' queues; all equal: 1
//! running          the same of requests in their batches
//! kv-cache         1 - share of the KV cache in use
//! load-aware       1/2 for an empty queue, else (1 - min(q, T)/T)/2
//! active-request   1 if idle, else (max - c)/max * B of our requests in flight
//! token-load       1 - min(1, (tokens in flight + those of this prompt that are not cached)/T)
//! prefix-cache     w*min(1, matched tokens/L)^2 + (1 - w)*matched share
//! no-hit-lru       1/2 for a prompt cached anywhere; else 1 - i/(n - 1) by how long ago a cold prompt came
//! lora-affinity    1 adapter there, 0.8 a slot is free, 0.6 it is being loaded, 0 else
//! context-length   within the range of its label 0.3 + 0.7*(0.7/(1 + width/10000) + 0.3*headroom/width),
//!                  outside 0.3/(1 + distance/1000), without the label 1/2
//! latency          see `Headroom`
//! ```

use super::filter::{Gauge, headroom, kv_usage, matched};
use super::labels::Book;
use crate::adapters::AdapterState;
use crate::cost::{Facts, Situation};

/// Gives each candidate a number from 0 to 1.
#[derive(Clone, PartialEq, Debug)]
pub enum Scorer {
    /// Few requests in the engine's queue.
    Queue,
    /// Few requests in its batch.
    Running,
    /// Much KV cache free.
    KvUsage,
    /// An empty queue, or a short one.
    LoadAware {
        /// Requests at which it is worth nothing.
        threshold: f64,
    },
    /// Few of our requests in flight.
    ActiveRequests {
        /// Up to so many requests it counts as idle.
        idle: f64,
        /// The most that one that is not idle gets, 0 to 1.
        busy: f64,
    },
    /// Few prompt tokens to compute, this request's included.
    TokenLoad {
        /// Tokens at which it is worth nothing.
        threshold: f64,
    },
    /// Much of the prompt cached.
    Prefix {
        /// Weight of the length over the share, 0 to 1.
        length_weight: f64,
        /// Tokens at which length is worth all.
        length_scale: f64,
    },
    /// Cold prompts in turn.
    NoHitLru,
    /// The adapter is there, or has a place.
    Lora,
    /// The prompt's length is in the range that this label of the endpoint gives, as `min-max` tokens.
    ContextLength {
        /// The label.
        label: String,
    },
    /// By predicted latency.
    Latency(Headroom),
}

/// By how much a candidate is expected to meet the targets for the first token (x) and for each further one (y).
///
/// Those that meet both come before those that do not. Within either, x and y are brought to 0..1 between the least and
/// the most, and `s = a*x + b*y`, where a dimension in which all are equal gives its weight to the other. The score is
/// `1 - s`, the best fit, or `s`, the most room; always the most room among those that miss a target. The predictions
/// are those of the cost model.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Headroom {
    /// Weight of the first token.
    pub ttft: f64,
    /// Weight of further tokens.
    pub tpot: f64,
    /// The most room in place of the best fit.
    pub most: bool,
}

impl Scorer {
    /// The name of its term in explanations.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Running => "running",
            Self::KvUsage => "kv_cache",
            Self::LoadAware { .. } => "load_aware",
            Self::ActiveRequests { .. } => "active_request",
            Self::TokenLoad { .. } => "token_load",
            Self::Prefix { .. } => "prefix_cache",
            Self::NoHitLru => "no_hit_lru",
            Self::Lora => "lora_affinity",
            Self::ContextLength { .. } => "context_length",
            Self::Latency(_) => "latency",
        }
    }

    /// The scores of the candidates in `left`, in their order, each from 0 to 1.
    pub(super) fn scores(
        &self,
        situation: &Situation<'_>,
        left: &[usize],
        book: &Book,
    ) -> Vec<f64> {
        let each = |score: &dyn Fn(&Facts) -> f64| -> Vec<f64> {
            let of = |&at: &usize| score(&situation.candidates[at]);
            left.iter().map(of).collect()
        };
        let mut scores = match self {
            Self::Queue => least_is_best(each(&|it| Gauge::Waiting.of(it))),
            Self::Running => least_is_best(each(&|it| Gauge::Running.of(it))),
            Self::KvUsage => each(&|it| 1.0 - kv_usage(it)),
            Self::LoadAware { threshold } => {
                each(&|it| 0.5 * (1.0 - (it.waiting / threshold.max(1.0)).min(1.0)))
            }
            Self::ActiveRequests { idle, busy } => {
                active(each(&|it| Gauge::Active.of(it)), *idle, *busy)
            }
            Self::TokenLoad { threshold } => each(&|it| {
                let tokens = it.pending_tokens + (situation.prompt_tokens - it.hit_tokens).max(0.0);
                1.0 - (tokens / threshold.max(1.0)).min(1.0)
            }),
            Self::Prefix {
                length_weight,
                length_scale,
            } => each(&|it| {
                let length = (it.hit_tokens / length_scale.max(1.0)).min(1.0).powi(2);
                length_weight * length + (1.0 - length_weight) * matched(situation, it)
            }),
            Self::NoHitLru => no_hit_lru(situation, left),
            Self::Lora => each(&|it| lora(it.adapter)),
            Self::ContextLength { label } => each(&|it| {
                let range = book.get(it.endpoint).and_then(|labels| labels.get(label));
                let range = range.and_then(|text| range_of(text));
                range.map_or(0.5, |range| context_length(situation.prompt_tokens, range))
            }),
            Self::Latency(weights) => weights.scores(situation, left),
        };
        for score in &mut scores {
            *score = score.clamp(0.0, 1.0);
        }
        scores
    }
}

fn span(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

fn least_is_best(values: Vec<f64>) -> Vec<f64> {
    let (least, most) = span(&values);
    let score = |value: f64| {
        if most > least {
            (most - value) / (most - least)
        } else {
            1.0
        }
    };
    values.into_iter().map(score).collect()
}

fn active(counts: Vec<f64>, idle: f64, busy: f64) -> Vec<f64> {
    let (_, most) = span(&counts);
    let score = |count: f64| {
        if count <= idle {
            1.0
        } else {
            (most - count) / most * busy
        }
    };
    counts.into_iter().map(score).collect()
}

fn lora(state: AdapterState) -> f64 {
    match state {
        AdapterState::Resident => 1.0,
        AdapterState::Free => 0.8,
        AdapterState::Loading => 0.6,
        AdapterState::Full => 0.0,
    }
}

fn no_hit_lru(situation: &Situation<'_>, left: &[usize]) -> Vec<f64> {
    if situation.candidates.iter().any(|it| it.hit_tokens > 0.0) {
        return vec![0.5; left.len()];
    }
    let mut order: Vec<usize> = (0..left.len()).collect();
    order.sort_by_key(|&place| {
        let facts = &situation.candidates[left[place]];
        (facts.last_cold, facts.endpoint)
    });
    let mut scores = vec![1.0; left.len()];
    for (turn, place) in order.into_iter().enumerate().skip(1) {
        scores[place] = 1.0 - turn as f64 / (left.len() - 1) as f64;
    }
    scores
}

/// `min-max`, in tokens.
fn range_of(text: &str) -> Option<(f64, f64)> {
    let (least, most) = text.split_once('-')?;
    let (least, most): (u32, u32) = (least.trim().parse().ok()?, most.trim().parse().ok()?);
    (least < most).then_some((f64::from(least), f64::from(most)))
}

fn context_length(tokens: f64, (least, most): (f64, f64)) -> f64 {
    if tokens < least || tokens > most {
        let distance = (least - tokens).max(tokens - most);
        return 0.3 / (1.0 + distance / 1000.0);
    }
    let width = most - least;
    let room = (most - tokens) / width;
    0.3 + 0.7 * (0.7 / (1.0 + width / 10_000.0) + 0.3 * room)
}

impl Headroom {
    fn scores(&self, situation: &Situation<'_>, left: &[usize]) -> Vec<f64> {
        let room = |&at: &usize| headroom(situation, &situation.candidates[at]);
        let first: Vec<f64> = left.iter().map(room).collect();
        let step = |&at: &usize| -situation.terms(&situation.candidates[at]).step;
        let further: Vec<f64> = left.iter().map(step).collect();
        // No target for further tokens reaches the core: the first token's alone says who is fine.
        let fine: Vec<usize> = (0..left.len()).filter(|&at| first[at] >= 0.0).collect();
        let (bucket, most) = if fine.is_empty() {
            ((0..left.len()).collect(), true)
        } else {
            (fine, self.most)
        };
        let pick = |of: &[f64]| bucket.iter().map(|&at| of[at]).collect::<Vec<f64>>();
        let blend = blend(&pick(&first), &pick(&further), self.ttft, self.tpot);
        let mut scores = vec![0.0; left.len()];
        for (&at, room) in bucket.iter().zip(blend) {
            scores[at] = if most { room } else { 1.0 - room };
        }
        scores
    }
}

/// `a*x + b*y` with both brought to 0..1 and the weights to a sum of 1.
fn blend(x: &[f64], y: &[f64], a: f64, b: f64) -> Vec<f64> {
    let ((x_least, x_most), (y_least, y_most)) = (span(x), span(y));
    let (x_width, y_width) = (x_most - x_least, y_most - y_least);
    let a = if x_width > 0.0 { a } else { 0.0 };
    let b = if y_width > 0.0 { b } else { 0.0 };
    if a + b <= 0.0 {
        return vec![0.0; x.len()];
    }
    let part = |value: f64, least: f64, width: f64| {
        if width > 0.0 {
            (value - least) / width
        } else {
            0.0
        }
    };
    x.iter()
        .zip(y)
        .map(|(&x, &y)| (a * part(x, x_least, x_width) + b * part(y, y_least, y_width)) / (a + b))
        .collect()
}
