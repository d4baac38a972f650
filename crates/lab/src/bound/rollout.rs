//! **Bound D, clairvoyant rollout**: not what nobody can beat, but what somebody who knows the future reaches.
//!
//! For each job every engine is tried in a copy of the whole fleet: the jobs that come after it, known beforehand and
//! placed by a simple rule, are played up to a horizon, with answers of their true lengths. The engine after which
//! waits were shortest gets the job. Between this and bound A lies the best possible.
//!
//! A try copies every engine, so this is for small cells: it takes about `engines * horizon` seconds of simulation for
//! each job.

use simulator::{AdapterId, Engine, Output, OutputKind, Sequence};

use super::caches::{cached, prompt};
use crate::{End, Job, JobOutcome, RunConfig, RunOutcome};

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollout {
    /// Seconds that a try plays on.
    pub horizon: f64,
    /// Later jobs that a try takes in, at most.
    pub jobs: usize,
    /// Jobs that are placed by trying; those after them by the simple rule.
    pub most: usize,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            horizon: 10.0,
            jobs: 32,
            most: 2_000,
        }
    }
}

/// Bound D of jobs that depend on no answer, in order of time. `None` for a fleet without engines.
#[must_use]
pub fn rollout(config: &RunConfig, jobs: Vec<Job>, rollout: Rollout) -> Option<RunOutcome> {
    if config.engines.is_empty() {
        return None;
    }
    let mut world = World::new(config, jobs.len());
    for (slot, job) in jobs.iter().enumerate() {
        world.play(job.at + config.network_delay);
        let engine = if slot < rollout.most && config.engines.len() > 1 {
            best(&world, &jobs, slot, config, rollout)
        } else {
            world.least_work(job)
        };
        world.submit(slot, job, engine);
    }
    world.play(config.horizon + config.drain);
    Some(world.outcome(config, &jobs))
}

fn best(world: &World, jobs: &[Job], slot: usize, config: &RunConfig, it: Rollout) -> usize {
    let job = &jobs[slot];
    let until = job.at + it.horizon;
    let later = jobs[slot + 1..].iter().take(it.jobs);
    let count = later.take_while(|other| other.at < until).count();
    let last = slot + count;
    let tried = |engine: usize| {
        let mut copy = world.clone();
        copy.submit(slot, job, engine);
        for (place, other) in jobs[slot + 1..=last].iter().enumerate() {
            copy.play(other.at + config.network_delay);
            let chosen = copy.least_work(other);
            copy.submit(slot + 1 + place, other, chosen);
        }
        copy.play(until);
        let mut waits: Vec<f64> = (slot..=last)
            .map(|slot| copy.first[slot].unwrap_or(copy.now) - jobs[slot].at)
            .collect();
        // What is not computed yet waits on: count what it has before it.
        let left: f64 = copy.pending.iter().map(|it| *it as f64).sum();
        waits.sort_by(f64::total_cmp);
        let mean = waits.iter().sum::<f64>() / waits.len() as f64;
        mean + waits[waits.len() * 9 / 10] + 1e-6 * left
    };
    let scores = (0..config.engines.len()).map(|engine| (engine, tried(engine)));
    let least = scores.min_by(|a, b| a.1.total_cmp(&b.1));
    least.map_or(0, |(engine, _)| engine)
}

/// All engines and where their steps end.
#[derive(Clone)]
struct World {
    now: f64,
    engines: Vec<Engine>,
    ends: Vec<f64>,
    busy: Vec<f64>,
    /// Uncached prompt tokens without a first token, by engine; and of each job, with its engine.
    pending: Vec<u64>,
    charged: Vec<Option<(usize, u32)>>,
    first: Vec<Option<f64>>,
    ended: Vec<Option<f64>>,
    cached: Vec<u32>,
    tokens: Vec<u32>,
    outputs: Vec<Output>,
}

impl World {
    fn new(config: &RunConfig, jobs: usize) -> Self {
        let engines = config.engines.iter().enumerate().map(|(place, engine)| {
            let mut engine = engine.clone();
            engine.step_noise = config.step_noise;
            let seed = config.seed.wrapping_mul(1_000_003) + place as u64;
            Engine::new(engine, seed)
        });
        Self {
            now: 0.0,
            engines: engines.collect(),
            ends: vec![f64::INFINITY; config.engines.len()],
            busy: vec![0.0; config.engines.len()],
            pending: vec![0; config.engines.len()],
            charged: vec![None; jobs],
            first: vec![None; jobs],
            ended: vec![None; jobs],
            cached: vec![0; jobs],
            tokens: vec![0; jobs],
            outputs: Vec::new(),
        }
    }

    /// Goes on to `until`.
    fn play(&mut self, until: f64) {
        loop {
            let ends = self.ends.iter().copied().enumerate();
            let Some((engine, at)) = ends.min_by(|a, b| a.1.total_cmp(&b.1)) else {
                break;
            };
            if at > until {
                break;
            }
            self.now = at;
            let mut outputs = std::mem::take(&mut self.outputs);
            self.engines[engine].finish_step(at, &mut outputs);
            for output in outputs.drain(..) {
                self.book(output);
            }
            self.outputs = outputs;
            self.step(engine);
        }
        self.now = self.now.max(until);
    }

    fn step(&mut self, engine: usize) {
        self.ends[engine] = match self.engines[engine].step(self.now) {
            Some(plan) => {
                self.busy[engine] += plan.duration;
                self.now + plan.duration
            }
            None => f64::INFINITY,
        };
    }

    fn book(&mut self, output: Output) {
        let slot = output.id as usize;
        match output.kind {
            OutputKind::FirstToken { cached_tokens, .. } => {
                self.first[slot] = Some(self.now);
                self.cached[slot] = cached_tokens;
                self.tokens[slot] = 1;
                if let Some((engine, tokens)) = self.charged[slot].take() {
                    self.pending[engine] -= u64::from(tokens);
                }
            }
            OutputKind::Tokens(count) => self.tokens[slot] += count,
            OutputKind::Finished { .. } => self.ended[slot] = Some(self.now),
            OutputKind::Preempted => {}
        }
    }

    fn uncached(&self, engine: usize, job: &Job) -> u32 {
        let blocks = self.engines[engine].cached_prefix_blocks(prompt(job)) as u32;
        job.prompt_tokens - cached(job, blocks)
    }

    /// The engine with the fewest tokens to compute before and for a job.
    fn least_work(&self, job: &Job) -> usize {
        let work = |engine: &usize| self.pending[*engine] + u64::from(self.uncached(*engine, job));
        (0..self.engines.len()).min_by_key(work).unwrap_or(0)
    }

    fn submit(&mut self, slot: usize, job: &Job, engine: usize) {
        let uncached = self.uncached(engine, job);
        let sequence = Sequence {
            id: slot as u64,
            prompt: job.blocks.clone(),
            prompt_tokens: job.prompt_tokens,
            output_tokens: job.output_tokens,
            adapter: job.adapter.map(AdapterId),
            priority: job.priority.saturating_neg(),
        };
        if self.engines[engine].submit(self.now, sequence).is_err() {
            return;
        }
        self.pending[engine] += u64::from(uncached);
        self.charged[slot] = Some((engine, uncached));
        if self.ends[engine].is_infinite() {
            self.step(engine);
        }
    }

    fn outcome(self, config: &RunConfig, jobs: &[Job]) -> RunOutcome {
        let over = self.now;
        let network = config.network_delay;
        let one = |(slot, job): (usize, &Job)| {
            let first = self.first[slot].map(|at| at + network);
            let ended = self.ended[slot].map(|at| at + network);
            let gaps = f64::from(self.tokens[slot].saturating_sub(1));
            let decoding = ended.unwrap_or(over) - first.unwrap_or(over);
            JobOutcome {
                id: job.id,
                at: job.at,
                ttft: first.unwrap_or(over) - job.at,
                tpot: if gaps > 0.0 { decoding / gaps } else { 0.0 },
                e2e: ended.unwrap_or(over) - job.at,
                end: if ended.is_some() {
                    End::Finished
                } else {
                    End::Unfinished
                },
                engine: None,
                prompt_tokens: job.prompt_tokens,
                cached_tokens: self.cached[slot],
                output_tokens: self.tokens[slot],
                priority: job.priority,
                flow: job.flow,
            }
        };
        let measured = |(_, job): &(usize, &Job)| !job.warmup && job.at >= config.warmup;
        let all = jobs.iter().enumerate().filter(measured).map(one);
        let stats = self.engines.iter().map(Engine::stats);
        RunOutcome {
            policy: "rollout".to_owned(),
            workload: String::new(),
            load: 0.0,
            seed: config.seed,
            virtual_seconds: over,
            real_seconds: 0.0,
            jobs: all.collect(),
            preemptions: stats.map(|it| it.preemptions).sum(),
            adapter_loads: 0,
            busy: self.busy.clone(),
            samples: Vec::new(),
            window: [config.warmup, config.horizon],
            misplaced: 0,
            dead_picks: 0,
            retries: 0,
        }
    }
}
