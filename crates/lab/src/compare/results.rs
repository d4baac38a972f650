//! Results on disk: JSON with everything, CSV with a row for each run.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simulator::EngineConfig;

use super::{Catalog, Plan};
use crate::stats::{Slo, Summary};
use crate::{JobOutcome, LabError, RunOutcome};

/// Most moments of a timeline.
const MOMENTS: usize = 150;

/// A comparison's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Where the numbers come from.
    pub manifest: Manifest,
    /// A result for each cell.
    pub cells: Vec<CellResult>,
}

/// One cell's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// In numbers.
    pub summary: Summary,
    /// Over time; only of the plan's first seed.
    pub timeline: Vec<Moment>,
}

/// The fleet around one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Virtual seconds.
    pub at: f64,
    /// Share of KV space in use: mean over engines.
    pub kv: f64,
    /// The least of an engine.
    pub kv_low: f64,
    /// The most of an engine.
    pub kv_high: f64,
    /// Share of the engines with something to do.
    #[serde(default)]
    pub busy: f64,
    /// Requests running in the fleet.
    pub running: f64,
    /// Requests waiting in engines.
    pub waiting: f64,
    /// Requests waiting in gateways.
    pub queued: f64,
}

/// Constants of one kind of engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constants {
    /// How many engines have them.
    pub engines: usize,
    /// Name and value, seconds and tokens.
    pub values: Vec<(String, f64)>,
}

/// A workload and its circumstances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadNote {
    /// Its name.
    pub name: String,
    /// What it is and where its numbers come from.
    pub about: String,
    /// What its load counts.
    pub unit: String,
    /// Constants of its engines.
    pub fleet: Vec<Constants>,
}

/// Where numbers come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the lab.
    pub version: String,
    /// Everything that was set, seeds included.
    pub plan: Plan,
    /// What each policy is, its constants and where they come from.
    pub policies: Vec<(String, String)>,
    /// What each workload is, where it comes from, and its fleet.
    pub workloads: Vec<WorkloadNote>,
    /// Sources of the engine model.
    pub sources: Vec<String>,
    /// Real seconds that the comparison took.
    pub real_seconds: f64,
}

impl Manifest {
    /// What belongs to results of this plan, which took `real_seconds`.
    ///
    /// # Errors
    /// A workload that is not known.
    pub fn of(plan: &Plan, catalog: &dyn Catalog, real_seconds: f64) -> Result<Self, LabError> {
        let policies = plan.policies.iter();
        let note = |name: &String| {
            let setting = plan.setting(catalog, name)?;
            Ok(WorkloadNote {
                name: name.clone(),
                about: setting.about,
                unit: setting.unit,
                fleet: constants(&setting.engines),
            })
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: plan.clone(),
            policies: policies
                .map(|name| (name.clone(), catalog.about_policy(name)))
                .collect(),
            workloads: plan
                .workloads
                .iter()
                .map(note)
                .collect::<Result<_, LabError>>()?,
            sources: SOURCES.iter().map(|it| (*it).to_owned()).collect(),
            real_seconds,
        })
    }
}

/// Sources of the engine model and its constants.
const SOURCES: [&str; 6] = [
    "scheduler: vLLM V1 (chunked prefill, 16-token blocks, LRU free queue, scheduler_reserve_full_isl)",
    "Qwen3-32B TP2 H100: llm-d-kv-cache-manager benchmarking/73-capacity (15,928 prompt tokens/s; 19,208 KV blocks), llm-d latency fit",
    "Llama-3.1-8B H100, Llama-3-8B A100, Llama-2-70B TP4 H100: microsoft/vidur data/profiling",
    "attention rates: FlashAttention-3 (arXiv 2407.08608), FlashAttention-2 (arXiv 2307.08691)",
    "cross-check: Splitwise perf_model.csv (arXiv 2311.18677)",
    "bound: one pooled server, first come first served and shortest first with ageing, the smaller value",
];

fn constants(engines: &[EngineConfig]) -> Vec<Constants> {
    let mut kinds: Vec<(&EngineConfig, usize)> = Vec::new();
    for engine in engines {
        match kinds.iter_mut().find(|(kind, _)| *kind == engine) {
            Some((_, count)) => *count += 1,
            None => kinds.push((engine, 1)),
        }
    }
    let of = |(engine, engines): (&EngineConfig, usize)| {
        let it = &engine.profile;
        let values = [
            ("c0 (s)", it.c0),
            ("w_base (s)", it.w_base),
            ("a (s/token)", it.a),
            ("q (s/token^2)", it.q),
            ("k_v (s/token)", it.k_v),
            ("s (s)", it.s),
            (
                "KV tokens",
                f64::from(engine.kv_blocks) * f64::from(engine.block_tokens),
            ),
            ("tokens a step", f64::from(engine.max_batched_tokens)),
            ("sequences", engine.max_seqs as f64),
            ("longest sequence", f64::from(engine.max_model_len)),
        ];
        Constants {
            engines,
            values: values
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
        }
    };
    kinds.into_iter().map(of).collect()
}

impl CellResult {
    /// The run, reduced; with `timeline`, its course as well.
    #[must_use]
    pub fn of(outcome: &RunOutcome, slo: Slo, timeline: bool) -> Self {
        Self {
            summary: Summary::of(outcome, slo),
            timeline: if timeline {
                course(outcome)
            } else {
                Vec::new()
            },
        }
    }
}

fn course(outcome: &RunOutcome) -> Vec<Moment> {
    let samples = &outcome.samples;
    let every = samples.len().div_ceil(MOMENTS).max(1);
    let moment = |samples: &[crate::Sample]| {
        let count = samples.len().max(1) as f64;
        let mean = |of: &dyn Fn(&crate::Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
        let kv = |it: &crate::Sample| {
            it.kv_usage
                .iter()
                .map(|kv| f64::from(*kv))
                .collect::<Vec<_>>()
        };
        let low = |it: &crate::Sample| kv(it).into_iter().fold(1.0, f64::min);
        let high = |it: &crate::Sample| kv(it).into_iter().fold(0.0, f64::max);
        Moment {
            at: samples.first().map_or(0.0, |it| it.at),
            kv: mean(&|it| kv(it).iter().sum::<f64>() / it.kv_usage.len().max(1) as f64),
            kv_low: mean(&low),
            kv_high: mean(&high),
            busy: mean(&|it| {
                let busy = it.running.iter().filter(|it| **it > 0).count();
                busy as f64 / it.running.len().max(1) as f64
            }),
            running: mean(&|it| it.running.iter().sum::<u32>().into()),
            waiting: mean(&|it| it.waiting.iter().sum::<u32>().into()),
            queued: mean(&|it| it.queued.into()),
        }
    };
    samples.chunks(every).map(moment).collect()
}

impl Results {
    /// Writes `results.json` and `summary.csv` into a folder, which is made if needed.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        std::fs::create_dir_all(folder).map_err(|error| LabError::io(folder, error))?;
        let path = folder.join("results.json");
        let text = serde_json::to_vec(self).map_err(|error| LabError::json(&path, error))?;
        put(&path, &text)?;
        put(&folder.join("summary.csv"), self.csv().as_bytes())
    }

    /// Reads what [`Results::write`] wrote.
    ///
    /// # Errors
    /// A file that is not there or does not read.
    pub fn read(folder: &Path) -> Result<Self, LabError> {
        let path = folder.join("results.json");
        let bytes = std::fs::read(&path).map_err(|error| LabError::io(&path, error))?;
        serde_json::from_slice(&bytes).map_err(|error| LabError::json(&path, error))
    }

    /// A row for each run.
    #[must_use]
    pub fn csv(&self) -> String {
        let columns = |it: &Summary| -> Vec<(&'static str, String)> {
            vec![
                ("workload", quoted(&it.workload)),
                ("load", it.load.to_string()),
                ("policy", quoted(&it.policy)),
                ("seed", it.seed.to_string()),
                ("jobs", it.jobs.to_string()),
                ("shed", it.shed.to_string()),
                ("unfinished", it.unfinished.to_string()),
                ("failed", it.failed.to_string()),
                ("ttft_p50", it.ttft.p50.to_string()),
                ("ttft_p90", it.ttft.p90.to_string()),
                ("ttft_p99", it.ttft.p99.to_string()),
                ("tpot_p50", it.tpot.p50.to_string()),
                ("tpot_p90", it.tpot.p90.to_string()),
                ("e2e_p50", it.e2e.p50.to_string()),
                ("e2e_p90", it.e2e.p90.to_string()),
                ("per_token_p90", it.per_token.p90.to_string()),
                ("hit_ratio", it.hit_ratio.to_string()),
                ("slo_share", it.slo_share.to_string()),
                ("throughput", it.throughput.to_string()),
                ("output_rate", it.output_rate.to_string()),
                ("utilisation", it.utilisation.to_string()),
                ("utilisation_variance", it.utilisation_variance.to_string()),
                ("max_over_mean", it.max_over_mean.to_string()),
                ("kv_usage", it.kv_usage.to_string()),
                ("kv_variance", it.kv_variance.to_string()),
                ("jain_flows", it.jain_flows.to_string()),
                ("queued", it.queued.to_string()),
                ("preemptions", it.preemptions.to_string()),
                ("adapter_loads", it.adapter_loads.to_string()),
                ("dead_picks", it.dead_picks.to_string()),
                ("retries", it.retries.to_string()),
                ("speed", it.speed.to_string()),
            ]
        };
        let mut text = String::new();
        for (row, cell) in self.cells.iter().enumerate() {
            let (names, values): (Vec<_>, Vec<_>) = columns(&cell.summary).into_iter().unzip();
            if row == 0 {
                let _ = writeln!(text, "{}", names.join(","));
            }
            let _ = writeln!(text, "{}", values.join(","));
        }
        text
    }
}

/// Writes every job of a run as CSV.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write_jobs(jobs: &[JobOutcome], path: &Path) -> Result<(), LabError> {
    let mut text = String::from(
        "id,at,ttft,tpot,e2e,end,engine,prompt_tokens,cached_tokens,output_tokens,priority,flow\n",
    );
    for job in jobs {
        let engine = job.engine.map(|it| it.to_string()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{},{},{},{},{},{:?},{engine},{},{},{},{},{}",
            job.id,
            job.at,
            job.ttft,
            job.tpot,
            job.e2e,
            job.end,
            job.prompt_tokens,
            job.cached_tokens,
            job.output_tokens,
            job.priority,
            job.flow
        );
    }
    put(path, text.as_bytes())
}

pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), LabError> {
    std::fs::write(path, bytes).map_err(|error| LabError::io(path, error))
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
