//! What the pool decides.

use std::time::Duration;

use smallvec::SmallVec;

use crate::explain::Explanation;
use crate::id::{EndpointId, Ticket};

/// What becomes of a request: one `Dispatch` or `Reject` each; after a `Dispatch` there may be one `Evict`.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Send it.
    Dispatch {
        /// Which request.
        ticket: Ticket,
        /// The winner, which is charged already, then fallbacks in order.
        endpoints: SmallVec<[EndpointId; 4]>,
        /// Why, if the request asked.
        explanation: Option<Box<Explanation>>,
        /// How long it waited here.
        queued: Duration,
        /// Expected seconds from now to its first token.
        predicted_ttft: f64,
        /// Tokens of the prompt expected in the winner's cache.
        hit_tokens: u32,
    },
    /// Refuse it.
    Reject {
        /// Which request.
        ticket: Ticket,
        /// Why.
        reason: RejectReason,
        /// When to come back.
        retry_after: Duration,
    },
    /// End it, although it runs: its place is needed. It stays charged until `Finished` or `Abandoned`.
    Evict {
        /// Which request.
        ticket: Ticket,
        /// Why.
        reason: EvictReason,
        /// When to come back.
        retry_after: Duration,
    },
}

impl Decision {
    /// The request it is about.
    pub const fn ticket(&self) -> Ticket {
        match self {
            Self::Dispatch { ticket, .. }
            | Self::Reject { ticket, .. }
            | Self::Evict { ticket, .. } => *ticket,
        }
    }
}

/// Why a request was refused.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum RejectReason {
    /// It may be shed and no endpoint is open.
    SheddableSaturated,
    /// The queue is full of requests that matter as much.
    QueueFull,
    /// There is no endpoint that could take it, and the wait for one is over.
    NoReadyEndpoint,
    /// Its first token would come after its deadline.
    DeadlineUnreachable,
    /// It waited too long.
    QueueTtl,
    /// It would have to wait longer than its class may.
    WaitTooLong,
    /// It names candidates, and none of them exists.
    NoCandidate,
}

impl RejectReason {
    /// The stable word for errors, metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::SheddableSaturated => "sheddable_saturated",
            Self::QueueFull => "queue_full",
            Self::NoReadyEndpoint => "no_ready_endpoint",
            Self::DeadlineUnreachable => "deadline_unreachable",
            Self::QueueTtl => "queue_ttl",
            Self::WaitTooLong => "wait_too_long",
            Self::NoCandidate => "no_candidate",
        }
    }
}

/// Why a running request is ended.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum EvictReason {
    /// Requests of a higher class wait for its place.
    HigherPriority,
}

impl EvictReason {
    /// The stable word for errors, metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::HigherPriority => "evicted",
        }
    }
}
