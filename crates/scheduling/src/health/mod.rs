//! Health of one endpoint, from traffic and probes.
//!
//! Failures in a row make an endpoint *suspect* (a price on choosing it), then *down*: nothing goes there until a
//! back-off is over, then single requests as trials, each failed one doubling the back-off. An answer or a probe that
//! passes brings it back. Being down is a preference: when every endpoint is down by traffic they are all tried, for a
//! bad request can take down any number of healthy servers. Only an endpoint that refuses connections, of requests or of
//! probes, *and* fails its probes is *dead* and gets nothing.
//!
//! A 500 of a server that shuts down says nothing bad about it: it drains for a while.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::event::{FailureKind, Probe};
use crate::time::Time;

/// When an endpoint is taken out and how it comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
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
    /// How long a failure costs that.
    pub suspect: Duration,
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
            suspect: Duration::from_secs(10),
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

/// What is known about the health of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Monitor {
    /// Failures in a row; a refused connection counts twice.
    failures: u32,
    failed_probes: u32,
    /// The last failure was a refused connection.
    refused: bool,
    down: Option<Down>,
    draining_until: Time,
    suspect_until: Time,
}

#[derive(Copy, Clone, Debug)]
struct Down {
    until: Time,
    backoff: Duration,
    /// A request was sent to try it.
    trial: bool,
}

impl Monitor {
    pub(crate) fn health(&self) -> Health {
        match self.down {
            Some(_) if self.refused && self.failed_probes > 0 => Health::Dead,
            Some(_) => Health::Down,
            None if self.failures + self.failed_probes > 0 => Health::Suspect,
            None => Health::Up,
        }
    }

    /// Whether requests may go there: always when up, singly after a back-off when down, never when dead.
    pub(crate) fn admits(&self, now: Time) -> bool {
        match (self.health(), self.down) {
            (Health::Up | Health::Suspect, _) => true,
            (Health::Down, Some(down)) => now >= down.until,
            _ => false,
        }
    }

    /// Whether it said lately that it shuts down.
    pub(crate) fn draining(&self, now: Time) -> bool {
        now < self.draining_until
    }

    /// Seconds by which it must be better than the others. Nothing for a trial, or there would never be one, and
    /// nothing for a failure long ago.
    pub(crate) fn penalty(&self, now: Time, config: &HealthConfig) -> f64 {
        if self.down.is_some() || now >= self.suspect_until {
            return 0.0;
        }
        f64::from(self.failures.min(8)) * config.suspect_penalty.as_secs_f64()
    }

    /// When something changes without an event: the end of a back-off or of draining.
    pub(crate) fn wake_at(&self, now: Time) -> Option<Time> {
        let down = self
            .down
            .filter(|_| self.health() != Health::Dead)
            .map(|down| down.until);
        [down, Some(self.draining_until)]
            .into_iter()
            .flatten()
            .filter(|&at| at > now)
            .min()
    }

    /// A request goes there. If it is down this is the trial, and the next one waits as long again.
    pub(crate) fn dispatched(&mut self, now: Time) {
        if let Some(down) = self.down.as_mut().filter(|down| now >= down.until) {
            down.trial = true;
            down.until = now + down.backoff;
        }
    }

    /// An answer came.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.refused = false;
        self.down = None;
    }

    /// A request failed. Returns whether that took the endpoint down and its cache is likely gone.
    pub(crate) fn failed(&mut self, now: Time, kind: FailureKind, config: &HealthConfig) -> bool {
        let weight = match kind {
            FailureKind::Connect => 2,
            FailureKind::Reset | FailureKind::Timeout | FailureKind::ServerError => 1,
            FailureKind::Draining500 => {
                self.draining_until = now + config.draining;
                return false;
            }
            FailureKind::InBand => return false,
        };
        self.refused = kind == FailureKind::Connect;
        self.failures = self.failures.saturating_add(weight);
        self.suspect_until = now + config.suspect;
        if self.failures >= config.down_after {
            self.fall(now, config);
        }
        self.refused && self.down.is_some()
    }

    /// A probe came back.
    pub(crate) fn probed(&mut self, now: Time, outcome: Probe, config: &HealthConfig) {
        if outcome != Probe::Passed {
            self.refused |= outcome == Probe::Refused;
            self.failed_probes = self.failed_probes.saturating_add(1);
            if self.failed_probes >= config.probes_down_after {
                self.fall(now, config);
            }
            return;
        }
        let by_probe = self.failed_probes > 0;
        self.failed_probes = 0;
        let Some(down) = self.down else { return };
        if self.refused || (by_probe && self.failures < config.down_after) {
            self.succeeded();
        } else if now >= down.until {
            // It answers probes but failed requests: one more failure takes it down again.
            self.down = None;
            self.failures = config.down_after.saturating_sub(1);
        }
    }

    fn fall(&mut self, now: Time, config: &HealthConfig) {
        let backoff = match self.down {
            None => config.backoff,
            Some(down) if down.trial => (down.backoff * 2).min(config.backoff_max),
            // A request from before failed too: the back-off runs already, or runs once more.
            Some(down) if now < down.until => return,
            Some(down) => down.backoff,
        };
        self.down = Some(Down {
            until: now + backoff,
            backoff,
            trial: false,
        });
    }
}
