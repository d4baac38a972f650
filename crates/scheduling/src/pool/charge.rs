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
}

impl Charge {
    /// When the deepest idle block that it found cached was last used before.
    pub(super) fn found(&self) -> Option<u64> {
        self.pin.found
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
        let inference = request.kind == RequestKind::Inference;
        let tokens_per_block = self.tokens_per_block();
        let prompt = if inference {
            f64::from(request.prompt_tokens) * self.learned.scale()
        } else {
            0.0
        };
        let output = if request.streams {
            0.0
        } else {
            self.learned.output(request.max_output_tokens) / 2.0
        };
        let index = endpoint.index();
        self.endpoint_mut(endpoint)?;
        let pin = if inference {
            self.index.pin(index, &request.prefix)
        } else {
            Pin::default()
        };
        let it = self.endpoint_mut(endpoint)?;
        it.monitor.dispatched(now);
        it.depth.push(inference);
        let mut charge = Charge {
            endpoint,
            at: now,
            pin,
            hit_blocks,
            uncached: 0,
            pending_nanos: 0,
            tails: 0,
            prompt: prompt as u64,
            generated: 0,
            // Without a prompt there is no prefill to wait for.
            started: !inference,
            due: None,
            alone: None,
        };
        if !inference {
            return Some(charge);
        }
        let c = it.coefficients();
        let hit = f64::from(hit_blocks) * tokens_per_block * it.trust;
        let uncached = (prompt - hit).max(1.0);
        let work = prefill_seconds(&c, uncached, prompt - uncached);
        let chunks = (uncached / f64::from(it.profile.max_batched_tokens.max(1))).ceil();
        charge.alone =
            (it.depth.pending_nanos == 0 && it.depth.decoding == 0).then_some(work + chunks * c.c0);
        charge.uncached = uncached as u64;
        charge.pending_nanos = seconds(work).as_nanos() as u64;
        charge.tails = (prompt - f64::from(pin.blocks) * tokens_per_block).max(0.0) as u64;
        charge.generated = if request.streams { 0 } else { output as u64 };
        // No later than what is pending takes: prompts that were done sooner than expected leave no backlog behind.
        let backlog = now + Duration::from_nanos(it.depth.pending_nanos);
        let begin = it.depth.busy_until.max(now).min(backlog);
        it.depth.pending_tokens += charge.uncached;
        it.depth.pending_nanos += charge.pending_nanos;
        let drag = c.a * f64::from(it.depth.decoding) + c.k_v * it.depth.context_tokens as f64;
        it.depth.busy_until = begin + seconds(work + chunks * (c.c0 + drag));
        charge.due = (!request.streams).then_some(it.depth.busy_until);
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
        let Some(it) = self.endpoint_mut(charge.endpoint) else {
            return;
        };
        charge.generated += u64::from(tokens);
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
            let Some(mut charge) = self
                .flights
                .get_mut(&ticket)
                .and_then(|flight| flight.charge.take())
            else {
                continue;
            };
            self.start(&mut charge);
            self.dirty = true;
            if let Some(flight) = self.flights.get_mut(&ticket) {
                flight.charge = Some(charge);
            }
        }
    }
}
