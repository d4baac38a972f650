//! What an engine tells about itself: the values behind vLLM's gauges and counters.

use crate::sequence::AdapterId;

/// A snapshot of an engine. Counters run from the engine's start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// Sequences that are running.
    pub running: usize,
    /// Sequences that wait, preempted ones included.
    pub waiting: usize,
    /// Of those, how many the last step passed over because no adapter slot was open.
    pub deferred: usize,
    /// Share of KV blocks that sequences hold, 0 to 1. Findable but free blocks do not count.
    pub kv_usage: f64,
    /// Blocks that can be hit, held or free.
    pub cached_blocks: usize,
    /// Tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens found there.
    pub prefix_hits: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Prompt tokens of sequences that have produced their first token (or ended without one).
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generation_tokens: u64,
    /// Tokens computed, prompts and outputs, including what preemption made necessary again.
    pub computed_tokens: u64,
    /// Steps finished.
    pub steps: u64,
    /// Sum of the steps' durations, seconds.
    pub busy_seconds: f64,
    /// Sequences that ended by themselves.
    pub finished: u64,
    /// Sequences that the host aborted.
    pub aborted: u64,
    /// Sequences refused.
    pub refused: u64,
    /// Adapter loads from disk.
    pub adapter_loads: u64,
    /// Adapters in GPU memory, ascending.
    pub resident_adapters: Vec<AdapterId>,
    /// Adapters with a running sequence, ascending.
    pub running_adapters: Vec<AdapterId>,
    /// Adapters with a waiting sequence, ascending.
    pub waiting_adapters: Vec<AdapterId>,
}
