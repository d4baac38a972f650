//! What `lab bound` says besides the pooled server's table.

use std::fmt::Write as _;

use super::{BoundArgs, print, threads};
use crate::bound::{self, Capacities, Rollout};
use crate::compare::{Builtin, Catalog as _, Plan};
use crate::stats::{Interval, Summary};
use crate::{LabError, parallel};

/// Seconds that a try of the rollout plays on, and later jobs that it takes in.
const LOOK_AHEAD: (f64, usize) = (30.0, 64);

/// Bounds B, C, D and the capacity.
pub(super) fn rest(args: &BoundArgs, plan: &Plan, catalog: &Builtin) -> anyhow::Result<()> {
    let name = &args.workload;
    let own = plan.setting(catalog, name)?;
    let loads = if args.loads.is_empty() {
        &own.loads
    } else {
        &args.loads
    };
    let mut text = String::from("\n");
    for &load in loads {
        let p90 = over_seeds(plan, |seed| {
            bound::shared_p90(plan, catalog, name, load, seed)
        })?;
        let _ = writeln!(
            text,
            "B, engines sharing their caches, load {load}: p90 {}",
            said(p90)
        );
        if let Some(most) = args.rollout {
            let p90 = over_seeds(plan, |seed| {
                foresight(plan, catalog, name, (load, seed), most)
            })?;
            let _ = writeln!(
                text,
                "D, placed with foresight, load {load}: p90 {}",
                said(p90)
            );
        }
    }
    let program = bound::program(plan, catalog, name)?;
    let _ = writeln!(
        text,
        "C, the capacity program: load {program:.3} {}",
        own.unit
    );
    if args.capacity {
        let load = Capacities::new(None)?.of(plan, catalog, name, "bound")?;
        let _ = writeln!(
            text,
            "capacity of the bound, p90 of the time to first token within {} s: load {load:.3} {}",
            plan.slo.ttft, own.unit
        );
    }
    print(&text)
}

fn over_seeds(
    plan: &Plan,
    measure: impl Fn(u64) -> Result<f64, LabError> + Sync,
) -> Result<Interval, LabError> {
    let order = |_: &u64, _: &u64| std::cmp::Ordering::Equal;
    let work = |seed: &u64| measure(*seed);
    let values = parallel::map(threads(None), &plan.seeds, order, work, |_, _| {})?;
    Ok(Interval::of(values))
}

fn said(it: Interval) -> String {
    format!("{:.3} s [{:.3}, {:.3}]", it.median, it.low, it.high)
}

fn foresight(
    plan: &Plan,
    catalog: &Builtin,
    name: &str,
    (load, seed): (f64, u64),
    most: usize,
) -> Result<f64, LabError> {
    let config = plan.config(catalog, name, seed)?;
    let workload = catalog.workload(name, load, seed, (plan.horizon, plan.warmup))?;
    let jobs = bound::collect(&config, workload);
    let (horizon, later) = LOOK_AHEAD;
    let rollout = Rollout {
        horizon,
        jobs: later,
        most,
    };
    let outcome = bound::rollout(&config, jobs, rollout);
    let outcome = outcome.ok_or(LabError::Plan("the fleet has no engines"))?;
    Ok(Summary::of(&outcome, plan.slo).ttft.p90)
}
