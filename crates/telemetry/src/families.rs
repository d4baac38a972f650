//! The types that families are made of, and their bucket bounds.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::owners::Owners;

/// A label set in the order it is printed.
pub(crate) type Labels = Vec<(&'static str, Arc<str>)>;
pub(crate) type FloatGauge = Gauge<f64, AtomicU64>;
pub(crate) type Counters = Family<Labels, Counter>;
pub(crate) type Gauges = Family<Labels, FloatGauge>;
pub(crate) type Histograms = Family<Labels, Histogram, Bounds>;

/// Upper bounds of a histogram's buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds(pub(crate) &'static [f64]);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Registers a family of counters. The name is given without `_total`, which the encoder puts on.
pub(crate) fn counters(registry: &mut Registry, name: impl Into<String>, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

/// Registers a family of gauges.
pub(crate) fn gauges(registry: &mut Registry, name: impl Into<String>, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

/// Registers a family of histograms.
pub(crate) fn histograms(
    registry: &mut Registry,
    name: impl Into<String>,
    help: &str,
    bounds: &'static [f64],
) -> Histograms {
    let family = Histograms::new_with_constructor(Bounds(bounds));
    registry.register(name, help, family.clone());
    family
}

/// The handle of one series.
pub(crate) fn histogram(family: &Histograms, labels: &Labels) -> Histogram {
    family.get_or_create(labels).clone()
}

/// The handle of one series.
pub(crate) fn counter(family: &Counters, labels: &Labels) -> Counter {
    family.get_or_create(labels).clone()
}

/// The handle of one series.
pub(crate) fn gauge(family: &Gauges, labels: &Labels) -> FloatGauge {
    family.get_or_create(labels).clone()
}

/// The labels and one more.
pub(crate) fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    labels
        .iter()
        .cloned()
        .chain([(name, value.into())])
        .collect()
}

/// A counter that goes with its owner.
pub(crate) fn owned(
    family: &Counters,
    labels: Labels,
    pool: &Arc<str>,
    endpoint: &Arc<str>,
    owners: &Owners,
) -> Counter {
    if let Some(known) = family.get(&labels) {
        return known.clone();
    }
    let made = counter(family, &labels);
    let family = family.clone();
    owners.keep(pool, endpoint, move || family.remove(&labels));
    made
}

/// A histogram that goes with its pool.
pub(crate) fn owned_histogram(
    family: &Histograms,
    labels: Labels,
    pool: &Arc<str>,
    owners: &Owners,
) -> Histogram {
    if let Some(known) = family.get(&labels) {
        return known.clone();
    }
    let made = histogram(family, &labels);
    let family = family.clone();
    owners.keep(pool, &Arc::from(""), move || family.remove(&labels));
    made
}

/// Seconds of whole requests: 5 ms to an hour.
pub(crate) const LATENCY: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
/// Seconds per output token: half a millisecond to six minutes.
pub(crate) const PER_TOKEN: &[f64] = &[
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0, 12.0, 18.0, 24.0, 30.0, 36.0, 48.0, 60.0, 90.0, 120.0,
    180.0, 270.0, 360.0,
];
/// Seconds of a whole request divided by its output tokens.
pub(crate) const NORMALIZED: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
/// Seconds until the first token, llm-d.
pub(crate) const FIRST_TOKEN: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0,
    30.0, 60.0, 120.0,
];
/// Seconds between tokens, llm-d.
pub(crate) const BETWEEN_TOKENS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
    1.0, 2.0,
];
/// Bytes, 64 to 1 GiB by doubling.
pub(crate) const SIZES: &[f64] = &[
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
    2_097_152.0,
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
];
/// Bytes of answers, llm-d.
pub(crate) const SMALL_SIZES: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
    32768.0, 65536.0,
];
/// Prompt tokens, 1 to 1 Mi.
pub(crate) const PROMPT_TOKENS: &[f64] = &[
    1.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];
/// Generated tokens.
pub(crate) const OUTPUT_TOKENS: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];
/// Seconds of a decision: 100 us to 100 ms.
pub(crate) const DECISION: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
];
/// Seconds of waiting in our queue: 100 us to a minute.
pub(crate) const QUEUE: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 30.0, 60.0,
];
/// Seen by predicted.
pub(crate) const CALIBRATION: &[f64] = &[
    0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0,
];
/// A share.
pub(crate) const RATIO: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// OpenTelemetry GenAI conventions v1.41: durations, 10 ms doubling to 81.92 s.
pub(crate) const GENAI_DURATION: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// The same: time to first token; extended to a minute, as gateways in the field do.
pub(crate) const GENAI_FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 30.0, 45.0, 60.0,
];
/// The same: time per output token; with 1 ms in front, since fast servers fall below the first bucket.
pub(crate) const GENAI_PER_TOKEN: &[f64] = &[
    0.001, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];
/// The same: tokens, powers of four.
pub(crate) const GENAI_TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
