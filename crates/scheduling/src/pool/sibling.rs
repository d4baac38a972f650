//! Other gateways over the same pool.
//!
//! Gateways that do not know of each other lose what a good policy wins: each sees a fraction of the load and sends a
//! prefix to a home of its own. So they tell each other what they charge and what they give back. A sibling's request
//! is charged exactly as one's own: its prompt is in the index, in use, its prefill pending until its first token or
//! until that must have come, its space taken once for all requests that share it; and its release gives all of that
//! back. What is learned from the sizes of requests is learned from theirs too. Only what a gateway sees for itself
//! (health, speed, confirmed hits) stays its own.
//!
//! The answer's growth is not told, it would be a message for every few tokens: half of what is expected is charged
//! from the start, the mean over the time of the answer.
//!
//! Messages get lost, doubled and late. A charge that is unknown or known already changes nothing; a release that
//! comes before its charge is remembered for a while; a sibling of which nothing is heard for a minute is forgotten,
//! and so is a charge that is older than ten minutes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Pool;
use super::charge::{Charge, Work};
use super::endpoint::Endpoint;
use crate::cost::{Dispatched, prefill_seconds};
use crate::event::SharedEvent;
use crate::id::{AdapterKey, EndpointId, SiblingId, Ticket};
use crate::request::{Request, RequestKind};
use crate::time::Time;

/// A sibling of which nothing was heard for so long is gone. Hosts say `SharedEvent::Alive` more often.
const SILENCE: Duration = Duration::from_secs(60);
/// A charge is given back after this: its release was lost. The longest wait for a first byte that is usual.
const LONGEST_CHARGE: Duration = Duration::from_secs(600);
/// How often charges are looked at for their age.
const ROUND: Duration = Duration::from_secs(10);
/// Ended tickets of a sibling that are remembered, so that a late or doubled charge is not made.
const REMEMBERED: usize = 4096;
/// Events that wait for a host that does not fetch them. Beyond that siblings are told to forget.
const MOST_UNTOLD: usize = 1 << 16;
/// Below this share of its prompt a request counts as cold, as for its placement.
const WARM_SHARE: f64 = 0.1;

/// What is known of siblings, and what they are still to be told.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    known: FxHashMap<SiblingId, Sibling>,
    flights: FxHashMap<Ticket, Foreign>,
    next_round: Time,
    /// Whether this pool tells what it does.
    shares: bool,
    next_shared: u64,
    untold: Vec<SharedEvent>,
    untold_seconds: f64,
}

#[derive(Debug, Default)]
struct Sibling {
    heard: Time,
    charges: FxHashMap<u64, Ticket>,
    ended: FxHashSet<u64>,
    order: VecDeque<u64>,
}

/// A sibling's request.
#[derive(Debug)]
struct Foreign {
    sibling: SiblingId,
    number: u64,
    request: Request,
    charge: Charge,
}

impl Siblings {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// When the next look for lost ones is due.
    pub(super) fn wake_at(&self) -> Option<Time> {
        (!self.known.is_empty()).then_some(self.next_round)
    }

    fn tell(&mut self, event: SharedEvent, seconds: f64) {
        if self.untold.len() >= MOST_UNTOLD {
            self.untold.clear();
            self.untold.push(SharedEvent::Forgotten);
        }
        self.untold.push(event);
        self.untold_seconds += seconds;
    }
}

impl Sibling {
    fn end(&mut self, number: u64) {
        if self.ended.insert(number) {
            self.order.push_back(number);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

/// Telling siblings.
impl Pool {
    /// Whether to keep what is dispatched and released for siblings, to be fetched with `drain_shared`. Turning it off
    /// drops what was not fetched.
    pub fn share(&mut self, on: bool) {
        self.siblings.shares = on;
        if !on {
            self.siblings.untold = Vec::new();
            self.siblings.untold_seconds = 0.0;
        }
    }

    /// Moves what siblings were not told yet to the end of `into`, in order.
    ///
    /// A host sends them every 50 ms or so, and at once when `unshared_seconds` is large.
    pub fn drain_shared(&mut self, into: &mut Vec<SharedEvent>) {
        into.append(&mut self.siblings.untold);
        self.siblings.untold_seconds = 0.0;
    }

    /// Seconds of prefill, begun or done, that siblings were not told of yet: what their ignorance may cost. To send
    /// whenever this passes a threshold bounds both that and, since engines have only a second of prefill each second,
    /// the messages.
    pub fn unshared_seconds(&self) -> f64 {
        self.siblings.untold_seconds
    }

    /// Everything that this pool has charged now, for a sibling that is new or has missed something. It should forget
    /// what it knew before (`SharedEvent::Forgotten`).
    pub fn shared_charges(&self, into: &mut Vec<SharedEvent>) {
        let flights = self.flights.values();
        let mut charged: Vec<_> = flights
            .filter_map(|flight| {
                let charge = flight.charge.as_ref()?;
                Some((charge.shared?, &*flight.request, charge))
            })
            .collect();
        charged.sort_by_key(|(number, ..)| *number);
        for (ticket, request, charge) in charged {
            let output = self.learned.output(request.max_output_tokens);
            into.push(dispatched(ticket, request, charge, output));
            if charge.started {
                into.push(SharedEvent::FirstToken { ticket });
            }
        }
    }

    pub(super) fn tell_dispatched(&mut self, request: &Request, charge: &mut Charge, output: f64) {
        if !self.siblings.shares {
            return;
        }
        self.siblings.next_shared += 1;
        let ticket = self.siblings.next_shared;
        charge.shared = Some(ticket);
        let seconds = charge.prefill_seconds();
        let event = dispatched(ticket, request, charge, output);
        self.siblings.tell(event, seconds);
    }

    pub(super) fn tell_first_token(&mut self, charge: &Charge) {
        if let Some(ticket) = charge.shared.filter(|_| self.siblings.shares) {
            let event = SharedEvent::FirstToken { ticket };
            self.siblings.tell(event, charge.prefill_seconds());
        }
    }

    pub(super) fn tell_released(&mut self, charge: &Charge, computed: bool) {
        if let Some(ticket) = charge.shared.filter(|_| self.siblings.shares) {
            let pending = if charge.started {
                0.0
            } else {
                charge.prefill_seconds()
            };
            let event = SharedEvent::Released {
                ticket,
                output_tokens: charge.output,
                computed,
            };
            self.siblings.tell(event, pending);
        }
    }
}

fn dispatched(ticket: u64, request: &Request, charge: &Charge, output: f64) -> SharedEvent {
    let inference = request.kind == RequestKind::Inference;
    SharedEvent::Dispatched {
        ticket,
        endpoint: charge.endpoint,
        prefix: Arc::clone(&request.prefix),
        prompt_tokens: if inference { charge.prompt_tokens() } else { 0 },
        uncached_tokens: charge.uncached.min(u64::from(u32::MAX)) as u32,
        output_tokens: output as u32,
        adapter: request.adapter,
    }
}

/// Hearing from siblings.
impl Pool {
    pub(super) fn sibling(&mut self, now: Time, id: SiblingId, event: &SharedEvent) {
        if matches!(event, SharedEvent::Forgotten) {
            return self.forget_sibling(id);
        }
        let sibling = self.siblings.known.entry(id).or_default();
        sibling.heard = sibling.heard.max(now);
        match *event {
            SharedEvent::Dispatched {
                ticket,
                endpoint,
                ref prefix,
                prompt_tokens,
                uncached_tokens,
                output_tokens,
                adapter,
            } => {
                let known =
                    sibling.charges.contains_key(&ticket) || sibling.ended.contains(&ticket);
                if !known {
                    let request = foreign_request(prefix, prompt_tokens, output_tokens, adapter);
                    self.charge_foreign(now, (id, ticket), endpoint, request, uncached_tokens);
                }
            }
            SharedEvent::FirstToken { ticket } => {
                if let Some(&ticket) = sibling.charges.get(&ticket) {
                    self.start_foreign(ticket);
                }
            }
            SharedEvent::Released {
                ticket,
                output_tokens,
                computed,
            } => {
                sibling.end(ticket);
                if let Some(ticket) = sibling.charges.remove(&ticket) {
                    self.release_foreign(ticket, output_tokens, computed);
                }
            }
            SharedEvent::Alive | SharedEvent::Forgotten => {}
        }
    }

    /// A sibling sent a request to `endpoint`.
    fn charge_foreign(
        &mut self,
        now: Time,
        (sibling, number): (SiblingId, u64),
        endpoint: EndpointId,
        request: Request,
        uncached: u32,
    ) {
        if self.endpoint_ref(endpoint).is_none() {
            return;
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let prompt = f64::from(request.prompt_tokens);
        let mut work = Work {
            prompt,
            hit: (prompt - f64::from(uncached)).max(0.0),
            hit_blocks: 0,
            generated: f64::from(request.max_output_tokens.unwrap_or(0)) / 2.0,
            presumed: true,
        };
        self.dispatches += 1;
        let dispatch = self.dispatches;
        let mut cold = false;
        if request.kind == RequestKind::Inference {
            cold = self.learn_foreign(now, endpoint, &request, &mut work);
        }
        if let Some(it) = self.endpoint_mut(endpoint) {
            it.foreign += 1;
            it.last_dispatch = dispatch;
        }
        self.policy.taken(endpoint);
        let Some(charge) = self.charge_work(now, ticket, &request, endpoint, work) else {
            return;
        };
        if cold {
            self.give_cold(now, Some(&charge));
        }
        let foreign = Foreign {
            sibling,
            number,
            request,
            charge,
        };
        self.siblings.flights.insert(ticket, foreign);
        if let Some(sibling) = self.siblings.known.get_mut(&sibling) {
            sibling.charges.insert(number, ticket);
        }
    }

    /// Learns from a sibling's dispatch as from one's own. Returns whether nobody had its prompt.
    fn learn_foreign(
        &mut self,
        now: Time,
        endpoint: EndpointId,
        request: &Request,
        work: &mut Work,
    ) -> bool {
        let mut hits = std::mem::take(&mut self.siblings_hits);
        self.index
            .walk(&request.prefix, self.slots.len(), &mut hits);
        work.hit_blocks = hits.cached.get(endpoint.index()).copied().unwrap_or(0);
        let tokens_per_block = self.tokens_per_block();
        let anywhere = hits.cached.iter().copied().max().unwrap_or(0);
        let best_hit = f64::from(anywhere) * tokens_per_block;
        let coefficients = self.endpoint_ref(endpoint).map(Endpoint::coefficients);
        let prompt = work.prompt.max(1.0);
        let sizes = Dispatched {
            prompt,
            hit: work.hit,
            best_hit,
            known: f64::from(hits.known) * tokens_per_block,
            seconds: coefficients.map_or(0.0, |it| {
                prefill_seconds(&it, (prompt - work.hit).max(1.0), work.hit)
            }),
        };
        self.siblings_hits = hits;
        self.learned.dispatched(now, sizes);
        best_hit < WARM_SHARE * prompt
    }

    /// The prefill of a sibling's request is done.
    pub(super) fn start_foreign(&mut self, ticket: Ticket) {
        if let Some(mut foreign) = self.siblings.flights.remove(&ticket) {
            self.start(&mut foreign.charge);
            self.siblings.flights.insert(ticket, foreign);
        }
    }

    fn release_foreign(&mut self, ticket: Ticket, output_tokens: u32, computed: bool) {
        let Some(mut foreign) = self.siblings.flights.remove(&ticket) else {
            return;
        };
        if output_tokens > 0 {
            self.start(&mut foreign.charge);
            self.learned.finished(output_tokens);
        }
        let charge = &foreign.charge;
        if let Some(it) = self.endpoint_mut(charge.endpoint) {
            it.foreign -= 1;
        }
        self.release(ticket, &foreign.request, charge, !computed);
    }

    fn forget_sibling(&mut self, id: SiblingId) {
        let Some(sibling) = self.siblings.known.remove(&id) else {
            return;
        };
        let mut tickets: Vec<Ticket> = sibling.charges.into_values().collect();
        tickets.sort_unstable();
        for ticket in tickets {
            self.release_foreign(ticket, 0, true);
        }
    }

    /// Gives back what siblings that fell silent hold, and charges whose release must have been lost.
    pub(super) fn miss_siblings(&mut self, now: Time) {
        if self.siblings.known.is_empty() || now < self.siblings.next_round {
            return;
        }
        self.siblings.next_round = now + ROUND;
        let known = self.siblings.known.iter();
        let mut silent: Vec<SiblingId> = known
            .filter(|(_, sibling)| now - sibling.heard >= SILENCE)
            .map(|(id, _)| *id)
            .collect();
        silent.sort_unstable();
        for id in silent {
            self.forget_sibling(id);
            self.dirty = true;
        }
        let flights = self.siblings.flights.iter();
        let mut lost: Vec<(Ticket, SiblingId, u64)> = flights
            .filter(|(_, foreign)| now - foreign.charge.at >= LONGEST_CHARGE)
            .map(|(ticket, foreign)| (*ticket, foreign.sibling, foreign.number))
            .collect();
        lost.sort_unstable();
        for (ticket, id, number) in lost {
            if let Some(sibling) = self.siblings.known.get_mut(&id) {
                sibling.charges.remove(&number);
                sibling.end(number);
            }
            self.release_foreign(ticket, 0, true);
            self.dirty = true;
        }
    }
}

fn foreign_request(
    prefix: &Arc<[u64]>,
    prompt_tokens: u32,
    output_tokens: u32,
    adapter: Option<AdapterKey>,
) -> Request {
    let kind = if prompt_tokens > 0 {
        RequestKind::Inference
    } else {
        RequestKind::Opaque
    };
    Request {
        kind,
        prefix: Arc::clone(prefix),
        prompt_tokens,
        max_output_tokens: Some(output_tokens),
        adapter,
        ..Request::default()
    }
}
