//! vLLM's metrics page.
//!
//! Names, labels, bucket bounds and the `_created` companions are those of vLLM 0.32, in the order of its page. What
//! the simulator has no value for (external caches, multi-modal caches, FLOP estimates) stands at zero, because
//! dashboards expect the series.

mod page;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use page::render;

const TOKENS: &[f64] = &[1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 2000.];
const ITERATION: &[f64] = &[
    1., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192., 16384.,
];
const PARAM_N: &[f64] = &[1., 2., 5., 10., 20.];
const PREEMPTIONS: &[f64] = &[1., 2., 3., 4., 5., 10., 20.];
#[rustfmt::skip]
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1., 2.5, 5., 7.5, 10., 20., 40., 80., 160., 640.,
    2560.,
];
#[rustfmt::skip]
const ITL: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1., 2.5, 5., 7.5, 10., 20., 40., 80.,
];
#[rustfmt::skip]
const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1., 1.5, 2., 2.5, 5., 10., 15., 20., 30., 40., 50., 60., 120., 240., 480., 960., 1920., 7680.,
];
/// Label sets of `lora_requests_info` that are kept; vLLM keeps all.
const LORA_SERIES: usize = 512;

/// A histogram with fixed bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            sum: 0.0,
            count: 0,
        }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
        self.count += 1;
    }
}

/// How a request ended, as `request_success` counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finished {
    pub(crate) stop: u64,
    pub(crate) length: u64,
    pub(crate) abort: u64,
}

/// What a request did, for its histograms. Seconds are those of an outside clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRecord {
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) generated: u32,
    pub(crate) max_tokens: u32,
    pub(crate) choices: u32,
    pub(crate) preemptions: u32,
    pub(crate) e2e: f64,
    pub(crate) queue: f64,
    pub(crate) first_token: f64,
}

/// Counters and histograms beyond what the engine counts itself.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) created: f64,
    pub(crate) finished: Finished,
    pub(crate) rejected: u64,
    pub(crate) prompt_tokens_cached: u64,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) iteration_tokens: Histogram,
    time_per_output_token: Histogram,
    e2e: Histogram,
    queue: Histogram,
    inference: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    max_generation_tokens: Histogram,
    params_n: Histogram,
    params_max_tokens: Histogram,
    preemptions: Histogram,
    kv_computed: Histogram,
    lora: Vec<LoraSeries>,
    http: BTreeMap<(&'static str, String, u16), u64>,
}

#[derive(Debug)]
struct LoraSeries {
    running: String,
    waiting: String,
    updated: f64,
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            created: unix_seconds(),
            finished: Finished::default(),
            rejected: 0,
            prompt_tokens_cached: 0,
            time_to_first_token: Histogram::new(TTFT),
            inter_token_latency: Histogram::new(ITL),
            iteration_tokens: Histogram::new(ITERATION),
            time_per_output_token: Histogram::new(ITL),
            e2e: Histogram::new(LATENCY),
            queue: Histogram::new(LATENCY),
            inference: Histogram::new(LATENCY),
            prefill: Histogram::new(LATENCY),
            decode: Histogram::new(LATENCY),
            prompt_tokens: Histogram::new(TOKENS),
            generation_tokens: Histogram::new(TOKENS),
            max_generation_tokens: Histogram::new(TOKENS),
            params_n: Histogram::new(PARAM_N),
            params_max_tokens: Histogram::new(TOKENS),
            preemptions: Histogram::new(PREEMPTIONS),
            kv_computed: Histogram::new(TOKENS),
            lora: Vec::new(),
            http: BTreeMap::new(),
        }
    }

    /// Books a request that ended by itself.
    pub(crate) fn finish(&mut self, request: &RequestRecord) {
        let inference = (request.e2e - request.queue).max(0.0);
        let decode = (request.e2e - request.first_token).max(0.0);
        self.prompt_tokens.observe(f64::from(request.prompt_tokens));
        self.generation_tokens.observe(f64::from(request.generated));
        self.max_generation_tokens
            .observe(f64::from(request.max_tokens));
        self.params_max_tokens
            .observe(f64::from(request.max_tokens));
        self.params_n.observe(f64::from(request.choices));
        self.preemptions.observe(f64::from(request.preemptions));
        self.kv_computed
            .observe(f64::from(request.prompt_tokens - request.cached_tokens));
        self.e2e.observe(request.e2e);
        self.queue.observe(request.queue);
        self.inference.observe(inference);
        self.prefill
            .observe((request.first_token - request.queue).max(0.0));
        self.decode.observe(decode);
        if request.generated > 1 {
            self.time_per_output_token
                .observe(decode / f64::from(request.generated - 1));
        }
    }

    /// Books the adapters in use; a label set that was there before gets a new time.
    pub(crate) fn adapters(&mut self, running: &str, waiting: &str) {
        let updated = unix_seconds();
        let known = self
            .lora
            .iter_mut()
            .find(|series| series.running == running && series.waiting == waiting);
        if let Some(series) = known {
            series.updated = updated;
            return;
        }
        if self.lora.len() == LORA_SERIES {
            self.lora.remove(0);
        }
        self.lora.push(LoraSeries {
            running: running.to_owned(),
            waiting: waiting.to_owned(),
            updated,
        });
    }

    /// Books an answered HTTP request.
    pub(crate) fn http(&mut self, handler: &'static str, method: &http::Method, status: u16) {
        *self
            .http
            .entry((handler, method.to_string(), status / 100))
            .or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::new(PARAM_N);
        for value in [0.5, 1.0, 1.5, 20.0, 21.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts, [2, 1, 0, 0, 1]);
        assert_eq!((histogram.count, histogram.sum), (5, 44.0));
    }
}
