//! The host's clock, made to go forward only.
//!
//! Two threads of a host may come with times a little out of order: then the pool's time stands still for that little.
//! A clock that was set back by more goes on from where the pool's time is: nobody's wait becomes longer by it.

use std::time::Duration;

use crate::time::Time;

/// Longer steps back than this are a clock that was set.
const SET_BACK: Duration = Duration::from_secs(1);

/// The pool's time, and by how much it is ahead of the host's.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Clock {
    now: Time,
    ahead: Duration,
}

impl Clock {
    /// The pool's time when the host says `now`.
    pub(super) fn at(&mut self, now: Time) -> Time {
        let back = self.now - (now + self.ahead);
        if back > SET_BACK {
            self.ahead += back;
        }
        self.now = self.now.max(now + self.ahead);
        self.now
    }

    /// The pool's time.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// A time of the host's in the pool's.
    pub(super) fn inward(&self, time: Time) -> Time {
        time + self.ahead
    }

    /// A time of the pool's in the host's.
    pub(super) fn outward(&self, time: Time) -> Time {
        Time::ZERO + ((time - Time::ZERO).saturating_sub(self.ahead))
    }
}
