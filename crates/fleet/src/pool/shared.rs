//! What a pool tells its siblings, and hears from them.

use routing::PoolKey;
use scheduling::{Event, SharedEvent, SiblingId};

use super::{Core, Pool};
use crate::sharing::Told;

/// Events that are told to the core under one lock: requests should not wait for a crowd of them.
const AT_ONCE: usize = 32;

impl Pool {
    pub(crate) fn key(&self) -> &PoolKey {
        &self.key
    }

    /// What siblings know it by.
    pub(crate) fn teller(&self) -> u64 {
        self.teller
    }

    /// What siblings were not told yet.
    pub(crate) fn untold(&self) -> Vec<Told> {
        let mut events = Vec::new();
        let mut core = self.core.lock();
        core.pool.drain_shared(&mut events);
        worded(&core, &events)
    }

    /// All that is charged now.
    pub(crate) fn shared_charges(&self) -> Vec<Told> {
        let mut events = Vec::new();
        let core = self.core.lock();
        core.pool.shared_charges(&mut events);
        worded(&core, &events)
    }

    /// A sibling told something.
    pub(crate) fn hear(&self, sibling: SiblingId, events: impl IntoIterator<Item = SharedEvent>) {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            self.with_core(|core, now| {
                for event in events.by_ref().take(AT_ONCE) {
                    let event = &event;
                    core.pool.observe(now, Event::Sibling { sibling, event });
                }
            });
        }
    }
}

/// Events with servers as all processes name them.
fn worded(core: &Core, events: &[SharedEvent]) -> Vec<Told> {
    let token = |id| core.endpoint(id).map(|endpoint| endpoint.token());
    events
        .iter()
        .filter_map(|event| Told::new(event, token))
        .collect()
}
