//! What one endpoint is believed to have in its prefix cache.
//!
//! A copy is *pinned* while a request in flight uses it and *idle* otherwise. Idle copies form a list from the most to
//! the least recently used, as in vLLM's queue of free blocks. A copy goes to the front when its last request ends,
//! the deepest part of a prompt first, so that a part is always more recent than what continues it: what is forgotten
//! first is always the end of a prefix.

use rustc_hash::FxHashMap;

/// The end of a list.
pub(crate) const NIL: u32 = u32::MAX;

/// An endpoint's copy of one run of blocks.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Held {
    /// Requests in flight that use it.
    pub(crate) refs: u32,
    /// When it was last put down: a count that ascends with time.
    pub(crate) stamp: u64,
    newer: u32,
    older: u32,
}

/// The copies of one endpoint.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) copies: FxHashMap<u32, Held>,
    newest: u32,
    oldest: u32,
    pub(crate) pinned_blocks: usize,
    pub(crate) idle_blocks: usize,
}

impl Default for Holder {
    fn default() -> Self {
        Self {
            copies: FxHashMap::default(),
            newest: NIL,
            oldest: NIL,
            pinned_blocks: 0,
            idle_blocks: 0,
        }
    }
}

impl Holder {
    /// The idle copy to forget first.
    pub(crate) fn oldest(&self) -> Option<(u32, Held)> {
        self.copies
            .get(&self.oldest)
            .map(|held| (self.oldest, *held))
    }

    /// A request uses `run` (of `blocks` blocks). Returns when an idle copy was last used.
    pub(crate) fn pin(&mut self, run: u32, blocks: usize) -> Option<u64> {
        let Some(held) = self.copies.get_mut(&run) else {
            self.copies.insert(
                run,
                Held {
                    refs: 1,
                    stamp: 0,
                    newer: NIL,
                    older: NIL,
                },
            );
            self.pinned_blocks += blocks;
            return None;
        };
        held.refs += 1;
        if held.refs > 1 {
            return None;
        }
        let stamp = held.stamp;
        self.unlink(run);
        self.idle_blocks -= blocks;
        self.pinned_blocks += blocks;
        Some(stamp)
    }

    /// A request no longer uses `run`. Returns whether it was the last one.
    pub(crate) fn unpin(&mut self, run: u32, blocks: usize, stamp: u64) -> bool {
        let Some(held) = self.copies.get_mut(&run).filter(|held| held.refs > 0) else {
            return false;
        };
        held.refs -= 1;
        if held.refs > 0 {
            return false;
        }
        held.stamp = stamp;
        self.pinned_blocks -= blocks;
        self.idle_blocks += blocks;
        self.link_newest(run);
        true
    }

    /// Forgets an idle copy.
    pub(crate) fn forget(&mut self, run: u32, blocks: usize) {
        if self.copies.get(&run).is_some_and(|held| held.refs == 0) {
            self.unlink(run);
            self.copies.remove(&run);
            self.idle_blocks -= blocks;
        }
    }

    /// `run` was cut in two: `head` is its front part, held alike and a little more recent.
    pub(crate) fn cut(&mut self, run: u32, head: u32) {
        let Some(held) = self.copies.get(&run).copied() else {
            return;
        };
        self.copies.insert(
            head,
            Held {
                newer: NIL,
                older: NIL,
                ..held
            },
        );
        if held.refs == 0 {
            self.set(head, |it| {
                it.older = run;
                it.newer = held.newer;
            });
            self.set(run, |it| it.newer = head);
            match held.newer {
                NIL => self.newest = head,
                newer => self.set(newer, |it| it.older = head),
            }
        }
    }

    /// Runs have new names.
    pub(crate) fn rename(&mut self, place: impl Fn(u32) -> u32) {
        let renamed = std::mem::take(&mut self.copies)
            .into_iter()
            .map(|(run, held)| {
                let (newer, older) = (place(held.newer), place(held.older));
                (
                    place(run),
                    Held {
                        newer,
                        older,
                        ..held
                    },
                )
            });
        self.copies = renamed.collect();
        (self.newest, self.oldest) = (place(self.newest), place(self.oldest));
    }

    fn link_newest(&mut self, run: u32) {
        let second = self.newest;
        self.set(run, |it| {
            it.newer = NIL;
            it.older = second;
        });
        match second {
            NIL => self.oldest = run,
            second => self.set(second, |it| it.newer = run),
        }
        self.newest = run;
    }

    fn unlink(&mut self, run: u32) {
        let Some(Held { newer, older, .. }) = self.copies.get(&run).copied() else {
            return;
        };
        match newer {
            NIL => self.newest = older,
            newer => self.set(newer, |it| it.older = older),
        }
        match older {
            NIL => self.oldest = newer,
            older => self.set(older, |it| it.newer = newer),
        }
    }

    fn set(&mut self, run: u32, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.copies.get_mut(&run) {
            change(held);
        }
    }
}
