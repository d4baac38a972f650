//! Ending what runs for what waits, where an operator allows it.
//!
//! Requests of negative priority are taken at the client's own risk. If all endpoints for a higher one are full, some of
//! them are ended: lowest priority first, newest first, since those lose least work, and only where that makes room. At
//! most two at a time, and no more until the host has said of both that they are over and their servers' metrics were read
//! since: what was freed must be seen before more is ended. A host that says nothing is waited for ten seconds. (The order, the bound and the wait are those
//! of the Go endpoint picker's eviction.)
//!
//! Nobody is ended for a wait that ends by itself in a moment, as the wait for a running prefill does.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::Pool;
use crate::criticality::{Lineup, Rank, Waiting};
use crate::decision::{Decision, EvictReason};
use crate::id::{EndpointId, Ticket};
use crate::queue_depth::Full;
use crate::request::Request;
use crate::time::Time;

/// Most that are ended in one round.
const ROUND: usize = 2;
/// How long the host may take to say that they are over.
const CONFIRM: Duration = Duration::from_secs(10);
/// How long a request waits before others are ended for it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Requests in flight that may be ended, and those that are about to be.
#[derive(Debug, Default)]
pub(super) struct Victims {
    running: BTreeSet<(i32, Reverse<Ticket>)>,
    leaving: Vec<(i32, Ticket)>,
    until: Option<Time>,
    /// Where the last ones ran, and when the last of them was over.
    freed: (Vec<EndpointId>, Time),
}

impl Victims {
    /// One more may be ended.
    pub(super) fn run(&mut self, priority: i32, ticket: Ticket) {
        self.running.insert((priority, Reverse(ticket)));
    }

    /// One is over.
    fn over(&mut self, now: Time, priority: i32, ticket: Ticket) {
        self.running.remove(&(priority, Reverse(ticket)));
        if self.leaving.iter().any(|(_, other)| *other == ticket) {
            self.leaving.retain(|(_, other)| *other != ticket);
            self.freed.1 = now;
        }
        if self.leaving.is_empty() {
            self.until = None;
        }
    }

    /// When the host has had its time.
    pub(super) fn wake_at(&self) -> Option<Time> {
        self.until
    }
}

impl Pool {
    /// When others may be ended for this one.
    pub(super) fn evicts_for(&self, waiting: &Waiting) -> Option<Time> {
        (self.config.flow.evict_running && !self.victims.running.is_empty())
            .then(|| waiting.arrived + PATIENCE)
    }

    /// Ends a few for the first that waits, if nothing is open to it.
    pub(super) fn evict(&mut self, now: Time) {
        if self.victims.running.is_empty() || self.queue.is_empty() {
            return;
        }
        if self.victims.until.is_some_and(|until| now < until) {
            return;
        }
        if !self.settled(now) {
            return;
        }
        self.victims.leaving.clear();
        let first = self.queue.next(&mut Lineup::default());
        let Some(waiting) = first.and_then(|ticket| self.queue.get(ticket)) else {
            return;
        };
        if now < waiting.arrived + PATIENCE || waiting.nobody {
            return;
        }
        let request = waiting.request.clone();
        if self.open_to(now, &request) {
            return;
        }
        let most = ROUND.min(self.queue.len());
        let victims: Vec<(i32, Ticket)> = self
            .victims
            .running
            .iter()
            .take_while(|(priority, _)| *priority < request.priority)
            .map(|&(priority, Reverse(ticket))| (priority, ticket))
            .filter(|&(_, ticket)| self.makes_room(now, ticket, &request))
            .take(most)
            .collect();
        if victims.is_empty() {
            return;
        }
        let retry_after = self.relief(now);
        for &(priority, ticket) in &victims {
            self.victims.running.remove(&(priority, Reverse(ticket)));
            self.out.push_back(Decision::Evict {
                ticket,
                reason: EvictReason::HigherPriority,
                retry_after,
            });
        }
        let places = victims.iter().filter_map(|(_, ticket)| {
            let charge = self.flights.get(ticket)?.charge.as_ref()?;
            Some(charge.endpoint)
        });
        self.victims.freed = (places.collect(), now);
        self.victims.leaving = victims;
        self.victims.until = Some(now + CONFIRM);
    }

    /// Whether an endpoint is open to this request: then it waits because it wants to.
    fn open_to(&self, now: Time, request: &Request) -> bool {
        let open = |endpoint: &super::Endpoint| {
            let named = request.candidates.named();
            named.is_none_or(|ids| ids.contains(&endpoint.id))
                && endpoint.tier(now).is_some()
                && self.is_open(now, endpoint, Rank::Top)
        };
        let mut endpoints = self.slots.iter().filter_map(|slot| slot.endpoint.as_ref());
        !self.held_back(now, request.priority) && endpoints.any(open)
    }

    /// Whether `request` could use what this one holds.
    fn makes_room(&self, now: Time, ticket: Ticket, request: &Request) -> bool {
        let Some(charge) = self.flights.get(&ticket).and_then(|it| it.charge.as_ref()) else {
            return false;
        };
        let named = request.candidates.named();
        if named.is_some_and(|ids| !ids.contains(&charge.endpoint)) {
            return false;
        }
        let Some(endpoint) = self.endpoint_ref(charge.endpoint) else {
            return false;
        };
        match endpoint.full(now, &self.config) {
            Some(Full::Places) => true,
            Some(Full::Prefill) => !charge.started,
            // Open: then only a ceiling or the pool as a whole keeps the request back, and every place counts.
            None => self.held_back(now, request.priority) || self.pool_open(now) == Some(false),
        }
    }

    /// Whether what the last round freed has been seen, where it is seen by scraping.
    fn settled(&self, now: Time) -> bool {
        let (places, since) = &self.victims.freed;
        let stale = |id: &EndpointId| {
            let endpoint = self.endpoint_ref(*id);
            let scraped = endpoint.and_then(|it| it.last_scrape);
            scraped.is_some_and(|at| at < *since && now - at < self.config.scrape_ttl)
        };
        !places.iter().any(stale)
    }

    /// A request in flight is over.
    pub(super) fn freed(&mut self, now: Time, ticket: Ticket) {
        if !self.config.flow.evict_running {
            return;
        }
        if let Some(flight) = self.flights.get(&ticket) {
            self.victims.over(now, flight.request.priority, ticket);
        }
    }
}
