//! ReferenceGrant and BackendTLSPolicy.

use serde::{Deserialize, Serialize};

use crate::meta::Meta;
use crate::open_enum::open_enum;
use crate::route::{LocalObjectRef, StringMap};

/// Lets objects of other namespaces refer into its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrant {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: ReferenceGrantSpec,
}

/// `spec` of a ReferenceGrant: any `from` may refer to any `to`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantFrom {
    /// Group of the referring object.
    pub group: String,
    /// Kind of the referring object.
    pub kind: String,
    /// Namespace of the referring object.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantTo {
    /// Group, empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; none means every object of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ReferenceGrant {
    /// Whether this grant, standing in the target's namespace, lets `from_*` refer to `to_*`.
    #[must_use]
    pub fn permits(&self, from: &GrantFrom, to_group: &str, to_kind: &str, to_name: &str) -> bool {
        self.spec.from.contains(from)
            && self.spec.to.iter().any(|to| {
                to.group == to_group
                    && to.kind == to_kind
                    && to.name.as_deref().is_none_or(|name| name == to_name)
            })
    }
}

/// How the gateway speaks TLS to backends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicy {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What the user wants.
    pub spec: BackendTlsPolicySpec,
}

/// `spec` of a BackendTLSPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    /// Backends in the policy's namespace.
    pub target_refs: Vec<PolicyTargetRef>,
    /// How the backend's certificate is checked.
    pub validation: BackendTlsValidation,
    /// Options of the implementation.
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub options: StringMap,
}

/// A backend to which a policy applies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetRef {
    /// Group, empty for core.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// For a Service: the name of one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

open_enum! {
    /// Sets of authorities that every system brings.
    pub enum WellKnownCaCertificates {
        /// The system's.
        System = "System",
    }
}

/// How a backend's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsValidation {
    /// ConfigMaps (key `ca.crt`) or Secrets with the trusted authorities; excludes `well_known_ca_certificates`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<LocalObjectRef>,
    /// A set of authorities; excludes `ca_certificate_refs`.
    #[serde(
        rename = "wellKnownCACertificates",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub well_known_ca_certificates: Option<WellKnownCaCertificates>,
    /// Server name that is sent, and demanded of the certificate unless `subject_alt_names` is given.
    pub hostname: String,
    /// Names of which the certificate must have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

open_enum! {
    /// What a subject alternative name is.
    pub enum SubjectAltNameType {
        /// `hostname`
        Hostname = "Hostname",
        /// `uri`
        Uri = "URI",
    }
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAltName {
    /// Which of the other fields counts.
    #[serde(rename = "type")]
    pub name_type: SubjectAltNameType,
    /// A hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// A URI, for instance a SPIFFE identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}
