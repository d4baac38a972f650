//! ListenerSet (Gateway API v1): further listeners for a Gateway, owned by somebody else.

use serde::{Deserialize, Serialize};

use crate::gateway::Listener;
use crate::meta::Meta;
use crate::route::{gateway_group, gateway_kind};

/// Listeners that are added to those of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSet {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: ListenerSetSpec,
}

/// `spec` of a ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// The Gateway.
    pub parent_ref: ParentGatewayRef,
    /// Listeners, each with a name unique in this set.
    pub listeners: Vec<Listener>,
}

/// A reference to a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentGatewayRef {
    /// Group, by default the Gateway API's.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind, by default `Gateway`.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none means that of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
