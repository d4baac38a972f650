//! The requests of one priority that wait: flows side by side, an order within each.
//!
//! Flows take turns by what they were served since they began to wait: uncached tokens ([`Fairness::Deficit`]) or
//! requests ([`Fairness::RoundRobin`]). The flow served least goes first; within a quantum flows count as equal, and
//! the better head goes, so that short work and cache hits still come before long work as long as nobody gains more
//! than a quantum by it. A flow that begins to wait starts level with the one served least, so that having been away
//! earns nothing (the counters of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024; the quantum as
//! in Cao et al., "Locality-aware Fair Scheduling in LLM Serving", 2025). With [`Fairness::Strict`] all are one flow.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::settings::{Fairness, Ordering, Rules};
use crate::id::Ticket;
use crate::request::Request;
use crate::time::Time;

/// Uncached tokens that one flow may be ahead of another: one step of a default vLLM.
const QUANTUM: u64 = 8192;

/// Flows that do not wait and are remembered, beside those that do.
const IDLE_FLOWS: usize = 256;

/// A place in a flow: those with a deadline first, then by number.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank(bool, i64);

impl Rank {
    /// The place of a request that takes `least_prefill` seconds at least.
    pub(crate) fn of(rules: &Rules, request: &Request, least_prefill: f64, arrived: Time) -> Self {
        let nanos = |seconds: f64| (seconds * 1e9) as i64;
        let came = i64::try_from(arrived.as_nanos()).unwrap_or(i64::MAX);
        let due = request.deadline.or(request.due);
        let due = due.map(|due| i64::try_from(due.as_nanos()).unwrap_or(i64::MAX));
        match (rules.ordering, due) {
            (Ordering::Fcfs, _) => Self(true, came),
            (Ordering::Deadline, Some(due)) => Self(false, due),
            (Ordering::Deadline, None) => Self(true, came),
            // The latest moment at which it may begin.
            (Ordering::ShortestFirst, Some(due)) => {
                Self(false, due.saturating_sub(nanos(least_prefill)))
            }
            // The present is the same for all, so it may be left out of `- aging * wait`.
            (Ordering::ShortestFirst, None) => {
                let work = least_prefill + rules.aging * arrived.as_secs_f64();
                Self(true, nanos(work))
            }
        }
    }
}

/// Where a request stands: its flow, and its place there.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Spot {
    pub(crate) rank: Rank,
    pub(crate) ticket: Ticket,
    pub(crate) flow: u64,
    /// What its flow will have been served by it, as far as known before.
    pub(crate) cost: u64,
}

/// A turn: what a flow was served, in quanta, then its head.
type Turn = (u64, Spot);

/// All that wait with one priority.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) rules: Rules,
    flows: FxHashMap<u64, Flow>,
    /// The flows that wait, next first.
    turns: BTreeSet<Turn>,
    tickets: BTreeSet<Ticket>,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// No flow that waits was served less.
    floor: u64,
}

#[derive(Debug, Default)]
struct Flow {
    served: u64,
    order: BTreeSet<Spot>,
    seconds: f64,
}

/// How far a walk through a lane has come.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    last: Option<Turn>,
    /// Flows that were met; their next turn, if they have one, is in `again`.
    met: SmallVec<[u64; 32]>,
    again: BinaryHeap<Reverse<(u64, Spot, u64)>>,
}

impl Lane {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            flows: FxHashMap::default(),
            turns: BTreeSet::new(),
            tickets: BTreeSet::new(),
            bytes: 0,
            seconds: 0.0,
            floor: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// The flow of a request in this lane.
    pub(crate) fn flow_of(&self, request: &Request) -> u64 {
        match self.rules.fairness {
            Fairness::Strict => 0,
            Fairness::Deficit | Fairness::RoundRobin => request.flow,
        }
    }

    /// What a request of so many uncached tokens counts.
    pub(crate) fn cost(&self, tokens: u64) -> u64 {
        match self.rules.fairness {
            Fairness::Deficit => tokens.max(1),
            Fairness::RoundRobin | Fairness::Strict => 1,
        }
    }

    fn round(&self, served: u64) -> u64 {
        match self.rules.fairness {
            Fairness::Deficit => served / QUANTUM,
            Fairness::RoundRobin => served,
            Fairness::Strict => 0,
        }
    }

    pub(crate) fn insert(&mut self, spot: Spot, bytes: u64, seconds: f64) {
        let floor = self.level();
        self.unturn(spot.flow);
        let flow = self.flows.entry(spot.flow).or_default();
        if flow.order.is_empty() {
            flow.served = flow.served.max(floor);
        }
        flow.order.insert(spot);
        flow.seconds += seconds;
        self.turn(spot.flow);
        self.tickets.insert(spot.ticket);
        self.bytes += bytes;
        self.seconds += seconds;
    }

    pub(crate) fn remove(&mut self, spot: &Spot, bytes: u64, seconds: f64) {
        self.unturn(spot.flow);
        if let Some(flow) = self.flows.get_mut(&spot.flow) {
            flow.order.remove(spot);
            flow.seconds -= seconds;
            if flow.order.is_empty() {
                flow.seconds = 0.0;
            }
        }
        self.turn(spot.flow);
        self.tickets.remove(&spot.ticket);
        self.bytes -= bytes;
        self.seconds = if self.tickets.is_empty() {
            0.0
        } else {
            self.seconds - seconds
        };
        self.forget();
    }

    /// A flow was served so much.
    pub(crate) fn serve(&mut self, flow: u64, tokens: u64) {
        let cost = self.cost(tokens);
        self.unturn(flow);
        let it = self.flows.entry(flow).or_default();
        it.served = it.served.saturating_add(cost);
        self.turn(flow);
        self.floor = self.level();
    }

    /// What the flow that waits and was served least was served, to a quantum.
    fn level(&self) -> u64 {
        let round = self.turns.first().map_or(0, |(round, _)| *round);
        let served = match self.rules.fairness {
            Fairness::Deficit => round * QUANTUM,
            Fairness::RoundRobin | Fairness::Strict => round,
        };
        self.floor.max(served)
    }

    fn unturn(&mut self, flow: u64) {
        if let Some((served, head)) = self.head(flow) {
            self.turns.remove(&(self.round(served), head));
        }
    }

    fn turn(&mut self, flow: u64) {
        if let Some((served, head)) = self.head(flow) {
            self.turns.insert((self.round(served), head));
        }
    }

    fn head(&self, flow: u64) -> Option<(u64, Spot)> {
        let flow = self.flows.get(&flow)?;
        Some((flow.served, *flow.order.first()?))
    }

    /// Flows that do not wait and are level with the least served need no memory.
    fn forget(&mut self) {
        if self.flows.len() > 2 * self.turns.len() + IDLE_FLOWS {
            let floor = self.floor;
            self.flows
                .retain(|_, flow| !flow.order.is_empty() || flow.served > floor);
            if self.flows.len() > 2 * self.turns.len() + IDLE_FLOWS {
                self.flows.retain(|_, flow| !flow.order.is_empty());
            }
        }
    }

    /// The next of a walk: the order in which they would go, each counted as served once it is passed.
    pub(crate) fn next(&self, walk: &mut Walk) -> Option<Ticket> {
        let from = walk.last.map_or(Bound::Unbounded, Bound::Excluded);
        let fresh = self
            .turns
            .range((from, Bound::Unbounded))
            .find(|(_, spot)| !walk.met.contains(&spot.flow))
            .copied();
        let again = walk
            .again
            .peek()
            .map(|Reverse((round, spot, _))| (*round, *spot));
        let (spot, served) = match (fresh, again) {
            (Some(turn), again) if again.is_none_or(|again| turn <= again) => {
                walk.last = Some(turn);
                walk.met.push(turn.1.flow);
                (turn.1, self.flows.get(&turn.1.flow)?.served)
            }
            _ => {
                let Reverse((_, spot, served)) = walk.again.pop()?;
                (spot, served)
            }
        };
        let served = served.saturating_add(spot.cost);
        let behind = (Bound::Excluded(spot), Bound::Unbounded);
        let next = self
            .flows
            .get(&spot.flow)
            .and_then(|flow| flow.order.range(behind).next());
        if let Some(next) = next {
            walk.again
                .push(Reverse((self.round(served), *next, served)));
        }
        Some(spot.ticket)
    }

    /// The youngest.
    pub(crate) fn youngest(&self) -> Option<Ticket> {
        self.tickets.last().copied()
    }

    /// Whether more wait than may.
    pub(crate) fn over(&self) -> bool {
        self.len() > self.rules.max_requests || self.bytes > self.rules.max_bytes
    }

    /// Seconds of work before a newcomer of this flow: its own flow's, as often as there are flows to share with.
    pub(crate) fn before(&self, flow: u64) -> f64 {
        let own = self.flows.get(&flow).map_or(0.0, |flow| flow.seconds);
        let sharing = self.turns.len().max(1) as f64;
        (own * sharing).min(self.seconds).max(0.0)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.flows.len()
    }
}
