//! Which server owns a stored object (a response, a file, a conversation).
//!
//! An entry is a hash of the id, the server and the hour it was stored. The table is bounded by two generations: new
//! and used entries go to the young one; when that is full it becomes the old one, and the old one is dropped. That
//! keeps at least the most recently used half million at a fixed cost per operation.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use scheduling::Time;
use xxhash_rust::xxh3::xxh3_64;

use crate::Endpoint;

/// Entries of one generation; the table holds up to twice as many.
const GENERATION: usize = 500_000;
/// How long an entry counts.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Where a stored object is.
#[derive(Debug, Clone)]
pub enum Owner {
    /// On this server.
    Here(Arc<Endpoint>),
    /// On a server that has left the pool, and with it.
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    owner: u64,
    stored: Time,
}

/// Owners by id. An owner is an [`Endpoint::token`](crate::Endpoint::token): a server that leaves and comes back at the
/// same address may still have what it stored, and if not, says so itself.
#[derive(Debug)]
pub(crate) struct StateTable {
    young: FxHashMap<u64, Entry>,
    old: FxHashMap<u64, Entry>,
    generation: usize,
}

impl Default for StateTable {
    fn default() -> Self {
        Self {
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            generation: GENERATION,
        }
    }
}

impl StateTable {
    pub(crate) fn remember(&mut self, now: Time, id: &str, owner: u64) {
        self.insert(xxh3_64(id.as_bytes()), Entry { owner, stored: now });
    }

    pub(crate) fn owner(&mut self, now: Time, id: &str) -> Option<u64> {
        let hash = xxh3_64(id.as_bytes());
        let entry = match self.young.get(&hash) {
            Some(entry) => *entry,
            None => {
                let entry = self.old.remove(&hash)?;
                self.insert(hash, entry);
                entry
            }
        };
        (now - entry.stored < TTL).then_some(entry.owner)
    }

    fn insert(&mut self, hash: u64, entry: Entry) {
        if self.young.len() >= self.generation && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_last_a_day() {
        let mut table = StateTable::default();
        table.remember(Time::ZERO, "resp_1", 7);
        assert_eq!(
            table.owner(Time::ZERO + (TTL - Duration::from_secs(1)), "resp_1"),
            Some(7)
        );
        assert_eq!(table.owner(Time::ZERO + TTL, "resp_1"), None);
        assert_eq!(table.owner(Time::ZERO, "resp_2"), None);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let mut table = StateTable {
            generation: 10,
            ..StateTable::default()
        };
        table.remember(Time::ZERO, "used", 1);
        for n in 0..1000 {
            table.remember(Time::ZERO, &format!("id{n}"), n);
            assert_eq!(table.owner(Time::ZERO, "used"), Some(1), "after {n}");
            assert!(table.young.len() + table.old.len() <= 20);
        }
        assert_eq!(table.owner(Time::ZERO, "id999"), Some(999));
        assert_eq!(table.owner(Time::ZERO, "id0"), None);
    }
}
