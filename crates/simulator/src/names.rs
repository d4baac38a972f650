//! From the name of a block to its place: an open-addressing table made for what the engine does.
//!
//! Each block that is computed is looked up, entered, and one day removed, in a table far larger than a core's nearest
//! cache; so each of these should touch one line of memory. Half of the mixed name is kept
//! beside the block's number, gives the home slot, and tells a wrong slot without a look at the block. Removal moves
//! later entries back (no tombstones: Knuth, volume 3, algorithm 6.4R), so the table never decays.

/// A slot: half of the mixed name, and the block; `EMPTY` blocks are no blocks.
#[derive(Debug, Clone, Copy)]
struct Slot {
    high: u32,
    block: u32,
}

const EMPTY: Slot = Slot {
    high: 0,
    block: u32::MAX,
};

/// The table. The full names stay with the blocks: callers pass how to read them.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    slots: Vec<Slot>,
    mask: usize,
    used: usize,
}

impl Names {
    /// Room for `blocks` names: at most three in five slots are ever taken.
    pub(crate) fn new(blocks: u32) -> Self {
        let least = (blocks as usize + 1) * 5 / 3;
        let slots = least.next_power_of_two().max(8);
        Self {
            slots: vec![EMPTY; slots],
            mask: slots - 1,
            used: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// The block of that name.
    pub(crate) fn get(&self, name: u64, name_of: impl Fn(u32) -> u64) -> Option<u32> {
        let mut at = self.home(high(name));
        loop {
            let slot = self.slots[at];
            if slot.block == EMPTY.block {
                return None;
            }
            if slot.high == high(name) && name_of(slot.block) == name {
                return Some(slot.block);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Enters a block under a name; false, and nothing entered, if the name is taken.
    pub(crate) fn insert(&mut self, name: u64, block: u32, name_of: impl Fn(u32) -> u64) -> bool {
        let mut at = self.home(high(name));
        loop {
            let slot = self.slots[at];
            if slot.block == EMPTY.block {
                let high = high(name);
                self.slots[at] = Slot { high, block };
                self.used += 1;
                return true;
            }
            if slot.high == high(name) && name_of(slot.block) == name {
                return false;
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Takes a block out that stands under that name.
    pub(crate) fn remove(&mut self, name: u64, block: u32) {
        let mut at = self.home(high(name));
        while self.slots[at].block != block {
            if self.slots[at].block == EMPTY.block {
                return;
            }
            at = (at + 1) & self.mask;
        }
        self.used -= 1;
        let mut hole = at;
        let mut next = (at + 1) & self.mask;
        while self.slots[next].block != EMPTY.block {
            let home = self.home(self.slots[next].high);
            // It may move to the hole unless its home lies behind the hole, cyclically.
            if next.wrapping_sub(home) & self.mask >= next.wrapping_sub(hole) & self.mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & self.mask;
        }
        self.slots[hole] = EMPTY;
    }

    fn home(&self, high: u32) -> usize {
        high as usize & self.mask
    }

    pub(crate) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.used = 0;
    }
}

/// Mixed, so that names which somebody counted up do not crowd.
fn high(name: u64) -> u32 {
    (name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Names that crowd into few home slots, entered and removed in any order, against a map.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u32..40, any::<bool>()), 1..400)) {
            // Few homes, some equal high halves.
            let name_of = |block: u32| (u64::from(block % 7) << 32) | u64::from(block / 2);
            let mut names = Names::new(40);
            let mut model = BTreeMap::new();
            for (block, enter) in steps {
                let name = name_of(block);
                if enter {
                    let new = model.insert(name, block).is_none();
                    prop_assert_eq!(names.insert(name, block, name_of), new);
                } else if model.remove(&name).is_some() {
                    names.remove(name, block);
                }
                prop_assert_eq!(names.len(), model.len());
                for other in 0..40 {
                    let name = name_of(other);
                    prop_assert_eq!(names.get(name, name_of), model.get(&name).copied());
                }
            }
            names.clear();
            prop_assert_eq!((names.len(), names.get(name_of(1), name_of)), (0, None));
        }
    }
}
