//! Randomness with names.
//!
//! Each use draws from a stream of its own, found by seed, purpose and number. So request 17 has the same prompt at
//! every load, and a session plays out the same whichever policy served it: runs can be compared in pairs.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Arrivals = 1,
    Contents = 2,
    Session = 3,
    Fixtures = 4,
    Jitter = 5,
    Window = 6,
    Order = 7,
}

/// The stream of that purpose and number.
pub(super) fn stream(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(name(&[seed, purpose as u64, number]))
}

/// One name for several numbers, equal only where all are.
pub(super) fn name(parts: &[u64]) -> u64 {
    parts.iter().fold(parts.len() as u64, |hash, part| {
        xxh3_64_with_seed(&part.to_le_bytes(), hash)
    })
}

/// A number of a standard exponential distribution, never negative.
pub(super) fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    Exp1.sample(rng)
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// How many tokens something has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tokens {
    /// Always so many.
    Fixed(u32),
    /// Evenly between the two, both included.
    Uniform(u32, u32),
    /// Lognormal by median and the sigma of the logarithm, cut to the range.
    LogNormal {
        median: f64,
        sigma: f64,
        range: (u32, u32),
    },
    /// Exponential by mean, cut to the range.
    Exponential { mean: f64, range: (u32, u32) },
    /// Normal by mean and deviation, cut to the range.
    Normal {
        mean: f64,
        deviation: f64,
        range: (u32, u32),
    },
    /// Quantiles as published: (share, tokens), from share 0 to share 1, log-linear between. Between two published
    /// quantiles a long tail falls about like 1/x, which is what the straight line over a logarithm says.
    Quantiles(&'static [(f64, u32)]),
    /// One of two, the first with that probability.
    Either(f64, &'static Self, &'static Self),
}

impl Tokens {
    pub(super) fn sample(&self, rng: &mut ChaCha8Rng) -> u32 {
        match *self {
            Self::Fixed(tokens) => tokens,
            Self::Uniform(low, high) => rng.random_range(low..=high.max(low)),
            Self::LogNormal {
                median,
                sigma,
                range,
            } => cut(range, || median * (sigma * normal(rng)).exp()),
            Self::Exponential { mean, range } => cut(range, || mean * exponential(rng)),
            Self::Normal {
                mean,
                deviation,
                range,
            } => cut(range, || mean + deviation * normal(rng)),
            Self::Quantiles(knots) => between(knots, rng.random()),
            Self::Either(first, one, other) => {
                if rng.random::<f64>() < first {
                    one.sample(rng)
                } else {
                    other.sample(rng)
                }
            }
        }
    }
}

/// Draws until one falls into the range, as a filter over a data set does; gives in after some tries.
fn cut((low, high): (u32, u32), mut draw: impl FnMut() -> f64) -> u32 {
    const TRIES: usize = 64;
    let mut last = f64::from(low);
    for _ in 0..TRIES {
        last = draw().round();
        if (f64::from(low)..=f64::from(high)).contains(&last) {
            break;
        }
    }
    last.clamp(f64::from(low), f64::from(high)) as u32
}

fn between(knots: &[(f64, u32)], share: f64) -> u32 {
    let above = knots.partition_point(|(at, _)| *at < share).max(1);
    let (Some(low), Some(high)) = (knots.get(above - 1), knots.get(above).or(knots.last())) else {
        return 1;
    };
    let width = (high.0 - low.0).max(f64::EPSILON);
    let part = ((share - low.0) / width).clamp(0.0, 1.0);
    let (from, to) = (f64::from(low.1).ln(), f64::from(high.1).ln());
    (from + part * (to - from)).exp().round() as u32
}

/// Ranks by popularity: rank r (from 0) has weight `1/(r+1)^s`.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(count: usize, s: f64) -> Self {
        Self::weighted((1..=count).map(|rank| (rank as f64).powf(-s)))
    }

    /// Ranks with weights of their own.
    pub(super) fn weighted(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let cumulative = weights
            .into_iter()
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { cumulative }
    }

    pub(super) fn sample(&self, rng: &mut ChaCha8Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let at = rng.random::<f64>() * total;
        self.cumulative
            .partition_point(|sum| *sum <= at)
            .min(self.cumulative.len().saturating_sub(1))
    }
}
