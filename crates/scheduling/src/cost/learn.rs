//! What a pool learns from its own traffic. Everything here is a correction of a sensible prior.
//!
//! - `theta` (price on recomputation): gain times `g`, where `g` is, over the last minute, the tokens that the index
//!   knew further than any endpoint still had, by all uncached tokens dispatched. Counting what is missing only on the
//!   *chosen* endpoint would also count every deliberate second copy of a hot prefix.
//! - `rho` (hit ratio, five minutes, prior one half): a cold prefix can expect `rho/(1 - rho)` reuses.
//! - Tokens generated: mean of finished answers, each weighing one in fifty.
//! - Real prompt tokens by estimated ones, within a factor of four.
//! - Confirmed hits: what engines reported as cached by what the index predicted.

use crate::config::{Config, Prices};
use crate::time::Time;

/// A ratio of two sums that fade with time.
#[derive(Clone, Debug)]
struct Fading {
    part: f64,
    whole: f64,
    at: Time,
    span: f64,
}

impl Fading {
    fn new(part: f64, whole: f64, span: f64) -> Self {
        Self {
            part,
            whole,
            at: Time::ZERO,
            span,
        }
    }

    fn add(&mut self, now: Time, part: f64, whole: f64) {
        let fade = (-now.seconds_since(self.at) / self.span).exp();
        self.part = self.part * fade + part;
        self.whole = self.whole * fade + whole;
        self.at = self.at.max(now);
    }

    fn ratio(&self) -> f64 {
        if self.whole > 0.0 {
            self.part / self.whole
        } else {
            0.0
        }
    }
}

/// What a pool has learned.
#[derive(Clone, Debug)]
pub(crate) struct Learned {
    lost: Fading,
    hits: Fading,
    confirmed: f64,
    output: f64,
    scale: f64,
    prefill: f64,
}

impl Learned {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            lost: Fading::new(0.0, 0.0, 60.0),
            hits: Fading::new(8192.0, 16_384.0, 300.0),
            confirmed: 1.0,
            output: f64::from(config.default_output_tokens.max(1)),
            scale: 1.0,
            prefill: 0.05,
        }
    }

    /// A request was dispatched; all in tokens, `seconds` of prefill.
    pub(crate) fn dispatched(&mut self, now: Time, sizes: Dispatched) {
        let lost = (sizes.known - sizes.best_hit).max(0.0);
        self.lost.add(now, lost, sizes.prompt - sizes.hit);
        self.hits.add(now, sizes.hit, sizes.prompt);
        self.prefill += 0.02 * (sizes.seconds - self.prefill);
    }

    /// An answer is complete.
    pub(crate) fn finished(&mut self, tokens: u32) {
        self.output += 0.02 * (f64::from(tokens.max(1)) - self.output);
    }

    /// An engine counted `real` prompt tokens where `estimated` were expected.
    pub(crate) fn counted(&mut self, estimated: u32, real: u32) {
        if estimated > 0 && real > 0 {
            let ratio = (f64::from(real) / f64::from(estimated)).clamp(0.25, 4.0);
            self.scale += 0.05 * (ratio - self.scale);
        }
    }

    /// An engine reported this share of a predicted hit.
    pub(crate) fn confirmed_hit(&mut self, share: f64) {
        self.confirmed += 0.05 * (share - self.confirmed);
    }

    pub(crate) fn theta(&self, prices: &Prices) -> f64 {
        (prices.theta_gain * self.lost.ratio()).clamp(0.0, prices.theta_max)
    }

    pub(crate) fn expected_reuse(&self) -> f64 {
        let rho = self.hit_ratio().clamp(0.0, 0.95);
        rho / (1.0 - rho)
    }

    pub(crate) fn hit_ratio(&self) -> f64 {
        self.hits.ratio()
    }

    pub(crate) fn hit_confirmed(&self) -> f64 {
        self.confirmed
    }

    /// Tokens a request with this limit generates.
    pub(crate) fn output(&self, limit: Option<u32>) -> f64 {
        limit.map_or(self.output, |limit| {
            self.output.min(f64::from(limit.max(1)))
        })
    }

    /// Real prompt tokens by estimated ones.
    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    /// Mean seconds of prefill of a request.
    pub(crate) fn mean_prefill(&self) -> f64 {
        self.prefill
    }
}

/// Sizes of a dispatched request, in tokens.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Dispatched {
    pub(crate) prompt: f64,
    /// Cached where it went.
    pub(crate) hit: f64,
    /// Cached where most is.
    pub(crate) best_hit: f64,
    /// Known to the index.
    pub(crate) known: f64,
    /// Seconds of prefill.
    pub(crate) seconds: f64,
}

impl Dispatched {
    /// Tokens to compute where it went.
    pub(crate) fn uncached(&self) -> u64 {
        (self.prompt - self.hit).max(1.0) as u64
    }
}
