//! What an operator may set. Every default is argued where it stands.

use std::time::Duration;

use crate::criticality::FlowControl;
use crate::health::HealthConfig;

/// Which policy ranks the endpoints.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum PolicyKind {
    /// Expected seconds to the first token, plus prices on compute, space and decode speed. The default.
    #[default]
    ExpectedCost,
    /// One after the other.
    RoundRobin,
    /// The fewest requests in flight.
    LeastRequest,
    /// Any, with equal chance.
    Random,
}

impl PolicyKind {
    /// The name used on the command line, in explanations and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExpectedCost => "expected-cost",
            Self::RoundRobin => "round-robin",
            Self::LeastRequest => "least-request",
            Self::Random => "random",
        }
    }
}

/// The prices of the expected cost; dimensionless factors on seconds.
///
/// The response surface is flat around these values (mu 4 to 8, kappa 1 to 3, theta's gain 16 to 32).
#[derive(Copy, Clone, PartialEq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Prices {
    /// Gain of the price on recomputation: theta is this times the share of dispatched work that recomputes
    /// what the whole fleet has forgotten.
    pub theta_gain: f64,
    /// Ceiling of theta.
    pub theta_max: f64,
    /// Price on KV space taken: share of the endpoint times the time it is held.
    pub mu: f64,
    /// How far a cold prompt may go from the cheapest endpoint to spread cold prefixes, in units of its own
    /// prefill times the reuse to expect.
    pub kappa: f64,
    /// Weight of the harm to and from decodes.
    pub w: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            theta_gain: 16.0,
            theta_max: 16.0,
            mu: 6.0,
            kappa: 1.5,
            w: 0.03,
        }
    }
}

/// Who says when no more work is taken. From a pool's saturation of 1 on, requests wait, or those of negative priority
/// are refused.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Detector {
    /// Each endpoint for itself, by its queue, its batch and the prefill before it. The default: work is held back
    /// from those that are full, not from the pool as a whole.
    #[default]
    Endpoints,
    /// The mean over the endpoints of `max(waiting/queue, used KV share/kv)`, as the utilization detector of the Go
    /// endpoint picker says it. An endpoint whose page of metrics is too old is judged as by `Endpoints`.
    Utilization {
        /// Requests in an engine's queue that count as full.
        queue: f64,
        /// Share of KV cache in use that counts as full.
        kv: f64,
        /// A page older than this is not believed.
        staleness: Duration,
    },
    /// The mean over the endpoints of requests in flight, or prompt tokens to compute, by the most there should be; of
    /// both, the larger.
    Concurrency {
        /// Most requests.
        requests: Option<f64>,
        /// Most tokens.
        tokens: Option<f64>,
    },
}

/// Settings of one pool.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Config {
    /// Which policy ranks the endpoints.
    pub policy: PolicyKind,
    /// An engine with more requests than this in its own queue is not open.
    pub max_waiting_per_endpoint: u32,
    /// An endpoint with more uncached prompt tokens than this still to compute is not open. One step of a default
    /// vLLM: enough to keep an engine busy, little enough that order and class still mean something.
    pub prefill_gate_tokens: u32,
    /// The same for requests of a class below one that was seen in the last half minute. With 0, a request of the higher
    /// class finds at most one prompt of a lower one before it in the engine, for the price of one step between two such
    /// prompts.
    pub lower_gate_tokens: u32,
    /// Who says when no more work is taken.
    pub detector: Detector,
    /// Who waits, in which order, for how long, and who is refused.
    pub flow: FlowControl,
    /// Bound of the prefix index, in blocks (about 8 bytes each plus some 200 bytes for each distinct run).
    pub index_blocks: usize,
    /// Tokens in one block of a request's `prefix`.
    pub block_tokens: u32,
    /// The prices of the expected cost.
    pub prices: Prices,
    /// A scraped value older than this is no longer believed.
    pub scrape_ttl: Duration,
    /// KV tokens of an endpoint that does not say how many it has (about an 8B model on an 80 GB card, halved).
    pub default_kv_tokens: u64,
    /// Tokens a request generates, before any has finished.
    pub default_output_tokens: u32,
    /// When traffic and probes take an endpoint out, and how it comes back.
    pub health: HealthConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: PolicyKind::ExpectedCost,
            max_waiting_per_endpoint: 5,
            prefill_gate_tokens: 8192,
            lower_gate_tokens: 0,
            detector: Detector::Endpoints,
            flow: FlowControl::default(),
            index_blocks: 1 << 20,
            block_tokens: 64,
            prices: Prices::default(),
            scrape_ttl: Duration::from_secs(5),
            default_kv_tokens: 200_000,
            default_output_tokens: 200,
            health: HealthConfig::default(),
        }
    }
}

/// A setting that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    /// Which, as a path from [`Config`], such as `flow.bands[-1].ceiling`.
    pub field: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl ConfigError {
    pub(crate) fn unless(fine: bool, field: &str, problem: &'static str) -> Result<(), Self> {
        if fine {
            return Ok(());
        }
        Err(Self {
            field: field.to_owned(),
            problem,
        })
    }
}

impl Detector {
    fn validate(&self) -> Result<(), ConfigError> {
        let fine = |it: f64| it.is_finite() && it > 0.0;
        let all = match *self {
            Self::Endpoints => true,
            Self::Utilization { queue, kv, .. } => fine(queue) && fine(kv),
            Self::Concurrency { requests, tokens } => {
                let of = |it: Option<f64>| it.is_none_or(fine);
                of(requests) && of(tokens) && requests.or(tokens).is_some()
            }
        };
        ConfigError::unless(all, "detector", "its limits must be over zero")
    }
}

impl Config {
    /// Looks for settings that make no sense. A pool takes any and keeps its promises; this is for those who set them.
    ///
    /// # Errors
    /// The first such field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.flow.validate()?;
        self.detector.validate()?;
        let prices = &self.prices;
        let named = [
            ("prices.theta_gain", prices.theta_gain),
            ("prices.theta_max", prices.theta_max),
            ("prices.mu", prices.mu),
            ("prices.kappa", prices.kappa),
            ("prices.w", prices.w),
        ];
        for (field, price) in named {
            let fine = price.is_finite() && price >= 0.0;
            ConfigError::unless(fine, field, "must be a number from 0 up")?;
        }
        ConfigError::unless(self.block_tokens > 0, "block_tokens", "must be at least 1")?;
        ConfigError::unless(
            self.default_kv_tokens > 0,
            "default_kv_tokens",
            "must be at least 1",
        )
    }
}
