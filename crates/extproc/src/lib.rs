//! Envoy's external processing protocol: the endpoint picker's side, and the side that asks one.
//!
//! A proxy that speaks it opens one gRPC stream for each HTTP request, sends the parts of the request and of its answer
//! there, and does with them what comes back.
//!
//! [`proto`] holds the protocol's types, generated from cut-down definitions that are the same on the wire.

pub mod client;
pub mod codec;
pub mod metadata;
pub mod proto;
pub mod server;
