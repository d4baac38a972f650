//! Hashes that name the prefixes of a prompt.

use crate::Prompt;

/// Bytes of prompt that one hash covers, about 64 tokens.
pub const BLOCK_BYTES: usize = 256;

/// What a prefix cache is keyed by besides the text.
#[derive(Debug, Clone, Copy)]
pub struct ChainSeed<'s> {
    /// The model or adapter that the server is asked for.
    pub model: &'s str,
    /// The client's cache salt.
    pub cache_salt: Option<&'s str>,
}

/// A prompt's prefixes: `hashes[i]` names everything up to and including block `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixChain {
    /// One hash per full block.
    pub hashes: Vec<u64>,
    /// Bytes per block.
    pub block_bytes: usize,
    /// Estimated tokens of the whole prompt.
    pub prompt_tokens: u32,
    /// Bytes of the stream that was hashed.
    pub prompt_bytes: usize,
    /// Images, audio clips, videos and files in the prompt.
    pub media: u32,
}

impl Prompt<'_> {
    /// Hashes the prompt block by block.
    #[must_use]
    pub fn chain(&self, seed: &ChainSeed<'_>) -> PrefixChain {
        let _ = seed;
        PrefixChain {
            hashes: Vec::new(),
            block_bytes: BLOCK_BYTES,
            prompt_tokens: 0,
            prompt_bytes: 0,
            media: 0,
        }
    }
}
