//! The compiled plan: what the data plane serves, already resolved.
//!
//! A plan is a value. It is made by [`crate::compile`], swapped in atomically and then only read. Nothing in it
//! refers to a Kubernetes object by name without also saying what that name resolved to: a dangling reference is a
//! [`Target::Invalid`], which answers 500 for its share of the traffic (Gateway API, HTTPBackendRef).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::cors::Cors;
use crate::models::ModelTable;

/// Everything a data plane needs to serve traffic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What is served on each TCP port. Listeners of several Gateways that share a port are merged here.
    pub ports: BTreeMap<u16, PortPlan>,
    /// Every pool (InferencePool, Service port, or URL list) that a rule of this plan can reach, by key.
    pub pools: BTreeMap<PoolKey, Arc<PoolSpec>>,
}

/// One TCP port.
#[derive(Debug, Clone, PartialEq)]
pub struct PortPlan {
    /// The port to bind.
    pub port: u16,
    /// `true`: clients speak TLS on this port and the certificate is chosen by SNI among `hosts`.
    pub tls: bool,
    /// Listeners, most specific hostname first; a request belongs to the first one whose hostname matches.
    pub listeners: Vec<Listener>,
}

/// One listener of a Gateway or a ListenerSet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listener {
    /// `namespace/name/listener` of what describes it, for logs and metrics.
    pub name: String,
    /// The hostname this listener is for; `None` matches every host.
    pub hostname: Option<Hostname>,
    /// PEM certificate chains and keys to offer; empty for plain HTTP.
    pub certificates: Vec<Certificate>,
    /// What connections carry.
    pub mode: ListenerMode,
    /// How clients prove who they are; `None`: they need not.
    pub clients: Option<ClientAuth>,
    /// Whether clients of this listener are trusted (annotation `pointsman.dev/trusted: "true"` on the Gateway):
    /// they may use engine-internal fields, admin routes and `x-pointsman-explain`.
    pub trusted: bool,
    /// Rules in order of precedence over all routes of this listener.
    pub rules: Vec<Arc<Rule>>,
}

/// What connections of a listener carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListenerMode {
    /// HTTP, over TLS where the port has it.
    #[default]
    Http,
    /// TLS that ends here; what is in it goes to a server as it is.
    TlsTerminate,
    /// TLS that ends at a server; only the name in the handshake is looked at.
    TlsPassthrough,
}

/// What certificates of clients are verified against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM of the trusted authorities.
    pub roots: Arc<[u8]>,
    /// Clients without a valid certificate get in all the same.
    pub optional: bool,
}

/// A certificate with its key, both PEM. The key never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `namespace/name` of the Secret it came from.
    pub source: String,
    /// PEM chain, leaf first.
    pub chain: Arc<[u8]>,
    /// PEM private key.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// A hostname as Gateway API means it: `example.com`, or `*.example.com` for one or more leading labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hostname {
    /// Exactly this name, lower case.
    Exact(String),
    /// Any name ending in this suffix (stored lower case with the leading dot: `.example.com`).
    Wildcard(String),
}

/// One rule of a route after compilation: one entry for each match, so that precedence can order them.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `HTTPRoute namespace/name` of the route this came from, for logs, metrics and `/decisions`.
    pub route: String,
    /// `rules[].name` where given.
    pub name: Option<String>,
    /// Hostnames the route is limited to; empty: any host of the listener.
    pub hostnames: Vec<Hostname>,
    /// What a request must look like.
    pub matches: Match,
    /// Filters of the rule, in the order written.
    pub filters: Vec<Filter>,
    /// Where traffic goes, with weights. Empty together with no redirect: 500 (Gateway API).
    pub backends: Vec<Backend>,
    /// Per-route limits.
    pub policy: RoutePolicy,
}

/// The conditions of one match; all must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Path condition.
    pub path: PathMatch,
    /// Required method.
    pub method: Option<Method>,
    /// Required headers.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Required query parameters, decoded.
    pub query: Vec<(String, ValueMatch)>,
}

/// A path condition. Regular expressions compare by their text.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Path elements from the left, without a trailing slash; the empty string matches every path.
    Prefix(String),
    /// The whole path matches the expression (RE2 syntax, anchored).
    Regex(regex::Regex),
}

/// A condition on a header's or parameter's value.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// The value is equal.
    Exact(String),
    /// The whole value matches.
    Regex(regex::Regex),
}

// Two expressions are equal when they are spelled the same: plans are compared to find out whether a reload changed
// anything, and a false "changed" costs little.
impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// What a rule or a backend does to requests and answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Change request headers.
    RequestHeaders(HeaderChange),
    /// Change response headers.
    ResponseHeaders(HeaderChange),
    /// Answer with a redirect instead of forwarding.
    Redirect(Redirect),
    /// Change host or path before forwarding.
    Rewrite(Rewrite),
    /// Send a copy to another pool, whose answer nobody waits for.
    Mirror(Mirror),
    /// Answer what browsers ask before a cross-origin request, and mark answers for other origins.
    Cors(Arc<Cors>),
    /// A filter this version does not implement, or a broken one: requests get 500 (Gateway API: a filter must not be skipped).
    Unsupported(String),
}

/// Header changes, applied as set, then add, then remove.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderChange {
    /// Replace or create.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Append.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Remove.
    pub remove: Vec<HeaderName>,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// New scheme; `None` keeps the request's.
    pub scheme: Option<String>,
    /// New host; `None` keeps the request's.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// New port; `None`: the scheme's well-known port if a scheme is set, else the listener's.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// A rewrite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rewrite {
    /// New `Host`.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathRewrite>,
}

/// Where copies of requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// A pool of this plan.
    pub pool: PoolKey,
    /// Share of requests that are copied, from 0 to 1.
    pub share: f64,
}

/// How a path is changed.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// The whole path becomes this.
    Full(String),
    /// The matched prefix becomes this.
    Prefix(String),
}

/// One weighted destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Share of traffic, relative to the rule's sum; 0 gets none.
    pub weight: u32,
    /// Where to.
    pub target: Target,
    /// Filters of this backend only.
    pub filters: Vec<Filter>,
}

/// Where a backend leads.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A pool of this plan.
    Pool(PoolKey),
    /// The pool that knows the request's model; the first one when none does. Used where no Gateway is described.
    ByModel(Arc<[PoolKey]>),
    /// The reference does not resolve: 500 with this reason.
    Invalid(String),
}

/// Limits of a route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutePolicy {
    /// `timeouts.request`: the whole exchange; `None`: no total limit.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest`: one attempt until its answer's head.
    pub backend_timeout: Option<Duration>,
    /// `retry`, which replaces the defaults.
    pub retry: Option<Retry>,
    /// `sessionPersistence`.
    pub session: Option<SessionPersistence>,
    /// Largest request body in bytes (annotation `pointsman.dev/max-body-bytes` on the route); `None`: the default.
    pub max_body: Option<u64>,
}

/// `HTTPRoute.rules[].retry`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Status codes worth another attempt.
    pub codes: Vec<StatusCode>,
    /// Attempts after the first.
    pub attempts: u32,
    /// Least wait between attempts.
    pub backoff: Duration,
}

/// `sessionPersistence` (GEP-1619).
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPersistence {
    /// Cookie or header.
    pub kind: SessionKind,
    /// Name of the cookie or header.
    pub name: String,
    /// `absoluteTimeout`; `None` for cookies that end with the browser's session.
    pub absolute_timeout: Option<Duration>,
    /// `idleTimeout`.
    pub idle_timeout: Option<Duration>,
    /// `cookieConfig.lifetimeType: Permanent`: the cookie carries Max-Age.
    pub permanent: bool,
}

/// How a session is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// In a cookie we set.
    Cookie,
    /// In a header we set on the answer and the client repeats.
    Header,
}

/// The name of a pool in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// What it is.
    pub kind: PoolKind,
    /// Namespace.
    pub namespace: String,
    /// Name; for a Service `name:port`.
    pub name: String,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds of pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    /// InferencePool `inference.networking.k8s.io/v1`.
    Inference,
    /// InferencePool `inference.networking.x-k8s.io/v1alpha2`.
    InferenceAlpha,
    /// A port of a Service: requests go by load only, nothing is scraped.
    Service,
    /// Base URLs of the command line.
    Urls,
}

/// A pool: its servers and how to treat them.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Name.
    pub key: PoolKey,
    /// Servers, sorted, without doubles.
    pub endpoints: Vec<EndpointSpec>,
    /// What the servers speak.
    pub protocol: AppProtocol,
    /// TLS towards the servers.
    pub tls: Option<UpstreamTls>,
    /// Who picks.
    pub picker: Picker,
    /// Model names, targets, priorities of this pool.
    pub models: Arc<ModelTable>,
}

/// What servers of a pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// Who picks endpoints of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picker {
    /// The picker in this process.
    Inside,
    /// An endpoint picker over ext_proc.
    External {
        /// `namespace/name` of its Service.
        service: String,
        /// Port of the Service.
        port: u16,
        /// `failureMode: FailOpen`.
        fail_open: bool,
        /// Addresses of the picker; empty when the Service does not exist or has none: a lost picker.
        endpoints: Vec<EndpointSpec>,
        /// How to speak to it. It is always HTTP/2.
        tls: PickerTls,
    },
}

/// TLS towards an endpoint picker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PickerTls {
    /// Cleartext: the Service's port has `appProtocol: kubernetes.io/h2c`.
    Plaintext,
    /// TLS, and any certificate will do: pickers make their own at every start.
    Unverified,
    /// TLS as a BackendTLSPolicy says.
    Verified(UpstreamTls),
}

/// One server: an address and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointSpec {
    /// Where.
    pub host: Host,
    /// Port.
    pub port: u16,
    /// Pod name where known, else `host:port`; a label of metrics.
    pub name: String,
    /// `false`: known, but not to be chosen (not ready, or terminating): running streams go on.
    pub ready: bool,
    /// URL mode: path prefix put before each request's path, without trailing slash.
    pub base_path: Option<String>,
    /// Labels of the Pod where known, else of the EndpointSlice that names it.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// The host part of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, resolved again and again; each address it gives is a server of its own.
    Dns(String),
}

/// TLS towards servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// Name for SNI and verification; `None`: the host of the URL.
    pub server_name: Option<String>,
    /// What to verify against.
    pub verify: Verify,
    /// Names of which a certificate must have one, in place of `server_name`; empty: that one counts.
    pub alt_names: Vec<AltName>,
    /// What is shown to servers that ask who we are.
    pub client: Option<Certificate>,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AltName {
    /// A DNS name.
    Dns(String),
    /// A URI, for instance a SPIFFE identity.
    Uri(String),
}

/// What a server's certificate is verified against.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verify {
    /// The system's roots.
    #[default]
    System,
    /// These PEM roots.
    Roots(Arc<[u8]>),
}
