//! Who computes what in a step.

use super::{Blocked, Engine, Share};
use crate::config::{QueuePolicy, Semantics};

/// What the prefix cache has for a waiting place.
struct Hits {
    /// Blocks that need no computing.
    blocks: u32,
    /// Of those, how many are here; the others come from elsewhere and need room.
    here: u32,
    /// Of those, how many are free and would leave the free queue.
    free: u32,
}

impl Engine {
    /// Gives running places their tokens, preempting from the end where blocks run out. True if any was preempted.
    pub(super) fn schedule_running(&mut self, budget: &mut u32) -> bool {
        let mut preempted = false;
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let at = self.running[index];
            let place = &self.places[at as usize];
            let tokens = (place.tokens() - place.computed).min(*budget);
            while !self.grow(at, tokens) {
                preempted = true;
                let victim = self.victim();
                *budget += self.preempt(victim);
                if victim == index {
                    return true;
                }
                index -= usize::from(victim < index);
            }
            self.share(at, tokens);
            *budget -= tokens;
            index += 1;
        }
        preempted
    }

    fn share(&mut self, at: u32, tokens: u32) {
        let place = &self.places[at as usize];
        let start = place.computed;
        let decode = tokens == 1 && place.generated > 0 && start + 1 == place.tokens();
        self.shares.push(Share {
            serial: place.serial,
            place: at,
            tokens,
            start,
            decode,
        });
    }

    /// Takes the blocks that `tokens` more tokens need. Takes none and returns false if there are too few.
    fn grow(&mut self, at: u32, tokens: u32) -> bool {
        let size = self.config.block_tokens;
        let place = &mut self.places[at as usize];
        let tokens = place.computed + tokens;
        // Most calls are decodes within a block: keep divisions out of their way.
        if tokens > place.blocks.len() as u32 * size {
            let more = tokens.div_ceil(size) - place.blocks.len() as u32;
            if more > self.pool.free() {
                return false;
            }
            for _ in 0..more {
                place.blocks.extend(self.pool.take());
            }
        }
        if self.config.semantics == Semantics::Vllm {
            self.publish_until(at, tokens);
        }
        true
    }

    /// Names the full blocks of what is computed.
    pub(super) fn publish(&mut self, at: u32) {
        self.publish_until(at, self.places[at as usize].computed);
    }

    fn publish_until(&mut self, at: u32, tokens: u32) {
        let size = self.config.block_tokens;
        let place = &mut self.places[at as usize];
        if tokens < (place.published + 1) * size || !self.config.prefix_caching {
            return;
        }
        let full = (tokens / size).min(place.names.len() as u32);
        for index in place.published as usize..full as usize {
            let parent = index.checked_sub(1).map(|before| place.names[before]);
            let new = self
                .pool
                .publish(place.blocks[index], place.names[index], parent);
            self.prompts_published += u64::from(new && place.generated == 0);
        }
        place.published = full.max(place.published);
    }

    /// Whom to preempt: an index into the running list.
    fn victim(&self) -> usize {
        let last = self.running.len() - 1;
        match self.config.policy {
            QueuePolicy::Fcfs => last,
            QueuePolicy::Priority => (0..=last)
                .max_by_key(|index| self.queue_key(self.running[*index]))
                .unwrap_or(last),
        }
    }

    /// Sends a running place back to the queue. Returns the tokens that it had in this step already.
    fn preempt(&mut self, index: usize) -> u32 {
        let at = self.running.remove(index);
        self.leave_batch(at);
        let place = &self.places[at as usize];
        self.preempted.push(place.id);
        self.counters.preemptions += 1;
        if let Some(adapter) = place.adapter {
            self.adapters.wait(adapter);
        }
        self.enqueue(at);
        let Some(share) = self.shares.iter().position(|share| share.place == at) else {
            return 0;
        };
        self.shares.remove(share).tokens
    }

    /// Admits waiting places while budget, seats and blocks last.
    pub(super) fn schedule_waiting(&mut self, now: f64, budget: &mut u32) {
        self.deferred = 0;
        let mut index = 0;
        while index < self.waiting.len() && *budget > 0 && self.running.len() < self.config.max_seqs
        {
            let at = self.waiting[index];
            let adapter = self.places[at as usize].adapter;
            if adapter.is_some_and(|adapter| !self.adapters.open_for(adapter)) {
                self.deferred += 1;
                index += 1;
            } else if self.admit(at, now, budget) {
                self.waiting.remove(index);
            } else {
                break;
            }
        }
    }

    /// Moves a waiting place into the batch if its blocks fit. The caller takes it off the queue.
    fn admit(&mut self, at: u32, now: f64, budget: &mut u32) -> bool {
        if self.still_blocked(at) {
            return false;
        }
        let hits = self.hits(at);
        let cached = hits.blocks * self.config.block_tokens;
        let tokens = self.places[at as usize].tokens();
        let chunk = (tokens - cached).min(*budget);
        let must_fit = match self.config.semantics {
            Semantics::Vllm => tokens,
            Semantics::Older => cached + chunk,
        };
        let need = must_fit.div_ceil(self.config.block_tokens) - hits.here + hits.free;
        if need > self.pool.free() {
            let serial = self.places[at as usize].serial;
            let (free, prompts_published) = (self.pool.free(), self.prompts_published);
            self.blocked = Some(Blocked {
                serial,
                free,
                prompts_published,
            });
            return false;
        }
        self.occupy(at, &hits, now);
        let fits = self.grow(at, chunk);
        debug_assert!(fits, "admission counted the blocks");
        self.share(at, chunk);
        self.running.push(at);
        *budget -= chunk;
        true
    }

    /// A queue's head that did not fit cannot fit before blocks are freed or new prefixes can be hit; this saves
    /// looking up a long prompt in every step.
    fn still_blocked(&self, at: u32) -> bool {
        self.blocked.is_some_and(|blocked| {
            blocked.serial == self.places[at as usize].serial
                && blocked.prompts_published == self.prompts_published
                && self.pool.free() <= blocked.free
        })
    }

    /// Looks up a place's blocks. At least one token is always left to compute, for the logits.
    fn hits(&self, at: u32) -> Hits {
        let place = &self.places[at as usize];
        let most = (place.tokens() - 1) / self.config.block_tokens;
        let mut hits = Hits {
            blocks: place.given.min(most),
            here: 0,
            free: 0,
        };
        if !self.config.prefix_caching {
            return hits;
        }
        for hash in place.names.iter().take(most as usize) {
            let Some((_, free)) = self.pool.find(*hash) else {
                break;
            };
            hits.here += 1;
            hits.free += u32::from(free);
        }
        hits.blocks = hits.blocks.max(hits.here);
        hits
    }

    /// Takes hold of the blocks that were hit and books the admission.
    fn occupy(&mut self, at: u32, hits: &Hits, now: f64) {
        let place = &mut self.places[at as usize];
        for hash in place.names.iter().take(hits.here as usize) {
            if let Some((block, _)) = self.pool.find(*hash) {
                self.pool.hold(block);
                place.blocks.push(block);
            }
        }
        // Room for those from elsewhere is taken, and their names given, as if they were computed in this step.
        place.computed = hits.blocks * self.config.block_tokens;
        place.published = hits.here;
        place.given = 0;
        place.running = true;
        if !place.admitted {
            place.admitted = true;
            place.cached = place.computed;
            place.queued = (now - place.submitted).max(0.0);
            self.counters.prefix_queries += u64::from(place.prompt_tokens);
            self.counters.prefix_hits += u64::from(place.computed);
        }
        if let Some(adapter) = place.adapter {
            self.load_seconds += self.adapters.run(adapter);
        }
    }
}
