//! A pool that lives: endpoints, scraping, health probes, waiting requests; the async shell around `scheduling`.
//!
//! `scheduling::Pool` decides and nothing here does. This crate feeds it: it keeps an address book of the servers that
//! the plan names ([`Fleet::apply`]), asks each server for its load, its models and its health, and turns what comes
//! back into events. Requests go the short way: [`Pool::pick`] takes one lock, tells the core of the arrival and takes
//! its decision out again. Only a request that the core makes wait gets a channel, and one timer a pool wakes those.
//!
//! A picked server is a [`Lease`]. Whatever becomes of the request, the lease tells the core: a lease that is simply
//! dropped counts as abandoned, so a charge always goes back.
//!
//! Replicas over the same pools tell each other what they charge: [`Sharing`].

mod catalog;
mod client;
mod decisions;
mod endpoint;
mod error;
pub mod fields;
mod fleet;
mod lease;
mod mapping;
mod members;
mod options;
mod page;
mod pool;
mod recorded;
mod scan;
mod sharing;
mod state;
mod tls;
mod understand;
mod verify;
mod watch;

pub use decisions::{RecordedCandidate, RecordedDecision};
pub use endpoint::{Endpoint, EndpointStatus};
pub use error::Error;
pub use fleet::Fleet;
pub use lease::{Eviction, EvictionNotice, Lease};
pub use mapping::{MetricMapping, MetricSource, Selector};
pub use options::{FleetOptions, PolicyFactory, ProbeOptions, ScrapeOptions};
pub use page::{Engine, LoraInfo, Page, PageReader};
pub use pool::{LONGEST_RETRY_AFTER, PickRequest, Pool, Rejection};
pub use scan::{Sample, Scanner};
pub use sharing::{Sharing, SharingOptions, SiblingName};
pub use state::Owner;
pub use tls::{ClientTls, client_config};
pub use understand::{Hints, StateLost, Understood, flow_key, flow_of};
