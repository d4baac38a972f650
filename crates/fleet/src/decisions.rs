//! Decisions with names instead of numbers, and a ring of the last ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use scheduling::{EndpointId, Explanation, Time};
use serde::Serialize;

/// How many are kept.
const KEPT: usize = 256;
/// Least time between two decisions that are explained without being asked to: 20 a second.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// One decision, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedDecision {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// `x-request-id`.
    pub request_id: String,
    /// Pool.
    pub pool: String,
    /// Model the server is asked for.
    pub model: Option<String>,
    /// Priority.
    pub priority: i32,
    /// Prompt tokens, estimated.
    pub prompt_tokens: u32,
    /// Policy that ranked.
    pub policy: &'static str,
    /// Name of the server that got it.
    pub winner: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Milliseconds it waited.
    pub queued_ms: f64,
    /// Expected seconds to the first token.
    pub predicted_ttft: f64,
    /// Tokens of the prompt expected in the winner's cache.
    pub hit_tokens: u32,
    /// All servers.
    pub candidates: Vec<RecordedCandidate>,
}

/// One server in a decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedCandidate {
    /// Name.
    pub endpoint: String,
    /// Cost in seconds, or the number that the policy orders by; `null` if it is not finite.
    pub total: f64,
    /// Parts of the cost in seconds.
    pub terms: Vec<(&'static str, f64)>,
    /// Takes work now.
    pub open: bool,
    /// Why it was not eligible.
    pub excluded: Option<&'static str>,
    /// Tokens of the prompt expected in its cache.
    pub hit_tokens: u32,
    /// Our requests there.
    pub in_flight: u32,
    /// Its own queue.
    pub waiting: u32,
    /// Share of its KV cache in use.
    pub kv_usage: f64,
    /// Age of what it reported, in milliseconds.
    pub age_ms: Option<f64>,
}

impl RecordedDecision {
    /// Puts names into an explanation. Who asked is filled in by [`Pool::pick`](crate::Pool::pick).
    pub(crate) fn new(explanation: Explanation, name: impl Fn(EndpointId) -> String) -> Self {
        let candidates = explanation
            .candidates
            .into_iter()
            .map(|c| RecordedCandidate {
                endpoint: name(c.endpoint),
                total: c.total,
                terms: c.terms,
                open: c.open,
                excluded: c.excluded,
                hit_tokens: c.hit_tokens,
                in_flight: c.in_flight,
                waiting: c.waiting,
                kv_usage: c.kv_usage,
                age_ms: c.age.map(|age| age.as_secs_f64() * 1e3),
            });
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            request_id: String::new(),
            pool: String::new(),
            model: None,
            priority: 0,
            prompt_tokens: 0,
            policy: explanation.policy,
            winner: name(explanation.winner),
            reason: explanation.reason,
            queued_ms: 0.0,
            predicted_ttft: 0.0,
            hit_tokens: 0,
            candidates: candidates.collect(),
        }
    }
}

/// The last decisions of a pool, and the tact in which they are taken.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    last: Mutex<VecDeque<Arc<RecordedDecision>>>,
    next_sample: AtomicU64,
}

impl Ring {
    /// Whether a decision at `now` should be explained although nobody asked.
    pub(crate) fn sample(&self, now: Time) -> bool {
        let due = self.next_sample.load(Ordering::Relaxed);
        let next = (now + SAMPLE_EVERY).as_nanos();
        now.as_nanos() >= due
            && self
                .next_sample
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    pub(crate) fn push(&self, decision: Arc<RecordedDecision>) {
        let mut last = self.last.lock();
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(decision);
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<RecordedDecision> {
        self.last
            .lock()
            .iter()
            .rev()
            .map(|decision| RecordedDecision::clone(decision))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_twenty_times_a_second() {
        let ring = Ring::default();
        let taken = (0..1000)
            .filter(|ms| ring.sample(Time::from_nanos(ms * 1_000_000)))
            .count();
        assert_eq!(taken, 20);
    }
}
