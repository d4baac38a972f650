//! Settings of the fleet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scheduling::Policy;

use crate::MetricMapping;

/// Settings of all pools.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Settings of the decision core.
    pub scheduling: scheduling::Config,
    /// How load is asked for.
    pub scrape: ScrapeOptions,
    /// Which metrics mean what.
    pub mapping: MetricMapping,
    /// How health is asked for.
    pub probe: ProbeOptions,
    /// How often DNS names are resolved again.
    pub dns_refresh: Duration,
    /// Ask servers for their models. Without, every server is a candidate for every model.
    pub learn_models: bool,
    /// How often servers are asked for their models.
    pub models_period: Duration,
    /// Makes the policy of each pool, in place of the one that `scheduling` names.
    pub policy: Option<PolicyFactory>,
    /// Keep what is charged and given back for siblings, see [`Sharing`](crate::Sharing).
    pub share: bool,
    /// Seed of the core's random choices.
    pub seed: u64,
    /// Where everything that cores are told and decide is written.
    pub recorder: Option<Arc<recording::Recorder>>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            scheduling: scheduling::Config::default(),
            scrape: ScrapeOptions::default(),
            mapping: MetricMapping::default(),
            probe: ProbeOptions::default(),
            dns_refresh: Duration::from_secs(5),
            learn_models: true,
            models_period: Duration::from_secs(10),
            policy: None,
            share: false,
            seed: 0x0070_6f69_6e74_736d,
            recorder: None,
        }
    }
}

/// Makes policies, one for each pool.
#[derive(Clone)]
pub struct PolicyFactory(Arc<dyn Fn() -> Box<dyn Policy> + Send + Sync>);

impl PolicyFactory {
    /// One that calls `make`.
    pub fn new(make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// A policy for one pool.
    #[must_use]
    pub fn make(&self) -> Box<dyn Policy> {
        (self.0)()
    }
}

impl fmt::Debug for PolicyFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyFactory").field(&self.make()).finish()
    }
}

/// How load is asked for.
#[derive(Debug, Clone)]
pub struct ScrapeOptions {
    /// Off: servers are judged by our own requests alone.
    pub enabled: bool,
    /// Time between two questions while the pool has work.
    pub fast: Duration,
    /// The same while it has none.
    pub slow: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Where the page is.
    pub path: String,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            fast: Duration::from_millis(50),
            slow: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            path: "/metrics".to_owned(),
        }
    }
}

/// How health is asked for.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// Time between two probes of a server that is well.
    pub period: Duration,
    /// The same of a server that is not.
    pub suspect_period: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Where to ask.
    pub path: String,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(5),
            suspect_period: Duration::from_millis(500),
            timeout: Duration::from_secs(2),
            path: "/health".to_owned(),
        }
    }
}
