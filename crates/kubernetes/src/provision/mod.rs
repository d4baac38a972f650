//! Data planes for Gateways: what belongs to each is made, kept as it should be, and taken away.
//!
//! [`manifests`](self::manifests) says purely what there should be; [`Provisioner`] compares that with what there is and
//! applies the difference, under a field manager of its own. Rules:
//!
//! - Everything carries an owner reference to its Gateway: when that goes, the cluster takes the rest.
//! - Where nothing has changed nothing is written. What somebody else changed of our fields is put back.
//! - An object of that name that was not made here is left alone, and said.
//! - A Gateway whose parameters cannot be used keeps what it has.

mod manifests;
mod names;
mod parameters;
mod present;
mod provisioner;
mod served;

#[cfg(test)]
mod tests;

pub use self::manifests::{ADMIN_PORT, ProvisionSettings, bound_port};
pub use self::names::resource_name;
pub use self::parameters::{
    Disruption, Exposure, PARAMETERS_KEY, Parameters, ParametersError, PodParameters, PullPolicy,
    ServiceParameters, TrafficPolicy,
};
pub use self::provisioner::{Desired, Provisioner};
