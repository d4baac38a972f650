//! What happens outside, told to the pool.

use std::sync::Arc;

use crate::id::{AdapterKey, EndpointId, SiblingId, Ticket};
use crate::profile::EndpointProfile;

/// Load as an engine reports it. What it does not report stays `None` and never stops routing.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Load {
    /// Requests in the engine's own queue.
    pub waiting: Option<u32>,
    /// Requests in its batch.
    pub running: Option<u32>,
    /// Share of its KV cache in use by running requests, 0 to 1.
    pub kv_usage: Option<f64>,
}

/// What an engine says a request took.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Tokens of the prompt that came from the prefix cache, if the engine says so.
    pub cached_tokens: Option<u32>,
}

/// How a server failed a request.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// The connection broke before the answer was complete.
    Reset,
    /// A deadline of the gateway passed.
    Timeout,
    /// A 5xx answer.
    ServerError,
    /// A 500 of a server that shuts down while its health check still passes (vLLM does this).
    Draining500,
    /// An error event inside a stream that began with 200. Says little about the server: not counted.
    InBand,
}

/// One thing that happened. Events about endpoints or tickets that are no more are ignored.
#[derive(Copy, Clone, Debug)]
pub enum Event<'a> {
    /// The endpoint is gone, and with it its cache and its charges.
    Left {
        /// Which.
        endpoint: EndpointId,
    },
    /// The endpoint finishes what it has and should get nothing new.
    Draining {
        /// Which.
        endpoint: EndpointId,
        /// False takes it back.
        draining: bool,
    },
    /// Its profile became known better.
    Profile {
        /// Which.
        endpoint: EndpointId,
        /// All of it, replacing what was known.
        profile: EndpointProfile,
    },
    /// Its metrics were read.
    Scraped {
        /// Which.
        endpoint: EndpointId,
        /// The values.
        load: Load,
    },
    /// Its adapters were read.
    Adapters {
        /// Which.
        endpoint: EndpointId,
        /// Those that need no loading.
        resident: &'a [AdapterKey],
        /// Those being loaded or waited for.
        loading: &'a [AdapterKey],
        /// Its slots, if it says so.
        max: Option<u32>,
    },
    /// A health probe came back.
    Probe {
        /// Which.
        endpoint: EndpointId,
        /// What came of it.
        outcome: Probe,
    },
    /// Its prefix cache is empty now (a restart, a reset).
    CacheCleared {
        /// Which.
        endpoint: EndpointId,
    },
    /// The first token (or first byte) of an answer came.
    FirstToken {
        /// Of which request.
        ticket: Ticket,
    },
    /// More tokens came.
    Progress {
        /// Of which request.
        ticket: Ticket,
        /// How many since the last such event.
        tokens: u32,
    },
    /// The request goes to another server now: a retry. The charge goes with it.
    Moved {
        /// Which request.
        ticket: Ticket,
        /// Where to.
        to: EndpointId,
    },
    /// A server failed the request. The charge stays until `Moved`, `Finished` or `Abandoned`.
    Failed {
        /// Which request.
        ticket: Ticket,
        /// Which server.
        endpoint: EndpointId,
        /// How.
        kind: FailureKind,
    },
    /// The answer is complete, or it is certain that there will be none.
    Finished {
        /// Which request.
        ticket: Ticket,
        /// What it took, if the engine said so.
        usage: Option<Usage>,
        /// Whether the server did its part.
        ok: bool,
    },
    /// The client is gone, before or after dispatch.
    Abandoned {
        /// Which request.
        ticket: Ticket,
    },
    /// Another gateway over the same pool told what it did.
    Sibling {
        /// Which gateway.
        sibling: SiblingId,
        /// What it did.
        event: &'a SharedEvent,
    },
}

/// What gateways over the same pool tell each other. Tokens are as engines count them.
///
/// Endpoints are named as in the pool at hand: a host that passes an event on translates them by their addresses.
/// Events that come twice, late or out of order do no harm.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum SharedEvent {
    /// A request went to an endpoint.
    Dispatched {
        /// Names this charge among all of the sibling's, and is never used again.
        ticket: u64,
        /// Where to.
        endpoint: EndpointId,
        /// Hashes of its prompt, see `Request::prefix`.
        prefix: Arc<[u64]>,
        /// Tokens of its prompt; without any it counts as one request in flight and no more.
        prompt_tokens: u32,
        /// Those of them that are to be computed.
        uncached_tokens: u32,
        /// Tokens it is expected to generate.
        output_tokens: u32,
        /// The adapter it needs.
        adapter: Option<AdapterKey>,
    },
    /// Its prefill is done.
    FirstToken {
        /// Of which charge.
        ticket: u64,
    },
    /// It is over, or went elsewhere.
    Released {
        /// Which charge.
        ticket: u64,
        /// Tokens that it generated, 0 if that is not known.
        output_tokens: u32,
        /// Whether its prompt may be in the endpoint's cache now.
        computed: bool,
    },
    /// Nothing happened, but the sibling is there.
    Alive,
    /// The sibling is gone: all that it charged goes back.
    Forgotten,
}

/// What came of a health probe.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Probe {
    /// The server is well.
    Passed,
    /// It said that it is not, or did not answer.
    Failed,
    /// It refused the connection: nobody is there.
    Refused,
}
