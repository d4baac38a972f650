//! Metric families and the access log: each name defined once.
//!
//! One [`Metrics`] lives in a process and is handed around; there is no global registry. Request metrics are written
//! once, at the end of an exchange, from one [`ExchangeRecord`] ([`Metrics::record`]); the access log prints the same
//! record ([`access_log`]). What describes the present state (queues, servers, load) is not kept up to date by events
//! but asked for when somebody scrapes ([`Metrics::before_encode`]): it is then never stale, costs nothing between
//! scrapes, and a server that went takes its series with it.
//!
//! Three vocabularies stand side by side, because dashboards in the field read all of them: the Gateway API inference
//! extension's (`inference_objective_*`, `inference_pool_*`, `inference_extension_*`), llm-d's (`llm_d_epp_*`), and
//! OpenTelemetry's for generative AI (`gen_ai_*`, semantic conventions v1.41). [`Names`] chooses among them. What only
//! this program knows is named `pointsman_*`.

mod access;
mod families;
mod flow;
pub mod ids;
mod metrics;
mod owners;
mod pickers;
mod pools;
mod record;
mod requests;
mod sharing;
mod streams;
mod text;

pub use access::access_log;
pub use metrics::{ConnectionSide, Metrics, Names, Open};
pub use pools::{EndpointSnapshot, PoolSnapshot};
pub use record::{Ended, ExchangeRecord, Usage};
pub use sharing::SharedEvents;
pub use streams::{BodyRouted, Stream};
