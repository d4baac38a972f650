//! The decision core with a recorder at its ear.
//!
//! Everything that changes the core goes through here; what only reads it does so directly.

use std::ops::Deref;
use std::sync::Arc;

use recording::{Recorder, Track, What};
use scheduling::policy::profile::Labels;
use scheduling::{
    Config, Decision, EndpointId, EndpointProfile, Event, Request, SharedEvent, Ticket, Time,
};

use crate::PolicyFactory;

/// The core, and its track in the recording if there is one.
#[derive(Debug)]
pub(crate) struct Recorded {
    pool: scheduling::Pool,
    track: Option<Track>,
}

impl Recorded {
    /// A new core that goes by `name` in the recording.
    pub(crate) fn new(
        config: Config,
        seed: u64,
        name: &str,
        policy: Option<&PolicyFactory>,
        recorder: Option<&Arc<Recorder>>,
    ) -> Self {
        Self {
            track: recorder.map(|recorder| recorder.pool(name, seed, &config, None)),
            pool: match policy {
                Some(policy) => scheduling::Pool::with_policy(config, seed, policy.make()),
                None => scheduling::Pool::new(config, seed),
            },
        }
    }

    pub(crate) fn join(&mut self, now: Time, profile: EndpointProfile) -> EndpointId {
        let endpoint = self.pool.join(now, profile);
        if let Some(track) = &mut self.track {
            track.told(now, What::Join { endpoint, profile });
        }
        endpoint
    }

    /// Labels of an endpoint. They are not recorded: only policies of one's own go by them, and those are not replayed.
    pub(crate) fn label(&mut self, endpoint: EndpointId, labels: &Arc<Labels>) {
        self.pool.label(endpoint, labels);
    }

    /// Keeps what siblings are to be told. Not recorded, since nothing is decided by it.
    pub(crate) fn share(&mut self) {
        self.pool.share(true);
    }

    pub(crate) fn drain_shared(&mut self, into: &mut Vec<SharedEvent>) {
        self.pool.drain_shared(into);
    }

    pub(crate) fn arrive(&mut self, now: Time, request: Request) -> Ticket {
        let Some(track) = &mut self.track else {
            return self.pool.arrive(now, request);
        };
        let copy = Box::new(request.clone());
        let ticket = self.pool.arrive(now, request);
        let request = copy;
        track.told(now, What::Arrive { ticket, request });
        ticket
    }

    pub(crate) fn observe(&mut self, now: Time, event: Event<'_>) {
        self.pool.observe(now, event);
        if let Some(track) = &mut self.track {
            track.event(now, event);
        }
    }

    pub(crate) fn next(&mut self, now: Time) -> Option<Decision> {
        let decision = self.pool.next(now);
        if let Some(track) = &mut self.track {
            track.asked(now, decision.as_ref());
        }
        decision
    }
}

impl Deref for Recorded {
    type Target = scheduling::Pool;
    fn deref(&self) -> &scheduling::Pool {
        &self.pool
    }
}
