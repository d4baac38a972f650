//! Which Gateways are ours.
//!
//! A GatewayClass is ours if its `controllerName` is; a Gateway is ours if its class is. Files may leave the class out:
//! a Gateway whose class no file describes is ours as well.

use std::sync::Arc;

use api::gateway::GatewayAddressType;
use api::{Gateway, GatewayClass, Objects, Resource};

use super::conditions::{Problem, generation, positive};
use super::{CompileOptions, Mode, ObjectStatus, Outcome};

/// A Gateway of ours.
pub(super) struct Claim<'o> {
    pub(super) gateway: &'o Gateway,
    /// Why it cannot be accepted.
    pub(super) problem: Option<Problem>,
    /// Annotation `pointsman.dev/trusted: "true"`.
    pub(super) trusted: bool,
}

/// The Gateways that are ours, oldest first.
pub(super) fn gateways<'o>(
    objects: &'o Objects,
    options: &CompileOptions,
    out: &mut Outcome,
) -> Vec<Claim<'o>> {
    for class in objects
        .gateway_classes()
        .filter(|class| is_ours(class, options))
    {
        let condition = positive(
            "Accepted",
            class_problem(class).as_ref(),
            generation(&class.meta),
        );
        out.statuses
            .push(ObjectStatus::of(class.key(), vec![condition]));
    }
    let mut claims: Vec<_> = objects
        .gateways()
        .filter_map(|gateway| claim(objects, options, gateway, out))
        .collect();
    claims.sort_by_key(|claim| super::assemble::age(&claim.gateway.meta));
    claims
}

fn is_ours(class: &GatewayClass, options: &CompileOptions) -> bool {
    class.spec.controller_name == options.controller_name
}

fn claim<'o>(
    objects: &'o Objects,
    options: &CompileOptions,
    gateway: &'o Arc<Gateway>,
    out: &mut Outcome,
) -> Option<Claim<'o>> {
    let class = objects.gateway_class(&gateway.spec.gateway_class_name);
    let ours = match class {
        Some(class) => is_ours(class, options),
        None => options.mode == Mode::Files,
    };
    if !ours {
        return None;
    }
    if gateway
        .spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.backend.is_some())
    {
        out.note(
            gateway.key(),
            "client certificates towards backends (spec.tls.backend) are not supported",
        );
    }
    Some(Claim {
        gateway,
        problem: class
            .and_then(|class| class_problem(class))
            .or_else(|| gateway_problem(gateway)),
        trusted: gateway
            .meta
            .annotations
            .get("pointsman.dev/trusted")
            .is_some_and(|value| value == "true"),
    })
}

fn class_problem(class: &GatewayClass) -> Option<Problem> {
    let parameters = class.spec.parameters_ref.as_ref()?;
    let message = format!(
        "parametersRef {}/{} is not supported",
        parameters.kind, parameters.name
    );
    Some(Problem::new("InvalidParameters", message))
}

fn gateway_problem(gateway: &Gateway) -> Option<Problem> {
    if let Some(parameters) = gateway
        .spec
        .infrastructure
        .as_ref()
        .and_then(|all| all.parameters_ref.as_ref())
    {
        let message = format!(
            "infrastructure.parametersRef {}/{} is not supported",
            parameters.kind, parameters.name
        );
        return Some(Problem::new("InvalidParameters", message));
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
