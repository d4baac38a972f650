//! The KV cache: blocks with reference counts, a queue of free ones, and names.
//!
//! A free block keeps its name and content until it is given out again, so the free queue is also the order of
//! eviction. Sequences give their blocks back last block first: of what was freed together the tail goes first, and
//! prefixes live longest. A hit on a free block takes it out of the queue.
//!
//! Where two sequences fill the same block at the same time, only the first copy carries the name.
//!
//! A long prompt is looked up block by block, each of them anywhere in memory. So a block remembers which one came
//! after it when somebody last asked; where that one still has the right name, the table of names need not be read.

use crate::hash::BlockHash;
use crate::names::Names;

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
#[repr(align(32))] // never in two cache lines
struct Block {
    /// Means something while `named` only.
    name: BlockHash,
    refs: u32,
    prev: u32,
    next: u32,
    /// The block that was found or named after this one last; it may be another by now.
    after: u32,
    named: bool,
}

impl Block {
    fn has(&self, hash: BlockHash) -> bool {
        self.named && self.name == hash
    }
}

/// All blocks of an engine.
#[derive(Debug, Clone)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    names: Names,
    /// Blocks with a name.
    named: usize,
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
                    refs: 0,
                    prev: NONE,
                    next: NONE,
                    after: NONE,
                    name: BlockHash(0),
                    named: false,
                };
                count as usize
            ],
            names: Names::new(count),
            named: 0,
            head: NONE,
            tail: NONE,
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
        Some((id, self.blocks[id as usize].refs == 0))
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
            Some(block) if block.has(hash) => Some((after, block.refs == 0)),
            _ => {
                let found = self.find(hash)?;
                self.blocks[before as usize].after = found.0;
                Some(found)
            }
        }
    }

    /// Takes one more hold of a block that was found.
    pub(crate) fn hold(&mut self, id: u32) {
        if self.blocks[id as usize].refs == 0 {
            self.unlink(id);
        }
        self.blocks[id as usize].refs += 1;
    }

    /// Gives out the block that was free for longest, forgetting what it held.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let id = self.head;
        if id == NONE {
            return None;
        }
        self.unlink(id);
        let block = &mut self.blocks[id as usize];
        block.refs = 1;
        if std::mem::take(&mut block.named) {
            let hash = block.name;
            self.named -= 1;
            if let Some(events) = &mut self.events {
                events.push(CacheEvent::Removed { hash });
            }
        }
        Some(id)
    }

    /// Lets go of a block; it becomes free with its last holder.
    pub(crate) fn release(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        block.refs -= 1;
        if block.refs == 0 {
            self.push_free(id);
        }
    }

    /// Names a full block; returns whether it can be hit under that name now and could not before.
    pub(crate) fn publish(&mut self, id: u32, hash: BlockHash, parent: Option<BlockHash>) -> bool {
        let blocks = &self.blocks;
        if blocks[id as usize].named {
            return false;
        }
        if self.names.is_full() {
            let named = (0_u32..).zip(blocks).filter(|(_, block)| block.named);
            self.names
                .renew(named.map(|(id, block)| (block.name.0, id)));
        }
        let has = |id: u32| blocks[id as usize].has(hash);
        if !self.names.insert(hash.0, id, has) {
            return false;
        }
        let block = &mut self.blocks[id as usize];
        (block.name, block.named) = (hash, true);
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
        self.blocks.iter_mut().for_each(|block| block.named = false);
        if let Some(events) = &mut self.events {
            events.push(CacheEvent::Cleared);
        }
    }

    fn push_free(&mut self, id: u32) {
        let tail = self.tail;
        let block = &mut self.blocks[id as usize];
        block.prev = tail;
        block.next = NONE;
        if tail == NONE {
            self.head = id;
        } else {
            self.blocks[tail as usize].next = id;
        }
        self.tail = id;
        self.free += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Block { prev, next, .. } = self.blocks[id as usize];
        if prev == NONE {
            self.head = next;
        } else {
            self.blocks[prev as usize].next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            self.blocks[next as usize].prev = prev;
        }
        self.free -= 1;
    }
}

#[cfg(test)]
impl BlockPool {
    /// Reference counts, for the conservation tests.
    pub(crate) fn refs(&self) -> Vec<u32> {
        self.blocks.iter().map(|block| block.refs).collect()
    }

    /// Walks the free queue and checks that list, counts and names agree.
    pub(crate) fn check(&self) {
        let mut seen = 0;
        let mut at = self.head;
        let mut before = NONE;
        while at != NONE {
            let block = &self.blocks[at as usize];
            assert_eq!(block.refs, 0, "a held block in the free queue");
            assert_eq!(block.prev, before);
            before = at;
            at = block.next;
            seen += 1;
            assert!(seen <= self.total(), "the free queue is a ring");
        }
        assert_eq!(self.tail, before);
        assert_eq!(seen, self.free);
        let zero = self.blocks.iter().filter(|block| block.refs == 0).count();
        assert_eq!(zero as u32, self.free, "a block is lost");
        let named = self.blocks.iter().enumerate().filter(|(_, it)| it.named);
        let mut count = 0;
        for (id, block) in named {
            assert_eq!(self.find(block.name).map(|it| it.0), Some(id as u32));
            count += 1;
        }
        assert_eq!(count, self.named);
    }
}
