//! Numbers of a run, and numbers over runs.
//!
//! A run gives one [`Summary`]. Every measured job counts: one that got no first token, refused ones included, counts
//! with the time from its arrival to the end of the run, so no policy looks better by not serving. Percentiles
//! interpolate linearly between the two nearest ranks.
//!
//! A single run near a knee is noise, so runs are repeated with other seeds:
//! - [`Interval`]: the median and an interval for it between order statistics, which needs no assumption about the
//!   distribution (with `k` the largest number such that a fair coin shows fewer than `k` heads in `n` throws with a
//!   chance of at most 2.5 %, the interval between the `k`-th smallest and the `k`-th largest value holds the median in
//!   at least 95 % of all cases). Five values give no such `k`; their range holds the median in 93.75 %, and
//!   [`Interval::coverage`] says so.
//! - [`PairedRatio`]: policies meet the same jobs seed by seed, so their ratios are taken seed by seed: geometric mean,
//!   and Student's interval of the mean logarithm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{End, JobOutcome, RunOutcome, Sample};

/// Where the values of a quantity lie.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// How many there are. With none everything else is 0.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Half of them are below.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// The distribution of `values`; those that are not finite are left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().filter(|it| it.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            count: sorted.len() as u64,
            mean: mean(&sorted),
            p50: quantile(&sorted, 0.5),
            p90: quantile(&sorted, 0.9),
            p99: quantile(&sorted, 0.99),
            max: sorted.last().copied().unwrap_or(0.0),
        }
    }
}

/// The quantile `q` (0 to 1) of ascending values; 0 of none.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = values.iter().map(|it| (it - mean).powi(2));
    squares.sum::<f64>() / values.len().max(1) as f64
}

/// Jain's index of fairness (Jain, Chiu, Hawe 1984): 1 when all are equal, 1/n when one has everything.
#[must_use]
pub fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|it| it * it).sum();
    if squares > 0.0 {
        sum * sum / (values.len() as f64 * squares)
    } else {
        1.0
    }
}

/// What is good enough for a request to count as served well.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Seconds to the first token.
    pub ttft: f64,
    /// Seconds a token after it.
    pub tpot: f64,
}

impl Default for Slo {
    fn default() -> Self {
        Self {
            ttft: 2.0,
            tpot: 0.1,
        }
    }
}

/// One class of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Critical 1, Standard 0, Sheddable -1.
    pub priority: i32,
    /// Its jobs.
    pub jobs: u64,
    /// Of them refused.
    pub shed: u64,
    /// Seconds to the first token.
    pub ttft: Distribution,
}

/// One run in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the policy.
    pub policy: String,
    /// Name of the workload.
    pub workload: String,
    /// Load.
    pub load: f64,
    /// Seed.
    pub seed: u64,
    /// Measured jobs.
    pub jobs: u64,
    /// Of them refused.
    pub shed: u64,
    /// Of them without an outcome when the run was over.
    pub unfinished: u64,
    /// Of them cut or never answered because an engine failed.
    #[serde(default)]
    pub failed: u64,
    /// Seconds that those waited or were served.
    pub unfinished_seconds: f64,
    /// Seconds to the first token.
    pub ttft: Distribution,
    /// Seconds a token after the first, of answers with at least two.
    pub tpot: Distribution,
    /// Seconds to the last token.
    pub e2e: Distribution,
    /// Seconds to the last token by tokens of the answer (normalised time per token).
    pub per_token: Distribution,
    /// Share of prompt tokens found in the engines' caches.
    pub hit_ratio: f64,
    /// Share of jobs that met the objective.
    pub slo_share: f64,
    /// Finished jobs a second of the measured window.
    pub throughput: f64,
    /// Tokens of answers a second of it.
    pub output_rate: f64,
    /// Busy share of the engines, mean over engines.
    pub utilisation: f64,
    /// Variance of that over engines.
    pub utilisation_variance: f64,
    /// The busiest engine by the mean.
    pub max_over_mean: f64,
    /// Jain's index of the engines' busy time.
    pub jain_engines: f64,
    /// Jain's index over tenants of the share of their tokens that was served.
    pub jain_flows: f64,
    /// The worst tenant's mean time to first token by that of all.
    pub worst_flow: f64,
    /// Share of KV space in use, mean over engines and time.
    pub kv_usage: f64,
    /// Variance of that over engines, mean over time.
    pub kv_variance: f64,
    /// Requests waiting in gateways, mean over time.
    pub queued: f64,
    /// Preemptions in the engines, warm-up included.
    pub preemptions: u64,
    /// Adapter loads in the engines, warm-up included.
    pub adapter_loads: u64,
    /// Senseless placements of the dispatcher.
    pub misplaced: u64,
    /// Placements on engines that were gone.
    #[serde(default)]
    pub dead_picks: u64,
    /// Jobs that went on to another engine after one failed them.
    #[serde(default)]
    pub retries: u64,
    /// Each class, when there is more than one.
    pub classes: Vec<Class>,
    /// Virtual seconds a real one.
    pub speed: f64,
}

impl Summary {
    /// The run in numbers.
    #[must_use]
    pub fn of(run: &RunOutcome, slo: Slo) -> Self {
        let jobs = &run.jobs;
        let seconds = (run.window[1] - run.window[0]).max(f64::MIN_POSITIVE);
        let busy: Vec<f64> = run.busy.iter().map(|it| it / seconds).collect();
        let utilisation = mean(&busy);
        let most = busy.iter().copied().fold(0.0, f64::max);
        let finished = || jobs.iter().filter(|job| job.end == End::Finished);
        let prompt: u64 = finished().map(|job| u64::from(job.prompt_tokens)).sum();
        let cached: u64 = finished().map(|job| u64::from(job.cached_tokens)).sum();
        let output: u64 = finished().map(|job| u64::from(job.output_tokens)).sum();
        let unfinished = || jobs.iter().filter(|job| job.end == End::Unfinished);
        let good = finished().filter(|job| job.ttft <= slo.ttft && job.tpot <= slo.tpot);
        let (kv_usage, kv_variance, queued) = memory(&run.samples, run.window);
        let (jain_flows, worst_flow) = flows(jobs);
        let told = jobs.iter().filter(|job| job.output_tokens > 1);
        Self {
            policy: run.policy.clone(),
            workload: run.workload.clone(),
            load: run.load,
            seed: run.seed,
            jobs: jobs.len() as u64,
            shed: count(jobs, End::Shed),
            unfinished: count(jobs, End::Unfinished),
            failed: count(jobs, End::Failed),
            unfinished_seconds: unfinished().map(|job| job.e2e).sum(),
            ttft: Distribution::of(jobs.iter().map(|job| job.ttft)),
            tpot: Distribution::of(told.map(|job| job.tpot)),
            e2e: Distribution::of(jobs.iter().map(|job| job.e2e)),
            per_token: Distribution::of(jobs.iter().map(per_token)),
            hit_ratio: cached as f64 / prompt.max(1) as f64,
            slo_share: good.count() as f64 / jobs.len().max(1) as f64,
            throughput: finished().count() as f64 / seconds,
            output_rate: output as f64 / seconds,
            utilisation,
            utilisation_variance: variance(&busy),
            max_over_mean: if utilisation > 0.0 {
                most / utilisation
            } else {
                1.0
            },
            jain_engines: jain(&busy),
            jain_flows,
            worst_flow,
            kv_usage,
            kv_variance,
            queued,
            preemptions: run.preemptions,
            adapter_loads: run.adapter_loads,
            misplaced: run.misplaced,
            dead_picks: run.dead_picks,
            retries: run.retries,
            classes: classes(jobs),
            speed: run.virtual_seconds / run.real_seconds.max(1e-9),
        }
    }
}

fn count(jobs: &[JobOutcome], end: End) -> u64 {
    jobs.iter().filter(|job| job.end == end).count() as u64
}

fn per_token(job: &JobOutcome) -> f64 {
    job.e2e / f64::from(job.output_tokens.max(1))
}

/// KV use and its variance over engines, and requests queued in gateways; means over the window.
fn memory(samples: &[Sample], window: [f64; 2]) -> (f64, f64, f64) {
    let mut sums = (0.0, 0.0, 0.0);
    let mut count = 0.0_f64;
    for sample in samples {
        if sample.at < window[0] || sample.at > window[1] {
            continue;
        }
        let usage: Vec<f64> = sample.kv_usage.iter().map(|it| f64::from(*it)).collect();
        sums.0 += mean(&usage);
        sums.1 += variance(&usage);
        sums.2 += f64::from(sample.queued);
        count += 1.0;
    }
    let count = count.max(1.0);
    (sums.0 / count, sums.1 / count, sums.2 / count)
}

/// Fairness between tenants: Jain's index of the share of asked tokens that was served, and the worst tenant's mean
/// time to first token by everybody's.
fn flows(jobs: &[JobOutcome]) -> (f64, f64) {
    let mut flows: BTreeMap<u64, (f64, f64, f64, f64)> = BTreeMap::new();
    for job in jobs {
        let tokens = f64::from(job.prompt_tokens);
        let flow = flows.entry(job.flow).or_default();
        flow.0 += tokens;
        flow.1 += if job.end == End::Finished {
            tokens
        } else {
            0.0
        };
        flow.2 += job.ttft;
        flow.3 += 1.0;
    }
    let shares: Vec<f64> = flows.values().map(|it| it.1 / it.0.max(1.0)).collect();
    let all = jobs.iter().map(|job| job.ttft).sum::<f64>() / jobs.len().max(1) as f64;
    let worst = flows.values().map(|it| it.2 / it.3).fold(0.0, f64::max);
    (jain(&shares), if all > 0.0 { worst / all } else { 1.0 })
}

fn classes(jobs: &[JobOutcome]) -> Vec<Class> {
    let mut by_priority: BTreeMap<i32, Vec<JobOutcome>> = BTreeMap::new();
    for job in jobs {
        by_priority.entry(job.priority).or_default().push(*job);
    }
    if by_priority.len() < 2 {
        return Vec::new();
    }
    let class = |(priority, jobs): (i32, Vec<JobOutcome>)| Class {
        priority,
        jobs: jobs.len() as u64,
        shed: count(&jobs, End::Shed),
        ttft: Distribution::of(jobs.iter().map(|job| job.ttft)),
    };
    by_priority.into_iter().rev().map(class).collect()
}

/// A median over seeds and where it may lie.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Interval {
    /// The median.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Chance that the ends hold the true median.
    pub coverage: f64,
    /// Values.
    pub count: usize,
}

impl Interval {
    /// The interval of 95 %, or the range with what it covers when there are too few values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().filter(|it| it.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        if count == 0 {
            return Self::default();
        }
        let (rank, tail) = order_rank(count);
        Self {
            median: quantile(&sorted, 0.5),
            low: sorted[rank],
            high: sorted[count - 1 - rank],
            coverage: (1.0 - 2.0 * tail).max(0.0),
            count,
        }
    }
}

/// The rank (from 0) of the interval's lower end among `count` values, and the chance that the median is below it.
fn order_rank(count: usize) -> (usize, f64) {
    let mut probability = 0.5_f64.powi(count as i32);
    let mut tail = probability;
    let mut rank = 0;
    loop {
        // The chance of at most `rank + 1` heads.
        probability *= (count - rank) as f64 / (rank + 1) as f64;
        if tail + probability > 0.025 || 2 * (rank + 1) >= count {
            return (rank, tail);
        }
        tail += probability;
        rank += 1;
    }
}

/// How one policy compares with another over the same seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedRatio {
    /// Geometric mean of the ratios.
    pub ratio: f64,
    /// Lower end of the 95 % interval; the ratio itself with a single pair.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs.
    pub count: usize,
}

impl PairedRatio {
    /// Of pairs (numerator, denominator); those with a value that is not positive are left out. `None` without pairs.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let positive = |it: &(f64, f64)| it.0 > 0.0 && it.1 > 0.0;
        let logs: Vec<f64> = pairs
            .into_iter()
            .filter(positive)
            .map(|(over, under)| (over / under).ln())
            .collect();
        let count = logs.len();
        if count == 0 {
            return None;
        }
        let centre = mean(&logs);
        let spread = match count {
            1 => 0.0,
            _ => {
                let freedom = (count - 1) as f64;
                student(count - 1) * (variance(&logs) / freedom).sqrt()
            }
        };
        Some(Self {
            ratio: centre.exp(),
            low: (centre - spread).exp(),
            high: (centre + spread).exp(),
            count,
        })
    }
}

/// The two-sided 95 % quantile of Student's t distribution.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    match TABLE.get(freedom.saturating_sub(1)) {
        Some(quantile) => *quantile,
        // Within half a percent of the table's continuation.
        None => 1.96 + 2.5 / freedom as f64,
    }
}

/// The geometric mean of positive values; `None` of none.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = values
        .into_iter()
        .filter(|it| *it > 0.0)
        .map(f64::ln)
        .collect();
    (!logs.is_empty()).then(|| mean(&logs).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [1.0, 2.0, 3.0, 4.0];
        for (q, value) in [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0)] {
            assert!((quantile(&values, q) - value).abs() < 1e-12, "{q}");
        }
        assert_eq!(quantile(&[], 0.9), 0.0);
        let with_junk = Distribution::of([f64::NAN, 3.0, f64::INFINITY, 1.0]);
        assert_eq!((with_junk.count, with_junk.mean), (2, 2.0));
    }

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // Ranks from tables of the sign test: n = 8 gives the range, 9 the second smallest, 20 the sixth.
        for (count, rank) in [
            (1, 0),
            (5, 0),
            (6, 0),
            (8, 0),
            (9, 1),
            (16, 3),
            (20, 5),
            (25, 7),
        ] {
            let interval = Interval::of((0..count).map(f64::from));
            assert_eq!(interval.low, f64::from(rank), "{count}");
            assert_eq!(interval.high, f64::from(count - 1 - rank), "{count}");
        }
        assert!((Interval::of([1.0, 2.0, 3.0, 4.0, 5.0]).coverage - 0.9375).abs() < 1e-12);
        assert!(Interval::of((0..9).map(f64::from)).coverage >= 0.95);
    }

    #[test]
    fn paired_ratios_cancel_what_both_share() {
        let pairs = [(2.0, 1.0), (20.0, 10.0), (200.0, 100.0)];
        let ratio = PairedRatio::of(pairs).unwrap();
        assert!((ratio.ratio - 2.0).abs() < 1e-12 && (ratio.high - ratio.low).abs() < 1e-9);
        let ratio = PairedRatio::of([(1.0, 2.0), (2.0, 1.0)]).unwrap();
        assert!((ratio.ratio - 1.0).abs() < 1e-12 && ratio.low < 0.5 && ratio.high > 2.0);
        assert_eq!(PairedRatio::of([(0.0, 1.0)]), None);
    }

    #[test]
    fn jain_knows_equal_from_unequal() {
        assert!((jain(&[3.0, 3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
        assert_eq!(jain(&[]), 1.0);
    }

    #[test]
    fn unserved_jobs_count_with_the_time_they_waited() {
        let job = |end, ttft| JobOutcome {
            id: 0,
            at: 0.0,
            ttft,
            tpot: 0.01,
            e2e: ttft + 1.0,
            end,
            engine: None,
            prompt_tokens: 100,
            cached_tokens: 50,
            output_tokens: 10,
            priority: i32::from(end == End::Shed),
            flow: 0,
        };
        let run = RunOutcome {
            policy: String::new(),
            workload: String::new(),
            load: 1.0,
            seed: 1,
            virtual_seconds: 10.0,
            real_seconds: 1.0,
            jobs: vec![
                job(End::Finished, 1.0),
                job(End::Shed, 9.0),
                job(End::Unfinished, 8.0),
            ],
            preemptions: 0,
            adapter_loads: 0,
            busy: vec![2.0, 6.0],
            samples: Vec::new(),
            window: [2.0, 10.0],
            misplaced: 0,
            dead_picks: 0,
            retries: 0,
        };
        let summary = Summary::of(&run, Slo::default());
        assert_eq!((summary.shed, summary.unfinished), (1, 1));
        assert_eq!((summary.ttft.p50, summary.ttft.max), (8.0, 9.0));
        assert!((summary.slo_share - 1.0 / 3.0).abs() < 1e-12);
        assert!((summary.hit_ratio - 0.5).abs() < 1e-12);
        assert!((summary.utilisation - 0.5).abs() < 1e-12);
        assert!((summary.max_over_mean - 1.5).abs() < 1e-12);
        assert_eq!(summary.classes.len(), 2);
    }
}
