//! From the name of a block to its place: an open-addressing table made for what the engine does.
//!
//! Each block that is computed is looked up, entered, and one day evicted, in a table far larger than a core's nearest
//! cache; so each of these should touch as little memory as can be. Half of the mixed name is kept beside the block's
//! number, gives the home slot, and tells most wrong slots without a look at the block. An evicted block is not taken
//! out: its slot says something that is no longer so, which whoever looks sees from the block itself. When too many
//! slots are like that, the table is made anew from the blocks, all at once while it is in the cache.

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

/// The table. The full names stay with the blocks: callers say whether a block still has a name.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    slots: Vec<Slot>,
    mask: usize,
    /// Slots that are not empty.
    used: usize,
}

impl Names {
    /// For so many blocks: at most a third of the slots are ever true, and at most two thirds taken.
    pub(crate) fn new(blocks: u32) -> Self {
        let slots = (blocks as usize * 3).next_power_of_two().max(8);
        Self {
            slots: vec![EMPTY; slots],
            mask: slots - 1,
            used: 0,
        }
    }

    /// The block of that name; `has` says whether a block has it.
    pub(crate) fn get(&self, name: u64, has: impl Fn(u32) -> bool) -> Option<u32> {
        self.look(name, has).ok()
    }

    /// The block of a name, or the empty slot where it would be.
    fn look(&self, name: u64, has: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let high = high(name);
        let mut at = high as usize & self.mask;
        loop {
            let slot = self.slots[at];
            if slot.block == EMPTY.block {
                return Err(at);
            }
            if slot.high == high && has(slot.block) {
                return Ok(slot.block);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Enters a block under a name; false, and nothing entered, if another one has the name. Not when it is full.
    pub(crate) fn insert(&mut self, name: u64, block: u32, has: impl Fn(u32) -> bool) -> bool {
        match self.look(name, has) {
            Ok(_) => false,
            Err(at) => {
                let high = high(name);
                self.slots[at] = Slot { high, block };
                self.used += 1;
                true
            }
        }
    }

    /// Whether the table must be made anew before the next name is entered.
    pub(crate) fn is_full(&self) -> bool {
        self.used >= self.slots.len() * 2 / 3
    }

    /// Makes the table anew from the names that blocks have now.
    pub(crate) fn renew(&mut self, named: impl Iterator<Item = (u64, u32)>) {
        self.clear();
        for (name, block) in named {
            // No two blocks have the same name.
            self.insert(name, block, |_| false);
        }
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
        /// Blocks that get names, lose them and get others, against a map.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u32..12, 0_u64..20, any::<bool>()), 1..400)) {
            let mut names = Names::new(12);
            let mut of: [Option<u64>; 12] = [None; 12];
            let mut model: BTreeMap<u64, u32> = BTreeMap::new();
            for (block, name, enter) in steps {
                // Few homes.
                let name = name << 61 | name;
                let at = block as usize;
                if enter && of[at].is_none() {
                    if names.is_full() {
                        let named = of.iter().enumerate();
                        names.renew(named.filter_map(|(it, name)| Some((name.as_ref().copied()?, it as u32))));
                    }
                    let new = names.insert(name, block, |it| of[it as usize] == Some(name));
                    prop_assert_eq!(new, !model.contains_key(&name));
                    if new {
                        of[at] = Some(name);
                        model.insert(name, block);
                    }
                } else if let Some(old) = of[at].take() {
                    model.remove(&old);
                }
                for name in (0..20_u64).map(|it| it << 61 | it) {
                    let found = names.get(name, |it| of[it as usize] == Some(name));
                    prop_assert_eq!(found, model.get(&name).copied());
                }
            }
        }
    }
}
