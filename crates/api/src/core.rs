//! Kinds of the core API and of `discovery.k8s.io`: Service, EndpointSlice, ConfigMap, Namespace.
//! Secret has a file of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::Meta;
use crate::open_enum::open_enum;
use crate::route::StringMap;
use crate::secret::Base64Bytes;

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    #[serde(default)]
    pub spec: ServiceSpec,
}

open_enum! {
    /// How a Service is reached.
    pub enum ServiceType {
        /// At an address inside the cluster.
        ClusterIp = "ClusterIP",
        /// Also at a port of every node.
        NodePort = "NodePort",
        /// Also at a load balancer.
        LoadBalancer = "LoadBalancer",
        /// By a DNS name elsewhere.
        ExternalName = "ExternalName",
    }
    default ClusterIp
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// How it is reached.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Virtual address; `None` (the text) for a headless Service.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it.
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub selector: StringMap,
    /// DNS name of an ExternalName Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
}

open_enum! {
    /// Transport protocol of a port.
    pub enum Protocol {
        /// TCP
        Tcp = "TCP",
        /// UDP
        Udp = "UDP",
        /// SCTP
        Sctp = "SCTP",
    }
    default Tcp
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; EndpointSlices name their ports after it.
    #[serde(default)]
    pub name: String,
    /// Port of the Service.
    pub port: u16,
    /// Port of the pods; none means `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<TargetPort>,
    /// Transport.
    #[serde(default)]
    pub protocol: Protocol,
    /// What is spoken on it, for instance `kubernetes.io/h2c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Port of every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// A port by number or by the name it has in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a port number or the name of a container port")]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// Addresses of a Service's or a pool's servers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the addresses are.
    pub address_type: AddressType,
    /// Servers.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Ports; each server has all of them.
    #[serde(default)]
    pub ports: Vec<EndpointPort>,
}

open_enum! {
    /// What the addresses of a slice are.
    pub enum AddressType {
        /// IPv4 addresses.
        Ipv4 = "IPv4",
        /// IPv6 addresses.
        Ipv6 = "IPv6",
        /// DNS names.
        Fqdn = "FQDN",
    }
}

/// One server of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses that all mean this server; the first is used.
    pub addresses: Vec<String>,
    /// State.
    #[serde(default)]
    pub conditions: EndpointConditions,
    /// Hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
}

/// The object that an endpoint stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// Kind, usually `Pod`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// State of a server. What is not said counts in favour of the server, as the API defines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Takes new requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Answers, maybe while terminating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Is going away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    /// Whether new requests may be sent; unsaid means yes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// Whether it still answers; unsaid means as `ready`.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.unwrap_or_else(|| self.is_ready())
    }

    /// Whether it is going away; unsaid means no.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

/// One port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the Service's port.
    pub name: String,
    /// Port number; none means all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Transport.
    pub protocol: Protocol,
    /// What is spoken on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Plain configuration data, for instance CA certificates or the model map of a body-based router.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMap {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// Texts.
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub data: StringMap,
    /// Bytes, in base64 on the wire.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binary_data: BTreeMap<String, Base64Bytes>,
}

/// A namespace: its labels decide about `allowedRoutes` with a selector. Cluster-scoped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
}
