//! The kinds that are watched, and in which versions.

use api::{DISCOVERY_GROUP, GATEWAY_GROUP, INFERENCE_GROUP, INFERENCE_X_GROUP, LLM_D_GROUP};

/// A kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    /// Versions that `api` reads, the best first.
    pub(crate) versions: &'static [&'static str],
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
    /// How it is watched.
    pub(crate) manner: Manner,
    /// Whether we may write its status, so that the present one must be known.
    pub(crate) status: bool,
}

/// How a kind is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All objects.
    All,
    /// Those that other objects name (Secrets, ConfigMaps): the rest of a cluster's is none of our business.
    Named,
    /// Those that pools select (Pods).
    Selected,
}

const fn kind(
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        kind,
        versions,
        plural,
        namespaced: true,
        manner: Manner::All,
        status: false,
    }
}

const fn with_status(of: Kind) -> Kind {
    Kind { status: true, ..of }
}

const fn of_cluster(of: Kind) -> Kind {
    Kind {
        namespaced: false,
        ..of
    }
}

const fn watched(of: Kind, manner: Manner) -> Kind {
    Kind { manner, ..of }
}

/// Every kind that `routing` reads.
pub(crate) const KINDS: &[Kind] = &[
    with_status(of_cluster(kind(
        GATEWAY_GROUP,
        "GatewayClass",
        &["v1", "v1beta1"],
        "gatewayclasses",
    ))),
    with_status(kind(
        GATEWAY_GROUP,
        "Gateway",
        &["v1", "v1beta1"],
        "gateways",
    )),
    with_status(kind(GATEWAY_GROUP, "ListenerSet", &["v1"], "listenersets")),
    with_status(kind(
        GATEWAY_GROUP,
        "TLSRoute",
        &["v1", "v1alpha3", "v1alpha2"],
        "tlsroutes",
    )),
    with_status(kind(
        GATEWAY_GROUP,
        "HTTPRoute",
        &["v1", "v1beta1"],
        "httproutes",
    )),
    with_status(kind(GATEWAY_GROUP, "GRPCRoute", &["v1"], "grpcroutes")),
    kind(
        GATEWAY_GROUP,
        "ReferenceGrant",
        &["v1", "v1beta1"],
        "referencegrants",
    ),
    with_status(kind(
        GATEWAY_GROUP,
        "BackendTLSPolicy",
        &["v1", "v1alpha3"],
        "backendtlspolicies",
    )),
    kind("", "Service", &["v1"], "services"),
    kind(DISCOVERY_GROUP, "EndpointSlice", &["v1"], "endpointslices"),
    of_cluster(kind("", "Namespace", &["v1"], "namespaces")),
    watched(kind("", "Secret", &["v1"], "secrets"), Manner::Named),
    watched(kind("", "ConfigMap", &["v1"], "configmaps"), Manner::Named),
    watched(kind("", "Pod", &["v1"], "pods"), Manner::Selected),
    with_status(kind(
        INFERENCE_GROUP,
        "InferencePool",
        &["v1"],
        "inferencepools",
    )),
    with_status(kind(
        INFERENCE_X_GROUP,
        "InferencePool",
        &["v1alpha2"],
        "inferencepools",
    )),
    with_status(kind(
        INFERENCE_X_GROUP,
        "InferenceModel",
        &["v1alpha2"],
        "inferencemodels",
    )),
    with_status(kind(
        INFERENCE_X_GROUP,
        "InferenceObjective",
        &["v1alpha2"],
        "inferenceobjectives",
    )),
    with_status(kind(
        LLM_D_GROUP,
        "InferenceObjective",
        &["v1alpha2", "v1alpha1"],
        "inferenceobjectives",
    )),
    with_status(kind(
        INFERENCE_X_GROUP,
        "InferenceModelRewrite",
        &["v1alpha2"],
        "inferencemodelrewrites",
    )),
    with_status(kind(
        LLM_D_GROUP,
        "InferenceModelRewrite",
        &["v1alpha2", "v1alpha1"],
        "inferencemodelrewrites",
    )),
    kind(
        INFERENCE_X_GROUP,
        "InferencePoolImport",
        &["v1alpha1"],
        "inferencepoolimports",
    ),
];

/// The kind of this group and name.
pub(crate) fn find(group: &str, name: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.group == group && kind.kind == name)
}

impl Kind {
    /// Whether every API server has it.
    pub(crate) fn built_in(&self) -> bool {
        self.group.is_empty() || self.group == DISCOVERY_GROUP
    }
}
