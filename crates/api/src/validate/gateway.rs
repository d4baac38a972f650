//! Rules of GatewayClass and Gateway.

use std::net::IpAddr;

use super::{Check, names};
use crate::gateway::{
    Gateway, GatewayAddressType, GatewayClass, Listener, ListenerProtocol, TlsMode,
};
use crate::listener_set::ListenerSet;

pub(super) fn class(check: &mut Check, class: &GatewayClass) {
    let name = &class.spec.controller_name;
    check.ensure(names::is_controller_name(name), "spec.controllerName", || {
        format!("{name:?} is no controller name: write domain/path, for instance example.com/gateway")
    });
    if let Some(description) = &class.spec.description {
        check.ensure(
            description.chars().count() <= 64,
            "spec.description",
            || "is longer than 64 characters",
        );
    }
}

pub(super) fn gateway(check: &mut Check, gateway: &Gateway) {
    let spec = &gateway.spec;
    check.object_name("spec.gatewayClassName", &spec.gateway_class_name);
    listeners(check, &spec.listeners);
    addresses(check, gateway);
}

pub(super) fn listener_set(check: &mut Check, set: &ListenerSet) {
    check.object_name("spec.parentRef.name", &set.spec.parent_ref.name);
    listeners(check, &set.spec.listeners);
}

fn listeners(check: &mut Check, listeners: &[Listener]) {
    check.count("spec.listeners", listeners.len(), 1, 64);
    for (index, listener) in listeners.iter().enumerate() {
        check_listener(check, &format!("spec.listeners[{index}]"), listener);
    }
    let at = |index| format!("spec.listeners[{index}]");
    check.unique(
        listeners.iter().map(|l| &l.name),
        |index| at(index) + ".name",
        "the listener's name",
    );
    let combination = |l: &Listener| (l.port, l.protocol.clone(), l.hostname.clone());
    check.unique(
        listeners.iter().map(combination),
        at,
        "the combination of port, protocol and hostname",
    );
}

fn addresses(check: &mut Check, gateway: &Gateway) {
    let addresses = &gateway.spec.addresses;
    check.count("spec.addresses", addresses.len(), 0, 16);
    for (index, address) in addresses.iter().enumerate() {
        let Some(value) = &address.value else {
            continue;
        };
        let path = format!("spec.addresses[{index}].value");
        match address.address_type {
            GatewayAddressType::IpAddress => {
                check.ensure(value.parse::<IpAddr>().is_ok(), &path, || {
                    format!("{value:?} is no IP address")
                });
            }
            GatewayAddressType::Hostname => {
                check.ensure(names::is_hostname(value), &path, || {
                    format!("{value:?} is no hostname")
                });
            }
            _ => {}
        }
    }
    let given = addresses.iter().filter(|address| address.value.is_some());
    check.unique(
        given.map(|address| (&address.address_type, &address.value)),
        |index| format!("spec.addresses[{index}]"),
        "the address",
    );
}

fn check_listener(check: &mut Check, path: &str, listener: &Listener) {
    check.ensure(
        names::is_dns_subdomain(&listener.name),
        &format!("{path}.name"),
        || {
            format!(
                "{:?} is no valid name: use lower-case letters, digits, '-' and '.'",
                listener.name
            )
        },
    );
    check.port(&format!("{path}.port"), listener.port);
    if let Some(hostname) = &listener.hostname {
        let field = format!("{path}.hostname");
        check.ensure(names::is_hostname(hostname), &field, || {
            hostname_message(hostname)
        });
        let streams = matches!(
            listener.protocol,
            ListenerProtocol::Tcp | ListenerProtocol::Udp
        );
        check.ensure(
            !streams,
            &field,
            || "must not be set for protocols TCP and UDP",
        );
    }
    check.count(
        &format!("{path}.allowedRoutes.kinds"),
        listener.allowed_routes.kinds.len(),
        0,
        8,
    );
    listener_tls(check, path, listener);
}

fn listener_tls(check: &mut Check, path: &str, listener: &Listener) {
    let path = format!("{path}.tls");
    let Some(tls) = &listener.tls else {
        check.ensure(
            listener.protocol != ListenerProtocol::Tls,
            &path,
            || "must be set for protocol TLS",
        );
        return;
    };
    match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Tcp | ListenerProtocol::Udp => {
            check.fail(
                &path,
                format!("must not be set for protocol {}", listener.protocol),
            );
        }
        ListenerProtocol::Https => {
            check.ensure(tls.mode != TlsMode::Passthrough, &format!("{path}.mode"), || {
                "must be Terminate for protocol HTTPS; use protocol TLS to pass sessions through"
            });
        }
        _ => {}
    }
    let named = !tls.certificate_refs.is_empty() || !tls.options.is_empty();
    check.ensure(
        tls.mode != TlsMode::Terminate || named,
        &format!("{path}.certificateRefs"),
        || "at least one certificate is needed when TLS ends here",
    );
    check.count(
        &format!("{path}.certificateRefs"),
        tls.certificate_refs.len(),
        0,
        64,
    );
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        check.object_name(
            &format!("{path}.certificateRefs[{index}].name"),
            &reference.name,
        );
    }
}

pub(super) fn hostname_message(hostname: &str) -> String {
    format!(
        "{hostname:?} is no hostname: write lower-case labels, maybe with '*.' in front, and no IP address or port"
    )
}
