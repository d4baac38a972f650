//! Factor: **criticality**. Who goes first, who waits, who is refused.
//!
//! While an endpoint is open nobody waits, and class means little: while a higher class is around, a lower one gives an
//! engine one prompt at a time, so that what comes first has no heap of prefill before it there, where no order helps.
//! When no endpoint is open, the pool is *saturated*: requests with a negative priority are refused at once with the time
//! after which to come back, all others wait here, where they can still be ordered, instead of in an engine, where they
//! can not.
//!
//! Order of those who wait:
//! 1. by priority, strictly: each priority is a *band*, made when first seen;
//! 2. between the flows of a band by what each was served (the `lane` module), so that one client's flood does not
//!    stand before another's single request;
//! 3. within a flow by the seconds of prefill where those are least: short work first (less `aging` times the wait, if
//!    that is set); requests that must be answered by some time come before, by when they have to begin;
//! 4. those that have waited longer than the starvation bound get one second of prefill out of eight, oldest first. So
//!    under a constant stream of a higher class, or of shorter work, nobody starves.
//!
//! The queue is bounded, in requests, bytes and expected wait, and so may each band be. When it is full a newcomer of a
//! higher class takes the place of the youngest of the lowest class; otherwise it is refused itself. A band with a
//! *ceiling* below one keeps the rest of the pool free for higher ones: it is held back, or shed, as soon as the pool is
//! that full.
//!
//! Every setting is in [`FlowControl`].

use std::time::Duration;

use crate::time::Time;

mod drain;
mod lane;
mod queue;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use drain::Drain;
pub(crate) use queue::{Lineup, Queue, Waiting};
pub use settings::{Admission, Band, Fairness, FlowControl, Ordering};

/// Of this many seconds of prefill one goes to the longest waiting, if that is over the starvation bound.
const AGED_SHARE: u64 = 8;

/// Whether a class may be refused when the pool is saturated.
pub(crate) fn sheddable(priority: i32) -> bool {
    priority < 0
}

/// For how long a class counts as being around after a request of it was seen.
const AROUND: Duration = Duration::from_secs(30);

/// Where a request's class stands among those that are around.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Rank {
    /// None is above it.
    Top,
    /// A higher one was seen lately.
    Lower,
}

/// The highest class that is around.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Highest(Option<(i32, Time)>);

impl Highest {
    /// A request of this class arrives.
    pub(crate) fn arrives(&mut self, now: Time, priority: i32) {
        if self.rank(now, priority) == Rank::Top {
            self.0 = Some((priority, now));
        }
    }

    /// Where a class stands.
    pub(crate) fn rank(&self, now: Time, priority: i32) -> Rank {
        match self.0 {
            Some((highest, seen)) if priority < highest && now - seen < AROUND => Rank::Lower,
            _ => Rank::Top,
        }
    }
}

/// Whose turn the next dispatch from the queue is.
///
/// Work counts, not dispatches: who waited for long often waits because its prompt is long, and one such in eight could be
/// most of the work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    /// Nanoseconds of prefill that go in order before the longest waiting may go first again.
    owed: u64,
}

impl Turns {
    /// Whether the longest waiting may go first now.
    pub(crate) fn aged_is_due(&self) -> bool {
        self.owed == 0
    }

    /// A request of so many seconds of prefill left the queue for an endpoint; `aged` out of order because of its age.
    pub(crate) fn dispatched(&mut self, seconds: f64, aged: bool) {
        let nanos = (seconds * 1e9) as u64;
        self.owed = if aged {
            nanos.saturating_mul(AGED_SHARE - 1)
        } else {
            self.owed.saturating_sub(nanos)
        };
    }
}
