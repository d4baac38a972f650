//! What an engine is made of.

use crate::profiles::{Model, Profile};

/// Settings of an engine. [`EngineConfig::for_model`] fills in vLLM's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Constants of the step time.
    pub profile: Profile,
    /// Blocks of the KV cache.
    pub kv_blocks: u32,
    /// Tokens a block (vLLM: 16).
    pub block_tokens: u32,
    /// Token budget of a step (vLLM's `max_num_batched_tokens`).
    pub max_batched_tokens: u32,
    /// Sequences that may run at once (vLLM's `max_num_seqs`).
    pub max_seqs: usize,
    /// Longest sequence, prompt and output together, in tokens.
    pub max_model_len: u32,
    /// Which vLLM's rules for admission and for the visibility of blocks.
    pub semantics: Semantics,
    /// In which order waiting sequences are admitted.
    pub policy: QueuePolicy,
    /// Adapter slots and their costs.
    pub lora: LoraConfig,
    /// Sigma of the lognormal factor on each step's time; 0 means no noise. Measured servers: 0.001 to 0.006.
    pub step_noise: f64,
    /// Refuse a sequence when so many wait already (vLLM's `max_num_queued_reqs`); `None` means never.
    pub max_waiting: Option<usize>,
    /// Whether freed blocks stay findable.
    pub prefix_caching: bool,
    /// An output tells of so many tokens after the first at once; what is left over comes with the end, and 0 means
    /// all of it. The more, the less there is to do for a sequence that decodes.
    pub report_every: u32,
}

impl EngineConfig {
    /// vLLM's defaults on the given model and hardware.
    #[must_use]
    pub fn for_model(model: &Model) -> Self {
        Self {
            profile: model.profile,
            kv_blocks: model.kv_tokens / 16,
            block_tokens: 16,
            max_batched_tokens: 8192,
            max_seqs: 256,
            max_model_len: model.max_model_len,
            semantics: Semantics::Vllm,
            policy: QueuePolicy::Fcfs,
            lora: LoraConfig::default(),
            step_noise: 0.0,
            max_waiting: None,
            prefix_caching: true,
            report_every: 1,
        }
    }

    /// The most tokens that one sequence can ever hold here: the model's limit or the whole cache.
    #[must_use]
    pub fn sequence_limit(&self) -> u32 {
        self.max_model_len
            .min(self.kv_blocks.saturating_mul(self.block_tokens))
    }
}

/// Two generations of vLLM's scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Semantics {
    /// The present one: a block can be hit as soon as it is scheduled (`allocate_slots` caches at once), and a
    /// sequence is admitted only when its whole prompt fits (`scheduler_reserve_full_isl`).
    #[default]
    Vllm,
    /// The older one: a block can be hit once it is computed, and a sequence is admitted when its first chunk fits.
    Older,
}

/// Order of the waiting queue, and who is preempted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueuePolicy {
    /// First come, first served; the last admitted is preempted first.
    #[default]
    Fcfs,
    /// Smaller priority values first (vLLM's `--scheduling-policy priority`), then order of arrival; the running
    /// sequence with the largest value, then the latest, is preempted first.
    Priority,
}

/// Adapter slots. The default has none, and refuses sequences that name an adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraConfig {
    /// Adapters in GPU memory, which is also how many different ones a batch can hold.
    pub max_loras: usize,
    /// Adapters kept in host memory.
    pub max_cpu_loras: usize,
    /// Seconds to load an adapter from disk. The engine stands still meanwhile.
    pub load_seconds: f64,
    /// Seconds to copy an adapter from host memory to the GPU.
    pub swap_seconds: f64,
    /// Each different adapter in a batch lengthens the step by this share (0.02 for rank 8, 0.035 for 16, 0.06 for
    /// 32).
    pub step_factor: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            max_loras: 0,
            max_cpu_loras: 0,
            load_seconds: 0.3,
            swap_seconds: 0.0025,
            step_factor: 0.02,
        }
    }
}
