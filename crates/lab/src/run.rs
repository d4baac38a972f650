//! One run: a fleet of simulated engines in virtual time, behind gateways that see only what gateways see.
//!
//! A gateway hears of an engine what crosses the network: the first token, tokens in mid-stream, the end of an answer,
//! and now and then a metrics page, each late by the network's delay. Nothing is peeked from the engines. The clock
//! jumps from event to event, so a run takes as long as its computation does; equal configurations and seeds give
//! equal outcomes, bit for bit.
//!
//! ```text
//! client -> gateway --delay--> engine queue -> steps -> --delay--> gateway -> client
//! ```
//!
//! Jobs that a client would send at or after the horizon do not exist. The run ends when every job has its outcome,
//! or `drain` after the horizon; what has none by then is *unfinished* and counts with the time that it waited.

mod book;
mod events;
mod fleet;
mod host;
mod storm;
pub(crate) mod weather;

use simulator::EngineConfig;

use self::weather::Weather;
use crate::{Dispatcher, RunOutcome, Workload};

/// How gateways read the engines' metrics pages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scrape {
    /// Seconds from one page to the next of the same engine.
    pub period: f64,
    /// Age of a page when the gateways see it, seconds.
    pub delay: f64,
}

impl Default for Scrape {
    /// Every 50 ms, as the gateways of llm-d and GAIE do.
    fn default() -> Self {
        Self {
            period: 0.05,
            delay: 0.001,
        }
    }
}

/// How gateways tell each other what they do. What is told takes the network's delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sharing {
    /// Seconds from one message of a gateway to its next, if there is anything to tell.
    pub period: f64,
    /// A message goes out at once when it is about more seconds of prefill than this.
    pub at_once: f64,
}

/// One run, but for who asks and who decides.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// The engines; their place here is their name for dispatchers.
    pub engines: Vec<EngineConfig>,
    /// Seconds between gateway and engine, each way.
    pub network_delay: f64,
    /// Whether and how metrics pages are read.
    pub scrape: Option<Scrape>,
    /// Sigma of the lognormal factor on each step of each engine.
    pub step_noise: f64,
    /// Gateways in front of the engines; each job goes to one at random.
    pub gateways: usize,
    /// Whether and how they tell each other what they do; `None`: they do not.
    pub sharing: Option<Sharing>,
    /// Seconds in which clients send jobs.
    pub horizon: f64,
    /// Seconds at most to wait for answers after that.
    pub drain: f64,
    /// Jobs sent before this second are left out of the outcome.
    pub warmup: f64,
    /// A gateway hears of an answer in mid-stream each so many tokens; 0 means never.
    pub progress_tokens: u32,
    /// Whether what any engine has cached is at hand in all of them, at no cost: no fleet can do that, a bound can.
    pub shared_kv: bool,
    /// What goes wrong.
    pub weather: Weather,
    /// Drives the step noise, the choice of gateways and the weather.
    pub seed: u64,
}

impl RunConfig {
    /// The usual run: half a millisecond of network, a scrape each 50 ms, 2 % of noise, one gateway, ten minutes of
    /// which two are warm-up.
    #[must_use]
    pub fn new(engines: Vec<EngineConfig>, seed: u64) -> Self {
        Self {
            engines,
            network_delay: 0.5e-3,
            scrape: Some(Scrape::default()),
            step_noise: 0.02,
            gateways: 1,
            sharing: None,
            horizon: 600.0,
            drain: 600.0,
            warmup: 120.0,
            progress_tokens: 16,
            shared_kv: false,
            weather: Weather::default(),
            seed,
        }
    }
}

/// Runs `workload` against the fleet. Each gateway has one dispatcher; there should be as many as `config.gateways`,
/// and the lesser number of both counts.
///
/// The outcome's names (policy, workload, load) are left to the caller. A dispatcher that names an engine which does
/// not exist loses that job (it counts as shed); one that places a job which it does not hold is ignored; both are
/// counted in [`RunOutcome::misplaced`].
#[must_use]
pub fn run(
    config: RunConfig,
    workload: Box<dyn Workload>,
    dispatchers: Vec<Box<dyn Dispatcher>>,
) -> RunOutcome {
    fleet::Fleet::new(config, workload, dispatchers).run()
}

#[cfg(test)]
pub(crate) mod tests;
