//! Servers, out of EndpointSlices.
//!
//! A pool's slices are those of its namespace whose labels match its selector; a Service's slices name it in the label
//! `kubernetes.io/service-name`. An address that stands in several slices is one server, ready if one of them says so.

use std::collections::BTreeMap;

use api::core::{EndpointPort, Protocol, SERVICE_NAME_LABEL};
use api::{Endpoint, EndpointSlice, Objects, Service, ServicePort, TargetPort};

use crate::plan::{EndpointSpec, Host};
use crate::urls::endpoint_name;

/// All EndpointSlices, by namespace.
pub(super) struct Slices<'o> {
    by_namespace: BTreeMap<&'o str, Vec<&'o EndpointSlice>>,
}

impl<'o> Slices<'o> {
    pub(super) fn new(objects: &'o Objects) -> Self {
        let mut by_namespace: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in objects.endpoint_slices() {
            by_namespace
                .entry(slice.meta.namespace.as_str())
                .or_default()
                .push(slice);
        }
        Self { by_namespace }
    }

    /// Servers of a pool. An empty selector selects nothing: it must not pick up every slice of the namespace.
    pub(super) fn of_pool(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
        target_ports: &[u16],
    ) -> Found {
        let mut found = Found::default();
        for slice in self.within(namespace) {
            if !selector.is_empty() && api::selector::labels_match(selector, &slice.meta.labels) {
                let own: Vec<_> = tcp(slice).filter_map(|port| port.port).collect();
                found.add(slice, if own.is_empty() { target_ports } else { &own });
            }
        }
        found
    }

    /// Servers of one port of a Service.
    pub(super) fn of_service(&self, service: &Service, port: &ServicePort) -> Found {
        let mut found = Found::default();
        for slice in self.within(&service.meta.namespace) {
            if slice.meta.labels.get(SERVICE_NAME_LABEL) == Some(&service.meta.name) {
                found.add(slice, service_port(slice, service, port).as_slice());
            }
        }
        found
    }

    fn within(&self, namespace: &str) -> impl Iterator<Item = &&'o EndpointSlice> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }
}

fn tcp(slice: &EndpointSlice) -> impl Iterator<Item = &EndpointPort> {
    slice
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp)
}

/// The slice's port for a Service's port: the one of the same name, or the only one where neither side has a choice.
/// A slice that names no port number means the Service's target.
fn service_port(slice: &EndpointSlice, service: &Service, port: &ServicePort) -> Option<u16> {
    let target = match &port.target_port {
        Some(TargetPort::Number(number)) => *number,
        _ => port.port,
    };
    if slice.ports.is_empty() {
        return Some(target);
    }
    let named = tcp(slice).find(|candidate| candidate.name == port.name);
    let sole = (service.spec.ports.len() <= 1 && slice.ports.len() == 1)
        .then(|| tcp(slice).next())
        .flatten();
    named.or(sole).map(|found| found.port.unwrap_or(target))
}

/// Servers that were found, and addresses that make no sense.
#[derive(Default)]
pub(super) struct Found {
    servers: BTreeMap<(Host, u16), EndpointSpec>,
    pub(super) unreadable: Vec<String>,
}

impl Found {
    /// Whether there is no server.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The servers, sorted.
    pub(super) fn servers(&self) -> Vec<EndpointSpec> {
        self.servers.values().cloned().collect()
    }

    fn add(&mut self, slice: &EndpointSlice, ports: &[u16]) {
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.addresses.first() else {
                continue;
            };
            let Some(host) = host(address, slice) else {
                self.unreadable.push(format!(
                    "EndpointSlice {}: address {address:?}",
                    slice.meta.name
                ));
                continue;
            };
            for port in ports {
                self.merge(server(endpoint, host.clone(), *port, ports.len() > 1));
            }
        }
    }

    fn merge(&mut self, server: EndpointSpec) {
        let key = (server.host.clone(), server.port);
        match self.servers.get_mut(&key) {
            Some(known) if server.ready && !known.ready => *known = server,
            Some(_) => {}
            None => {
                self.servers.insert(key, server);
            }
        }
    }
}

fn server(endpoint: &Endpoint, host: Host, port: u16, several: bool) -> EndpointSpec {
    let pod = endpoint
        .target_ref
        .as_ref()
        .map(|target| target.name.as_str())
        .filter(|name| !name.is_empty());
    let name = match pod {
        Some(pod) if several => format!("{pod}:{port}"),
        Some(pod) => pod.to_owned(),
        None => endpoint_name(&host, port),
    };
    let ready = endpoint.conditions.is_ready() && !endpoint.conditions.is_terminating();
    EndpointSpec {
        host,
        port,
        name,
        ready,
        base_path: None,
    }
}

/// An address, or a DNS name where the slice is one of names.
fn host(address: &str, slice: &EndpointSlice) -> Option<Host> {
    if let Ok(ip) = address.parse() {
        return Some(Host::Ip(ip));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
    let is_name = slice.address_type == api::AddressType::Fqdn
        && !address.is_empty()
        && address.bytes().all(allowed);
    is_name.then(|| Host::Dns(address.trim_end_matches('.').to_ascii_lowercase()))
}
