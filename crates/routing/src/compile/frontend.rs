//! Certificates of clients: whether an HTTPS listener asks for them, and what it verifies them against.
//!
//! A Gateway says so for all its HTTPS listeners, ListenerSets' too, or for those of one port (Gateway API,
//! `GatewaySpec.tls.frontend`). A listener of which no authority can be read is not served: to leave the check out would
//! let in clients that were meant to be kept out.

use std::sync::Arc;

use api::gateway::{
    FrontendTlsConfig, FrontendValidation, FrontendValidationMode, ListenerProtocol, ObjectRef,
};
use api::{Gateway, Objects};

use super::certificates::has_pem;
use super::conditions::Problem;
use super::grants::{Grants, ReferenceTo};
use crate::plan::ClientAuth;

/// What was found out about the clients of a listener.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) auth: Option<ClientAuth>,
    /// Which authorities cannot be read.
    pub(super) unresolved: Option<Problem>,
    /// Why the listener cannot be served.
    pub(super) refused: Option<Problem>,
}

/// How clients of a listener prove who they are.
pub(super) fn clients(
    objects: &Objects,
    grants: &Grants<'_>,
    gateway: &Gateway,
    listener: &api::Listener,
) -> Clients {
    let Some(validation) = validation(gateway, listener) else {
        return Clients::default();
    };
    let mut roots = Vec::new();
    let mut problems = Vec::new();
    for reference in &validation.ca_certificate_refs {
        match authority(objects, grants, &gateway.meta.namespace, reference) {
            Ok(pem) => {
                roots.extend_from_slice(pem);
                roots.push(b'\n');
            }
            Err(problem) => problems.push(problem),
        }
    }
    let refused = match &validation.mode {
        FrontendValidationMode::Unknown(other) => Some(Problem::new(
            "UnsupportedValue",
            format!("validation mode {other} of clients' certificates is not supported"),
        )),
        _ if roots.is_empty() => Some(Problem::new(
            "NoValidCACertificate",
            "no authority for clients' certificates can be read",
        )),
        _ => None,
    };
    let auth = ClientAuth {
        roots: Arc::from(roots),
        optional: is_lenient(validation),
    };
    Clients {
        auth: refused.is_none().then_some(auth),
        unresolved: Problem::join(&problems),
        refused,
    }
}

/// Whether clients without a valid certificate get in somewhere.
pub(super) fn is_insecure(gateway: &Gateway) -> bool {
    configs(gateway)
        .filter_map(|config| config.validation.as_ref())
        .any(is_lenient)
}

fn is_lenient(validation: &FrontendValidation) -> bool {
    validation.mode == FrontendValidationMode::AllowInsecureFallback
}

fn configs(gateway: &Gateway) -> impl Iterator<Item = &FrontendTlsConfig> {
    let tls = gateway.spec.tls.as_ref();
    let frontend = tls.and_then(|tls| tls.frontend.as_ref());
    frontend.into_iter().flat_map(|frontend| {
        let per_port = frontend.per_port.iter().map(|port| &port.tls);
        std::iter::once(&frontend.default_config).chain(per_port)
    })
}

fn validation<'g>(
    gateway: &'g Gateway,
    listener: &api::Listener,
) -> Option<&'g FrontendValidation> {
    if listener.protocol != ListenerProtocol::Https {
        return None;
    }
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let mut per_port = frontend.per_port.iter();
    let for_port = per_port.find(|port| port.port == listener.port);
    for_port
        .map_or(&frontend.default_config, |port| &port.tls)
        .validation
        .as_ref()
}

fn authority<'o>(
    objects: &'o Objects,
    grants: &Grants<'_>,
    namespace: &str,
    reference: &ObjectRef,
) -> Result<&'o [u8], Problem> {
    let ObjectRef {
        group, kind, name, ..
    } = reference;
    let target = reference.namespace.as_deref().unwrap_or(namespace);
    if !group.is_empty() || !["ConfigMap", "Secret"].contains(&kind.as_str()) {
        let message = format!("{kind} cannot hold authorities");
        return Err(Problem::new("InvalidCACertificateKind", message));
    }
    let to = ReferenceTo {
        group,
        kind,
        namespace: target,
        name,
    };
    if !grants.permit("Gateway", namespace, to) {
        let message = format!("no ReferenceGrant allows {kind} {target}/{name}");
        return Err(Problem::new("RefNotPermitted", message));
    }
    let pem = if kind == "ConfigMap" {
        let map = objects.config_map(target, name);
        map.and_then(|map| map.data.get("ca.crt"))
            .map(String::as_bytes)
    } else {
        let secret = objects.secret(target, name);
        secret
            .and_then(|secret| secret.data.get("ca.crt"))
            .map(api::SecretBytes::expose)
    };
    pem.filter(|pem| has_pem(pem, |label| label == "CERTIFICATE"))
        .ok_or_else(|| {
            let message = format!("{kind} {target}/{name} has no readable certificate in ca.crt");
            Problem::new("InvalidCACertificateRef", message)
        })
}
