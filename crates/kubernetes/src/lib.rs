//! Objects from a cluster, statuses back to it.
//!
//! - [`Watch`] keeps a copy of what the cluster says, as the same [`api::Objects`] that files give.
//! - [`StatusWriter`] says on the objects what [`routing::compile`] found out about them.
//! - [`Election`] makes sure that of several copies only one writes.
//! - [`AccessReview`] asks the cluster who may read a page.
//! - [`Provisioner`] makes data planes for Gateways; [`Relay`] tells them their objects, and [`Relayed`] is their side of
//!   it.
//!
//! Rules of this room:
//!
//! - **No second compiler.** What objects mean is the business of `routing`; here they are only carried.
//! - **Nothing blinds.** Objects are read one by one from JSON. One that cannot be read is named, keeps its last good
//!   state, and takes nothing else down. A kind that the cluster does not know is a feature that is off until its
//!   definition is installed.
//! - **The cluster may go away.** What was known goes on being served; the way back is tried with growing pauses.

mod access;
mod carried;
mod connect;
mod decode;
mod discovery;
mod election;
mod kinds;
mod provision;
mod relay;
mod status;
mod store;
mod wanted;
mod watch;

pub use access::{Access, AccessReview};
pub use connect::{Error, connect};
pub use election::{Election, ElectionOptions};
pub use kube::Client;
pub use provision::{
    ADMIN_PORT, Desired, Disruption, Exposure, PARAMETERS_KEY, Parameters, ParametersError,
    PodParameters, ProvisionSettings, Provisioner, PullPolicy, ServiceParameters, TrafficPolicy,
    bound_port, resource_name,
};
pub use relay::{
    AUDIENCE, Authority, AuthorityError, Relay, RelayError, RelayOptions, Relayed, RelayedOptions,
    World,
};
pub use status::{Report, Served, StatusWriter};
pub use store::Problem;
pub use wanted::Scope;
pub use watch::{Watch, WatchOptions};
