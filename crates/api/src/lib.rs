//! The Kubernetes kinds Pointsman reads: types, defaults, validation with field paths, conversion.
//!
//! Rules of this crate:
//!
//! - **Pure.** Text or JSON in, typed objects out; no cluster, no file, no clock.
//! - **Open.** An enum value we do not know decodes to `Unknown(text)`: the object stays usable and the reader of
//!   the field reports a condition. A closed enum would let one new value blind a whole list.
//! - **Defaulted.** What the custom resource definitions default, is defaulted on decode, so that an object from a
//!   file equals the same object read back from an API server.
//! - **Located.** Every complaint names the field (`spec.rules[0].backendRefs[1].port`), and for text its line.
//!
//! Types follow the field names of the Gateway API, the inference extension and the Kubernetes core API.

mod open_enum;

pub mod convert;
pub mod core;
pub mod decode;
pub mod duration;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
pub mod inference;
pub mod listener_set;
pub mod meta;
pub mod object;
pub mod picker_config;
pub mod pod;
pub mod policy;
pub mod route;
pub mod secret;
pub mod selector;
pub mod tls_route;
pub mod validate;
mod yaml;

pub use crate::core::{
    AddressType, ConfigMap, Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Namespace,
    Protocol, Service, ServicePort, ServiceSpec, ServiceType, TargetPort,
};
pub use crate::decode::{DecodeError, Document, decode_value, decode_yaml, line_of, read_yaml};
pub use crate::duration::Duration;
pub use crate::gateway::{
    AllowedRoutes, FromNamespaces, Gateway, GatewayClass, GatewaySpec, Listener, ListenerProtocol,
    ListenerTls, RouteGroupKind, TlsMode,
};
pub use crate::grpc_route::{
    GrpcBackendRef, GrpcFilter, GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule,
    GrpcRouteSpec,
};
pub use crate::http_route::{
    HttpBackendRef, HttpFilter, HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRule,
    HttpRouteSpec, PathMatchType, QueryParamMatch,
};
pub use crate::inference::{
    Criticality, EndpointPickerRef, FailureMode, InferenceModel, InferenceModelRewrite,
    InferenceObjective, InferencePool, InferencePoolImport, InferencePoolV1Alpha2, PoolRef,
};
pub use crate::listener_set::{ListenerSet, ListenerSetSpec};
pub use crate::meta::Meta;
pub use crate::object::{Object, ObjectKey, Objects, Resource};
pub use crate::picker_config::PickerConfig;
pub use crate::pod::{Pod, PodPhase, PodStatus};
pub use crate::policy::{BackendTlsPolicy, ReferenceGrant};
pub use crate::route::{
    BackendObjectRef, Condition, FilterType, Header, HeaderMatch, HeaderModifier, LocalObjectRef,
    MatchType, ParentRef, SecretRef,
};
pub use crate::secret::{Secret, SecretBytes};
pub use crate::selector::LabelSelector;
pub use crate::tls_route::{TlsRoute, TlsRouteRule, TlsRouteSpec};
pub use crate::validate::{FieldIssue, validate};
pub use crate::yaml::Position;

/// API group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// API group of the graduated InferencePool.
pub const INFERENCE_GROUP: &str = "inference.networking.k8s.io";
/// API group of the experimental inference kinds (InferenceModel, v1alpha2 InferencePool and others).
pub const INFERENCE_X_GROUP: &str = "inference.networking.x-k8s.io";
/// API group to which llm-d moved InferenceObjective and InferenceModelRewrite.
pub const LLM_D_GROUP: &str = "llm-d.ai";
/// API group of EndpointSlice.
pub const DISCOVERY_GROUP: &str = "discovery.k8s.io";
