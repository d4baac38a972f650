//! The state machine.

mod view;

pub use view::{EndpointView, Stats};

use crate::config::Config;
use crate::decision::Decision;
use crate::event::Event;
use crate::id::{EndpointId, Ticket};
use crate::profile::EndpointProfile;
use crate::request::Request;
use crate::time::Time;

/// One pool of model servers.
#[derive(Debug)]
pub struct Pool {
    next_ticket: u64,
}

impl Pool {
    /// An empty pool. Equal seeds and equal calls give equal decisions.
    pub fn new(_config: Config, _seed: u64) -> Self {
        Self { next_ticket: 0 }
    }

    /// An endpoint joins.
    pub fn join(&mut self, _now: Time, _profile: EndpointProfile) -> EndpointId {
        EndpointId { index: 0, generation: 0 }
    }

    /// A request arrives. Call `next` until it returns `None`.
    pub fn arrive(&mut self, _now: Time, _request: Request) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Something happened. Call `next` until it returns `None`.
    pub fn observe(&mut self, _now: Time, _event: Event<'_>) {}

    /// The next decision.
    pub fn next(&mut self, _now: Time) -> Option<Decision> {
        None
    }

    /// When to call `next` although nothing happened.
    pub fn wake_at(&self) -> Option<Time> {
        None
    }

    /// One endpoint now.
    pub fn endpoint(&self, _id: EndpointId) -> Option<EndpointView> {
        None
    }

    /// The pool now.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
