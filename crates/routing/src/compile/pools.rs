//! Pools: InferencePools and ports of Services, with their servers and TLS.

use std::sync::Arc;

use api::inference::AppProtocol as PoolProtocol;
use api::{INFERENCE_X_GROUP, InferencePool, ObjectKey, Objects, Resource, Service, ServicePort};

use super::conditions::{Problem, generation};
use super::endpoints::Servers;
use super::models::Tables;
use super::tls::{Policies, PolicyUse, TlsTarget};
use super::{Mode, Outcome};
use crate::plan::{AppProtocol, Picker, PoolKey, PoolKind, PoolSpec, UpstreamTls};

/// A pool of the plan and what is to be said about its object.
pub(super) struct BuiltPool {
    pub(super) spec: Arc<PoolSpec>,
    /// The InferencePool; `None` for Services, which have no conditions of ours.
    pub(super) object: Option<ObjectKey>,
    pub(super) generation: i64,
    /// Why a reference of the InferencePool does not resolve.
    pub(super) problem: Option<Problem>,
    pub(super) policies: Vec<PolicyUse>,
    /// The servers must not be reached: why.
    pub(super) closed: Option<Problem>,
}

impl BuiltPool {
    /// Takes away what BackendTLSPolicies say: the servers are reached as they are.
    pub(super) fn open(&mut self) {
        Arc::make_mut(&mut self.spec).tls = None;
        self.closed = None;
        self.policies.clear();
    }
}

/// Builds pools out of objects.
pub(super) struct Builder<'a> {
    pub(super) objects: &'a Objects,
    pub(super) servers: Servers<'a>,
    pub(super) policies: Policies<'a>,
    pub(super) tables: &'a Tables,
    pub(super) mode: Mode,
}

/// The key of an InferencePool.
pub(super) fn pool_key(pool: &InferencePool) -> PoolKey {
    let kind = if pool.is_v1alpha2() {
        PoolKind::InferenceAlpha
    } else {
        PoolKind::Inference
    };
    PoolKey {
        kind,
        namespace: pool.meta.namespace.clone(),
        name: pool.meta.name.clone(),
    }
}

impl Builder<'_> {
    pub(super) fn inference(&self, pool: &InferencePool, out: &mut Outcome) -> BuiltPool {
        let meta = &pool.meta;
        let ports: Vec<_> = pool
            .spec
            .target_ports
            .iter()
            .map(|port| port.number)
            .collect();
        let found = self
            .servers
            .of_pool(&meta.namespace, &pool.spec.selector.match_labels, &ports);
        for what in &found.unreadable {
            out.note(pool.key(), format!("{what} is skipped: not an address"));
        }
        let key = pool.key();
        let target = TlsTarget {
            group: &key.group,
            kind: &key.kind,
            namespace: &meta.namespace,
            name: &meta.name,
            section: "",
        };
        let tls = self.policies.find(target);
        let picked = self.picker(pool, out);
        let (upstream, closed) = split(tls.tls);
        self.notes(pool, found.is_empty(), out);
        let spec = PoolSpec {
            key: pool_key(pool),
            endpoints: found.servers(),
            protocol: match pool.spec.app_protocol {
                PoolProtocol::H2c => AppProtocol::H2c,
                PoolProtocol::Http | PoolProtocol::Unknown(_) => AppProtocol::Http,
            },
            tls: upstream,
            picker: picked.picker,
            models: self.tables.of(&key),
        };
        BuiltPool {
            spec: Arc::new(spec),
            object: Some(key),
            generation: generation(meta),
            problem: picked.problem,
            policies: tls.uses.into_iter().chain(picked.policies).collect(),
            closed,
        }
    }

    /// What is worth a word in the log.
    fn notes(&self, pool: &InferencePool, empty: bool, out: &mut Outcome) {
        if let PoolProtocol::Unknown(other) = &pool.spec.app_protocol {
            out.note(
                pool.key(),
                format!("appProtocol {other} is not known: HTTP/1.1 is spoken"),
            );
        }
        if empty && self.mode == Mode::Files {
            out.note(
                pool.key(),
                "has no servers: no EndpointSlice or Pod of its namespace has the labels of its selector",
            );
        }
    }

    /// One port of a Service as a pool. `protocol` is what the port speaks.
    pub(super) fn service(
        &self,
        service: &Service,
        port: &ServicePort,
        key: PoolKey,
        protocol: AppProtocol,
        out: &mut Outcome,
    ) -> BuiltPool {
        let found = self.servers.of_service(service, port);
        for what in &found.unreadable {
            out.note(service.key(), format!("{what} is skipped: not an address"));
        }
        let tls = self.policies.find(service_target(service, port));
        let (upstream, closed) = split(tls.tls);
        let spec = PoolSpec {
            key,
            endpoints: found.servers(),
            protocol,
            tls: upstream,
            picker: Picker::Inside,
            models: Arc::default(),
        };
        BuiltPool {
            spec: Arc::new(spec),
            object: None,
            generation: generation(&service.meta),
            problem: None,
            policies: tls.uses,
            closed,
        }
    }
}

/// What a BackendTLSPolicy for a port of a Service names.
pub(super) fn service_target<'a>(service: &'a Service, port: &'a ServicePort) -> TlsTarget<'a> {
    TlsTarget {
        group: "",
        kind: "Service",
        namespace: &service.meta.namespace,
        name: &service.meta.name,
        section: &port.name,
    }
}

fn split(tls: Option<Result<UpstreamTls, Problem>>) -> (Option<UpstreamTls>, Option<Problem>) {
    match tls {
        None => (None, None),
        Some(Ok(tls)) => (Some(tls), None),
        Some(Err(problem)) => (None, Some(problem)),
    }
}

/// The group of the pool kind, for messages and grants.
pub(super) fn is_pool_group(group: &str) -> bool {
    group == api::INFERENCE_GROUP || group == INFERENCE_X_GROUP
}
