//! Events: what happened outside changes load, caches, health and what the pool has learned.

use super::Pool;
use super::charge::{Charge, Flight};
use crate::event::{Event, FailureKind, Load, Usage};
use crate::id::{EndpointId, Ticket};
use crate::prefix::Hits;
use crate::profile::EndpointProfile;
use crate::request::RequestKind;
use crate::time::Time;

/// Least uncached tokens of a prefill that says something about speed.
const TELLING_PREFILL: u64 = 1024;

impl Pool {
    pub(super) fn handle(&mut self, now: Time, event: Event<'_>) {
        match event {
            Event::Left { endpoint } => self.left(endpoint),
            Event::Draining { endpoint, draining } => {
                self.with(endpoint, |it, _| it.draining = draining);
            }
            Event::Profile { endpoint, profile } => self.profile(endpoint, profile),
            Event::Scraped { endpoint, load } => self.scraped(now, endpoint, load),
            Event::Adapters {
                endpoint,
                resident,
                loading,
                max,
            } => {
                self.with(endpoint, |it, _| {
                    it.adapters.report(now, resident, loading, max);
                });
            }
            Event::Probe { endpoint, outcome } => {
                self.with(endpoint, |it, config| {
                    it.monitor.probed(now, outcome, &config.health);
                });
            }
            Event::CacheCleared { endpoint } => {
                if self.endpoint_ref(endpoint).is_some() {
                    self.index.clear(endpoint.index());
                }
            }
            Event::FirstToken { ticket } => self.first_token(now, ticket),
            Event::Progress { ticket, tokens } => {
                self.with_charge(ticket, |pool, flight, charge| {
                    if flight.request.kind == RequestKind::Inference {
                        pool.generate(charge, tokens);
                    }
                });
            }
            Event::Moved { ticket, to } => self.moved(now, ticket, to),
            Event::Failed {
                ticket,
                endpoint,
                kind,
            } => self.failed(now, ticket, endpoint, kind),
            Event::Finished { ticket, usage, ok } => self.finished(ticket, usage, ok),
            Event::Abandoned { ticket } => self.abandoned(ticket),
            Event::Sibling { sibling, event } => self.sibling(now, sibling, event),
        }
    }

    fn with(
        &mut self,
        id: EndpointId,
        change: impl FnOnce(&mut super::Endpoint, &crate::config::Config),
    ) {
        let slot = self
            .slots
            .get_mut(id.index())
            .filter(|slot| slot.generation == id.generation);
        if let Some(endpoint) = slot.and_then(|slot| slot.endpoint.as_mut()) {
            change(endpoint, &self.config);
        }
    }

    pub(super) fn with_charge(
        &mut self,
        ticket: Ticket,
        change: impl FnOnce(&mut Self, &Flight, &mut Charge),
    ) {
        let Some(mut flight) = self.flights.remove(&ticket) else {
            return;
        };
        if let Some(mut charge) = flight.charge.take() {
            change(self, &flight, &mut charge);
            flight.charge = Some(charge);
        }
        self.flights.insert(ticket, flight);
    }

    fn left(&mut self, id: EndpointId) {
        let Some(slot) = self
            .slots
            .get_mut(id.index())
            .filter(|slot| slot.generation == id.generation)
        else {
            return;
        };
        if slot.endpoint.take().is_some() {
            slot.generation = slot.generation.wrapping_add(1);
            self.index.leave(id.index());
            self.bound_index();
        }
    }

    fn profile(&mut self, id: EndpointId, profile: EndpointProfile) {
        self.with(id, |it, _| {
            it.profile = profile;
            it.adapters.set_max(profile.max_lora);
        });
        if self.endpoint_ref(id).is_some() {
            self.settle_space(id);
            self.bound_index();
        }
    }

    fn scraped(&mut self, now: Time, id: EndpointId, load: Load) {
        let shared = (self.index.pinned_blocks(id.index()) as f64 * self.tokens_per_block()) as u64;
        self.with(id, |it, config| {
            let capacity = it.capacity(config);
            it.depth.scrape(now, load);
            it.space.scrape(now, load.kv_usage, capacity, shared);
            it.last_scrape = Some(now);
        });
    }

    fn first_token(&mut self, now: Time, ticket: Ticket) {
        self.with_charge(ticket, |pool, flight, charge| {
            let observed = now.seconds_since(charge.at);
            let telling = flight.request.streams && flight.request.adapter.is_none();
            let expected = charge
                .alone
                .filter(|_| telling && charge.uncached >= TELLING_PREFILL);
            pool.start(charge);
            pool.with(charge.endpoint, |it, _| {
                it.depth.hear(now);
                it.monitor.succeeded();
                if let Some(adapter) = flight.request.adapter {
                    it.adapters.confirm(adapter);
                }
                if let Some(expected) = expected {
                    // A tenth of the way, by ratio; within a factor of four of the prior.
                    let ratio = (observed / expected).clamp(0.25, 4.0);
                    it.speed = (it.speed * ratio.powf(0.1)).clamp(0.25, 4.0);
                }
            });
        });
    }

    fn moved(&mut self, now: Time, ticket: Ticket, to: EndpointId) {
        let Some(mut flight) = self.flights.remove(&ticket) else {
            return;
        };
        if let Some(charge) = flight.charge.take() {
            self.release(
                ticket,
                &flight.request,
                &charge,
                flight.failed && !charge.started,
            );
        }
        let mut hits = Hits::default();
        self.index
            .walk(&flight.request.prefix, self.slots.len(), &mut hits);
        let hit_blocks = hits.cached.get(to.index()).copied().unwrap_or(0);
        flight.failed = false;
        flight.charge = self.charge(now, ticket, &flight.request, to, hit_blocks);
        self.flights.insert(ticket, flight);
    }

    fn failed(&mut self, now: Time, ticket: Ticket, id: EndpointId, kind: FailureKind) {
        let mut restarted = false;
        self.with(id, |it, config| {
            restarted = it.monitor.failed(now, kind, &config.health);
        });
        if restarted {
            self.index.clear(id.index());
        }
        if let Some(flight) = self.flights.get_mut(&ticket)
            && flight
                .charge
                .as_ref()
                .is_some_and(|charge| charge.endpoint == id)
        {
            flight.failed = true;
        }
    }

    fn finished(&mut self, ticket: Ticket, usage: Option<Usage>, ok: bool) {
        let Some(flight) = self.flights.remove(&ticket) else {
            return;
        };
        let Some(mut charge) = flight.charge else {
            return;
        };
        let request = &flight.request;
        if ok {
            self.start(&mut charge);
            let now = self.clock.now();
            self.with(charge.endpoint, |it, _| {
                it.depth.hear(now);
                it.monitor.succeeded();
                if let Some(adapter) = request.adapter {
                    it.adapters.confirm(adapter);
                }
            });
        }
        let counted = usage
            .map(|usage| usage.completion_tokens)
            .filter(|&tokens| tokens > 0);
        let seen = if request.streams {
            charge.generated.min(u64::from(u32::MAX)) as u32
        } else {
            0
        };
        charge.output = if ok { counted.unwrap_or(seen) } else { 0 };
        let forget = !ok && !charge.started;
        self.release(ticket, request, &charge, forget);
        if !ok || request.kind != RequestKind::Inference {
            return;
        }
        if charge.output > 0 {
            self.learned.finished(charge.output);
        }
        if let Some(usage) = usage {
            self.learned
                .counted(request.prompt_tokens, usage.prompt_tokens);
            self.confirm_hit(&charge, usage);
        }
    }

    /// Compares the hit that was predicted with the one that the engine reports. A miss means that the engine has
    /// evicted everything used as long ago, so the index forgets that too.
    fn confirm_hit(&mut self, charge: &Charge, usage: Usage) {
        let predicted = f64::from(charge.hit_blocks) * self.tokens_per_block();
        let Some(cached) = usage.cached_tokens.filter(|_| charge.hit_blocks > 0) else {
            return;
        };
        let share = (f64::from(cached) / predicted).min(1.0);
        self.learned.confirmed_hit(share);
        self.with(charge.endpoint, |it, _| {
            it.trust += 0.1 * (share - it.trust);
        });
        if share < 0.5
            && let Some(stamp) = charge
                .found()
                .filter(|_| self.endpoint_ref(charge.endpoint).is_some())
        {
            self.index.forget_older(charge.endpoint.index(), stamp);
        }
    }

    fn abandoned(&mut self, ticket: Ticket) {
        if self.queue.remove(ticket).is_some() {
            return;
        }
        self.fresh.retain(|waiting| waiting.ticket != ticket);
        if let Some(flight) = self.flights.remove(&ticket)
            && let Some(charge) = flight.charge
        {
            self.release(
                ticket,
                &flight.request,
                &charge,
                flight.failed && !charge.started,
            );
        }
    }
}
