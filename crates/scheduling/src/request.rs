//! A request as the core sees it: sizes, hashes and wishes, no text.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::id::{AdapterKey, EndpointId};
use crate::time::Time;

/// What is known about the work of a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum RequestKind {
    /// A prompt with tokens: the cost of prefill, cache and decode counts.
    #[default]
    Inference,
    /// Anything else: goes by load only, at once, and is never queued or shed while an endpoint is up.
    Opaque,
}

/// Where a request may go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Candidates {
    /// Anywhere in the pool.
    #[default]
    All,
    /// Only to these. A hard limit: if none of them exists the request is rejected.
    Only(Arc<[EndpointId]>),
    /// To these, in this order: somebody else has decided. The request is charged and dispatched at once, never queued
    /// or refused for load; what is down gives way to those after it.
    Ordered(Arc<[EndpointId]>),
}

impl Candidates {
    /// The endpoints it is limited to.
    pub fn named(&self) -> Option<&[EndpointId]> {
        match self {
            Self::All => None,
            Self::Only(ids) | Self::Ordered(ids) => Some(ids),
        }
    }
}

/// One request.
#[derive(Clone, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Request {
    /// What is known about its work.
    pub kind: RequestKind,
    /// Hashes of the full blocks of the prompt, first to last, `Config::block_tokens` tokens each. Each hash covers
    /// all blocks before it (chained), and the model and adapter: equal hashes mean equal KV.
    pub prefix: Arc<[u64]>,
    /// Tokens of the prompt (an estimate will do: the pool learns the ratio to what engines report).
    pub prompt_tokens: u32,
    /// Most tokens it may generate.
    pub max_output_tokens: Option<u32>,
    /// Bytes of its body, for the bounds on what waits.
    pub bytes: u64,
    /// Whether the answer streams, so that `Event::FirstToken` will come. Without it the end of the prefill is
    /// presumed from the cost model.
    pub streams: bool,
    /// Class: higher goes first, negative may be shed.
    pub priority: i32,
    /// Whom it belongs to, for fairness within a class.
    pub flow: u64,
    /// The LoRA adapter it needs.
    pub adapter: Option<AdapterKey>,
    /// Where it may go.
    pub candidates: Candidates,
    /// Session affinity: taken while it is up and not draining, even when it is not open.
    pub preferred: Option<EndpointId>,
    /// Already tried.
    pub exclude: SmallVec<[EndpointId; 2]>,
    /// Its first token is worthless after this.
    pub deadline: Option<Time>,
    /// Its first token should come by then. Only for the order: it is served late rather than not.
    pub due: Option<Time>,
    /// Longest wait of this one, in place of its band's.
    pub ttl: Option<Duration>,
    /// Build an explanation.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub explain: bool,
}
