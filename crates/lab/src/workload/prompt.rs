//! Prompts without text: segments with names and sizes.
//!
//! A prompt is a row of segments (system prompt, question, earlier answer, document). Two segments of one name hold
//! the same tokens, as far as both reach. A block of 16 tokens may begin in one segment and end in the next, so a
//! block is named by its parent and by the pieces of segments in it: name, place within the segment, length. Two
//! prompts then share a block exactly when everything up to the end of the block is the same.

use std::sync::Arc;

use simulator::BlockHash;
use smallvec::SmallVec;

use crate::BLOCK_TOKENS;

/// A prompt under construction, or a conversation so far.
#[derive(Debug, Clone)]
pub struct Prompt {
    root: BlockHash,
    blocks: Vec<BlockHash>,
    /// Pieces in the last, not yet full block: name (two words), place, length.
    open: SmallVec<[u32; 16]>,
    open_tokens: u32,
}

impl Prompt {
    /// An empty prompt to the base model, or to an adapter: what one computes, the other cannot use.
    #[must_use]
    pub fn new(adapter: Option<u32>) -> Self {
        let scope = adapter.map_or([0; 8], |id| (u64::from(id) + 1).to_le_bytes());
        Self {
            root: BlockHash::root(&scope),
            blocks: Vec::new(),
            open: SmallVec::new(),
            open_tokens: 0,
        }
    }

    /// Appends the first `tokens` tokens of the segment `name`.
    pub fn push(&mut self, name: u64, tokens: u32) {
        self.blocks.reserve((tokens / BLOCK_TOKENS) as usize + 1);
        let mut place = 0;
        while place < tokens {
            let length = (BLOCK_TOKENS - self.open_tokens).min(tokens - place);
            self.open
                .extend_from_slice(&[name as u32, (name >> 32) as u32, place, length]);
            self.open_tokens += length;
            place += length;
            if self.open_tokens == BLOCK_TOKENS {
                let parent = self.blocks.last().copied().unwrap_or(self.root);
                self.blocks.push(parent.child(&self.open));
                self.open.clear();
                self.open_tokens = 0;
            }
        }
    }

    /// Appends and returns the longer prompt.
    #[must_use]
    pub fn with(mut self, name: u64, tokens: u32) -> Self {
        self.push(name, tokens);
        self
    }

    /// Tokens so far.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.blocks.len() as u32 * BLOCK_TOKENS + self.open_tokens
    }

    /// Names of the full blocks.
    #[must_use]
    pub fn blocks(&self) -> Arc<[BlockHash]> {
        Arc::from(self.blocks.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(a: &Prompt, b: &Prompt) -> usize {
        a.blocks
            .iter()
            .zip(&b.blocks)
            .take_while(|(x, y)| x == y)
            .count()
    }

    #[test]
    fn blocks_are_shared_exactly_as_far_as_the_tokens_are() {
        let base = || Prompt::new(None).with(1, 100);
        // 100 tokens are 6 full blocks and 4 tokens; the seventh block holds 12 tokens of what follows.
        assert_eq!(shared(&base().with(2, 60), &base().with(3, 60)), 6);
        assert_eq!(shared(&base().with(2, 60), &base().with(2, 60)), 10);
        assert_eq!(shared(&base().with(2, 60), &base().with(2, 40)), 8);
        assert_eq!(
            shared(&Prompt::new(None).with(1, 96), &base().with(2, 60)),
            6
        );
        // The same tokens further on are not the same prefix.
        assert_eq!(
            shared(&Prompt::new(None).with(9, 16).with(1, 100), &base()),
            0
        );
        assert_eq!(shared(&Prompt::new(Some(0)).with(1, 100), &base()), 0);
    }

    #[test]
    fn a_segment_that_starts_elsewhere_in_the_block_is_another_block() {
        let a = Prompt::new(None).with(1, 8).with(2, 8);
        let b = Prompt::new(None).with(1, 9).with(2, 7);
        assert_eq!((a.tokens(), b.tokens()), (16, 16));
        assert_eq!(shared(&a, &b), 0);
    }

    #[test]
    fn nothing_appended_changes_nothing() {
        let mut prompt = Prompt::new(None).with(1, 33);
        prompt.push(7, 0);
        assert_eq!(prompt.tokens(), 33);
        assert_eq!(prompt.blocks().len(), 2);
    }
}
