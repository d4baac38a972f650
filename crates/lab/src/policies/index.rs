//! What a gateway believes each engine's prefix cache holds.
//!
//! A gateway without events from the engines remembers what it sent where: the prompt's blocks, by chained hash, under
//! a least-recently-used bound for each engine. A block's hash names the whole prefix up to it, so one map of hashes
//! does for a tree. Policies differ in the block they hash, in the room they give, and in which end of a prompt goes
//! first when room is short; these are the fields of [`Spec`].

use rustc_hash::FxHashMap;
use simulator::{BlockHash, EngineConfig};

use crate::{BLOCK_TOKENS, Job};

/// What of a prompt ages first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aging {
    /// The head: blocks are touched in reading order. A prompt may lose its first block and keep the rest; those
    /// indexes count every block that matches, gaps or not.
    Head,
    /// The tail, as in vLLM. What is left of a prompt is then always a prefix of it.
    Tail,
}

/// How much an engine's part of the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// As many tokens as the engine's KV cache.
    Cache,
    /// One entry for each of the engine's own blocks, however long the index's blocks are.
    EngineBlocks,
    /// So many entries.
    Entries(usize),
}

/// Shape of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    /// Length of a block in engine blocks of 16 tokens.
    pub(super) stride: usize,
    /// Tokens of a prompt that are looked at.
    pub(super) most_tokens: u32,
    /// Entries an engine.
    pub(super) room: Room,
    /// Who goes first.
    pub(super) aging: Aging,
    /// Whether the answer's blocks are added when it ends, as events from the engine would.
    pub(super) answers: bool,
}

impl Spec {
    /// Tokens of a block.
    pub(super) fn block_tokens(&self) -> u32 {
        self.stride as u32 * BLOCK_TOKENS
    }

    fn entries(&self, engine: &EngineConfig) -> usize {
        match self.room {
            Room::Cache => engine.kv_blocks as usize / self.stride,
            Room::EngineBlocks => engine.kv_blocks as usize,
            Room::Entries(entries) => entries,
        }
        .max(1)
    }

    /// Full index blocks among the first `tokens` tokens of a chain.
    fn blocks(&self, chain: &[BlockHash], tokens: u32) -> usize {
        let full = (tokens.min(self.most_tokens) / BLOCK_TOKENS) as usize;
        full.min(chain.len()) / self.stride
    }

    fn hash(&self, chain: &[BlockHash], block: usize) -> u64 {
        chain[(block + 1) * self.stride - 1].0
    }
}

/// The index over all engines.
#[derive(Debug)]
pub(super) struct PrefixIndex {
    spec: Spec,
    engines: Vec<Recent>,
}

impl PrefixIndex {
    pub(super) fn new(spec: Spec, engines: &[EngineConfig]) -> Self {
        let engines = engines
            .iter()
            .map(|engine| Recent::new(spec.entries(engine)))
            .collect();
        Self { spec, engines }
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Tokens of the job's prompt that each engine is believed to hold.
    pub(super) fn hits(&self, job: &Job, hits: &mut Vec<u32>) {
        let blocks = self.spec.blocks(&job.blocks, job.prompt_tokens);
        hits.clear();
        match self.spec.aging {
            Aging::Tail => hits.extend(self.engines.iter().map(|engine| {
                let held = partition(blocks, |block| {
                    engine.holds(self.spec.hash(&job.blocks, block))
                });
                held as u32 * self.spec.block_tokens()
            })),
            Aging::Head => {
                hits.resize(self.engines.len(), 0);
                self.count(&job.blocks, blocks, hits);
            }
        }
    }

    /// Counts blocks engine by engine until one that nobody has.
    fn count(&self, chain: &[BlockHash], blocks: usize, hits: &mut [u32]) {
        for block in 0..blocks {
            let hash = self.spec.hash(chain, block);
            let mut known = false;
            for (engine, hit) in self.engines.iter().zip(hits.iter_mut()) {
                if engine.holds(hash) {
                    *hit += self.spec.block_tokens();
                    known = true;
                }
            }
            if !known {
                break;
            }
        }
    }

    /// Notes that `engine` was sent, or holds, the first `tokens` tokens of a chain.
    pub(super) fn insert(&mut self, engine: usize, chain: &[BlockHash], tokens: u32) {
        let blocks = self.spec.blocks(chain, tokens);
        let recent = &mut self.engines[engine];
        let hashes = (0..blocks).map(|block| self.spec.hash(chain, block));
        match self.spec.aging {
            Aging::Head => recent.touch(hashes),
            Aging::Tail => recent.touch(hashes.rev()),
        }
    }

    /// An engine holds nothing any more.
    pub(super) fn forget(&mut self, engine: usize) {
        let recent = &mut self.engines[engine];
        *recent = Recent::new(recent.room);
    }

    /// Blocks in an engine's part.
    pub(super) fn held(&self, engine: usize) -> usize {
        self.engines[engine].places.len()
    }

    /// Blocks for which an engine's part has room.
    pub(super) fn room(&self, engine: usize) -> usize {
        self.engines[engine].room
    }
}

/// Number of leading items that satisfy `holds`, which must not hold again after it once failed.
pub(super) fn partition(items: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, items);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    older: u32,
    newer: u32,
}

/// A bounded set that forgets what was touched longest ago.
///
/// Prompts that begin alike are touched in the same order again and again, so what belongs together stands together
/// in the order of age. A touch looks up the first of such a row, follows it as far as it goes, and moves it to the
/// newest end as one.
#[derive(Debug)]
struct Recent {
    room: usize,
    places: FxHashMap<u64, u32>,
    entries: Vec<Entry>,
    oldest: u32,
    newest: u32,
}

impl Recent {
    fn new(room: usize) -> Self {
        Self {
            room,
            places: FxHashMap::default(),
            entries: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    fn holds(&self, hash: u64) -> bool {
        self.places.contains_key(&hash)
    }

    /// Touches one after the other.
    fn touch(&mut self, hashes: impl Iterator<Item = u64>) {
        let mut hashes = hashes.peekable();
        while let Some(hash) = hashes.next() {
            let Some(&first) = self.places.get(&hash) else {
                self.enter(hash);
                continue;
            };
            let mut last = first;
            while let Some(next) = self.entries.get(self.entries[last as usize].newer as usize)
                && hashes.next_if_eq(&next.hash).is_some()
            {
                last = self.entries[last as usize].newer;
            }
            if last != self.newest {
                self.unlink(first, last);
                self.link(first, last);
            }
        }
    }

    /// Enters one that is not there.
    fn enter(&mut self, hash: u64) {
        let place = if self.entries.len() < self.room {
            self.entries.push(Entry {
                hash,
                older: NONE,
                newer: NONE,
            });
            self.entries.len() as u32 - 1
        } else {
            let place = self.oldest;
            self.unlink(place, place);
            self.places.remove(&self.entries[place as usize].hash);
            self.entries[place as usize].hash = hash;
            place
        };
        self.places.insert(hash, place);
        self.link(place, place);
    }

    /// Takes a row out of the order.
    fn unlink(&mut self, first: u32, last: u32) {
        let older = self.entries[first as usize].older;
        let newer = self.entries[last as usize].newer;
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
    }

    /// Puts a row at the newest end.
    fn link(&mut self, first: u32, last: u32) {
        let older = self.newest;
        self.entries[first as usize].older = older;
        self.entries[last as usize].newer = NONE;
        match older {
            NONE => self.oldest = first,
            older => self.entries[older as usize].newer = first,
        }
        self.newest = last;
    }
}
