//! The protocol's types, generated from the definitions in `proto/`.
//!
//! Bodies and raw header values are [`bytes::Bytes`]: slices of the message they came in.

/// All of it, in the modules that the packages' names make.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::too_many_lines,
    clippy::semicolon_if_nothing_returned
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

/// Headers: `envoy.config.core.v3`.
pub mod core {
    pub use super::generated::envoy::config::core::v3::*;
    pub use crate::metadata::Metadata;
}
/// Modes: `envoy.extensions.filters.http.ext_proc.v3`.
pub use generated::envoy::extensions::filters::http::ext_proc::v3 as mode;
/// Messages: `envoy.service.ext_proc.v3`.
pub use generated::envoy::service::ext_proc::v3 as ext_proc;
/// Statuses: `envoy.type.v3`.
pub use generated::envoy::r#type::v3 as typev3;
/// `grpc.health.v1`.
pub use generated::grpc::health::v1 as health;

/// Client and server of the service `envoy.service.ext_proc.v3.ExternalProcessor`.
pub mod service {
    pub use super::ext_proc::external_processor_client::ExternalProcessorClient;
    pub use super::ext_proc::external_processor_server::{
        ExternalProcessor, ExternalProcessorServer,
    };
}

/// All definitions as an encoded `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The name of the service, as health checks ask for it.
pub const SERVICE: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
