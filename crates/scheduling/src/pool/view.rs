//! The pool as status pages and metrics see it.

use std::time::Duration;

use crate::health::Health;
use crate::id::EndpointId;

/// One endpoint now.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointView {
    /// Which.
    pub id: EndpointId,
    /// Requests in flight there, ours and those that siblings told of.
    pub in_flight: u32,
    /// Those of them that are siblings'.
    pub siblings_in_flight: u32,
    /// Those of them past their first token.
    pub decoding: u32,
    /// Prompt tokens still to compute there.
    pub pending_tokens: u64,
    /// The same in expected seconds.
    pub pending_seconds: f64,
    /// Requests in its own queue, as far as known.
    pub waiting: u32,
    /// Requests in its batch at the last scrape.
    pub running: Option<u32>,
    /// KV tokens held by requests in flight (ours, and others' as far as scraped).
    pub kv_used_tokens: u64,
    /// KV tokens it has, or is assumed to have.
    pub kv_capacity_tokens: u64,
    /// The one by the other.
    pub kv_usage: f64,
    /// Its health.
    pub health: Health,
    /// Whether it gets nothing new because it shuts down.
    pub draining: bool,
    /// Whether it takes work now.
    pub open: bool,
    /// Adapters believed resident.
    pub adapters: usize,
    /// Blocks the index believes in its cache.
    pub cached_blocks: usize,
    /// Age of its last scrape.
    pub scrape_age: Option<Duration>,
}

/// The pool now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stats {
    /// Endpoints that joined.
    pub endpoints: usize,
    /// Those that may get requests.
    pub ready: usize,
    /// Whether no endpoint is open (an empty pool is).
    pub saturated: bool,
    /// Requests waiting.
    pub queued: usize,
    /// The same by priority, highest first.
    pub queued_by_priority: Vec<(i32, usize)>,
    /// Bytes of their bodies by priority, highest first.
    pub queued_bytes: Vec<(i32, u64)>,
    /// How full the pool is: mean over its endpoints, 1 when none is open.
    pub saturation: f64,
    /// How often a request was judged so far: new ones once, waiting ones when something changed.
    pub judged: u64,
    /// Our requests in flight.
    pub in_flight: usize,
    /// Other gateways that told of themselves.
    pub siblings: usize,
    /// Their requests in flight, as far as they told.
    pub siblings_in_flight: usize,
    /// Blocks in the prefix index, those that no endpoint holds any more included.
    pub index_blocks: usize,
    /// Distinct runs of blocks in it.
    pub index_runs: usize,
    /// Bytes of the index, about.
    pub index_bytes: usize,
    /// Share of prompt tokens predicted to hit, lately.
    pub hit_ratio: f64,
    /// Share of predicted hits that engines confirmed, lately; 1 if none says.
    pub hit_confirmed: f64,
    /// The present price on recomputation.
    pub theta: f64,
    /// Tokens a request generates, lately.
    pub output_tokens: f64,
    /// Real prompt tokens per estimated one, lately.
    pub prompt_scale: f64,
}
