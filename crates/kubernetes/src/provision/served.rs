//! How a Gateway is served: what its Service and its data planes say.

use std::net::IpAddr;

use api::core::SERVICE_NAME_LABEL;
use api::{Gateway, Objects};
use serde_json::Value;

use super::manifests::{ADMIN_PORT, SHARING_PORT};
use super::names::resource_name;
use crate::status::Served;

/// The addresses of the Service, and why the Gateway is not programmed if it is not: it needs the addresses it asked
/// for, or any, and at least one data plane that is ready.
pub(super) fn served(gateway: &Gateway, service: Option<&Value>, objects: &Objects) -> Served {
    let mut served = Served::default();
    for listener in &gateway.spec.listeners {
        let port = listener.port;
        if matches!(port, ADMIN_PORT | SHARING_PORT) {
            let why = format!("port {port} is taken by data planes themselves");
            served.ports.insert(port, why);
        }
    }
    let Some(service) = service else {
        served.problem = Some(("AddressNotAssigned", "it has no Service yet".to_owned()));
        return served;
    };
    (served.addresses, served.hostnames) = addresses(service);
    let asked = unmet(gateway, &served.addresses);
    let is_reachable = !served.addresses.is_empty() || !served.hostnames.is_empty();
    served.problem = if let Some(asked) = asked {
        let why = format!("the Service has not been given the address {asked:?}");
        Some(("AddressNotUsable", why))
    } else if !is_reachable {
        let why = "the Service has not been given an address yet";
        Some(("AddressNotAssigned", why.to_owned()))
    } else if !has_ready(gateway, objects) {
        Some(("Pending", "no data plane is ready yet".to_owned()))
    } else {
        None
    };
    served
}

/// Addresses and names of a load balancer, else the Service's own addresses.
fn addresses(service: &Value) -> (Vec<IpAddr>, Vec<String>) {
    if service["spec"]["type"] != "LoadBalancer" {
        let all = service["spec"]["clusterIPs"].as_array();
        let one = std::slice::from_ref(&service["spec"]["clusterIP"]);
        let all = all.map_or(one, Vec::as_slice).iter();
        return (
            all.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
            Vec::new(),
        );
    }
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    let ingress = ingress.map_or(&[][..], Vec::as_slice);
    let ips = ingress
        .iter()
        .filter_map(|one| one["ip"].as_str()?.parse().ok());
    let names = ingress
        .iter()
        .filter(|one| one["ip"].as_str().is_none_or(str::is_empty))
        .filter_map(|one| Some(one["hostname"].as_str()?.to_owned()));
    (ips.collect(), names.collect())
}

/// An address that is asked for and not there.
fn unmet<'g>(gateway: &'g Gateway, addresses: &[IpAddr]) -> Option<&'g str> {
    gateway.spec.addresses.iter().find_map(|asked| {
        let text = asked.value.as_deref().filter(|text| !text.is_empty())?;
        let met = asked.ip().is_some_and(|ip| addresses.contains(&ip));
        (!met).then_some(text)
    })
}

fn has_ready(gateway: &Gateway, objects: &Objects) -> bool {
    let name = resource_name(&gateway.meta.name);
    let mut slices = objects.endpoint_slices().filter(|slice| {
        slice.meta.namespace == gateway.meta.namespace
            && slice.meta.labels.get(SERVICE_NAME_LABEL) == Some(&name)
    });
    slices.any(|slice| {
        slice
            .endpoints
            .iter()
            .any(|endpoint| endpoint.conditions.is_ready())
    })
}
