//! The KV cache: blocks with reference counts, a queue of free ones, and names.
//!
//! A free block keeps its name and content until it is given out again, so the free queue is also the order of
//! eviction. Sequences give their blocks back last block first: of what was freed together the tail goes first, and
//! prefixes live longest. A hit on a free block takes it out of the queue.
//!
//! Where two sequences fill the same block at the same time, only the first copy carries the name.
//!
//! A fleet's caches are larger than a core's, and each operation lands anywhere in them, so what counts is how many
//! cache lines it touches. A block is a quarter of one. The free queue is a ring of numbers, used at its two ends
//! only: who is taken out of the middle leaves its number behind, and what is in the ring counts where the block says
//! that this is its place. A long prompt is looked up block by block, so each block remembers which one came after it
//! last; where that one still has the right name, the table of names need not be read.

use std::hint::black_box;

use crate::hash::BlockHash;
use crate::names::Names;

/// How many far places are read together.
pub(crate) const AHEAD: usize = 16;

const NONE: u32 = u32::MAX;

/// A change of what can be hit, as in vLLM's KV cache events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheEvent {
    /// The block can be hit from now on.
    Stored {
        /// Its name.
        hash: BlockHash,
        /// The block before it; `None` for a first block.
        parent: Option<BlockHash>,
    },
    /// The block was evicted.
    Removed {
        /// Its name.
        hash: BlockHash,
    },
    /// Everything was forgotten.
    Cleared,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(16))]
struct Block {
    /// Means something while it is named only.
    name: BlockHash,
    /// `FREE` and its place in the queue, or how many hold it; and in both cases `NAMED`.
    state: u32,
    /// The block that was found or named after this one last; it may be another by now.
    after: u32,
}

const FREE: u32 = 1 << 31;
const NAMED: u32 = 1 << 30;
/// What is left of a state for its number.
const NUMBER: u32 = NAMED - 1;

impl Block {
    fn has(&self, hash: BlockHash) -> bool {
        self.named() && self.name == hash
    }

    fn named(&self) -> bool {
        self.state & NAMED != 0
    }

    fn free(&self) -> bool {
        self.state & FREE != 0
    }

    /// Whether it is free and stands in this place of the queue.
    fn queued_at(&self, place: u32) -> bool {
        (self.state | NAMED) == (FREE | NAMED | (place & NUMBER))
    }
}

/// All blocks of an engine.
#[derive(Debug, Clone)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    names: Names,
    /// Blocks with a name.
    named: usize,
    /// Blocks in the order in which they became free. A power of two of places, at least twice the blocks.
    queue: Vec<u32>,
    /// The queue's first place and the one after its last, counted on for ever.
    head: u32,
    tail: u32,
    free: u32,
    events: Option<Vec<CacheEvent>>,
}

impl BlockPool {
    pub(crate) fn new(count: u32) -> Self {
        let mut pool = Self {
            blocks: vec![
                Block {
                    name: BlockHash(0),
                    state: 0,
                    after: NONE,
                };
                count as usize
            ],
            names: Names::new(count),
            named: 0,
            queue: vec![NONE; (count as usize * 2).next_power_of_two()],
            head: 0,
            tail: 0,
            free: 0,
            events: None,
        };
        (0..count).for_each(|id| pool.push_free(id));
        pool
    }

    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    pub(crate) fn total(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub(crate) fn named(&self) -> usize {
        self.named
    }

    pub(crate) fn record_events(&mut self, on: bool) {
        self.events = on.then(Vec::new);
    }

    pub(crate) fn drain_events(&mut self, into: &mut Vec<CacheEvent>) {
        if let Some(events) = &mut self.events {
            into.append(events);
        }
    }

    /// The block of that name, and whether it is free.
    pub(crate) fn find(&self, hash: BlockHash) -> Option<(u32, bool)> {
        let id = self
            .names
            .get(hash.0, |id| self.blocks[id as usize].has(hash))?;
        Some((id, self.blocks[id as usize].free()))
    }

    /// The same, for a name that comes after that of the block `before`.
    pub(crate) fn find_after(
        &mut self,
        before: Option<u32>,
        hash: BlockHash,
    ) -> Option<(u32, bool)> {
        let Some(before) = before else {
            return self.find(hash);
        };
        let after = self.blocks[before as usize].after;
        match self.blocks.get(after as usize) {
            Some(block) if block.has(hash) => Some((after, block.free())),
            _ => {
                let found = self.find(hash)?;
                self.blocks[before as usize].after = found.0;
                Some(found)
            }
        }
    }

    /// Takes one more hold of a block that was found.
    pub(crate) fn hold(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        if block.free() {
            // Its number stays in the queue and is passed over.
            block.state &= NAMED;
            self.free -= 1;
        }
        block.state += 1;
    }

    /// Gives out the block that was free for longest, forgetting what it held.
    pub(crate) fn take(&mut self) -> Option<u32> {
        while self.head != self.tail {
            let place = self.head;
            let id = self.queue[self.at(place)];
            self.head = place.wrapping_add(1);
            let block = &mut self.blocks[id as usize];
            if !block.queued_at(place) {
                continue;
            }
            self.free -= 1;
            if block.named() {
                let hash = block.name;
                self.named -= 1;
                if let Some(events) = &mut self.events {
                    events.push(CacheEvent::Removed { hash });
                }
            }
            block.state = 1;
            return Some(id);
        }
        None
    }

    /// Lets go of all blocks of a sequence, last block first.
    pub(crate) fn release_all(&mut self, ids: &mut Vec<u32>) {
        for part in ids.rchunks(AHEAD) {
            // Read together, they come from far memory at once and not one after the other.
            let states = part.iter().map(|id| self.blocks[*id as usize].state);
            black_box(states.fold(0, |all, state| all | state));
            part.iter().rev().for_each(|id| self.release(*id));
        }
        ids.clear();
    }

    /// Lets go of a block; it becomes free with its last holder.
    fn release(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        block.state -= 1;
        if block.state & NUMBER == 0 {
            self.push_free(id);
        }
    }

    /// Names are going to be given: reads where they will be entered, [`AHEAD`] of them at a time.
    pub(crate) fn expect(&self, hashes: &[BlockHash]) {
        let slots = hashes.iter().map(|hash| self.names.peek(hash.0));
        black_box(slots.fold(0, |all, slot| all | slot));
    }

    /// Names a full block; returns whether it can be hit under that name now and could not before.
    pub(crate) fn publish(&mut self, id: u32, hash: BlockHash, parent: Option<BlockHash>) -> bool {
        let blocks = &self.blocks;
        if blocks[id as usize].named() {
            return false;
        }
        if self.names.is_full() {
            let named = (0_u32..).zip(blocks).filter(|(_, block)| block.named());
            self.names
                .renew(named.map(|(id, block)| (block.name.0, id)));
        }
        let has = |id: u32| blocks[id as usize].has(hash);
        if !self.names.insert(hash.0, id, has) {
            return false;
        }
        let block = &mut self.blocks[id as usize];
        block.name = hash;
        block.state |= NAMED;
        self.named += 1;
        if let Some(events) = &mut self.events {
            events.push(CacheEvent::Stored { hash, parent });
        }
        true
    }

    /// Somebody who asks for the names of these blocks asks for one after the other.
    pub(crate) fn follows(&mut self, before: u32, id: u32) {
        self.blocks[before as usize].after = id;
    }

    /// Forgets all names. What is held stays held.
    pub(crate) fn forget(&mut self) {
        self.names.clear();
        self.named = 0;
        self.blocks
            .iter_mut()
            .for_each(|block| block.state &= !NAMED);
        if let Some(events) = &mut self.events {
            events.push(CacheEvent::Cleared);
        }
    }

    fn at(&self, place: u32) -> usize {
        place as usize & (self.queue.len() - 1)
    }

    fn push_free(&mut self, id: u32) {
        if self.tail.wrapping_sub(self.head) as usize == self.queue.len() {
            self.tidy();
        }
        let (place, at) = (self.tail, self.at(self.tail));
        self.queue[at] = id;
        let block = &mut self.blocks[id as usize];
        block.state = (block.state & NAMED) | FREE | (place & NUMBER);
        self.tail = place.wrapping_add(1);
        self.free += 1;
    }

    /// Drops the numbers that are to be passed over: at least half of a queue that is full.
    fn tidy(&mut self) {
        let (mut from, tail) = (self.head, self.tail);
        self.tail = self.head;
        while from != tail {
            let id = self.queue[self.at(from)];
            let block = &mut self.blocks[id as usize];
            if block.queued_at(from) {
                block.state = (block.state & NAMED) | FREE | (self.tail & NUMBER);
                let at = self.at(self.tail);
                self.queue[at] = id;
                self.tail = self.tail.wrapping_add(1);
            }
            from = from.wrapping_add(1);
        }
    }
}

#[cfg(test)]
impl BlockPool {
    /// Reference counts, for the conservation tests.
    pub(crate) fn refs(&self) -> Vec<u32> {
        let refs = |block: &Block| match block.free() {
            true => 0,
            false => block.state & NUMBER,
        };
        self.blocks.iter().map(refs).collect()
    }

    /// Walks the free queue and checks that queue, counts and names agree.
    pub(crate) fn check(&self) {
        let mut seen = vec![false; self.blocks.len()];
        let mut place = self.head;
        while place != self.tail {
            let id = self.queue[self.at(place)] as usize;
            if self.blocks[id].queued_at(place) {
                assert!(!seen[id], "a block is free twice");
                seen[id] = true;
            }
            place = place.wrapping_add(1);
        }
        for (block, seen) in self.blocks.iter().zip(&seen) {
            assert_eq!(block.free(), *seen, "a block is lost");
            assert!(block.free() || block.state & NUMBER > 0);
        }
        assert_eq!(seen.iter().filter(|it| **it).count() as u32, self.free);
        let named = self.blocks.iter().enumerate().filter(|(_, it)| it.named());
        let mut count = 0;
        for (id, block) in named {
            assert_eq!(self.find(block.name).map(|it| it.0), Some(id as u32));
            count += 1;
        }
        assert_eq!(count, self.named);
    }
}
