//! The expected cost: what sending a request to an endpoint costs, in seconds.
//!
//! The five factors meet here in one unit. For request `r` and endpoint `i`, with `u` the prompt tokens that `i` does
//! not have cached after its hit of `h` tokens:
//!
//! ```text
//! prefill      S = a*u + q*u*(h + u/2)                       prefix: only what is not cached is computed
//! pending      W                                             queue depth: prompts before it, in seconds
//! others       requests there that are not ours, in mean prefills
//! interference ceil((pend + u)/B) * (c0 + decodes) + step/2  each chunk drags the decodes along
//! slots        wait for a place in the batch when it is full
//! adapter      load of the adapter, wait for a slot
//! recompute    theta * S                                     price on work the fleet has to do twice
//! space        mu * need/cap * hold * fill^4                 KV cache: price on space taken
//! decode       w * (n*S + L*(step + n*delta))                harm to and from decodes; L tokens will be generated
//! health       penalty of an endpoint that failed lately
//! ```
//!
//! The first six are real seconds before the first token: their sum is the predicted TTFT. The others are prices. Both
//! prices have one form, share of the endpoint taken times time taken: theta for compute lost to the fleet, mu for
//! space. With both at zero this is least work left; with `w` alone it is the product of batch and uncached work.
//! Class is not a term: it decides order and shedding, in [`criticality`](crate::criticality).

mod learn;
#[cfg(test)]
mod tests;

pub(crate) use learn::{Dispatched, Learned};

use crate::adapters::AdapterState;
use crate::config::Prices;
use crate::id::EndpointId;
use crate::kv_cache::space_price;
use crate::profile::Coefficients;
use crate::request::Request;
use crate::time::Time;

/// One decision to make: the request, in real tokens, and what holds for the whole pool.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The present.
    pub now: Time,
    /// The request.
    pub request: &'a Request,
    /// Tokens of its prompt, calibrated to what engines count.
    pub prompt_tokens: f64,
    /// Tokens it is expected to generate.
    pub output_tokens: f64,
    /// Price on recomputation at present.
    pub theta: f64,
    /// Reuses that a cold prefix can expect: `rho/(1 - rho)` with rho the hit ratio lately.
    pub expected_reuse: f64,
    /// The constant prices.
    pub prices: Prices,
    /// Differs with each decision, equal in a replay: for ties.
    pub salt: u64,
    /// The endpoints to choose from; at least one.
    pub candidates: &'a [Facts],
}

/// What is known about one endpoint and this request.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Which.
    pub endpoint: EndpointId,
    /// Whether it takes work now.
    pub open: bool,
    /// Its step time, `a` and `q` calibrated.
    pub coefficients: Coefficients,
    /// Most tokens in one step.
    pub max_batched_tokens: f64,
    /// Most sequences in its batch.
    pub max_seqs: f64,
    /// Tokens of the prompt expected in its cache.
    pub hit_tokens: f64,
    /// Tokens of the prompt that requests in flight hold there.
    pub shared_tokens: f64,
    /// Our requests in flight, with and without a prompt.
    pub in_flight: u32,
    /// Sequences there that have or will have a place in the batch: ours and others'.
    pub sequences: f64,
    /// Sequences that decode now: ours and others'.
    pub decodes: f64,
    /// Tokens of context of the decodes.
    pub context_tokens: f64,
    /// Uncached prompt tokens before this request.
    pub pending_tokens: f64,
    /// The same in seconds.
    pub pending_seconds: f64,
    /// Seconds since a token or the end of one of our requests came from there.
    pub silent_seconds: f64,
    /// Expected seconds of prefill of requests that are not ours.
    pub others_seconds: f64,
    /// KV tokens in use.
    pub kv_used: f64,
    /// KV tokens it has.
    pub kv_capacity: f64,
    /// Requests in the engine's own queue, as far as known.
    pub waiting: f64,
    /// Whether the adapter of the request is there.
    pub adapter: AdapterState,
    /// Seconds until the adapter of the request is ready.
    pub adapter_seconds: f64,
    /// Penalty for failures lately.
    pub health_seconds: f64,
    /// Number of the last dispatch that it got, 0 if none: ascends with time, also within one instant.
    pub last_dispatch: u64,
    /// Number of the last dispatch of a prompt that nobody had cached, 0 if none.
    pub last_cold: u64,
    /// How much work of prompts nobody had cached it got lately: a level that is only good for comparing endpoints.
    pub cold_level: f64,
}

/// The terms of the cost, in seconds. The module's page says what each is.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub struct Terms {
    /// Its own prefill.
    pub prefill: f64,
    /// Our prompts before it.
    pub pending: f64,
    /// Others' requests.
    pub others: f64,
    /// Decodes that share the steps of its prefill.
    pub interference: f64,
    /// Wait for a place in a full batch.
    pub slots: f64,
    /// Load of its adapter.
    pub adapter: f64,
    /// Price on recomputation.
    pub recompute: f64,
    /// Price on KV space.
    pub space: f64,
    /// Price on harm to and from decodes.
    pub decode: f64,
    /// Price on failures lately.
    pub health: f64,
    /// One decode step of the endpoint as it is.
    pub step: f64,
}

impl Terms {
    /// The cost.
    pub fn total(&self) -> f64 {
        self.ttft() + self.recompute + self.space + self.decode + self.health
    }

    /// The part that is time before the first token.
    pub fn ttft(&self) -> f64 {
        self.prefill + self.pending + self.others + self.interference + self.slots + self.adapter
    }

    /// The terms by name, as explanations show them.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("prefill", self.prefill),
            ("pending", self.pending),
            ("others", self.others),
            ("interference", self.interference),
            ("slots", self.slots),
            ("adapter", self.adapter),
            ("recompute", self.recompute),
            ("space", self.space),
            ("decode", self.decode),
            ("health", self.health),
        ]
    }
}

/// Seconds to compute `uncached` tokens after `hit` cached ones.
pub fn prefill_seconds(coefficients: &Coefficients, uncached: f64, hit: f64) -> f64 {
    uncached * (coefficients.a + coefficients.q * (hit + uncached / 2.0))
}

impl Situation<'_> {
    /// Tokens that `facts` would have to compute: at least one, the engine needs its logits.
    pub fn uncached(&self, facts: &Facts) -> f64 {
        (self.prompt_tokens - facts.hit_tokens).max(1.0)
    }

    /// What sending the request to this endpoint costs.
    pub fn terms(&self, facts: &Facts) -> Terms {
        let c = &facts.coefficients;
        let uncached = self.uncached(facts);
        let prefill = prefill_seconds(c, uncached, self.prompt_tokens - uncached);
        // What decodes add to a step, and a step of decodes alone.
        let reads = c.k_v * facts.context_tokens + c.s * facts.decodes;
        let drag = c.a * facts.decodes + reads;
        let step = c.c0 + c.w_base.max(c.a * facts.decodes) + reads;
        let busy = facts.decodes > 0.0 || facts.pending_tokens > 0.0;
        let chunks = ((facts.pending_tokens + uncached) / facts.max_batched_tokens).ceil();
        let hold = self.output_tokens * step;
        let over = facts.sequences + 1.0 - facts.max_seqs;
        let delta = c.k_v * (self.prompt_tokens + self.output_tokens / 2.0) + c.s;
        let need = (self.prompt_tokens - facts.shared_tokens).max(0.0);
        Terms {
            prefill,
            pending: facts.pending_seconds,
            others: facts.others_seconds,
            interference: chunks * (c.c0 + drag) + if busy { step / 2.0 } else { 0.0 },
            slots: if over > 0.0 {
                over * hold / facts.max_seqs
            } else {
                0.0
            },
            adapter: facts.adapter_seconds,
            recompute: self.theta * prefill,
            space: self.prices.mu * space_price(need, facts.kv_used, facts.kv_capacity, hold),
            decode: self.prices.w
                * (facts.sequences * prefill
                    + self.output_tokens * (step + facts.sequences * delta)),
            health: facts.health_seconds,
            step,
        }
    }

    /// A number for this decision and this endpoint that is as good as random and equal in a replay.
    pub fn chance(&self, endpoint: EndpointId) -> u64 {
        mix(self.salt ^ u64::from(endpoint.index).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
