//! Policies side by side: every policy on every workload at every load with every seed.
//!
//! A *cell* is one of those runs. Cells are independent, so they run on all cores, the heaviest loads first; each is
//! reduced to its [`Summary`] at once, so a comparison takes little memory. Policies meet the same jobs, engines and
//! noise seeds, which makes their ratios paired.

mod catalog;
mod results;
mod variant;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use catalog::{Builtin, Catalog, Setting};
pub use results::{CellResult, Constants, Manifest, Moment, Results, WorkloadNote};
pub(crate) use results::{put, write_jobs};

use crate::bound::{self, Order};
use crate::fleet::{Adjustment, Belief};
use crate::product::Knowledge;
use crate::stats::Slo;
use crate::{Dispatcher, LabError, RunConfig, RunOutcome, Scrape, Sharing, Weather, parallel, run};

/// Names of the pooled server's rows among the policies.
pub const BOUNDS: [(&str, Order); 2] = [("bound-fcfs", Order::Fcfs), ("bound-sjf", Order::Sjf)];

/// Seconds of prefill that gateways tell each other of at once, if not said otherwise: 200 tokens of an 8B model. As an
/// engine has one second of prefill each second, begun and ended, that is at most 400 messages a second for each engine,
/// whatever the load.
pub const SHARE_AT_ONCE: f64 = 0.005;

/// What to compare, and under which conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The engines, see [`fleet::parse`], instead of each workload's own.
    pub fleet: Option<String>,
    /// Settings of all engines.
    #[serde(default)]
    pub set: Vec<Adjustment>,
    /// Policies by name.
    pub policies: Vec<String>,
    /// Workloads by name.
    pub workloads: Vec<String>,
    /// Loads, in the unit of each workload; none means each workload's own.
    pub loads: Vec<f64>,
    /// Workloads with a load each, instead of all workloads at all loads.
    #[serde(default)]
    pub places: Vec<(String, f64)>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Whether the pooled server runs too.
    pub bound: bool,
    /// Seconds between gateway and engine, each way.
    pub network_delay: f64,
    /// Seconds between two scrapes; 0 for none.
    pub scrape_period: f64,
    /// Age of a scrape when it is seen, seconds.
    pub scrape_delay: f64,
    /// Sigma of the lognormal step noise.
    pub step_noise: f64,
    /// Gateways.
    pub gateways: usize,
    /// Seconds from one message between gateways to the next; 0 for none.
    #[serde(default)]
    pub share_period: f64,
    /// Seconds of prefill that are worth a message at once.
    #[serde(default)]
    pub share_at_once: f64,
    /// Seconds of arrivals, instead of each workload's own.
    pub horizon: Option<f64>,
    /// Seconds left out at the start, instead of each workload's own.
    pub warmup: Option<f64>,
    /// Seconds to wait for answers at the end.
    pub drain: f64,
    /// By how much policies that know step times are mistaken; a factor of 0 tells the product nothing.
    pub knowledge: Belief,
    /// What goes wrong for policies, see [`Weather::parse`]; bounds run in calm.
    #[serde(default)]
    pub weather: String,
    /// What counts as served well.
    pub slo: Slo,
}

impl Default for Plan {
    fn default() -> Self {
        let usual = RunConfig::new(Vec::new(), 0);
        let scrape = Scrape::default();
        Self {
            fleet: None,
            set: Vec::new(),
            policies: Vec::new(),
            workloads: Vec::new(),
            loads: Vec::new(),
            places: Vec::new(),
            seeds: (1..=5).collect(),
            bound: true,
            network_delay: usual.network_delay,
            scrape_period: scrape.period,
            scrape_delay: scrape.delay,
            step_noise: usual.step_noise,
            gateways: usual.gateways,
            share_period: 0.0,
            share_at_once: SHARE_AT_ONCE,
            horizon: None,
            warmup: None,
            drain: usual.drain,
            knowledge: Belief::default(),
            weather: String::new(),
            slo: Slo::default(),
        }
    }
}

/// One run of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Name of the policy, or of a bound.
    pub policy: String,
    /// Name of the workload.
    pub workload: String,
    /// Load.
    pub load: f64,
    /// Seed.
    pub seed: u64,
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Cells done.
    pub done: usize,
    /// All cells.
    pub total: usize,
    /// The last one.
    pub cell: &'a Cell,
    /// Real seconds since the start.
    pub seconds: f64,
}

impl Plan {
    /// The plan's cells: by workload, load, policy, seed.
    ///
    /// # Errors
    /// A workload that is not known.
    pub fn cells(&self, catalog: &dyn Catalog) -> Result<Vec<Cell>, LabError> {
        let bounds = BOUNDS.iter().map(|(name, _)| (*name).to_owned());
        let bounds: Vec<String> = bounds.filter(|_| self.bound).collect();
        let mut cells = Vec::new();
        for (workload, load) in self.points(catalog)? {
            for policy in bounds.iter().chain(&self.policies) {
                cells.extend(self.seeds.iter().map(|&seed| Cell {
                    policy: policy.clone(),
                    workload: workload.clone(),
                    load,
                    seed,
                }));
            }
        }
        Ok(cells)
    }

    /// The workloads and their loads.
    fn points(&self, catalog: &dyn Catalog) -> Result<Vec<(String, f64)>, LabError> {
        if !self.places.is_empty() {
            return Ok(self.places.clone());
        }
        let mut points = Vec::new();
        for workload in &self.workloads {
            let setting = catalog.setting(workload, self.fleet.as_deref())?;
            let own = self.loads.is_empty();
            let loads = if own { &setting.loads } else { &self.loads };
            points.extend(loads.iter().map(|load| (workload.clone(), *load)));
        }
        Ok(points)
    }

    /// A workload's circumstances, with what this plan changes of the engines.
    ///
    /// # Errors
    /// A workload that is not known, or a fleet that does not parse.
    pub fn setting(&self, catalog: &dyn Catalog, workload: &str) -> Result<Setting, LabError> {
        let mut setting = catalog.setting(workload, self.fleet.as_deref())?;
        for engine in &mut setting.engines {
            for adjustment in &self.set {
                adjustment.apply(engine);
            }
        }
        Ok(setting)
    }

    fn check(&self) -> Result<(), LabError> {
        let spans = [
            self.network_delay,
            self.scrape_period,
            self.scrape_delay,
            self.step_noise,
            self.drain,
            self.share_period,
            self.share_at_once,
            self.knowledge.factor,
            self.warmup.unwrap_or(0.0),
            self.horizon.unwrap_or(0.0),
        ];
        if !spans.iter().all(|it| it.is_finite() && *it >= 0.0) {
            return Err(LabError::Plan("times and factors must not be negative"));
        }
        if self.loads.iter().any(|it| !(it.is_finite() && *it > 0.0)) {
            return Err(LabError::Plan("loads must be positive"));
        }
        Ok(())
    }

    /// The run of a workload with a seed.
    ///
    /// # Errors
    /// A workload that is not known, a fleet that does not parse, or values out of range.
    pub fn config(
        &self,
        catalog: &dyn Catalog,
        workload: &str,
        seed: u64,
    ) -> Result<RunConfig, LabError> {
        self.check()?;
        let setting = self.setting(catalog, workload)?;
        let horizon = self.horizon.unwrap_or(setting.horizon);
        // A run that is shortened keeps the share of its warm-up.
        let usual = setting.warmup * (horizon / setting.horizon).min(1.0);
        let warmup = self.warmup.unwrap_or(usual);
        if horizon <= warmup {
            return Err(LabError::Plan("the horizon must be after the warm-up"));
        }
        let scrape = Scrape {
            period: self.scrape_period,
            delay: self.scrape_delay,
        };
        Ok(RunConfig {
            network_delay: self.network_delay,
            scrape: (self.scrape_period > 0.0).then_some(scrape),
            step_noise: self.step_noise,
            gateways: self.gateways.max(1),
            sharing: (self.share_period > 0.0).then_some(Sharing {
                period: self.share_period,
                at_once: self.share_at_once,
            }),
            horizon,
            warmup,
            drain: self.drain,
            weather: Weather::parse(&self.weather)?,
            ..RunConfig::new(setting.engines, seed)
        })
    }

    /// Runs one cell.
    ///
    /// # Errors
    /// An unknown policy or workload, or a plan that makes no sense.
    pub fn run(&self, catalog: &dyn Catalog, cell: &Cell) -> Result<RunOutcome, LabError> {
        let config = self.config(catalog, &cell.workload, cell.seed)?;
        let span = (self.horizon, self.warmup);
        let workload = catalog.workload(&cell.workload, cell.load, cell.seed, span)?;
        let order = BOUNDS.iter().find(|(name, _)| *name == cell.policy);
        let mut outcome = match order {
            Some((_, order)) => {
                let calm = RunConfig {
                    weather: Weather::default(),
                    ..config
                };
                bound::pooled(&calm, workload, *order)
                    .ok_or(LabError::Plan("the fleet has no engines"))?
            }
            None => {
                let dispatchers = self.dispatchers(catalog, cell, &config)?;
                run(config, workload, dispatchers)
            }
        };
        outcome.policy.clone_from(&cell.policy);
        outcome.workload.clone_from(&cell.workload);
        outcome.load = cell.load;
        Ok(outcome)
    }

    fn dispatchers(
        &self,
        catalog: &dyn Catalog,
        cell: &Cell,
        config: &RunConfig,
    ) -> Result<Vec<Box<dyn Dispatcher>>, LabError> {
        let (knowledge, belief) = if self.knowledge.factor > 0.0 {
            (Knowledge::Given, self.knowledge)
        } else {
            (Knowledge::Nothing, Belief::default())
        };
        let engines = belief.of(&config.engines);
        let one = |gateway: u64| {
            // Policies that draw lots must not draw the same ones in each gateway.
            let seed = cell.seed.wrapping_mul(1_000_003).wrapping_add(gateway);
            catalog.policy(&cell.policy, &engines, knowledge, seed)
        };
        (0..config.gateways as u64).map(one).collect()
    }
}

/// Runs all cells of a plan on `threads` threads (at least one). The results are in the plan's order whatever the
/// number of threads.
///
/// # Errors
/// The first cell's that could not run.
pub fn compare(
    plan: &Plan,
    catalog: &dyn Catalog,
    threads: usize,
    progress: &(dyn Fn(Progress<'_>) + Sync),
) -> Result<Results, LabError> {
    let cells = plan.cells(catalog)?;
    if cells.is_empty() {
        return Err(LabError::Plan(
            "nothing to compare: policies, workloads, loads and seeds are all needed",
        ));
    }
    let began = Instant::now();
    let results = parallel::map(
        threads,
        &cells,
        |a, b| b.load.total_cmp(&a.load),
        |cell| {
            let outcome = plan.run(catalog, cell)?;
            let keep = plan.seeds.first() == Some(&cell.seed);
            Ok::<_, LabError>(CellResult::of(&outcome, plan.slo, keep))
        },
        |cell, done| {
            progress(Progress {
                done,
                total: cells.len(),
                cell,
                seconds: began.elapsed().as_secs_f64(),
            });
        },
    )?;
    let manifest = Manifest::of(plan, catalog, began.elapsed().as_secs_f64())?;
    Ok(Results {
        manifest,
        cells: results,
    })
}

#[cfg(test)]
pub(crate) mod tests;
