//! What is going to happen, in order of time; equal times in the order in which they were planned.
//!
//! Most of it is on its way between a gateway and an engine. In calm weather all of that takes equally long, so it
//! arrives in the order in which it was sent: it waits in a line of its own, and only the rest in a heap.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use scheduling::SharedEvent;

use super::weather::ChangeKind;
use crate::Job;

/// One thing that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A client sends a job. `open`: it came from the stream of jobs that depend on no answer.
    Arrival { job: Box<Job>, open: bool },
    /// A job reaches the engine it was sent to, for the `attempt`th time.
    Delivered { slot: usize, attempt: u32 },
    /// A step of an engine is over, unless the engine is gone since: `life` counts how often it came.
    StepDone { engine: usize, life: u32 },
    /// Part of an answer to a job's `attempt`th try reaches the gateway.
    Answer {
        slot: usize,
        attempt: u32,
        answer: Answer,
    },
    /// Something happens to an engine, or to all.
    Change {
        engine: Option<usize>,
        kind: ChangeKind,
    },
    /// Discovery tells the gateways whether an engine is there.
    Discovered { engine: usize, there: bool },
    /// An engine writes its metrics page.
    Scrape { engine: usize },
    /// A metrics page reaches the gateways.
    Page(Box<Page>),
    /// It is time for a gateway to tell the others what it did.
    Share { gateway: usize },
    /// What a gateway did reaches the others.
    Shared {
        gateway: usize,
        events: Vec<SharedEvent>,
    },
    /// A dispatcher wanted to be asked again.
    Wake { gateway: usize },
    /// The fleet's state is noted for the report.
    Sample,
}

/// Part of an answer on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    First {
        cached: u32,
    },
    Tokens(u32),
    Finished,
    Refused,
    /// Nobody is there any more, or nothing came in time.
    Broken {
        /// Whether another engine may be tried.
        retry: bool,
    },
}

/// What a scrape reads.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) engine: usize,
    pub(super) running: u32,
    pub(super) waiting: u32,
    pub(super) kv_usage: f64,
    pub(super) resident: Vec<u32>,
    pub(super) wanted: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    at: f64,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap gives out its greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = other.at.total_cmp(&self.at);
        by_time.then(other.order.cmp(&self.order))
    }
}

/// The future.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Entry>,
    /// In order of time.
    line: VecDeque<Entry>,
    planned: u64,
}

impl Events {
    /// Plans `event` for `at`.
    pub(super) fn plan(&mut self, at: f64, event: Event) {
        self.planned += 1;
        let crosses = matches!(event, Event::Delivered { .. } | Event::Answer { .. });
        let last = self.line.back();
        let in_line = crosses && last.is_none_or(|last| last.at.total_cmp(&at).is_le());
        let order = self.planned;
        let entry = Entry { at, order, event };
        if in_line {
            self.line.push_back(entry);
        } else {
            self.heap.push(entry);
        }
    }

    /// The next thing that happens, and when.
    pub(super) fn pop(&mut self) -> Option<(f64, Event)> {
        let from_line = match (self.line.front(), self.heap.peek()) {
            (Some(first), Some(top)) => first > top,
            (first, _) => first.is_some(),
        };
        let entry = if from_line {
            self.line.pop_front()
        } else {
            self.heap.pop()
        };
        entry.map(|entry| (entry.at, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_ties_as_planned() {
        let mut events = Events::default();
        for (at, engine) in [(2.0, 0), (1.0, 1), (2.0, 2), (1.0, 3)] {
            events.plan(at, Event::StepDone { engine, life: 0 });
        }
        let order: Vec<usize> = std::iter::from_fn(|| events.pop())
            .filter_map(|(_, event)| match event {
                Event::StepDone { engine, .. } => Some(engine),
                _ => None,
            })
            .collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }

    /// What crosses the network comes in its turn, late or early, beside what does not.
    #[test]
    fn one_order_for_all() {
        let mut events = Events::default();
        let planned = [3.0, 1.0, 2.0, 3.0, 1.0, 4.0, 2.0, 5.0, 5.0, 1.0];
        for (slot, at) in planned.into_iter().enumerate() {
            let event = match slot % 3 {
                0 => Event::Wake { gateway: slot },
                _ => Event::Delivered { slot, attempt: 1 },
            };
            events.plan(at, event);
        }
        let mut order: Vec<usize> = (0..planned.len()).collect();
        order.sort_by(|a, b| planned[*a].total_cmp(&planned[*b]));
        let happened: Vec<usize> = std::iter::from_fn(|| events.pop())
            .filter_map(|(_, event)| match event {
                Event::Wake { gateway: slot } | Event::Delivered { slot, .. } => Some(slot),
                _ => None,
            })
            .collect();
        assert_eq!(happened, order);
    }
}
