//! From what a watch gives to an object of ours.
//!
//! The API server's metadata is known to be sound, the rest is whatever somebody wrote. So an item always has a key,
//! and either an object or the reason why it has none.

use std::sync::Arc;

use api::{Object, ObjectKey};
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use crate::carried::Carried;
use crate::kinds::Kind;

/// A copy of the whole object in an annotation, made by `kubectl apply`; nobody here reads it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One object as it came.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) key: ObjectKey,
    /// `metadata.resourceVersion`.
    pub(crate) version: String,
    /// `metadata.uid`.
    pub(crate) uid: String,
    /// The object without its resource version, so that an equal object means that nothing has changed for us; or why
    /// it cannot be read.
    pub(crate) object: Result<Object, String>,
    /// The status, for kinds whose status we may write.
    pub(crate) status: Option<Value>,
    /// The object as text, where it is to be handed on.
    pub(crate) carried: Option<Arc<Carried>>,
}

/// The key of what a watch gave.
pub(crate) fn key(kind: &Kind, object: &DynamicObject) -> ObjectKey {
    let meta = &object.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = if kind.namespaced { namespace } else { "" };
    ObjectKey::new(kind.group, kind.kind, namespace, name)
}

/// Reads what a watch gave. Items of lists do not say what they are, hence `version` of the kind. `carry`: keep the
/// text as well.
pub(crate) fn item(kind: &Kind, version: &str, object: DynamicObject, carry: bool) -> Item {
    let key = key(kind, &object);
    let DynamicObject { metadata, data, .. } = object;
    let mut fields = match data {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let status = if kind.status {
        Some(fields.remove("status").unwrap_or(Value::Null))
    } else {
        None
    };
    let api_version = if kind.group.is_empty() {
        version.to_owned()
    } else {
        format!("{}/{version}", kind.group)
    };
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let uid = metadata.uid.unwrap_or_default();
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.kind.into());
    fields.insert(
        "metadata".to_owned(),
        json!({
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": metadata.labels.unwrap_or_default(),
            "annotations": annotations,
            "creationTimestamp": metadata.creation_timestamp,
            "deletionTimestamp": metadata.deletion_timestamp,
            "generation": metadata.generation,
            "uid": uid,
        }),
    );
    let carried = carry.then(|| Carried::of(&key, &fields)).flatten();
    Item {
        carried: carried.map(Arc::new),
        key,
        version: metadata.resource_version.unwrap_or_default(),
        uid,
        object: api::decode_value(Value::Object(fields)).map_err(|error| error.to_string()),
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::find;

    fn read(group: &str, kind: &str, version: &str, object: Value) -> Item {
        item(
            find(group, kind).expect("a kind we read"),
            version,
            serde_json::from_value(object).expect("sound metadata"),
            false,
        )
    }

    #[test]
    fn an_item_of_a_list_gets_its_kind_and_sheds_what_nobody_reads() {
        let item = read(
            api::GATEWAY_GROUP,
            "HTTPRoute",
            "v1",
            json!({
                "metadata": {
                    "name": "r", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
                    "creationTimestamp": "2026-01-02T03:04:05Z",
                    "annotations": {(LAST_APPLIED): "{}", "a": "b"},
                    "managedFields": [{"manager": "x"}],
                },
                "spec": {"rules": [{"filters": [{"type": "FromTheFuture"}]}]},
                "status": {"parents": []},
            }),
        );
        let object = item.object.expect("unknown values are kept");
        assert_eq!(object.key(), item.key);
        let meta = object.meta();
        assert_eq!(
            (meta.generation, meta.resource_version.as_deref()),
            (Some(3), None)
        );
        assert_eq!(meta.annotations.len(), 1);
        assert_eq!((item.version.as_str(), item.uid.as_str()), ("7", "u"));
        assert_eq!(item.status, Some(json!({"parents": []})));
    }

    #[test]
    fn what_cannot_be_read_has_a_key_and_a_reason() {
        let item = read(
            api::INFERENCE_GROUP,
            "InferencePool",
            "v1",
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"targetPorts": 7}}),
        );
        assert_eq!(item.key.to_string(), "InferencePool n/p");
        assert!(item.object.unwrap_err().contains("spec"));
    }

    #[test]
    fn a_pool_of_the_old_group_keeps_its_group() {
        let item = read(
            api::INFERENCE_X_GROUP,
            "InferencePool",
            "v1alpha2",
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"selector": {"a": "b"}, "targetPortNumber": 1}}),
        );
        assert_eq!(item.object.unwrap().key(), item.key);
        assert_eq!(item.key.group, api::INFERENCE_X_GROUP);
    }

    #[test]
    fn every_kind_is_one_that_is_decoded() {
        for kind in crate::kinds::KINDS {
            for version in kind.versions {
                let item = read(
                    kind.group,
                    kind.kind,
                    version,
                    json!({"metadata": {"name": "x"}}),
                );
                if let Err(reason) = item.object {
                    assert!(!reason.contains("not read"), "{kind:?} {version}: {reason}");
                }
            }
        }
    }
}
