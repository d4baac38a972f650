//! How long a decision takes: the product's pool in this process, many endpoints, long prompts.
//!
//! What is timed is [`Pool::arrive`] and [`Pool::next`], which is all that stands between a parsed request and its
//! server's name; the prompt's hashes are made before, and not timed. The pool is warm: every endpoint holds requests in
//! flight, the prefix index is full of prompts that share documents, and each measured prompt shares some of them.
//! This is the only measure of the lab that reads a real clock, so a busy machine makes it worse.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scheduling::{
    Config, Decision, EndpointProfile, Event, Load, Pool, Request, Ticket, Time, Usage,
};

use crate::stats::quantile;

/// Endpoints of the measured pool.
const ENDPOINTS: usize = 100;
/// Tokens of a prompt.
const PROMPT: u32 = 131_072;
/// Tokens of a block of the pool's index.
const BLOCK: u32 = 64;
/// Requests in flight on each endpoint.
const IN_FLIGHT: usize = 3;
/// Documents that prompts begin with.
const DOCUMENTS: u64 = 64;
/// Decisions before the clock is read.
const WARM: usize = 600;

/// Seconds of decisions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecisionTimes {
    /// Half are below.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// Decisions measured.
    pub count: usize,
}

/// Times `count` decisions among 100 endpoints for prompts of 128k tokens.
#[must_use]
pub fn decision_times(seed: u64, count: usize) -> DecisionTimes {
    let mut desk = Busy::new(seed);
    let mut seconds = Vec::with_capacity(count);
    for round in 0..WARM + count {
        let took = desk.decide();
        if round >= WARM {
            seconds.push(took.as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    DecisionTimes {
        p50: quantile(&seconds, 0.5),
        p99: quantile(&seconds, 0.99),
        count,
    }
}

/// A pool at work.
struct Busy {
    pool: Pool,
    now: Time,
    rng: ChaCha8Rng,
    running: VecDeque<Ticket>,
    asked: u64,
}

impl Busy {
    fn new(seed: u64) -> Self {
        let mut pool = Pool::new(Config::default(), seed);
        let profile = EndpointProfile {
            kv_capacity_tokens: Some(1 << 20),
            ..EndpointProfile::default()
        };
        for _ in 0..ENDPOINTS {
            let endpoint = pool.join(Time::ZERO, profile);
            let load = Load {
                waiting: Some(0),
                running: Some(IN_FLIGHT as u32),
                kv_usage: Some(0.4),
            };
            pool.observe(Time::ZERO, Event::Scraped { endpoint, load });
        }
        Self {
            pool,
            now: Time::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            running: VecDeque::new(),
            asked: 0,
        }
    }

    /// One request from arrival to decision; what follows from it is not timed.
    fn decide(&mut self) -> Duration {
        self.now = self.now + Duration::from_millis(2);
        let request = self.request();
        let began = Instant::now();
        let ticket = self.pool.arrive(self.now, request);
        let decision = self.pool.next(self.now);
        let took = began.elapsed();
        if let Some(Decision::Dispatch { .. }) = decision {
            // Its prefill is over at once, so that the gate never makes the next one wait.
            self.pool.observe(self.now, Event::FirstToken { ticket });
            self.running.push_back(ticket);
        }
        if self.running.len() > ENDPOINTS * IN_FLIGHT {
            self.finish_oldest();
        }
        while self.pool.next(self.now).is_some() {}
        took
    }

    fn request(&mut self) -> Request {
        let document = self.rng.random_range(0..DOCUMENTS);
        let blocks = u64::from(PROMPT / BLOCK);
        let shared = self.rng.random_range(blocks / 4..blocks * 15 / 16);
        self.asked += 1;
        let own = self.asked << 32;
        let hash = |block: u64| {
            let source = if block < shared {
                document << 20 | block
            } else {
                own | block
            };
            source.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        let prefix: Arc<[u64]> = (0..blocks).map(hash).collect();
        Request {
            prefix,
            prompt_tokens: PROMPT,
            max_output_tokens: Some(512),
            streams: true,
            ..Request::default()
        }
    }

    fn finish_oldest(&mut self) {
        if let Some(ticket) = self.running.pop_front() {
            let usage = Some(Usage {
                prompt_tokens: PROMPT,
                completion_tokens: 256,
                cached_tokens: None,
            });
            let ok = true;
            self.pool
                .observe(self.now, Event::Finished { ticket, usage, ok });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timed_request_is_decided_at_once() {
        let mut desk = Busy::new(1);
        for _ in 0..350 {
            desk.decide();
        }
        assert_eq!(desk.running.len(), ENDPOINTS * IN_FLIGHT);
        assert_eq!(desk.asked, 350);
        let times = decision_times(1, 20);
        assert!(times.p50 > 0.0 && times.p50 <= times.p99 && times.count == 20);
    }
}
