//! GRPCRoute (Gateway API v1).

use serde::{Deserialize, Serialize};

use crate::meta::Meta;
use crate::open_enum::open_enum;
use crate::route::{
    BackendObjectRef, FilterType, HeaderMatch, HeaderModifier, LocalObjectRef, MatchType,
    ParentRef, RequestMirror, SessionPersistence, one, service_kind,
};

/// Routes gRPC calls by host, service, method and headers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRoute {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    #[serde(default)]
    pub spec: GrpcRouteSpec,
}

/// `spec` of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    /// Gateways and listeners to attach to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// Hostnames, maybe with a `*.` in front; empty means those of the listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<GrpcRouteRule>,
}

/// One rule: any of its matches leads to its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteRule {
    /// Name, unique in the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Alternatives; empty means every call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcRouteMatch>,
    /// What happens to matched calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<GrpcFilter>,
    /// Where matched calls go, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<GrpcBackendRef>,
    /// Keeps a session on one server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// One alternative of a rule: all of its parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteMatch {
    /// Service and method; none means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    /// Headers; all must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// A match on service and method, of which at least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcMethodMatch {
    /// How both are compared.
    #[serde(rename = "type")]
    pub match_type: MatchType,
    /// Full service name, for instance `foo.Bar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Method name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

open_enum! {
    /// Which of a gRPC filter's fields counts.
    pub enum GrpcFilterType {
        /// `requestHeaderModifier`
        RequestHeaderModifier = "RequestHeaderModifier",
        /// `responseHeaderModifier`
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// `requestMirror`
        RequestMirror = "RequestMirror",
        /// `extensionRef`
        ExtensionRef = "ExtensionRef",
    }
}

impl From<&GrpcFilterType> for FilterType {
    fn from(filter: &GrpcFilterType) -> Self {
        Self::from(filter.as_str())
    }
}

/// A filter. `filter_type` says which of the other fields counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcFilter {
    /// Which filter it is.
    #[serde(rename = "type")]
    pub filter_type: GrpcFilterType,
    /// Changes request headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes response headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Copies calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,
    /// A filter defined by another object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectRef>,
}

/// A backend of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcBackendRef {
    /// Group, by default core (empty).
    #[serde(default)]
    pub group: String,
    /// Kind, by default `Service`.
    #[serde(default = "service_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none means that of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Port of the Service; ignored for pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share is `weight / sum of weights`; by default 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Filters for calls to this backend only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<GrpcFilter>,
}

impl GrpcBackendRef {
    /// The reference without weight and filters.
    #[must_use]
    pub fn object(&self) -> BackendObjectRef {
        BackendObjectRef {
            group: self.group.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            port: self.port,
        }
    }
}
