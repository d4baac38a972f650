//! One engine and the time it takes.

use simulator::{AdapterId, Engine, EngineConfig, Output, Sequence};

use super::events::Page;
use crate::Job;

/// An engine, stepped by its own plans.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) engine: Engine,
    stepping: bool,
    /// Seconds it computed within the measured window.
    pub(super) busy: f64,
}

impl Host {
    pub(super) fn new(config: EngineConfig, seed: u64) -> Self {
        Self {
            engine: Engine::new(config, seed),
            stepping: false,
            busy: 0.0,
        }
    }

    /// Puts a job into the engine's queue under the name `slot`; false if the engine refuses it.
    pub(super) fn submit(&mut self, now: f64, slot: usize, job: &Job) -> bool {
        let sequence = Sequence {
            id: slot as u64,
            prompt: job.blocks.clone(),
            prompt_tokens: job.prompt_tokens,
            output_tokens: job.output_tokens,
            adapter: job.adapter.map(AdapterId),
            // The engine's smaller goes first, a request's larger.
            priority: job.priority.saturating_neg(),
        };
        self.engine.submit(now, sequence).is_ok()
    }

    /// Starts a step if none is under way and there is work; returns when it will be over.
    pub(super) fn start(&mut self, now: f64, window: [f64; 2]) -> Option<f64> {
        if self.stepping {
            return None;
        }
        let plan = self.engine.step(now)?;
        self.stepping = true;
        let end = now + plan.duration;
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
