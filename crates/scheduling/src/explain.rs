//! Why a request went where it went. Built only when a request asks, from the numbers the decision was made on.

use std::time::Duration;

use crate::id::EndpointId;

/// One decision, explained.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The policy that ranked.
    pub policy: &'static str,
    /// Every endpoint of the pool, the excluded ones too.
    pub candidates: Vec<Candidate>,
    /// The one that got it.
    pub winner: EndpointId,
    /// One sentence.
    pub reason: String,
}

/// One endpoint in a decision.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// Which.
    pub endpoint: EndpointId,
    /// Its cost in seconds (policies without a cost: the number they order by).
    pub total: f64,
    /// The parts of the cost by name, in seconds.
    pub terms: Vec<(&'static str, f64)>,
    /// Whether it takes work now.
    pub open: bool,
    /// Why it was not eligible.
    pub excluded: Option<&'static str>,
    /// Tokens of the prompt expected in its cache.
    pub hit_tokens: u32,
    /// Our requests in flight there.
    pub in_flight: u32,
    /// Requests in its own queue, as far as known.
    pub waiting: u32,
    /// Share of its KV cache in use, as far as known.
    pub kv_usage: f64,
    /// Age of its last scrape.
    pub age: Option<Duration>,
}
