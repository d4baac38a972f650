//! The requests that wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::id::Ticket;
use crate::request::Request;
use crate::time::Time;

/// Seconds of prefill that a second of waiting makes up for.
const AGING: f64 = 0.1;

/// One request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) request: Arc<Request>,
    pub(crate) arrived: Time,
    /// Since when no endpoint could take it at all.
    pub(crate) nobody_since: Option<Time>,
    /// Since when it passes over open endpoints because it expects more from one that is not.
    pub(crate) held_since: Option<Time>,
    /// When passing over them is no longer worth while.
    pub(crate) patient_until: Option<Time>,
    /// Seconds of its prefill where that is least.
    pub(crate) least_prefill: f64,
    /// When it must be looked at again.
    timer: Option<Time>,
    place: Place,
}

impl Waiting {
    pub(crate) fn new(ticket: Ticket, request: Arc<Request>, arrived: Time) -> Self {
        let place = Place {
            band: Reverse(request.priority),
            rank: 0,
            ticket,
        };
        Self {
            ticket,
            request,
            arrived,
            nobody_since: None,
            held_since: None,
            patient_until: None,
            least_prefill: 0.0,
            timer: None,
            place,
        }
    }
}

/// A place in the order: band, then rank, then arrival.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    band: Reverse<i32>,
    rank: i64,
    pub(crate) ticket: Ticket,
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Ticket, Waiting>,
    order: BTreeSet<Place>,
    bands: BTreeMap<Reverse<i32>, BTreeSet<Ticket>>,
    timers: BTreeSet<(Time, Ticket)>,
    /// Seconds of prefill waiting, by flow.
    pub(super) backlog: FxHashMap<u64, f64>,
    seconds: f64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a request in its place.
    pub(crate) fn push(&mut self, mut waiting: Waiting) {
        let request = &waiting.request;
        let backlog = self.backlog.entry(request.flow).or_default();
        let before = if request.flow == 0 { 0.0 } else { *backlog };
        *backlog += waiting.least_prefill;
        self.seconds += waiting.least_prefill;
        // The present is the same for all, so it may be left out of `- 0.1 * wait`.
        let rank = waiting.least_prefill + before + AGING * waiting.arrived.as_secs_f64();
        waiting.place.rank = (rank * 1e9) as i64;
        self.order.insert(waiting.place);
        self.bands
            .entry(waiting.place.band)
            .or_default()
            .insert(waiting.ticket);
        self.waiting.insert(waiting.ticket, waiting);
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        self.order.remove(&waiting.place);
        if let Some(timer) = waiting.timer {
            self.timers.remove(&(timer, ticket));
        }
        if let Some(tickets) = self.bands.get_mut(&waiting.place.band) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.bands.remove(&waiting.place.band);
            }
        }
        self.seconds = if self.waiting.is_empty() {
            0.0
        } else {
            self.seconds - waiting.least_prefill
        };
        let flow = waiting.request.flow;
        if let Some(backlog) = self.backlog.get_mut(&flow) {
            *backlog -= waiting.least_prefill;
            if *backlog < 1e-9 {
                self.backlog.remove(&flow);
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

    /// Who goes first, of those after `place`.
    pub(crate) fn after(&self, place: Option<Place>) -> Option<Place> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next().copied()
    }

    /// Who waits longest.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    /// The youngest of the lowest class, and its priority.
    pub(crate) fn least(&self) -> Option<(i32, Ticket)> {
        let (band, tickets) = self.bands.last_key_value()?;
        Some((band.0, *tickets.last()?))
    }

    /// Looks at a request again at `time`, and not before.
    pub(crate) fn set_timer(&mut self, ticket: Ticket, time: Option<Time>) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else {
            return;
        };
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

    /// Seconds of prefill that wait.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.max(0.0)
    }

    /// How many wait by priority, highest first.
    pub(crate) fn by_priority(&self) -> Vec<(i32, usize)> {
        self.bands
            .iter()
            .map(|(band, tickets)| (band.0, tickets.len()))
            .collect()
    }
}
