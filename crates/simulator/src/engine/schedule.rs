//! Who computes what in a step.

use super::{Blocked, Engine, Share, Waiting};
use crate::blocks::AHEAD;
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
        // Quiet places take a token each, wherever they stand, if that is no more than the budget.
        if self.batch.len() > *budget as usize {
            self.wake_all();
        }
        let mut preempted = false;
        let mut index = 0;
        while *budget > 0 {
            let quiet = self.batch.quiet_run(index);
            index += quiet;
            *budget -= quiet as u32;
            let Some(&at) = self.batch.places().get(index) else {
                break;
            };
            let place = &self.places[at as usize];
            let tokens = (place.tokens() - place.computed).min(*budget);
            let later = self.batch.len() - index - 1;
            if ((*budget - tokens) as usize) < later {
                self.look_at_all(index);
            }
            while !self.grow(at, tokens) {
                self.look_at_all(index);
                preempted = true;
                let victim = self.victim();
                *budget += self.preempt(victim);
                if victim == index {
                    return true;
                }
                index -= usize::from(victim < index);
            }
            self.share(index, tokens);
            *budget -= tokens;
            index += 1;
        }
        preempted
    }

    /// Wakes everybody in the midst of a pass, and gives those before `index` that were quiet the shares which they
    /// would have by now had they been awake.
    fn look_at_all(&mut self, index: usize) {
        if self.batch.decodes() == 0 {
            return;
        }
        self.wake_all();
        let given = std::mem::take(&mut self.shares);
        let mut given = given.into_iter().peekable();
        for before in 0..index {
            match given.next_if(|share| share.index as usize == before) {
                Some(share) => self.shares.push(share),
                None => self.share(before, 1),
            }
        }
    }

    fn share(&mut self, index: usize, tokens: u32) {
        let at = self.batch.places()[index];
        let place = &self.places[at as usize];
        let start = place.computed;
        let decode = tokens == 1 && place.generated > 0 && start + 1 == place.tokens();
        self.shares.push(Share {
            place: at,
            index: index as u32,
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
            let done = index - place.published as usize;
            if done.is_multiple_of(AHEAD) && full as usize > index + 1 {
                let end = (index + AHEAD).min(full as usize);
                self.pool.expect(&place.names[index..end]);
            }
            let parent = index.checked_sub(1).map(|before| place.names[before]);
            let new = self
                .pool
                .publish(place.blocks[index], place.names[index], parent);
            if let Some(before) = index.checked_sub(1) {
                self.pool.follows(place.blocks[before], place.blocks[index]);
            }
            self.prompts_published += u64::from(new && place.generated == 0);
        }
        place.published = full.max(place.published);
    }

    /// Whom to preempt: an index into the running list.
    fn victim(&self) -> usize {
        let last = self.batch.len() - 1;
        match self.config.policy {
            QueuePolicy::Fcfs => last,
            QueuePolicy::Priority => (0..=last)
                .max_by_key(|index| self.queue_key(self.batch.places()[*index]))
                .unwrap_or(last),
        }
    }

    /// Sends a running place back to the queue. Returns the tokens that it had in this step already.
    fn preempt(&mut self, index: usize) -> u32 {
        let at = self.batch.places()[index];
        let tokens = self.leave(index);
        let place = &self.places[at as usize];
        self.preempted.push(place.id);
        self.counters.preemptions += 1;
        if let Some(adapter) = place.adapter {
            self.adapters.wait(adapter);
        }
        self.enqueue(at);
        tokens
    }

    /// Admits waiting places while budget, seats and blocks last.
    pub(super) fn schedule_waiting(&mut self, now: f64, budget: &mut u32) {
        self.deferred = 0;
        let mut index = 0;
        let mut open = self.adapters.open_among(self.waiting.len());
        while index < self.waiting.len() && *budget > 0 && self.batch.len() < self.config.max_seqs {
            if open == 0 {
                self.deferred += self.waiting.len() - index;
                break;
            }
            let Waiting { place: at, adapter } = self.waiting[index];
            if adapter.is_some_and(|adapter| !self.adapters.open_for(adapter)) {
                self.deferred += 1;
                index += 1;
            } else if self.admit(at, now, budget) {
                self.waiting.remove(index);
                // Who was passed over before is passed over still: a place that joins opens no slot.
                open = self.adapters.open_among(self.waiting.len());
            } else {
                break;
            }
        }
    }

    /// Moves a waiting place into the batch if its blocks fit. The caller takes it off the queue.
    fn admit(&mut self, at: u32, now: f64, budget: &mut u32) -> bool {
        if self.still_blocked(at) || self.cannot_fit(at) {
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
            self.block(at, hits.here);
            return false;
        }
        self.occupy(at, &hits, now);
        let fits = self.grow(at, chunk);
        debug_assert!(fits, "admission counted the blocks");
        self.batch.push(at);
        self.share(self.batch.len() - 1, chunk);
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

    fn block(&mut self, at: u32, here: u32) {
        self.blocked = Some(Blocked {
            serial: self.places[at as usize].serial,
            free: self.pool.free(),
            prompts_published: self.prompts_published,
            here,
        });
    }

    /// Whether a queue's head that did not fit cannot fit now either, by one look-up in place of all: while the first
    /// block that was not found cannot be found, no more of them can, and the rest needs room.
    fn cannot_fit(&mut self, at: u32) -> bool {
        let place = &self.places[at as usize];
        let Some(blocked) = self.blocked.filter(|it| it.serial == place.serial) else {
            return false;
        };
        let size = self.config.block_tokens;
        let (here, tokens) = (blocked.here, place.tokens());
        let missing = place.names.get(here as usize);
        let more = here < (tokens - 1) / size
            && missing.is_some_and(|hash| self.pool.find(*hash).is_some());
        let whole = self.config.semantics == Semantics::Vllm;
        if more || !whole || tokens.div_ceil(size) <= here + self.pool.free() {
            return false;
        }
        self.block(at, here);
        true
    }

    /// Looks up a place's blocks. At least one token is always left to compute, for the logits.
    fn hits(&mut self, at: u32) -> Hits {
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
        let mut before = None;
        for hash in place.names.iter().take(most as usize) {
            let Some((block, free)) = self.pool.find_after(before, *hash) else {
                break;
            };
            before = Some(block);
            hits.here += 1;
            hits.free += u32::from(free);
        }
        hits.blocks = hits.blocks.max(hits.here);
        hits
    }

    /// Takes hold of the blocks that were hit and books the admission.
    fn occupy(&mut self, at: u32, hits: &Hits, now: f64) {
        let place = &mut self.places[at as usize];
        let mut before = None;
        for hash in place.names.iter().take(hits.here as usize) {
            if let Some((block, _)) = self.pool.find_after(before, *hash) {
                self.pool.hold(block);
                place.blocks.push(block);
                before = Some(block);
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
