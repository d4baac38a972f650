//! The command line, in vLLM's names where vLLM has the flag.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use simulator::profiles;

use crate::faults::{FailureKind, Faults, MetricsMode};
use crate::options::{LoraModule, SimOptions};

impl FromStr for LoraModule {
    type Err = LoraModuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        #[derive(serde::Deserialize)]
        struct Object {
            name: String,
            path: String,
        }
        if text.starts_with('{') {
            let object: Object = serde_json::from_str(text)?;
            return Ok(Self {
                name: object.name,
                path: object.path,
            });
        }
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: path.to_owned(),
            }),
            _ => Err(LoraModuleError::Pair),
        }
    }
}

/// A `--lora-modules` value that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoraModuleError {
    /// Not `name=path`.
    #[error("expected name=path or a JSON object with name and path")]
    Pair,
    /// Not the right JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// A model server without a GPU: vLLM's API, metrics, adapters and timing.
#[derive(Debug, Clone, clap::Args)]
pub struct SimArgs {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// Model path, and its name unless served under others.
    #[arg(long, default_value = "simulated")]
    pub model: String,
    /// Names to serve the model under.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub served_model_name: Vec<String>,
    /// Model and hardware whose step times and memory are imitated.
    #[arg(long, default_value = profiles::LLAMA_3_1_8B_H100.name,
          value_parser = clap::builder::PossibleValuesParser::new(profiles::ALL.map(|model| model.name)))]
    pub profile: String,
    /// Real seconds are divided by this.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub speed: f64,
    /// Seed of contents, lengths, noise and failures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Sigma of the lognormal noise on step times.
    #[arg(long, default_value_t = 0.0, value_name = "SIGMA")]
    pub step_noise: f64,
    /// Mean tokens of an answer whose request does not force its length.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    pub mean_output_tokens: u32,
    /// Longest sequence, prompt and output, in tokens.
    #[arg(long, value_name = "TOKENS")]
    pub max_model_len: Option<u32>,
    /// Sequences that run at once.
    #[arg(long, default_value_t = 256)]
    pub max_num_seqs: usize,
    /// Token budget of a step.
    #[arg(long, default_value_t = 8192)]
    pub max_num_batched_tokens: u32,
    /// Tokens a KV block.
    #[arg(long, default_value_t = 16)]
    pub block_size: u32,
    /// KV blocks, in place of what the profile's memory holds.
    #[arg(long, visible_alias = "num-gpu-blocks", value_name = "BLOCKS")]
    pub num_gpu_blocks_override: Option<u32>,
    /// Do not reuse cached prefixes.
    #[arg(long)]
    pub no_enable_prefix_caching: bool,
    /// Order of the queue.
    #[arg(long, default_value = "fcfs", value_parser = ["fcfs", "priority"])]
    pub scheduling_policy: String,
    /// Allow LoRA adapters.
    #[arg(long)]
    pub enable_lora: bool,
    /// Adapters known from the start.
    #[arg(long, num_args = 1.., value_name = "NAME=PATH")]
    pub lora_modules: Vec<LoraModule>,
    /// Adapters in GPU memory at once.
    #[arg(long, default_value_t = 1)]
    pub max_loras: usize,
    /// Adapters in host memory.
    #[arg(long)]
    pub max_cpu_loras: Option<usize>,
    /// Time to load an adapter from disk, before --speed.
    #[arg(long, default_value = "300ms", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub lora_load_time: Duration,
    /// Requests that may wait before new ones get 503.
    #[arg(long)]
    pub max_num_queued_reqs: Option<usize>,
    /// Seconds that a stopping server lets requests finish; 0 aborts them.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub shutdown_timeout: f64,
    /// Seconds after which idle connections are closed.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub keep_alive_timeout: f64,
    /// For this long after the start, /health and inference answer 503.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub startup_duration: Duration,
    /// Speak HTTP/2 with prior knowledge besides HTTP/1.1 (vLLM does not).
    #[arg(long)]
    pub h2c: bool,
    /// Send usage in every chunk of every stream.
    #[arg(long)]
    pub enable_force_include_usage: bool,
    /// Share of requests, 0 to 1, that are answered with an error.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub failure_rate: f64,
    /// Which errors; all unless given.
    #[arg(long, num_args = 1.., value_enum)]
    pub failure_types: Vec<FailureKind>,
    /// End streams with an error event after so many tokens.
    #[arg(long, value_name = "TOKENS")]
    pub fail_after_tokens: Option<u32>,
    /// Send nothing more after so many tokens.
    #[arg(long, value_name = "TOKENS")]
    pub stall_after_tokens: Option<u32>,
    /// Reset the connection after so many tokens.
    #[arg(long, value_name = "TOKENS")]
    pub reset_after_tokens: Option<u32>,
    /// Share of requests, 0 to 1, whose connection is reset instead of an answer.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub reset_rate: f64,
    /// What /metrics does.
    #[arg(long, value_enum, default_value_t = MetricsMode::On)]
    pub metrics: MetricsMode,
}

fn seconds(value: f64, flag: &str) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{flag} is not a time"))
}

impl TryFrom<SimArgs> for SimOptions {
    type Error = anyhow::Error;

    fn try_from(args: SimArgs) -> anyhow::Result<Self> {
        let profile = profiles::by_name(&args.profile)
            .with_context(|| format!("unknown profile {}", args.profile))?;
        let faults = Faults {
            failure_rate: args.failure_rate,
            failure_types: args.failure_types,
            fail_after_tokens: args.fail_after_tokens,
            stall_after_tokens: args.stall_after_tokens,
            reset_after_tokens: args.reset_after_tokens,
            reset_rate: args.reset_rate,
            metrics: args.metrics,
            ..Faults::default()
        };
        let options = Self {
            listen: SocketAddr::new(args.host, args.port),
            model: args.model,
            served_model_names: args.served_model_name,
            profile,
            max_model_len: args.max_model_len,
            max_num_seqs: args.max_num_seqs,
            max_num_batched_tokens: args.max_num_batched_tokens,
            block_size: args.block_size,
            num_gpu_blocks: args.num_gpu_blocks_override,
            prefix_caching: !args.no_enable_prefix_caching,
            priority_scheduling: args.scheduling_policy == "priority",
            enable_lora: args.enable_lora,
            lora_modules: args.lora_modules,
            max_loras: args.max_loras,
            max_cpu_loras: args.max_cpu_loras,
            lora_load: args.lora_load_time,
            seed: args.seed,
            speed: args.speed,
            step_noise: args.step_noise,
            mean_output_tokens: args.mean_output_tokens,
            max_num_queued_reqs: args.max_num_queued_reqs,
            shutdown_timeout: seconds(args.shutdown_timeout, "--shutdown-timeout")?,
            keep_alive_timeout: seconds(args.keep_alive_timeout, "--keep-alive-timeout")?,
            startup: args.startup_duration,
            h2c: args.h2c,
            force_include_usage: args.enable_force_include_usage,
            faults,
            ..Self::default()
        };
        options.check()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        sim: SimArgs,
    }

    fn options(line: &str) -> anyhow::Result<SimOptions> {
        let words = std::iter::once("sim").chain(line.split_whitespace());
        SimOptions::try_from(Cli::try_parse_from(words)?.sim)
    }

    #[test]
    fn defaults_are_vllms() {
        let options = options("").unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(
            (
                options.max_num_seqs,
                options.max_num_batched_tokens,
                options.block_size
            ),
            (256, 8192, 16)
        );
        assert_eq!(options.keep_alive_timeout, Duration::from_secs(5));
    }

    #[test]
    fn flags_reach_the_engine() {
        let line = "--model m --served-model-name a b --num-gpu-blocks 64 --max-model-len 2000 --enable-lora \
                    --lora-modules l0=/x {\"name\":\"l1\",\"path\":\"/y\"} --max-loras 3 \
                    --profile qwen3-32b-tp2-h100 --shutdown-timeout 1.5 --failure-types rate_limit";
        let options = options(line).unwrap();
        assert_eq!(options.base_names(), ["a", "b"]);
        assert_eq!(
            options.context(),
            1024,
            "the cache is smaller than the model"
        );
        let config = options.engine_config();
        assert_eq!(
            (
                config.kv_blocks,
                config.lora.max_loras,
                config.lora.max_cpu_loras
            ),
            (64, 3, 3)
        );
        assert_eq!(
            options.lora_modules[1],
            LoraModule {
                name: "l1".into(),
                path: "/y".into()
            }
        );
        assert_eq!(options.faults.failure_types, [FailureKind::RateLimit]);
        assert_eq!(options.shutdown_timeout, Duration::from_millis(1500));
    }

    #[test]
    fn bad_flags_are_refused() {
        for line in [
            "--speed 0",
            "--speed nan",
            "--speed -1",
            "--block-size 0",
            "--num-gpu-blocks 0",
            "--max-num-seqs 0",
            "--profile none",
            "--lora-modules l0",
            "--lora-modules =x",
            "--lora-modules {}",
            "--failure-rate 1.1",
            "--reset-rate -0.1",
            "--metrics broken",
            "--shutdown-timeout -1",
            "--step-noise 2",
            "--port 70000",
            "--max-num-batched-tokens 0",
            "--failure-types nonsense",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }
}
