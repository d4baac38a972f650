//! The book of jobs: what is known of each, from its arrival to its one outcome.

use rustc_hash::FxHashMap;

use crate::{End, Job, JobOutcome};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In its gateway, not placed yet.
    Queued,
    /// Sent to an engine.
    Sent,
    /// It has its outcome.
    Ended,
}

/// One job's record.
#[derive(Debug)]
pub(super) struct Record {
    /// The job's, at hand.
    pub(super) id: u64,
    pub(super) job: Box<Job>,
    pub(super) gateway: usize,
    pub(super) engine: Option<u32>,
    pub(super) stage: Stage,
    /// How often it was sent to an engine.
    pub(super) attempt: u32,
    /// Of its answer nothing reaches the gateway before the end.
    pub(super) unstreamed: bool,
    /// Nothing crosses the network before what was sent earlier.
    pub(super) reached: f64,
    /// Whether it counts, or belongs to the warm-up.
    pub(super) measured: bool,
    first: Option<f64>,
    ended: Option<(f64, End)>,
    pub(super) cached: u32,
    /// Tokens that reached the gateway.
    pub(super) seen: u32,
}

/// All jobs of a run, by slot: 0, 1, 2 ... in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Book {
    records: Vec<Record>,
    by_id: FxHashMap<u64, usize>,
    /// Jobs without an outcome.
    pub(super) live: usize,
    /// Jobs that wait in a gateway.
    pub(super) queued: u32,
}

impl Book {
    /// Enters a job; `None` if its id was used before.
    pub(super) fn enter(&mut self, job: Box<Job>, gateway: usize, warmup: f64) -> Option<usize> {
        let slot = self.records.len();
        if self.by_id.contains_key(&job.id) {
            return None;
        }
        self.by_id.insert(job.id, slot);
        self.records.push(Record {
            id: job.id,
            measured: !job.warmup && job.at >= warmup,
            job,
            gateway,
            engine: None,
            stage: Stage::Queued,
            attempt: 0,
            unstreamed: false,
            reached: 0.0,
            first: None,
            ended: None,
            cached: 0,
            seen: 0,
        });
        self.live += 1;
        self.queued += 1;
        Some(slot)
    }

    /// The slot of a job that waits in this gateway.
    pub(super) fn queued_at(&self, gateway: usize, id: u64) -> Option<usize> {
        let slot = *self.by_id.get(&id)?;
        let record = &self.records[slot];
        (record.gateway == gateway && record.stage == Stage::Queued).then_some(slot)
    }

    pub(super) fn get(&mut self, slot: usize) -> &mut Record {
        &mut self.records[slot]
    }

    /// A queued job goes to an engine.
    pub(super) fn send(&mut self, slot: usize, engine: u32) {
        let record = &mut self.records[slot];
        self.queued -= u32::from(record.stage == Stage::Queued);
        record.stage = Stage::Sent;
        record.engine = Some(engine);
        record.attempt += 1;
        (record.seen, record.first) = (0, None);
    }

    /// Whether the answer to a job has begun, as far as the gateway knows.
    pub(super) fn begun(&self, slot: usize) -> bool {
        let record = &self.records[slot];
        record.first.is_some() && !record.unstreamed
    }

    /// All jobs so far.
    pub(super) fn slots(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.records.iter().enumerate()
    }

    /// The first token reached the gateway.
    pub(super) fn first(&mut self, slot: usize, now: f64, cached: u32) {
        let record = &mut self.records[slot];
        record.first = Some(now);
        record.cached = cached;
        record.seen = 1;
    }

    /// The job has its outcome.
    pub(super) fn end(&mut self, slot: usize, now: f64, end: End) {
        let record = &mut self.records[slot];
        if record.stage == Stage::Queued {
            self.queued -= 1;
        }
        record.stage = Stage::Ended;
        record.ended = Some((now, end));
        self.live -= 1;
    }

    /// One outcome for each measured job; `over` is when the run ended.
    pub(super) fn outcomes(self, over: f64) -> Vec<JobOutcome> {
        let measured = self.records.into_iter().filter(|record| record.measured);
        measured.map(|record| record.outcome(over)).collect()
    }
}

impl Record {
    fn outcome(&self, over: f64) -> JobOutcome {
        let at = self.job.at;
        let (ended, end) = self.ended.unwrap_or((over, End::Unfinished));
        // Never served is never served: a refusal or a cut answer must not look better than a long wait.
        let first = self.first.filter(|_| end != End::Failed);
        let ttft = first.unwrap_or(over) - at;
        let e2e = if end == End::Finished { ended } else { over } - at;
        let gaps = self.seen.saturating_sub(1);
        let decoding = first.map_or(0.0, |first| ended - first);
        let tpot = if gaps > 0 && first.is_some() {
            decoding / f64::from(gaps)
        } else {
            0.0
        };
        JobOutcome {
            id: self.job.id,
            at,
            ttft,
            tpot,
            e2e,
            end,
            engine: self.engine,
            prompt_tokens: self.job.prompt_tokens,
            cached_tokens: self.cached,
            output_tokens: self.seen,
            priority: self.job.priority,
            flow: self.job.flow,
        }
    }
}
