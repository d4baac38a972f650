//! Consistent hashing with bounded loads (arXiv 1608.01350), as KubeAI ships it.
//!
//! Each engine stands 256 times on a ring. A job's key, the adapter and the beginning of the first user message, names
//! a place; from there the first engine clockwise takes it that has `load <= 1.25*(total + 1)/n`.

use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh64::xxh64;

use super::manifest as m;
use super::rule::{Ask, Rule, Verdict};

/// The ring.
pub(super) struct Chwbl {
    load_factor: f64,
    ring: Vec<(u64, usize)>,
}

impl Chwbl {
    pub(super) fn new(load_factor: f64, engines: usize) -> Self {
        let replicas = m::CHWBL_REPLICAS as usize;
        let mut ring: Vec<(u64, usize)> = (0..engines)
            .flat_map(|engine| (0..replicas).map(move |replica| (place(engine, replica), engine)))
            .collect();
        ring.sort_unstable();
        Self { load_factor, ring }
    }

    /// Engines in the order in which the ring has them from `key` on, with repetitions.
    fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let start = self.ring.partition_point(|&(place, _)| place < key);
        self.ring[start..]
            .iter()
            .chain(&self.ring[..start])
            .map(|&(_, engine)| engine)
    }
}

impl Rule for Chwbl {
    fn choose(&mut self, ask: &Ask<'_>, _rng: &mut ChaCha8Rng) -> Verdict {
        let load = |engine: usize| f64::from(ask.fleet.engines[engine].in_flight);
        let up = ask.engines();
        let total: f64 = up.iter().map(|&engine| load(engine)).sum();
        let bound = self.load_factor * (total + 1.0) / up.len() as f64;
        let key = key(ask.job.first_message, ask.job.adapter);
        let there = |engine: &usize| ask.fleet.engines[*engine].up;
        let home = self.walk(key).find(there);
        self.walk(key)
            .filter(there)
            .find(|&engine| load(engine) <= bound)
            .or(home)
            .map_or(Verdict::Refuse, Verdict::Send)
    }
}

fn place(engine: usize, replica: usize) -> u64 {
    let name = ((engine as u64) << 32) | replica as u64;
    xxh64(&name.to_le_bytes(), 0)
}

fn key(first_message: u64, adapter: Option<u32>) -> u64 {
    let adapter = adapter.map_or(0, |adapter| u64::from(adapter) + 1);
    xxh64(&first_message.to_le_bytes(), adapter)
}
