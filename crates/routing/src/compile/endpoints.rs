//! Servers, out of EndpointSlices and Pods.
//!
//! A Service's slices name it in the label `kubernetes.io/service-name`. A pool's servers are the Pods of its namespace
//! that its selector selects, one server for each target port. Files usually describe no Pods: there the slices whose
//! labels match the selector are servers too. (In a cluster they are not: a slice has its Service's labels, which say
//! nothing about Pods.) An address that stands in several places is one server, ready if one of them says so.
//!
//! Pods and slices are found by their labels, so that many pools in one namespace do not each look at all of its Pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::{EndpointPort, Protocol, SERVICE_NAME_LABEL};
use api::{Endpoint, EndpointSlice, Meta, Objects, Pod, Service, ServicePort, TargetPort};
use rustc_hash::FxHashMap;

use super::Mode;
use crate::plan::{EndpointSpec, Host};
use crate::urls::endpoint_name;

/// All EndpointSlices and Pods.
pub(super) struct Servers<'o> {
    slices: ByLabel<'o, EndpointSlice>,
    pods: ByLabel<'o, Pod>,
    mode: Mode,
}

/// Objects by namespace and by each of their labels.
struct ByLabel<'o, T> {
    having: FxHashMap<(&'o str, &'o str, &'o str), Vec<&'o T>>,
    meta: fn(&T) -> &Meta,
}

impl<'o, T> ByLabel<'o, T> {
    fn new(all: impl Iterator<Item = &'o Arc<T>>, meta: fn(&T) -> &Meta) -> Self {
        let mut having: FxHashMap<_, Vec<&'o T>> = FxHashMap::default();
        for object in all {
            let Meta {
                namespace, labels, ..
            } = meta(object);
            for (key, value) in labels {
                let place = (namespace.as_str(), key.as_str(), value.as_str());
                having.entry(place).or_default().push(object);
            }
        }
        Self { having, meta }
    }

    /// Every object that may have all of these labels: those with the rarest of them. No label is nobody's.
    fn candidates<'k>(
        &'k self,
        namespace: &'k str,
        labels: impl Iterator<Item = (&'k str, &'k str)>,
    ) -> &'k [&'o T] {
        let having = |(key, value)| self.having.get(&(namespace, key, value));
        let lists = labels.map(|label| having(label).map_or(&[][..], Vec::as_slice));
        lists.min_by_key(|list| list.len()).unwrap_or_default()
    }

    /// The objects that a selector selects.
    fn selected<'k>(
        &'k self,
        namespace: &'k str,
        selector: &'k BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'o T> + 'k {
        let labels = selector
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let meta = self.meta;
        let candidates = self.candidates(namespace, labels).iter().copied();
        candidates.filter(move |one| api::selector::labels_match(selector, &meta(one).labels))
    }
}

impl<'o> Servers<'o> {
    pub(super) fn new(objects: &'o Objects, mode: Mode) -> Self {
        Self {
            slices: ByLabel::new(objects.endpoint_slices(), |slice| &slice.meta),
            pods: ByLabel::new(objects.pods(), |pod| &pod.meta),
            mode,
        }
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
        for pod in self.pods.selected(namespace, selector) {
            found.add_pod(pod, target_ports);
        }
        if self.mode == Mode::Cluster {
            return found;
        }
        for slice in self.slices.selected(namespace, selector) {
            let own: Vec<_> = tcp(slice).filter_map(|port| port.port).collect();
            found.add(slice, if own.is_empty() { target_ports } else { &own });
        }
        found
    }

    /// Servers of one port of a Service.
    pub(super) fn of_service(&self, service: &Service, port: &ServicePort) -> Found {
        let mut found = Found::default();
        let Meta {
            namespace, name, ..
        } = &service.meta;
        let label = [(SERVICE_NAME_LABEL, name.as_str())].into_iter();
        for slice in self.slices.candidates(namespace, label) {
            found.add(slice, service_port(slice, service, port).as_slice());
        }
        found
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many pools of one namespace with five Pods each: how many Pods are looked at for all of them.
    fn looked_at(pools: usize) -> usize {
        let pod = |n: usize| {
            let pool = n / 5;
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p{n}, namespace: a, \
                 labels: {{app: server, pool: \"{pool}\"}}}}}}"
            )
        };
        let text = (0..pools * 5).map(pod).collect::<Vec<_>>().join("\n---\n");
        let documents = api::decode_yaml(&text).into_iter();
        let objects: Objects = documents.map(|one| one.result.expect("a Pod")).collect();
        let servers = Servers::new(&objects, Mode::Cluster);
        let names: Vec<_> = (0..pools).map(|pool| pool.to_string()).collect();
        let looked = names.iter().map(|name| {
            let labels = [("app", "server"), ("pool", name.as_str())].into_iter();
            servers.pods.candidates("a", labels).len()
        });
        looked.sum()
    }

    #[test]
    fn each_pod_is_looked_at_for_its_own_pool_only() {
        for pools in [1, 10, 100] {
            assert_eq!(looked_at(pools), pools * 5);
        }
    }
}
