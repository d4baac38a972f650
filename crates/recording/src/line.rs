//! One line of a recording.

use scheduling::{
    AdapterKey, Config, Decision, EndpointId, EndpointProfile, Event, EvictReason, FailureKind,
    Load, Probe, RejectReason, Request, SharedEvent, SiblingId, Ticket, Time, Usage,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of the format.
pub const VERSION: u32 = 1;

/// One thing that happened to a pool.
#[derive(Debug, Clone)]
pub struct Line {
    /// The pool's number in this file.
    pub pool: u32,
    /// When, since the recorder began.
    pub at: Time,
    /// What.
    pub what: What,
    /// The core was told more before it was asked for decisions.
    pub more: bool,
    /// The core had not said its last word when it was told this.
    pub amid: bool,
}

/// Bits of a line's last element.
const MORE: u8 = 1;
const AMID: u8 = 2;

/// The first line of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Of the format.
    pub version: u32,
    /// Whose recording it is.
    pub name: String,
    /// Of the core.
    pub seed: u64,
    /// Its settings.
    pub config: Config,
    /// The policy is not one of `config.policy`: it was given from outside, and goes by this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// What a core is told, and what it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A pool begins.
    Pool(Box<Opened>),
    /// Sharing with siblings was switched.
    Share(bool),
    /// A server joined.
    Join {
        /// The core's name for it.
        endpoint: EndpointId,
        /// What was known of it.
        profile: EndpointProfile,
    },
    /// A request arrived.
    Arrive {
        /// The core's name for it.
        ticket: Ticket,
        /// Sizes, hashes and wishes.
        request: Box<Request>,
    },
    /// See [`Event::Left`].
    Left {
        /// Which.
        endpoint: EndpointId,
    },
    /// See [`Event::Draining`].
    Draining {
        /// Which.
        endpoint: EndpointId,
        /// Or back again.
        draining: bool,
    },
    /// See [`Event::Profile`].
    Profile {
        /// Which.
        endpoint: EndpointId,
        /// All of it.
        profile: EndpointProfile,
    },
    /// See [`Event::Scraped`].
    Scraped {
        /// Which.
        endpoint: EndpointId,
        /// The values.
        load: Load,
    },
    /// See [`Event::Adapters`].
    Adapters {
        /// Which.
        endpoint: EndpointId,
        /// Those that need no loading.
        resident: Vec<AdapterKey>,
        /// Those being loaded or waited for.
        loading: Vec<AdapterKey>,
        /// Its slots.
        max: Option<u32>,
    },
    /// See [`Event::Probe`].
    Probe {
        /// Which.
        endpoint: EndpointId,
        /// What came of it.
        outcome: Probe,
    },
    /// See [`Event::CacheCleared`].
    CacheCleared {
        /// Which.
        endpoint: EndpointId,
    },
    /// See [`Event::FirstToken`].
    FirstToken {
        /// Of which request.
        ticket: Ticket,
    },
    /// See [`Event::Progress`].
    Progress {
        /// Of which request.
        ticket: Ticket,
        /// How many.
        tokens: u32,
    },
    /// See [`Event::Moved`].
    Moved {
        /// Which request.
        ticket: Ticket,
        /// Where to.
        to: EndpointId,
    },
    /// See [`Event::Failed`].
    Failed {
        /// Which request.
        ticket: Ticket,
        /// Which server.
        endpoint: EndpointId,
        /// How.
        kind: FailureKind,
    },
    /// See [`Event::Finished`].
    Finished {
        /// Which request.
        ticket: Ticket,
        /// What it took.
        usage: Option<Usage>,
        /// Whether the server did its part.
        ok: bool,
    },
    /// See [`Event::Abandoned`].
    Abandoned {
        /// Which request.
        ticket: Ticket,
    },
    /// See [`Event::Sibling`].
    Sibling {
        /// Which gateway.
        sibling: SiblingId,
        /// What it did.
        event: SharedEvent,
    },
    /// The core was asked without news.
    Tick,
    /// It sent a request somewhere.
    Dispatch {
        /// Which request.
        ticket: Ticket,
        /// Where, and the fallbacks.
        endpoints: Vec<EndpointId>,
        /// Nanoseconds that it waited.
        queued: u64,
        /// Expected seconds to the first token.
        ttft: f64,
        /// Tokens expected in the cache.
        hit_tokens: u32,
    },
    /// It refused a request.
    Reject {
        /// Which.
        ticket: Ticket,
        /// Why.
        reason: RejectReason,
    },
    /// It ended a request that ran.
    Evict {
        /// Which.
        ticket: Ticket,
        /// Why.
        reason: EvictReason,
    },
    /// The recorder ran into its bound.
    Full,
}

impl What {
    /// Whether it is something that the core said, and not something that it was told.
    #[must_use]
    pub fn is_said(&self) -> bool {
        matches!(
            self,
            Self::Dispatch { .. } | Self::Reject { .. } | Self::Evict { .. }
        )
    }

    /// What the core decided.
    #[must_use]
    pub fn said(decision: &Decision) -> Self {
        match decision {
            Decision::Dispatch {
                ticket,
                endpoints,
                queued,
                predicted_ttft,
                hit_tokens,
                ..
            } => Self::Dispatch {
                ticket: *ticket,
                endpoints: endpoints.to_vec(),
                queued: u64::try_from(queued.as_nanos()).unwrap_or(u64::MAX),
                ttft: *predicted_ttft,
                hit_tokens: *hit_tokens,
            },
            Decision::Reject { ticket, reason, .. } => Self::Reject {
                ticket: *ticket,
                reason: *reason,
            },
            Decision::Evict { ticket, reason, .. } => Self::Evict {
                ticket: *ticket,
                reason: *reason,
            },
        }
    }

    /// Calls `tell` with the event that this line stands for, if it stands for one.
    pub fn with_event(&self, tell: impl FnOnce(Event<'_>)) {
        let event = match self {
            Self::Left { endpoint } => Event::Left {
                endpoint: *endpoint,
            },
            Self::Draining { endpoint, draining } => Event::Draining {
                endpoint: *endpoint,
                draining: *draining,
            },
            Self::Profile { endpoint, profile } => Event::Profile {
                endpoint: *endpoint,
                profile: *profile,
            },
            Self::Scraped { endpoint, load } => Event::Scraped {
                endpoint: *endpoint,
                load: *load,
            },
            Self::Adapters {
                endpoint,
                resident,
                loading,
                max,
            } => Event::Adapters {
                endpoint: *endpoint,
                resident,
                loading,
                max: *max,
            },
            Self::Probe { endpoint, outcome } => Event::Probe {
                endpoint: *endpoint,
                outcome: *outcome,
            },
            Self::CacheCleared { endpoint } => Event::CacheCleared {
                endpoint: *endpoint,
            },
            Self::FirstToken { ticket } => Event::FirstToken { ticket: *ticket },
            Self::Progress { ticket, tokens } => Event::Progress {
                ticket: *ticket,
                tokens: *tokens,
            },
            Self::Moved { ticket, to } => Event::Moved {
                ticket: *ticket,
                to: *to,
            },
            Self::Failed {
                ticket,
                endpoint,
                kind,
            } => Event::Failed {
                ticket: *ticket,
                endpoint: *endpoint,
                kind: *kind,
            },
            Self::Finished { ticket, usage, ok } => Event::Finished {
                ticket: *ticket,
                usage: *usage,
                ok: *ok,
            },
            Self::Abandoned { ticket } => Event::Abandoned { ticket: *ticket },
            Self::Sibling { sibling, event } => Event::Sibling {
                sibling: *sibling,
                event,
            },
            _ => return,
        };
        tell(event);
    }
}

impl From<Event<'_>> for What {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Left { endpoint } => Self::Left { endpoint },
            Event::Draining { endpoint, draining } => Self::Draining { endpoint, draining },
            Event::Profile { endpoint, profile } => Self::Profile { endpoint, profile },
            Event::Scraped { endpoint, load } => Self::Scraped { endpoint, load },
            Event::Adapters {
                endpoint,
                resident,
                loading,
                max,
            } => Self::Adapters {
                endpoint,
                resident: resident.to_vec(),
                loading: loading.to_vec(),
                max,
            },
            Event::Probe { endpoint, outcome } => Self::Probe { endpoint, outcome },
            Event::CacheCleared { endpoint } => Self::CacheCleared { endpoint },
            Event::FirstToken { ticket } => Self::FirstToken { ticket },
            Event::Progress { ticket, tokens } => Self::Progress { ticket, tokens },
            Event::Moved { ticket, to } => Self::Moved { ticket, to },
            Event::Failed {
                ticket,
                endpoint,
                kind,
            } => Self::Failed {
                ticket,
                endpoint,
                kind,
            },
            Event::Finished { ticket, usage, ok } => Self::Finished { ticket, usage, ok },
            Event::Abandoned { ticket } => Self::Abandoned { ticket },
            Event::Sibling { sibling, event } => Self::Sibling {
                sibling,
                event: event.clone(),
            },
        }
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let marks = if self.more { MORE } else { 0 } | if self.amid { AMID } else { 0 };
        if marks > 0 {
            (self.pool, self.at, &self.what, marks).serialize(serializer)
        } else {
            (self.pool, self.at, &self.what).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> serde::de::Visitor<'de> for Parts {
            type Value = Line;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("[pool, nanoseconds, what happened]")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut parts: A,
            ) -> Result<Line, A::Error> {
                let short = |count| serde::de::Error::invalid_length(count, &self);
                let pool = parts.next_element()?.ok_or_else(|| short(0))?;
                let at = parts.next_element()?.ok_or_else(|| short(1))?;
                let what = parts.next_element()?.ok_or_else(|| short(2))?;
                let marks = parts.next_element::<u8>()?.unwrap_or(0);
                Ok(Line {
                    pool,
                    at,
                    what,
                    more: marks & MORE > 0,
                    amid: marks & AMID > 0,
                })
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}
