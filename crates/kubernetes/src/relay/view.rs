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
    /// Pods and grants by namespace.
    pods: BTreeMap<String, Vec<ObjectKey>>,
    grants: BTreeMap<String, Vec<ObjectKey>>,
}

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
            add(&mut world.pods, &pod.meta.namespace, &pod.key());
        }
        for grant in objects.reference_grants() {
            add(&mut world.grants, &grant.meta.namespace, &grant.key());
        }
        world.models = models(&objects);
        world.objects = objects;
        world.carried = carried;
        world
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
        let pods = world.pods.get(&pool.meta.namespace).into_iter().flatten();
        for key in pods.filter(|_| !labels.is_empty()) {
            let pod = world.objects.get(key).map(api::Object::meta);
            let fits = pod.is_some_and(|meta| {
                labels
                    .iter()
                    .all(|(name, value)| meta.labels.get(name) == Some(value))
            });
            if fits {
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
