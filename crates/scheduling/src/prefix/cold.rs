//! How much of the load of cold prompts an endpoint got.
//!
//! Where a cold prompt goes decides where its followers go, so over time every endpoint should get as much of them as
//! the others, for its speed. The measure is seconds of prefill and the price `w` of the decodes that follow: by prefill
//! alone an endpoint that got one long prompt gets none of a hundred short ones, and the others get all their decodes. A
//! sum that fades remembers who was passed over, however often; an order of who got one last forgets it at the next one,
//! and the differences add up like the steps of a drunk man.
//!
//! All sums fade alike, so whoever only compares them need not know the time. Kept is `ln(sum) + t/SPAN`, which does not
//! change while nothing is given: every decision reads it for every endpoint, and only a cold prompt pays for logarithms.

use crate::time::Time;

/// Seconds in which what was given comes to count for a third: as long as the hit ratio is remembered.
const SPAN: f64 = 300.0;

/// Seconds of work of cold prompts that an endpoint got lately.
#[derive(Copy, Clone, PartialEq, PartialOrd, Debug)]
pub(crate) struct Cold(f64);

impl Default for Cold {
    fn default() -> Self {
        Self(f64::NEG_INFINITY)
    }
}

impl Cold {
    /// A cold prompt that costs it so many seconds goes there.
    pub(crate) fn give(&mut self, now: Time, seconds: f64) {
        let age = now.as_secs_f64() / SPAN;
        let sum = (self.0 - age).exp() + seconds.max(1e-6);
        self.0 = sum.ln() + age;
    }

    /// Ascends with the sum, and is comparable between endpoints at any one time.
    pub(crate) fn level(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(gifts: &[(f64, f64)]) -> Cold {
        let mut cold = Cold::default();
        for &(at, seconds) in gifts {
            cold.give(Time::from_secs_f64(at), seconds);
        }
        cold
    }

    #[test]
    fn what_was_given_adds_up_and_fades() {
        assert!(given(&[]) < given(&[(0.0, 0.0)]));
        assert!(given(&[(5.0, 1.0), (5.0, 1.0)]) > given(&[(5.0, 1.9)]));
        assert!(given(&[(5.0, 1.0), (5.0, 1.0)]) < given(&[(5.0, 2.1)]));
        // After SPAN a third is left.
        assert!(given(&[(0.0, 3.0)]) > given(&[(SPAN, 1.0)]));
        assert!(given(&[(0.0, 2.5)]) < given(&[(SPAN, 1.0)]));
    }

    #[test]
    fn years_do_not_wear_it_out() {
        let year = 365.0 * 86_400.0;
        let passed_over = given(&[(0.0, 1e6), (9.0 * year, 1.0)]);
        assert!(passed_over < given(&[(9.0 * year, 1.0), (9.0 * year, 0.1)]));
        assert!(passed_over > given(&[(9.0 * year, 0.9)]));
        assert!(passed_over.level().is_finite());
    }
}
