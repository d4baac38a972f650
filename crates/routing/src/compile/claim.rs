//! Which Gateways are ours.
//!
//! A GatewayClass is ours if its `controllerName` is; a Gateway is ours if its class is. Files may leave the class out:
//! a Gateway whose class no file describes is ours as well.

use std::sync::Arc;

use api::gateway::{GatewayAddressType, ParametersRef};
use api::{Gateway, GatewayClass, ObjectKey, Objects, Resource};

use super::backends::Referrer;
use super::certificates;
use super::conditions::{Problem, generation, positive};
use super::grants::Grants;
use super::{CompileOptions, Mode, ObjectStatus, Outcome, ParameterRefs};
use crate::plan::Certificate;

/// A Gateway of ours.
pub(super) struct Claim<'o> {
    pub(super) gateway: &'o Gateway,
    /// Why it cannot be accepted.
    pub(super) problem: Option<Problem>,
    /// Annotation `pointsman.dev/trusted: "true"`.
    pub(super) trusted: bool,
    /// What is shown to servers that ask who we are (`spec.tls.backend`).
    pub(super) identity: Option<Result<Certificate, Problem>>,
}

/// The Gateways that are ours, oldest first.
pub(super) fn gateways<'o>(
    objects: &'o Objects,
    grants: &Grants<'_>,
    options: &CompileOptions,
    out: &mut Outcome,
) -> Vec<Claim<'o>> {
    for class in objects
        .gateway_classes()
        .filter(|class| is_ours(class, options))
    {
        let condition = positive(
            "Accepted",
            class_problem(class, options).as_ref(),
            generation(&class.meta),
        );
        out.statuses
            .push(ObjectStatus::of(class.key(), vec![condition]));
    }
    let mut claims: Vec<_> = objects
        .gateways()
        .filter_map(|gateway| claim(objects, grants, options, gateway))
        .collect();
    claims.sort_by_key(|claim| super::assemble::age(&claim.gateway.meta));
    claims
}

fn is_ours(class: &GatewayClass, options: &CompileOptions) -> bool {
    class.spec.controller_name == options.controller_name
}

fn claim<'o>(
    objects: &'o Objects,
    grants: &Grants<'_>,
    options: &CompileOptions,
    gateway: &'o Arc<Gateway>,
) -> Option<Claim<'o>> {
    let class = objects.gateway_class(&gateway.spec.gateway_class_name);
    let ours = match class {
        Some(class) => is_ours(class, options),
        None => options.mode == Mode::Files,
    };
    if !ours {
        return None;
    }
    Some(Claim {
        gateway,
        problem: class
            .and_then(|class| class_problem(class, options))
            .or_else(|| gateway_problem(gateway, options)),
        trusted: gateway
            .meta
            .annotations
            .get("pointsman.dev/trusted")
            .is_some_and(|value| value == "true"),
        identity: identity(objects, grants, gateway),
    })
}

/// The certificate of a Gateway towards servers.
fn identity(
    objects: &Objects,
    grants: &Grants<'_>,
    gateway: &Gateway,
) -> Option<Result<Certificate, Problem>> {
    let tls = gateway.spec.tls.as_ref()?.backend.as_ref()?;
    let reference = tls.client_certificate_ref.as_ref()?;
    let from = Referrer {
        kind: "Gateway",
        namespace: &gateway.meta.namespace,
    };
    let found = certificates::resolve(objects, grants, from, reference);
    Some(found.map_err(|problem| match problem.reason {
        "InvalidCertificateRef" => Problem::new("InvalidClientCertificateRef", problem.message),
        _ => problem,
    }))
}

fn class_problem(class: &GatewayClass, options: &CompileOptions) -> Option<Problem> {
    let reference = class.spec.parameters_ref.as_ref();
    parameters_problem(&class.key(), reference, options)
}

/// Why an object's parameters cannot be used.
fn parameters_problem(
    of: &ObjectKey,
    reference: Option<&ParametersRef>,
    options: &CompileOptions,
) -> Option<Problem> {
    let reference = reference?;
    let message = match &options.parameters {
        ParameterRefs::Read(refused) => refused.get(of)?.clone(),
        ParameterRefs::Unsupported => format!(
            "parametersRef {}/{} is not supported",
            reference.kind, reference.name
        ),
    };
    Some(Problem::new("InvalidParameters", message))
}

fn gateway_problem(gateway: &Gateway, options: &CompileOptions) -> Option<Problem> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let reference = infrastructure.and_then(|all| all.parameters_ref.as_ref());
    let problem = parameters_problem(&gateway.key(), reference, options);
    if problem.is_some() {
        return problem;
    }
    let usable = |kind: &GatewayAddressType| {
        matches!(
            kind,
            GatewayAddressType::IpAddress | GatewayAddressType::Hostname
        )
    };
    let address = gateway
        .spec
        .addresses
        .iter()
        .find(|address| !usable(&address.address_type))?;
    Some(Problem::new(
        "UnsupportedAddress",
        format!(
            "addresses of type {} are not supported",
            address.address_type
        ),
    ))
}
