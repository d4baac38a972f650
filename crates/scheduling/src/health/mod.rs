//! Health of one endpoint, from traffic and probes.

use std::time::Duration;

/// When an endpoint is taken out and how it comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthConfig {
    /// Failures in a row (a refused connection counts twice) after which an endpoint is down.
    pub down_after: u32,
    /// Failed probes in a row after which an endpoint is down.
    pub probes_down_after: u32,
    /// First back-off; doubles with each failed trial.
    pub backoff: Duration,
    /// Longest back-off.
    pub backoff_max: Duration,
    /// How long an endpoint that answered a draining 500 gets nothing new.
    pub draining: Duration,
    /// What one failure costs an endpoint that is still up: it must be this much better than the others.
    pub suspect_penalty: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            down_after: 3,
            probes_down_after: 2,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            draining: Duration::from_secs(30),
            suspect_penalty: Duration::from_millis(500),
        }
    }
}

/// Health of an endpoint.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Health {
    /// Nothing is wrong.
    Up,
    /// It failed lately; eligible, at a price.
    Suspect,
    /// It fails; gets single trials after a back-off, or all traffic if every endpoint is down.
    Down,
    /// It refuses connections and its probes fail: gets nothing until a probe passes.
    Dead,
}

impl Health {
    /// The stable word for status pages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Dead => "dead",
        }
    }
}
