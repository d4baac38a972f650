//! Factor: **criticality**. Who goes first, who waits, who is refused.
//!
//! While an endpoint is open nobody waits and class means nothing. When none is, the pool is *saturated*: requests
//! with a negative priority are refused at once with the time after which to come back, all others wait here, where
//! they can still be ordered, instead of in an engine, where they can not.
//!
//! Order of those who wait:
//! 1. by priority, strictly;
//! 2. within a class by `S_min + backlog - 0.1 * wait`, in seconds: short work first, but a second of prefill more is
//!    made up by ten seconds of waiting, and a flow stands behind the work it has waiting already, so that one client's
//!    flood does not stand before another's single request (requests without a flow, flow 0, are not compared so);
//! 3. a request that has waited longer than the starvation bound goes before everybody in one dispatch out of eight.
//!    So under a constant stream of a higher class a lower one still gets an eighth of the dispatches, oldest first.
//!
//! The queue is bounded. When it is full a newcomer of a higher class takes the place of the youngest of the lowest
//! class; otherwise it is refused itself.

mod queue;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use queue::{Queue, Waiting};
pub use settings::{Admission, Band, Fairness, FlowControl, Ordering};

/// Of this many dispatches one goes to the longest waiting, if that is over the starvation bound.
const AGED_SHARE: u32 = 8;

/// Whether a class may be refused when the pool is saturated.
pub(crate) fn sheddable(priority: i32) -> bool {
    priority < 0
}

/// Whose turn the next dispatch from the queue is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    since_aged: u32,
}

impl Turns {
    /// Whether the longest waiting may go first now.
    pub(crate) fn aged_is_due(&self) -> bool {
        self.since_aged + 1 >= AGED_SHARE
    }

    /// A request left the queue for an endpoint; `aged` out of order because of its age.
    pub(crate) fn dispatched(&mut self, aged: bool) {
        self.since_aged = if aged {
            0
        } else {
            self.since_aged.saturating_add(1)
        };
    }
}
