//! From the name of a block to its place: an open-addressing table made for what the engine does.
//!
//! Each block that is computed is looked up, entered, and one day evicted, in a table far larger than a core's nearest
//! cache; so each of these should touch as little memory as can be. A slot is four bytes: the block's number and, in the
//! bits that are left, a part of the mixed name, which tells most wrong slots without a look at the block. An evicted block is not taken
//! out: its slot says something that is no longer so, which whoever looks sees from the block itself. When too many
//! slots are like that, the table is made anew from the blocks, all at once while it is in the cache.

const EMPTY: u32 = u32::MAX;

/// The table. The full names stay with the blocks: callers say whether a block still has a name.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Block numbers, in the low bits, under as much of the mixed name as there is room for.
    slots: Vec<u32>,
    /// The low bits. No block has this number.
    number: u32,
    mask: usize,
    /// Slots that are not empty.
    used: usize,
}

impl Names {
    /// For so many blocks: at most half of the slots are ever true, and at most two thirds taken.
    pub(crate) fn new(blocks: u32) -> Self {
        let slots = (blocks as usize * 2).next_power_of_two().max(8);
        Self {
            slots: vec![EMPTY; slots],
            number: u32::MAX >> blocks.leading_zeros().min(31),
            mask: slots - 1,
            used: 0,
        }
    }

    /// The block of that name; `has` says whether a block has it.
    pub(crate) fn get(&self, name: u64, has: impl Fn(u32) -> bool) -> Option<u32> {
        self.look(name, has).ok()
    }

    /// What is in the first slot of a name.
    pub(crate) fn peek(&self, name: u64) -> u32 {
        self.slots[(mixed(name) >> 32) as usize & self.mask]
    }

    /// The block of a name, or the empty slot where it would be.
    fn look(&self, name: u64, has: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let mixed = mixed(name);
        let mut at = (mixed >> 32) as usize & self.mask;
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Err(at);
            }
            let block = slot & self.number;
            if (slot ^ mixed as u32) <= self.number && has(block) {
                return Ok(block);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Enters a block under a name; false, and nothing entered, if another one has the name. Not when it is full.
    pub(crate) fn insert(&mut self, name: u64, block: u32, has: impl Fn(u32) -> bool) -> bool {
        match self.look(name, has) {
            Ok(_) => false,
            Err(at) => {
                self.slots[at] = (mixed(name) as u32 & !self.number) | block;
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
fn mixed(name: u64) -> u64 {
    name.wrapping_mul(0x9e37_79b9_7f4a_7c15)
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
