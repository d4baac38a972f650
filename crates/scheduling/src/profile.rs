//! What an endpoint can do: the coefficients of its step time and its limits.
//!
//! The time of one engine step with `P` prompt tokens and `D` decodes is modelled as
//!
//! ```text
//! step = c0 + max(w_base, a*(P + D)) + q * sum over chunks of len*(start + len/2) + k_v * context + s * sequences
//! ```
//!
//! the usual roofline of a transformer (weights read once, one multiply-add per weight and token, attention linear in
//! the context). The shape fits the published profiles of vidur and Splitwise and the fits of llm-d's latency
//! predictor; the default numbers are those of Llama-3.1-8B on one H100.

/// Coefficients of the step time, in seconds.
#[derive(Copy, Clone, PartialEq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Coefficients {
    /// Fixed cost of a step.
    pub c0: f64,
    /// Time to read the weights once: the least a step takes beyond `c0`.
    pub w_base: f64,
    /// Per token computed.
    pub a: f64,
    /// Per token and token of context before it: attention during prefill.
    pub q: f64,
    /// Per token of context read by a decode.
    pub k_v: f64,
    /// Per sequence in the batch.
    pub s: f64,
    /// To load a LoRA adapter that is not resident.
    pub adapter_load: f64,
}

impl Default for Coefficients {
    fn default() -> Self {
        Self {
            c0: 1e-3,
            w_base: 6e-3,
            a: 22e-6,
            q: 0.33e-9,
            k_v: 0.05e-6,
            s: 10e-6,
            adapter_load: 0.5,
        }
    }
}

/// One endpoint as far as it is known when it joins. Everything unknown has a default that routes sensibly.
#[derive(Copy, Clone, PartialEq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct EndpointProfile {
    /// Its step time.
    pub coefficients: Coefficients,
    /// Tokens its KV cache holds; `None` if unknown.
    pub kv_capacity_tokens: Option<u64>,
    /// Most tokens in one step.
    pub max_batched_tokens: u32,
    /// Most sequences that run at a time.
    pub max_seqs: u32,
    /// LoRA slots; `None` if unknown.
    pub max_lora: Option<u32>,
    /// A server of which only the load is known (a plain Service): judged by requests in flight alone.
    pub load_only: bool,
}

impl Default for EndpointProfile {
    fn default() -> Self {
        Self {
            coefficients: Coefficients::default(),
            kv_capacity_tokens: None,
            max_batched_tokens: 8192,
            max_seqs: 256,
            max_lora: None,
            load_only: false,
        }
    }
}
