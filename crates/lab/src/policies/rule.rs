//! The gateway around a policy: it keeps what a gateway of that kind can know, and asks the policy where to.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use simulator::EngineConfig;

use super::fleet::{Fleet, Flight, Gauge};
use super::index::{PrefixIndex, Spec};
use crate::{Dispatcher, Job, Placed, Told};

/// A job that looks for an engine.
pub(super) struct Ask<'a> {
    pub(super) now: f64,
    pub(super) job: &'a Job,
    pub(super) fleet: &'a Fleet,
    /// Engines that are there, ascending.
    pub(super) up: &'a [usize],
    /// The prefix index, of policies that have one.
    pub(super) index: Option<&'a PrefixIndex>,
    /// Tokens of the prompt that the index finds on each engine; zeros without an index.
    pub(super) hits: &'a [u32],
}

impl Ask<'_> {
    /// The engines that can be chosen, at least one.
    pub(super) fn engines(&self) -> &[usize] {
        self.up
    }

    /// Tokens of the prompt that would be found on an engine: at most all but one, which is always computed.
    pub(super) fn cached(&self, engine: usize) -> u32 {
        self.hits[engine].min(self.job.prompt_tokens.saturating_sub(1))
    }

    /// Tokens of the prompt that would have to be computed on an engine.
    pub(super) fn uncached(&self, engine: usize) -> u32 {
        self.job.prompt_tokens - self.cached(engine)
    }

    /// Share of the prompt's index blocks found on an engine. A partial last block counts and is never found.
    pub(super) fn matched(&self, engine: usize) -> f64 {
        let Some(index) = self.index else { return 0.0 };
        let spec = index.spec();
        let blocks = self
            .job
            .prompt_tokens
            .min(spec.most_tokens)
            .div_ceil(spec.block_tokens());
        if blocks == 0 {
            return 0.0;
        }
        f64::from(self.hits[engine] / spec.block_tokens()) / f64::from(blocks)
    }
}

/// Where a policy wants a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send(usize),
    Refuse,
}

/// A policy: chooses one of at least one engines.
pub(super) trait Rule: Send {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict;
    /// The job was sent there.
    fn sent(&mut self, _ask: &Ask<'_>, _engine: usize) {}
    /// A job's answer ended after so many tokens.
    fn finished(&mut self, _job: &Flight, _output_tokens: u32) {}
    /// A metrics page came in.
    fn scraped(&mut self, _engine: usize, _gauge: Gauge) {}
}

/// State that all policies share.
pub(super) struct Gateway {
    pub(super) fleet: Fleet,
    index: Option<PrefixIndex>,
    rule: Box<dyn Rule>,
    rng: ChaCha8Rng,
    hits: Vec<u32>,
    /// Engines that are there, ascending.
    up: Vec<usize>,
}

impl Gateway {
    pub(super) fn new(
        engines: &[EngineConfig],
        index: Option<Spec>,
        rule: Box<dyn Rule>,
        seed: u64,
    ) -> Self {
        Self {
            fleet: Fleet::new(engines),
            index: index.map(|spec| PrefixIndex::new(spec, engines)),
            rule,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hits: vec![0; engines.len()],
            up: (0..engines.len()).collect(),
        }
    }

    /// Decides on a job and charges it.
    pub(super) fn place(&mut self, now: f64, job: &Job) -> Placed {
        if self.up.is_empty() {
            return Placed::Shed { job: job.id };
        }
        if let Some(index) = &self.index {
            index.hits(job, &mut self.hits);
        }
        let ask = Ask {
            now,
            job,
            fleet: &self.fleet,
            up: &self.up,
            index: self.index.as_ref(),
            hits: &self.hits,
        };
        let engine = match self.rule.choose(&ask, &mut self.rng) {
            Verdict::Send(engine) => engine,
            Verdict::Refuse => return Placed::Shed { job: job.id },
        };
        self.rule.sent(&ask, engine);
        let cached = ask.cached(engine);
        if let Some(index) = &mut self.index {
            index.insert(engine, &job.blocks, job.prompt_tokens);
        }
        self.fleet.send(now, job, engine, cached);
        Placed::To {
            job: job.id,
            engine: engine as u32,
        }
    }

    pub(super) fn tell(&mut self, now: f64, told: Told) {
        match told {
            Told::FirstToken { job } => {
                self.fleet.first_token(now, job);
            }
            Told::Progress { job, tokens } => self.fleet.progress(job, tokens),
            Told::Finished {
                job, output_tokens, ..
            } => self.finish(now, job, output_tokens),
            Told::Scraped {
                engine,
                running,
                waiting,
                kv_usage,
            } => self.scraped(
                engine as usize,
                Gauge {
                    at: now,
                    running,
                    waiting,
                    kv_usage,
                },
            ),
        }
    }

    fn finish(&mut self, now: f64, job: u64, output_tokens: u32) {
        let Some(flight) = self.fleet.finish(now, job) else {
            return;
        };
        if let Some(index) = self.index.as_mut().filter(|index| index.spec().answers) {
            let tokens = flight.prompt_tokens.saturating_add(output_tokens);
            index.insert(flight.engine, &flight.blocks, tokens);
        }
        self.rule.finished(&flight, output_tokens);
    }

    fn scraped(&mut self, engine: usize, gauge: Gauge) {
        if self.fleet.engines.get(engine).is_some_and(|it| !it.up) {
            self.set_up(engine as u32, true);
        }
        if let Some(view) = self.fleet.engines.get_mut(engine) {
            view.gauge = Some(gauge);
            self.rule.scraped(engine, gauge);
        }
    }

    /// An engine is there or not. One that comes back has an empty cache.
    pub(super) fn set_up(&mut self, engine: u32, up: bool) {
        let engine = engine as usize;
        let Some(view) = self.fleet.engines.get_mut(engine) else {
            return;
        };
        view.up = up;
        view.gauge = None;
        if let Some(index) = &mut self.index {
            index.forget(engine);
        }
        let all = self.fleet.engines.iter().enumerate();
        self.up = all.filter(|(_, it)| it.up).map(|(at, _)| at).collect();
    }

    /// An engine failed a job. One that broke a connection counts as gone until discovery or a metrics page says
    /// otherwise; with `retry` the policy chooses again.
    pub(super) fn failed(&mut self, now: f64, job: &Job, engine: u32, retry: bool) -> Option<u32> {
        if let Some(flight) = self.fleet.release(now, job.id) {
            self.rule.finished(&flight, 0);
        }
        if !retry {
            return None;
        }
        self.set_up(engine, false);
        match self.place(now, job) {
            Placed::To { engine, .. } => Some(engine),
            Placed::Shed { .. } => None,
        }
    }

    pub(super) fn adapters(&mut self, engine: u32, resident: &[u32], wanted: &[u32]) {
        if let Some(view) = self.fleet.engines.get_mut(engine as usize) {
            resident.clone_into(&mut view.resident);
            wanted.clone_into(&mut view.wanted);
        }
    }
}

/// A gateway that places each job when it comes.
pub(super) struct Push {
    gateway: Gateway,
    placed: VecDeque<Placed>,
}

impl Push {
    pub(super) fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            placed: VecDeque::new(),
        }
    }
}

impl Dispatcher for Push {
    fn arrive(&mut self, now: f64, job: &Job) {
        let placed = self.gateway.place(now, job);
        self.placed.push_back(placed);
    }

    fn tell(&mut self, now: f64, told: Told) {
        self.gateway.tell(now, told);
    }

    fn next(&mut self, _now: f64) -> Option<Placed> {
        self.placed.pop_front()
    }

    fn adapters(&mut self, _now: f64, engine: u32, resident: &[u32], wanted: &[u32]) {
        self.gateway.adapters(engine, resident, wanted);
    }

    fn left(&mut self, _now: f64, engine: u32) {
        self.gateway.set_up(engine, false);
    }

    fn joined(&mut self, _now: f64, engine: u32) {
        self.gateway.set_up(engine, true);
    }

    fn failed(&mut self, now: f64, job: &Job, engine: u32, retry: bool) -> Option<u32> {
        self.gateway.failed(now, job, engine, retry)
    }
}

/// The engine of the least cost among `engines`, at random among equals; `None` if there is none.
pub(super) fn least(
    engines: impl IntoIterator<Item = usize>,
    cost: impl Fn(usize) -> f64,
    rng: &mut ChaCha8Rng,
) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    let mut ties = 1_u32;
    for engine in engines {
        let this = cost(engine);
        match best {
            Some((_, least)) if this > least => {}
            Some((_, least)) if this == least => {
                ties += 1;
                if rng.random_range(0..ties) == 0 {
                    best = Some((engine, this));
                }
            }
            _ => {
                best = Some((engine, this));
                ties = 1;
            }
        }
    }
    best.map(|(engine, _)| engine)
}

/// The same over all engines of a fleet that is not empty.
pub(super) fn least_of_all(
    ask: &Ask<'_>,
    cost: impl Fn(usize) -> f64,
    rng: &mut ChaCha8Rng,
) -> Verdict {
    least(ask.engines().iter().copied(), cost, rng).map_or(Verdict::Refuse, Verdict::Send)
}
