//! What came of a run.

use serde::{Deserialize, Serialize};

/// What became of one job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// The job.
    pub id: u64,
    /// When the client sent it, seconds.
    pub at: f64,
    /// Seconds to the first token as the client sees it. Of a job that never got one, refused ones and those whose
    /// answer was cut included: the time from there to the end of the run.
    pub ttft: f64,
    /// Seconds a token after the first; 0 with fewer than two.
    pub tpot: f64,
    /// Seconds to the last token; to the end of the run if there was none.
    pub e2e: f64,
    /// How it ended.
    pub end: End,
    /// Engine that served it.
    pub engine: Option<u32>,
    /// Tokens of the prompt, of them found in the engine's cache, and of the answer.
    pub prompt_tokens: u32,
    /// Found in the engine's cache.
    pub cached_tokens: u32,
    /// Of the answer.
    pub output_tokens: u32,
    /// Class.
    pub priority: i32,
    /// Tenant.
    pub flow: u64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was served.
    Finished,
    /// It was refused.
    Shed,
    /// The run was over before.
    Unfinished,
    /// Its engine failed, or its answer was cut, and no other engine served it.
    Failed,
}

/// One run: one policy, one workload, one load, one seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunOutcome {
    /// Name of the policy.
    pub policy: String,
    /// Name of the workload.
    pub workload: String,
    /// Load: arrivals a second, or whatever the workload scales with.
    pub load: f64,
    /// Seed.
    pub seed: u64,
    /// Virtual seconds simulated, and the real ones it took.
    pub virtual_seconds: f64,
    /// Real seconds.
    pub real_seconds: f64,
    /// All jobs but those of the warm-up.
    pub jobs: Vec<JobOutcome>,
    /// Preemptions in all engines.
    pub preemptions: u64,
    /// Adapter loads in all engines.
    pub adapter_loads: u64,
    /// Busy seconds of each engine within `window`.
    pub busy: Vec<f64>,
    /// Samples over time (each virtual second): running, waiting, KV use, of each engine.
    pub samples: Vec<Sample>,
    /// The measured seconds: from the first job that counts to the end of arrivals.
    #[serde(default)]
    pub window: [f64; 2],
    /// Placements that made no sense (an engine that does not exist, a job that the dispatcher does not hold).
    #[serde(default)]
    pub misplaced: u64,
    /// Placements on engines that were gone.
    #[serde(default)]
    pub dead_picks: u64,
    /// Jobs that went to another engine after one failed them, counted each time.
    #[serde(default)]
    pub retries: u64,
}

/// The fleet at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Virtual seconds.
    pub at: f64,
    /// Running requests of each engine.
    pub running: Vec<u32>,
    /// Waiting requests of each engine.
    pub waiting: Vec<u32>,
    /// Share of the KV cache in use of each engine.
    pub kv_usage: Vec<f32>,
    /// Requests waiting in the gateway.
    pub queued: u32,
}
