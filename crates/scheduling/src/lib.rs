//! The decision core: one pool of model servers as a state machine without IO, clock or runtime.
//!
//! [`Pool`] is driven by its host, in the manner of quinn-proto: requests arrive, events come, decisions go out. Time is a
//! value, chance is a seed; a run replays exactly.
//!
//! Five factors make a decision, and each has a folder:
//!
//! | Factor | Folder | Says |
//! |---|---|---|
//! | criticality | [`criticality`] | who goes first, who waits, who is refused |
//! | KV cache | [`kv_cache`] | what space is taken, and what more of it is worth |
//! | adapters | [`adapters`] | whether a LoRA adapter is loaded |
//! | prefix | [`prefix`] | who has which part of the prompt cached |
//! | queue depth | [`queue_depth`] | how much work is before a request |
//!
//! [`cost`] joins them in one number, seconds; [`policy`] ranks endpoints by it, or by something simpler; [`health`] says
//! who is up; [`pool`] is the machine that holds it all together: charges, late binding, decisions, explanations.
//!
//! See `examples/embed.rs` for a host in fifty lines.

pub mod adapters;
mod config;
pub mod cost;
pub mod criticality;
mod decision;
mod event;
mod explain;
pub mod health;
mod id;
pub mod kv_cache;
pub mod policy;
pub mod pool;
pub mod prefix;
mod profile;
pub mod queue_depth;
mod request;
mod time;

pub use config::{Config, ConfigError, Detector, PolicyKind, Prices};
pub use criticality::{Admission, Band, Fairness, FlowControl, Ordering};
pub use decision::{Decision, EvictReason, RejectReason};
pub use event::{Event, FailureKind, Load, Probe, SharedEvent, Usage};
pub use explain::{Candidate, Explanation};
pub use health::{Health, HealthConfig};
pub use id::{AdapterKey, EndpointId, SiblingId, Ticket};
pub use policy::Policy;
pub use pool::{EndpointView, Pool, Stats};
pub use profile::{Coefficients, EndpointProfile};
pub use request::{Candidates, Request, RequestKind};
pub use time::Time;
