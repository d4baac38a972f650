//! From figures to rows: medians over the seeds, ratios paired by seed, and whether a goal is met.
//!
//! A goal against round robin is judged by the median of the ratios, each between two runs of the same seed. The
//! range of five such ratios holds the true median with a probability of 1 - 2/2^5 = 94 %. A run in which a request
//! failed meets no goal.

use serde::Serialize;

use crate::fleet::cell::Figures;
use crate::fleet::scenario::{Policy, Scenario};
use crate::spread::Spread;

/// The limit that a measure must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// The median over the seeds is at least this.
    AtLeast(f64),
    /// The median over the seeds is at most this.
    AtMost(f64),
    /// The median of the paired ratios to round robin is at most this.
    OfRoundRobin(f64),
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A share, as percent.
    Percent,
    /// Milliseconds.
    Millis,
    /// A number.
    Plain,
}

/// Something that is read from a run's figures.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name in the table.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// What must hold of it.
    pub goal: Option<Goal>,
    of: fn(&Figures) -> f64,
}

impl Measure {
    /// Share of prompt tokens found in caches.
    pub const HIT: Self = Self::new("token hit ratio", Unit::Percent, |f| f.hit_ratio);
    /// The same as a share of the best possible.
    pub const HIT_OF_BEST: Self = Self::new("… of the best possible", Unit::Percent, |f| {
        f.best_hit_ratio.map_or(f64::NAN, |best| f.hit_ratio / best)
    });
    /// Requests of the busiest server over the mean.
    pub const SKEW: Self = Self::new("requests, max/mean", Unit::Plain, |f| {
        skew(&f.requests_by_server)
    });
    /// Prompt tokens computed by the busiest server over the mean.
    pub const WORK_SKEW: Self = Self::new("prefill tokens, max/mean", Unit::Plain, |f| {
        skew(&f.computed_by_server)
    });
    /// Requests of the idlest server.
    pub const FEWEST: Self = Self::new("fewest requests on a server", Unit::Plain, |f| {
        f.requests_by_server
            .iter()
            .copied()
            .fold(f64::NAN, f64::min)
    });
    /// Different adapters that ran on a server, mean over the servers.
    pub const ADAPTERS: Self = Self::new("adapters run per server", Unit::Plain, |f| {
        mean(&f.adapters_by_server)
    });
    /// Median time to the first token.
    pub const TTFT_P50: Self = Self::new("TTFT p50", Unit::Millis, |f| f.ttft_ms[0]);
    /// 90th percentile of the time to the first token.
    pub const TTFT_P90: Self = Self::new("TTFT p90", Unit::Millis, |f| f.ttft_ms[1]);
    /// 99th percentile of the time to the first token.
    pub const TTFT_P99: Self = Self::new("TTFT p99", Unit::Millis, |f| f.ttft_ms[2]);

    const fn new(name: &'static str, unit: Unit, of: fn(&Figures) -> f64) -> Self {
        Self {
            name,
            unit,
            goal: None,
            of,
        }
    }

    /// The measure with a goal.
    #[must_use]
    pub const fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The greatest value over the mean; 1 is even.
fn skew(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max) / mean(values)
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: Scenario,
    /// The measure.
    pub measure: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Values of each policy over the seeds, in the order of [`Policy::ALL`].
    pub values: [Option<Spread>; 3],
    /// Ratios of Pointsman to round robin, paired by seed.
    pub ratio: Option<Spread>,
    /// What must hold.
    pub goal: Option<Goal>,
    /// Whether it does; none without a goal, or where Pointsman was not measured.
    pub passed: Option<bool>,
}

/// The rows of a scenario from all its runs.
#[must_use]
pub fn rows(scenario: Scenario, figures: &[Figures]) -> Vec<Row> {
    let row = |measure: Measure| row(scenario, measure, figures);
    scenario.measures().into_iter().map(row).collect()
}

fn row(scenario: Scenario, measure: Measure, figures: &[Figures]) -> Row {
    let of = |policy| figures.iter().filter(move |f| f.policy == policy);
    let values = Policy::ALL.map(|policy| Spread::of(of(policy).map(measure.of)));
    let pair = |own: &Figures| {
        let base = of(Policy::RoundRobin).find(|base| base.seed == own.seed)?;
        Some((measure.of)(own) / (measure.of)(base))
    };
    let ratio = Spread::of(of(Policy::ExpectedCost).filter_map(pair));
    let failed = of(Policy::ExpectedCost).any(|f| f.errors > 0);
    let met = |goal| match goal {
        Goal::AtLeast(least) => values[0].map(|v| v.median >= least),
        Goal::AtMost(most) => values[0].map(|v| v.median <= most),
        Goal::OfRoundRobin(most) => ratio.map(|r| r.median <= most),
    };
    Row {
        scenario,
        measure: measure.name,
        unit: measure.unit,
        values,
        ratio,
        goal: measure.goal,
        passed: measure.goal.and_then(met).map(|met| met && !failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(policy: Policy, seed: u64, p90: f64) -> Figures {
        Figures {
            policy,
            seed,
            requests: 10,
            errors: 0,
            first_error: None,
            seconds: 1.0,
            ttft_ms: [1.0, p90, 100.0],
            whole_ms: [0.0; 3],
            late_p99_ms: 0.0,
            hit_ratio: 0.8,
            best_hit_ratio: Some(0.9),
            requests_by_server: vec![4.0, 2.0, 3.0, 3.0],
            computed_by_server: vec![8.0, 0.0],
            adapters_by_server: vec![2.0, 4.0],
        }
    }

    fn p90_row(own: &[f64], base: &[f64]) -> Row {
        let with = |policy, p90: &[f64]| -> Vec<Figures> {
            let one = |(seed, &p90): (usize, &f64)| figures(policy, seed as u64, p90);
            p90.iter().enumerate().map(one).collect()
        };
        let all = [
            with(Policy::ExpectedCost, own),
            with(Policy::RoundRobin, base),
        ]
        .concat();
        let mut rows = rows(Scenario::ShareGptLike, &all);
        rows.swap_remove(1)
    }

    #[test]
    fn ratios_are_paired_by_seed() {
        let row = p90_row(&[10.0, 40.0, 9.0], &[10.0, 20.0, 30.0]);
        let ratio = row.ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (1.0, 0.3, 2.0));
        assert_eq!((row.passed, row.values[2]), (Some(true), None));
        assert_eq!(p90_row(&[11.0], &[10.0]).passed, Some(false));
        assert_eq!(p90_row(&[], &[10.0]).passed, None);
        assert_eq!(p90_row(&[10.0], &[]).passed, None);
    }

    #[test]
    fn measures_read_their_figures() {
        let own = figures(Policy::ExpectedCost, 1, 5.0);
        for (measure, value) in [
            (Measure::HIT, 0.8),
            (Measure::HIT_OF_BEST, 0.8 / 0.9),
            (Measure::SKEW, 4.0 / 3.0),
            (Measure::WORK_SKEW, 2.0),
            (Measure::FEWEST, 2.0),
            (Measure::ADAPTERS, 3.0),
            (Measure::TTFT_P50, 1.0),
            (Measure::TTFT_P99, 100.0),
        ] {
            assert_eq!((measure.of)(&own), value, "{}", measure.name);
        }
    }

    #[test]
    fn limits_hold_for_the_median_and_without_failures() {
        let passed = |scenario, all: &[Figures]| {
            let rows = rows(scenario, all);
            rows.iter().filter_map(|r| r.passed).collect::<Vec<_>>()
        };
        let mut own = figures(Policy::ExpectedCost, 1, 5.0);
        own.requests_by_server = vec![16.0; 4];
        assert_eq!(passed(Scenario::Burst, &[own.clone()]), [true, true]);
        let mut uneven = own.clone();
        uneven.requests_by_server = vec![0.0, 64.0];
        assert_eq!(passed(Scenario::Burst, &[uneven]), [false, false]);
        own.errors = 1;
        assert_eq!(passed(Scenario::Burst, &[own]), [false, false]);
    }
}
