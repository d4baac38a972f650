//! What a step brought: tokens, ends, and what is given back.

use std::sync::Arc;

use super::{Engine, Share};
use crate::config::Semantics;
use crate::sequence::{FinishReason, Output, OutputKind};

impl Engine {
    /// Books the results of the step that [`Engine::step`] planned and appends them to `outputs`.
    pub fn finish_step(&mut self, _now: f64, outputs: &mut Vec<Output>) {
        outputs.extend(self.preempted.drain(..).map(|id| Output {
            id,
            kind: OutputKind::Preempted,
        }));
        if !std::mem::take(&mut self.planned) {
            return;
        }
        self.book_quiet();
        let mut any_ended = false;
        let mut shares = std::mem::take(&mut self.shares);
        for share in shares.drain(..) {
            if self.book(share, outputs) {
                any_ended = true;
            } else {
                self.let_rest(share.index as usize);
            }
        }
        self.shares = shares;
        if any_ended {
            let places = &self.places;
            self.batch.retain(|at| places[at as usize].running);
        }
    }

    /// Books one token more for each quiet place, and wakes those to which something will happen in the next step.
    fn book_quiet(&mut self) {
        let decodes = u64::from(self.batch.decodes());
        self.counters.computed_tokens += decodes;
        self.counters.generation_tokens += decodes;
        let mut over = std::mem::take(&mut self.over);
        self.batch.tick(&mut over);
        for index in over.drain(..) {
            self.wake(index as usize);
        }
        self.over = over;
    }

    /// Books one place's share; true if it ended.
    fn book(&mut self, share: Share, outputs: &mut Vec<Output>) -> bool {
        let at = share.place;
        let place = &mut self.places[at as usize];
        place.computed += share.tokens;
        self.counters.computed_tokens += u64::from(share.tokens);
        if self.config.semantics == Semantics::Older {
            self.publish(at);
        }
        let place = &mut self.places[at as usize];
        if place.computed < place.tokens() {
            return false;
        }
        if place.output_tokens > 0 {
            self.generate(at, outputs);
        } else {
            self.counters.prompt_tokens += u64::from(place.prompt_tokens);
        }
        let Some(reason) = self.end_of(at) else {
            return false;
        };
        let place = &mut self.places[at as usize];
        let id = place.id;
        let tokens = std::mem::take(&mut place.unreported);
        if tokens > 0 {
            let kind = OutputKind::Tokens(tokens);
            outputs.push(Output { id, kind });
        }
        outputs.push(Output {
            id,
            kind: OutputKind::Finished { reason },
        });
        self.counters.finished += 1;
        self.leave_batch(at);
        self.vacate(at);
        true
    }

    /// One token more of an answer.
    fn generate(&mut self, at: u32, outputs: &mut Vec<Output>) {
        self.counters.generation_tokens += 1;
        let place = &mut self.places[at as usize];
        place.generated += 1;
        let id = place.id;
        if place.generated == 1 {
            self.counters.prompt_tokens += u64::from(place.prompt_tokens);
            let kind = OutputKind::FirstToken {
                cached_tokens: place.cached,
                queued: place.queued,
            };
            outputs.push(Output { id, kind });
            return;
        }
        place.unreported += 1;
        if place.unreported == self.config.report_every {
            let kind = OutputKind::Tokens(std::mem::take(&mut place.unreported));
            outputs.push(Output { id, kind });
        }
    }

    /// Why a place whose tokens are all computed is done, if it is.
    fn end_of(&self, at: u32) -> Option<FinishReason> {
        let place = &self.places[at as usize];
        if place.generated >= place.output_tokens {
            Some(FinishReason::Completed)
        } else if place.tokens() >= self.limit {
            Some(FinishReason::ModelLength)
        } else {
            None
        }
    }

    /// Takes a running place off the batch, with its share of the step; returns that share's tokens.
    pub(super) fn leave(&mut self, index: usize) -> u32 {
        if self.batch.quiet(index) > 0 {
            self.wake(index);
        }
        let at = self.batch.remove(index);
        self.leave_batch(at);
        let share = self.shares.iter().position(|share| share.place == at);
        let tokens = share.map_or(0, |share| self.shares.remove(share).tokens);
        for share in &mut self.shares {
            share.index -= u32::from(share.index as usize > index);
        }
        tokens
    }

    /// Gives back what a running place holds. The caller takes it off the running list.
    fn leave_batch(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        place.running = false;
        place.computed = 0;
        place.published = 0;
        self.pool.release_all(&mut place.blocks);
        if let Some(adapter) = place.adapter {
            self.adapters.stop_running(adapter);
        }
    }

    pub(super) fn vacate(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        self.by_id.remove(&place.id);
        place.names = Arc::from([]);
        place.serial = u64::MAX;
        self.vacant.push(at);
    }
}
