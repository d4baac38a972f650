//! The running sequences, and which of them need a look in the next step.
//!
//! Nearly all that a fleet computes is decodes, and to nearly all of them nothing happens but one token more: no block
//! is full or lacking, no answer ends, nobody is told. How many steps that will go on for a sequence is known
//! beforehand. So the batch keeps that number, one byte each, side by side in order of admission; while it lasts the
//! sequence is *quiet*: it counts in two sums, and its place, some hundred bytes anywhere in memory, is not touched.
//! A quiet place is behind by the steps since it fell quiet; waking it brings it up to date. Whatever does look at a
//! running place (a block that is due, a preemption, an abort) wakes it first.
//!
//! Quiet decodes take exactly what they would take with a look at each, one token of the budget and no block, so what
//! an engine does is the same however many are quiet.

use super::{Engine, Place};

/// The running places in order of admission.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    places: Vec<u32>,
    /// Of each place: steps in which it will be quiet; 0 is awake.
    quiet: Vec<u8>,
    /// Quiet places.
    decodes: u32,
    /// Sum of their computed tokens.
    context: u64,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }

    pub(super) fn position(&self, place: u32) -> Option<usize> {
        self.places.iter().position(|other| *other == place)
    }

    /// Quiet places: each decodes one token in a step.
    pub(super) fn decodes(&self) -> u32 {
        self.decodes
    }

    /// Sum of the computed tokens of quiet places.
    pub(super) fn context(&self) -> u64 {
        self.context
    }

    /// Adds a place at the end, awake.
    pub(super) fn push(&mut self, place: u32) {
        self.places.push(place);
        self.quiet.push(0);
    }

    /// Takes out a place that is awake.
    pub(super) fn remove(&mut self, index: usize) -> u32 {
        debug_assert_eq!(self.quiet[index], 0, "quiet places are in the sums");
        self.quiet.remove(index);
        self.places.remove(index)
    }

    /// Takes out the places, all of them awake, that `stays` does not want.
    pub(super) fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        let mut kept = 0;
        for index in 0..self.places.len() {
            if stays(self.places[index]) {
                self.places[kept] = self.places[index];
                self.quiet[kept] = self.quiet[index];
                kept += 1;
            }
        }
        self.places.truncate(kept);
        self.quiet.truncate(kept);
    }

    /// How many quiet places come one after the other from `index` on.
    pub(super) fn quiet_run(&self, index: usize) -> usize {
        let rest = &self.quiet[index..];
        rest.iter().take_while(|left| **left > 0).count()
    }

    /// Steps for which a place is still quiet.
    pub(super) fn quiet(&self, index: usize) -> u8 {
        self.quiet[index]
    }

    /// A place of so many computed tokens will be quiet for `steps`.
    pub(super) fn fall_quiet(&mut self, index: usize, steps: u8, computed: u32) {
        self.quiet[index] = steps;
        self.decodes += 1;
        self.context += u64::from(computed);
    }

    /// A quiet place that has `computed` tokens by now is awake again.
    pub(super) fn awake(&mut self, index: usize, computed: u32) {
        self.quiet[index] = 0;
        self.decodes -= 1;
        self.context -= u64::from(computed);
    }

    /// A step is over: each quiet place has one token more. Those whose last quiet step it was go to the end of
    /// `over`, by their index, and have to be woken.
    pub(super) fn tick(&mut self, over: &mut Vec<u32>) {
        // Few enough for a core's registers: most parts have nothing over, and all are counted down at once.
        const PART: usize = 16;
        self.context += u64::from(self.decodes);
        for (part, left) in self.quiet.chunks_mut(PART).enumerate() {
            if left.contains(&1) {
                let ones = left.iter().enumerate().filter(|(_, left)| **left == 1);
                over.extend(ones.map(|(index, _)| (part * PART + index) as u32));
            }
            for left in left {
                *left = left.saturating_sub(1);
            }
        }
    }
}

impl Engine {
    /// Brings a quiet place up to date.
    pub(super) fn wake(&mut self, index: usize) {
        let place = &mut self.places[self.batch.places[index] as usize];
        let done = u32::from(std::mem::take(&mut place.quiet) - self.batch.quiet[index]);
        place.computed += done;
        place.generated += done;
        place.unreported += done;
        self.batch.awake(index, place.computed);
    }

    pub(super) fn wake_all(&mut self) {
        for index in 0..self.batch.len() {
            if self.batch.quiet[index] > 0 {
                self.wake(index);
            }
        }
    }

    /// Lets a place be quiet until something happens to it again.
    pub(super) fn let_rest(&mut self, index: usize) {
        let at = self.batch.places[index] as usize;
        let steps = self.uneventful(&self.places[at]);
        if steps > 0 {
            let place = &mut self.places[at];
            place.quiet = steps;
            self.batch.fall_quiet(index, steps, place.computed);
        }
    }

    /// Steps from now on in which a running place that is up to date only gets one token more.
    fn uneventful(&self, place: &Place) -> u8 {
        if place.generated == 0 || place.computed + 1 != place.tokens() {
            return 0;
        }
        let size = self.config.block_tokens;
        let lacks_block = place.blocks.len() as u32 * size - place.computed;
        let mut steps = lacks_block
            .min(place.output_tokens - place.generated - 1)
            .min(self.limit - place.tokens() - 1);
        if self.config.prefix_caching && (place.published as usize) < place.names.len() {
            steps = steps.min(((place.published + 1) * size).saturating_sub(place.computed + 1));
        }
        if self.config.report_every > 0 {
            steps = steps.min(self.config.report_every - place.unreported - 1);
        }
        steps.min(u32::from(u8::MAX)) as u8
    }
}
