//! What the data planes of one Gateway are given.
//!
//! The least that [`routing::compile`] needs to make this Gateway's plan: its class, itself, what attaches to it, and
//! what that leads to. A reference into another namespace is followed only where a ReferenceGrant permits it, so a
//! Gateway cannot make the controller hand over a Secret that it may not use. Other Gateways' objects are not in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::SERVICE_NAME_LABEL;
use api::policy::GrantFrom;
use api::{InferencePool, ObjectKey, Objects, PoolRef, Resource};

use crate::carried::Carried;

/// Objects to be handed on, by key.
pub(crate) type View = BTreeMap<ObjectKey, Arc<Carried>>;

/// The objects of a cluster with their texts, and who leads to whom.
#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    carried: View,
    /// Routes and sets of listeners by what they attach to.
    children: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// Policies by what they are about.
    policies: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// EndpointSlices by their Service.
    slices: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// What speaks of models, by pool.
    models: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// Pods by namespace and by each of their labels.
    pods: BTreeMap<Labelled, Vec<ObjectKey>>,
    /// Grants by namespace.
    grants: BTreeMap<String, Vec<ObjectKey>>,
}

/// A namespace, and a label's name and value.
type Labelled = (String, String, String);

impl World {
    pub(crate) fn new(objects: Objects, carried: View) -> Self {
        let mut world = Self::default();
        for (key, one) in &carried {
            for parent in &one.parents {
                add(&mut world.children, parent, key);
            }
            for target in &one.targets {
                add(&mut world.policies, target, key);
            }
        }
        for slice in objects.endpoint_slices() {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME_LABEL) {
                let service = ObjectKey::new("", "Service", &slice.meta.namespace, service);
                add(&mut world.slices, &service, &slice.key());
            }
        }
        for pod in objects.pods() {
            for (name, value) in &pod.meta.labels {
                let place = (pod.meta.namespace.clone(), name.clone(), value.clone());
                world.pods.entry(place).or_default().push(pod.key());
            }
        }
        for grant in objects.reference_grants() {
            add(&mut world.grants, &grant.meta.namespace, &grant.key());
        }
        world.models = models(&objects);
        world.objects = objects;
        world.carried = carried;
        world
    }

    /// Every Pod that may have all of these labels: those with the rarest of them. No label is nobody's.
    fn candidates(&self, namespace: &str, labels: &BTreeMap<String, String>) -> &[ObjectKey] {
        let lists = labels.iter().map(|(name, value)| {
            let place = (namespace.to_owned(), name.clone(), value.clone());
            self.pods.get(&place).map_or(&[][..], Vec::as_slice)
        });
        lists.min_by_key(|list| list.len()).unwrap_or_default()
    }

    /// What the data planes of this Gateway are given; `None` when it is none of `controller`'s.
    pub(crate) fn view(&self, gateway: &ObjectKey, controller: &str) -> Option<View> {
        let object = self.objects.gateway(&gateway.namespace, &gateway.name)?;
        let class = self
            .objects
            .gateway_class(&object.spec.gateway_class_name)?;
        if class.spec.controller_name != controller {
            return None;
        }
        let mut gathering = Gathering {
            world: self,
            view: View::new(),
        };
        gathering.take(&class.key());
        gathering.attached(gateway);
        Some(gathering.view)
    }

    fn permits(&self, from: &ObjectKey, to: &ObjectKey) -> bool {
        if from.namespace == to.namespace {
            return true;
        }
        let from = GrantFrom {
            group: from.group.clone(),
            kind: from.kind.clone(),
            namespace: from.namespace.clone(),
        };
        let mut grants = self
            .objects
            .reference_grants()
            .filter(|grant| grant.meta.namespace == to.namespace);
        grants.any(|grant| grant.permits(&from, &to.group, &to.kind, &to.name))
    }
}

fn add<K: Ord + Clone>(index: &mut BTreeMap<K, Vec<ObjectKey>>, at: &K, key: &ObjectKey) {
    index.entry(at.clone()).or_default().push(key.clone());
}

fn models(objects: &Objects) -> BTreeMap<ObjectKey, Vec<ObjectKey>> {
    let mut found = BTreeMap::new();
    let mut note = |key: ObjectKey, namespace: &str, reference: &PoolRef| {
        if let Some(pool) = objects.referenced_pool(namespace, reference) {
            add(&mut found, &pool.key(), &key);
        }
    };
    for one in objects.inference_models() {
        note(one.key(), &one.meta.namespace, &one.spec.pool_ref);
    }
    for one in objects.inference_objectives() {
        note(one.key(), &one.meta.namespace, &one.spec.pool_ref);
    }
    for one in objects.inference_model_rewrites() {
        note(one.key(), &one.meta.namespace, &one.spec.pool_ref);
    }
    found
}

/// A view that grows.
struct Gathering<'w> {
    world: &'w World,
    view: View,
}

impl Gathering<'_> {
    /// Takes an object; whether it is there and new.
    fn take(&mut self, key: &ObjectKey) -> bool {
        let Some(carried) = self.world.carried.get(key) else {
            return false;
        };
        let news = self.view.insert(key.clone(), Arc::clone(carried)).is_none();
        if news && !key.namespace.is_empty() {
            let namespace = ObjectKey::new("", "Namespace", "", &key.namespace);
            if let Some(carried) = self.world.carried.get(&namespace) {
                self.view.insert(namespace, Arc::clone(carried));
            }
            self.take_all(self.world.grants.get(&key.namespace));
        }
        news
    }

    fn take_all(&mut self, keys: Option<&Vec<ObjectKey>>) {
        for key in keys.into_iter().flatten() {
            if let Some(carried) = self.world.carried.get(key) {
                self.view.insert(key.clone(), Arc::clone(carried));
            }
        }
    }

    /// A Gateway, a set of listeners or a route; what attaches to it, and what it needs.
    fn attached(&mut self, key: &ObjectKey) {
        if !self.take(key) {
            return;
        }
        self.needs(key);
        for child in self.world.children.get(key).into_iter().flatten() {
            self.attached(child);
        }
    }

    fn needs(&mut self, key: &ObjectKey) {
        let Some(carried) = self.world.carried.get(key) else {
            return;
        };
        for needed in &carried.needs {
            if self.world.permits(key, needed) && self.take(needed) {
                self.backend(needed);
            }
        }
    }

    /// What stands behind a backend.
    fn backend(&mut self, key: &ObjectKey) {
        let world = self.world;
        for policy in world.policies.get(key).into_iter().flatten() {
            if policy.namespace == key.namespace && self.take(policy) {
                self.needs(policy);
            }
        }
        match key.kind.as_str() {
            "Service" => self.take_all(world.slices.get(key)),
            "InferencePool" => {
                self.take_all(world.models.get(key));
                let pool = world
                    .objects
                    .inference_pool(&key.group, &key.namespace, &key.name);
                if let Some(pool) = pool {
                    self.pool(pool);
                }
            }
            _ => {}
        }
    }

    /// The Pods of a pool, and its picker.
    fn pool(&mut self, pool: &InferencePool) {
        let world = self.world;
        let labels = &pool.spec.selector.match_labels;
        for key in world.candidates(&pool.meta.namespace, labels) {
            let pod = world.objects.get(key).map(api::Object::meta);
            if pod.is_some_and(|meta| api::selector::labels_match(labels, &meta.labels)) {
                self.take(key);
            }
        }
        if let Some(picker) = &pool.spec.endpoint_picker_ref {
            let service = ObjectKey::new("", "Service", &pool.meta.namespace, &picker.name);
            if self.take(&service) {
                self.backend(&service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_is_looked_at_for_its_own_pool_only() {
        let pod = |n: usize| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p{n}, namespace: a, \
                 labels: {{app: server, pool: x{}}}}}}}",
                n / 5
            )
        };
        let text: Vec<_> = (0..50).map(pod).collect();
        let documents = api::decode_yaml(&text.join("\n---\n")).into_iter();
        let objects = documents.map(|one| one.result.expect("a Pod")).collect();
        let world = World::new(objects, View::default());
        let labels = |pool: &str| -> BTreeMap<String, String> {
            [("app", "server"), ("pool", pool)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        assert_eq!(world.candidates("a", &labels("x3")).len(), 5);
        assert_eq!(world.candidates("b", &labels("x3")).len(), 0);
        assert_eq!(world.candidates("a", &labels("x99")).len(), 0);
        assert_eq!(world.candidates("a", &BTreeMap::new()).len(), 0);
    }
}
