//! Which kinds the API server knows at present, and in which version we read them.

use std::collections::BTreeMap;

use kube::Client;
use kube::core::discovery::v2::APIGroupDiscoveryList;

use crate::kinds::{KINDS, Kind};

/// For each kind that is served, the version to read. The key is group and kind.
pub(crate) type Served = BTreeMap<(&'static str, &'static str), &'static str>;

/// Asks the API server.
pub(crate) async fn discover(client: &Client) -> Result<Served, kube::Error> {
    Ok(served(&client.list_api_groups_aggregated().await?))
}

/// What is served, of the kinds we read, each in the best version that both sides know.
pub(crate) fn served(groups: &APIGroupDiscoveryList) -> Served {
    KINDS
        .iter()
        .filter_map(|kind| Some(((kind.group, kind.kind), version(kind, groups)?)))
        .collect()
}

fn version(kind: &Kind, groups: &APIGroupDiscoveryList) -> Option<&'static str> {
    if kind.built_in() {
        return kind.versions.first().copied();
    }
    let group = groups.items.iter().find(|group| {
        group
            .metadata
            .as_ref()
            .and_then(|meta| meta.name.as_deref())
            == Some(kind.group)
    })?;
    let is_served = |wanted: &&&str| {
        group.versions.iter().any(|version| {
            version.version.as_deref() == Some(**wanted)
                && version
                    .resources
                    .iter()
                    .any(|resource| resource.resource.as_deref() == Some(kind.plural))
        })
    };
    kind.versions.iter().find(is_served).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_best_common_version_is_read_and_the_rest_is_off() {
        let groups = json!({"items": [
            {"metadata": {"name": "gateway.networking.k8s.io"}, "versions": [
                {"version": "v9", "resources": [{"resource": "gateways"}]},
                {"version": "v1beta1", "resources": [{"resource": "gateways"}, {"resource": "referencegrants"}]},
                {"version": "v1", "resources": [{"resource": "gateways"}]},
            ]},
            {"metadata": {"name": "llm-d.ai"}, "versions": [
                {"version": "v1alpha1", "resources": [{"resource": "inferenceobjectives"}]},
            ]},
            {"versions": []},
        ]});
        let served = served(&serde_json::from_value(groups).unwrap());
        let of = |group, kind| served.get(&(group, kind)).copied();
        assert_eq!(of(api::GATEWAY_GROUP, "Gateway"), Some("v1"));
        assert_eq!(of(api::GATEWAY_GROUP, "ReferenceGrant"), Some("v1beta1"));
        assert_eq!(of(api::GATEWAY_GROUP, "HTTPRoute"), None);
        assert_eq!(of(api::LLM_D_GROUP, "InferenceObjective"), Some("v1alpha1"));
        assert_eq!(of("", "Pod"), Some("v1"));
        assert_eq!(of(api::INFERENCE_GROUP, "InferencePool"), None);
    }
}
