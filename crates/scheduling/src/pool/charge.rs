//! Charges: what a request in flight holds on its endpoint. Made inside the pick, given back exactly.

use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use crate::cost::prefill_seconds;
use crate::id::{EndpointId, Ticket};
use crate::prefix::Pin;
use crate::request::{Request, RequestKind};
use crate::time::{Time, seconds};

/// A request in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) request: Arc<Request>,
    /// `None` once its endpoint is gone and no other took it.
    pub(super) charge: Option<Charge>,
    /// A server failed it since it was last charged.
    pub(super) failed: bool,
}

/// What it holds on one endpoint.
#[derive(Debug)]
pub(super) struct Charge {
    pub(super) endpoint: EndpointId,
    pub(super) at: Time,
    pin: Pin,
    /// Leading blocks believed cached when it was charged.
    pub(super) hit_blocks: u32,
    /// Prompt tokens to compute.
    pub(super) uncached: u64,
    pending_nanos: u64,
    tails: u64,
    prompt: u64,
    pub(super) generated: u64,
    /// Past its prefill.
    pub(super) started: bool,
    /// When that is presumed, if no token will tell.
    due: Option<Time>,
    /// Expected seconds to the first token if nothing was pending before it.
    pub(super) alone: Option<f64>,
    /// Its name in what siblings are told, if they are told of it.
    pub(super) shared: Option<u64>,
    /// Tokens that the answer had, once that is known.
    pub(super) output: u32,
}

/// What a request is going to take, in tokens as engines count them.
#[derive(Copy, Clone, Debug)]
pub(super) struct Work {
    pub(super) prompt: f64,
    /// Of the prompt, what is believed cached.
    pub(super) hit: f64,
    /// The same as leading blocks.
    pub(super) hit_blocks: u32,
    /// Tokens of the answer that are charged at once, as the mean over its time, if nothing tells of them later.
    pub(super) generated: f64,
    /// No first token may be heard of: the end of the prefill is presumed.
    pub(super) presumed: bool,
}

impl Charge {
    /// When the deepest idle block that it found cached was last used before.
    pub(super) fn found(&self) -> Option<u64> {
        self.pin.found
    }

    /// Tokens of its prompt.
    pub(super) fn prompt_tokens(&self) -> u32 {
        self.prompt.min(u64::from(u32::MAX)) as u32
    }

    /// Expected seconds of its prefill.
    pub(super) fn prefill_seconds(&self) -> f64 {
        self.pending_nanos as f64 * 1e-9
    }
}

impl Pool {
    /// Charges `endpoint` with a request of which it has `hit_blocks` leading blocks.
    pub(super) fn charge(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        endpoint: EndpointId,
        hit_blocks: u32,
    ) -> Option<Charge> {
        let prompt = if request.kind == RequestKind::Inference {
            f64::from(request.prompt_tokens) * self.learned.scale()
        } else {
            0.0
        };
        let output = self.learned.output(request.max_output_tokens);
        let tokens_per_block = self.tokens_per_block();
        let it = self.endpoint_mut(endpoint)?;
        it.monitor.dispatched(now);
        let work = Work {
            prompt,
            hit: f64::from(hit_blocks) * tokens_per_block * it.trust,
            hit_blocks,
            generated: if request.streams { 0.0 } else { output / 2.0 },
            presumed: !request.streams,
        };
        let mut charge = self.charge_work(now, ticket, request, endpoint, work)?;
        self.tell_dispatched(request, &mut charge, output);
        Some(charge)
    }

    /// Charges `endpoint` with a request that takes `work`, whoever sent it there.
    pub(super) fn charge_work(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        endpoint: EndpointId,
        work: Work,
    ) -> Option<Charge> {
        let inference = request.kind == RequestKind::Inference;
        let tokens_per_block = self.tokens_per_block();
        let index = endpoint.index();
        self.endpoint_mut(endpoint)?;
        let pin = if inference {
            self.index.pin(index, &request.prefix)
        } else {
            Pin::default()
        };
        let it = self.endpoint_mut(endpoint)?;
        it.depth.push(inference);
        let mut charge = Charge {
            endpoint,
            at: now,
            pin,
            hit_blocks: work.hit_blocks,
            uncached: 0,
            pending_nanos: 0,
            tails: 0,
            prompt: work.prompt as u64,
            generated: 0,
            // Without a prompt there is no prefill to wait for.
            started: !inference,
            due: None,
            alone: None,
            shared: None,
            output: 0,
        };
        if !inference {
            return Some(charge);
        }
        let c = it.coefficients();
        let Work { prompt, hit, .. } = work;
        let uncached = (prompt - hit).max(1.0);
        let prefill = prefill_seconds(&c, uncached, prompt - uncached);
        let chunks = (uncached / f64::from(it.profile.max_batched_tokens.max(1))).ceil();
        charge.alone = (it.depth.pending_nanos == 0 && it.depth.decoding == 0)
            .then_some(prefill + chunks * c.c0);
        charge.uncached = uncached as u64;
        charge.pending_nanos = seconds(prefill).as_nanos() as u64;
        charge.tails = (prompt - f64::from(pin.blocks) * tokens_per_block).max(0.0) as u64;
        charge.generated = work.generated as u64;
        // No later than what is pending takes: prompts that were done sooner than expected leave no backlog behind.
        let backlog = now + Duration::from_nanos(it.depth.pending_nanos);
        let begin = it.depth.busy_until.max(now).min(backlog);
        it.depth.pending_tokens += charge.uncached;
        it.depth.pending_nanos += charge.pending_nanos;
        let drag = c.a * f64::from(it.depth.decoding) + c.k_v * it.depth.context_tokens as f64;
        it.depth.busy_until = begin + seconds(prefill + chunks * (c.c0 + drag));
        charge.due = work.presumed.then_some(it.depth.busy_until);
        it.space.tails += charge.tails;
        it.space.generated += charge.generated;
        if let Some(adapter) = request.adapter {
            it.adapters.push(adapter, now);
        }
        if let Some(due) = charge.due {
            self.presumed.insert((due, ticket));
        }
        self.settle_space(endpoint);
        Some(charge)
    }

    /// The charge is that of a prompt that nobody had cached: its endpoint got the load that comes with it.
    pub(super) fn give_cold(&mut self, now: Time, charge: Option<&Charge>) {
        let Some(charge) = charge else { return };
        let steps = self.learned.output(None);
        let w = self.config.prices.w;
        if let Some(it) = self.endpoint_mut(charge.endpoint) {
            let c = it.coefficients();
            let decodes = w * steps * (c.c0 + c.w_base);
            it.cold.give(now, charge.prefill_seconds() + decodes);
        }
    }

    /// Gives a charge back. With `forget` its prompt was never computed there.
    pub(super) fn release(
        &mut self,
        ticket: Ticket,
        request: &Request,
        charge: &Charge,
        forget: bool,
    ) {
        if let Some(due) = charge.due {
            self.presumed.remove(&(due, ticket));
        }
        self.tell_released(charge, !forget);
        let Some(it) = self.endpoint_mut(charge.endpoint) else {
            return;
        };
        it.depth.in_flight -= 1;
        if request.kind != RequestKind::Inference {
            return;
        }
        it.depth.sequences -= 1;
        if charge.started {
            it.depth.decoding -= 1;
            it.depth.context_tokens -= charge.prompt + charge.generated;
        } else {
            it.depth.pending_tokens -= charge.uncached;
            it.depth.pending_nanos -= charge.pending_nanos;
        }
        if it.depth.sequences == 0 {
            it.depth.busy_until = Time::ZERO;
        }
        it.space.tails -= charge.tails;
        it.space.generated -= charge.generated;
        if let Some(adapter) = request.adapter {
            it.adapters.release(adapter, !forget);
        }
        let keep = if forget { charge.hit_blocks } else { u32::MAX };
        self.index
            .unpin(charge.endpoint.index(), &request.prefix, charge.pin, keep);
        self.settle_space(charge.endpoint);
    }

    /// The prefill of a charge is done: from now on it decodes.
    pub(super) fn start(&mut self, charge: &mut Charge) {
        if charge.started {
            return;
        }
        charge.started = true;
        self.tell_first_token(charge);
        let Some(it) = self.endpoint_mut(charge.endpoint) else {
            return;
        };
        it.depth.pending_tokens -= charge.uncached;
        it.depth.pending_nanos -= charge.pending_nanos;
        it.depth.context_tokens += charge.prompt + charge.generated;
        it.depth.start();
    }

    /// More tokens were generated.
    pub(super) fn generate(&mut self, charge: &mut Charge, tokens: u32) {
        let now = self.clock.now();
        let Some(it) = self.endpoint_mut(charge.endpoint) else {
            return;
        };
        charge.generated += u64::from(tokens);
        it.depth.hear(now);
        it.space.generated += u64::from(tokens);
        if charge.started {
            it.depth.context_tokens += u64::from(tokens);
        }
    }

    /// Lets the index forget what no longer fits beside the requests in flight.
    pub(super) fn settle_space(&mut self, endpoint: EndpointId) {
        let tokens_per_block = self.tokens_per_block();
        let index = endpoint.index();
        let pinned = self.index.pinned_blocks(index);
        let Some(slot) = self
            .slots
            .get_mut(index)
            .and_then(|slot| slot.endpoint.as_mut())
        else {
            return;
        };
        slot.space.mark((pinned as f64 * tokens_per_block) as u64);
        let private = (slot.space.tails + slot.space.generated) as f64;
        let room =
            (slot.capacity(&self.config) as f64 - private) / tokens_per_block - pinned as f64;
        self.index.fit(index, room.max(0.0) as usize);
    }

    /// Requests whose prefill must be done by now, going by the cost model.
    pub(super) fn presume(&mut self, now: Time) {
        while let Some(&(due, ticket)) = self.presumed.first().filter(|(due, _)| *due <= now) {
            self.presumed.remove(&(due, ticket));
            self.dirty = true;
            let Some(mut charge) = self
                .flights
                .get_mut(&ticket)
                .and_then(|flight| flight.charge.take())
            else {
                self.start_foreign(ticket);
                continue;
            };
            self.start(&mut charge);
            if let Some(flight) = self.flights.get_mut(&ticket) {
                flight.charge = Some(charge);
            }
        }
    }
}
