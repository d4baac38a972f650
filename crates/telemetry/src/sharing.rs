//! Families of sharing between replicas.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::families::{self as f, FloatGauge};

/// What became of events that replicas tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedEvents {
    /// Told to a sibling.
    Sent,
    /// Heard from a sibling.
    Received,
    /// Not told: a sibling did not listen fast enough. It is told the whole state later.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct Sharing {
    pub(crate) siblings: Arc<[FloatGauge]>,
    events: [Counter; 3],
}

impl Sharing {
    pub(crate) fn new(r: &mut Registry) -> Self {
        let siblings = FloatGauge::default();
        let help = "Replicas that are told what this one charges";
        r.register("pointsman_siblings", help, siblings.clone());
        let events = f::counters(
            r,
            "pointsman_sharing_events",
            "Charges and releases that replicas tell each other, by what became of them",
        );
        let of = |outcome: &str| f::counter(&events, &vec![("outcome", outcome.into())]);
        Self {
            siblings: Arc::from([siblings]),
            events: [of("sent"), of("received"), of("dropped")],
        }
    }

    pub(crate) fn count(&self, what: SharedEvents, events: u64) {
        self.events[what as usize].inc_by(events);
    }
}
