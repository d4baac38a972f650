//! The goals of placement, measured and judged in one command.
//!
//! Every goal is a ratio of runs over the same jobs, engines and noise, seed by seed; what is shown is the median of
//! those ratios and an interval that holds the true median in 95 of 100 cases (the range of six seeds; see
//! [`crate::stats::Interval`]). All runs have step noise, network delay and scrapes that are old when they are seen.
//!
//! *The best published* policy of a cell is chosen with hindsight: whichever of the field has the least median p90 of
//! the time to the first token there. No single policy of the literature is that everywhere, so the comparison is with
//! an opponent that nobody has. To pay for it the field races: all run with the first seed, and who is more than
//! [`HEATS`] times the best runs no further.
//!
//! A goal that cannot be measured says why. None is left out, and none is counted as met without a measurement.

mod cells;
mod decision;
mod desk;
mod judge;
pub(crate) mod text;
mod verdict;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use judge::Robust;

pub use decision::{DecisionTimes, decision_times};
pub use desk::{Kept, Place, Step};
pub use text::table;
pub use verdict::{Limit, Published, Unit, Verdict};

use self::cells::{OURS, Scope};
use self::desk::{BOUND, Condition, Desk};
use crate::compare::{Builtin, Manifest, Results, put};
use crate::{LabError, workload};

/// A published policy that is this many times the best of its cell after the first seed, after the second, runs no
/// further there.
pub const HEATS: [f64; 2] = [1.5, 1.15];

/// What to measure.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Fewer cells, policies and seeds.
    pub small: bool,
    /// Folder with trace files.
    pub traces: Option<PathBuf>,
    /// Threads; at least one.
    pub threads: usize,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it was the short run.
    pub small: bool,
    /// Whether Mooncake's trace was at hand; a look-alike took its place otherwise.
    pub traces: bool,
    /// The goals in their order.
    pub verdicts: Vec<Verdict>,
    /// What was announced of inference gateways, measured here.
    pub claims: Vec<Verdict>,
    /// The headline under other circumstances.
    pub robustness: Vec<Robust>,
    /// The usual runs, with the manifest.
    pub results: Results,
    /// All runs, those under other circumstances too.
    pub runs: Vec<Kept>,
    /// Real seconds that it took.
    pub seconds: f64,
}

/// Measures all goals.
///
/// # Errors
/// A workload or policy that is not known, or a trace that does not read.
pub fn measure(options: &Options, tell: &(dyn Fn(Step<'_>) + Sync)) -> Result<Outcome, LabError> {
    let traces = options.traces.as_deref().is_some_and(has_mooncake);
    let scope = Scope::new(options.small, traces);
    let catalog = judge::Catalogue(Builtin {
        traces: options.traces.clone(),
    });
    let mut desk = Desk::new(&catalog, options.threads, tell);
    let matrix = scope.matrix();
    let usual = scope.usual();
    race(&mut desk, &scope, &usual, &matrix)?;
    let verdicts = judge::goals(&mut desk, &scope, &usual, &matrix)?;
    let claims = judge::claims(&mut desk, &scope)?;
    let robustness = judge::robustness(&mut desk, &scope, &usual)?;
    let runs = desk.kept();
    let results = results(&desk, &scope, &usual, &matrix, &runs)?;
    Ok(Outcome {
        small: options.small,
        traces,
        verdicts,
        claims,
        robustness,
        results,
        runs,
        seconds: desk.seconds(),
    })
}

fn has_mooncake(folder: &Path) -> bool {
    let options = workload::Options {
        traces_dir: Some(folder),
        ..workload::Options::default()
    };
    workload::build("mooncake", 1.0, 1, &options).is_ok()
}

/// Everybody with the first seed, then ours, the bound and those near the best with the rest.
fn race(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    matrix: &[Place],
) -> Result<(), LabError> {
    let mut all = vec![OURS, BOUND];
    all.extend(scope.field());
    let first = &scope.seeds[..1];
    desk.run("all policies, one seed", usual, &all, matrix, first)?;
    for place in matrix {
        let stage = format!("the best at {}", place.name());
        let place = std::slice::from_ref(place);
        for (heat, limit) in HEATS.into_iter().enumerate() {
            let best = desk.best(usual, scope.field(), &place[0]);
            let best = best.map_or(f64::INFINITY, |it| desk.p90(usual, it, &place[0]));
            let near = scope.field().iter().copied();
            let near = near.filter(|it| desk.p90(usual, it, &place[0]) <= limit * best);
            let mut stay = vec![OURS, BOUND, cells::GAIE_LRU];
            stay.extend(near);
            let last = heat + 1 == HEATS.len();
            let until = if last { scope.seeds.len() } else { heat + 2 };
            desk.run(&stage, usual, &stay, place, &scope.seeds[..until])?;
        }
    }
    Ok(())
}

/// The usual runs as the results of a comparison, for the report.
fn results(
    desk: &Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    matrix: &[Place],
    runs: &[Kept],
) -> Result<Results, LabError> {
    let mut plan = usual.plan.clone();
    plan.policies = vec![OURS.to_owned()];
    let field = scope.field().iter().map(|it| (*it).to_owned());
    plan.policies.extend(field);
    for place in matrix {
        if !plan.workloads.contains(&place.workload) {
            plan.workloads.push(place.workload.clone());
        }
    }
    let cells = runs
        .iter()
        .filter(|it| it.condition == usual.name)
        .filter(|it| plan.workloads.contains(&it.result.summary.workload));
    Ok(Results {
        cells: cells.map(|it| it.result.clone()).collect(),
        manifest: Manifest::of(&plan, desk.catalog(), desk.seconds())?,
    })
}

impl Outcome {
    /// Whether a goal is missed by more than `slack` of its limit. Goals that were not measured are not missed.
    #[must_use]
    pub fn missed(&self, ids: &[&str], slack: f64) -> Vec<&Verdict> {
        let all = self.verdicts.iter().chain(&self.claims);
        all.filter(|it| ids.contains(&it.id.as_str()))
            .filter(|it| {
                let limit = it.limit.loosened(slack);
                it.measured.is_some_and(|got| !limit.holds(got.median))
            })
            .collect()
    }

    /// Writes `goals.json`, `goals.csv` and the runs' `results.json` and `summary.csv` into a folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        self.results.write(folder)?;
        let path = folder.join("goals.json");
        let text = serde_json::to_vec(self).map_err(|error| LabError::json(&path, error))?;
        put(&path, &text)?;
        put(&folder.join("goals.csv"), text::csv(self).as_bytes())?;
        put(&folder.join("goals.md"), text::markdown(self).as_bytes())
    }

    /// Reads what [`Outcome::write`] wrote.
    ///
    /// # Errors
    /// A file that is not there or does not read.
    pub fn read(folder: &Path) -> Result<Self, LabError> {
        let path = folder.join("goals.json");
        let bytes = std::fs::read(&path).map_err(|error| LabError::io(&path, error))?;
        serde_json::from_slice(&bytes).map_err(|error| LabError::json(&path, error))
    }
}

#[cfg(test)]
mod tests;
