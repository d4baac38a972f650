//! Names of KV blocks.
//!
//! A block's name covers its own tokens and, through its parent, everything before them, so two sequences share a
//! block exactly when they agree on the whole prefix. The first parent stands for what else must agree: the model or
//! adapter and the client's cache salt.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The name of a full block: a hash chained over all tokens up to the block's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub u64);

impl BlockHash {
    /// The parent of the first block. `scope` names what must agree besides tokens (model, adapter, salt).
    #[must_use]
    pub fn root(scope: &[u8]) -> Self {
        Self(xxh3_64(scope))
    }

    /// The block that holds `tokens` after `self`.
    #[must_use]
    pub fn child(self, tokens: &[u32]) -> Self {
        // vLLM's block is one part; longer ones take several.
        const PART: usize = 16;
        let mut bytes = [0_u8; 4 * PART];
        let mut hash = self.0;
        for part in tokens.chunks(PART) {
            for (place, token) in bytes.chunks_exact_mut(4).zip(part) {
                place.copy_from_slice(&token.to_le_bytes());
            }
            hash = xxh3_64_with_seed(&bytes[..4 * part.len()], hash);
        }
        Self(hash)
    }

    /// The blocks of `tokens` after `self`, full blocks only.
    pub fn chain(self, tokens: &[u32], block_tokens: usize) -> impl Iterator<Item = Self> + '_ {
        tokens
            .chunks_exact(block_tokens.max(1))
            .scan(self, |parent, block| {
                *parent = parent.child(block);
                Some(*parent)
            })
    }
}

/// Lengthens a chain by `count` invented blocks, for hosts that know sizes but no tokens (traces).
///
/// The names follow from the last block and from `salt` alone, so the next turn of a conversation finds the blocks
/// of the answer before it when the host lengthens the same chain in the same way.
pub fn extend_chain(chain: &mut Vec<BlockHash>, count: usize, salt: u64) {
    let mut parent = chain.last().map_or(BlockHash(salt), |last| *last);
    let salt = [salt as u32, (salt >> 32) as u32];
    chain.reserve(count);
    for _ in 0..count {
        parent = parent.child(&salt);
        chain.push(parent);
    }
}
