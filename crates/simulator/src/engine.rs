//! The scheduler of one engine.
//!
//! A step has two halves. [`Engine::step`] decides what the step computes and how long that takes; the host lets
//! that time pass; [`Engine::finish_step`] books the results. Sequences may be submitted or aborted in between: a
//! submitted one waits for the next step, an aborted one's share of the step is wasted, as on a GPU.
//!
//! Sequences that only decode, one token in each step, are not looked at one by one: see [`batch`].

mod batch;
mod book;
mod schedule;

use std::collections::VecDeque;
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rustc_hash::FxHashMap;

use self::batch::Batch;
use crate::adapters::Adapters;
use crate::blocks::{BlockPool, CacheEvent};
use crate::config::{EngineConfig, QueuePolicy};
use crate::hash::BlockHash;
use crate::profiles::Work;
use crate::sequence::{AdapterId, Refused, Sequence};
use crate::stats::Stats;

/// A step that the engine is about to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepPlan {
    /// How long it takes, seconds.
    pub duration: f64,
    /// Prompt tokens in it.
    pub prefill_tokens: u32,
    /// Decoding sequences in it.
    pub decode_tokens: u32,
}

/// A sequence inside the engine. Vacant places keep their block list's memory for the next one.
#[derive(Debug, Clone)]
struct Place {
    id: u64,
    /// Order of arrival.
    serial: u64,
    names: Arc<[BlockHash]>,
    prompt_tokens: u32,
    output_tokens: u32,
    generated: u32,
    /// Of those, how many no output told of yet.
    unreported: u32,
    /// Tokens whose keys and values are in `blocks`.
    computed: u32,
    /// Blocks of the front of `blocks` that have been named (or need no name any more).
    published: u32,
    /// Blocks of the prompt's front that need not be computed, wherever they come from.
    given: u32,
    blocks: Vec<u32>,
    adapter: Option<AdapterId>,
    priority: i32,
    submitted: f64,
    queued: f64,
    cached: u32,
    admitted: bool,
    running: bool,
    /// For how many steps it was left alone; it is behind by those of them that are over.
    quiet: u8,
}

impl Place {
    fn tokens(&self) -> u32 {
        self.prompt_tokens + self.generated
    }
}

/// A place in the queue, with its adapter, so that those that must be passed over can be without a look at them.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    place: u32,
    adapter: Option<AdapterId>,
}

/// An awake place's share of the step. Shares stand in the order of the batch.
#[derive(Debug, Clone, Copy)]
struct Share {
    place: u32,
    /// Where it stands in the batch.
    index: u32,
    tokens: u32,
    /// Tokens computed before.
    start: u32,
    /// One token more for an answer, as opposed to a part of a prompt.
    decode: bool,
}

/// The head of the queue did not fit; nothing can have changed that until one of these does.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Blocked {
    serial: u64,
    free: u32,
    prompts_published: u64,
    /// Blocks of it that were found.
    here: u32,
}

#[derive(Debug, Clone, Default)]
struct Counters {
    prefix_queries: u64,
    prefix_hits: u64,
    preemptions: u64,
    prompt_tokens: u64,
    generation_tokens: u64,
    computed_tokens: u64,
    steps: u64,
    busy_seconds: f64,
    finished: u64,
    aborted: u64,
    refused: u64,
}

/// One engine. See the crate's documentation for how to drive it. A clone goes on by itself from the same state, noise
/// included.
#[derive(Debug, Clone)]
pub struct Engine {
    config: EngineConfig,
    limit: u32,
    pool: BlockPool,
    adapters: Adapters,
    places: Vec<Place>,
    vacant: Vec<u32>,
    by_id: FxHashMap<u64, u32>,
    batch: Batch,
    waiting: VecDeque<Waiting>,
    shares: Vec<Share>,
    /// A step is planned and not booked.
    planned: bool,
    /// Kept for its memory.
    over: Vec<u32>,
    preempted: Vec<u64>,
    load_seconds: f64,
    deferred: usize,
    blocked: Option<Blocked>,
    prompts_published: u64,
    next_serial: u64,
    counters: Counters,
    rng: ChaCha8Rng,
}

impl Engine {
    /// An empty engine. `seed` drives the step noise, the only randomness.
    #[must_use]
    pub fn new(config: EngineConfig, seed: u64) -> Self {
        let limit = config.sequence_limit();
        Self {
            pool: BlockPool::new(config.kv_blocks),
            adapters: Adapters::new(config.lora),
            config,
            limit,
            places: Vec::new(),
            vacant: Vec::new(),
            by_id: FxHashMap::default(),
            batch: Batch::default(),
            waiting: VecDeque::new(),
            shares: Vec::new(),
            planned: false,
            over: Vec::new(),
            preempted: Vec::new(),
            load_seconds: 0.0,
            deferred: 0,
            blocked: None,
            prompts_published: 0,
            next_serial: 0,
            counters: Counters::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Puts a sequence into the queue.
    ///
    /// # Errors
    /// Refused when it can never run here, when its id is in use, or when the queue is full.
    pub fn submit(&mut self, now: f64, sequence: Sequence) -> Result<(), Refused> {
        self.submit_with(now, sequence, 0)
    }

    /// Puts a sequence into the queue whose first `given` blocks come from elsewhere, at no cost but their space, when
    /// it is first admitted: a cache that engines share. They count as cached.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_with(&mut self, now: f64, sequence: Sequence, given: u32) -> Result<(), Refused> {
        if let Err(refused) = self.admissible(&sequence) {
            self.counters.refused += 1;
            return Err(refused);
        }
        if let Some(adapter) = sequence.adapter {
            self.adapters.wait(adapter);
        }
        let place = self.settle(now, sequence);
        self.places[place as usize].given = given;
        self.enqueue(place);
        Ok(())
    }

    fn admissible(&self, sequence: &Sequence) -> Result<(), Refused> {
        if sequence.prompt_tokens == 0 {
            return Err(Refused::Empty);
        }
        let room = self
            .limit
            .saturating_sub(u32::from(sequence.output_tokens > 0));
        if sequence.prompt_tokens > room {
            return Err(Refused::TooLong {
                tokens: sequence.prompt_tokens,
                limit: self.limit,
            });
        }
        if sequence.adapter.is_some() && !self.adapters.enabled() {
            return Err(Refused::NoAdapters);
        }
        if self.by_id.contains_key(&sequence.id) {
            return Err(Refused::DuplicateId);
        }
        match self.config.max_waiting {
            Some(limit) if self.waiting.len() >= limit => Err(Refused::QueueFull { limit }),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, now: f64, sequence: Sequence) -> u32 {
        let serial = self.next_serial;
        self.next_serial += 1;
        let mut place = Place {
            id: sequence.id,
            serial,
            names: sequence.prompt,
            prompt_tokens: sequence.prompt_tokens,
            output_tokens: sequence.output_tokens,
            generated: 0,
            unreported: 0,
            computed: 0,
            published: 0,
            given: 0,
            blocks: Vec::new(),
            adapter: sequence.adapter,
            priority: sequence.priority,
            submitted: now,
            queued: 0.0,
            cached: 0,
            admitted: false,
            running: false,
            quiet: 0,
        };
        let at = if let Some(at) = self.vacant.pop() {
            let old = &mut self.places[at as usize];
            place.blocks = std::mem::take(&mut old.blocks);
            *old = place;
            at
        } else {
            self.places.push(place);
            (self.places.len() - 1) as u32
        };
        self.by_id.insert(sequence.id, at);
        at
    }

    /// Puts a place where its turn is: new ones at the end, preempted ones (which are older) at the front.
    fn enqueue(&mut self, at: u32) {
        let key = self.queue_key(at);
        let places = &self.places;
        let before = match self.config.policy {
            QueuePolicy::Fcfs => self
                .waiting
                .partition_point(|other| places[other.place as usize].serial < key.1),
            QueuePolicy::Priority => self.waiting.partition_point(|other| {
                let other = &places[other.place as usize];
                (other.priority, other.serial) < key
            }),
        };
        let adapter = places[at as usize].adapter;
        self.waiting.insert(before, Waiting { place: at, adapter });
    }

    fn queue_key(&self, at: u32) -> (i32, u64) {
        let place = &self.places[at as usize];
        (place.priority, place.serial)
    }

    /// Plans the next step. `None` means that there is nothing to do until the next submission.
    ///
    /// Call [`Engine::finish_step`] before the next step, `duration` later.
    pub fn step(&mut self, now: f64) -> Option<StepPlan> {
        self.shares.clear();
        self.load_seconds = 0.0;
        // A pass that only preempts leaves nothing to compute, but blocks: the next one does better.
        while self.schedule(now) && self.is_idle() {}
        self.planned = !self.is_idle();
        if !self.planned {
            return None;
        }
        let work = self.work();
        let duration = self.duration(&work);
        self.counters.steps += 1;
        self.counters.busy_seconds += duration;
        Some(StepPlan {
            duration,
            prefill_tokens: work.prefill_tokens as u32,
            decode_tokens: work.decode_tokens as u32,
        })
    }

    /// Whether nobody has a share of the step.
    fn is_idle(&self) -> bool {
        self.shares.is_empty() && self.batch.decodes() == 0
    }

    /// One pass of the scheduler. True if it preempted.
    fn schedule(&mut self, now: f64) -> bool {
        let mut budget = self.config.max_batched_tokens;
        let preempted = self.schedule_running(&mut budget);
        if !preempted {
            self.schedule_waiting(now, &mut budget);
        }
        preempted
    }

    fn work(&self) -> Work {
        let quiet = u64::from(self.batch.decodes());
        let mut work = Work {
            decode_tokens: quiet,
            context: self.batch.context(),
            sequences: quiet,
            ..Work::default()
        };
        for share in &self.shares {
            if share.decode {
                work.decode(share.start);
            } else {
                work.prefill(share.start, share.tokens);
            }
        }
        work
    }

    fn duration(&mut self, work: &Work) -> f64 {
        let base = self.config.profile.step_seconds(work) * self.adapters.step_factor();
        let sigma = self.config.step_noise;
        let noise = if sigma > 0.0 {
            let normal: f64 = StandardNormal.sample(&mut self.rng);
            (sigma * normal - sigma * sigma / 2.0).exp()
        } else {
            1.0
        };
        base * noise + self.load_seconds
    }

    /// Ends a sequence from outside, wherever it is, without an output. False if there is none of that id.
    pub fn abort(&mut self, id: u64) -> bool {
        let Some(&at) = self.by_id.get(&id) else {
            return false;
        };
        if let Some(index) = self.batch.position(at) {
            self.leave(index);
        } else {
            self.waiting.retain(|other| other.place != at);
            if let Some(adapter) = self.places[at as usize].adapter {
                self.adapters.stop_waiting(adapter);
            }
        }
        self.preempted.retain(|other| *other != id);
        self.vacate(at);
        self.counters.aborted += 1;
        true
    }

    /// Drops an unused adapter from GPU and host memory, so that its next use loads it again.
    pub fn unload_adapter(&mut self, adapter: AdapterId) {
        self.adapters.unload(adapter);
    }

    /// Adapters with a running sequence and adapters with a waiting one, each ascending.
    #[must_use]
    pub fn adapters_in_use(&self) -> (Vec<AdapterId>, Vec<AdapterId>) {
        (self.adapters.running(), self.adapters.waiting())
    }

    /// Forgets every cached block, unless sequences are running (vLLM's `/reset_prefix_cache`). Returns whether it
    /// did.
    pub fn reset_prefix_cache(&mut self) -> bool {
        if self.pool.free() < self.pool.total() {
            return false;
        }
        self.pool.forget();
        true
    }

    /// Starts or stops keeping [`CacheEvent`]s. Off at the start.
    pub fn record_cache_events(&mut self, on: bool) {
        self.pool.record_events(on);
    }

    /// Moves the events since the last call to the end of `into`.
    pub fn drain_cache_events(&mut self, into: &mut Vec<CacheEvent>) {
        self.pool.drain_events(into);
    }

    /// How many of the chain's leading blocks can be hit right now: the truth that a gateway can only estimate.
    #[must_use]
    pub fn cached_prefix_blocks(&self, chain: &[BlockHash]) -> usize {
        chain
            .iter()
            .take_while(|hash| self.pool.find(**hash).is_some())
            .count()
    }

    /// A snapshot for scrapers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let total = self.pool.total();
        let counters = &self.counters;
        Stats {
            running: self.batch.len(),
            waiting: self.waiting.len(),
            deferred: self.deferred.min(self.waiting.len()),
            kv_usage: f64::from(total - self.pool.free()) / f64::from(total.max(1)),
            cached_blocks: self.pool.named(),
            prefix_queries: counters.prefix_queries,
            prefix_hits: counters.prefix_hits,
            preemptions: counters.preemptions,
            prompt_tokens: counters.prompt_tokens,
            generation_tokens: counters.generation_tokens,
            computed_tokens: counters.computed_tokens,
            steps: counters.steps,
            busy_seconds: counters.busy_seconds,
            finished: counters.finished,
            aborted: counters.aborted,
            refused: counters.refused,
            adapter_loads: self.adapters.loads,
            resident_adapters: self.adapters.resident(),
            running_adapters: self.adapters.running(),
            waiting_adapters: self.adapters.waiting(),
        }
    }
}

#[cfg(test)]
impl Engine {
    /// Every block is held by exactly those sequences that list it; lists and places agree.
    pub(crate) fn check(&self) {
        self.pool.check();
        let mut refs = vec![0_u32; self.pool.total() as usize];
        let (mut decodes, mut context) = (0, 0);
        for (index, at) in self.batch.places().iter().enumerate() {
            let place = &self.places[*at as usize];
            assert!(place.running && place.tokens() <= self.limit);
            let left = self.batch.quiet(index);
            decodes += u32::from(left > 0);
            context +=
                u64::from(left > 0) * u64::from(place.computed + u32::from(place.quiet - left));
            let mut own: Vec<u32> = place.blocks.clone();
            own.iter().for_each(|block| refs[*block as usize] += 1);
            own.sort_unstable();
            own.dedup();
            assert_eq!(
                own.len(),
                place.blocks.len(),
                "a sequence holds a block twice"
            );
            assert!(place.blocks.len() as u32 * self.config.block_tokens >= place.computed);
        }
        assert_eq!(
            (decodes, context),
            (self.batch.decodes(), self.batch.context())
        );
        for share in &self.shares {
            assert_eq!(self.batch.places()[share.index as usize], share.place);
        }
        assert_eq!(refs, self.pool.refs());
        for waiting in &self.waiting {
            let place = &self.places[waiting.place as usize];
            assert!(!place.running && place.blocks.is_empty());
            assert_eq!(place.adapter, waiting.adapter);
        }
        let open = self.waiting.iter().filter(|it| match it.adapter {
            Some(adapter) => self.adapters.open_for(adapter),
            None => true,
        });
        assert_eq!(open.count(), self.adapters.open_among(self.waiting.len()));
        assert_eq!(self.batch.len() + self.waiting.len(), self.by_id.len());
        assert_eq!(self.places.len(), self.by_id.len() + self.vacant.len());
    }
}
