//! Which listeners of our Gateways can serve.
//!
//! A listener serves if its protocol is HTTP, HTTPS or TLS, it is in no conflict, it takes some kind of route, and where
//! TLS ends here it has at least one readable certificate. Of listeners of one Gateway that are in conflict none serves (Gateway API,
//! `GatewaySpec.listeners`: no winner may be picked). A listener of a ListenerSet yields to all before it. Gateways in files share one address; there the listener of the
//! older Gateway goes on serving and only the younger is in conflict.

use std::collections::{BTreeMap, BTreeSet};

use api::gateway::ListenerProtocol;
use api::{GATEWAY_GROUP, ObjectKey, Objects, TlsMode};

use super::Mode;
use super::assemble::RankedRule;
use super::backends::Referrer;
use super::certificates;
use super::claim::Claim;
use super::conditions::Problem;
use super::frontend::{self, Clients};
use super::grants::Grants;
use super::sets::AttachedSet;
use crate::plan::{Certificate, Hostname, ListenerMode};
use crate::status::RouteKind;

/// The kinds of routes that HTTP and HTTPS listeners take.
const HTTP_KINDS: [&str; 2] = ["HTTPRoute", "GRPCRoute"];
/// The kinds of routes that TLS listeners take.
const TLS_KINDS: [&str; 1] = ["TLSRoute"];

/// A listener on its way into the plan.
pub(super) struct OpenListener<'o> {
    /// Index of its Gateway among the claims.
    pub(super) claim: usize,
    /// Index of its ListenerSet; `None`: the Gateway's own.
    pub(super) set: Option<usize>,
    /// Namespace and name of the Gateway or ListenerSet that describes it.
    pub(super) home: (&'o str, &'o str),
    pub(super) spec: &'o api::Listener,
    pub(super) hostname: Option<Hostname>,
    pub(super) kinds: Vec<RouteKind>,
    pub(super) kinds_problem: Option<Problem>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) certificate_problem: Option<Problem>,
    pub(super) clients: Clients,
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
        let (unsupported, conflict) = (self.unsupported.as_ref(), self.conflict.as_ref());
        let refused = self.clients.refused.as_ref();
        match self.set {
            Some(_) => conflict.or(unsupported),
            None => unsupported.or(conflict),
        }
        .or(refused)
    }

    pub(super) fn tls(&self) -> bool {
        matches!(
            self.spec.protocol,
            ListenerProtocol::Https | ListenerProtocol::Tls
        )
    }

    pub(super) fn mode(&self) -> ListenerMode {
        match (&self.spec.protocol, ends_here(self.spec)) {
            (ListenerProtocol::Tls, true) => ListenerMode::TlsTerminate,
            (ListenerProtocol::Tls, false) => ListenerMode::TlsPassthrough,
            _ => ListenerMode::Http,
        }
    }

    /// Whether it gets into the plan.
    pub(super) fn serves(&self) -> bool {
        let certified = !ends_here(self.spec) || !self.certificates.is_empty();
        self.gateway_accepted && self.refusal().is_none() && certified && !self.kinds.is_empty()
    }
}

/// Whether a listener speaks TLS and is its end.
fn ends_here(spec: &api::Listener) -> bool {
    let passes = spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.mode == TlsMode::Passthrough);
    match spec.protocol {
        ListenerProtocol::Https => true,
        ListenerProtocol::Tls => !passes,
        _ => false,
    }
}

/// All listeners of our Gateways, in the order of the claims: a Gateway's own as written, then those of its sets.
pub(super) fn open<'o>(
    objects: &Objects,
    grants: &Grants<'_>,
    (claims, sets): (&[Claim<'o>], &[AttachedSet<'o>]),
    mode: Mode,
) -> Vec<OpenListener<'o>> {
    let mut listeners = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let start = listeners.len();
        let meta = &claim.gateway.meta;
        let home = Home {
            kind: "Gateway",
            namespace: &meta.namespace,
            name: &meta.name,
            claim: index,
            set: None,
        };
        let own = claim.gateway.spec.listeners.iter();
        listeners.extend(own.map(|spec| one(objects, grants, claim, home, spec)));
        mark_conflicts(&mut listeners[start..]);
        let sets = sets.iter().enumerate();
        for (number, attached) in sets.filter(|(_, set)| set.claim == index) {
            if attached.refused.is_some() {
                continue;
            }
            let home = Home {
                kind: "ListenerSet",
                namespace: &attached.set.meta.namespace,
                name: &attached.set.meta.name,
                claim: index,
                set: Some(number),
            };
            let all = attached.set.spec.listeners.iter();
            listeners.extend(all.map(|spec| one(objects, grants, claim, home, spec)));
        }
        mark_conflicts_of_sets(&mut listeners[start..]);
    }
    if mode == Mode::Files {
        mark_conflicts_between_gateways(&mut listeners);
    }
    listeners
}

/// What describes a listener.
#[derive(Clone, Copy)]
struct Home<'o> {
    kind: &'static str,
    namespace: &'o str,
    name: &'o str,
    claim: usize,
    set: Option<usize>,
}

fn one<'o>(
    objects: &Objects,
    grants: &Grants<'_>,
    claim: &Claim<'o>,
    home: Home<'o>,
    spec: &'o api::Listener,
) -> OpenListener<'o> {
    let (kinds, kinds_problem) = supported_kinds(spec);
    let from = Referrer {
        kind: home.kind,
        namespace: home.namespace,
    };
    let (certificates, certificate_problem) = certificates(objects, grants, from, spec);
    OpenListener {
        claim: home.claim,
        set: home.set,
        home: (home.namespace, home.name),
        clients: frontend::clients(objects, grants, claim.gateway, spec),
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
        unsupported: unsupported(spec),
        conflict: None,
        gateway_accepted: claim.problem.is_none(),
        attached: BTreeSet::new(),
        rules: Vec::new(),
    }
}

fn unsupported(spec: &api::Listener) -> Option<Problem> {
    let mode = spec.tls.as_ref().map(|tls| &tls.mode);
    match (&spec.protocol, mode) {
        (ListenerProtocol::Https, Some(mode)) if *mode != TlsMode::Terminate => Some(Problem::new(
            "UnsupportedProtocol",
            "TLS of an HTTPS listener must end here (mode Terminate)",
        )),
        (ListenerProtocol::Tls, Some(TlsMode::Unknown(other))) => Some(Problem::new(
            "UnsupportedValue",
            format!("TLS mode {other} is not supported"),
        )),
        (ListenerProtocol::Http | ListenerProtocol::Https | ListenerProtocol::Tls, _) => None,
        (other, _) => Some(Problem::new(
            "UnsupportedProtocol",
            format!("protocol {other} is not supported, only HTTP, HTTPS and TLS are"),
        )),
    }
}

fn supported_kinds(spec: &api::Listener) -> (Vec<RouteKind>, Option<Problem>) {
    let known: &[&'static str] = match spec.protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => &HTTP_KINDS,
        ListenerProtocol::Tls => &TLS_KINDS,
        _ => &[],
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
    from: Referrer<'_>,
    spec: &api::Listener,
) -> (Vec<Certificate>, Option<Problem>) {
    if !ends_here(spec) {
        return (Vec::new(), None);
    }
    let references = spec
        .tls
        .as_ref()
        .map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        let message = "a listener at which TLS ends needs tls.certificateRefs";
        return (
            Vec::new(),
            Some(Problem::new("InvalidCertificateRef", message)),
        );
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for reference in references {
        match certificates::resolve(objects, grants, from, reference) {
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

/// Listeners of one family and port are told apart by their hostnames.
fn family(protocol: &ListenerProtocol) -> String {
    transport(protocol).map_or_else(|| protocol.to_string(), str::to_owned)
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
                family(&listener.spec.protocol),
                listener.hostname.clone(),
            ))
            .or_default() += 1;
    }
    for listener in listeners {
        let port = listener.spec.port;
        let identity = (
            port,
            family(&listener.spec.protocol),
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

/// Of two listeners of which one belongs to a ListenerSet, the later yields.
fn mark_conflicts_of_sets(listeners: &mut [OpenListener<'_>]) {
    let mut transports: BTreeMap<u16, &str> = BTreeMap::new();
    let mut names: BTreeSet<(u16, Option<Hostname>)> = BTreeSet::new();
    for listener in listeners {
        let Some(transport) = transport(&listener.spec.protocol) else {
            continue;
        };
        let port = listener.spec.port;
        let name = (port, listener.hostname.clone());
        if listener.set.is_some() {
            let taken = transports
                .get(&port)
                .is_some_and(|known| *known != transport);
            if taken {
                let message = format!("port {port} speaks another protocol already");
                listener.conflict = Some(Problem::new("ProtocolConflict", message));
            } else if names.contains(&name) {
                let message = format!("port {port} has a listener of the same hostname already");
                listener.conflict = Some(Problem::new("HostnameConflict", message));
            }
        }
        if listener.conflict.is_none() && listener.unsupported.is_none() {
            transports.entry(port).or_insert(transport);
            names.insert(name);
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
