//! What a gateway can know of its engines by itself: what it sent, whose first token and end it saw, and what the
//! metrics pages said when they were last read.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use simulator::profiles::Work;
use simulator::{BlockHash, EngineConfig};

use crate::Job;

/// An engine's metrics page as it was last read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauge {
    /// When it came in, seconds.
    pub(super) at: f64,
    /// Requests running.
    pub(super) running: u32,
    /// Requests waiting.
    pub(super) waiting: u32,
    /// Share of the KV cache in use.
    pub(super) kv_usage: f64,
}

/// A job that was sent and has not ended.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) engine: usize,
    pub(super) prompt_tokens: u32,
    pub(super) blocks: Arc<[BlockHash]>,
    sent_at: f64,
    decoding: bool,
    output_tokens: u32,
}

/// A prefill that has not shown its first token.
#[derive(Debug)]
struct Pending {
    job: u64,
    tokens: u32,
    seconds: f64,
}

/// One engine as the gateway sees it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) config: EngineConfig,
    /// Whether discovery has it and it answers, as far as the gateway knows.
    pub(super) up: bool,
    /// Jobs sent and not ended.
    pub(super) in_flight: u32,
    /// Of them, those whose first token passed.
    pub(super) decoding: u32,
    /// Uncached prompt tokens of those whose first token did not.
    pub(super) pending_tokens: u64,
    /// Tokens, of prompts and answers, of all jobs in flight.
    pub(super) context_tokens: u64,
    /// Tokens of the jobs that decode.
    decoding_tokens: u64,
    pub(super) gauge: Option<Gauge>,
    /// Adapters that need no loading, as the page has them.
    pub(super) resident: Vec<u32>,
    /// Adapters that requests wait for.
    pub(super) wanted: Vec<u32>,
    pending: VecDeque<Pending>,
    /// When the oldest prefill began, as far as the gateway can tell.
    prefill_since: f64,
    /// Mean seconds from dispatch to the end, smoothed over about 20 jobs.
    residence: f64,
}

const RESIDENCE_SHARE: f64 = 0.05;

impl View {
    fn new(config: &EngineConfig) -> Self {
        Self {
            config: config.clone(),
            up: true,
            in_flight: 0,
            decoding: 0,
            pending_tokens: 0,
            context_tokens: 0,
            decoding_tokens: 0,
            gauge: None,
            resident: Vec::new(),
            wanted: Vec::new(),
            pending: VecDeque::new(),
            prefill_since: 0.0,
            residence: 0.0,
        }
    }

    /// Waiting requests of the last page; none before the first.
    pub(super) fn waiting(&self) -> u32 {
        self.gauge.map_or(0, |gauge| gauge.waiting)
    }

    /// Waiting and running requests of the last page.
    pub(super) fn scraped_load(&self) -> u32 {
        self.gauge.map_or(0, |gauge| gauge.waiting + gauge.running)
    }

    /// Share of the KV cache in use on the last page.
    pub(super) fn kv_usage(&self) -> f64 {
        self.gauge.map_or(0.0, |gauge| gauge.kv_usage)
    }

    /// Tokens that the KV cache holds.
    pub(super) fn kv_tokens(&self) -> f64 {
        f64::from(self.config.kv_blocks) * f64::from(self.config.block_tokens)
    }

    /// Seconds of prefill that jobs sent before would still take alone: all of those without a first token, less what
    /// the oldest had time for.
    pub(super) fn work_left(&self, now: f64) -> f64 {
        let all: f64 = self.pending.iter().map(|p| p.seconds).sum();
        let done = self
            .pending
            .front()
            .map_or(0.0, |p| p.seconds.min(now - self.prefill_since));
        (all - done).max(0.0)
    }

    /// Seconds of a prefill alone, in chunks of the step's budget.
    pub(super) fn prefill_seconds(&self, cached: u32, uncached: u32) -> f64 {
        let profile = &self.config.profile;
        let (h, u) = (f64::from(cached), f64::from(uncached));
        let chunks = uncached
            .div_ceil(self.config.max_batched_tokens.max(1))
            .max(1);
        let linear = (profile.a * u).max(profile.w_base);
        profile.c0 * f64::from(chunks) + linear + profile.q * u * (h + u / 2.0)
    }

    /// Seconds of a step that only decodes: the jobs that decode now and one more of `extra` tokens.
    pub(super) fn decode_seconds(&self, extra: Option<u32>) -> f64 {
        let sequences = u64::from(self.decoding) + u64::from(extra.is_some());
        if sequences == 0 {
            return 0.0;
        }
        self.config.profile.step_seconds(&Work {
            decode_tokens: sequences,
            context: self.decoding_tokens + u64::from(extra.unwrap_or(0)),
            sequences,
            ..Work::default()
        })
    }

    /// Seconds by which the present decodes lengthen each step that also prefills.
    pub(super) fn decode_share(&self) -> f64 {
        let profile = &self.config.profile;
        f64::from(self.decoding) * (profile.a + profile.s)
            + profile.k_v * self.decoding_tokens as f64
    }

    /// Tokens of KV cache that ending jobs free in a second.
    pub(super) fn release_rate(&self) -> Option<f64> {
        (self.residence > 0.0 && self.context_tokens > 0)
            .then(|| self.context_tokens as f64 / self.residence)
    }

    fn prefilled(&mut self, now: f64, job: u64) {
        let Some(place) = self.pending.iter().position(|p| p.job == job) else {
            return;
        };
        if let Some(done) = self.pending.remove(place) {
            self.pending_tokens -= u64::from(done.tokens);
        }
        if place == 0 {
            self.prefill_since = now;
        }
    }
}

/// All engines, and the jobs in flight.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) engines: Vec<View>,
    flights: FxHashMap<u64, Flight>,
}

impl Fleet {
    pub(super) fn new(engines: &[EngineConfig]) -> Self {
        Self {
            engines: engines.iter().map(View::new).collect(),
            flights: FxHashMap::default(),
        }
    }

    /// Charges a job to an engine.
    pub(super) fn send(&mut self, now: f64, job: &Job, engine: usize, cached_tokens: u32) {
        let view = &mut self.engines[engine];
        let tokens = job.prompt_tokens - cached_tokens;
        if view.pending.is_empty() {
            view.prefill_since = now;
        }
        let seconds = view.prefill_seconds(cached_tokens, tokens);
        view.pending.push_back(Pending {
            job: job.id,
            tokens,
            seconds,
        });
        view.in_flight += 1;
        view.pending_tokens += u64::from(tokens);
        view.context_tokens += u64::from(job.prompt_tokens);
        let flight = Flight {
            engine,
            prompt_tokens: job.prompt_tokens,
            blocks: Arc::clone(&job.blocks),
            sent_at: now,
            decoding: false,
            output_tokens: 0,
        };
        self.flights.insert(job.id, flight);
    }

    /// The first token of a job passed; returns the job unless it is unknown or had one before.
    pub(super) fn first_token(&mut self, now: f64, job: u64) -> Option<Flight> {
        let flight = self.flights.get_mut(&job).filter(|f| !f.decoding)?;
        flight.decoding = true;
        let view = &mut self.engines[flight.engine];
        view.prefilled(now, job);
        view.decoding += 1;
        view.decoding_tokens += u64::from(flight.prompt_tokens) + u64::from(flight.output_tokens);
        Some(flight.clone())
    }

    /// Tokens of a job's answer passed.
    pub(super) fn progress(&mut self, job: u64, tokens: u32) {
        let Some(flight) = self.flights.get_mut(&job) else {
            return;
        };
        flight.output_tokens += tokens;
        let view = &mut self.engines[flight.engine];
        view.context_tokens += u64::from(tokens);
        if flight.decoding {
            view.decoding_tokens += u64::from(tokens);
        }
    }

    /// A job ended; returns it unless it is unknown.
    pub(super) fn finish(&mut self, now: f64, job: u64) -> Option<Flight> {
        let flight = self.release(now, job)?;
        let view = &mut self.engines[flight.engine];
        let seconds = now - flight.sent_at;
        view.residence = if view.residence > 0.0 {
            view.residence + RESIDENCE_SHARE * (seconds - view.residence)
        } else {
            seconds
        };
        Some(flight)
    }

    /// Takes a job's charge back; returns it unless it is unknown.
    pub(super) fn release(&mut self, now: f64, job: u64) -> Option<Flight> {
        self.first_token(now, job);
        let flight = self.flights.remove(&job)?;
        let view = &mut self.engines[flight.engine];
        let tokens = u64::from(flight.prompt_tokens) + u64::from(flight.output_tokens);
        view.in_flight -= 1;
        view.decoding -= 1;
        view.context_tokens -= tokens;
        view.decoding_tokens -= tokens;
        Some(flight)
    }
}
