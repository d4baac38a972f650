//! Factor: **prefix**. Who has which part of a prompt in its cache, and what nobody has any more.
//!
//! The index knows only what the pool itself dispatched: a prompt counts as cached on its endpoint from the moment of
//! dispatch (vLLM makes blocks hittable when they are scheduled), is touched again when the request ends, and is
//! forgotten when the endpoint, with the KV size it has, must have evicted it by the same rule as the engine
//! (least recently used, the end of a prefix first).
//!
//! Block hashes are chained: equal hashes mean equal prompts up to there. So prompts form a tree, and the tree is kept
//! as *runs*: maximal stretches of blocks that were always used together, found by their first hash. Looking up a
//! prompt of thousands of blocks visits a handful of runs, compares them as memory, and intersects one bit set per run;
//! that gives the longest hit of every endpoint in one walk. A run is cut where a prompt leaves it.
//!
//! A run that no endpoint holds stays as a *ghost* until the bound on blocks needs its room: a prompt that the tree
//! knows further than any endpoint does is work done twice, the signal behind the price on recomputation.
//!
//! State: 8 bytes per distinct block, some 130 bytes per run, some 50 per run and endpoint that holds it (each 1.0 to
//! 1.8 times that, as tables grow by doubling). With runs of 25 blocks and more that is under 16 bytes a block, which is
//! what the bound allows: so many blocks, and sixteen times as many bytes. What exceeds either goes, least recently
//! used first and the end of a prefix before its beginning, so a prefix in use or often used stays whole.

mod bits;
mod cold;
mod holder;
#[cfg(test)]
mod tests;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use bits::Bits;
pub(crate) use cold::Cold;
use holder::{Holder, NIL};

/// Least blocks that an eviction cuts off a longer run, so that pressure does not shred the tree.
const LEAST_CUT: usize = 16;

/// Bytes that the bound allows for a block.
const BYTES_PER_BLOCK: usize = 16;
/// Bytes of a run, less its hashes: itself, its entry in the table by first hash, what the allocator adds.
const RUN_BYTES: usize = size_of::<Run>() + 16 + 1 + 16;
/// Bytes of an endpoint's copy of a run: its entry in the endpoint's table.
const COPY_BYTES: usize = size_of::<(u32, holder::Held)>() + 1;
/// A table that is this much larger than its content gives room back when the bound sinks.
const SLACK: usize = 2;

/// A stretch of blocks that were always used together.
#[derive(Debug)]
struct Run {
    hashes: Box<[u64]>,
    /// Endpoints believed to have it.
    holders: Bits,
    /// Those of them where a request in flight uses it.
    pinned: Bits,
    /// Requests in flight that use it, on any endpoint.
    refs: u32,
    /// Neighbours in the list of runs that no request in flight uses.
    newer: u32,
    older: u32,
}

/// The prefix index of one pool.
#[derive(Debug)]
pub(crate) struct Index {
    runs: Vec<Run>,
    vacant: Vec<u32>,
    by_first: FxHashMap<u64, u32>,
    holders: Vec<Holder>,
    newest: u32,
    oldest: u32,
    blocks: usize,
    copies: usize,
    bound: usize,
    stamp: u64,
}

/// What one walk finds, in blocks from the start of the prompt; reused between walks.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    /// Per endpoint: believed cached.
    pub(crate) cached: Vec<u32>,
    /// Per endpoint: used by requests in flight, so that sharing them takes no new space.
    pub(crate) pinned: Vec<u32>,
    /// Known to the index at all, held or not.
    pub(crate) known: u32,
    alive: Bits,
    alive_pinned: Bits,
}

/// What a request holds in the index.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pin {
    /// Leading blocks of its prefix (fewer than it has if the index is full of pinned blocks).
    pub(crate) blocks: u32,
    /// When the deepest idle copy that it found was last used.
    pub(crate) found: Option<u64>,
}

impl Index {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            runs: Vec::new(),
            vacant: Vec::new(),
            by_first: FxHashMap::default(),
            holders: Vec::new(),
            newest: NIL,
            oldest: NIL,
            blocks: 0,
            copies: 0,
            bound,
            stamp: 0,
        }
    }

    /// At most this many blocks from now on; those in use stay all the same. What is too much goes at once, and so
    /// does the memory it took.
    pub(crate) fn set_bound(&mut self, blocks: usize) {
        self.bound = blocks;
        let before = self.runs();
        self.make_room(0);
        if self.runs() < before && self.runs() * SLACK <= self.runs.len() {
            self.compact();
        }
    }

    /// The longest hit of every endpoint below `endpoints`.
    pub(crate) fn walk(&self, prefix: &[u64], endpoints: usize, hits: &mut Hits) {
        let Hits {
            cached,
            pinned,
            known,
            alive,
            alive_pinned,
        } = hits;
        for column in [&mut *cached, &mut *pinned] {
            column.clear();
            column.resize(endpoints.max(self.holders.len()), 0);
        }
        let mut depth = 0;
        while let Some(run) = prefix.get(depth).and_then(|first| self.by_first.get(first)) {
            let run = &self.runs[*run as usize];
            let before = depth as u32;
            if depth == 0 {
                alive.assign(&run.holders);
                alive_pinned.assign(&run.pinned);
            } else {
                alive.intersect(&run.holders, |endpoint| cached[endpoint] = before);
                alive_pinned.intersect(&run.pinned, |endpoint| pinned[endpoint] = before);
            }
            let common = common(&run.hashes, &prefix[depth..]);
            depth += common;
            if common < run.hashes.len() {
                break;
            }
        }
        *known = depth as u32;
        if depth > 0 {
            alive.iter().for_each(|endpoint| cached[endpoint] = *known);
            alive_pinned
                .iter()
                .for_each(|endpoint| pinned[endpoint] = *known);
        }
    }

    /// A request with `prefix` goes to `endpoint`: all of it counts as cached there and in use.
    pub(crate) fn pin(&mut self, endpoint: usize, prefix: &[u64]) -> Pin {
        self.holder_mut(endpoint);
        self.make_room(0);
        let mut pin = Pin::default();
        let mut depth = 0;
        while depth < prefix.len() {
            let rest = &prefix[depth..];
            let run = match self.by_first.get(&rest[0]).copied() {
                Some(run) => self.cut_at(run, common(&self.runs[run as usize].hashes, rest)),
                None => self.grow(rest),
            };
            let Some(run) = run else { break };
            depth += self.len(run);
            pin.found = self.pin_run(run, endpoint).or(pin.found);
        }
        pin.blocks = depth as u32;
        pin
    }

    /// The request is over. Blocks from `keep` on that nobody else uses are forgotten: they were never computed.
    pub(crate) fn unpin(&mut self, endpoint: usize, prefix: &[u64], pin: Pin, keep: u32) {
        let mut path: SmallVec<[(u32, usize); 32]> = SmallVec::new();
        let mut depth = 0;
        while depth < pin.blocks as usize {
            let Some(run) = prefix.get(depth).and_then(|first| self.by_first.get(first)) else {
                break;
            };
            path.push((*run, depth));
            depth += self.len(*run);
        }
        for &(run, start) in path.iter().rev() {
            self.unpin_run(run, endpoint);
            if start >= keep as usize {
                self.forget(run, endpoint);
            }
        }
    }

    /// Forgets idle blocks of `endpoint`, least recently used first, until at most `room` are left.
    pub(crate) fn fit(&mut self, endpoint: usize, room: usize) {
        loop {
            let holder = self.holder_mut(endpoint);
            let excess = holder.idle_blocks.saturating_sub(room);
            let Some((run, _)) = holder.oldest().filter(|_| excess > 0) else {
                return;
            };
            let cut = excess.max(LEAST_CUT);
            if self.len(run) > cut {
                // The rest keeps the name; if it could not be cut, all of it goes.
                let _front = self.cut_at(run, self.len(run) - cut);
            }
            self.forget(run, endpoint);
        }
    }

    /// Forgets idle blocks of `endpoint` last used at `stamp` or before: the engine has evicted one of that age.
    pub(crate) fn forget_older(&mut self, endpoint: usize, stamp: u64) {
        while let Some((run, held)) = self.holder_mut(endpoint).oldest() {
            if held.stamp > stamp {
                return;
            }
            self.forget(run, endpoint);
        }
    }

    /// The endpoint's cache is empty, except for what requests in flight use.
    pub(crate) fn clear(&mut self, endpoint: usize) {
        self.forget_older(endpoint, u64::MAX);
    }

    /// The endpoint is gone. Costs time in proportion to what it held.
    pub(crate) fn leave(&mut self, endpoint: usize) {
        let holder = std::mem::take(self.holder_mut(endpoint));
        self.copies -= holder.copies.len();
        for (run, held) in holder.copies {
            let it = &mut self.runs[run as usize];
            it.holders.remove(endpoint);
            it.pinned.remove(endpoint);
            it.refs -= held.refs;
            if held.refs > 0 && it.refs == 0 {
                self.link_newest(run);
            }
        }
    }

    /// Blocks of `endpoint` that requests in flight use.
    pub(crate) fn pinned_blocks(&self, endpoint: usize) -> usize {
        self.holders
            .get(endpoint)
            .map_or(0, |holder| holder.pinned_blocks)
    }

    /// Blocks believed in the cache of `endpoint`, in use or idle.
    pub(crate) fn cached_blocks(&self, endpoint: usize) -> usize {
        self.holders
            .get(endpoint)
            .map_or(0, |holder| holder.pinned_blocks + holder.idle_blocks)
    }

    /// Distinct blocks, ghosts included.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Distinct runs.
    pub(crate) fn runs(&self) -> usize {
        self.by_first.len()
    }

    /// Bytes of state, about.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks * size_of::<u64>() + self.runs() * RUN_BYTES + self.copies * COPY_BYTES
    }

    /// Drops what nobody uses until so many more blocks fit, or nothing is left to drop.
    fn make_room(&mut self, more: usize) {
        while self.room() < more.max(1) && self.oldest != NIL {
            self.drop_run(self.oldest);
        }
    }

    /// Blocks that one more run may have.
    fn room(&self) -> usize {
        let bytes = self.bound.saturating_mul(BYTES_PER_BLOCK);
        let free = bytes.saturating_sub(self.bytes() + RUN_BYTES + COPY_BYTES);
        let by_bytes = free / size_of::<u64>();
        self.bound.saturating_sub(self.blocks).min(by_bytes)
    }

    /// Gives runs new places without gaps between, and the tables the size of what is in them.
    fn compact(&mut self) {
        let mut places = vec![NIL; self.runs.len()];
        let mut kept = Vec::with_capacity(self.runs());
        for (old, run) in std::mem::take(&mut self.runs).into_iter().enumerate() {
            if !run.hashes.is_empty() {
                places[old] = kept.len() as u32;
                kept.push(run);
            }
        }
        let place = |old: u32| places.get(old as usize).copied().unwrap_or(NIL);
        for run in &mut kept {
            (run.newer, run.older) = (place(run.newer), place(run.older));
        }
        self.runs = kept;
        self.vacant = Vec::new();
        self.by_first
            .values_mut()
            .for_each(|run| *run = place(*run));
        self.by_first.shrink_to_fit();
        (self.newest, self.oldest) = (place(self.newest), place(self.oldest));
        self.holders
            .iter_mut()
            .for_each(|holder| holder.rename(place));
    }

    fn holder_mut(&mut self, endpoint: usize) -> &mut Holder {
        if self.holders.len() <= endpoint {
            self.holders.resize_with(endpoint + 1, Holder::default);
        }
        &mut self.holders[endpoint]
    }

    fn len(&self, run: u32) -> usize {
        self.runs[run as usize].hashes.len()
    }

    fn pin_run(&mut self, run: u32, endpoint: usize) -> Option<u64> {
        let it = &mut self.runs[run as usize];
        it.holders.insert(endpoint);
        it.pinned.insert(endpoint);
        it.refs += 1;
        let (blocks, first_use) = (it.hashes.len(), it.refs == 1);
        if first_use {
            self.unlink(run);
        }
        let holder = &mut self.holders[endpoint];
        let before = holder.copies.len();
        let found = holder.pin(run, blocks);
        self.copies += holder.copies.len() - before;
        found
    }

    fn unpin_run(&mut self, run: u32, endpoint: usize) {
        self.stamp += 1;
        let stamp = self.stamp;
        let it = &mut self.runs[run as usize];
        if !it.pinned.contains(endpoint) {
            return;
        }
        it.refs -= 1;
        let unused = it.refs == 0;
        if self.holders[endpoint].unpin(run, it.hashes.len(), stamp) {
            it.pinned.remove(endpoint);
        }
        if unused {
            self.link_newest(run);
        }
    }

    /// Forgets an idle copy; one in use stays.
    fn forget(&mut self, run: u32, endpoint: usize) {
        let it = &mut self.runs[run as usize];
        if it.holders.contains(endpoint) && !it.pinned.contains(endpoint) {
            it.holders.remove(endpoint);
            self.holders[endpoint].forget(run, it.hashes.len());
            self.copies -= 1;
        }
    }

    /// A new run of as many of `hashes` as there is room for, after dropping what nobody uses.
    fn grow(&mut self, hashes: &[u64]) -> Option<u32> {
        self.make_room(hashes.len());
        let room = self.room().min(hashes.len());
        if room == 0 {
            return None;
        }
        let run = self.add(Run {
            hashes: hashes[..room].into(),
            holders: Bits::default(),
            pinned: Bits::default(),
            refs: 0,
            newer: NIL,
            older: NIL,
        });
        self.blocks += room;
        self.link_newest(run);
        Some(run)
    }

    fn add(&mut self, run: Run) -> u32 {
        let first = run.hashes[0];
        let at = match self.vacant.pop() {
            Some(at) => {
                self.runs[at as usize] = run;
                at
            }
            None => {
                self.runs.push(run);
                (self.runs.len() - 1) as u32
            }
        };
        self.by_first.insert(first, at);
        at
    }

    fn drop_run(&mut self, run: u32) {
        self.unlink(run);
        let it = &mut self.runs[run as usize];
        let hashes = std::mem::take(&mut it.hashes);
        for endpoint in std::mem::take(&mut it.holders).iter() {
            self.holders[endpoint].forget(run, hashes.len());
            self.copies -= 1;
        }
        self.by_first.remove(&hashes[0]);
        self.blocks -= hashes.len();
        self.vacant.push(run);
    }

    /// Cuts `run` after `blocks` blocks and returns the front part; the run itself if there is nothing to cut.
    ///
    /// The front becomes the new run, so whatever continues `run` need not be touched. Nothing is cut where another
    /// run begins with the hash after the cut: with chained hashes that is a collision, and a run must stay findable
    /// as long as it is in use.
    fn cut_at(&mut self, run: u32, blocks: usize) -> Option<u32> {
        let it = &mut self.runs[run as usize];
        match it.hashes.get(blocks) {
            None => return Some(run),
            Some(next) if self.by_first.contains_key(next) => return None,
            Some(_) => {}
        }
        let (front, rest) = it.hashes.split_at(blocks);
        let (front, rest): (Box<[u64]>, Box<[u64]>) = (front.into(), rest.into());
        let first_of_rest = rest[0];
        it.hashes = rest;
        let (holders, pinned, refs) = (it.holders.clone(), it.pinned.clone(), it.refs);
        let (newer, older) = (it.newer, run);
        let head = self.add(Run {
            hashes: front,
            holders: holders.clone(),
            pinned,
            refs,
            newer: NIL,
            older: NIL,
        });
        self.by_first.insert(first_of_rest, run);
        if refs == 0 {
            let it = &mut self.runs[head as usize];
            (it.newer, it.older) = (newer, older);
            self.runs[run as usize].newer = head;
            match newer {
                NIL => self.newest = head,
                newer => self.runs[newer as usize].older = head,
            }
        }
        for endpoint in holders.iter() {
            self.holders[endpoint].cut(run, head);
            self.copies += 1;
        }
        Some(head)
    }

    fn link_newest(&mut self, run: u32) {
        let second = self.newest;
        let it = &mut self.runs[run as usize];
        (it.newer, it.older) = (NIL, second);
        match second {
            NIL => self.oldest = run,
            second => self.runs[second as usize].newer = run,
        }
        self.newest = run;
    }

    fn unlink(&mut self, run: u32) {
        let Run { newer, older, .. } = self.runs[run as usize];
        match newer {
            NIL => self.newest = older,
            newer => self.runs[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.runs[older as usize].newer = newer,
        }
    }
}

/// Blocks that two stretches have in common. All are compared, though the last would do for chained hashes: it costs a
/// microsecond for a thousand blocks, and a request must find again exactly what it pinned, collisions or not.
fn common(run: &[u64], rest: &[u64]) -> usize {
    let most = run.len().min(rest.len());
    if run[..most] == rest[..most] {
        return most;
    }
    run.iter().zip(rest).take_while(|(a, b)| a == b).count()
}
