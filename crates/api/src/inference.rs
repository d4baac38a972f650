//! Kinds of the inference extension: InferencePool (v1 and v1alpha2), InferenceModel, InferenceObjective,
//! InferenceModelRewrite, InferencePoolImport.
//!
//! A pool of either version becomes an [`InferencePool`] in the shape of v1; its `api_version`, and so its key's group,
//! stays what was written. The two versions live in different API groups and are therefore different objects, even
//! with the same name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::Meta;
use crate::open_enum::open_enum;
use crate::route::{Condition, gateway_group, gateway_kind, service_kind};
use crate::{INFERENCE_GROUP, INFERENCE_X_GROUP};

fn pool_kind() -> String {
    "InferencePool".to_owned()
}

/// A pool of model servers, in the shape of v1.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePool {
    /// `group/version` as written: says which of the two kinds of pool this was.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferencePoolSpec,
    /// What controllers report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<InferencePoolStatus>,
}

impl InferencePool {
    /// Whether the object was written as `inference.networking.x-k8s.io/v1alpha2`.
    #[must_use]
    pub fn is_v1alpha2(&self) -> bool {
        self.api_version.split('/').next() == Some(INFERENCE_X_GROUP)
    }
}

/// `spec` of a v1 InferencePool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Which pods of the pool's namespace are its servers.
    pub selector: PoolSelector,
    /// Ports; each pod has one server per port.
    pub target_ports: Vec<PoolPort>,
    /// What the servers speak.
    #[serde(default)]
    pub app_protocol: AppProtocol,
    /// The endpoint picker; none means the one inside the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_picker_ref: Option<EndpointPickerRef>,
}

/// The labels of a pool's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSelector {
    /// Labels that must be present with exactly these values.
    pub match_labels: BTreeMap<String, String>,
}

/// A port number in an object of its own, as the pool writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct PoolPort {
    /// The port.
    pub number: u16,
}

open_enum! {
    /// What a pool's servers speak.
    pub enum AppProtocol {
        /// HTTP/1.1 in cleartext.
        Http = "http",
        /// HTTP/2 with prior knowledge, in cleartext.
        H2c = "kubernetes.io/h2c",
    }
    default Http
}

open_enum! {
    /// What happens to requests when the endpoint picker cannot be asked.
    pub enum FailureMode {
        /// They are served without it.
        FailOpen = "FailOpen",
        /// They are refused.
        FailClose = "FailClose",
    }
    default FailClose
}

/// Reference to the endpoint picker, in the pool's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPickerRef {
    /// Group, by default core (empty).
    #[serde(default)]
    pub group: String,
    /// Kind, by default `Service`.
    #[serde(default = "service_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Port; required for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PoolPort>,
    /// What happens when it cannot be asked.
    #[serde(default)]
    pub failure_mode: FailureMode,
}

/// `status` of a v1 InferencePool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InferencePoolStatus {
    /// One entry per Gateway that uses the pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<PoolParentStatus>,
}

/// What one controller says of the pool for one Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolParentStatus {
    /// The Gateway.
    pub parent_ref: PoolParentRef,
    /// Who says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_name: Option<String>,
    /// What is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Reference to the Gateway of a status entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolParentRef {
    /// Group, by default the Gateway API's.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind, by default `Gateway`.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// A pool as `inference.networking.x-k8s.io/v1alpha2` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolV1Alpha2 {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferencePoolSpecV1Alpha2,
    /// What controllers report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<InferencePoolStatusV1Alpha2>,
}

/// `spec` of a v1alpha2 InferencePool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpecV1Alpha2 {
    /// Labels of the pool's pods.
    pub selector: BTreeMap<String, String>,
    /// The one port.
    pub target_port_number: u16,
    /// The endpoint picker; none means the one inside the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<ExtensionRef>,
}

/// Port of a v1alpha2 endpoint picker that does not say its own.
pub const DEFAULT_PICKER_PORT: u16 = 9002;

fn picker_port() -> u16 {
    DEFAULT_PICKER_PORT
}

/// Reference to the endpoint picker of a v1alpha2 pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionRef {
    /// Group, by default core (empty).
    #[serde(default)]
    pub group: String,
    /// Kind, by default `Service`.
    #[serde(default = "service_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Port, by default 9002.
    #[serde(default = "picker_port")]
    pub port_number: u16,
    /// What happens when it cannot be asked.
    #[serde(default)]
    pub failure_mode: FailureMode,
}

/// `status` of a v1alpha2 InferencePool; its list is called `parent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InferencePoolStatusV1Alpha2 {
    /// One entry per Gateway that uses the pool.
    #[serde(rename = "parent", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<PoolParentStatus>,
}

/// Reference to a pool in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Group. Left out it means the v1 pool of the name and, where there is none, the v1alpha2 pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind, by default `InferencePool`.
    #[serde(default = "pool_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
}

impl PoolRef {
    /// The groups in which to look for the pool, best first.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self.group.as_deref() {
            Some(group) => (group, None),
            None => (INFERENCE_GROUP, Some(INFERENCE_X_GROUP)),
        };
        std::iter::once(first).chain(second)
    }
}

/// A model name that clients may ask for, its class and its weighted targets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModel {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferenceModelSpec,
}

/// `spec` of an InferenceModel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelSpec {
    /// The name clients write; unique in a pool, where the oldest object wins.
    pub model_name: String,
    /// Class; unset means Standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criticality: Option<Criticality>,
    /// What the servers call it; empty means as the client does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_models: Vec<TargetModel>,
    /// The pool.
    pub pool_ref: PoolRef,
}

impl InferenceModelSpec {
    /// The class as a priority: Critical 1, Standard or unset 0, Sheddable -1.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.criticality.as_ref().map_or(0, Criticality::priority)
    }
}

open_enum! {
    /// Class of a model's requests.
    pub enum Criticality {
        /// Before all others.
        Critical = "Critical",
        /// Waits when servers are full.
        Standard = "Standard",
        /// May be refused when servers are full.
        Sheddable = "Sheddable",
    }
    default Standard
}

impl Criticality {
    /// The class as a priority: Critical 1, Standard 0, Sheddable -1; one we do not know counts as Standard.
    #[must_use]
    pub const fn priority(&self) -> i64 {
        match self {
            Self::Critical => 1,
            Self::Standard | Self::Unknown(_) => 0,
            Self::Sheddable => -1,
        }
    }
}

/// A model that the servers have, with its share of requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetModel {
    /// The name the servers know.
    pub name: String,
    /// Share; unset on all means equal shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A priority that requests ask for by the object's name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceObjective {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferenceObjectiveSpec,
}

/// `spec` of an InferenceObjective.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceObjectiveSpec {
    /// Any integer; higher wins, negative may be refused; unset means 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The pool.
    pub pool_ref: PoolRef,
}

/// Rewrites the model of requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelRewrite {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferenceModelRewriteSpec,
}

/// `spec` of an InferenceModelRewrite.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelRewriteSpec {
    /// The pool.
    pub pool_ref: PoolRef,
    /// Rules, the first of which wins among equals.
    pub rules: Vec<RewriteRule>,
}

/// One rule of a rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RewriteRule {
    /// Alternatives; empty means every model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RewriteMatch>,
    /// Targets by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<RewriteTarget>,
}

/// One alternative of a rewrite rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteMatch {
    /// The match on the model; none matches every model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelMatch>,
}

open_enum! {
    /// How a model name is compared.
    pub enum ModelMatchType {
        /// Equal.
        Exact = "Exact",
    }
    default Exact
}

/// A match on the model name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelMatch {
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub match_type: ModelMatchType,
    /// The model name.
    pub value: String,
}

/// A target of a rewrite rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteTarget {
    /// Share; unset on all means equal shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The new model name.
    pub model_rewrite: String,
}

/// A pool that another cluster exports. It has no spec; only a controller writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolImport {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What controllers report.
    #[serde(default)]
    pub status: InferencePoolImportStatus,
}

/// `status` of an InferencePoolImport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InferencePoolImportStatus {
    /// One entry per controller.
    pub controllers: Vec<ImportController>,
}

/// What one controller says of an import.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportController {
    /// `domain/path`.
    pub name: String,
    /// Clusters that export the pool.
    #[serde(default)]
    pub exporting_clusters: Vec<ExportingCluster>,
    /// Local Gateways that use the import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<PoolParentStatus>,
    /// What is said of the import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A cluster that exports a pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportingCluster {
    /// Name of the cluster.
    pub name: String,
}
