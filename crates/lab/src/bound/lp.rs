//! **Bound C, capacity**: the load that a fleet can carry for ever, whoever places, as a linear program.
//!
//! Jobs are counted by class (lengths alike), engines by type. `x` jobs of class `c` go to type `t`; `n` steps are done
//! there, whose matrix products take `w` seconds in all. With P, D the uncached prompt tokens and the decodes of a job,
//! and what its attention, its contexts and its sequences cost besides:
//!
//! ```text
//! most   lambda
//! with   lambda * jobs_c       <= sum over t of x_ct                  every class is served
//!        n_t c0_t + w_t + sum over c of x_ct (q pairs + k_v contexts + s sequences) <= N_t T       there is time
//!        w_t >= w_base_t n_t,   w_t >= a_t sum x (P + D)              weights are read, products computed
//!        n_t >= sum x P / budget,  n_t >= sum x D / most sequences    what fits a step
//!        n_t >= sum x (KV token-steps of decodes) / KV tokens         what a step decodes is in the cache
//! ```
//!
//! Every row holds for any schedule, so no fleet carries more. Hits are those of one cache of the fleet's size that knows
//! the future ([`super::belady`]). Of KV only what a session holds alone is counted, for what is shared may be there
//! once. It says nothing about waiting: a fleet at this load has an endless queue.

use rustc_hash::FxHashMap;
use simulator::EngineConfig;

use super::caches::{cached, hits_belady, prompt};
use super::simplex::maximise;
use crate::{BLOCK_TOKENS, Job, RunConfig};

/// The load that a fleet can carry, and why not more.
#[derive(Debug, Clone, PartialEq)]
pub struct LpCapacity {
    /// In the unit of the load that was given.
    pub load: f64,
    /// What stands in the way: `prefill` and `decode` (products computed), `weights` (weights read), `memory` (KV
    /// space), `sequences` (seats in a step).
    pub binding: &'static str,
    /// Token hit ratio of the cache.
    pub hit_ratio: f64,
    /// Share of all prompt tokens that goes to each type of engine, in the order of the fleet.
    pub shares: Vec<f64>,
}

/// What a class of jobs asks, summed over its jobs.
#[derive(Debug, Clone, Copy, Default)]
struct Class {
    jobs: f64,
    prompt: f64,
    uncached: f64,
    decodes: f64,
    pairs: f64,
    contexts: f64,
    kv_steps: f64,
}

/// Engines alike.
struct Kind<'a> {
    engine: &'a EngineConfig,
    count: f64,
}

/// The largest load of a workload whose jobs at `load` are `jobs`, in order of time. `None` for a fleet without engines
/// or a workload without measured jobs.
#[must_use]
pub fn lp(config: &RunConfig, jobs: &[Job], load: f64) -> Option<LpCapacity> {
    let kinds = kinds(&config.engines);
    if kinds.is_empty() {
        return None;
    }
    let measured = |job: &&Job| !job.warmup && job.at >= config.warmup;
    let first = jobs.iter().find(measured)?.at;
    let count = jobs.iter().filter(measured).count() as f64;
    let last = jobs.last()?.at;
    // Jobs come until the horizon; a workload that ends by itself has one gap more than it shows.
    let seconds = if config.horizon - last < 5.0 * (last - first) / count {
        config.horizon - first
    } else {
        (last - first) * (count + 1.0) / count
    };
    let (classes, hit_ratio) = classes(config, jobs, kinds.len() > 1);
    let (rows, columns) = rows(&classes, &kinds, seconds);
    let mut objective = vec![0.0; columns];
    objective[0] = 1.0;
    let solution = maximise(&objective, &rows)?;
    let name = binding(&solution.worth, classes.len(), &classes);
    let mut tokens: Vec<f64> = (0..kinds.len())
        .map(|kind| {
            let of = |class: usize| {
                let it = classes[class];
                solution.x[place(class, kind, kinds.len())] * it.prompt / it.jobs
            };
            (0..classes.len()).map(of).sum()
        })
        .collect();
    let all: f64 = tokens.iter().sum();
    tokens.iter_mut().for_each(|it| *it /= all.max(1e-12));
    Some(LpCapacity {
        load: load * solution.value,
        binding: name,
        hit_ratio,
        shares: tokens,
    })
}

fn kinds(engines: &[EngineConfig]) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for engine in engines {
        match kinds.iter_mut().find(|it| it.engine == engine) {
            Some(kind) => kind.count += 1.0,
            None => kinds.push(Kind { engine, count: 1.0 }),
        }
    }
    kinds
}

/// Which sessions have a block in their prompts.
enum Holder {
    One(u64),
    Many,
}

/// Measured jobs by lengths, powers of two, where engines differ; else all in one class, which says the same.
fn classes(config: &RunConfig, jobs: &[Job], apart: bool) -> (Vec<Class>, f64) {
    let capacity = config.engines.iter();
    let capacity: u64 = capacity
        .map(|it| u64::from(it.kv_blocks) * u64::from(it.block_tokens))
        .sum();
    let hits = hits_belady(jobs, capacity);
    let holders = holders(jobs);
    let mut by_length: FxHashMap<(u32, u32), Class> = FxHashMap::default();
    let (mut prompts, mut found) = (0.0, 0.0);
    for (job, hit) in jobs.iter().zip(hits) {
        if job.warmup || job.at < config.warmup {
            continue;
        }
        let key = if apart {
            (job.prompt_tokens.ilog2(), job.output_tokens.max(1).ilog2())
        } else {
            (0, 0)
        };
        let class = by_length.entry(key).or_default();
        let known = f64::from(cached(job, hit));
        let (tokens, decodes) = (
            f64::from(job.prompt_tokens),
            f64::from(job.output_tokens.saturating_sub(1)),
        );
        let uncached = tokens - known;
        let own = prompt(job)
            .iter()
            .filter(|it| matches!(holders.get(&it.0), Some(Holder::One(_))))
            .count();
        let tail = job.prompt_tokens - prompt(job).len() as u32 * BLOCK_TOKENS;
        let own = own as f64 * f64::from(BLOCK_TOKENS) + f64::from(tail);
        class.jobs += 1.0;
        class.prompt += tokens;
        class.uncached += uncached;
        class.decodes += decodes;
        class.pairs += uncached * (known + uncached / 2.0);
        class.contexts += decodes * (tokens + decodes / 2.0);
        class.kv_steps += decodes * (own + decodes / 2.0);
        prompts += tokens;
        found += known;
    }
    let mut classes: Vec<((u32, u32), Class)> = by_length.into_iter().collect();
    classes.sort_by_key(|(key, _)| *key);
    let classes = classes.into_iter().map(|(_, class)| class).collect();
    (classes, found / f64::max(prompts, 1.0))
}

fn holders(jobs: &[Job]) -> FxHashMap<u64, Holder> {
    let mut holders = FxHashMap::default();
    for job in jobs {
        // Turns of one session are never in the cache for two at once; a job of no session is one of its own.
        let session = job.session.map_or(job.id | 1 << 63, |session| session);
        for block in prompt(job) {
            let holder = holders.entry(block.0).or_insert(Holder::One(session));
            if matches!(holder, Holder::One(other) if *other != session) {
                *holder = Holder::Many;
            }
        }
    }
    holders
}

/// Column of the jobs of a class on a kind of engine. Column 0 is lambda; then those; then steps and products by kind.
fn place(class: usize, kind: usize, kinds: usize) -> usize {
    1 + class * kinds + kind
}

/// Rows of each kind of engine, in this order after those of the classes.
const NAMES: [&str; 6] = [
    "time",
    "weights",
    "products",
    "budget",
    "sequences",
    "memory",
];

fn rows(classes: &[Class], kinds: &[Kind<'_>], seconds: f64) -> (Vec<(Vec<f64>, f64)>, usize) {
    let jobs = 1 + classes.len() * kinds.len();
    let columns = jobs + 2 * kinds.len();
    let mut rows = Vec::new();
    for (class, it) in classes.iter().enumerate() {
        let mut row = vec![0.0; columns];
        row[0] = it.jobs;
        (0..kinds.len()).for_each(|kind| row[place(class, kind, kinds.len())] = -1.0);
        rows.push((row, 0.0));
    }
    for (kind, Kind { engine, count }) in kinds.iter().enumerate() {
        let profile = &engine.profile;
        let (steps, products) = (jobs + 2 * kind, jobs + 2 * kind + 1);
        let budget = f64::from(engine.max_batched_tokens.max(1));
        let kv = f64::from(engine.kv_blocks) * f64::from(engine.block_tokens);
        let mut row = |each: &dyn Fn(&Class) -> f64, own: &[(usize, f64)], right: f64| {
            let mut row = vec![0.0; columns];
            for (class, it) in classes.iter().enumerate() {
                row[place(class, kind, kinds.len())] = each(it) / it.jobs;
            }
            own.iter().for_each(|(column, value)| row[*column] = *value);
            rows.push((row, right));
        };
        let besides = |it: &Class| {
            let sequences = it.decodes + it.uncached / budget;
            profile.q * it.pairs + profile.k_v * it.contexts + profile.s * sequences
        };
        let time = [(steps, profile.c0), (products, 1.0)];
        row(&besides, &time, count * seconds);
        let weights = [(steps, profile.w_base), (products, -1.0)];
        row(&|_| 0.0, &weights, 0.0);
        let tokens = |it: &Class| profile.a * (it.uncached + it.decodes);
        row(&tokens, &[(products, -1.0)], 0.0);
        row(&|it| it.uncached / budget, &[(steps, -1.0)], 0.0);
        let seats = engine.max_seqs.max(1) as f64;
        row(&|it| it.decodes / seats, &[(steps, -1.0)], 0.0);
        row(&|it| it.kv_steps / kv.max(1.0), &[(steps, -1.0)], 0.0);
    }
    (rows, columns)
}

/// The row of the first kind of engine whose easing would help, besides time.
fn binding(worth: &[f64], classes: usize, all: &[Class]) -> &'static str {
    let own = &worth[classes..];
    let tight = |name: &str| {
        let at = NAMES.iter().position(|it| *it == name).unwrap_or(0);
        own.chunks(NAMES.len()).any(|kind| kind[at] > 1e-12)
    };
    if tight("memory") {
        "memory"
    } else if tight("sequences") {
        "sequences"
    } else if tight("products") {
        let (prefill, decode) = all.iter().fold((0.0, 0.0), |sum, it| {
            (sum.0 + it.uncached, sum.1 + it.decodes)
        });
        if prefill >= decode {
            "prefill"
        } else {
            "decode"
        }
    } else {
        "weights"
    }
}
