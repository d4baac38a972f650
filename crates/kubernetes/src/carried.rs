//! Objects as text, to be handed on, and what they name.
//!
//! A controller gives data planes what the API server said. Its own types would not do: they convert old versions on
//! reading and never write a Secret's values. So beside the object stands its JSON, without what nobody reads, and for
//! kinds of the Gateway API the references in it, found by the names of fields (`...Ref`, `...Refs`): a kind that is new
//! here is handed on like those that are known.

use std::fmt;

use api::{GATEWAY_GROUP, ObjectKey};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// An object to be handed on. `Debug` does not show the text: it may be a Secret's.
pub(crate) struct Carried {
    /// The object's JSON.
    pub(crate) text: Box<RawValue>,
    /// What it attaches to (`parentRef`, `parentRefs`).
    pub(crate) parents: Vec<ObjectKey>,
    /// What it needs: backends, certificates, authorities.
    pub(crate) needs: Vec<ObjectKey>,
    /// What it is about (`targetRefs` of a policy).
    pub(crate) targets: Vec<ObjectKey>,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried")
            .field("parents", &self.parents)
            .field("needs", &self.needs)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Carried {
    fn eq(&self, other: &Self) -> bool {
        // The references are in the text.
        self.text.get() == other.text.get()
    }
}

impl Carried {
    /// Takes an object's fields. `None` when it cannot be written, which JSON that was read always can.
    pub(crate) fn of(key: &ObjectKey, fields: &Map<String, Value>) -> Option<Self> {
        let mut found = Found::default();
        if key.group == GATEWAY_GROUP
            && let Some(spec) = fields.get("spec")
        {
            found.walk(&key.namespace, "spec", spec);
        }
        // Of a Pod only its labels and its status matter, and its spec is large and nobody else's business.
        let kept = fields
            .iter()
            .filter(|(name, _)| key.kind != "Pod" || *name != "spec");
        let kept: Map<String, Value> = kept
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Some(Self {
            text: serde_json::value::to_raw_value(&kept).ok()?,
            parents: found.parents,
            needs: found.needs,
            targets: found.targets,
        })
    }
}

#[derive(Default)]
struct Found {
    parents: Vec<ObjectKey>,
    needs: Vec<ObjectKey>,
    targets: Vec<ObjectKey>,
}

impl Found {
    fn walk(&mut self, namespace: &str, field: &str, value: &Value) {
        match value {
            Value::Array(items) => {
                for item in items {
                    self.walk(namespace, field, item);
                }
            }
            Value::Object(fields) => {
                if field.ends_with("Ref") || field.ends_with("Refs") {
                    self.take(namespace, field, fields);
                }
                for (field, value) in fields {
                    self.walk(namespace, field, value);
                }
            }
            _ => {}
        }
    }

    /// A reference, with the defaults that the Gateway API gives its parts.
    fn take(&mut self, own: &str, field: &str, fields: &Map<String, Value>) {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let Some(name) = text("name") else { return };
        let is_parent = matches!(field, "parentRef" | "parentRefs");
        let (group, kind) = match field {
            "parentRef" | "parentRefs" => (GATEWAY_GROUP, "Gateway"),
            "certificateRefs" | "clientCertificateRef" => ("", "Secret"),
            _ => ("", "Service"),
        };
        let namespace = text("namespace").filter(|name| !name.is_empty());
        let key = ObjectKey::new(
            text("group").unwrap_or(group),
            text("kind").unwrap_or(kind),
            namespace.unwrap_or(own),
            name,
        );
        match field {
            // Read by the controller alone.
            "parametersRef" => {}
            "targetRef" | "targetRefs" => self.targets.push(key),
            _ if is_parent => self.parents.push(key),
            _ => self.needs.push(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn carried(kind: &str, object: Value) -> Carried {
        let group = if kind == "Pod" { "" } else { GATEWAY_GROUP };
        let key = ObjectKey::new(group, kind, "apps", "x");
        Carried::of(&key, object.as_object().expect("an object")).expect("JSON")
    }

    fn names(keys: &[ObjectKey]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        let route = carried(
            "HTTPRoute",
            json!({"spec": {
                "parentRefs": [{"name": "g", "namespace": "infra"}, {"name": "l", "kind": "ListenerSet"}],
                "rules": [{
                    "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 1}}}],
                    "backendRefs": [{"name": "p", "group": "inference.networking.k8s.io", "kind": "InferencePool"}],
                }],
            }}),
        );
        assert_eq!(
            names(&route.parents),
            ["Gateway infra/g", "ListenerSet apps/l"]
        );
        let mut needs = names(&route.needs);
        needs.sort();
        assert_eq!(needs, ["InferencePool apps/p", "Service apps/m"]);
        let gateway = carried(
            "Gateway",
            json!({"spec": {
                "infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "parameters"}},
                "listeners": [{"name": "a", "tls": {"certificateRefs": [{"name": "c"}, {"name": "d", "namespace": "far"}]}}],
            }}),
        );
        assert_eq!(names(&gateway.needs), ["Secret apps/c", "Secret far/d"]);
        let policy = carried(
            "BackendTLSPolicy",
            json!({"spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
                "validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]},
            }}),
        );
        assert_eq!(
            (names(&policy.targets), names(&policy.needs)),
            (
                vec!["Service apps/s".into()],
                vec!["ConfigMap apps/ca".into()]
            )
        );
    }

    #[test]
    fn nothing_that_is_private_is_handed_on_or_shown() {
        let pod = carried(
            "Pod",
            json!({"spec": {"containers": [{"env": "private"}]}, "status": {"phase": "Running"}}),
        );
        assert_eq!(pod.text.get(), r#"{"status":{"phase":"Running"}}"#);
        assert!(!format!("{pod:?}").contains("Running"));
    }
}
