//! Factor: **adapters**. Whether the LoRA adapter of a request is loaded, and what it costs if it is not.
//!
//! The slots of an endpoint are a cache, and (adapter, endpoint) is a prefix whose length is the time to load it:
//! resident costs nothing, being loaded costs the rest of the load, absent costs the whole load, and if every slot is
//! taken by an adapter in use also the wait for one to come free. As with prefixes, a dispatch counts at once: the
//! followers of a request that makes an endpoint load an adapter find it there.
//!
//! Engines report what they use, not everything that is still in their slots, so the slots are kept here as an LRU
//! list of the size the engine says, and reports refresh it.

#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use crate::id::AdapterKey;
use crate::time::Time;

/// Slots remembered of an endpoint that does not say how many it has.
const DEFAULT_SLOTS: usize = 64;

/// Whether an endpoint has the adapter of a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AdapterState {
    /// It is there.
    Resident,
    /// It is being loaded.
    Loading,
    /// It is not, but there is a place for it.
    Free,
    /// Every place is taken by an adapter in use.
    Full,
}

/// The adapter slots of one endpoint, most recently used first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    held: SmallVec<[Slot; 4]>,
    max: Option<u32>,
}

#[derive(Copy, Clone, Debug)]
struct Slot {
    adapter: AdapterKey,
    /// Our requests in flight that use it.
    users: u32,
    /// Since when it is being loaded; `None` once resident.
    loading: Option<Time>,
}

impl Slots {
    pub(crate) fn set_max(&mut self, max: Option<u32>) {
        self.max = max.or(self.max);
        self.trim();
    }

    /// Adapters believed resident.
    pub(crate) fn resident(&self) -> usize {
        self.held
            .iter()
            .filter(|slot| slot.loading.is_none())
            .count()
    }

    /// Seconds a request that needs `adapter` waits for it; `hold` is how long a request keeps a slot.
    pub(crate) fn wait(&self, adapter: Option<AdapterKey>, now: Time, load: f64, hold: f64) -> f64 {
        let Some(adapter) = adapter else { return 0.0 };
        match self.held.iter().find(|slot| slot.adapter == adapter) {
            Some(Slot { loading: None, .. }) => 0.0,
            Some(Slot {
                loading: Some(since),
                ..
            }) => (load - now.seconds_since(*since)).max(load * 0.1),
            None => load + self.slot_wait(hold),
        }
    }

    /// Whether `adapter` is there; of a request without one, whether there is a place.
    pub(crate) fn state(&self, adapter: Option<AdapterKey>) -> AdapterState {
        let held = adapter.and_then(|key| self.held.iter().find(|slot| slot.adapter == key));
        let taken = |slot: &&Slot| slot.users > 0 || slot.loading.is_some();
        match held {
            Some(slot) if slot.loading.is_none() => AdapterState::Resident,
            Some(_) => AdapterState::Loading,
            None if self.held.iter().filter(taken).count() < self.slots() => AdapterState::Free,
            None => AdapterState::Full,
        }
    }

    /// A request that needs `adapter` goes there.
    pub(crate) fn push(&mut self, adapter: AdapterKey, now: Time) {
        let mut slot = self.take(adapter).unwrap_or(Slot {
            adapter,
            users: 0,
            loading: Some(now),
        });
        slot.users += 1;
        self.held.insert(0, slot);
        self.trim();
    }

    /// A request that uses `adapter` got an answer: it is resident.
    pub(crate) fn confirm(&mut self, adapter: AdapterKey) {
        if let Some(slot) = self.held.iter_mut().find(|slot| slot.adapter == adapter) {
            slot.loading = None;
        }
    }

    /// A request that used `adapter` is over; `loaded` tells whether the adapter can be there at all.
    pub(crate) fn release(&mut self, adapter: AdapterKey, loaded: bool) {
        let Some(at) = self.held.iter().position(|slot| slot.adapter == adapter) else {
            return;
        };
        let slot = &mut self.held[at];
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 && slot.loading.is_some() && !loaded {
            self.held.remove(at);
        }
        self.trim();
    }

    /// The engine reported its adapters.
    pub(crate) fn report(
        &mut self,
        now: Time,
        resident: &[AdapterKey],
        loading: &[AdapterKey],
        max: Option<u32>,
    ) {
        self.max = max.or(self.max);
        if self.max.is_none() {
            self.held.retain(|slot| slot.users > 0);
        }
        for &adapter in loading.iter().take(self.slots()) {
            let slot = self.take(adapter).unwrap_or(Slot {
                adapter,
                users: 0,
                loading: Some(now),
            });
            self.held.insert(
                0,
                Slot {
                    loading: slot.loading.or(Some(now)),
                    ..slot
                },
            );
        }
        for &adapter in resident.iter().take(self.slots()) {
            let users = self.take(adapter).map_or(0, |slot| slot.users);
            self.held.insert(
                0,
                Slot {
                    adapter,
                    users,
                    loading: None,
                },
            );
        }
        self.trim();
    }

    fn slots(&self) -> usize {
        self.max.map_or(DEFAULT_SLOTS, |max| max.max(1) as usize)
    }

    /// With every slot in use by a request in flight, one of them must end first.
    fn slot_wait(&self, hold: f64) -> f64 {
        let used = self.held.iter().filter(|slot| slot.users > 0).count();
        let slots = self.slots();
        if self.max.is_some() && used >= slots {
            hold * (used + 1 - slots) as f64 / slots as f64
        } else {
            0.0
        }
    }

    fn take(&mut self, adapter: AdapterKey) -> Option<Slot> {
        let at = self.held.iter().position(|slot| slot.adapter == adapter)?;
        Some(self.held.remove(at))
    }

    /// Forgets the least recently used adapters that no request in flight needs.
    fn trim(&mut self) {
        while self.held.len() > self.slots() {
            match self.held.iter().rposition(|slot| slot.users == 0) {
                Some(at) => self.held.remove(at),
                None => return,
            };
        }
    }
}
