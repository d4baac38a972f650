//! G5 and G7: classes at overload, no preemptions, adapters, engines of unlike speed, tenants.

use std::collections::BTreeMap;

use crate::LabError;
use crate::bound;
use crate::goals::cells::{GAIE, OURS, Scope};
use crate::goals::desk::{Condition, Desk, Place, p90, ratio};
use crate::goals::judge::placement::published;
use crate::goals::verdict::{Limit, Unit, Verdict};
use crate::stats::{Interval, Summary};

/// A fleet whose KV space is taken to this share on average counts as saturated.
const SATURATED: f64 = 0.8;
/// The product without fairness between flows.
const UNFAIR: &str = "pointsman@flow.fairness=strict";
/// Twice what the fleet of `classes` can do.
const OVERLOAD: f64 = 120.0;

/// G5.
pub(super) fn overload(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    matrix: &[Place],
) -> Result<Vec<Verdict>, LabError> {
    Ok(vec![
        preemptions(desk, scope, usual, matrix),
        critical(desk, scope, usual)?,
    ])
}

fn preemptions(desk: &Desk<'_>, scope: &Scope, usual: &Condition, matrix: &[Place]) -> Verdict {
    let mut verdict = Verdict::new(
        "G5a",
        "preemptions in a run below KV saturation, worst cell",
        Limit::AtMost(0.0),
        Unit::Count,
    );
    let (mut cells, mut most_theirs) = (0, 0.0_f64);
    for place in matrix {
        let of = |policy: &str, value: fn(&Summary) -> f64| {
            Interval::of(desk.values(usual, policy, place, value).into_values())
        };
        if of(OURS, |it| it.kv_usage).median >= SATURATED {
            continue;
        }
        cells += 1;
        let own = of(OURS, |it| it.preemptions as f64);
        if verdict.measured.is_none_or(|it| own.median > it.median) {
            verdict.measured = Some(own);
            verdict.note = format!("worst: {}", place.name());
        }
        if let Some(best) = desk.best(usual, scope.field(), place) {
            most_theirs = most_theirs.max(of(best, |it| it.preemptions as f64).median);
        }
    }
    verdict.note.push_str(&format!(
        "; {cells} cells with less than {:.0} % of the KV space taken; the best published of each: up to {most_theirs}",
        SATURATED * 100.0
    ));
    verdict
}

/// Critical requests at twice what the fleet can do, by themselves alone.
fn critical(desk: &mut Desk<'_>, scope: &Scope, usual: &Condition) -> Result<Verdict, LabError> {
    let mixed = [Place::new("classes", OVERLOAD, "2x overload")];
    let alone = [Place::new("classes/critical", OVERLOAD, "alone")];
    desk.run("overload", usual, &[OURS, GAIE], &mixed, &scope.seeds)?;
    desk.run("overload", usual, &[OURS, GAIE], &alone, &scope.seeds)?;
    let mut verdict = Verdict::new(
        "G5b",
        "critical p90 TTFT at 2x overload / critical requests alone",
        Limit::AtMost(1.10),
        Unit::Times,
    );
    let of_class = |it: &Summary| {
        let class = it.classes.iter().find(|it| it.priority > 0);
        class.map_or(f64::NAN, |it| it.ttft.p90)
    };
    let isolated = desk.values(usual, OURS, &alone[0], p90);
    verdict.measured = ratio(&desk.values(usual, OURS, &mixed[0], of_class), &isolated);
    let theirs = ratio(&desk.values(usual, GAIE, &mixed[0], of_class), &isolated);
    verdict.published = theirs.map(|it| published(GAIE, it));
    verdict.note = format!("alone {:.3} s", Interval::of(isolated.into_values()).median);
    Ok(verdict)
}

/// G7.
pub(super) fn unlike(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
) -> Result<Vec<Verdict>, LabError> {
    Ok(vec![
        adapters(desk, scope, usual)?,
        goodput(desk, scope, usual)?,
        tenants(desk, scope, usual)?,
    ])
}

/// Fast and slow engines together: requests served within the objective, by what the capacity program says that the
/// fleet can carry. The best of three offers counts: what is offered beyond goodput only harms.
fn goodput(desk: &mut Desk<'_>, scope: &Scope, usual: &Condition) -> Result<Verdict, LabError> {
    let mut verdict = Verdict::new(
        "G7b",
        "H100 and A100 together: goodput / the capacity program (bound C)",
        Limit::AtLeast(0.90),
        Unit::Times,
    );
    let workload = "mixed-lengths";
    let program = bound::program(&usual.plan, desk.catalog(), workload)?;
    let offers = [0.85, 0.95, 1.0].map(|share| {
        Place::new(
            workload,
            share * program,
            &format!("{share} of the program"),
        )
    });
    let rivals = ["round-robin", "least-request", "lpwl"];
    let mut all = vec![OURS];
    all.extend(rivals);
    desk.run("unlike engines", usual, &all, &offers, &scope.seeds)?;
    let of = |policy: &str| -> BTreeMap<u64, f64> {
        let mut most: BTreeMap<u64, f64> = BTreeMap::new();
        for place in &offers {
            let share = |it: &Summary| it.slo_share * place.load / program;
            for (seed, value) in desk.values(usual, policy, place, share) {
                let known = most.entry(seed).or_insert(value);
                *known = known.max(value);
            }
        }
        most
    };
    verdict.measured = Some(Interval::of(of(OURS).into_values()));
    let theirs = rivals.map(|it| published(it, Interval::of(of(it).into_values())));
    verdict.published = theirs
        .into_iter()
        .max_by(|a, b| a.value.median.total_cmp(&b.value.median));
    verdict.note = format!(
        "the program's load is {program:.1} requests/s; objective: TTFT {} s, {} s a token",
        usual.plan.slo.ttft, usual.plan.slo.tpot
    );
    Ok(verdict)
}

/// Fairness between tenants, and what it costs in cache hits.
fn tenants(desk: &mut Desk<'_>, scope: &Scope, usual: &Condition) -> Result<Verdict, LabError> {
    let mut verdict = Verdict::new(
        "G7c",
        "Jain's index over tenants, one of them greedy, at no more than 5 % fewer cache hits",
        Limit::AtLeast(0.95),
        Unit::Times,
    );
    let Ok(setting) = desk.catalog().setting("tenants", None) else {
        verdict.note = "the catalogue has no workload with a greedy tenant yet".to_owned();
        return Ok(verdict);
    };
    let load = setting.loads.last().copied().unwrap_or(1.0);
    let places = [Place::new("tenants", load, &format!("{load}"))];
    desk.run("tenants", usual, &[OURS, UNFAIR], &places, &scope.seeds)?;
    let of =
        |policy: &str, value: fn(&Summary) -> f64| desk.values(usual, policy, &places[0], value);
    let fair = of(OURS, |it| it.jain_flows);
    let hits = ratio(&of(OURS, |it| it.hit_ratio), &of(UNFAIR, |it| it.hit_ratio));
    let lost = hits.map_or(1.0, |it| 1.0 - it.median);
    verdict.measured = (lost <= 0.05).then(|| Interval::of(fair.into_values()));
    let without = Interval::of(of(UNFAIR, |it| it.jain_flows).into_values()).median;
    verdict.note = format!(
        "{:.1} % fewer hits than without fairness, whose index is {without:.2}",
        lost * 100.0
    );
    Ok(verdict)
}

/// Adapters: against GAIE as it ships and against GAIE with its adapter scorer.
fn adapters(desk: &mut Desk<'_>, scope: &Scope, usual: &Condition) -> Result<Verdict, LabError> {
    let places = [100.0, 200.0].map(|load| Place::new("lora", load, &format!("{load} QPS")));
    let rivals = [GAIE, "gaie-lora"];
    let all = [OURS, rivals[0], rivals[1]];
    desk.run("adapters", usual, &all, &places, &scope.seeds)?;
    let mut verdict = Verdict::new(
        "G7a",
        "multi-LoRA mix: p90 TTFT / GAIE, the better of its default and its adapter scorer, worst load",
        Limit::AtMost(0.80),
        Unit::Times,
    );
    let mut said = Vec::new();
    for place in &places {
        let of = |policy: &str| desk.values(usual, policy, place, p90);
        let better = desk.best(usual, &rivals, place).unwrap_or(GAIE);
        let Some(here) = ratio(&of(OURS), &of(better)) else {
            continue;
        };
        let medians = [OURS, rivals[0], rivals[1]].map(|policy| desk.p90(usual, policy, place));
        said.push(format!(
            "{}: {:.3} s, {:.3} s of {}, {:.3} s of {}",
            place.said, medians[0], medians[1], rivals[0], medians[2], rivals[1]
        ));
        if verdict.measured.is_none_or(|it| here.median > it.median) {
            verdict.measured = Some(here);
            verdict.published = desk
                .best(usual, scope.field(), place)
                .and_then(|best| Some(published(best, ratio(&of(best), &of(better))?)));
        }
    }
    verdict.note = said.join("; ");
    Ok(verdict)
}
