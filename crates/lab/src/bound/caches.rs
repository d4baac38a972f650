//! How much of the prompts one cache could have held: token hit ratios without engines or time.
//!
//! A cache of some size is fed with prompts and answers in order of arrival. *Unbounded* keeps everything: no fleet can
//! hit more. *Least recently used* forgets, block by block, what was not used for longest (of one prompt the tail first),
//! as engines do. *Belady* forgets what is not needed for longest (L. A. Belady, IBM Systems Journal 5(2), 1966): no
//! order of forgetting hits more blocks.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};
use simulator::BlockHash;

use crate::{BLOCK_TOKENS, Job};

const NEVER: u32 = u32::MAX;

/// Token hit ratio of a cache that forgets nothing.
#[must_use]
pub fn unbounded(jobs: &[Job]) -> f64 {
    ratio(jobs, &hits_unbounded(jobs))
}

/// Token hit ratio of one cache of so many tokens that forgets what was not used for longest.
#[must_use]
pub fn lru(jobs: &[Job], capacity_tokens: u64) -> f64 {
    let room = (capacity_tokens / u64::from(BLOCK_TOKENS)) as usize;
    let mut last: FxHashMap<u64, u64> = FxHashMap::default();
    let mut order: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut clock = 0;
    let hits: Vec<u32> = jobs
        .iter()
        .map(|job| {
            let hit = leading(prompt(job), |hash| last.contains_key(&hash));
            for block in job.blocks.iter().rev() {
                clock += 1;
                if let Some(before) = last.insert(block.0, clock) {
                    order.remove(&(before, block.0));
                }
                order.insert((clock, block.0));
            }
            while last.len() > room {
                let Some((_, oldest)) = order.pop_first() else {
                    break;
                };
                last.remove(&oldest);
            }
            hit
        })
        .collect();
    ratio(jobs, &hits)
}

/// Token hit ratio of one cache of so many tokens that knows the future.
#[must_use]
pub fn belady(jobs: &[Job], capacity_tokens: u64) -> f64 {
    ratio(jobs, &hits_belady(jobs, capacity_tokens))
}

fn hits_unbounded(jobs: &[Job]) -> Vec<u32> {
    let mut seen: FxHashSet<u64> = FxHashSet::default();
    jobs.iter()
        .map(|job| {
            let hit = leading(prompt(job), |hash| seen.contains(&hash));
            seen.extend(job.blocks.iter().map(|it| it.0));
            hit
        })
        .collect()
}

/// Tokens of each prompt that the cache of [`belady`] has.
pub(super) fn hits_belady(jobs: &[Job], capacity_tokens: u64) -> Vec<u32> {
    let room = (capacity_tokens / u64::from(BLOCK_TOKENS)) as usize;
    let next = next_uses(jobs);
    // By next use and place in the prompt: of what is needed last, the tail goes first.
    let mut order: BTreeSet<(u32, u32, u64)> = BTreeSet::new();
    let mut held: FxHashMap<u64, (u32, u32)> = FxHashMap::default();
    jobs.iter()
        .zip(&next)
        .map(|(job, next)| {
            let hit = leading(prompt(job), |hash| held.contains_key(&hash));
            for (place, block) in job.blocks.iter().enumerate() {
                let (hash, place) = (block.0, place as u32);
                if let Some((until, at)) = held.remove(&hash) {
                    order.remove(&(until, at, hash));
                }
                // What is never needed again is not kept.
                let until = next[place as usize];
                if until != NEVER {
                    held.insert(hash, (until, place));
                    order.insert((until, place, hash));
                }
            }
            while held.len() > room {
                let Some((_, _, hash)) = order.pop_last() else {
                    break;
                };
                held.remove(&hash);
            }
            hit
        })
        .collect()
}

/// For each block of each job: the number of the next job whose prompt has it.
fn next_uses(jobs: &[Job]) -> Vec<Vec<u32>> {
    let mut coming: FxHashMap<u64, u32> = FxHashMap::default();
    let mut next: Vec<Vec<u32>> = Vec::with_capacity(jobs.len());
    for (number, job) in jobs.iter().enumerate().rev() {
        let uses = |block: &BlockHash| coming.get(&block.0).copied().unwrap_or(NEVER);
        next.push(job.blocks.iter().map(uses).collect());
        for block in prompt(job) {
            coming.insert(block.0, number as u32);
        }
    }
    next.reverse();
    next
}

/// Full blocks of a job's prompt.
pub(super) fn prompt(job: &Job) -> &[BlockHash] {
    let full = (job.prompt_tokens / BLOCK_TOKENS) as usize;
    &job.blocks[..full.min(job.blocks.len())]
}

fn leading(blocks: &[BlockHash], holds: impl Fn(u64) -> bool) -> u32 {
    blocks.iter().take_while(|it| holds(it.0)).count() as u32
}

/// Blocks hit to tokens of all prompts. At least one token of each is computed.
fn ratio(jobs: &[Job], hits: &[u32]) -> f64 {
    let tokens = jobs
        .iter()
        .zip(hits)
        .map(|(job, hit)| u64::from(cached(job, *hit)));
    let all: u64 = jobs.iter().map(|job| u64::from(job.prompt_tokens)).sum();
    tokens.sum::<u64>() as f64 / all.max(1) as f64
}

/// Tokens that need no computing when so many blocks are at hand.
pub(super) fn cached(job: &Job, blocks: u32) -> u32 {
    (blocks * BLOCK_TOKENS).min(job.prompt_tokens.saturating_sub(1))
}
