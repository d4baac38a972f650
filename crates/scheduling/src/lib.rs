//! The decision core: one pool of model servers as a state machine without IO, clock or runtime.

mod config;
mod decision;
mod event;
mod explain;
pub mod health;
mod id;
mod pool;
mod profile;
mod request;
mod time;

pub use config::{Config, PolicyKind, Prices};
pub use decision::{Decision, RejectReason};
pub use event::{Event, FailureKind, Load, Usage};
pub use explain::{Candidate, Explanation};
pub use health::{Health, HealthConfig};
pub use id::{AdapterKey, EndpointId, Ticket};
pub use pool::{EndpointView, Pool, Stats};
pub use profile::{Coefficients, EndpointProfile};
pub use request::{Candidates, Request, RequestKind};
pub use time::Time;
