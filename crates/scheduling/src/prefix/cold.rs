//! How much of the load of cold prompts an endpoint got.
//!
//! Where a cold prompt goes decides where its followers go, so over time every endpoint should get as much of them as
//! the others, for its speed: the measure is seconds of prefill. A count that fades remembers who was passed over, however often; an order of who got one last forgets it
//! at the next one, and the differences add up like the steps of a drunk man.

use crate::time::Time;

/// Seconds in which what was given counts for a third of what it did: as long as the hit ratio is remembered.
const SPAN: f64 = 300.0;

/// Seconds of prefill of cold prompts that an endpoint got lately.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Cold {
    seconds: f64,
    at: Time,
}

impl Cold {
    /// One that has so many at `now`.
    pub(crate) fn new(now: Time, seconds: f64) -> Self {
        Self { seconds, at: now }
    }

    /// A cold prompt that takes it so many seconds goes there.
    pub(crate) fn give(&mut self, now: Time, seconds: f64) {
        *self = Self::new(self.at.max(now), self.seconds(now) + seconds);
    }

    /// Seconds of cold prompts, each weighing less the longer ago it came.
    pub(crate) fn seconds(&self, now: Time) -> f64 {
        self.seconds * (-now.seconds_since(self.at) / SPAN).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_adds_up_and_fades() {
        let mut cold = Cold::default();
        cold.give(Time::from_secs_f64(0.0), 1000.0);
        cold.give(Time::from_secs_f64(0.0), 500.0);
        assert_eq!(cold.seconds(Time::from_secs_f64(0.0)), 1500.0);
        let later = cold.seconds(Time::from_secs_f64(SPAN));
        assert!((550.0..553.0).contains(&later), "{later}");
        cold.give(Time::from_secs_f64(SPAN), 100.0);
        let sum = cold.seconds(Time::from_secs_f64(SPAN));
        assert!((sum - later - 100.0).abs() < 1e-9);
    }
}
