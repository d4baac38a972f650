//! What no placement can beat, or hardly.
//!
//! | | Bound | Says | Function |
//! |---|---|---|---|
//! | A | one pooled server | times that nobody beats; loose for decodes | [`pooled`] |
//! | B | the engines, sharing their caches for nothing | times without the cost of placement | [`shared`] |
//! | C | a linear program of work and space | the load that nobody carries for long | [`lp`] |
//! | D | a placement that knows the future | times that can be reached | [`rollout`] |
//!
//! **Bound A, one pooled server**: a single engine with the compute rate, the KV space, the token budget and the batch
//! size of the whole fleet. It relaxes placement, the partition of the caches, and fragmentation. One request cannot
//! use all machines, so each job's times are at least those on an idle engine of the fleet with the hit that the pooled
//! cache gave it:
//!
//! ```text
//! ttft = max(pooled ttft, prefill alone) + network both ways
//! ```
//!
//! It is tight for work that is mostly prefill and loose for decodes, which it does N times faster. In a closed loop
//! the pooled server also answers sooner and so meets other arrivals.
//!
//! The order matters: first come first served is no bound on a *percentile* against orders by size, so the pooled
//! server also runs shortest first with ageing (key: uncached tokens if no block were ever forgotten, in seconds, plus
//! a tenth of the arrival time, which is `S - 0.1*wait` at any moment). Whichever gives the smaller value is the bound.

mod caches;
mod capacities;
mod collect;
mod lp;
mod rollout;
mod shared;
mod simplex;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use simulator::profiles::Work;
use simulator::{EngineConfig, LoraConfig, Profile, QueuePolicy};

use crate::{
    BLOCK_TOKENS, Dispatcher, End, Job, Placed, RunConfig, RunOutcome, Told, Workload, run,
};

pub use caches::{belady, lru, unbounded};
pub use capacities::{Capacities, SHARES, bound_p90, program, shared_p90};
pub use collect::collect;
pub use lp::{LpCapacity, lp};
pub use rollout::{Rollout, rollout};
pub use shared::shared;

/// In which order the pooled server admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// First come, first served.
    Fcfs,
    /// Shortest first, with ageing.
    Sjf,
}

/// Bound A: the outcome on the pooled server. `None` for a fleet without engines.
#[must_use]
pub fn pooled(config: &RunConfig, workload: Box<dyn Workload>, order: Order) -> Option<RunOutcome> {
    let mut engine = pooled_engine(&config.engines)?;
    let sequences: Arc<Mutex<FxHashMap<u64, i32>>> = Arc::default();
    let workload: Box<dyn Workload> = match order {
        Order::Fcfs => workload,
        Order::Sjf => {
            engine.policy = QueuePolicy::Priority;
            Box::new(Shortest {
                inner: workload,
                seconds_a_token: engine.profile.a,
                seen: FxHashSet::default(),
                priorities: Arc::clone(&sequences),
            })
        }
    };
    let pooled_config = RunConfig {
        engines: vec![engine],
        gateways: 1,
        scrape: None,
        ..config.clone()
    };
    let mut outcome = run(pooled_config, workload, vec![Box::new(Straight::default())]);
    let priorities = sequences.lock();
    for job in &mut outcome.jobs {
        if let Some(priority) = priorities.get(&job.id) {
            job.priority = *priority;
        }
        if job.end == End::Finished {
            hold_to_one_engine(job, config);
        }
    }
    Some(outcome)
}

/// The whole fleet as one engine. Rates add up, so seconds are divided.
#[must_use]
pub fn pooled_engine(engines: &[EngineConfig]) -> Option<EngineConfig> {
    let first = engines.first()?;
    let together = |seconds: fn(&Profile) -> f64| {
        1.0 / engines
            .iter()
            .map(|it| 1.0 / seconds(&it.profile).max(1e-15))
            .sum::<f64>()
    };
    let blocks: u32 = engines.iter().map(|it| it.kv_blocks).sum();
    Some(EngineConfig {
        profile: Profile {
            c0: together(|it| it.c0),
            w_base: together(|it| it.w_base),
            a: together(|it| it.a),
            q: together(|it| it.q),
            k_v: together(|it| it.k_v),
            s: together(|it| it.s),
        },
        kv_blocks: blocks,
        max_batched_tokens: engines.iter().map(|it| it.max_batched_tokens).sum(),
        max_seqs: engines.iter().map(|it| it.max_seqs).sum(),
        max_model_len: engines.iter().map(|it| it.max_model_len).max().unwrap_or(0),
        lora: LoraConfig {
            max_loras: engines.iter().map(|it| it.lora.max_loras).sum(),
            max_cpu_loras: engines.iter().map(|it| it.lora.max_cpu_loras).sum(),
            load_seconds: first.lora.load_seconds / engines.len() as f64,
            swap_seconds: first.lora.swap_seconds / engines.len() as f64,
            step_factor: first.lora.step_factor / engines.len() as f64,
        },
        max_waiting: None,
        ..first.clone()
    })
}

/// Raises a job's times to what an idle engine of the fleet takes.
fn hold_to_one_engine(job: &mut crate::JobOutcome, config: &RunConfig) {
    let least = |seconds: &dyn Fn(&EngineConfig) -> f64| {
        let each = config.engines.iter().map(seconds);
        each.fold(f64::INFINITY, f64::min)
    };
    let network = 2.0 * config.network_delay;
    let prefill = least(&|it| prefill_alone(it, job.prompt_tokens, job.cached_tokens));
    let gaps = job.output_tokens.saturating_sub(1);
    let decode = least(&|it| decode_alone(it, job.prompt_tokens, gaps));
    job.ttft = job.ttft.max(prefill + network);
    job.e2e = job.e2e.max(job.ttft + decode);
    if gaps > 0 {
        job.tpot = job.tpot.max(decode / f64::from(gaps));
    }
}

/// Seconds of a prompt's prefill on an idle engine that has `cached` tokens of it.
#[must_use]
pub fn prefill_alone(engine: &EngineConfig, prompt: u32, cached: u32) -> f64 {
    let budget = engine.max_batched_tokens.max(1);
    let mut seconds = 0.0;
    let mut done = cached.min(prompt.saturating_sub(1));
    while done < prompt {
        let chunk = (prompt - done).min(budget);
        let mut work = Work::default();
        work.prefill(done, chunk);
        seconds += engine.profile.step_seconds(&work);
        done += chunk;
    }
    seconds
}

/// Seconds of `tokens` decodes, one after the other, after a prompt.
fn decode_alone(engine: &EngineConfig, prompt: u32, tokens: u32) -> f64 {
    let it = &engine.profile;
    let tokens = f64::from(tokens);
    let context = f64::from(prompt) + tokens / 2.0;
    tokens * (it.c0 + it.w_base.max(it.a) + it.s + it.k_v * context)
}

/// Everything to the one engine there is.
#[derive(Debug, Default)]
struct Straight {
    due: Option<u64>,
}

impl Dispatcher for Straight {
    fn arrive(&mut self, _now: f64, job: &Job) {
        self.due = Some(job.id);
    }
    fn tell(&mut self, _now: f64, _told: Told) {}
    fn next(&mut self, _now: f64) -> Option<Placed> {
        let job = self.due.take()?;
        Some(Placed::To { job, engine: 0 })
    }
}

/// Gives each job the priority that makes the engine take shorter ones first.
struct Shortest {
    inner: Box<dyn Workload>,
    seconds_a_token: f64,
    /// Every block that was ever part of a prompt.
    seen: FxHashSet<u64>,
    priorities: Arc<Mutex<FxHashMap<u64, i32>>>,
}

impl Shortest {
    /// Ages a millisecond of key in ten of waiting; the key counts tenths of milliseconds.
    fn rank(&mut self, mut job: Job) -> Job {
        let prompt = (job.prompt_tokens / BLOCK_TOKENS) as usize;
        let blocks = &job.blocks[..prompt.min(job.blocks.len())];
        let known = blocks.iter().take_while(|it| self.seen.contains(&it.0));
        let uncached = job.prompt_tokens - known.count() as u32 * BLOCK_TOKENS;
        self.seen.extend(blocks.iter().map(|it| it.0));
        let key = f64::from(uncached) * self.seconds_a_token + 0.1 * job.at.max(0.0);
        self.priorities.lock().insert(job.id, job.priority);
        // Larger goes first among jobs.
        job.priority = -((key * 1e4).min(2e9) as i32);
        job
    }
}

impl Workload for Shortest {
    fn next(&mut self) -> Option<Job> {
        let job = self.inner.next()?;
        Some(self.rank(job))
    }

    fn finished(&mut self, job: &Job, now: f64) -> Option<Job> {
        let mut own = job.clone();
        if let Some(priority) = self.priorities.lock().get(&job.id) {
            own.priority = *priority;
        }
        let next = self.inner.finished(&own, now)?;
        Some(self.rank(next))
    }
}

/// The largest load in `range` at which `measure` stays at or below `limit`, by bisection to `steps` halvings; the lower
/// end if even that is too much. `measure` should not fall with the load.
pub fn capacity<E>(
    range: [f64; 2],
    steps: u32,
    limit: f64,
    mut measure: impl FnMut(f64) -> Result<f64, E>,
) -> Result<f64, E> {
    let [mut low, mut high] = range;
    if measure(high)? <= limit {
        return Ok(high);
    }
    for _ in 0..steps {
        let middle = f64::midpoint(low, high);
        if measure(middle)? <= limit {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
