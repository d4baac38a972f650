//! Results gathered over seeds: a group for each workload and load, a row in it for each policy.

use crate::compare::{BOUNDS, Results};
use crate::stats::{Interval, PairedRatio, Summary};

/// All policies on one workload at one load.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The workload.
    pub workload: String,
    /// The load.
    pub load: f64,
    /// A row for each policy, in the plan's order; bounds first.
    pub rows: Vec<Row>,
}

/// One policy on one workload at one load, over seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The policy.
    pub policy: String,
    /// Whether it is a bound and not a policy.
    pub is_bound: bool,
    /// Seconds to first token.
    pub ttft_p50: Interval,
    /// Seconds to first token.
    pub ttft_p90: Interval,
    /// Seconds to first token.
    pub ttft_p99: Interval,
    /// Seconds a token.
    pub tpot_p90: Interval,
    /// Seconds to the last token.
    pub e2e_p90: Interval,
    /// Share of prompt tokens found cached.
    pub hit_ratio: Interval,
    /// Share of jobs within the objective.
    pub slo_share: Interval,
    /// Busy share of the engines.
    pub utilisation: Interval,
    /// Busiest engine by the mean.
    pub max_over_mean: Interval,
    /// Share of KV space in use.
    pub kv_usage: Interval,
    /// Its variance over engines.
    pub kv_variance: Interval,
    /// Jain's index over tenants.
    pub jain_flows: Interval,
    /// Preemptions.
    pub preemptions: Interval,
    /// Jobs refused or unfinished.
    pub lost: Interval,
    /// p90 of the time to first token by that of the pooled bound, the better of its orders, seed by seed.
    pub to_bound: Option<PairedRatio>,
    /// The same by that of the best *other* policy of the group (the one with the least median).
    pub to_best: Option<PairedRatio>,
}

/// Gathers results over seeds, in the order in which workloads and loads first come.
#[must_use]
pub fn groups(results: &Results) -> Vec<Group> {
    let mut keys: Vec<(&str, f64)> = Vec::new();
    for cell in &results.cells {
        let key = (cell.summary.workload.as_str(), cell.summary.load);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter()
        .map(|(workload, load)| {
            let all = results.cells.iter().map(|cell| &cell.summary);
            let here = all.filter(|it| it.workload == workload && it.load == load);
            group(workload, load, &here.collect::<Vec<_>>())
        })
        .collect()
}

fn is_bound(policy: &str) -> bool {
    BOUNDS.iter().any(|(name, _)| *name == policy)
}

fn group(workload: &str, load: f64, summaries: &[&Summary]) -> Group {
    let mut policies: Vec<&str> = Vec::new();
    for summary in summaries {
        if !policies.contains(&summary.policy.as_str()) {
            policies.push(&summary.policy);
        }
    }
    let of = |policy: &str| -> Vec<&Summary> {
        let own = summaries.iter().filter(|it| it.policy == policy);
        own.copied().collect()
    };
    let median = |policy: &str| Interval::of(of(policy).iter().map(|it| it.ttft.p90)).median;
    let best_but = |own: &str| {
        let others = policies.iter().filter(|it| **it != own && !is_bound(it));
        others
            .min_by(|a, b| median(a).total_cmp(&median(b)))
            .copied()
    };
    let rows = policies.iter().map(|policy| {
        let own = of(policy);
        let to_bound = PairedRatio::of(own.iter().filter_map(|it| {
            let bounds = summaries
                .iter()
                .filter(|b| b.seed == it.seed && is_bound(&b.policy));
            let least = bounds.map(|b| b.ttft.p90).min_by(f64::total_cmp)?;
            Some((it.ttft.p90, least))
        }));
        let best = best_but(policy).map(of).unwrap_or_default();
        let to_best = PairedRatio::of(own.iter().filter_map(|it| {
            let other = best.iter().find(|b| b.seed == it.seed)?;
            Some((it.ttft.p90, other.ttft.p90))
        }));
        let bound = is_bound(policy);
        row(
            policy,
            &own,
            to_bound.filter(|_| !bound),
            to_best.filter(|_| !bound),
        )
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by_key(|row| !row.is_bound);
    Group {
        workload: workload.to_owned(),
        load,
        rows,
    }
}

fn row(
    policy: &str,
    own: &[&Summary],
    to_bound: Option<PairedRatio>,
    to_best: Option<PairedRatio>,
) -> Row {
    let over = |value: fn(&Summary) -> f64| Interval::of(own.iter().map(|it| value(it)));
    Row {
        policy: policy.to_owned(),
        is_bound: is_bound(policy),
        ttft_p50: over(|it| it.ttft.p50),
        ttft_p90: over(|it| it.ttft.p90),
        ttft_p99: over(|it| it.ttft.p99),
        tpot_p90: over(|it| it.tpot.p90),
        e2e_p90: over(|it| it.e2e.p90),
        hit_ratio: over(|it| it.hit_ratio),
        slo_share: over(|it| it.slo_share),
        utilisation: over(|it| it.utilisation),
        max_over_mean: over(|it| it.max_over_mean),
        kv_usage: over(|it| it.kv_usage),
        kv_variance: over(|it| it.kv_variance),
        jain_flows: over(|it| it.jain_flows),
        preemptions: over(|it| it.preemptions as f64),
        lost: over(|it| (it.shed + it.unfinished + it.failed) as f64),
        to_bound,
        to_best,
    }
}
