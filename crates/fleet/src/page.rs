//! What a metrics page says about a server.
//!
//! Each engine has names of its own for the logical metrics of the inference extension's model server protocol; the
//! tables below are that protocol's, and llama.cpp's documentation. An engine that runs several ranks in one server
//! (data parallel) has a series for each: queues and running requests are added up, and of the ranks' cache usage the
//! highest counts. Where an operator named the metric, the protocol's rule holds instead: the series with the newest
//! timestamp, or else the last one.
//!
//! `vllm:lora_requests_info` has the time of its last update as value and keeps old label sets on the page for ever, so
//! the one with the largest value counts. In current releases both of its lists hold every adapter that has a request;
//! the union is taken.

use rustc_hash::FxHashMap;
use scheduling::Load;
use serde::Serialize;

use crate::mapping::{MetricMapping, MetricSource};
use crate::scan::{Sample, Scanner};

/// A model server's software, as far as its metrics tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's server.
    LlamaCpp,
    /// Triton with the TensorRT-LLM backend.
    Triton,
    /// trtllm-serve.
    TrtllmServe,
}

/// What one page said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The software.
    pub engine: Option<Engine>,
    /// Its load.
    pub load: Load,
    /// Tokens that its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
    /// Adapters.
    pub lora: Option<LoraInfo>,
    /// When its process started, seconds since 1970: another value is another process.
    pub started: Option<f64>,
}

/// Adapters in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoraInfo {
    /// Those with requests, without doubles.
    pub active: Vec<String>,
    /// Slots.
    pub max: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Queued,
    Running,
    KvUsage,
    Lora,
    CacheInfo,
    BlockTokens,
    Blocks,
    Started,
}

#[derive(Debug, Clone)]
struct Rule {
    field: Field,
    labels: Vec<(String, String)>,
    engine: Option<Engine>,
    /// The operator named this metric.
    named: bool,
}

/// Reads pages. Made once from a mapping.
#[derive(Debug)]
pub struct PageReader {
    rules: FxHashMap<Vec<u8>, Vec<Rule>>,
}

type Preset = (
    Engine,
    Field,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const TRITON_REQUESTS: &str = "nv_trt_llm_request_metrics";
const TRITON_BLOCKS: &str = "nv_trt_llm_kv_cache_block_metrics";

const PRESETS: &[Preset] = &[
    (
        Engine::Vllm,
        Field::Queued,
        "vllm:num_requests_waiting",
        &[],
    ),
    (
        Engine::Vllm,
        Field::Running,
        "vllm:num_requests_running",
        &[],
    ),
    (
        Engine::Vllm,
        Field::KvUsage,
        "vllm:kv_cache_usage_perc",
        &[],
    ),
    (
        Engine::Vllm,
        Field::KvUsage,
        "vllm:gpu_cache_usage_perc",
        &[],
    ),
    (Engine::Vllm, Field::Lora, "vllm:lora_requests_info", &[]),
    (
        Engine::Vllm,
        Field::CacheInfo,
        "vllm:cache_config_info",
        &[],
    ),
    (Engine::Sglang, Field::Queued, "sglang:num_queue_reqs", &[]),
    (
        Engine::Sglang,
        Field::Running,
        "sglang:num_running_reqs",
        &[],
    ),
    (Engine::Sglang, Field::KvUsage, "sglang:token_usage", &[]),
    (
        Engine::Sglang,
        Field::CacheInfo,
        "sglang:cache_config_info",
        &[],
    ),
    (
        Engine::LlamaCpp,
        Field::Queued,
        "llamacpp:requests_deferred",
        &[],
    ),
    (
        Engine::LlamaCpp,
        Field::Running,
        "llamacpp:requests_processing",
        &[],
    ),
    (
        Engine::LlamaCpp,
        Field::KvUsage,
        "llamacpp:kv_cache_usage_ratio",
        &[],
    ),
    (
        Engine::Triton,
        Field::Queued,
        TRITON_REQUESTS,
        &[("request_type", "waiting")],
    ),
    (
        Engine::Triton,
        Field::Running,
        TRITON_REQUESTS,
        &[("request_type", "scheduled")],
    ),
    (
        Engine::Triton,
        Field::KvUsage,
        TRITON_BLOCKS,
        &[("kv_cache_block_type", "fraction")],
    ),
    (
        Engine::Triton,
        Field::BlockTokens,
        TRITON_BLOCKS,
        &[("kv_cache_block_type", "tokens_per")],
    ),
    (
        Engine::Triton,
        Field::Blocks,
        TRITON_BLOCKS,
        &[("kv_cache_block_type", "max")],
    ),
    (
        Engine::TrtllmServe,
        Field::Queued,
        "trtllm_num_requests_waiting",
        &[],
    ),
    (
        Engine::TrtllmServe,
        Field::Running,
        "trtllm_num_requests_running",
        &[],
    ),
    (
        Engine::TrtllmServe,
        Field::KvUsage,
        "trtllm_kv_cache_utilization",
        &[],
    ),
    (
        Engine::TrtllmServe,
        Field::BlockTokens,
        "trtllm_kv_cache_tokens_per_block",
        &[],
    ),
    (
        Engine::TrtllmServe,
        Field::Blocks,
        "trtllm_kv_cache_max_blocks",
        &[],
    ),
];

impl PageReader {
    /// A reader for this mapping.
    #[must_use]
    pub fn new(mapping: &MetricMapping) -> Self {
        let mut rules: FxHashMap<Vec<u8>, Vec<Rule>> = FxHashMap::default();
        let mut add = |name: &str, rule| {
            rules
                .entry(name.as_bytes().to_vec())
                .or_default()
                .push(rule);
        };
        for (engine, field, name, labels) in PRESETS {
            if *source(mapping, *field) == MetricSource::Preset {
                let labels = labels
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                    .collect();
                add(
                    name,
                    Rule {
                        field: *field,
                        labels,
                        engine: Some(*engine),
                        named: false,
                    },
                );
            }
        }
        for field in [
            Field::Queued,
            Field::Running,
            Field::KvUsage,
            Field::Lora,
            Field::CacheInfo,
        ] {
            if let MetricSource::Named(selector) = source(mapping, field) {
                add(
                    &selector.name,
                    Rule {
                        field,
                        labels: selector.labels.clone(),
                        engine: None,
                        named: true,
                    },
                );
            }
        }
        add(
            "process_start_time_seconds",
            Rule {
                field: Field::Started,
                labels: Vec::new(),
                engine: None,
                named: true,
            },
        );
        Self { rules }
    }

    /// Reads a page. What is not on it stays `None`.
    #[must_use]
    pub fn read(&self, page: &[u8]) -> Page {
        let mut draft = Draft::default();
        for sample in Scanner::new(page, |name| self.rules.contains_key(name)) {
            for rule in self.rules.get(sample.name).into_iter().flatten() {
                if matches(rule, &sample) {
                    draft.add(rule, &sample);
                }
            }
        }
        draft.finish()
    }
}

fn source(mapping: &MetricMapping, field: Field) -> &MetricSource {
    match field {
        Field::Queued => &mapping.queued,
        Field::Running => &mapping.running,
        Field::KvUsage => &mapping.kv_usage,
        Field::Lora => &mapping.lora,
        Field::CacheInfo | Field::BlockTokens | Field::Blocks => &mapping.cache_info,
        Field::Started => &MetricSource::Preset,
    }
}

fn matches(rule: &Rule, sample: &Sample<'_>) -> bool {
    rule.labels.iter().all(|(name, value)| {
        sample
            .label(name)
            .is_some_and(|found| *found == *value.as_bytes())
    })
}

/// A number put together from several series.
#[derive(Debug, Default, Clone, Copy)]
struct Number {
    value: Option<f64>,
    timestamp: Option<f64>,
}

impl Number {
    fn merge(&mut self, rule: &Rule, sample: &Sample<'_>) {
        if !sample.value.is_finite() {
            return;
        }
        let newer = self
            .timestamp
            .is_none_or(|old| sample.timestamp.is_some_and(|new| new >= old));
        self.value = match (self.value, rule.named, rule.field) {
            (None, _, _) => Some(sample.value),
            (Some(old), true, _) => Some(if newer { sample.value } else { old }),
            (Some(old), false, Field::Queued | Field::Running) => Some(old + sample.value),
            (Some(old), false, _) => Some(old.max(sample.value)),
        };
        if newer {
            self.timestamp = sample.timestamp;
        }
    }
}

/// A page half read.
#[derive(Debug, Default)]
struct Draft {
    engine: Option<Engine>,
    queued: Number,
    running: Number,
    kv_usage: Number,
    block_tokens: Number,
    blocks: Number,
    started: Number,
    capacity: Option<u64>,
    lora: Option<(f64, LoraInfo)>,
}

impl Draft {
    fn add(&mut self, rule: &Rule, sample: &Sample<'_>) {
        self.engine = self.engine.or(rule.engine);
        match rule.field {
            Field::Queued => self.queued.merge(rule, sample),
            Field::Running => self.running.merge(rule, sample),
            Field::KvUsage => self.kv_usage.merge(rule, sample),
            Field::BlockTokens => self.block_tokens.merge(rule, sample),
            Field::Blocks => self.blocks.merge(rule, sample),
            Field::Started => self.started.merge(rule, sample),
            Field::CacheInfo => {
                if let Some(tokens) = cache_tokens(sample) {
                    self.capacity = Some(self.capacity.unwrap_or(0).saturating_add(tokens));
                }
            }
            Field::Lora => {
                if self
                    .lora
                    .as_ref()
                    .is_none_or(|(newest, _)| sample.value >= *newest)
                {
                    self.lora = Some((sample.value, lora_info(sample)));
                }
            }
        }
    }

    fn finish(self) -> Page {
        let blocks = self
            .block_tokens
            .value
            .zip(self.blocks.value)
            .map(|(size, count)| (size * count) as u64);
        Page {
            engine: self.engine,
            load: Load {
                waiting: self.queued.value.and_then(count),
                running: self.running.value.and_then(count),
                kv_usage: self.kv_usage.value.map(|usage| usage.clamp(0.0, 1.0)),
            },
            kv_capacity_tokens: self.capacity.or(blocks).filter(|&tokens| tokens > 0),
            lora: self.lora.map(|(_, info)| info),
            started: self.started.value,
        }
    }
}

fn count(value: f64) -> Option<u32> {
    (0.0..=f64::from(u32::MAX))
        .contains(&value)
        .then_some(value as u32)
}

/// Blocks times their size; vLLM also says the product itself.
fn cache_tokens(sample: &Sample<'_>) -> Option<u64> {
    let number = |names: &[&str]| names.iter().find_map(|name| label_number(sample, name));
    let blocks = number(&["num_gpu_blocks", "num_pages"]);
    let size = number(&["block_size", "page_size"]);
    blocks
        .zip(size)
        .and_then(|(blocks, size)| blocks.checked_mul(size))
        .or_else(|| number(&["kv_cache_size_tokens"]))
}

fn label_number(sample: &Sample<'_>, name: &str) -> Option<u64> {
    str::from_utf8(&sample.label(name)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn lora_info(sample: &Sample<'_>) -> LoraInfo {
    let mut active: Vec<String> = Vec::new();
    for label in ["running_lora_adapters", "waiting_lora_adapters"] {
        let value = sample.label(label).unwrap_or_default();
        let value = String::from_utf8_lossy(&value);
        for name in value
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if !active.iter().any(|known| known == name) {
                active.push(name.to_owned());
            }
        }
    }
    LoraInfo {
        active,
        max: label_number(sample, "max_lora").and_then(|max| u32::try_from(max).ok()),
    }
}

#[cfg(test)]
mod tests;
