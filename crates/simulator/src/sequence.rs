//! What goes into an engine and what comes out of it.

use std::sync::Arc;

use crate::hash::BlockHash;

/// A LoRA adapter, by the host's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub u32);

/// A request as the engine sees it.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// The host's name for it; unique among sequences that have not ended.
    pub id: u64,
    /// Names of the full blocks of the prompt. More may follow: those name the blocks that prompt and *output* will
    /// fill together, and then output joins the prefix cache as well. Too few means that the rest is not shared.
    /// Adapter and cache salt belong into the chain's root.
    pub prompt: Arc<[BlockHash]>,
    /// Tokens of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Tokens it will generate. 0 is a pooling request (embedding, score): it ends when the prompt is computed.
    pub output_tokens: u32,
    /// Adapter, if not the base model.
    pub adapter: Option<AdapterId>,
    /// Smaller goes first under [`crate::QueuePolicy::Priority`]; otherwise ignored.
    pub priority: i32,
}

impl Sequence {
    /// One prompt token, one output token, nothing shared: the start of a struct update.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            prompt: Arc::from([]),
            prompt_tokens: 1,
            output_tokens: 1,
            adapter: None,
            priority: 0,
        }
    }
}

/// Why a sequence was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The prompt leaves no room for an output token.
    #[error("a prompt of {tokens} tokens exceeds the limit of {limit}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: u32,
        /// Tokens a sequence can have here.
        limit: u32,
    },
    /// As many sequences wait as may wait.
    #[error("the queue is full with {limit} sequences")]
    QueueFull {
        /// The limit, [`crate::EngineConfig::max_waiting`].
        limit: usize,
    },
    /// A prompt has at least one token.
    #[error("the prompt is empty")]
    Empty,
    /// A sequence of that id has not ended yet.
    #[error("the id is in use")]
    DuplicateId,
    /// The engine has no adapter slots.
    #[error("adapters are not enabled")]
    NoAdapters,
}

/// What a step brought for one sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Output {
    /// The sequence.
    pub id: u64,
    /// What happened.
    pub kind: OutputKind,
}

/// Kinds of [`Output`]. The last tokens and the end come as two outputs of the same step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OutputKind {
    /// The first output token.
    FirstToken {
        /// Prompt tokens that were found in the cache when the sequence was first admitted.
        cached_tokens: u32,
        /// Seconds from submission to that admission.
        queued: f64,
    },
    /// So many further output tokens: one, unless [`crate::EngineConfig::report_every`] says otherwise.
    Tokens(u32),
    /// The sequence is done and its blocks are free.
    Finished {
        /// Why.
        reason: FinishReason,
    },
    /// Its blocks were taken away; it waits to be computed again. Tokens already out stay out.
    Preempted,
}

/// Why a sequence ended by itself. (One that the host aborts ends without an output.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// All its output tokens are out.
    Completed,
    /// It reached the longest sequence that the engine can hold.
    ModelLength,
}
