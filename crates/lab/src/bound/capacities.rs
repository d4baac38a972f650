//! Capacities: the load up to which the p90 of the time to first token stays within a limit.
//!
//! Found by bisection on common random numbers: each load is run with the same seeds, and the median over them counts.
//! The *bound's* capacity is the lesser of two that no fleet exceeds: the load at which the pooled server (bound A, its
//! better order) crosses the limit, and the capacity program's (bound C). Loads of a comparison are best given as shares
//! of it, which mean the same for every workload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{Order, capacity, collect, lp, pooled, shared};
use crate::compare::{Catalog, Cell, Plan};
use crate::stats::Summary;
use crate::{LabError, RunOutcome};

/// Loads of interest, as shares of the bound's capacity.
pub const SHARES: [f64; 8] = [0.3, 0.6, 0.8, 0.9, 0.95, 1.0, 1.05, 1.2];

/// Halvings of a bisection: from a factor of 16 to 4 %.
const STEPS: u32 = 6;

/// Capacities found so far, kept in a file if one is given.
#[derive(Debug, Default)]
pub struct Capacities {
    file: Option<PathBuf>,
    known: Mutex<BTreeMap<String, f64>>,
}

impl Capacities {
    /// With what `file` knows from earlier; it is written again with each capacity that is found.
    ///
    /// # Errors
    /// A file that is there and does not read.
    pub fn new(file: Option<PathBuf>) -> Result<Self, LabError> {
        let known = match &file {
            Some(path) if path.exists() => {
                let text = std::fs::read(path).map_err(|error| LabError::io(path, error))?;
                serde_json::from_slice(&text).map_err(|error| LabError::json(path, error))?
            }
            _ => BTreeMap::new(),
        };
        Ok(Self {
            file,
            known: Mutex::new(known),
        })
    }

    /// The capacity of a policy, or of `bound`, on a workload under the plan's conditions and seeds, for its limit on the
    /// time to first token.
    ///
    /// # Errors
    /// As [`Plan::run`], or a file that cannot be written.
    pub fn of(
        &self,
        plan: &Plan,
        catalog: &dyn Catalog,
        workload: &str,
        policy: &str,
    ) -> Result<f64, LabError> {
        let key = key(plan, workload, policy);
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(*known);
        }
        let ceiling = program(plan, catalog, workload)?;
        let found = if policy == "bound" {
            let range = [ceiling / 16.0, ceiling];
            capacity(range, STEPS, plan.slo.ttft, |load| {
                median(plan, |seed| bound_p90(plan, catalog, workload, load, seed))
            })?
        } else {
            let range = [ceiling / 16.0, ceiling * 1.25];
            capacity(range, STEPS, plan.slo.ttft, |load| {
                median(plan, |seed| {
                    let cell = cell(policy, workload, load, seed);
                    let outcome = plan.run(catalog, &cell)?;
                    Ok(Summary::of(&outcome, plan.slo).ttft.p90)
                })
            })?
        };
        self.known.lock().insert(key, found);
        if let Some(path) = &self.file {
            self.write(path)?;
        }
        Ok(found)
    }

    /// The load, in the workload's own unit, that is this share of the bound's capacity.
    ///
    /// # Errors
    /// As [`Capacities::of`].
    pub fn load(
        &self,
        plan: &Plan,
        catalog: &dyn Catalog,
        workload: &str,
        share: f64,
    ) -> Result<f64, LabError> {
        Ok(share * self.of(plan, catalog, workload, "bound")?)
    }

    fn write(&self, path: &Path) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(&*self.known.lock())
            .map_err(|error| LabError::json(path, error))?;
        std::fs::write(path, text).map_err(|error| LabError::io(path, error))
    }
}

fn key(plan: &Plan, workload: &str, policy: &str) -> String {
    // Everything that changes a run, and nothing that only says what to compare.
    let conditions = Plan {
        policies: Vec::new(),
        workloads: Vec::new(),
        loads: Vec::new(),
        bound: false,
        ..plan.clone()
    };
    let text = serde_json::to_string(&conditions).unwrap_or_default();
    let digest = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    format!("{workload} {policy} {digest:016x}")
}

fn cell(policy: &str, workload: &str, load: f64, seed: u64) -> Cell {
    Cell {
        policy: policy.to_owned(),
        workload: workload.to_owned(),
        load,
        seed,
    }
}

fn median(
    plan: &Plan,
    mut measure: impl FnMut(u64) -> Result<f64, LabError>,
) -> Result<f64, LabError> {
    let mut values = Vec::with_capacity(plan.seeds.len());
    for &seed in &plan.seeds {
        values.push(measure(seed)?);
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values
        .get(middle)
        .copied()
        .ok_or(LabError::Plan("a capacity needs at least one seed"))
}

/// The p90 of the time to first token of the pooled server, in its better order.
///
/// # Errors
/// As [`Plan::run`].
pub fn bound_p90(
    plan: &Plan,
    catalog: &dyn Catalog,
    workload: &str,
    load: f64,
    seed: u64,
) -> Result<f64, LabError> {
    let mut least = f64::INFINITY;
    for order in [Order::Fcfs, Order::Sjf] {
        let outcome = run_bound(plan, catalog, &cell("", workload, load, seed), order, false)?;
        least = least.min(Summary::of(&outcome, plan.slo).ttft.p90);
    }
    Ok(least)
}

/// The same of engines that share their caches (bound B).
///
/// # Errors
/// As [`Plan::run`].
pub fn shared_p90(
    plan: &Plan,
    catalog: &dyn Catalog,
    workload: &str,
    load: f64,
    seed: u64,
) -> Result<f64, LabError> {
    let mut least = f64::INFINITY;
    for order in [Order::Fcfs, Order::Sjf] {
        let outcome = run_bound(plan, catalog, &cell("", workload, load, seed), order, true)?;
        least = least.min(Summary::of(&outcome, plan.slo).ttft.p90);
    }
    Ok(least)
}

fn run_bound(
    plan: &Plan,
    catalog: &dyn Catalog,
    cell: &Cell,
    order: Order,
    sharing: bool,
) -> Result<RunOutcome, LabError> {
    let config = plan.config(catalog, &cell.workload, cell.seed)?;
    let span = (plan.horizon, plan.warmup);
    let workload = catalog.workload(&cell.workload, cell.load, cell.seed, span)?;
    let outcome = if sharing {
        shared(&config, workload, order)
    } else {
        pooled(&config, workload, order)
    };
    outcome.ok_or(LabError::Plan("the fleet has no engines"))
}

/// The capacity program's load (bound C) of a workload, from its jobs with the plan's first seed.
///
/// # Errors
/// As [`Plan::run`].
pub fn program(plan: &Plan, catalog: &dyn Catalog, workload: &str) -> Result<f64, LabError> {
    let seed = plan.seeds.first().copied().unwrap_or(1);
    let config = plan.config(catalog, workload, seed)?;
    let setting = plan.setting(catalog, workload)?;
    let load = setting.loads.first().copied().unwrap_or(1.0);
    let span = (plan.horizon, plan.warmup);
    let jobs = collect(&config, catalog.workload(workload, load, seed, span)?);
    lp(&config, &jobs, load)
        .map(|it| it.load)
        .ok_or(LabError::Plan(
            "the fleet has no engines or the workload no jobs",
        ))
}
