//! How fast a saturated pool works off what waits.

use crate::time::Time;

/// Seconds after which what was seen counts a third.
const SPAN: f64 = 30.0;
/// Seconds of seeing that the prior is worth.
const PRIOR: f64 = 5.0;

/// Seconds of prefill dispatched per second of saturation. The prior is one for each endpoint, which is what engines do
/// that have nothing but prefills to do; decodes, full caches and slow networks make it less.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    work: f64,
    span: f64,
    /// Until when it was seen, if the pool was saturated then.
    saturated: Option<Time>,
}

impl Drain {
    /// Time has come to `now`.
    pub(crate) fn pass(&mut self, now: Time) {
        if let Some(since) = &mut self.saturated {
            let span = now.seconds_since(*since);
            *since = now;
            let fade = (-span / SPAN).exp();
            self.work *= fade;
            self.span = self.span * fade + span;
        }
    }

    /// Whether the pool is saturated from now on.
    pub(crate) fn saturated(&mut self, now: Time, saturated: bool) {
        self.saturated = saturated.then_some(now);
    }

    /// Something that takes `seconds` of prefill was dispatched.
    pub(crate) fn dispatched(&mut self, seconds: f64) {
        if self.saturated.is_some() {
            self.work += seconds;
        }
    }

    /// Seconds of prefill per second.
    pub(crate) fn rate(&self, endpoints: usize) -> f64 {
        let prior = PRIOR * endpoints.max(1) as f64;
        // Never so slow that nothing could be foretold.
        ((self.work + prior) / (self.span + PRIOR)).max(1e-3)
    }
}
