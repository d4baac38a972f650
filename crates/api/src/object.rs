//! Objects of any kind, their keys, and sets of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::core::{ConfigMap, EndpointSlice, Namespace, Service};
use crate::gateway::{Gateway, GatewayClass};
use crate::grpc_route::GrpcRoute;
use crate::http_route::HttpRoute;
use crate::inference::{
    InferenceModel, InferenceModelRewrite, InferenceObjective, InferencePool, InferencePoolImport,
    PoolRef,
};
use crate::listener_set::ListenerSet;
use crate::meta::Meta;
use crate::pod::Pod;
use crate::policy::{BackendTlsPolicy, ReferenceGrant};
use crate::secret::Secret;
use crate::tls_route::TlsRoute;

/// Identity of an object: two objects with the same key are the same object, whatever their version.
///
/// Ordered by kind, then namespace, name and group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// API group; empty for core.
    pub group: String,
}

impl ObjectKey {
    /// A key of its parts.
    pub fn new(
        group: impl Into<String>,
        kind: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            group: group.into(),
        }
    }
}

/// `HTTPRoute ns/name`, or `GatewayClass name` for cluster-scoped kinds.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The group of an `apiVersion`: what stands before the slash, empty for core.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// What all kinds have in common.
pub trait Resource {
    /// The kind, as written.
    const KIND: &'static str;
    /// Whether objects of the kind live in a namespace.
    const NAMESPACED: bool;

    /// `group/version` as written.
    fn api_version(&self) -> &str;
    /// Metadata.
    fn meta(&self) -> &Meta;
    /// Metadata, for defaulting.
    fn meta_mut(&mut self) -> &mut Meta;

    /// Identity.
    fn key(&self) -> ObjectKey {
        let meta = self.meta();
        ObjectKey::new(
            group_of(self.api_version()),
            Self::KIND,
            &*meta.namespace,
            &*meta.name,
        )
    }
}

/// Declares [`Object`] with one variant per kind, and for each kind its [`Resource`] and its iterator in [`Objects`].
macro_rules! kinds {
    ($( $variant:ident($type:ty), $kind:literal, $namespaced:literal, $list:ident; )+) => {
        /// An object of any kind that Pointsman reads.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(
                #[doc = concat!("`", $kind, "`")]
                $variant(Arc<$type>),
            )+
        }

        impl Object {
            /// The kind, as written.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$variant(_) => $kind, )+ }
            }

            /// `group/version` as written.
            #[must_use]
            pub fn api_version(&self) -> &str {
                match self { $( Self::$variant(object) => &object.api_version, )+ }
            }

            /// Metadata.
            #[must_use]
            pub fn meta(&self) -> &Meta {
                match self { $( Self::$variant(object) => &object.meta, )+ }
            }

            /// Identity.
            #[must_use]
            pub fn key(&self) -> ObjectKey {
                match self { $( Self::$variant(object) => object.key(), )+ }
            }
        }

        $(
            impl Resource for $type {
                const KIND: &'static str = $kind;
                const NAMESPACED: bool = $namespaced;

                fn api_version(&self) -> &str {
                    &self.api_version
                }

                fn meta(&self) -> &Meta {
                    &self.meta
                }

                fn meta_mut(&mut self) -> &mut Meta {
                    &mut self.meta
                }
            }

            impl From<$type> for Object {
                fn from(object: $type) -> Self {
                    Self::$variant(Arc::new(object))
                }
            }
        )+

        impl Objects {
            $(
                #[doc = concat!("All objects of kind `", $kind, "`, by namespace and name.")]
                pub fn $list(&self) -> impl Iterator<Item = &Arc<$type>> {
                    self.of_kind($kind).filter_map(|object| match object {
                        Object::$variant(object) => Some(object),
                        _ => None,
                    })
                }
            )+
        }
    };
}

kinds! {
    GatewayClass(GatewayClass), "GatewayClass", false, gateway_classes;
    Gateway(Gateway), "Gateway", true, gateways;
    ListenerSet(ListenerSet), "ListenerSet", true, listener_sets;
    HttpRoute(HttpRoute), "HTTPRoute", true, http_routes;
    GrpcRoute(GrpcRoute), "GRPCRoute", true, grpc_routes;
    TlsRoute(TlsRoute), "TLSRoute", true, tls_routes;
    ReferenceGrant(ReferenceGrant), "ReferenceGrant", true, reference_grants;
    BackendTlsPolicy(BackendTlsPolicy), "BackendTLSPolicy", true, backend_tls_policies;
    Service(Service), "Service", true, services;
    EndpointSlice(EndpointSlice), "EndpointSlice", true, endpoint_slices;
    Secret(Secret), "Secret", true, secrets;
    ConfigMap(ConfigMap), "ConfigMap", true, config_maps;
    Namespace(Namespace), "Namespace", false, namespaces;
    Pod(Pod), "Pod", true, pods;
    InferencePool(InferencePool), "InferencePool", true, inference_pools;
    InferenceModel(InferenceModel), "InferenceModel", true, inference_models;
    InferenceObjective(InferenceObjective), "InferenceObjective", true, inference_objectives;
    InferenceModelRewrite(InferenceModelRewrite), "InferenceModelRewrite", true, inference_model_rewrites;
    InferencePoolImport(InferencePoolImport), "InferencePoolImport", true, inference_pool_imports;
}

/// A set of objects with one object per key, in the order of the keys. Cloning copies references only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    by_key: BTreeMap<ObjectKey, Object>,
}

impl Objects {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an object in and gives back the one that had its key.
    pub fn insert(&mut self, object: impl Into<Object>) -> Option<Object> {
        let object = object.into();
        self.by_key.insert(object.key(), object)
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Object> {
        self.by_key.remove(key)
    }

    /// The object with this key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.by_key.get(key)
    }

    /// Whether there is an object with this key.
    #[must_use]
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All objects, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.by_key.values()
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_key.keys()
    }

    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Object> {
        self.by_key
            .range(ObjectKey::new("", kind, "", "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, object)| object)
    }

    fn find(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        self.by_key
            .get(&ObjectKey::new(group, kind, namespace, name))
    }

    /// The GatewayClass of this name.
    #[must_use]
    pub fn gateway_class(&self, name: &str) -> Option<&Arc<GatewayClass>> {
        match self.find(crate::GATEWAY_GROUP, "GatewayClass", "", name)? {
            Object::GatewayClass(object) => Some(object),
            _ => None,
        }
    }

    /// The Gateway of this namespace and name.
    #[must_use]
    pub fn gateway(&self, namespace: &str, name: &str) -> Option<&Arc<Gateway>> {
        match self.find(crate::GATEWAY_GROUP, "Gateway", namespace, name)? {
            Object::Gateway(object) => Some(object),
            _ => None,
        }
    }

    /// The ListenerSet of this namespace and name.
    #[must_use]
    pub fn listener_set(&self, namespace: &str, name: &str) -> Option<&Arc<ListenerSet>> {
        match self.find(crate::GATEWAY_GROUP, "ListenerSet", namespace, name)? {
            Object::ListenerSet(object) => Some(object),
            _ => None,
        }
    }

    /// The Service of this namespace and name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        match self.find("", "Service", namespace, name)? {
            Object::Service(object) => Some(object),
            _ => None,
        }
    }

    /// The Secret of this namespace and name.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Arc<Secret>> {
        match self.find("", "Secret", namespace, name)? {
            Object::Secret(object) => Some(object),
            _ => None,
        }
    }

    /// The ConfigMap of this namespace and name.
    #[must_use]
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&Arc<ConfigMap>> {
        match self.find("", "ConfigMap", namespace, name)? {
            Object::ConfigMap(object) => Some(object),
            _ => None,
        }
    }

    /// The Namespace of this name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        match self.find("", "Namespace", "", name)? {
            Object::Namespace(object) => Some(object),
            _ => None,
        }
    }

    /// The InferencePool of this group, namespace and name. The group tells v1 from v1alpha2.
    #[must_use]
    pub fn inference_pool(
        &self,
        group: &str,
        namespace: &str,
        name: &str,
    ) -> Option<&Arc<InferencePool>> {
        match self.find(group, "InferencePool", namespace, name)? {
            Object::InferencePool(object) => Some(object),
            _ => None,
        }
    }

    /// The pool that an object of this namespace means by `pool_ref`.
    #[must_use]
    pub fn referenced_pool(
        &self,
        namespace: &str,
        pool_ref: &PoolRef,
    ) -> Option<&Arc<InferencePool>> {
        if pool_ref.kind != "InferencePool" {
            return None;
        }
        pool_ref
            .groups()
            .find_map(|group| self.inference_pool(group, namespace, &pool_ref.name))
    }
}

impl FromIterator<Object> for Objects {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut set = Self::new();
        set.extend(objects);
        set
    }
}

impl Extend<Object> for Objects {
    fn extend<I: IntoIterator<Item = Object>>(&mut self, objects: I) {
        for object in objects {
            self.insert(object);
        }
    }
}
