//! Pools: InferencePools and ports of Services, with their servers, TLS and picker.

use std::sync::Arc;

use api::inference::{AppProtocol as PoolProtocol, DEFAULT_PICKER_PORT};
use api::{
    EndpointPickerRef, FailureMode, INFERENCE_X_GROUP, InferencePool, ObjectKey, Objects, Resource,
    Service, ServicePort, ServiceType,
};

use super::conditions::{Problem, generation};
use super::endpoints::Slices;
use super::models::Tables;
use super::tls::{Policies, PolicyUse, TlsTarget};
use super::{Mode, Outcome};
use crate::plan::{AppProtocol, Picker, PickerTls, PoolKey, PoolKind, PoolSpec, UpstreamTls};

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

/// Builds pools out of objects.
pub(super) struct Builder<'a> {
    pub(super) objects: &'a Objects,
    pub(super) slices: Slices<'a>,
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
            .slices
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
        let (picker, problem) = self.picker(pool, out);
        let (upstream, closed) = split(tls.tls);
        let spec = PoolSpec {
            key: pool_key(pool),
            endpoints: found.servers(),
            protocol: match pool.spec.app_protocol {
                PoolProtocol::H2c => AppProtocol::H2c,
                PoolProtocol::Http | PoolProtocol::Unknown(_) => AppProtocol::Http,
            },
            tls: upstream,
            picker,
            models: self.tables.of(&key),
        };
        BuiltPool {
            spec: Arc::new(spec),
            object: Some(key),
            generation: generation(meta),
            problem,
            policies: tls.uses,
            closed,
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
        let found = self.slices.of_service(service, port);
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

    /// Who picks for a pool, and why its reference does not resolve.
    fn picker(&self, pool: &InferencePool, out: &mut Outcome) -> (Picker, Option<Problem>) {
        let Some(reference) = &pool.spec.endpoint_picker_ref else {
            return (Picker::Inside, None);
        };
        let namespace = &pool.meta.namespace;
        let invalid = |message: String| Some(Problem::new("InvalidExtensionRef", message));
        if !reference.group.is_empty() || reference.kind != "Service" {
            let message = format!(
                "unsupported kind {}: an endpoint picker must be a Service",
                reference.kind
            );
            return (lost(namespace, reference), invalid(message));
        }
        if reference.name.is_empty() {
            return (
                lost(namespace, reference),
                invalid("the endpoint picker has no name".to_owned()),
            );
        }
        let Some(service) = self.objects.service(namespace, &reference.name) else {
            if self.mode == Mode::Files {
                let message = format!(
                    "Service {} is not described: the picker inside is used",
                    reference.name
                );
                out.note(pool.key(), message);
                return (Picker::Inside, None);
            }
            let message = format!("Service {namespace}/{} not found", reference.name);
            return (lost(namespace, reference), invalid(message));
        };
        if service.spec.service_type == ServiceType::ExternalName {
            let message = format!(
                "Service {namespace}/{} is of type ExternalName",
                reference.name
            );
            return (lost(namespace, reference), invalid(message));
        }
        self.external(service, reference)
    }

    fn external(
        &self,
        service: &Service,
        reference: &EndpointPickerRef,
    ) -> (Picker, Option<Problem>) {
        let number = picker_port(reference);
        let unlisted = ServicePort {
            name: String::new(),
            port: number,
            target_port: None,
            protocol: api::Protocol::Tcp,
            app_protocol: None,
            node_port: None,
        };
        let port = service
            .spec
            .ports
            .iter()
            .find(|port| port.port == number)
            .unwrap_or(&unlisted);
        let cleartext = port.app_protocol.as_deref() == Some("kubernetes.io/h2c");
        let tls = match self.policies.find(service_target(service, port)).tls {
            Some(Ok(tls)) => PickerTls::Verified(tls),
            Some(Err(problem)) => {
                let problem = Problem::new("InvalidExtensionRef", problem.message);
                return (lost(&service.meta.namespace, reference), Some(problem));
            }
            None if cleartext => PickerTls::Plaintext,
            None => PickerTls::Unverified,
        };
        let endpoints = self.slices.of_service(service, port).servers();
        (
            external_picker(&service.meta.namespace, reference, endpoints, tls),
            None,
        )
    }
}

fn picker_port(reference: &EndpointPickerRef) -> u16 {
    reference
        .port
        .map_or(DEFAULT_PICKER_PORT, |port| port.number)
}

/// A picker that cannot be reached: the failure mode decides what happens.
fn lost(namespace: &str, reference: &EndpointPickerRef) -> Picker {
    external_picker(namespace, reference, Vec::new(), PickerTls::Unverified)
}

fn external_picker(
    namespace: &str,
    reference: &EndpointPickerRef,
    endpoints: Vec<crate::plan::EndpointSpec>,
    tls: PickerTls,
) -> Picker {
    Picker::External {
        service: format!("{namespace}/{}", reference.name),
        port: picker_port(reference),
        fail_open: reference.failure_mode == FailureMode::FailOpen,
        endpoints,
        tls,
    }
}

fn service_target<'a>(service: &'a Service, port: &'a ServicePort) -> TlsTarget<'a> {
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
