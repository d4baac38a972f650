//! Which listeners of our Gateways can serve.
//!
//! A listener serves if its protocol is HTTP or HTTPS, it is in no conflict, it takes some kind of route, and (HTTPS)
//! has at least one readable certificate. Of listeners of one Gateway that are in conflict none serves (Gateway API,
//! `GatewaySpec.listeners`: no winner may be picked). Gateways in files share one address; there the listener of the
//! older Gateway goes on serving and only the younger is in conflict.

use std::collections::{BTreeMap, BTreeSet};

use api::gateway::ListenerProtocol;
use api::{GATEWAY_GROUP, ObjectKey, Objects, TlsMode};

use super::Mode;
use super::assemble::RankedRule;
use super::certificates;
use super::claim::Claim;
use super::conditions::Problem;
use super::grants::Grants;
use crate::plan::{Certificate, Hostname};
use crate::status::RouteKind;

/// The kinds of routes that HTTP and HTTPS listeners take.
pub(super) const ROUTE_KINDS: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

/// A listener on its way into the plan.
pub(super) struct OpenListener<'o> {
    /// Index of its Gateway among the claims.
    pub(super) claim: usize,
    pub(super) spec: &'o api::Listener,
    pub(super) hostname: Option<Hostname>,
    pub(super) kinds: Vec<RouteKind>,
    pub(super) kinds_problem: Option<Problem>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) certificate_problem: Option<Problem>,
    /// What it asks for that we do not do.
    pub(super) unsupported: Option<Problem>,
    pub(super) conflict: Option<Problem>,
    /// Whether its Gateway is accepted.
    gateway_accepted: bool,
    /// Routes that are attached.
    pub(super) attached: BTreeSet<ObjectKey>,
    pub(super) rules: Vec<RankedRule>,
}

impl OpenListener<'_> {
    /// Why the listener is not accepted.
    pub(super) fn refusal(&self) -> Option<&Problem> {
        self.unsupported.as_ref().or(self.conflict.as_ref())
    }

    pub(super) fn tls(&self) -> bool {
        self.spec.protocol == ListenerProtocol::Https
    }

    /// Whether it gets into the plan.
    pub(super) fn serves(&self) -> bool {
        let certified = !self.tls() || !self.certificates.is_empty();
        self.gateway_accepted && self.refusal().is_none() && certified && !self.kinds.is_empty()
    }
}

/// All listeners of our Gateways, in the order of the claims and as written.
pub(super) fn open<'o>(
    objects: &Objects,
    grants: &Grants<'_>,
    claims: &[Claim<'o>],
    mode: Mode,
) -> Vec<OpenListener<'o>> {
    let mut listeners = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let start = listeners.len();
        listeners.extend(
            claim
                .gateway
                .spec
                .listeners
                .iter()
                .map(|spec| one(objects, grants, claim, index, spec)),
        );
        mark_conflicts(&mut listeners[start..]);
    }
    if mode == Mode::Files {
        mark_conflicts_between_gateways(&mut listeners);
    }
    listeners
}

fn one<'o>(
    objects: &Objects,
    grants: &Grants<'_>,
    claim: &Claim<'o>,
    index: usize,
    spec: &'o api::Listener,
) -> OpenListener<'o> {
    let (kinds, kinds_problem) = supported_kinds(spec);
    let (certificates, certificate_problem) =
        certificates(objects, grants, &claim.gateway.meta.namespace, spec);
    OpenListener {
        claim: index,
        spec,
        hostname: spec
            .hostname
            .as_deref()
            .filter(|name| !name.is_empty())
            .map(Hostname::parse),
        kinds,
        kinds_problem,
        certificates,
        certificate_problem,
        unsupported: unsupported(claim, spec),
        conflict: None,
        gateway_accepted: claim.problem.is_none(),
        attached: BTreeSet::new(),
        rules: Vec::new(),
    }
}

fn is_http(protocol: &ListenerProtocol) -> bool {
    matches!(protocol, ListenerProtocol::Http | ListenerProtocol::Https)
}

fn unsupported(claim: &Claim<'_>, spec: &api::Listener) -> Option<Problem> {
    if !is_http(&spec.protocol) {
        let message = format!(
            "protocol {} is not supported, only HTTP and HTTPS are",
            spec.protocol
        );
        return Some(Problem::new("UnsupportedProtocol", message));
    }
    if spec.protocol == ListenerProtocol::Http {
        return None;
    }
    if spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.mode != TlsMode::Terminate)
    {
        return Some(Problem::new(
            "UnsupportedProtocol",
            "TLS of an HTTPS listener must end here (mode Terminate)",
        ));
    }
    // To ignore this would let in clients that were meant to be kept out.
    let frontend = claim.gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let for_port = frontend.per_port.iter().find(|port| port.port == spec.port);
    let config = for_port.map_or(&frontend.default_config, |port| &port.tls);
    config.validation.as_ref()?;
    Some(Problem::new(
        "UnsupportedValue",
        "validation of clients' certificates (spec.tls.frontend) is not supported",
    ))
}

fn supported_kinds(spec: &api::Listener) -> (Vec<RouteKind>, Option<Problem>) {
    let known: &[&'static str] = if is_http(&spec.protocol) {
        &ROUTE_KINDS
    } else {
        &[]
    };
    let route_kind = |kind| RouteKind {
        group: GATEWAY_GROUP,
        kind,
    };
    let asked = &spec.allowed_routes.kinds;
    if asked.is_empty() {
        return (known.iter().copied().map(route_kind).collect(), None);
    }
    let mut kinds = Vec::new();
    let mut unknown = Vec::new();
    for asked in asked {
        match known
            .iter()
            .find(|kind| asked.group == GATEWAY_GROUP && **kind == asked.kind)
        {
            Some(kind) if kinds.contains(&route_kind(kind)) => {}
            Some(kind) => kinds.push(route_kind(kind)),
            None => unknown.push(format!("{}/{}", asked.group, asked.kind)),
        }
    }
    let message = format!(
        "routes of kind {} cannot attach to this listener",
        unknown.join(", ")
    );
    let problem = (!unknown.is_empty()).then(|| Problem::new("InvalidRouteKinds", message));
    (kinds, problem)
}

fn certificates(
    objects: &Objects,
    grants: &Grants<'_>,
    namespace: &str,
    spec: &api::Listener,
) -> (Vec<Certificate>, Option<Problem>) {
    if spec.protocol != ListenerProtocol::Https {
        return (Vec::new(), None);
    }
    let references = spec
        .tls
        .as_ref()
        .map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        let message = "an HTTPS listener needs tls.certificateRefs";
        return (
            Vec::new(),
            Some(Problem::new("InvalidCertificateRef", message)),
        );
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for reference in references {
        match certificates::resolve(objects, grants, namespace, reference) {
            Ok(certificate) => good.push(certificate),
            Err(problem) => bad.push(problem),
        }
    }
    (good, Problem::join(&bad))
}

/// What listeners of one port have to agree on; UDP is apart and what we do not know has no say.
fn transport(protocol: &ListenerProtocol) -> Option<&'static str> {
    match protocol {
        ListenerProtocol::Http => Some("HTTP"),
        ListenerProtocol::Https | ListenerProtocol::Tls => Some("TLS"),
        ListenerProtocol::Tcp => Some("TCP"),
        ListenerProtocol::Udp | ListenerProtocol::Unknown(_) => None,
    }
}

fn mark_conflicts(listeners: &mut [OpenListener<'_>]) {
    let mut transports: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    let mut names: BTreeMap<_, usize> = BTreeMap::new();
    for listener in listeners.iter() {
        transports
            .entry(listener.spec.port)
            .or_default()
            .extend(transport(&listener.spec.protocol));
        *names
            .entry((
                listener.spec.port,
                listener.spec.protocol.clone(),
                listener.hostname.clone(),
            ))
            .or_default() += 1;
    }
    for listener in listeners {
        let port = listener.spec.port;
        let identity = (
            port,
            listener.spec.protocol.clone(),
            listener.hostname.clone(),
        );
        if transport(&listener.spec.protocol).is_some() && transports[&port].len() > 1 {
            let message = format!("listeners of port {port} speak different protocols");
            listener.conflict = Some(Problem::new("ProtocolConflict", message));
        } else if names[&identity] > 1 {
            let message = format!("several listeners of port {port} have the same hostname");
            listener.conflict = Some(Problem::new("HostnameConflict", message));
        }
    }
}

fn mark_conflicts_between_gateways(listeners: &mut [OpenListener<'_>]) {
    let mut ports: BTreeMap<u16, (bool, usize)> = BTreeMap::new();
    let mut names: BTreeMap<(u16, Option<Hostname>), usize> = BTreeMap::new();
    for listener in listeners {
        if !listener.serves() {
            continue;
        }
        let (port, tls) = (listener.spec.port, listener.tls());
        let (first_tls, _) = *ports.entry(port).or_insert((tls, listener.claim));
        if first_tls != tls {
            let message = format!("another Gateway uses port {port} for another protocol");
            listener.conflict = Some(Problem::new("ProtocolConflict", message));
            continue;
        }
        let owner = *names
            .entry((port, listener.hostname.clone()))
            .or_insert(listener.claim);
        if owner != listener.claim {
            let message = format!("another Gateway has the same hostname on port {port}");
            listener.conflict = Some(Problem::new("HostnameConflict", message));
        }
    }
}
