//! Rules of Service, EndpointSlice, Secret and ConfigMap.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Check, names};
use crate::core::{AddressType, ConfigMap, EndpointSlice, Service, ServiceType, TargetPort};
use crate::secret::{Secret, TLS_SECRET_TYPE};

pub(super) fn service(check: &mut Check, service: &Service) {
    let spec = &service.spec;
    let external = spec.service_type == ServiceType::ExternalName;
    let headless = spec.cluster_ip.as_deref() == Some("None");
    check.count(
        "spec.ports",
        spec.ports.len(),
        usize::from(!external && !headless),
        usize::MAX,
    );
    check.ensure(
        !external || spec.external_name.is_some(),
        "spec.externalName",
        || "is needed for type ExternalName",
    );
    check.unique(
        spec.ports.iter().map(|port| &port.name),
        |index| format!("spec.ports[{index}].name"),
        "the port's name",
    );
    check.unique(
        spec.ports.iter().map(|port| (port.port, &port.protocol)),
        |index| format!("spec.ports[{index}].port"),
        "the port",
    );
    for (index, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        check.port(&format!("{path}.port"), port.port);
        check.ensure(
            spec.ports.len() == 1 || !port.name.is_empty(),
            &format!("{path}.name"),
            || "is needed when a Service has several ports",
        );
        if let Some(TargetPort::Number(number)) = port.target_port {
            check.port(&format!("{path}.targetPort"), number);
        }
    }
}

pub(super) fn endpoint_slice(check: &mut Check, slice: &EndpointSlice) {
    check.ensure(!slice.address_type.is_unknown(), "addressType", || {
        format!(
            "{:?} is no address type; write one of {}",
            slice.address_type.as_str(),
            AddressType::KNOWN.join(", ")
        )
    });
    check.count("endpoints", slice.endpoints.len(), 0, 1000);
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let path = format!("endpoints[{index}].addresses");
        check.count(&path, endpoint.addresses.len(), 1, 100);
        for (index, address) in endpoint.addresses.iter().enumerate() {
            check.ensure(
                is_address(&slice.address_type, address),
                &format!("{path}[{index}]"),
                || {
                    format!(
                        "{address:?} is no {} address{}",
                        slice.address_type,
                        address_hint(address)
                    )
                },
            );
        }
    }
    check.count("ports", slice.ports.len(), 0, 100);
    check.unique(
        slice.ports.iter().map(|port| &port.name),
        |index| format!("ports[{index}].name"),
        "the port's name",
    );
    for (index, port) in slice.ports.iter().enumerate() {
        if let Some(port) = port.port {
            check.port(&format!("ports[{index}].port"), port);
        }
    }
}

fn is_address(address_type: &AddressType, address: &str) -> bool {
    match address_type {
        AddressType::Ipv4 => address.parse::<Ipv4Addr>().is_ok(),
        AddressType::Ipv6 => address.parse::<Ipv6Addr>().is_ok(),
        AddressType::Fqdn => {
            names::is_precise_hostname(address.strip_suffix('.').unwrap_or(address))
        }
        AddressType::Unknown(_) => true,
    }
}

/// The likeliest mistake: a port in the address.
fn address_hint(address: &str) -> &'static str {
    match address.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => "; the port belongs under ports",
        _ => "",
    }
}

pub(super) fn secret(check: &mut Check, secret: &Secret) {
    for key in secret.data.keys() {
        check.ensure(names::is_data_key(key), "data", || {
            format!("{key:?} is no valid key")
        });
    }
    if secret.secret_type == TLS_SECRET_TYPE {
        for key in ["tls.crt", "tls.key"] {
            check.ensure(
                secret.data.contains_key(key),
                &format!("data.{key}"),
                || format!("is needed in a Secret of type {TLS_SECRET_TYPE}"),
            );
        }
    }
}

pub(super) fn config_map(check: &mut Check, map: &ConfigMap) {
    for key in map.data.keys() {
        check.ensure(names::is_data_key(key), &format!("data.{key}"), || {
            format!("{key:?} is no valid key")
        });
    }
    for key in map.binary_data.keys() {
        let path = format!("binaryData.{key}");
        check.ensure(names::is_data_key(key), &path, || {
            format!("{key:?} is no valid key")
        });
        check.ensure(
            !map.data.contains_key(key),
            &path,
            || "data has the same key",
        );
    }
}
