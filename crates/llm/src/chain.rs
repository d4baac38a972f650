//! Hashes that name the prefixes of a prompt.
//!
//! The pieces of a [`Prompt`] are laid out as one byte stream which is cut into blocks of [`BLOCK_BYTES`]. Block `i` is
//! hashed with the hash before it as the seed, `h[i] = XXH64(block[i], seed = h[i-1])`, and `h[-1]` is made of model and
//! cache salt, so that one hash names the whole prefix under one model and tenant. This is the chain that engines use
//! for their own cache blocks, over text instead of tokens: exact tokenising costs a thousand times a hash.
//!
//! The stream is never built. Text is unescaped on the way into the hash. A token id counts four bytes, as does each
//! estimated token of an attachment, so that 256 bytes stand for 64 tokens everywhere. Changing any of this changes
//! every hash, which is harmless within one process and must happen on all sides where hashes are exchanged.

use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::Prompt;
use crate::json::Text;
use crate::prompt::{Media, Payload, Segment};

/// Bytes of prompt that one hash covers, about 64 tokens.
pub const BLOCK_BYTES: usize = 256;

/// English text and code have about four bytes a token in the vocabularies in use.
const BYTES_PER_TOKEN: usize = 4;

/// What a prefix cache is keyed by besides the text.
#[derive(Debug, Clone, Copy)]
pub struct ChainSeed<'s> {
    /// The model or adapter that the server is asked for.
    pub model: &'s str,
    /// The client's cache salt.
    pub cache_salt: Option<&'s str>,
}

impl ChainSeed<'_> {
    /// The hash before the first block.
    fn root(&self) -> u64 {
        let model = xxh64(self.model.as_bytes(), 0);
        // A salt, even an empty one, is another hash of another length: `!model` keeps it from looking like none.
        self.cache_salt
            .map_or(model, |salt| xxh64(salt.as_bytes(), !model))
    }
}

/// A prompt's prefixes: `hashes[i]` names everything up to and including block `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixChain {
    /// One hash per full block of the first prompt.
    pub hashes: Vec<u64>,
    /// Bytes per block.
    pub block_bytes: usize,
    /// Estimated tokens of all prompts of the body.
    pub prompt_tokens: u32,
    /// Bytes of the stream that was hashed: the first prompt, with four bytes per token id and per estimated token of
    /// an attachment.
    pub prompt_bytes: usize,
    /// Images, audio clips, videos and files in the first prompt.
    pub media: u32,
}

impl Prompt<'_> {
    /// Hashes the prompt block by block.
    #[must_use]
    pub fn chain(&self, seed: &ChainSeed<'_>) -> PrefixChain {
        let mut blocks = Blocks::new(seed.root());
        if let Some(tools) = self.tools {
            blocks.tag(Tag::Tools);
            blocks.push(tools.as_bytes());
        }
        for segment in self.system.iter().chain(&self.turns) {
            blocks.segment(segment);
        }
        let tokens = (blocks.total + self.rest_bytes).div_ceil(BYTES_PER_TOKEN);
        PrefixChain {
            hashes: blocks.hashes,
            block_bytes: BLOCK_BYTES,
            prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            prompt_bytes: blocks.total,
            media: blocks.media,
        }
    }
}

/// The byte before a piece that tells what it is; such bytes do not occur in the pieces themselves.
#[derive(Clone, Copy)]
enum Tag {
    Tools = 0x01,
    Role = 0x02,
    Text = 0x03,
    Json = 0x04,
    Media = 0x05,
}

/// Cuts the stream into blocks and hashes them.
struct Blocks {
    last: u64,
    partial: [u8; BLOCK_BYTES],
    filled: usize,
    total: usize,
    media: u32,
    hashes: Vec<u64>,
}

impl Blocks {
    fn new(root: u64) -> Self {
        Self {
            last: root,
            partial: [0; BLOCK_BYTES],
            filled: 0,
            total: 0,
            media: 0,
            hashes: Vec::new(),
        }
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        match segment {
            Segment::Role(role) => self.text(Tag::Role, role),
            Segment::Text(text) => self.text(Tag::Text, text),
            Segment::Json(json) => {
                self.tag(Tag::Json);
                self.push(json.as_bytes());
            }
            Segment::Media(kind, payload) => self.attachment(*kind, payload),
            Segment::Ids(array) => self.ids(array),
        }
    }

    fn tag(&mut self, tag: Tag) {
        self.push(&[tag as u8]);
    }

    fn text(&mut self, tag: Tag, text: &Text<'_>) {
        self.tag(tag);
        text.pieces(|piece| self.push(piece.as_bytes()));
    }

    /// An attachment takes the room of its estimated tokens, filled with the digest of its data or address.
    fn attachment(&mut self, kind: Media, payload: &Payload<'_>) {
        self.media += 1;
        self.tag(Tag::Media);
        let digest = digest(payload).to_le_bytes();
        for _ in 0..estimated_tokens(kind, payload) * BYTES_PER_TOKEN / digest.len() {
            self.push(&digest);
        }
    }

    /// Token ids as four little-endian bytes each.
    fn ids(&mut self, array: &str) {
        let numbers = array
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty());
        for digits in numbers {
            let id = digits.bytes().fold(0_u32, |id, digit| {
                id.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))
            });
            self.push(&id.to_le_bytes());
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len();
        if self.filled > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filled));
            self.keep(now);
            bytes = later;
            if self.filled < BLOCK_BYTES {
                return;
            }
            let block = self.partial;
            self.block(&block);
            self.filled = 0;
        }
        let whole = bytes.chunks_exact(BLOCK_BYTES);
        let rest = whole.remainder();
        self.hashes.reserve(whole.len());
        whole.for_each(|block| self.block(block));
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        if let Some(room) = self.partial.get_mut(self.filled..end) {
            room.copy_from_slice(bytes);
            self.filled = end;
        }
    }

    fn block(&mut self, block: &[u8]) {
        self.last = xxh64(block, self.last);
        self.hashes.push(self.last);
    }
}

fn digest(payload: &Payload<'_>) -> u64 {
    match payload {
        Payload::Bytes(bytes) => xxh64(bytes, 0),
        Payload::Text(text) => {
            let mut state = Xxh64::new(0);
            text.pieces(|piece| state.update(piece.as_bytes()));
            state.digest()
        }
    }
}

/// Tokens that an attachment becomes, where only its kind is known: the middle of what current models make of a
/// photograph (Gemma 3 256, LLaVA 576, Qwen2-VL about 1,300 for a megapixel), thirty seconds of speech at 25 a second,
/// a few video frames, a page or two of a document. A base64 length says a hundred times too much.
fn estimated_tokens(kind: Media, payload: &Payload<'_>) -> usize {
    match (kind, payload) {
        // Forms carry speech, 16 kHz PCM at most: 32,000 bytes a second.
        (Media::Audio, Payload::Bytes(bytes)) => (bytes.len() * 25 / 32_000).max(25),
        (Media::Audio, Payload::Text(_)) => 750,
        (Media::Image, _) => 768,
        (Media::Video, _) => 2048,
        (Media::File, _) => 1536,
    }
}

#[cfg(test)]
mod tests;
