//! The KV router of NVIDIA Dynamo.
//!
//! ```text
//! prefill_i = scale * max(active_prefill_i + prompt - credit*overlap_i, 0)         in blocks
//! cost_i    = prefill_i + decode_i                       lmetric: prefill_i * (decode_i + 1)
//! pick      = argmin, or at temperature t at random by exp(-(cost_i - least)/(most - least)/t)
//! ```
//!
//! `decode` counts the blocks that the engine's active prompts and this one would occupy, shared ones once. Active
//! prefill is what jobs without a first token have left to compute.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;
use simulator::BlockHash;

use super::fleet::Flight;
use super::index::partition;
use super::rule::{Ask, Rule, Verdict, least_of_all};
use crate::BLOCK_TOKENS;

/// How prefill and decode combine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Combine {
    Sum,
    Product,
}

/// Settings of the router.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) overlap_credit: f64,
    pub(super) prefill_scale: f64,
    pub(super) temperature: f64,
    pub(super) combine: Combine,
}

/// The selector, and the blocks that are active on each engine.
pub(super) struct Dynamo {
    settings: Settings,
    active: Vec<Active>,
}

impl Dynamo {
    pub(super) fn new(settings: Settings, engines: usize) -> Self {
        Self {
            settings,
            active: (0..engines).map(|_| Active::default()).collect(),
        }
    }

    fn cost(&self, ask: &Ask<'_>, engine: usize) -> f64 {
        let blocks = |tokens: f64| tokens / f64::from(BLOCK_TOKENS);
        let pending = ask.fleet.engines[engine].pending_tokens as f64;
        let raw = blocks(pending + f64::from(ask.job.prompt_tokens));
        let overlap = blocks(f64::from(ask.hits[engine]));
        let prefill =
            self.settings.prefill_scale * (raw - self.settings.overlap_credit * overlap).max(0.0);
        let decode =
            self.active[engine].with(prompt_blocks(&ask.job.blocks, ask.job.prompt_tokens)) as f64;
        match self.settings.combine {
            Combine::Sum => prefill + decode,
            Combine::Product => prefill * (decode + 1.0),
        }
    }
}

impl Rule for Dynamo {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        if self.settings.temperature > 0.0 {
            let up = ask.engines();
            let costs: Vec<f64> = up.iter().map(|&e| self.cost(ask, e)).collect();
            return Verdict::Send(up[soft_least(&costs, self.settings.temperature, rng)]);
        }
        least_of_all(ask, |engine| self.cost(ask, engine), rng)
    }

    fn sent(&mut self, ask: &Ask<'_>, engine: usize) {
        self.active[engine].add(prompt_blocks(&ask.job.blocks, ask.job.prompt_tokens));
    }

    fn finished(&mut self, job: &Flight, _output_tokens: u32) {
        self.active[job.engine].remove(prompt_blocks(&job.blocks, job.prompt_tokens));
    }
}

fn prompt_blocks(chain: &[BlockHash], prompt_tokens: u32) -> &[BlockHash] {
    let full = (prompt_tokens / BLOCK_TOKENS) as usize;
    &chain[..full.min(chain.len())]
}

/// Draws an index, the cheaper the likelier.
fn soft_least(costs: &[f64], temperature: f64, rng: &mut ChaCha8Rng) -> usize {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most <= least {
        return rng.random_range(0..costs.len());
    }
    let weight = |cost: f64| (-(cost - least) / (most - least) / temperature).exp();
    let sum: f64 = costs.iter().map(|&cost| weight(cost)).sum();
    let mut left = rng.random::<f64>() * sum;
    for (engine, &cost) in costs.iter().enumerate() {
        left -= weight(cost);
        if left <= 0.0 {
            return engine;
        }
    }
    costs.len() - 1
}

/// Blocks of the prompts in flight on an engine, with the number of prompts that hold each.
#[derive(Default)]
struct Active {
    holders: FxHashMap<u64, u32>,
}

impl Active {
    /// Blocks that would be active with this prompt. Active blocks of a chain are a prefix of it.
    fn with(&self, blocks: &[BlockHash]) -> usize {
        let shared = partition(blocks.len(), |b| self.holders.contains_key(&blocks[b].0));
        self.holders.len() + blocks.len() - shared
    }

    fn add(&mut self, blocks: &[BlockHash]) {
        for block in blocks {
            *self.holders.entry(block.0).or_insert(0) += 1;
        }
    }

    fn remove(&mut self, blocks: &[BlockHash]) {
        for block in blocks {
            if let Some(holders) = self.holders.get_mut(&block.0) {
                *holders -= 1;
                if *holders == 0 {
                    self.holders.remove(&block.0);
                }
            }
        }
    }
}
