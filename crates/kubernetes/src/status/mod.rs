//! Statuses: what compiling found out, said on the objects.
//!
//! [`plan`] decides purely what there is to write: it compares what should be said with what the objects say and gives
//! back the differences. [`writer`] sends them as server-side applies of the status subresource, one object at a time,
//! each bound to the incarnation (`metadata.uid`) that was compiled.
//!
//! Rules, from the Gateway API's and the inference extension's documents:
//!
//! - Entries of other controllers stay as they are, byte for byte. Lists of parents are atomic to the API server, so
//!   they are written with the resource version they were read at.
//! - An entry of ours whose reason has gone is removed. The placeholder that the old InferencePool gets by default goes
//!   when there is something to say, and comes back when there is not.
//! - `lastTransitionTime` changes with `status` only, and where nothing has changed nothing is written.
//! - What was found out about an older generation never replaces what was said about a newer one.

mod conditions;
mod plan;
mod writer;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{ObjectKey, Objects};
use routing::ObjectStatus;

pub use self::writer::StatusWriter;

/// What is to be said.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The objects that were compiled. About others nothing is said.
    pub objects: Arc<Objects>,
    /// What compiling found out ([`routing::Compiled::statuses`]).
    pub statuses: Vec<ObjectStatus>,
    /// How Gateways are served, as their host knows it.
    pub gateways: BTreeMap<ObjectKey, Served>,
    /// Features of the Gateway API that the data plane has, for `GatewayClass.status.supportedFeatures`.
    pub features: &'static [&'static str],
}

/// How a Gateway is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Where clients reach it.
    pub addresses: Vec<IpAddr>,
    /// The same, where only a name is known, as with some load balancers.
    pub hostnames: Vec<String>,
    /// Why it is not served at all: a reason of the condition `Programmed`, and a sentence.
    pub problem: Option<(&'static str, String)>,
    /// Ports that are not served, with a sentence why.
    pub ports: BTreeMap<u16, String>,
}
