//! G4, late news and several gateways; and the robustness block: the headline under other circumstances.

use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::goals::cells::{OURS, Scope};
use crate::goals::desk::{Condition, Desk, Place, p90, ratio};
use crate::goals::verdict::{Limit, Unit, Verdict};
use crate::stats::Interval;

/// The headline at a place under other circumstances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Robust {
    /// What is different.
    pub condition: String,
    /// Where.
    pub place: Place,
    /// Our p90 by our own under the usual circumstances.
    pub change: Interval,
    /// Our p90 by that of the usual circumstances' best published policy, both under these.
    pub to_best: Interval,
    /// Who that is.
    pub best: String,
}

/// Cells that stand for the rest: compute, hot prefixes, scarce KV, decode, nothing to exploit.
fn places(scope: &Scope) -> Vec<Place> {
    let all = [
        (scope.mooncake(), 2.4),
        ("zipf", 60.0),
        ("agentic", 0.8),
        ("b2b", 9.0),
        ("sharegpt", 200.0),
    ];
    let most = if scope.small { 2 } else { all.len() };
    let place = |(name, load): (&str, f64)| Place::new(name, load, &format!("{load}"));
    all.into_iter().take(most).map(place).collect()
}

/// G4.
pub(super) fn staleness(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
) -> Result<Vec<Verdict>, LabError> {
    let places = places(scope);
    desk.run("usual", usual, &[OURS], &places, &scope.seeds)?;
    let late = scope.condition("scrape 1 s", |plan| plan.scrape_period = 1.0);
    desk.run("scrape 1 s", &late, &[OURS], &places, &scope.seeds)?;
    let mut stale = Verdict::new(
        "G4a",
        "scrape each 1 s instead of 50 ms: change of p90 TTFT, worst cell",
        Limit::AtMost(0.05),
        Unit::Share,
    );
    (stale.measured, stale.note) = worst(desk, &late, usual, &places, |ratio| ratio - 1.0);
    let many = scope.condition("four gateways", |plan| {
        plan.gateways = 4;
        plan.share_period = 0.05;
    });
    desk.run("four gateways", &many, &[OURS], &places, &scope.seeds)?;
    let mut gateways = Verdict::new(
        "G4b",
        "four gateways, sharing each 50 ms: p90 TTFT / one gateway, worst cell",
        Limit::AtMost(1.10),
        Unit::Times,
    );
    (gateways.measured, gateways.note) = worst(desk, &many, usual, &places, |ratio| ratio);
    Ok(vec![stale, gateways])
}

/// The place where a condition changes our p90 the most, and all others in words.
fn worst(
    desk: &Desk<'_>,
    condition: &Condition,
    usual: &Condition,
    places: &[Place],
    of: impl Fn(f64) -> f64,
) -> (Option<Interval>, String) {
    let mut worst: Option<Interval> = None;
    let mut said = Vec::new();
    for place in places {
        let over = desk.values(condition, OURS, place, p90);
        let Some(it) = ratio(&over, &desk.values(usual, OURS, place, p90)) else {
            continue;
        };
        let it = Interval {
            median: of(it.median),
            low: of(it.low),
            high: of(it.high),
            ..it
        };
        said.push(format!("{} {:.3}", place.name(), it.median));
        if worst.is_none_or(|known| it.median > known.median) {
            worst = Some(it);
        }
    }
    (worst, said.join(", "))
}

/// The headline with wrong coefficients, late scrapes, a slow network.
pub(in crate::goals) fn robustness(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
) -> Result<Vec<Robust>, LabError> {
    let conditions = [
        scope.condition("coefficients +30 %", |plan| plan.knowledge.factor = 1.3),
        scope.condition("coefficients -30 %", |plan| plan.knowledge.factor = 0.7),
        scope.condition("scrape 1 s", |plan| plan.scrape_period = 1.0),
        scope.condition("network 5 ms", |plan| plan.network_delay = 5e-3),
    ];
    // As many seeds as show a direction: these are many runs, and no goal.
    let seeds = &scope.seeds[..scope.seeds.len().min(3)];
    let mut rows = Vec::new();
    for place in places(scope) {
        let here = std::slice::from_ref(&place);
        desk.run("robustness", usual, scope.field(), here, &scope.seeds[..1])?;
        let Some(best) = desk.best(usual, scope.field(), &place) else {
            continue;
        };
        for condition in &conditions {
            desk.run(condition.name, condition, &[OURS, best], here, seeds)?;
            let under = desk.values(usual, OURS, &place, p90);
            let ours = desk.values(condition, OURS, &place, p90);
            let theirs = desk.values(condition, best, &place, p90);
            if let (Some(change), Some(to_best)) = (ratio(&ours, &under), ratio(&ours, &theirs)) {
                rows.push(Robust {
                    condition: condition.name.to_owned(),
                    place: place.clone(),
                    change,
                    to_best,
                    best: best.to_owned(),
                });
            }
        }
    }
    Ok(rows)
}
