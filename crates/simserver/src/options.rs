//! How a simulated server is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use simulator::{EngineConfig, LoraConfig, Model, QueuePolicy, profiles};

use crate::faults::Faults;

/// The longest time that an adapter may take to load.
const LONGEST_LOAD: Duration = Duration::from_secs(86_400);

/// An adapter known from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraModule {
    /// The model name that selects it.
    pub name: String,
    /// Where it would lie; shown as `root` in `/v1/models`.
    pub path: String,
}

/// Settings of a simulated server. The default listens on a free loopback port and runs in real time.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Model path, and its name unless served under others.
    pub model: String,
    /// Names to serve the model under; empty means [`SimOptions::model`].
    pub served_model_names: Vec<String>,
    /// Model and hardware to imitate.
    pub profile: &'static Model,
    /// Longest sequence in tokens; `None` is the profile's.
    pub max_model_len: Option<u32>,
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Token budget of a step.
    pub max_num_batched_tokens: u32,
    /// Tokens a KV block.
    pub block_size: u32,
    /// KV blocks; `None` is what the profile's memory holds.
    pub num_gpu_blocks: Option<u32>,
    /// Whether freed blocks stay findable.
    pub prefix_caching: bool,
    /// Smaller `priority` values first instead of first come, first served.
    pub priority_scheduling: bool,
    /// Whether adapters can be used and loaded.
    pub enable_lora: bool,
    /// Adapters known from the start.
    pub lora_modules: Vec<LoraModule>,
    /// Adapters in GPU memory at once.
    pub max_loras: usize,
    /// Adapters in host memory; `None` means as many as `max_loras`.
    pub max_cpu_loras: Option<usize>,
    /// Time to load an adapter from disk, before [`SimOptions::speed`].
    pub lora_load: Duration,
    /// Seed of contents, lengths, noise and failures.
    pub seed: u64,
    /// How many times faster than real time the engine runs.
    pub speed: f64,
    /// Sigma of the lognormal noise on step times.
    pub step_noise: f64,
    /// Mean tokens of an answer whose request does not force its length.
    pub mean_output_tokens: u32,
    /// Requests that may wait before new ones get 503.
    pub max_num_queued_reqs: Option<usize>,
    /// How long a stopping server lets requests finish; zero aborts them.
    pub shutdown_timeout: Duration,
    /// Idle connections are closed after this time.
    pub keep_alive_timeout: Duration,
    /// For this long after the start `/health` and generation answer 503.
    pub startup: Duration,
    /// Whether HTTP/2 with prior knowledge is spoken besides HTTP/1.1.
    pub h2c: bool,
    /// Whether streams carry usage in every chunk, asked for or not.
    pub force_include_usage: bool,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// Failures to inject from the start.
    pub faults: Faults,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            model: "simulated".to_owned(),
            served_model_names: Vec::new(),
            profile: &profiles::LLAMA_3_1_8B_H100,
            max_model_len: None,
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            block_size: 16,
            num_gpu_blocks: None,
            prefix_caching: true,
            priority_scheduling: false,
            enable_lora: false,
            lora_modules: Vec::new(),
            max_loras: 1,
            max_cpu_loras: None,
            lora_load: Duration::from_millis(300),
            seed: 0,
            speed: 1.0,
            step_noise: 0.0,
            mean_output_tokens: 128,
            max_num_queued_reqs: None,
            shutdown_timeout: Duration::ZERO,
            keep_alive_timeout: Duration::from_secs(5),
            startup: Duration::ZERO,
            h2c: false,
            force_include_usage: false,
            max_body_bytes: 64 << 20,
            faults: Faults::default(),
        }
    }
}

impl SimOptions {
    /// Checks what would leave the server without meaning.
    ///
    /// # Errors
    /// Sizes of zero, rates that are no shares, a speed that is no positive number.
    pub fn check(&self) -> anyhow::Result<()> {
        // Wider than anybody needs, narrow enough that times stay representable.
        anyhow::ensure!(
            (1e-3..=1e9).contains(&self.speed),
            "the speed must be from 0.001 to 1e9"
        );
        anyhow::ensure!(self.block_size > 0, "a block has at least one token");
        anyhow::ensure!(self.kv_blocks() > 0, "the cache has at least one block");
        anyhow::ensure!(
            self.max_num_seqs > 0,
            "at least one sequence must be allowed to run"
        );
        anyhow::ensure!(
            self.max_num_batched_tokens > 0,
            "a step has at least one token"
        );
        anyhow::ensure!(
            (0.0..=1.0).contains(&self.step_noise),
            "step noise is from 0 to 1"
        );
        anyhow::ensure!(
            self.lora_load <= LONGEST_LOAD,
            "an adapter must load within a day"
        );
        self.faults.clone().checked()?;
        Ok(())
    }

    /// The names that select the base model.
    #[must_use]
    pub fn base_names(&self) -> &[String] {
        if self.served_model_names.is_empty() {
            std::slice::from_ref(&self.model)
        } else {
            &self.served_model_names
        }
    }

    /// KV blocks of the engine.
    #[must_use]
    pub fn kv_blocks(&self) -> u32 {
        self.num_gpu_blocks
            .unwrap_or(self.profile.kv_tokens / self.block_size.max(1))
    }

    /// Longest sequence in tokens that a request may ask for.
    #[must_use]
    pub fn context(&self) -> u32 {
        self.max_model_len
            .unwrap_or(self.profile.max_model_len)
            .min(self.kv_blocks().saturating_mul(self.block_size))
    }

    /// The engine of these settings.
    #[must_use]
    pub fn engine_config(&self) -> EngineConfig {
        let max_loras = if self.enable_lora {
            self.max_loras.max(1)
        } else {
            0
        };
        EngineConfig {
            kv_blocks: self.kv_blocks(),
            block_tokens: self.block_size,
            max_batched_tokens: self.max_num_batched_tokens,
            max_seqs: self.max_num_seqs,
            max_model_len: self.context(),
            policy: if self.priority_scheduling {
                QueuePolicy::Priority
            } else {
                QueuePolicy::Fcfs
            },
            lora: LoraConfig {
                max_loras,
                max_cpu_loras: self.max_cpu_loras.unwrap_or(max_loras),
                load_seconds: self.lora_load.as_secs_f64(),
                ..LoraConfig::default()
            },
            step_noise: self.step_noise,
            max_waiting: self.max_num_queued_reqs,
            prefix_caching: self.prefix_caching,
            ..EngineConfig::for_model(self.profile)
        }
    }
}
