//! What a backendRef leads to.
//!
//! The order of questions is: do we know the kind (`InvalidKind`), may the route refer there (`RefNotPermitted`), is
//! there such an object (`BackendNotFound`), can we speak to it (`UnsupportedProtocol`). Permission comes before
//! existence, so that nobody can find out what another namespace contains.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    BackendObjectRef, INFERENCE_X_GROUP, InferencePool, ObjectKey, Objects, Protocol, Resource,
    Service, ServicePort, ServiceType,
};

use super::conditions::Problem;
use super::endpoints::Servers;
use super::grants::{Grants, ReferenceTo};
use super::models::Tables;
use super::pools::{self, Builder, BuiltPool};
use super::tls::Policies;
use super::{Mode, ObjectStatus, Outcome};
use crate::plan::{AppProtocol, PoolKey, PoolKind, Target};
use crate::status::{Condition, ParentKey};

/// How routes of one Gateway use a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// At least one of them is accepted.
    pub(super) accepted: bool,
    /// Why one of them is not.
    pub(super) refused: Option<Problem>,
}

/// Which Gateways use which pool; no Gateway: the stand-in.
pub(super) type AllUsage = BTreeMap<PoolKey, BTreeMap<Option<ParentKey>, Usage>>;

/// Resolves references and builds each pool once.
pub(super) struct Resolver<'a> {
    builder: Builder<'a>,
    grants: &'a Grants<'a>,
    built: BTreeMap<PoolKey, BuiltPool>,
    usage: AllUsage,
    imports: BTreeSet<ObjectKey>,
    notes: Outcome,
}

/// Who refers.
#[derive(Clone, Copy)]
pub(super) struct Referrer<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
}

/// The outcome of one reference.
pub(super) struct Resolved {
    pub(super) target: Target,
    /// The pool that is meant, even where it must not be reached.
    pub(super) pool: Option<PoolKey>,
    /// What the route has to say about it.
    pub(super) problem: Option<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        objects: &'a Objects,
        grants: &'a Grants<'a>,
        tables: &'a Tables,
        mode: Mode,
    ) -> Self {
        let builder = Builder {
            objects,
            servers: Servers::new(objects, mode),
            policies: Policies::new(objects),
            tables,
            mode,
        };
        Self {
            builder,
            grants,
            built: BTreeMap::new(),
            usage: BTreeMap::new(),
            imports: BTreeSet::new(),
            notes: Outcome::default(),
        }
    }

    pub(super) fn resolve(&mut self, from: Referrer<'_>, reference: &BackendObjectRef) -> Resolved {
        match self.pool_of(from, reference) {
            Ok(key) => {
                let closed = self.closed(&key);
                let target = match closed {
                    Some(problem) => Target::Invalid(problem.message.clone()),
                    None => Target::Pool(key.clone()),
                };
                Resolved {
                    target,
                    pool: Some(key),
                    problem: None,
                }
            }
            Err(problem) => Resolved {
                target: Target::Invalid(problem.message.clone()),
                pool: None,
                problem: Some(problem),
            },
        }
    }

    fn pool_of(
        &mut self,
        from: Referrer<'_>,
        reference: &BackendObjectRef,
    ) -> Result<PoolKey, Problem> {
        let namespace = reference
            .namespace
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(from.namespace);
        let BackendObjectRef {
            group, kind, name, ..
        } = reference;
        let is_service = group.is_empty() && kind == "Service";
        let is_pool = pools::is_pool_group(group) && kind == "InferencePool";
        let is_import = group == INFERENCE_X_GROUP && kind == "InferencePoolImport";
        if !(is_service || is_pool || is_import) {
            let full = if group.is_empty() {
                kind.clone()
            } else {
                format!("{group}/{kind}")
            };
            return Err(Problem::new(
                "InvalidKind",
                format!("backends of kind {full} are not supported"),
            ));
        }
        if !self.grants.permit(
            from.kind,
            from.namespace,
            ReferenceTo {
                group,
                kind,
                namespace,
                name,
            },
        ) {
            let message = format!("no ReferenceGrant allows {kind} {namespace}/{name}");
            return Err(Problem::new("RefNotPermitted", message));
        }
        let missing = || {
            Problem::new(
                "BackendNotFound",
                format!("{kind} {namespace}/{name} not found"),
            )
        };
        let objects = self.builder.objects;
        if is_pool {
            let pool = objects
                .inference_pool(group, namespace, name)
                .ok_or_else(missing)?;
            return Ok(self.inference_pool(pool));
        }
        if is_import {
            let key = ObjectKey::new(group, kind, namespace, name);
            objects.get(&key).ok_or_else(missing)?;
            self.imports.insert(key);
            let message =
                format!("{kind} {namespace}/{name}: pools of other clusters are not supported");
            return Err(Problem::new("InvalidKind", message));
        }
        let service = objects.service(namespace, name).ok_or_else(missing)?;
        self.service(from, service, reference.port)
    }

    /// Puts an InferencePool into the plan.
    pub(super) fn inference_pool(&mut self, pool: &InferencePool) -> PoolKey {
        let key = pools::pool_key(pool);
        if !self.built.contains_key(&key) {
            let built = self.builder.inference(pool, &mut self.notes);
            self.built.insert(key.clone(), built);
        }
        key
    }

    fn service(
        &mut self,
        from: Referrer<'_>,
        service: &Service,
        port: Option<u16>,
    ) -> Result<PoolKey, Problem> {
        let (namespace, name) = (&service.meta.namespace, &service.meta.name);
        let absent = |what: String| {
            Problem::new(
                "BackendNotFound",
                format!("Service {namespace}/{name} {what}"),
            )
        };
        if service.spec.service_type == ServiceType::ExternalName {
            return Err(absent(
                "is of type ExternalName, which is not supported".to_owned(),
            ));
        }
        let number = port.ok_or_else(|| absent("is referred to without a port".to_owned()))?;
        let port = service.spec.ports.iter().find(|port| port.port == number);
        let port = port.ok_or_else(|| absent(format!("has no port {number}")))?;
        let sealed = from.kind == "TLSRoute";
        let spoken = if sealed && port.protocol == Protocol::Tcp {
            Some((AppProtocol::Http, false))
        } else {
            protocol(port, from.kind == "GRPCRoute")
        };
        let (protocol, wants_tls) = spoken.ok_or_else(|| {
            let what = port
                .app_protocol
                .as_deref()
                .unwrap_or(port.protocol.as_str());
            Problem::new(
                "UnsupportedProtocol",
                format!("Service {namespace}/{name} port {number} speaks {what}"),
            )
        })?;
        // A port that does not say what it speaks is HTTP/1.1 to an HTTPRoute and HTTP/2 to a GRPCRoute.
        // What a TLSRoute sends there is nobody's business here, so no policy applies.
        let suffix = if sealed {
            "/tls"
        } else if port.app_protocol.is_none() && protocol == AppProtocol::H2c {
            "/grpc"
        } else {
            ""
        };
        let key = PoolKey {
            kind: PoolKind::Service,
            namespace: namespace.clone(),
            name: format!("{name}:{number}{suffix}"),
        };
        if !self.built.contains_key(&key) {
            let mut built =
                self.builder
                    .service(service, port, key.clone(), protocol, &mut self.notes);
            if sealed {
                built.open();
            }
            if wants_tls && built.spec.tls.is_none() && built.closed.is_none() {
                let message = format!(
                    "Service {namespace}/{name} port {number} speaks TLS and no BackendTLSPolicy says how"
                );
                return Err(Problem::new("UnsupportedProtocol", message));
            }
            self.built.insert(key.clone(), built);
        }
        Ok(key)
    }

    /// Remembers that a route of a Gateway (or the stand-in) uses a pool.
    pub(super) fn used(
        &mut self,
        pool: &PoolKey,
        parent: Option<ParentKey>,
        refusal: Option<Problem>,
    ) {
        let usage = self
            .usage
            .entry(pool.clone())
            .or_default()
            .entry(parent)
            .or_default();
        match refusal {
            None => usage.accepted = true,
            Some(problem) => {
                usage.refused.get_or_insert(problem);
            }
        }
    }

    /// Says which InferencePools no route leads to.
    pub(super) fn note_unreached(&self, out: &mut Outcome) {
        let pools = self.builder.objects.inference_pools();
        for pool in pools.filter(|pool| !self.usage.contains_key(&pools::pool_key(pool))) {
            out.note(pool.key(), "no route of a Gateway leads here");
        }
    }

    /// Why a pool that was built must not be reached.
    pub(super) fn closed(&self, key: &PoolKey) -> Option<&Problem> {
        self.built.get(key)?.closed.as_ref()
    }

    /// All pools that were built and who uses them; what was noticed goes to `out`.
    pub(super) fn finish(self, out: &mut Outcome) -> (BTreeMap<PoolKey, BuiltPool>, AllUsage) {
        out.notes.extend(self.notes.notes);
        if self.builder.mode == Mode::Files {
            out.statuses.extend(self.builder.policies.dangling());
        }
        for key in self.imports {
            let generation = self
                .builder
                .objects
                .get(&key)
                .map_or(1, |object| super::conditions::generation(object.meta()));
            let message = "pools of other clusters are not supported";
            let condition = Condition::new(
                "Accepted",
                false,
                "NotSupportedByParent",
                message,
                generation,
            );
            out.statuses.push(ObjectStatus::of(key, vec![condition]));
        }
        (self.built, self.usage)
    }
}

/// What a Service's port speaks, and whether that goes through TLS; `None`: nothing we do. An `appProtocol` outside
/// `kubernetes.io` that we do not know is taken as a hint for others (Gateway API, GEP-1911).
fn protocol(port: &ServicePort, grpc: bool) -> Option<(AppProtocol, bool)> {
    if port.protocol != Protocol::Tcp {
        return None;
    }
    match port.app_protocol.as_deref() {
        None if grpc => Some((AppProtocol::H2c, false)),
        None | Some("http" | "kubernetes.io/ws") => Some((AppProtocol::Http, false)),
        Some("kubernetes.io/h2c" | "h2c" | "http2" | "grpc") => Some((AppProtocol::H2c, false)),
        Some("https" | "kubernetes.io/wss") => Some((AppProtocol::Http, true)),
        Some("grpcs") => Some((AppProtocol::H2c, true)),
        Some("tcp" | "udp") => None,
        Some(other) if other.starts_with("kubernetes.io/") => None,
        Some(_) => Some((AppProtocol::Http, false)),
    }
}
