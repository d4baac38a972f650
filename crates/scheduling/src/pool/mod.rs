//! The state machine.
//!
//! A host calls [`Pool::arrive`] for each request and [`Pool::observe`] for each thing that happens, and after either,
//! and at [`Pool::wake_at`], calls [`Pool::next`] until it returns `None`. Each ticket gets exactly one decision, unless
//! it is abandoned before. From its dispatch to `Finished` or `Abandoned` a request is charged to one endpoint; what is
//! charged is what is given back, whatever happens between.

mod charge;
mod clock;
mod decide;
mod endpoint;
mod evict;
mod forecast;
mod observe;
mod pass;
mod sibling;
mod view;
mod watchdog;

pub use view::{EndpointView, Stats};

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::config::Config;
use crate::cost::Learned;
use crate::criticality::{Drain, Highest, Queue, Rank, Turns, Waiting};
use crate::decision::Decision;
use crate::event::Event;
use crate::id::{EndpointId, Ticket};
use crate::policy::profile::Labels;
use crate::policy::{self, Policy};
use crate::prefix::{Hits, Index};
use crate::profile::EndpointProfile;
use crate::request::{Request, RequestKind};
use crate::time::Time;

use charge::Flight;
use clock::Clock;
use decide::Scratch;
use endpoint::Endpoint;
use evict::Victims;
use sibling::Siblings;

/// How much more than its endpoints hold the index remembers, so that it notices what all of them have forgotten.
const GHOSTS: u64 = 4;

/// One pool of model servers.
#[derive(Debug)]
pub struct Pool {
    config: Config,
    seed: u64,
    policy: Box<dyn Policy>,
    slots: Vec<Slot>,
    index: Index,
    learned: Learned,
    /// Arrived, not yet judged.
    fresh: VecDeque<Waiting>,
    queue: Queue,
    turns: Turns,
    highest: Highest,
    drain: Drain,
    /// There was no endpoint at the last look.
    empty: bool,
    victims: Victims,
    flights: FxHashMap<Ticket, Flight>,
    siblings: Siblings,
    siblings_hits: Hits,
    /// When the prefill of requests without a stream is presumed done.
    presumed: BTreeSet<(Time, Ticket)>,
    out: VecDeque<Decision>,
    next_ticket: u64,
    dispatches: u64,
    /// Something happened that may let a waiting request go.
    dirty: bool,
    clock: Clock,
    /// When to look for first tokens that never came.
    look_for_lost: Option<Time>,
    /// Requests judged so far.
    judged: u64,
    wake: Option<Time>,
    scratch: Scratch,
}

/// One index that endpoints have in turn.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    endpoint: Option<Endpoint>,
}

impl Pool {
    /// An empty pool. Equal seeds and equal calls give equal decisions.
    pub fn new(config: Config, seed: u64) -> Self {
        let policy = policy::of(config.policy);
        Self::with_policy(config, seed, policy)
    }

    /// An empty pool with a policy of one's own; `config.policy` is not used.
    pub fn with_policy(config: Config, seed: u64, policy: Box<dyn Policy>) -> Self {
        Self {
            index: Index::new(config.index_blocks),
            learned: Learned::new(&config),
            config,
            seed,
            policy,
            slots: Vec::new(),
            fresh: VecDeque::new(),
            queue: Queue::default(),
            turns: Turns::default(),
            highest: Highest::default(),
            drain: Drain::default(),
            empty: false,
            victims: Victims::default(),
            flights: FxHashMap::default(),
            siblings: Siblings::default(),
            siblings_hits: Hits::default(),
            presumed: BTreeSet::new(),
            out: VecDeque::new(),
            next_ticket: 0,
            dispatches: 0,
            dirty: false,
            clock: Clock::default(),
            look_for_lost: None,
            judged: 0,
            wake: None,
            scratch: Scratch::default(),
        }
    }

    /// An endpoint joins. Call `next` until it returns `None`: requests may have waited for it.
    pub fn join(&mut self, now: Time, profile: EndpointProfile) -> EndpointId {
        self.clock.at(now);
        // No better than the best placed: it must not get every cold prompt until it has caught up.
        let others = self.slots.iter().filter_map(|slot| slot.endpoint.as_ref());
        let cold = others
            .map(|it| it.cold)
            .reduce(|a, b| if b < a { b } else { a });
        let index = match self.slots.iter().position(|slot| slot.endpoint.is_none()) {
            Some(index) => index,
            None => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[index];
        let id = EndpointId {
            index: index as u32,
            generation: slot.generation,
        };
        let mut endpoint = Endpoint::new(id, profile);
        endpoint.cold = cold.unwrap_or_default();
        slot.endpoint = Some(endpoint);
        self.bound_index();
        self.dirty = true;
        id
    }

    /// Labels of an endpoint, for policies that go by them. Call `next` until it returns `None`.
    pub fn label(&mut self, endpoint: EndpointId, labels: &Arc<Labels>) {
        self.policy.labelled(endpoint, labels);
        self.dirty = true;
    }

    /// A request arrives. Call `next` until it returns `None`.
    pub fn arrive(&mut self, now: Time, mut request: Request) -> Ticket {
        let now = self.clock.at(now);
        request.deadline = request.deadline.map(|at| self.clock.inward(at));
        request.due = request.due.map(|at| self.clock.inward(at));
        if request.kind == RequestKind::Inference {
            self.highest.arrives(now, request.priority);
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.fresh
            .push_back(Waiting::new(ticket, Arc::new(request), now));
        ticket
    }

    /// Something happened. Call `next` until it returns `None`.
    pub fn observe(&mut self, now: Time, event: Event<'_>) {
        let now = self.clock.at(now);
        self.presume(now);
        self.miss_siblings(now);
        if let Event::Finished { ticket, .. } | Event::Abandoned { ticket } = event {
            self.freed(now, ticket);
        }
        self.handle(now, event);
        // Tokens in mid-stream make an endpoint a little dearer, never open.
        self.dirty |= !matches!(event, Event::Progress { .. });
    }

    /// The next decision, if there is one to make now.
    pub fn next(&mut self, now: Time) -> Option<Decision> {
        let now = self.clock.at(now);
        self.miss_siblings(now);
        if self.out.is_empty() {
            let due = self.wake.is_some_and(|wake| now >= wake);
            if !self.fresh.is_empty() || (self.dirty && !self.queue.is_empty()) || due {
                self.dirty |= due;
                self.pass(now);
            }
        }
        self.out.pop_front()
    }

    /// When to call `next` although nothing happened.
    pub fn wake_at(&self) -> Option<Time> {
        let pending = !self.out.is_empty()
            || !self.fresh.is_empty()
            || (self.dirty && !self.queue.is_empty());
        let wake = if pending {
            Some(self.clock.now())
        } else {
            self.wake
        };
        wake.map(|wake| self.clock.outward(wake))
    }

    /// Another bound of the prefix index from now on, see `Config::index_blocks`. A smaller one gives memory back at
    /// once: what was not used for longest goes first, what requests in flight use stays.
    pub fn set_index_blocks(&mut self, blocks: usize) {
        self.config.index_blocks = blocks;
        self.bound_index();
    }

    /// One endpoint now, for status pages and metrics.
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointView> {
        self.view(self.clock.now(), id)
    }

    /// The endpoints that joined and did not leave.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> + '_ {
        self.ids()
    }

    /// The pool now, for status pages and metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            endpoints: self.ids().count(),
            ready: self.ready(self.clock.now()),
            saturated: self
                .saturation(self.clock.now(), Rank::Top)
                .is_none_or(|it| it >= 1.0),
            queued: self.queue.len() + self.fresh.len(),
            queued_by_priority: self.queue.by_priority(),
            queued_bytes: self.queue.bytes_by_priority(),
            saturation: self.saturation(self.clock.now(), Rank::Top).unwrap_or(1.0),
            judged: self.judged,
            in_flight: self.flights.len(),
            siblings: self.siblings.len(),
            siblings_in_flight: self.siblings.in_flight(),
            index_blocks: self.index.blocks(),
            index_runs: self.index.runs(),
            index_bytes: self.index.bytes(),
            hit_ratio: self.learned.hit_ratio(),
            hit_confirmed: self.learned.hit_confirmed(),
            theta: self.learned.theta(&self.config.prices),
            output_tokens: self.learned.output(None),
            prompt_scale: self.learned.scale(),
        }
    }

    fn view(&self, now: Time, id: EndpointId) -> Option<EndpointView> {
        let it = self.endpoint_ref(id)?;
        let ttl = self.config.scrape_ttl;
        let shared = (self.index.pinned_blocks(id.index()) as f64 * self.tokens_per_block()) as u64;
        let (used, capacity) = (it.space.used(shared, now, ttl), it.capacity(&self.config));
        Some(EndpointView {
            id,
            in_flight: it.depth.in_flight,
            siblings_in_flight: it.foreign,
            decoding: it.depth.decoding,
            pending_tokens: it.depth.pending_tokens,
            pending_seconds: it.depth.pending_nanos as f64 * 1e-9,
            waiting: it.depth.waiting(now, ttl),
            running: it.depth.running(),
            kv_used_tokens: used,
            kv_capacity_tokens: capacity,
            kv_usage: used as f64 / capacity as f64,
            health: it.monitor.health(),
            draining: it.is_draining(now),
            open: self.is_open(now, it, Rank::Top),
            adapters: it.adapters.resident(),
            cached_blocks: self.index.cached_blocks(id.index()),
            scrape_age: it.last_scrape.map(|at| now - at),
        })
    }

    fn ids(&self) -> impl Iterator<Item = EndpointId> + '_ {
        self.slots
            .iter()
            .filter_map(|slot| slot.endpoint.as_ref())
            .map(|endpoint| endpoint.id)
    }

    fn endpoint_ref(&self, id: EndpointId) -> Option<&Endpoint> {
        self.slots
            .get(id.index())
            .filter(|slot| slot.generation == id.generation)?
            .endpoint
            .as_ref()
    }

    fn endpoint_mut(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        self.slots
            .get_mut(id.index())
            .filter(|slot| slot.generation == id.generation)?
            .endpoint
            .as_mut()
    }

    /// Endpoints that may get requests.
    fn ready(&self, now: Time) -> usize {
        let endpoints = self.slots.iter().filter_map(|slot| slot.endpoint.as_ref());
        endpoints
            .filter(|endpoint| endpoint.tier(now).is_some())
            .count()
    }

    /// The index remembers what a few fleets hold, within its bound.
    fn bound_index(&mut self) {
        // Between the last that left and the next that joins there is nothing to go by.
        if self.ids().next().is_none() {
            return;
        }
        let endpoints = self.slots.iter().filter_map(|slot| slot.endpoint.as_ref());
        let tokens: u64 = endpoints
            .map(|endpoint| endpoint.capacity(&self.config))
            .sum();
        let blocks = GHOSTS.saturating_mul(tokens) / u64::from(self.config.block_tokens.max(1));
        self.index
            .set_bound(self.config.index_blocks.min(blocks as usize));
    }
}
