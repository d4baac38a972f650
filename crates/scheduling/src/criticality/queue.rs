//! The requests that wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::lane::{Lane, Rank, Spot, Walk};
use super::settings::FlowControl;
use crate::id::Ticket;
use crate::request::Request;
use crate::time::Time;

/// One request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) request: Arc<Request>,
    pub(crate) arrived: Time,
    /// Since when its present budget of time runs: from its arrival, or from the moment at which there began or ceased
    /// to be an endpoint for it.
    pub(crate) since: Time,
    /// No endpoint could take it at all.
    pub(crate) nobody: bool,
    /// Since when it passes over open endpoints because it expects more from one that is not.
    pub(crate) held_since: Option<Time>,
    /// When passing over them is no longer worth while.
    pub(crate) patient_until: Option<Time>,
    /// Seconds of its prefill where that is least.
    pub(crate) least_prefill: f64,
    /// Tokens of its prompt that are to be computed there.
    pub(crate) tokens: u64,
    /// When it must be looked at again.
    timer: Option<Time>,
    place: Option<Place>,
}

/// Where it stands, and with how many seconds it is counted there.
#[derive(Copy, Clone, Debug)]
struct Place {
    spot: Spot,
    seconds: f64,
}

impl Waiting {
    pub(crate) fn new(ticket: Ticket, request: Arc<Request>, arrived: Time) -> Self {
        Self {
            ticket,
            request,
            arrived,
            since: arrived,
            nobody: false,
            held_since: None,
            patient_until: None,
            least_prefill: 0.0,
            tokens: 0,
            timer: None,
            place: None,
        }
    }

    /// There is, or there is not, an endpoint for it: if that is news, its budget of time begins anew.
    pub(crate) fn regime(&mut self, now: Time, nobody: bool) {
        if self.nobody != nobody {
            self.nobody = nobody;
            self.since = now;
        }
    }
}

/// How far a walk through the queue has come.
#[derive(Debug, Default)]
pub(crate) struct Lineup {
    band: Option<Reverse<i32>>,
    walk: Walk,
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Ticket, Waiting>,
    lanes: BTreeMap<Reverse<i32>, Lane>,
    timers: BTreeSet<(Time, Ticket)>,
    bytes: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a request in its place. A band that nobody waits in begins with it.
    pub(crate) fn push(&mut self, mut waiting: Waiting, settings: &FlowControl) {
        let request = &waiting.request;
        let lane = self
            .lanes
            .entry(Reverse(request.priority))
            .or_insert_with(|| Lane::new(settings.rules(request.priority)));
        let seconds = waiting.least_prefill;
        let spot = Spot {
            rank: Rank::of(&lane.rules, request, seconds, waiting.arrived),
            ticket: waiting.ticket,
            flow: lane.flow_of(request),
            cost: lane.cost(waiting.tokens),
        };
        lane.insert(spot, request.bytes, seconds);
        self.bytes += request.bytes;
        waiting.place = Some(Place { spot, seconds });
        self.waiting.insert(waiting.ticket, waiting);
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        self.take(ticket, None)
    }

    /// Takes out one that goes to an endpoint, which computes so many tokens for it.
    pub(crate) fn dispatched(&mut self, ticket: Ticket, tokens: u64) {
        self.take(ticket, Some(tokens));
    }

    fn take(&mut self, ticket: Ticket, served: Option<u64>) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        if let Some(timer) = waiting.timer {
            self.timers.remove(&(timer, ticket));
        }
        self.bytes -= waiting.request.bytes;
        let band = Reverse(waiting.request.priority);
        if let (Some(lane), Some(place)) = (self.lanes.get_mut(&band), waiting.place) {
            lane.remove(&place.spot, waiting.request.bytes, place.seconds);
            if let Some(tokens) = served {
                lane.serve(place.spot.flow, tokens);
            }
            if lane.is_empty() {
                self.lanes.remove(&band);
            }
        }
        Some(waiting)
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiting> {
        self.waiting.get(&ticket)
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        self.waiting.get_mut(&ticket)
    }

    /// The next of a walk from who goes first to who goes last.
    pub(crate) fn next(&self, lineup: &mut Lineup) -> Option<Ticket> {
        loop {
            let from = lineup.band.map_or(Bound::Unbounded, Bound::Included);
            let (&band, lane) = self.lanes.range((from, Bound::Unbounded)).next()?;
            if lineup.band != Some(band) {
                *lineup = Lineup {
                    band: Some(band),
                    walk: Walk::default(),
                };
            }
            if let Some(ticket) = lane.next(&mut lineup.walk) {
                return Some(ticket);
            }
            let (&next, _) = self
                .lanes
                .range((Bound::Excluded(band), Bound::Unbounded))
                .next()?;
            *lineup = Lineup {
                band: Some(next),
                walk: Walk::default(),
            };
        }
    }

    /// Who waits longest.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    /// The youngest of the lowest class, and its priority.
    pub(crate) fn least(&self) -> Option<(i32, Ticket)> {
        let (band, lane) = self.lanes.last_key_value()?;
        Some((band.0, lane.youngest()?))
    }

    /// One that has to leave because more wait than may: the youngest of a band over its own bounds, or the youngest of
    /// the lowest class.
    pub(crate) fn surplus(&self, settings: &FlowControl) -> Option<Ticket> {
        let band = self.lanes.values().find(|lane| lane.over());
        match band {
            Some(lane) => lane.youngest(),
            None if self.len() > settings.max_requests || self.bytes > settings.max_bytes => {
                self.least().map(|(_, ticket)| ticket)
            }
            None => None,
        }
    }

    /// Whether there is room for a newcomer, even if all of lower classes had to leave.
    pub(crate) fn fits(&self, request: &Request, settings: &FlowControl) -> bool {
        let (mut requests, mut bytes) = (1, request.bytes);
        for (_, lane) in self.lanes.range(..=Reverse(request.priority)) {
            requests += lane.len();
            bytes = bytes.saturating_add(lane.bytes);
        }
        let rules = settings.rules(request.priority);
        let own = self.lanes.get(&Reverse(request.priority));
        let (own_requests, own_bytes) = own.map_or((0, 0), |lane| (lane.len(), lane.bytes));
        requests <= settings.max_requests
            && bytes <= settings.max_bytes
            && own_requests < rules.max_requests
            && own_bytes.saturating_add(request.bytes) <= rules.max_bytes
    }

    /// Looks at a request again at `time`, and not before.
    pub(crate) fn set_timer(&mut self, ticket: Ticket, time: Option<Time>) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else {
            return;
        };
        if waiting.timer == time {
            return;
        }
        if let Some(old) = std::mem::replace(&mut waiting.timer, time) {
            self.timers.remove(&(old, ticket));
        }
        if let Some(time) = time {
            self.timers.insert((time, ticket));
        }
    }

    /// The next timer, and whose it is.
    pub(crate) fn first_timer(&self) -> Option<(Time, Ticket)> {
        self.timers.first().copied()
    }

    /// Seconds of prefill before a newcomer with this priority and flow.
    pub(crate) fn before(&self, request: &Request) -> f64 {
        let own = Reverse(request.priority);
        let higher = self.lanes.range(..own).map(|(_, lane)| lane.seconds);
        let same = self.lanes.get(&own);
        let same = same.map_or(0.0, |lane| lane.before(lane.flow_of(request)));
        (higher.sum::<f64>() + same).max(0.0)
    }

    /// Seconds of prefill that wait.
    pub(crate) fn seconds(&self) -> f64 {
        self.lanes
            .values()
            .map(|lane| lane.seconds)
            .sum::<f64>()
            .max(0.0)
    }

    /// How many wait by priority, highest first.
    pub(crate) fn by_priority(&self) -> Vec<(i32, usize)> {
        self.lanes
            .iter()
            .map(|(band, lane)| (band.0, lane.len()))
            .collect()
    }

    /// Bytes of bodies that wait by priority, highest first.
    pub(crate) fn bytes_by_priority(&self) -> Vec<(i32, u64)> {
        self.lanes
            .iter()
            .map(|(band, lane)| (band.0, lane.bytes))
            .collect()
    }

    #[cfg(test)]
    pub(super) fn lane(&self, priority: i32) -> Option<&Lane> {
        self.lanes.get(&Reverse(priority))
    }
}
