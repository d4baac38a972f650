//! What a workload asks of a fleet.

use std::sync::Arc;

use simulator::BlockHash;

/// One request of a workload.
#[derive(Debug, Clone)]
pub struct Job {
    /// Unique within a run; dense from 0 in order of creation.
    pub id: u64,
    /// When the client sends it, in seconds of virtual time.
    pub at: f64,
    /// The conversation or agent run it belongs to, if any.
    pub session: Option<u64>,
    /// The prompt as chained hashes of full blocks of [`BLOCK_TOKENS`] tokens, followed by those that the answer will
    /// fill, so that a later turn finds them (see [`simulator::Sequence`]).
    pub blocks: Arc<[BlockHash]>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens the answer will have. Policies must not look, oracles may.
    pub output_tokens: u32,
    /// `max_tokens` of the request, which policies may look at.
    pub max_output_tokens: Option<u32>,
    /// LoRA adapter.
    pub adapter: Option<u32>,
    /// Class: Critical 1, Standard 0, Sheddable -1.
    pub priority: i32,
    /// Tenant, for fairness.
    pub flow: u64,
    /// Hash of the first user message, for policies that hash it (CHWBL).
    pub first_message: u64,
    /// Leave it out of the results (warm-up).
    pub warmup: bool,
}

/// Tokens of a block of the engines' prefix cache.
pub const BLOCK_TOKENS: u32 = 16;

/// A stream of jobs. Open-loop sources know all arrivals beforehand; closed-loop ones make the next job of a session
/// when the last one ended.
pub trait Workload: Send {
    /// The next job whose time does not depend on any answer, in order of time; `None`: there are no more.
    fn next(&mut self) -> Option<Job>;

    /// A job of a session ended at `now`; returns the job that follows, if any (its `at` is `now` plus think time).
    fn finished(&mut self, _job: &Job, _now: f64) -> Option<Job> {
        None
    }
}
