//! One engine and the time it takes.

use simulator::{AdapterId, Engine, EngineConfig, Output, Sequence};

use super::events::Page;
use crate::Job;

/// An engine, stepped by its own plans.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) engine: Engine,
    stepping: bool,
    /// Whether it is there, and how often it came.
    pub(super) there: bool,
    pub(super) life: u32,
    /// Its steps take so many times as long.
    pub(super) slow: f64,
    /// The page that froze.
    pub(super) frozen: Option<Page>,
    /// Pages it wrote.
    pub(super) pages: u64,
    /// Preemptions and adapter loads of its former lives.
    past: [u64; 2],
    /// Seconds it computed within the measured window.
    pub(super) busy: f64,
}

impl Host {
    pub(super) fn new(config: EngineConfig, seed: u64) -> Self {
        Self {
            engine: Engine::new(config, seed),
            stepping: false,
            there: true,
            life: 0,
            slow: 1.0,
            frozen: None,
            pages: 0,
            past: [0; 2],
            busy: 0.0,
        }
    }

    /// It is gone, and with it all that it did and knew; `seed` is that of its next life.
    pub(super) fn lose(&mut self, seed: u64) {
        self.past = self.counted();
        self.engine = Engine::new(self.engine.config().clone(), seed);
        self.there = false;
        self.stepping = false;
        self.life += 1;
    }

    /// Preemptions and adapter loads of all its lives.
    pub(super) fn counted(&self) -> [u64; 2] {
        let stats = self.engine.stats();
        [
            self.past[0] + stats.preemptions,
            self.past[1] + stats.adapter_loads,
        ]
    }

    /// Puts a job into the engine's queue under the name `slot`, of whose prompt the first `given` blocks need not be
    /// computed; false if the engine refuses it.
    pub(super) fn submit(&mut self, now: f64, slot: usize, job: &Job, given: u32) -> bool {
        let sequence = Sequence {
            id: slot as u64,
            prompt: job.blocks.clone(),
            prompt_tokens: job.prompt_tokens,
            output_tokens: job.output_tokens,
            adapter: job.adapter.map(AdapterId),
            // The engine's smaller goes first, a request's larger.
            priority: job.priority.saturating_neg(),
        };
        self.engine.submit_with(now, sequence, given).is_ok()
    }

    /// Starts a step if none is under way and there is work; returns when it will be over.
    pub(super) fn start(&mut self, now: f64, window: [f64; 2]) -> Option<f64> {
        if self.stepping {
            return None;
        }
        let plan = self.engine.step(now)?;
        self.stepping = true;
        let end = now + plan.duration * self.slow;
        self.busy += (end.min(window[1]) - now.max(window[0])).max(0.0);
        Some(end)
    }

    /// Books the step that is over.
    pub(super) fn finish(&mut self, now: f64, outputs: &mut Vec<Output>) {
        self.stepping = false;
        self.engine.finish_step(now, outputs);
    }

    /// Its metrics page as of now.
    pub(super) fn page(&self, engine: usize) -> Page {
        let stats = self.engine.stats();
        let names = |ids: &[AdapterId]| ids.iter().map(|id| id.0).collect();
        Page {
            engine,
            running: stats.running as u32,
            waiting: stats.waiting as u32,
            kv_usage: stats.kv_usage,
            resident: names(&stats.resident_adapters),
            wanted: names(&stats.waiting_adapters),
        }
    }
}
