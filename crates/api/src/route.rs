//! What HTTPRoute and GRPCRoute share: parents, backends, header matches, filters; and status conditions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{Duration, GATEWAY_GROUP};

pub(crate) fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

pub(crate) fn gateway_kind() -> String {
    "Gateway".to_owned()
}

pub(crate) fn service_kind() -> String {
    "Service".to_owned()
}

pub(crate) fn secret_kind() -> String {
    "Secret".to_owned()
}

pub(crate) fn one() -> u32 {
    1
}

/// `parentRefs[]`: the Gateway (or one of its listeners) to which a route wants to attach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Group, by default the Gateway API's.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind, by default `Gateway`.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// Namespace of the parent; none means that of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the parent.
    pub name: String,
    /// Name of one listener of the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port that the parent's listener must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A reference to a backend: a Service, an InferencePool and so on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendObjectRef {
    /// Group, by default core (empty).
    #[serde(default)]
    pub group: String,
    /// Kind, by default `Service`.
    #[serde(default = "service_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none means that of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Port of the Service; ignored for pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A reference to an object of a given group and kind in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectRef {
    /// Group, empty for core.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// A reference to a Secret (or another kind that holds a certificate), possibly in another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Group, by default core (empty).
    #[serde(default)]
    pub group: String,
    /// Kind, by default `Secret`.
    #[serde(default = "secret_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none means that of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

open_enum! {
    /// How a header or query value is compared.
    pub enum MatchType {
        /// Equal.
        Exact = "Exact",
        /// A regular expression that matches the whole value.
        RegularExpression = "RegularExpression",
    }
    default Exact
}

/// A match on one header. Names compare without case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub match_type: MatchType,
    /// Header name.
    pub name: String,
    /// Value or expression.
    pub value: String,
}

open_enum! {
    /// Which of a filter's fields counts.
    pub enum FilterType {
        /// `requestHeaderModifier`
        RequestHeaderModifier = "RequestHeaderModifier",
        /// `responseHeaderModifier`
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// `requestMirror`
        RequestMirror = "RequestMirror",
        /// `requestRedirect`
        RequestRedirect = "RequestRedirect",
        /// `urlRewrite`
        UrlRewrite = "URLRewrite",
        /// `cors`
        Cors = "CORS",
        /// `extensionRef`
        ExtensionRef = "ExtensionRef",
    }
}

/// A header with its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Header {
    /// Header name.
    pub name: String,
    /// Header value.
    pub value: String,
}

/// Changes to the headers of a request or a response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderModifier {
    /// Overwrites these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Header>,
    /// Appends these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Header>,
    /// Removes these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Sends a copy of requests to a further backend and ignores its answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Where copies go.
    pub backend_ref: BackendObjectRef,
    /// Share of requests to copy, in percent; none (and no `fraction`) means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Share of requests to copy, as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

fn hundred() -> u32 {
    100
}

/// `numerator / denominator`, by default out of a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fraction {
    /// Numerator.
    pub numerator: u32,
    /// Denominator, by default 100.
    #[serde(default = "hundred")]
    pub denominator: u32,
}

open_enum! {
    /// How a session is carried.
    pub enum SessionType {
        /// In a cookie.
        Cookie = "Cookie",
        /// In a header.
        Header = "Header",
    }
    default Cookie
}

open_enum! {
    /// How long a session cookie lives.
    pub enum CookieLifetime {
        /// Until the client ends its session.
        Session = "Session",
        /// Until `absoluteTimeout`.
        Permanent = "Permanent",
    }
    default Session
}

/// `sessionPersistence` of a rule: requests of one session go to one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPersistence {
    /// Name of the cookie or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// Lifetime in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// Lifetime without a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Cookie or header.
    #[serde(rename = "type")]
    pub session_type: SessionType,
    /// Details of the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// Details of a session cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieConfig {
    /// How long the cookie lives.
    pub lifetime_type: CookieLifetime,
}

/// A status condition as the API conventions define it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is judged, for instance `Accepted`.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<jiff::Timestamp>,
    /// One word for machines.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
}

pub(crate) type StringMap = BTreeMap<String, String>;
