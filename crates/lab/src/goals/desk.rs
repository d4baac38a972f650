//! The runs that goals are judged by: made once, kept by their circumstances, asked for often.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::compare::{BOUNDS, Catalog, Cell, CellResult, Plan};
use crate::stats::{Interval, Summary};
use crate::{LabError, parallel};

/// The row that is the better of the pooled server's orders, seed by seed.
pub(super) const BOUND: &str = "bound";

/// A workload at a load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The workload's name.
    pub workload: String,
    /// Its load, in its own unit.
    pub load: f64,
    /// The load as people say it: `x2.4`, `.95 of capacity`.
    pub said: String,
}

impl Place {
    pub(super) fn new(workload: &str, load: f64, said: &str) -> Self {
        Self {
            workload: workload.to_owned(),
            load,
            said: said.to_owned(),
        }
    }

    /// Workload and load, for people.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} at {}", self.workload, self.said)
    }
}

/// Circumstances under a name: a plan without workloads, policies and seeds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) name: &'static str,
    pub(super) plan: Plan,
}

/// How far the work is.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What is being measured.
    pub stage: &'a str,
    /// Runs of this stage that are done.
    pub done: usize,
    /// Runs of this stage.
    pub total: usize,
    /// Real seconds since the beginning of everything.
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    condition: &'static str,
    workload: String,
    /// Positive numbers are ordered as their bits are.
    load: u64,
    policy: String,
    seed: u64,
}

impl Key {
    fn new(condition: &Condition, policy: &str, place: &Place, seed: u64) -> Self {
        Self {
            condition: condition.name,
            workload: place.workload.clone(),
            load: place.load.to_bits(),
            policy: policy.to_owned(),
            seed,
        }
    }
}

/// A run that the desk holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Under which circumstances.
    pub condition: String,
    /// The run.
    #[serde(flatten)]
    pub result: CellResult,
}

/// Makes runs and keeps them.
pub(super) struct Desk<'a> {
    catalog: &'a dyn Catalog,
    threads: usize,
    began: Instant,
    tell: &'a (dyn Fn(Step<'_>) + Sync),
    runs: BTreeMap<Key, CellResult>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        catalog: &'a dyn Catalog,
        threads: usize,
        tell: &'a (dyn Fn(Step<'_>) + Sync),
    ) -> Self {
        Self {
            catalog,
            threads,
            began: Instant::now(),
            tell,
            runs: BTreeMap::new(),
        }
    }

    pub(super) fn catalog(&self) -> &'a dyn Catalog {
        self.catalog
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Makes the runs that are not there yet: every policy at every place with every seed.
    pub(super) fn run(
        &mut self,
        stage: &str,
        condition: &Condition,
        policies: &[&str],
        places: &[Place],
        seeds: &[u64],
    ) -> Result<(), LabError> {
        let mut wanted: Vec<(Key, Cell)> = Vec::new();
        for place in places {
            for policy in policies.iter().flat_map(|it| rows(it)) {
                for &seed in seeds {
                    let key = Key::new(condition, policy, place, seed);
                    if self.runs.contains_key(&key) || wanted.iter().any(|it| it.0 == key) {
                        continue;
                    }
                    let cell = Cell {
                        policy: policy.to_owned(),
                        workload: place.workload.clone(),
                        load: place.load,
                        seed,
                    };
                    wanted.push((key, cell));
                }
            }
        }
        let first = seeds.first().copied();
        let results = self.map(stage, &wanted, |(_, cell)| {
            let outcome = condition.plan.run(self.catalog, cell)?;
            let course = first == Some(cell.seed);
            Ok(CellResult::of(&outcome, condition.plan.slo, course))
        })?;
        let keys = wanted.into_iter().map(|(key, _)| key);
        self.runs.extend(keys.zip(results));
        Ok(())
    }

    /// Work of another kind with the desk's threads, told as a stage.
    pub(super) fn map<T: Sync, R: Send>(
        &self,
        stage: &str,
        items: &[T],
        work: impl Fn(&T) -> Result<R, LabError> + Sync,
    ) -> Result<Vec<R>, LabError> {
        parallel::map(
            self.threads,
            items,
            |_, _| std::cmp::Ordering::Equal,
            work,
            |_, done| {
                (self.tell)(Step {
                    stage,
                    done,
                    total: items.len(),
                    seconds: self.began.elapsed().as_secs_f64(),
                });
            },
        )
    }

    /// A value of each seed's run; of [`BOUND`] the least of its orders.
    pub(super) fn values(
        &self,
        condition: &Condition,
        policy: &str,
        place: &Place,
        value: impl Fn(&Summary) -> f64,
    ) -> BTreeMap<u64, f64> {
        let mut values: BTreeMap<u64, f64> = BTreeMap::new();
        for row in rows(policy) {
            let from = Key::new(condition, row, place, 0);
            let to = Key::new(condition, row, place, u64::MAX);
            for (key, result) in self.runs.range(from..=to) {
                let value = value(&result.summary);
                let known = values.entry(key.seed).or_insert(value);
                *known = known.min(value);
            }
        }
        values
    }

    /// 90th percentile of the time to the first token, median over seeds.
    pub(super) fn p90(&self, condition: &Condition, policy: &str, place: &Place) -> f64 {
        Interval::of(self.values(condition, policy, place, p90).into_values()).median
    }

    /// The policy of `field` with the least median p90 among those that ran with as many seeds as the best known one.
    pub(super) fn best<'f>(
        &self,
        condition: &Condition,
        field: &[&'f str],
        place: &Place,
    ) -> Option<&'f str> {
        let seeds = |policy: &str| self.values(condition, policy, place, p90).len();
        let most = field
            .iter()
            .map(|it| seeds(it))
            .max()
            .filter(|it| *it > 0)?;
        field
            .iter()
            .filter(|it| seeds(it) == most)
            .min_by(|a, b| {
                let of = |policy: &str| self.p90(condition, policy, place);
                of(a).total_cmp(&of(b))
            })
            .copied()
    }

    /// All runs, for files and the report.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let kept = |(key, result): (&Key, &CellResult)| Kept {
            condition: key.condition.to_owned(),
            result: result.clone(),
        };
        self.runs.iter().map(kept).collect()
    }
}

/// The rows that a name stands for.
fn rows(policy: &str) -> Vec<&str> {
    if policy == BOUND {
        BOUNDS.iter().map(|(name, _)| *name).collect()
    } else {
        vec![policy]
    }
}

/// Seconds to the first token.
pub(super) fn p90(it: &Summary) -> f64 {
    it.ttft.p90
}

/// The interval of ratios, seed by seed; `None` without a pair.
pub(super) fn ratio(over: &BTreeMap<u64, f64>, under: &BTreeMap<u64, f64>) -> Option<Interval> {
    let pairs = over.iter().filter_map(|(seed, a)| {
        let b = under.get(seed)?;
        (*b > 0.0).then_some(a / b)
    });
    let interval = Interval::of(pairs);
    (interval.count > 0).then_some(interval)
}
