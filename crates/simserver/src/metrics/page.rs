//! The text of the page.

use std::fmt::{Display, Write};

use simulator::Stats;

use super::{Histogram, Metrics};
use crate::options::SimOptions;

/// Counters that dashboards expect and the simulator has nothing for.
const WITHOUT_VALUE: [(&str, &str); 7] = [
    (
        "external_prefix_cache_queries",
        "External prefix cache queries, in tokens.",
    ),
    (
        "external_prefix_cache_hits",
        "External prefix cache hits, in tokens.",
    ),
    ("mm_cache_queries", "Multi-modal cache queries, in items."),
    ("mm_cache_hits", "Multi-modal cache hits, in items."),
    (
        "estimated_flops_per_gpu",
        "Estimated floating point operations per GPU.",
    ),
    (
        "estimated_read_bytes_per_gpu",
        "Estimated bytes read from memory per GPU.",
    ),
    (
        "estimated_write_bytes_per_gpu",
        "Estimated bytes written to memory per GPU.",
    ),
];

/// Writes families with their labels. Writing to a `String` cannot fail, so results are dropped.
struct Page<'a> {
    out: String,
    model: &'a str,
    created: f64,
}

/// The whole page.
pub(crate) fn render(options: &SimOptions, stats: &Stats, metrics: &Metrics) -> String {
    let model = escape(&options.base_names()[0]);
    let mut page = Page {
        out: String::with_capacity(40 << 10),
        model: &model,
        created: metrics.created,
    };
    gauges(&mut page, stats);
    cache_counters(&mut page, stats);
    counters(&mut page, stats, metrics);
    request_counters(&mut page, metrics);
    token_histograms(&mut page, metrics);
    time_histograms(&mut page, metrics);
    lora(&mut page, options, metrics);
    cache_config(&mut page, options);
    http(&mut page, metrics);
    page.out
}

fn gauges(page: &mut Page<'_>, stats: &Stats) {
    page.gauge(
        "num_requests_running",
        "Number of requests in model execution batches.",
        stats.running,
    );
    page.gauge(
        "num_requests_waiting",
        "Number of requests waiting to be processed.",
        stats.waiting,
    );
    page.head(
        "num_requests_waiting_by_reason",
        "Number of waiting requests by reason.",
        "gauge",
    );
    page.labelled(
        "num_requests_waiting_by_reason",
        "reason",
        "capacity",
        stats.waiting - stats.deferred,
    );
    page.labelled(
        "num_requests_waiting_by_reason",
        "reason",
        "deferred",
        stats.deferred,
    );
    page.head("engine_sleep_state", "Engine sleep state.", "gauge");
    for (state, value) in [("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)] {
        page.labelled("engine_sleep_state", "sleep_state", state, value);
    }
    page.gauge(
        "kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        stats.kv_usage,
    );
}

fn cache_counters(page: &mut Page<'_>, stats: &Stats) {
    page.counter(
        "prefix_cache_queries",
        "Prefix cache queries, in tokens.",
        stats.prefix_queries,
    );
    page.counter(
        "prefix_cache_hits",
        "Prefix cache hits, in tokens.",
        stats.prefix_hits,
    );
    for (name, help) in WITHOUT_VALUE {
        page.counter(name, help, 0);
    }
}

fn counters(page: &mut Page<'_>, stats: &Stats, metrics: &Metrics) {
    let (prompt, cached) = (stats.prompt_tokens, metrics.prompt_tokens_cached);
    page.counter(
        "num_preemptions",
        "Cumulative number of preemptions.",
        stats.preemptions,
    );
    page.counter(
        "prompt_tokens",
        "Number of prefill tokens processed.",
        prompt,
    );
    let computed = prompt.saturating_sub(cached);
    let sources = [
        ("local_compute", computed),
        ("local_cache_hit", cached),
        ("external_kv_transfer", 0),
    ];
    let name = "prompt_tokens_by_source";
    page.counters(
        name,
        "Number of prompt tokens by source.",
        "source",
        &sources,
    );
    page.counter(
        "prompt_tokens_cached",
        "Number of cached prompt tokens.",
        cached,
    );
    let tiers = [
        ("device", cached),
        ("host", 0),
        ("p2p", 0),
        ("disk", 0),
        ("external_unspecified", 0),
    ];
    let name = "prompt_tokens_cached_by_source";
    page.counters(name, "Prefix cache hits by tier.", "source", &tiers);
    let name = "generation_tokens";
    page.counter(
        name,
        "Number of generation tokens processed.",
        stats.generation_tokens,
    );
}

fn request_counters(page: &mut Page<'_>, metrics: &Metrics) {
    let finished = metrics.finished;
    let reasons = [
        ("stop", finished.stop),
        ("length", finished.length),
        ("abort", finished.abort),
        ("error", 0),
        ("repetition", 0),
    ];
    let help = "Count of successfully processed requests.";
    page.counters("request_success", help, "finished_reason", &reasons);
    let name = "admission_rejections_total";
    page.head(
        name,
        "Admission attempts rejected by a queue limit, by reason.",
        "counter",
    );
    for (reason, value) in [
        ("max_num_queued_reqs", metrics.rejected),
        ("max_num_queued_tokens", 0),
    ] {
        let model = page.model;
        let labels = format!("model_name=\"{model}\",reason=\"{reason}\"");
        let _ = writeln!(page.out, "vllm:{name}{{{labels}}} {value}.0");
    }
}

fn token_histograms(page: &mut Page<'_>, m: &Metrics) {
    #[rustfmt::skip]
    let families = [
        ("request_prompt_tokens", "Number of prefill tokens processed.", &m.prompt_tokens),
        ("request_generation_tokens", "Number of generation tokens processed.", &m.generation_tokens),
        ("iteration_tokens_total", "Number of tokens per engine_step.", &m.iteration_tokens),
        ("request_max_num_generation_tokens", "Maximum requested generation tokens.", &m.max_generation_tokens),
        ("request_params_n", "The n request parameter.", &m.params_n),
        ("request_params_max_tokens", "The max_tokens request parameter.", &m.params_max_tokens),
        ("request_num_preemptions", "Number of times a request was preempted.", &m.preemptions),
        ("request_prefill_kv_computed_tokens", "New KV tokens computed during prefill.", &m.kv_computed),
    ];
    families
        .iter()
        .for_each(|(name, help, histogram)| page.histogram(name, help, histogram));
}

fn time_histograms(page: &mut Page<'_>, m: &Metrics) {
    #[rustfmt::skip]
    let families = [
        ("time_to_first_token_seconds", "Time to first token.", &m.time_to_first_token),
        ("inter_token_latency_seconds", "Time between tokens.", &m.inter_token_latency),
        ("request_time_per_output_token_seconds", "Mean time per output token of a request.", &m.time_per_output_token),
        ("e2e_request_latency_seconds", "End to end request latency.", &m.e2e),
        ("request_queue_time_seconds", "Time spent in WAITING phase.", &m.queue),
        ("request_inference_time_seconds", "Time spent in RUNNING phase.", &m.inference),
        ("request_prefill_time_seconds", "Time spent in PREFILL phase.", &m.prefill),
        ("request_decode_time_seconds", "Time spent in DECODE phase.", &m.decode),
    ];
    families
        .iter()
        .for_each(|(name, help, histogram)| page.histogram(name, help, histogram));
}

/// Old label sets stay, and the newest value tells which one is true: as in vLLM.
fn lora(page: &mut Page<'_>, options: &SimOptions, metrics: &Metrics) {
    if metrics.lora.is_empty() {
        return;
    }
    page.head(
        "lora_requests_info",
        "Running stats on lora requests.",
        "gauge",
    );
    for series in &metrics.lora {
        let _ = writeln!(
            page.out,
            "vllm:lora_requests_info{{max_lora=\"{}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}} {}",
            options.max_loras.max(1),
            escape(&series.running),
            escape(&series.waiting),
            series.updated
        );
    }
}

fn cache_config(page: &mut Page<'_>, options: &SimOptions) {
    page.head(
        "cache_config_info",
        "Information of the LLMEngine CacheConfig",
        "gauge",
    );
    let (blocks, size) = (options.kv_blocks(), options.block_size);
    let given = options
        .num_gpu_blocks
        .map_or_else(|| "None".to_owned(), |blocks| blocks.to_string());
    let caching = if options.prefix_caching {
        "True"
    } else {
        "False"
    };
    let _ = writeln!(
        page.out,
        "vllm:cache_config_info{{block_size=\"{size}\",cache_dtype=\"auto\",enable_prefix_caching=\"{caching}\",\
         engine=\"0\",gpu_memory_utilization=\"0.92\",is_attention_free=\"False\",kv_cache_memory_bytes=\"None\",\
         kv_cache_size_tokens=\"{}\",kv_offloading_size=\"None\",num_cpu_blocks=\"None\",num_gpu_blocks=\"{blocks}\",\
         num_gpu_blocks_override=\"{given}\",prefix_caching_hash_algo=\"xxh3\",sliding_window=\"None\"}} 1.0",
        u64::from(blocks) * u64::from(size),
    );
}

fn http(page: &mut Page<'_>, metrics: &Metrics) {
    let out = &mut page.out;
    out.push_str(
        "# HELP http_requests_total Total number of requests by method, status and handler.\n",
    );
    out.push_str("# TYPE http_requests_total counter\n");
    for ((handler, method, class), count) in &metrics.http {
        let labels = format!("handler=\"{handler}\",method=\"{method}\",status=\"{class}xx\"");
        let _ = writeln!(out, "http_requests_total{{{labels}}} {count}.0");
    }
}

impl Page<'_> {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(
            self.out,
            "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}"
        );
    }

    fn sample(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(
            self.out,
            "vllm:{name}{{engine=\"0\",model_name=\"{}\"}} {value}",
            self.model
        );
    }

    /// A sample with one label more, at its place in alphabetical order.
    fn labelled(&mut self, name: &str, label: &str, value: &str, number: impl Display) {
        let model = self.model;
        let _ = if label < "model_name" {
            writeln!(
                self.out,
                "vllm:{name}{{engine=\"0\",{label}=\"{value}\",model_name=\"{model}\"}} {number}"
            )
        } else {
            writeln!(
                self.out,
                "vllm:{name}{{engine=\"0\",model_name=\"{model}\",{label}=\"{value}\"}} {number}"
            )
        };
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.sample(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(&format!("{name}_total"), help, "counter");
        self.sample(&format!("{name}_total"), format_args!("{value}.0"));
        self.head(&format!("{name}_created"), help, "gauge");
        self.sample(&format!("{name}_created"), self.created);
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(&format!("{name}_total"), help, "counter");
        for (value, count) in values {
            self.labelled(
                &format!("{name}_total"),
                label,
                value,
                format_args!("{count}.0"),
            );
        }
        self.head(&format!("{name}_created"), help, "gauge");
        for (value, _) in values {
            self.labelled(&format!("{name}_created"), label, value, self.created);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            self.labelled(
                &bucket,
                "le",
                &format!("{bound:?}"),
                format_args!("{below}.0"),
            );
        }
        self.labelled(&bucket, "le", "+Inf", format_args!("{}.0", histogram.count));
        self.sample(
            &format!("{name}_count"),
            format_args!("{}.0", histogram.count),
        );
        self.sample(&format!("{name}_sum"), histogram.sum);
        self.head(&format!("{name}_created"), help, "gauge");
        self.sample(&format!("{name}_created"), self.created);
    }
}

/// A label value with the format's three escapes.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_reads_like_vllms() {
        let options = SimOptions {
            model: "a\"b".into(),
            num_gpu_blocks: Some(100),
            ..SimOptions::default()
        };
        let stats = Stats {
            running: 3,
            waiting: 2,
            deferred: 1,
            kv_usage: 0.25,
            ..Stats::default()
        };
        let mut metrics = Metrics::new();
        metrics.time_to_first_token.observe(0.05);
        metrics.adapters("l0", "");
        metrics.http("/health", &http::Method::GET, 200);
        let page = render(&options, &stats, &metrics);
        for line in [
            r#"vllm:num_requests_running{engine="0",model_name="a\"b"} 3"#,
            r#"vllm:num_requests_waiting_by_reason{engine="0",model_name="a\"b",reason="deferred"} 1"#,
            r#"vllm:kv_cache_usage_perc{engine="0",model_name="a\"b"} 0.25"#,
            r#"vllm:request_success_total{engine="0",finished_reason="stop",model_name="a\"b"} 0.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="0.04",model_name="a\"b"} 0.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="0.06",model_name="a\"b"} 1.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="a\"b"} 1.0"#,
            r#"http_requests_total{handler="/health",method="GET",status="2xx"} 1.0"#,
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(
            page.contains(r#"vllm:lora_requests_info{max_lora="1",running_lora_adapters="l0""#)
        );
        assert!(page.contains(r#"num_gpu_blocks="100""#));
    }
}
