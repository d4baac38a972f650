//! From runs to verdicts.
//!
//! - [`placement`]: near the bound, better than the best published, never much worse (G1, G2, G3, G8)
//! - [`weather`]: late scrapes, several gateways (G4), and the robustness block
//! - [`classes`]: overload, adapters, unlike engines, tenants (G5, G7)
//! - [`announced`]: what was announced of inference gateways

mod announced;
mod classes;
mod placement;
mod weather;

use super::cells::Scope;
use super::decision::decision_times;
use super::desk::{Condition, Desk, Place};
use super::verdict::{Limit, Unit, Verdict};
use crate::compare::{Builtin, Catalog, Setting};
use crate::product::Knowledge;
use crate::stats::Interval;
use simulator::EngineConfig;

use crate::{Dispatcher, Job, LabError, Workload};

pub use weather::Robust;

pub(super) use weather::robustness;

/// All goals in their order.
pub(super) fn goals(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    matrix: &[Place],
) -> Result<Vec<Verdict>, LabError> {
    let mut verdicts = vec![placement::near_the_bound(desk, scope, usual)];
    verdicts.extend(placement::capacity(desk, scope, usual)?);
    verdicts.extend(placement::scarce(desk, scope, usual)?);
    verdicts.extend(placement::no_regret(desk, scope, usual, matrix));
    verdicts.extend(weather::staleness(desk, scope, usual)?);
    verdicts.extend(classes::overload(desk, scope, usual, matrix)?);
    verdicts.push(speed(scope));
    verdicts.extend(classes::unlike(desk, scope, usual)?);
    verdicts.extend(placement::past_the_knee(desk, scope, usual)?);
    Ok(verdicts)
}

/// What was announced.
pub(super) fn claims(desk: &mut Desk<'_>, scope: &Scope) -> Result<Vec<Verdict>, LabError> {
    announced::claims(desk, scope)
}

/// G6. Threads of the other measures are done by now.
fn speed(scope: &Scope) -> Verdict {
    let mut verdict = Verdict::new(
        "G6",
        "decision p99, 100 endpoints, prompts of 128k tokens",
        Limit::AtMost(200.0),
        Unit::Micros,
    );
    let count = if scope.small { 500 } else { 2000 };
    let times: Vec<_> = scope
        .seeds
        .iter()
        .map(|seed| decision_times(*seed, count))
        .collect();
    verdict.measured = Some(Interval::of(times.iter().map(|it| it.p99 * 1e6)));
    let half = Interval::of(times.iter().map(|it| it.p50 * 1e6)).median;
    verdict.note = format!(
        "p50 {half:.0} µs; hashing of the prompt apart; this machine's clock, so it may be busy"
    );
    verdict
}

/// The lab's own catalogue with workloads cut down to one class: `classes/critical`.
#[derive(Debug, Clone)]
pub(super) struct Catalogue(pub(super) Builtin);

const CRITICAL: &str = "/critical";

impl Catalog for Catalogue {
    fn setting(&self, workload: &str, fleet: Option<&str>) -> Result<Setting, LabError> {
        let name = workload.strip_suffix(CRITICAL).unwrap_or(workload);
        self.0.setting(name, fleet)
    }

    fn workload(
        &self,
        name: &str,
        load: f64,
        seed: u64,
        span: (Option<f64>, Option<f64>),
    ) -> Result<Box<dyn Workload>, LabError> {
        match name.strip_suffix(CRITICAL) {
            Some(whole) => Ok(Box::new(Critical(
                self.0.workload(whole, load, seed, span)?,
            ))),
            None => self.0.workload(name, load, seed, span),
        }
    }

    fn policy(
        &self,
        name: &str,
        engines: &[EngineConfig],
        knowledge: Knowledge,
        seed: u64,
    ) -> Result<Box<dyn Dispatcher>, LabError> {
        self.0.policy(name, engines, knowledge, seed)
    }

    fn about_policy(&self, name: &str) -> String {
        self.0.about_policy(name)
    }
}

/// Only the critical jobs of a workload, at their own times.
struct Critical(Box<dyn Workload>);

impl Workload for Critical {
    fn next(&mut self) -> Option<Job> {
        loop {
            let job = self.0.next()?;
            if job.priority > 0 {
                return Some(job);
            }
        }
    }

    fn finished(&mut self, job: &Job, now: f64) -> Option<Job> {
        self.0.finished(job, now)
    }
}
