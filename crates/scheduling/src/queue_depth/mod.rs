//! Factor: **queue depth**. How much work an endpoint has before it gets to a new request.
//!
//! The measure is uncached prompt tokens not yet computed, in seconds, not a count of requests: one long prompt weighs
//! more than a hundred short ones, and an engine with chunked prefill reports an empty queue while it computes one.
//! It is tracked here, charged inside the pick and taken back at the first token, so that two requests in the same
//! microsecond see each other.
//!
//! What the engine reports only corrects: requests it has beyond our own are the work of others (other gateways,
//! direct clients) and are priced in seconds; a queue of its own closes it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::Config;
use crate::criticality::Rank;
use crate::event::Load;
use crate::time::Time;

/// Work on one endpoint. Integers only: what is charged goes back exactly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Depth {
    /// Our requests in flight.
    pub(crate) in_flight: u32,
    /// Those of them with a prompt.
    pub(crate) sequences: u32,
    /// Those of them past their prefill.
    pub(crate) decoding: u32,
    /// Uncached prompt tokens not yet computed.
    pub(crate) pending_tokens: u64,
    /// The same in nanoseconds.
    pub(crate) pending_nanos: u64,
    /// Tokens of context of the decodes.
    pub(crate) context_tokens: u64,
    /// When the engine, first come first served, has computed all prompts pushed so far.
    pub(crate) busy_until: Time,
    heard: Time,
    scraped: Option<Scraped>,
    pushed: u32,
    started: u32,
    peak: u32,
}

#[derive(Copy, Clone, Debug)]
struct Scraped {
    at: Time,
    waiting: u32,
    running: Option<u32>,
    others: Others,
}

/// Requests on an endpoint that are not ours.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Others {
    pub(crate) waiting: u32,
    pub(crate) running: u32,
}

/// Why an endpoint is not open.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// Too many requests in its batch or its queue.
    Places,
    /// Too much prefill.
    Prefill,
}

/// The limits of an open endpoint.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) waiting: u32,
    pub(crate) pending_tokens: u64,
    pub(crate) sequences: u32,
    pub(crate) scrape_ttl: Duration,
}

impl Gate {
    pub(crate) fn new(config: &Config, max_seqs: u32, rank: Rank) -> Self {
        let tokens = match rank {
            Rank::Top => config.prefill_gate_tokens,
            Rank::Lower => config.lower_gate_tokens.min(config.prefill_gate_tokens),
        };
        Self {
            waiting: config.max_waiting_per_endpoint,
            pending_tokens: u64::from(tokens),
            sequences: max_seqs.max(1),
            scrape_ttl: config.scrape_ttl,
        }
    }
}

impl Depth {
    /// A request goes there.
    pub(crate) fn push(&mut self, inference: bool) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
        if inference {
            self.sequences += 1;
            self.pushed = self.pushed.saturating_add(1);
        }
    }

    /// The prefill of one of ours is done.
    pub(crate) fn start(&mut self) {
        self.decoding += 1;
        self.started = self.started.saturating_add(1);
    }

    /// A token of one of ours came, or its end.
    pub(crate) fn hear(&mut self, now: Time) {
        self.heard = self.heard.max(now);
    }

    /// Seconds since anything came of a request of ours.
    pub(crate) fn silent_seconds(&self, now: Time) -> f64 {
        now.seconds_since(self.heard)
    }

    /// The engine's metrics were read.
    pub(crate) fn scrape(&mut self, now: Time, load: Load) {
        let waiting = load.waiting.unwrap_or(0);
        let total = waiting.saturating_add(load.running.unwrap_or(0));
        // Against the most we had there since the last scrape: a request that ended on the way is still ours.
        let beyond = total.saturating_sub(self.peak);
        let others = Others {
            waiting: beyond.min(waiting),
            running: beyond - beyond.min(waiting),
        };
        self.scraped = (load.waiting.is_some() || load.running.is_some()).then_some(Scraped {
            at: now,
            waiting,
            running: load.running,
            others,
        });
        (self.pushed, self.started, self.peak) = (0, 0, self.in_flight);
    }

    /// Requests in the engine's queue: what it said, and if it said that some wait, what we pushed since waits too.
    pub(crate) fn waiting(&self, now: Time, ttl: Duration) -> u32 {
        match self.fresh(now, ttl) {
            Some(Scraped { waiting: 1.., .. })
                if self.sequences == 0 && self.others(now, ttl).waiting == 0 =>
            {
                0
            }
            Some(Scraped { waiting, .. }) if waiting > 0 => waiting
                .saturating_add(self.pushed)
                .saturating_sub(self.started),
            _ => 0,
        }
    }

    /// Requests that are not ours.
    pub(crate) fn others(&self, now: Time, ttl: Duration) -> Others {
        self.fresh(now, ttl)
            .map_or(Others::default(), |scraped| scraped.others)
    }

    /// Requests in the batch at the last scrape.
    pub(crate) fn running(&self) -> Option<u32> {
        self.scraped.and_then(|scraped| scraped.running)
    }

    /// Whether the endpoint takes work now.
    pub(crate) fn open(&self, now: Time, gate: Gate) -> bool {
        self.full(now, gate).is_none()
    }

    /// How full the endpoint is: open below 1.
    pub(crate) fn fullness(&self, now: Time, gate: Gate) -> f64 {
        let part = |value: u64, over: u64| value as f64 / over as f64;
        let waiting = u64::from(self.waiting(now, gate.scrape_ttl));
        let pending = part(self.pending_tokens, gate.pending_tokens + 1);
        let places = part(
            self.places(now, gate).into(),
            u64::from(gate.sequences.max(1)),
        );
        part(waiting, u64::from(gate.waiting) + 1)
            .max(pending)
            .max(places)
    }

    /// What the endpoint is full of.
    pub(crate) fn full(&self, now: Time, gate: Gate) -> Option<Full> {
        if self.surplus(now, gate) > 0 {
            Some(Full::Places)
        } else {
            (self.pending_tokens > gate.pending_tokens).then_some(Full::Prefill)
        }
    }

    /// How many requests have to end for a place to be free.
    pub(crate) fn surplus(&self, now: Time, gate: Gate) -> u32 {
        let waiting = self.waiting(now, gate.scrape_ttl);
        let places = self.places(now, gate) + 1;
        waiting
            .saturating_sub(gate.waiting)
            .max(places.saturating_sub(gate.sequences))
    }

    fn places(&self, now: Time, gate: Gate) -> u32 {
        let others = self.others(now, gate.scrape_ttl);
        self.sequences.saturating_add(others.running)
    }

    /// When a scrape that keeps the endpoint closed is no longer believed.
    pub(crate) fn forgets_at(&self, ttl: Duration) -> Option<Time> {
        self.scraped.map(|scraped| scraped.at + ttl)
    }

    fn fresh(&self, now: Time, ttl: Duration) -> Option<Scraped> {
        self.scraped.filter(|scraped| now - scraped.at < ttl)
    }
}
