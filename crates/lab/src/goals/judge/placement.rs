//! G1, G2, G3 and G8: how near the bound, how much better than the best published, and never much worse.

use std::collections::BTreeMap;

use crate::LabError;
use crate::bound;
use crate::compare::Cell;
use crate::goals::cells::{GAIE_LRU, MOONCAKE_LOAD, OURS, SCARCE_LOADS, Scope};
use crate::goals::desk::{BOUND, Condition, Desk, Place, p90, ratio};
use crate::goals::verdict::{Limit, Published, Unit, Verdict};
use crate::stats::{Interval, Summary};

fn mooncake(scope: &Scope) -> Place {
    Place::new(scope.mooncake(), MOONCAKE_LOAD, "x2.4")
}

/// G1a.
pub(super) fn near_the_bound(desk: &Desk<'_>, scope: &Scope, usual: &Condition) -> Verdict {
    let mut verdict = Verdict::new(
        "G1a",
        "Mooncake x2.4: p90 TTFT / pooled bound",
        Limit::AtMost(1.10),
        Unit::Times,
    );
    let place = mooncake(scope);
    let of = |policy: &str| desk.values(usual, policy, &place, p90);
    let bound = of(BOUND);
    verdict.measured = ratio(&of(OURS), &bound);
    verdict.published = desk.best(usual, scope.field(), &place).and_then(|best| {
        let value = ratio(&of(best), &bound)?;
        Some(published(best, value))
    });
    verdict.note = standing(scope);
    verdict
}

/// Whether the trace itself was run.
fn standing(scope: &Scope) -> String {
    if scope.traces {
        "the trace itself".to_owned()
    } else {
        "no trace at hand: its look-alike".to_owned()
    }
}

pub(super) fn published(policy: &str, value: Interval) -> Published {
    Published {
        policy: policy.to_owned(),
        value,
    }
}

/// G1b: the load up to which the p90 stays within the objective, by the bound's and by the best published one's.
pub(super) fn capacity(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
) -> Result<Vec<Verdict>, LabError> {
    let place = mooncake(scope);
    let mut rivals: Vec<&str> = scope.field().to_vec();
    rivals.sort_by(|a, b| {
        let of = |policy: &str| desk.p90(usual, policy, &place);
        of(a).total_cmp(&of(b))
    });
    rivals.truncate(if scope.small { 1 } else { 2 });
    let bound = capacities(desk, (scope, usual), &place, BOUND, &BTreeMap::new())?;
    let ours = capacities(desk, (scope, usual), &place, OURS, &bound)?;
    let mut best: Option<(&str, BTreeMap<u64, f64>)> = None;
    for rival in rivals {
        let theirs = capacities(desk, (scope, usual), &place, rival, &bound)?;
        let median = |of: &BTreeMap<u64, f64>| Interval::of(of.values().copied()).median;
        if best
            .as_ref()
            .is_none_or(|(_, known)| median(&theirs) > median(known))
        {
            best = Some((rival, theirs));
        }
    }
    let mut of_bound = Verdict::new(
        "G1b",
        "Mooncake: load with p90 TTFT <= 2 s / the bound's",
        Limit::AtLeast(0.85),
        Unit::Times,
    );
    of_bound.measured = ratio(&ours, &bound);
    let load = |of: &BTreeMap<u64, f64>| Interval::of(of.values().copied()).median;
    of_bound.note = format!(
        "x{:.2} of the trace against x{:.2} of the bound; {}",
        load(&ours),
        load(&bound),
        standing(scope)
    );
    let mut of_best = Verdict::new(
        "G1b",
        "the same load / the best published one's",
        Limit::AtLeast(1.10),
        Unit::Times,
    );
    if let Some((name, theirs)) = best {
        of_bound.published = ratio(&theirs, &bound).map(|it| published(name, it));
        of_best.measured = ratio(&ours, &theirs);
        of_best.note = format!("{name}: x{:.2}", load(&theirs));
    }
    Ok(vec![of_bound, of_best])
}

/// The bound's capacity lies in this range of the trace's own speed.
const RANGE: [f64; 2] = [0.3, 5.0];
/// That of a policy is sought between these shares of the bound's.
const SHARES: [f64; 2] = [0.25, 1.05];

/// The greatest load that each seed's run serves with a p90 within the objective.
fn capacities(
    desk: &Desk<'_>,
    (scope, usual): (&Scope, &Condition),
    place: &Place,
    policy: &str,
    bound: &BTreeMap<u64, f64>,
) -> Result<BTreeMap<u64, f64>, LabError> {
    let (workload, seeds) = (place.workload.as_str(), &scope.seeds);
    let steps = if scope.small { 5 } else { 7 };
    let limit = usual.plan.slo.ttft;
    let catalog = desk.catalog();
    let found = desk.map(&format!("capacity of {policy}"), seeds, |&seed| {
        let range = bound
            .get(&seed)
            .map_or(RANGE, |load| SHARES.map(|share| share * load));
        bound::capacity(range, steps, limit, |load| {
            if policy == BOUND {
                return bound::bound_p90(&usual.plan, catalog, workload, load, seed);
            }
            let cell = Cell {
                policy: policy.to_owned(),
                workload: workload.to_owned(),
                load,
                seed,
            };
            let outcome = usual.plan.run(catalog, &cell)?;
            Ok(Summary::of(&outcome, usual.plan.slo).ttft.p90)
        })
    })?;
    Ok(seeds.iter().copied().zip(found).collect())
}

/// G2: scarce KV.
pub(super) fn scarce(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
) -> Result<Vec<Verdict>, LabError> {
    let skip = usize::from(scope.small);
    let places: Vec<Place> = SCARCE_LOADS
        .iter()
        .skip(skip)
        .map(|load| Place::new("agentic", *load, &format!("{load}")))
        .collect();
    let mut best = Verdict::new(
        "G2a",
        "agentic, scarce KV: p90 TTFT / the best published",
        Limit::AtMost(0.75),
        Unit::Times,
    );
    let (measured, names) = mean_of_best(desk, scope, usual, &places);
    best.measured = measured;
    let of_lru = geometric(&places, |place| paired(desk, usual, place, OURS, GAIE_LRU));
    best.note = format!(
        "mean over {} load(s), against {}; against {GAIE_LRU} {:.2}",
        places.len(),
        names.join(", "),
        of_lru.map_or(f64::NAN, |it| it.median)
    );
    Ok(vec![best, shared_caches(desk, scope, usual, &places)?])
}

/// G2b: against the same engines with one cache for all of them.
fn shared_caches(
    desk: &Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    places: &[Place],
) -> Result<Verdict, LabError> {
    let mut verdict = Verdict::new(
        "G2b",
        "the same / engines that share their caches (bound B)",
        Limit::AtMost(2.0),
        Unit::Times,
    );
    let catalog = desk.catalog();
    let mut bounds: Vec<BTreeMap<u64, f64>> = Vec::new();
    for place in places {
        let p90s = desk.map("shared caches", &scope.seeds, |&seed| {
            bound::shared_p90(&usual.plan, catalog, &place.workload, place.load, seed)
        })?;
        bounds.push(scope.seeds.iter().copied().zip(p90s).collect());
    }
    let by_bound = |policy: Option<&str>| {
        geometric(places, |place| {
            let at = places.iter().position(|it| it == place)?;
            let policy = policy.or_else(|| desk.best(usual, scope.field(), place))?;
            let own = desk.values(usual, policy, place, p90);
            let pairs = own
                .iter()
                .filter_map(|(seed, it)| Some((*seed, it / bounds[at].get(seed)?)));
            Some(pairs.collect())
        })
    };
    verdict.measured = by_bound(Some(OURS));
    verdict.published = by_bound(None).map(|it| published("the best of each load", it));
    Ok(verdict)
}

/// Our p90 by that of the best published policy of each place, mean over places, and who that was.
fn mean_of_best(
    desk: &Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    places: &[Place],
) -> (Option<Interval>, Vec<String>) {
    let mut names: Vec<String> = Vec::new();
    for place in places {
        let best = desk.best(usual, scope.field(), place);
        if let Some(name) = best.filter(|it| !names.iter().any(|known| known == it)) {
            names.push(name.to_owned());
        }
    }
    let mean = geometric(places, |place| {
        let best = desk.best(usual, scope.field(), place)?;
        paired(desk, usual, place, OURS, best)
    });
    (mean, names)
}

/// Ratios of two policies' p90 seed by seed.
fn paired(
    desk: &Desk<'_>,
    usual: &Condition,
    place: &Place,
    over: &str,
    under: &str,
) -> Option<BTreeMap<u64, f64>> {
    let over = desk.values(usual, over, place, p90);
    let under = desk.values(usual, under, place, p90);
    let pairs = over.iter().filter_map(|(seed, a)| {
        let b = under.get(seed)?;
        (*b > 0.0).then_some((*seed, a / b))
    });
    Some(pairs.collect())
}

/// The geometric mean over places of a ratio, seed by seed; seeds that lack a place are left out.
fn geometric(
    places: &[Place],
    of: impl Fn(&Place) -> Option<BTreeMap<u64, f64>>,
) -> Option<Interval> {
    let mut logs: BTreeMap<u64, (f64, usize)> = BTreeMap::new();
    for place in places {
        for (seed, ratio) in of(place)? {
            let sum = logs.entry(seed).or_default();
            sum.0 += ratio.ln();
            sum.1 += 1;
        }
    }
    let whole = logs.values().filter(|it| it.1 == places.len());
    let interval = Interval::of(whole.map(|it| (it.0 / places.len() as f64).exp()));
    (interval.count > 0).then_some(interval)
}

/// G3: against the best published policy of each cell.
pub(super) fn no_regret(
    desk: &Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    matrix: &[Place],
) -> Vec<Verdict> {
    let mut worst = Verdict::new(
        "G3a",
        "no regret: p90 TTFT / the best published, worst cell",
        Limit::AtMost(1.05),
        Unit::Times,
    );
    let mut missed: Vec<String> = Vec::new();
    let mut kindest: Option<(&Place, f64)> = None;
    for place in matrix {
        let Some(best) = desk.best(usual, scope.field(), place) else {
            continue;
        };
        let of = |policy: &str| desk.values(usual, policy, place, p90);
        let Some(here) = ratio(&of(OURS), &of(best)) else {
            continue;
        };
        if !worst.limit.holds(here.median) {
            missed.push(format!("{} {:.2} ({best})", place.name(), here.median));
        }
        if worst.measured.is_none_or(|it| here.median > it.median) {
            worst.measured = Some(here);
        }
        if kindest.is_none_or(|(_, least)| here.median < least) {
            kindest = Some((place, here.median));
        }
    }
    worst.note = format!(
        "{} of {} cells keep it",
        matrix.len() - missed.len(),
        matrix.len()
    );
    if !missed.is_empty() {
        worst.note.push_str("; not: ");
        worst.note.push_str(&missed.join(", "));
    }
    let mut mean = Verdict::new(
        "G3b",
        "geometric mean over the matrix of p90 TTFT / the best published of each cell",
        Limit::AtMost(0.80),
        Unit::Times,
    );
    mean.measured = mean_of_best(desk, scope, usual, matrix).0;
    mean.published = steadiest(desk, scope, usual, matrix);
    mean.note = format!(
        "{} cells; beside it the single published policy with the least such mean",
        matrix.len()
    );
    // One cell far from all others moves a geometric mean.
    if let Some((kindest, _)) = kindest {
        let others: Vec<Place> = matrix.iter().filter(|it| *it != kindest).cloned().collect();
        if let (Some(without), _) = mean_of_best(desk, scope, usual, &others) {
            let name = kindest.name();
            mean.note
                .push_str(&format!("; without {name}: {:.2}", without.median));
        }
    }
    vec![worst, mean]
}

/// The one published policy with the least geometric mean over the matrix, by the best of each cell. Policies that left
/// the race somewhere have one seed there, which is why only that seed counts here.
fn steadiest(
    desk: &Desk<'_>,
    scope: &Scope,
    usual: &Condition,
    matrix: &[Place],
) -> Option<Published> {
    let means = scope.field().iter().filter_map(|policy| {
        let mean = geometric(matrix, |place| {
            let best = desk.best(usual, scope.field(), place)?;
            let first = scope.seeds.iter().take(1);
            let pairs = paired(desk, usual, place, policy, best)?;
            Some(
                first
                    .filter_map(|seed| Some((*seed, *pairs.get(seed)?)))
                    .collect(),
            )
        })?;
        Some(published(policy, mean))
    });
    means.min_by(|a, b| a.value.median.total_cmp(&b.value.median))
}

/// G8: past the knee, the warm-up's backlog carried over.
pub(super) fn past_the_knee(
    desk: &mut Desk<'_>,
    scope: &Scope,
    usual: &Condition,
) -> Result<Vec<Verdict>, LabError> {
    let mut verdicts = Vec::new();
    for load in [12.0, 14.0] {
        let places = [Place::new("b2b", load, &format!("{load} QPS"))];
        desk.run(
            "past the knee",
            usual,
            &[OURS, GAIE_LRU],
            &places,
            &scope.seeds,
        )?;
        let mut verdict = Verdict::new(
            "G8",
            &format!("b2b {load} QPS, backlog carried over: p90 TTFT / GAIE + no-hit-LRU"),
            Limit::AtMost(1.0),
            Unit::Times,
        );
        let of = |policy: &str| desk.values(usual, policy, &places[0], p90);
        verdict.measured = ratio(&of(OURS), &of(GAIE_LRU));
        verdict.note = format!(
            "p90 {:.2} s against {:.2} s",
            desk.p90(usual, OURS, &places[0]),
            desk.p90(usual, GAIE_LRU, &places[0])
        );
        verdicts.push(verdict);
    }
    Ok(verdicts)
}
