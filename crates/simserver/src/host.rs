//! Lets an engine run in real time.
//!
//! One task plans a step, sleeps for its duration and books it. It follows a schedule rather than its own clock
//! readings: a step that is booked late does not delay the ones after it, so timer granularity does not add up. Who
//! waits for tokens is told through a counter and a wake-up, never through a queue that could fill.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use simulator::{AdapterId, Engine, Output, OutputKind, Refused, Sequence, Stats};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{Metrics, RequestRecord};
use crate::options::SimOptions;
use crate::plan::Finish;

/// The longest that the schedule may lag behind the clock before it gives up catching up.
const LAG: Duration = Duration::from_millis(200);
/// Sleeps shorter than a timer tick become a turn for other tasks.
const TICK: Duration = Duration::from_millis(1);

/// How far one sequence is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) generated: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) end: Option<End>,
}

/// Why no more tokens will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Aborted,
}

/// Where a request watches its sequences.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) changed: Notify,
    progress: Mutex<Vec<Progress>>,
}

impl Outlet {
    pub(crate) fn new(sequences: usize) -> Arc<Self> {
        Arc::new(Self {
            changed: Notify::new(),
            progress: Mutex::new(vec![Progress::default(); sequences]),
        })
    }

    pub(crate) fn progress(&self, index: usize) -> Progress {
        self.progress.lock()[index]
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock()[index]);
        self.changed.notify_one();
    }
}

/// A sequence to start.
pub(crate) struct Start {
    pub(crate) sequence: Sequence,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) index: usize,
    pub(crate) finish: Finish,
    pub(crate) max_tokens: u32,
    pub(crate) choices: u32,
}

struct Live {
    outlet: Arc<Outlet>,
    index: usize,
    finish: Finish,
    submitted: Instant,
    last_token: Instant,
    record: RequestRecord,
}

struct Inner {
    engine: Engine,
    live: FxHashMap<u64, Live>,
    metrics: Metrics,
    outputs: Vec<Output>,
    adapter_names: Vec<String>,
    adapters_shown: (Vec<AdapterId>, Vec<AdapterId>),
    next_id: u64,
}

/// The engine, its clock and its books.
pub(crate) struct Host {
    inner: Mutex<Inner>,
    work: Notify,
    started: Instant,
    speed: f64,
}

impl Host {
    pub(crate) fn new(options: &SimOptions) -> Arc<Self> {
        let inner = Inner {
            engine: Engine::new(options.engine_config(), options.seed),
            live: FxHashMap::default(),
            metrics: Metrics::new(),
            outputs: Vec::new(),
            adapter_names: Vec::new(),
            adapters_shown: Default::default(),
            next_id: 0,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            work: Notify::new(),
            started: Instant::now(),
            speed: options.speed,
        })
    }

    /// Engine time of an instant, seconds.
    fn engine_time(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.started).as_secs_f64() * self.speed
    }

    /// Runs the engine for ever.
    pub(crate) async fn drive(self: Arc<Self>) {
        let mut due = Instant::now();
        loop {
            let planned = self.plan(due);
            let Some(seconds) = planned else {
                self.work.notified().await;
                due = due.max(Instant::now());
                continue;
            };
            due += Duration::from_secs_f64(seconds / self.speed);
            let now = Instant::now();
            if due > now + TICK {
                tokio::time::sleep_until(due).await;
            } else {
                tokio::task::yield_now().await;
                due = due.max(now.checked_sub(LAG).unwrap_or(now));
            }
            self.book(due);
        }
    }

    fn plan(&self, at: Instant) -> Option<f64> {
        let now = self.engine_time(at);
        let mut inner = self.inner.lock();
        let plan = inner.engine.step(now)?;
        inner
            .metrics
            .iteration_tokens
            .observe(f64::from(plan.prefill_tokens + plan.decode_tokens));
        Some(plan.duration)
    }

    fn book(&self, at: Instant) {
        let now = self.engine_time(at);
        let clock = Instant::now();
        let mut inner = self.inner.lock();
        let mut outputs = std::mem::take(&mut inner.outputs);
        inner.engine.finish_step(now, &mut outputs);
        for output in outputs.drain(..) {
            inner.deliver(output, clock, self.speed);
        }
        inner.outputs = outputs;
        inner.show_adapters();
    }

    /// A number for a sequence to start.
    pub(crate) fn next_id(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.next_id += 1;
        inner.next_id
    }

    /// Puts a sequence into the engine's queue.
    pub(crate) fn start(&self, start: Start) -> Result<(), Refused> {
        let clock = Instant::now();
        let id = start.sequence.id;
        let record = RequestRecord {
            prompt_tokens: start.sequence.prompt_tokens,
            cached_tokens: 0,
            generated: 0,
            max_tokens: start.max_tokens,
            choices: start.choices,
            preemptions: 0,
            e2e: 0.0,
            queue: 0.0,
            first_token: 0.0,
        };
        let live = Live {
            outlet: start.outlet,
            index: start.index,
            finish: start.finish,
            submitted: clock,
            last_token: clock,
            record,
        };
        let mut inner = self.inner.lock();
        if let Err(refused) = inner.engine.submit(self.engine_time(clock), start.sequence) {
            inner.metrics.rejected += u64::from(matches!(refused, Refused::QueueFull { .. }));
            return Err(refused);
        }
        inner.live.insert(id, live);
        inner.show_adapters();
        drop(inner);
        self.work.notify_one();
        Ok(())
    }

    /// Ends a sequence whose client is gone.
    pub(crate) fn abort(&self, id: u64) {
        let mut inner = self.inner.lock();
        if inner.live.remove(&id).is_some() {
            inner.engine.abort(id);
            inner.show_adapters();
        }
    }

    /// Ends every sequence and tells those who wait for it.
    pub(crate) fn abort_all(&self) {
        let mut inner = self.inner.lock();
        for (id, live) in std::mem::take(&mut inner.live) {
            inner.engine.abort(id);
            inner.metrics.finished.abort += 1;
            live.outlet
                .update(live.index, |progress| progress.end = Some(End::Aborted));
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.inner.lock().engine.stats()
    }

    /// Runs with what the metrics page is made of.
    pub(crate) fn with_metrics<T>(&self, read: impl FnOnce(&Stats, &mut Metrics) -> T) -> T {
        let mut inner = self.inner.lock();
        let stats = inner.engine.stats();
        read(&stats, &mut inner.metrics)
    }

    pub(crate) fn reset_prefix_cache(&self) -> bool {
        self.inner.lock().engine.reset_prefix_cache()
    }

    /// The engine's number for an adapter name. Names keep their numbers for ever.
    pub(crate) fn adapter(&self, name: &str) -> AdapterId {
        let mut inner = self.inner.lock();
        let names = &mut inner.adapter_names;
        let index = names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            });
        AdapterId(index as u32)
    }

    pub(crate) fn unload_adapter(&self, name: &str) {
        let adapter = self.adapter(name);
        self.inner.lock().engine.unload_adapter(adapter);
    }
}

impl Inner {
    fn deliver(&mut self, output: Output, clock: Instant, speed: f64) {
        let Some(live) = self.live.get_mut(&output.id) else {
            return;
        };
        match output.kind {
            OutputKind::FirstToken {
                cached_tokens,
                queued,
            } => {
                let waited = (clock - live.submitted).as_secs_f64();
                live.record.cached_tokens = cached_tokens;
                live.record.queue = queued / speed;
                live.record.first_token = waited;
                live.record.generated = 1;
                live.last_token = clock;
                self.metrics.time_to_first_token.observe(waited);
                self.metrics.prompt_tokens_cached += u64::from(cached_tokens);
                live.outlet.update(live.index, |progress| {
                    progress.generated = 1;
                    progress.cached_tokens = cached_tokens;
                });
            }
            OutputKind::Tokens(count) => {
                live.record.generated += count;
                self.metrics
                    .inter_token_latency
                    .observe((clock - live.last_token).as_secs_f64());
                live.last_token = clock;
                live.outlet
                    .update(live.index, |progress| progress.generated += count);
            }
            OutputKind::Preempted => live.record.preemptions += 1,
            OutputKind::Finished { .. } => self.finish(output.id, clock),
        }
    }

    fn finish(&mut self, id: u64, clock: Instant) {
        let Some(mut live) = self.live.remove(&id) else {
            return;
        };
        live.record.e2e = (clock - live.submitted).as_secs_f64();
        if live.record.generated == 0 {
            live.record.first_token = live.record.e2e;
        }
        self.metrics.finish(&live.record);
        match live.finish {
            Finish::Length => self.metrics.finished.length += 1,
            Finish::Stop => self.metrics.finished.stop += 1,
        }
        live.outlet
            .update(live.index, |progress| progress.end = Some(End::Done));
    }

    /// Keeps `lora_requests_info` at what runs and waits.
    fn show_adapters(&mut self) {
        if self.adapter_names.is_empty() {
            return;
        }
        let (running, waiting) = self.engine.adapters_in_use();
        if (&running, &waiting) == (&self.adapters_shown.0, &self.adapters_shown.1) {
            return;
        }
        let names = |ids: &[AdapterId]| {
            let known = ids
                .iter()
                .filter_map(|id| self.adapter_names.get(id.0 as usize));
            known.map(String::as_str).collect::<Vec<_>>().join(",")
        };
        self.metrics.adapters(&names(&running), &names(&waiting));
        self.adapters_shown = (running, waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_engine_keeps_its_schedule() {
        let options = SimOptions {
            speed: 2.0,
            ..SimOptions::default()
        };
        let host = Host::new(&options);
        let engine = tokio::spawn(Arc::clone(&host).drive());
        let outlet = Outlet::new(1);
        let begun = Instant::now();
        let start = Start {
            sequence: Sequence {
                prompt_tokens: 100,
                output_tokens: 1000,
                ..Sequence::new(1)
            },
            outlet: Arc::clone(&outlet),
            index: 0,
            finish: Finish::Length,
            max_tokens: 1000,
            choices: 1,
        };
        host.start(start).unwrap();
        while outlet.progress(0).end.is_none() {
            outlet.changed.notified().await;
        }
        let (took, busy) = (begun.elapsed().as_secs_f64(), host.stats().busy_seconds);
        assert_eq!(outlet.progress(0).generated, 1000);
        assert!(busy > 7.0);
        assert!(
            (took - busy / 2.0).abs() < 0.002,
            "{took} s for {busy} s at double speed"
        );
        engine.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn aborts_reach_those_who_wait() {
        let host = Host::new(&SimOptions::default());
        let outlet = Outlet::new(1);
        let start = Start {
            sequence: Sequence {
                output_tokens: 1000,
                ..Sequence::new(1)
            },
            outlet: Arc::clone(&outlet),
            index: 0,
            finish: Finish::Length,
            max_tokens: 1000,
            choices: 1,
        };
        host.start(start).unwrap();
        host.abort_all();
        outlet.changed.notified().await;
        assert_eq!(outlet.progress(0).end, Some(End::Aborted));
        assert_eq!((host.stats().waiting, host.stats().aborted), (0, 1));
    }
}
