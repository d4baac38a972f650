//! A small set of endpoint indices: two words inline (128 endpoints), more on the heap.

use smallvec::SmallVec;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bits(SmallVec<[u64; 2]>);

impl Bits {
    pub(crate) fn contains(&self, index: usize) -> bool {
        self.word(index / 64) & (1 << (index % 64)) != 0
    }

    pub(crate) fn insert(&mut self, index: usize) {
        let word = index / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    pub(crate) fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(at, &word)| ones(at, word))
    }

    /// Becomes a copy of `other` without giving up the room it has.
    pub(crate) fn assign(&mut self, other: &Self) {
        self.0.clear();
        self.0.extend_from_slice(&other.0);
    }

    /// Keeps what is also in `other` and hands each one that is not to `dropped`.
    pub(crate) fn intersect(&mut self, other: &Self, mut dropped: impl FnMut(usize)) {
        for at in 0..self.0.len() {
            let gone = self.0[at] & !other.word(at);
            if gone != 0 {
                ones(at, gone).for_each(&mut dropped);
                self.0[at] &= !gone;
            }
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

fn ones(at: usize, mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(at * 64 + bit)
    })
}
