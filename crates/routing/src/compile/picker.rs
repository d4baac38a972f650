//! Who picks for an InferencePool.
//!
//! Without a reference the picker inside does. A reference leads to a Service of the pool's namespace, which is asked
//! over TLS without verification (pickers make their certificates at every start), in cleartext where its port says
//! `kubernetes.io/h2c`, or as a BackendTLSPolicy says. A reference that does not resolve is a lost picker, and the
//! failure mode decides; files that merely leave the Service out mean the picker inside.

use api::inference::DEFAULT_PICKER_PORT;
use api::{
    EndpointPickerRef, FailureMode, InferencePool, Protocol, Resource, Service, ServicePort,
    ServiceType,
};

use super::conditions::Problem;
use super::pools::{Builder, service_target};
use super::tls::PolicyUse;
use super::{Mode, Outcome};
use crate::plan::{EndpointSpec, Picker, PickerTls};

/// The picker of a pool.
pub(super) struct Picked {
    pub(super) picker: Picker,
    /// Why the reference does not resolve.
    pub(super) problem: Option<Problem>,
    /// BackendTLSPolicies that were looked at.
    pub(super) policies: Vec<PolicyUse>,
}

impl Picked {
    fn inside() -> Self {
        Self {
            picker: Picker::Inside,
            problem: None,
            policies: Vec::new(),
        }
    }

    /// A picker that cannot be reached.
    fn lost(pool: &InferencePool, reference: &EndpointPickerRef, why: String) -> Self {
        let picker = external(pool, reference, Vec::new(), PickerTls::Unverified);
        Self {
            picker,
            problem: Some(Problem::new("InvalidExtensionRef", why)),
            policies: Vec::new(),
        }
    }
}

impl Builder<'_> {
    /// Who picks for a pool.
    pub(super) fn picker(&self, pool: &InferencePool, out: &mut Outcome) -> Picked {
        let Some(reference) = &pool.spec.endpoint_picker_ref else {
            return Picked::inside();
        };
        let full = format!("{}/{}", pool.meta.namespace, reference.name);
        if !reference.group.is_empty() || reference.kind != "Service" {
            let why = format!(
                "unsupported kind {}: an endpoint picker must be a Service",
                reference.kind
            );
            return Picked::lost(pool, reference, why);
        }
        match self.objects.service(&pool.meta.namespace, &reference.name) {
            None if self.mode == Mode::Files && !reference.name.is_empty() => {
                out.note(
                    pool.key(),
                    format!("Service {full} is not described: the picker inside is used"),
                );
                Picked::inside()
            }
            None => Picked::lost(pool, reference, format!("Service {full} not found")),
            Some(service) if service.spec.service_type == ServiceType::ExternalName => {
                Picked::lost(
                    pool,
                    reference,
                    format!("Service {full} is of type ExternalName"),
                )
            }
            Some(service) => self.external_picker(pool, service, reference),
        }
    }

    fn external_picker(
        &self,
        pool: &InferencePool,
        service: &Service,
        reference: &EndpointPickerRef,
    ) -> Picked {
        let number = picker_port(reference);
        let listed = service.spec.ports.iter().find(|port| port.port == number);
        let unlisted = unlisted_port(number);
        let port = listed.unwrap_or(&unlisted);
        let found = self.policies.find(service_target(service, port));
        let tls = match found.tls {
            Some(Ok(tls)) => PickerTls::Verified(tls),
            Some(Err(problem)) => {
                return Picked {
                    policies: found.uses,
                    ..Picked::lost(pool, reference, problem.message)
                };
            }
            None if port.app_protocol.as_deref() == Some("kubernetes.io/h2c") => {
                PickerTls::Plaintext
            }
            None => PickerTls::Unverified,
        };
        let endpoints = self.servers.of_service(service, port).servers();
        Picked {
            picker: external(pool, reference, endpoints, tls),
            problem: None,
            policies: found.uses,
        }
    }
}

fn picker_port(reference: &EndpointPickerRef) -> u16 {
    reference
        .port
        .map_or(DEFAULT_PICKER_PORT, |port| port.number)
}

/// A port that the Service does not list is taken as it is.
fn unlisted_port(port: u16) -> ServicePort {
    ServicePort {
        name: String::new(),
        port,
        target_port: None,
        protocol: Protocol::Tcp,
        app_protocol: None,
        node_port: None,
    }
}

fn external(
    pool: &InferencePool,
    reference: &EndpointPickerRef,
    endpoints: Vec<EndpointSpec>,
    tls: PickerTls,
) -> Picker {
    Picker::External {
        service: format!("{}/{}", pool.meta.namespace, reference.name),
        port: picker_port(reference),
        fail_open: reference.failure_mode == FailureMode::FailOpen,
        endpoints,
        tls,
    }
}
