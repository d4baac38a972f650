//! GatewayClass and Gateway (Gateway API v1, also accepted as v1beta1).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::meta::Meta;
use crate::open_enum::open_enum;
use crate::route::{SecretRef, StringMap, gateway_group};
use crate::selector::LabelSelector;

/// A class of gateways, implemented by the controller it names. Cluster-scoped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClass {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: GatewayClassSpec,
}

/// `spec` of a GatewayClass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Name of the controller, in the form `domain/path`.
    pub controller_name: String,
    /// The class's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersRef>,
    /// What the class is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Reference to an object with parameters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParametersRef {
    /// Group, empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace, only from a GatewayClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A gateway: addresses and listeners to which routes attach.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: GatewaySpec,
}

/// `spec` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Name of the GatewayClass.
    pub gateway_class_name: String,
    /// Listeners, each with a name unique in this Gateway.
    pub listeners: Vec<Listener>,
    /// Addresses that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayAddress>,
    /// What provisioned infrastructure should carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<Infrastructure>,
    /// TLS towards clients and backends for the whole gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTls>,
    /// Which ListenerSets may attach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
}

open_enum! {
    /// What a listener speaks.
    pub enum ListenerProtocol {
        /// HTTP/1.1 and HTTP/2 in cleartext.
        Http = "HTTP",
        /// HTTP/1.1 and HTTP/2 over TLS that ends here.
        Https = "HTTPS",
        /// TLS sessions.
        Tls = "TLS",
        /// TCP streams.
        Tcp = "TCP",
        /// UDP packets.
        Udp = "UDP",
    }
}

/// One listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Name, unique in the Gateway.
    pub name: String,
    /// Hostname, maybe with a `*.` in front; none means every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: ListenerProtocol,
    /// TLS of HTTPS and TLS listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

open_enum! {
    /// Where a TLS session ends.
    pub enum TlsMode {
        /// Here.
        Terminate = "Terminate",
        /// At the backend.
        Passthrough = "Passthrough",
    }
    default Terminate
}

/// `tls` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    /// Where the session ends.
    pub mode: TlsMode,
    /// Certificates with their keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificate_refs: Vec<SecretRef>,
    /// Options of the implementation.
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub options: StringMap,
}

/// `allowedRoutes` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    /// Namespaces from which routes may attach, by default the Gateway's own.
    pub namespaces: RouteNamespaces,
    /// Kinds of routes; empty means those that fit the protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<RouteGroupKind>,
}

open_enum! {
    /// Which namespaces.
    pub enum FromNamespaces {
        /// All.
        All = "All",
        /// The Gateway's own.
        Same = "Same",
        /// Those whose labels a selector matches.
        Selector = "Selector",
        /// None.
        None = "None",
    }
    default Same
}

/// Namespaces from which routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteNamespaces {
    /// Which namespaces.
    pub from: FromNamespaces,
    /// The selector for `from: Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A kind of route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteGroupKind {
    /// Group, by default the Gateway API's.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind.
    pub kind: String,
}

/// `allowedListeners` of a Gateway; by default no ListenerSet may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedListeners {
    /// Namespaces of ListenerSets.
    pub namespaces: ListenerNamespaces,
}

/// Namespaces from which ListenerSets may attach.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerNamespaces {
    /// Which namespaces, by default none.
    pub from: FromNamespaces,
    /// The selector for `from: Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

impl Default for ListenerNamespaces {
    fn default() -> Self {
        Self {
            from: FromNamespaces::None,
            selector: None,
        }
    }
}

open_enum! {
    /// What an address is.
    pub enum GatewayAddressType {
        /// An IPv4 or IPv6 address.
        IpAddress = "IPAddress",
        /// A hostname.
        Hostname = "Hostname",
        /// A name known to the implementation.
        NamedAddress = "NamedAddress",
    }
    default IpAddress
}

/// An address that a Gateway asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayAddress {
    /// What `value` is.
    #[serde(rename = "type")]
    pub address_type: GatewayAddressType,
    /// The address; none lets the implementation choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl GatewayAddress {
    /// The address, when it is an IP address and well formed.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.address_type {
            GatewayAddressType::IpAddress => self.value.as_deref()?.parse().ok(),
            _ => None,
        }
    }
}

/// `infrastructure` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Labels for what is provisioned.
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub labels: StringMap,
    /// Annotations for what is provisioned.
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub annotations: StringMap,
    /// Parameters of this Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersRef>,
}

/// `tls` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTls {
    /// Towards backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<GatewayBackendTls>,
    /// Towards clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendTls>,
}

/// The certificate which the gateway shows to backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayBackendTls {
    /// Secret with certificate and key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretRef>,
}

/// Validation of clients' certificates: a default, and exceptions by port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTls {
    /// For all HTTPS listeners.
    #[serde(rename = "default")]
    pub default_config: FrontendTlsConfig,
    /// For the listeners of one port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub per_port: Vec<PortTls>,
}

/// Validation of clients' certificates on one port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortTls {
    /// The port.
    pub port: u16,
    /// The configuration that replaces the default.
    pub tls: FrontendTlsConfig,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTlsConfig {
    /// How clients' certificates are checked; none means they are not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<FrontendValidation>,
}

open_enum! {
    /// What happens to a client without a valid certificate.
    pub enum FrontendValidationMode {
        /// The handshake fails.
        AllowValidOnly = "AllowValidOnly",
        /// The connection goes on.
        AllowInsecureFallback = "AllowInsecureFallback",
    }
    default AllowValidOnly
}

/// How clients' certificates are checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendValidation {
    /// ConfigMaps (key `ca.crt`) or Secrets with the trusted authorities.
    pub ca_certificate_refs: Vec<ObjectRef>,
    /// What happens without a valid certificate.
    #[serde(default)]
    pub mode: FrontendValidationMode,
}

/// A reference with group and kind, possibly into another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Group, empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none means that of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
