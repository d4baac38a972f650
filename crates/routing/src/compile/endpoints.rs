//! Servers, out of EndpointSlices and Pods.
//!
//! A Service's slices name it in the label `kubernetes.io/service-name`. A pool's servers are the Pods of its namespace
//! that its selector selects, one server for each target port. Files usually describe no Pods: there the slices whose
//! labels match the selector are servers too. (In a cluster they are not: a slice has its Service's labels, which say
//! nothing about Pods.) An address that stands in several places is one server, ready if one of them says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::{EndpointPort, Protocol, SERVICE_NAME_LABEL};
use api::{Endpoint, EndpointSlice, Objects, Pod, Service, ServicePort, TargetPort};

use super::Mode;
use crate::plan::{EndpointSpec, Host};
use crate::urls::endpoint_name;

/// All EndpointSlices and Pods, by namespace.
pub(super) struct Servers<'o> {
    slices: BTreeMap<&'o str, Vec<&'o EndpointSlice>>,
    pods: BTreeMap<&'o str, Vec<&'o Pod>>,
    mode: Mode,
}

impl<'o> Servers<'o> {
    pub(super) fn new(objects: &'o Objects, mode: Mode) -> Self {
        let mut slices: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in objects.endpoint_slices() {
            slices
                .entry(slice.meta.namespace.as_str())
                .or_default()
                .push(slice);
        }
        let mut pods: BTreeMap<_, Vec<&Pod>> = BTreeMap::new();
        for pod in objects.pods() {
            pods.entry(pod.meta.namespace.as_str())
                .or_default()
                .push(pod);
        }
        Self { slices, pods, mode }
    }

    /// Servers of a pool. An empty selector selects nothing: it must not pick up everything in the namespace.
    pub(super) fn of_pool(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
        target_ports: &[u16],
    ) -> Found {
        let mut found = Found::default();
        if selector.is_empty() {
            return found;
        }
        let selected = |labels| api::selector::labels_match(selector, labels);
        for pod in self.pods.get(namespace).into_iter().flatten() {
            if selected(&pod.meta.labels) {
                found.add_pod(pod, target_ports);
            }
        }
        if self.mode == Mode::Cluster {
            return found;
        }
        for slice in self.within(namespace) {
            if selected(&slice.meta.labels) {
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
        self.slices.get(namespace).into_iter().flatten()
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
        let labels = Arc::new(slice.meta.labels.clone());
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
                let server = server(endpoint, host.clone(), *port, ports.len() > 1);
                self.merge(EndpointSpec {
                    labels: Arc::clone(&labels),
                    ..server
                });
            }
        }
    }

    /// A server for each target port of a pool, unless the Pod's annotation narrows them down.
    fn add_pod(&mut self, pod: &Pod, target_ports: &[u16]) {
        let Some(ip) = pod.ip() else { return };
        let labels = Arc::new(pod.meta.labels.clone());
        let active = pod.active_ports();
        let wanted = |port: &&u16| active.as_ref().is_none_or(|active| active.contains(port));
        for port in target_ports.iter().filter(wanted) {
            let name = if target_ports.len() > 1 {
                format!("{}:{port}", pod.meta.name)
            } else {
                pod.meta.name.clone()
            };
            self.merge(EndpointSpec {
                host: Host::Ip(ip),
                port: *port,
                name,
                ready: pod.is_ready(),
                labels: Arc::clone(&labels),
                base_path: None,
            });
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
        labels: Arc::default(),
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
