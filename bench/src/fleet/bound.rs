//! The best possible hit ratio: what one server with an endless prefix cache would find.
//!
//! A prefix counts as found when any earlier prompt had it, in whole blocks, and never the whole prompt: the last
//! token is computed in any case, as its output is what the first new token is sampled from.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Tokens a block in the cache (vLLM's default).
pub const BLOCK: usize = 16;

/// A cache that never forgets.
#[derive(Default)]
pub struct EndlessCache {
    /// Each block's hash, chained with all before it.
    blocks: HashSet<u64>,
    found: u64,
    asked: u64,
}

impl EndlessCache {
    /// Books the next prompt.
    pub fn prompt(&mut self, tokens: &[u32]) {
        let usable = tokens.len().saturating_sub(1) / BLOCK;
        let mut chain = 0;
        let mut matched = 0;
        for (i, block) in tokens.chunks_exact(BLOCK).enumerate() {
            let mut hasher = DefaultHasher::new();
            (chain, block).hash(&mut hasher);
            chain = hasher.finish();
            let new = self.blocks.insert(chain);
            matched += usize::from(!new && matched == i && i < usable);
        }
        self.found += (matched * BLOCK) as u64;
        self.asked += tokens.len() as u64;
    }

    /// Tokens found, as a share of all tokens; 0 before the first prompt.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        self.found as f64 / self.asked.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(prompts: &[&[u32]]) -> f64 {
        let mut cache = EndlessCache::default();
        prompts.iter().for_each(|p| cache.prompt(p));
        cache.hit_ratio()
    }

    #[test]
    fn hits_are_whole_blocks_of_an_earlier_prefix() {
        let long: Vec<u32> = (0..100).collect();
        assert_eq!(ratio(&[]), 0.0);
        assert_eq!(ratio(&[&long]), 0.0);
        // 99 tokens may hit: 6 blocks.
        assert_eq!(ratio(&[&long, &long]), 96.0 / 200.0);
        let mut forked = long.clone();
        forked[40] = 7;
        // 2 whole blocks before the fork; equal blocks behind it do not count.
        assert_eq!(ratio(&[&long, &forked]), 32.0 / 200.0);
    }

    #[test]
    fn the_last_token_is_always_computed() {
        let two_blocks: Vec<u32> = (0..32).collect();
        assert_eq!(ratio(&[&two_blocks, &two_blocks]), 16.0 / 64.0);
        assert_eq!(ratio(&[&[1], &[1], &[]]), 0.0);
    }
}
