//! Where a picker says the request goes.

use std::net::SocketAddr;

use http::HeaderName;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// Header and metadata key of the pick.
pub(super) const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The same as a header's name.
pub(super) const DESTINATION_HEADER: HeaderName = HeaderName::from_static(DESTINATION);
/// Metadata key of the server that answered.
pub(super) const SERVED: &str = "x-gateway-destination-endpoint-served";
/// Metadata key of the servers to choose from.
pub(super) const SUBSET: &str = "x-gateway-destination-endpoint-subset";
/// Namespace of pick and served.
pub(super) const NAMESPACE: &str = "envoy.lb";
/// Namespace of the subset.
pub(super) const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";

/// Entries of a pick that are looked at. More fallbacks than this nobody needs, and a list of ten thousand is a mistake.
pub const LISTED: usize = 64;

/// A picker's list of servers, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// What could be read, in order.
    pub endpoints: Vec<SocketAddr>,
    /// Entries that are no `ip:port`.
    pub unreadable: usize,
}

impl Destination {
    /// Reads `ip:port[,ip:port]*`.
    #[must_use]
    pub fn read(list: &str) -> Self {
        let mut destination = Self::default();
        for entry in list.split(',').take(LISTED).map(str::trim) {
            match entry.parse() {
                Ok(address) => destination.endpoints.push(address),
                Err(_) if entry.is_empty() => {}
                Err(_) => destination.unreadable += 1,
            }
        }
        destination
    }
}

/// The pick in a reply's dynamic metadata.
pub(super) fn from_metadata(metadata: &Struct) -> Option<String> {
    let Some(Kind::StructValue(namespace)) = &metadata.fields.get(NAMESPACE)?.kind else {
        return None;
    };
    match &namespace.fields.get(DESTINATION)?.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        Some(Kind::ListValue(list)) => {
            let texts: Vec<&str> = list.values.iter().take(LISTED).filter_map(text).collect();
            Some(texts.join(","))
        }
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}
