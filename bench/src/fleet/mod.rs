//! The proof of placement: real processes, real HTTP, and what a policy is worth against simpler ones.
//!
//! The rule: a policy is compared with another on the same requests at the same times, each on fresh processes, one
//! right after the other, and the order changes from seed to seed, so that neither a warm cache nor a machine that
//! gets slower favours one. Ratios are taken within a seed. Time counts from when a request was due, so a policy that
//! makes requests queue cannot hide it.
//!
//! - [`workload`]: requests from a seed
//! - [`scenario`]: servers, loads and goals
//! - [`servers`], [`client`], [`sse`], [`counters`]: processes, HTTP, and what servers tell
//! - [`cell`]: one run; [`bound`]: the best possible hit ratio
//! - [`predict`]: the same in virtual time
//! - [`judge`], [`report`]: rows, goals, and the table

pub mod bound;
pub mod cell;
pub mod client;
pub mod counters;
pub mod judge;
pub mod predict;
pub mod report;
pub mod scenario;
pub mod servers;
pub mod sse;
pub mod workload;

use std::path::PathBuf;
use std::rc::Rc;

use serde::Serialize;
use tokio::task::LocalSet;

use crate::Error;
use crate::machine::Machine;
use cell::Figures;
use client::Client;
use judge::Row;
use predict::Predicted;
use scenario::{Policy, Scenario};
use servers::Servers;

/// Seeds of a repetition begin here, far from the first ones.
const OTHER_SEEDS: u64 = 1000;

/// A run in which the generator's 99th percentile of lateness is above this tells about the machine and is made again.
const TOO_LATE_MS: f64 = 25.0;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The binary that has `sim` and `serve`.
    pub gateway: PathBuf,
    /// The load generator goes round robin over the servers itself, without a gateway.
    pub direct: bool,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// Seeds of each, in place of the scenario's own number.
    pub seeds: Option<u64>,
    /// Measure a scenario that misses a goal once more, with other seeds.
    pub repeat: bool,
}

/// A scenario's runs and rows.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The scenario.
    pub scenario: Scenario,
    /// Whether the rows are those of a repetition.
    pub repeated: bool,
    /// The rows.
    pub rows: Vec<Row>,
    /// The runs behind the rows.
    pub figures: Vec<Figures>,
    /// What the lab predicts for those runs, where it can.
    pub predictions: Vec<Predicted>,
    /// The runs of the first attempt, if there was a second.
    pub first_attempt: Vec<Figures>,
}

impl Measured {
    /// Whether who wins is as the lab predicts; `None` where it predicts no winner.
    #[must_use]
    pub fn same_order(&self) -> Option<bool> {
        predict::same_order(&predict::beside(&self.predictions, &self.figures))
    }

    fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.passed == Some(false)) || self.same_order() == Some(false)
    }
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where and of what.
    pub machine: Machine,
    /// By scenario.
    pub scenarios: Vec<Measured>,
}

impl Outcome {
    /// Whether a goal was missed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.scenarios.iter().any(Measured::failed)
    }
}

/// Runs everything; progress goes to stderr.
///
/// # Errors
/// When a process cannot be started or does not last.
pub async fn run(settings: &Settings) -> Result<Outcome, Error> {
    let machine = Machine::look();
    let all = async {
        let mut scenarios = Vec::new();
        for &scenario in &settings.scenarios {
            scenarios.push(measure(settings, scenario).await?);
        }
        Ok::<_, Error>(scenarios)
    };
    let scenarios = LocalSet::new().run_until(all).await?;
    Ok(Outcome { machine, scenarios })
}

async fn measure(settings: &Settings, scenario: Scenario) -> Result<Measured, Error> {
    let first = attempt(settings, scenario, 1).await?;
    if !(settings.repeat && first.failed()) {
        return Ok(first);
    }
    eprintln!(
        "{}: a goal was missed; once more with other seeds",
        scenario.name()
    );
    let second = attempt(settings, scenario, OTHER_SEEDS).await?;
    Ok(Measured {
        repeated: true,
        first_attempt: first.figures,
        ..second
    })
}

async fn attempt(settings: &Settings, scenario: Scenario, from: u64) -> Result<Measured, Error> {
    let mut figures = Vec::new();
    let mut predictions = Vec::new();
    let seeds = settings.seeds.unwrap_or_else(|| scenario.seeds());
    for nth in 0..seeds {
        let seed = from + nth;
        let mut prompts = None;
        for policy in order(settings.direct, nth) {
            let mut run = one(settings, scenario, policy, seed, &mut prompts).await?;
            progress(scenario, &run);
            if run.late_p99_ms > TOO_LATE_MS {
                eprintln!("the machine was too busy for this run; once more");
                run = one(settings, scenario, policy, seed, &mut prompts).await?;
                progress(scenario, &run);
            }
            figures.push(run);
            if let Some(tokens) = prompts.as_ref().filter(|_| !settings.direct) {
                let requests = scenario.requests(seed);
                let shape = scenario.shape();
                predictions.push(predict::predict(&requests, tokens, &shape, (policy, seed))?);
            }
        }
    }
    Ok(Measured {
        scenario,
        repeated: false,
        rows: judge::rows(scenario, &figures),
        figures,
        predictions,
        first_attempt: Vec::new(),
    })
}

/// The two that are compared take turns in going first; least request, for orientation, runs with the first seed.
fn order(direct: bool, nth: u64) -> Vec<Policy> {
    let pair = [Policy::ExpectedCost, Policy::RoundRobin];
    match nth {
        _ if direct => vec![Policy::RoundRobin],
        0 => vec![pair[0], pair[1], Policy::LeastRequest],
        odd if odd % 2 == 1 => vec![pair[1], pair[0]],
        _ => pair.to_vec(),
    }
}

async fn one(
    settings: &Settings,
    scenario: Scenario,
    policy: Policy,
    seed: u64,
    prompts: &mut Option<Vec<Vec<u32>>>,
) -> Result<Figures, Error> {
    let client = Rc::new(Client::default());
    let requests = scenario.requests(seed);
    let through = (!settings.direct).then_some(policy);
    let shape = scenario.shape();
    let mut servers = Servers::start(&settings.gateway, &shape, through, seed, &client).await?;
    if scenario.predicted() && prompts.is_none() {
        *prompts = Some(cell::tokens(servers.sims[0], &client, &requests).await?);
    }
    let mut figures = cell::run(&mut servers, &client, &requests, (policy, seed)).await?;
    if scenario.shares_prefixes() {
        figures.best_hit_ratio = prompts.as_deref().map(cell::best_hit_ratio);
    }
    Ok(figures)
}

fn progress(scenario: Scenario, run: &Figures) {
    let [p50, p90, p99] = run.ttft_ms;
    eprintln!(
        "{} seed {} {}: {} requests in {:.1} s, {} failed; TTFT p50 {p50:.1} p90 {p90:.1} p99 {p99:.1} ms; \
         hits {:.1} %; by server {:?}; sent late by {:.1} ms (p99)",
        scenario.name(),
        run.seed,
        run.policy.flag(),
        run.requests,
        run.seconds,
        run.errors,
        run.hit_ratio * 100.0,
        run.requests_by_server,
        run.late_p99_ms
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_takes_turns() {
        let firsts: Vec<_> = (0..4).map(|nth| order(false, nth)[0]).collect();
        assert_eq!(firsts[..2], firsts[2..]);
        assert_ne!(firsts[0], firsts[1]);
        assert_eq!(order(false, 0).len(), Policy::ALL.len());
        assert!(order(false, 5).contains(&Policy::ExpectedCost));
        assert_eq!(order(true, 0), [Policy::RoundRobin]);
    }
}
