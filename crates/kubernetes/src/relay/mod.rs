//! One watcher for many data planes.
//!
//! A controller watches the cluster and gives each data plane the objects of its Gateway over one long stream; the data
//! plane compiles them as if it had watched itself. So the API server sees as many watches as there are controllers, not
//! as many as there are data planes, and a data plane needs no right in the cluster at all.
//!
//! - [`Authority`]: the certificate authority that data planes trust, kept in a Secret.
//! - [`Relay`]: the controller's side, HTTPS. A data plane shows a token of its ServiceAccount made out to
//!   [`AUDIENCE`]; the cluster says whose it is, and whose it is says which Gateway it may read.
//! - [`Relayed`]: the data plane's side. What it was given it keeps when the controller is away.
//!
//! What travels is described in `line`, what a Gateway's data planes are given in `view`.

mod authority;
mod caller;
mod client;
mod line;
mod server;
mod view;

#[cfg(test)]
mod tests;

pub use self::authority::{Authority, AuthorityError};
pub use self::client::{Relayed, RelayedOptions};
pub use self::server::{Relay, RelayError, RelayOptions};
pub(crate) use self::view::View;
pub use self::view::World;

/// The audience of the tokens that data planes show.
pub const AUDIENCE: &str = "pointsman.dev/controller";
