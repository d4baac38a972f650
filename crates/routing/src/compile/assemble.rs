//! The plan: rules in order of precedence, listeners by port.
//!
//! Precedence (Gateway API, `HTTPRouteRule.matches` and `HTTPRouteSpec.hostnames`), each criterion deciding where those
//! before it tie:
//!
//! 1. hostname: exact before wildcard, longer before shorter, any host last;
//! 2. path: exact; then the longest prefix; then regular expressions, whose place the API leaves open: they stand
//!    before the prefix `/` only, for behind a rule that matches everything they would be dead;
//! 3. a condition on the method;
//! 4. the number of header conditions;
//! 5. the number of query conditions;
//! 6. the oldest route, then by namespace and name, then by kind;
//! 7. the order of rules and matches in the route.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Meta, Objects, Resource};

use super::backends::Resolver;
use super::claim::Claim;
use super::listeners::OpenListener;
use super::{GatewayPlan, Outcome};
use crate::hostname::by_specificity;
use crate::plan::{
    Backend, Certificate, Filter, Hostname, Listener, Match, PathMatch, Plan, PoolKey, PoolSpec,
    PortPlan, Rule, Target, UpstreamTls,
};
use crate::urls;

/// Sort key for "the oldest wins": the creation time, then namespace and name. What has no time is the youngest.
pub(super) fn age(meta: &Meta) -> (i128, String, String) {
    let created = match meta.creation_timestamp {
        Some(time) => time.as_nanosecond(),
        None => i128::MAX,
    };
    (created, meta.namespace.clone(), meta.name.clone())
}

type HostRank = (u8, Reverse<usize>, Option<Hostname>);
type PathRank = (u8, Reverse<usize>);

/// A rule and its place among all rules of a listener.
#[derive(Clone)]
pub(super) struct RankedRule {
    rank: Rank,
    rule: Arc<Rule>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    host: HostRank,
    path: PathRank,
    any_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: (i128, String, String),
    route: String,
    position: (usize, usize),
}

impl RankedRule {
    /// `position`: the rule's index in its route and the match's index in the rule.
    pub(super) fn new(meta: &Meta, position: (usize, usize), rule: Arc<Rule>) -> Self {
        let rank = Rank {
            host: host_rank(rule.hostnames.first()),
            path: path_rank(&rule.matches),
            any_method: rule.matches.method.is_none(),
            headers: Reverse(rule.matches.headers.len()),
            query: Reverse(rule.matches.query.len()),
            age: age(meta),
            route: rule.route.clone(),
            position,
        };
        Self { rank, rule }
    }
}

fn host_rank(hostname: Option<&Hostname>) -> HostRank {
    match hostname {
        Some(Hostname::Exact(name)) => (0, Reverse(name.len()), hostname.cloned()),
        Some(Hostname::Wildcard(suffix)) => (1, Reverse(suffix.len()), hostname.cloned()),
        None => (2, Reverse(0), None),
    }
}

fn path_rank(wanted: &Match) -> PathRank {
    match &wanted.path {
        PathMatch::Exact(_) => (0, Reverse(0)),
        PathMatch::Prefix(prefix) if !prefix.is_empty() => (1, Reverse(prefix.len())),
        PathMatch::Regex(regex) => (2, Reverse(regex.as_str().len())),
        PathMatch::Prefix(_) => (3, Reverse(0)),
    }
}

/// Puts the listeners into the plan of each Gateway and into the plan of all.
pub(super) fn plans(
    claims: &[Claim<'_>],
    listeners: Vec<OpenListener<'_>>,
    pools: &BTreeMap<PoolKey, Arc<PoolSpec>>,
    out: &mut Outcome,
) {
    let mut own: Vec<Plan> = claims.iter().map(|_| Plan::default()).collect();
    let mut pools = pools.clone();
    for open in listeners.into_iter().filter(OpenListener::serves) {
        let (port, tls, claim) = (open.spec.port, open.tls(), open.claim);
        let listener = listener(&claims[claim], open, &mut pools);
        add(&mut own[claim], port, tls, listener.clone());
        add(&mut out.plan, port, tls, listener);
    }
    finish(&mut out.plan, &pools);
    for (claim, mut plan) in claims.iter().zip(own) {
        finish(&mut plan, &pools);
        out.gateways.push(GatewayPlan {
            gateway: claim.gateway.key(),
            plan,
        });
    }
}

fn listener(
    claim: &Claim<'_>,
    mut open: OpenListener<'_>,
    pools: &mut BTreeMap<PoolKey, Arc<PoolSpec>>,
) -> Listener {
    open.rules.sort_by(|a, b| a.rank.cmp(&b.rank));
    let (namespace, name) = open.home;
    let mut rules: Vec<_> = open
        .rules
        .iter()
        .map(|ranked| Arc::clone(&ranked.rule))
        .collect();
    if let Some(Ok(certificate)) = &claim.identity {
        let meta = &claim.gateway.meta;
        let identity = Identity {
            gateway: format!("{}/{}", meta.namespace, meta.name),
            certificate,
            pools,
        };
        identity.introduce(&mut rules);
    }
    Listener {
        name: format!("{namespace}/{name}/{}", open.spec.name),
        mode: open.mode(),
        hostname: open.hostname,
        certificates: open.certificates,
        clients: open.clients.auth,
        trusted: claim.trusted,
        rules,
    }
}

/// The certificate by which a Gateway is known to servers. Connections under different certificates must not be mixed, so
/// a pool that is reached over TLS is a pool of its own for each Gateway that has one.
struct Identity<'i> {
    gateway: String,
    certificate: &'i Certificate,
    pools: &'i mut BTreeMap<PoolKey, Arc<PoolSpec>>,
}

impl Identity<'_> {
    fn introduce(mut self, rules: &mut [Arc<Rule>]) {
        for rule in rules {
            let rule = Arc::make_mut(rule);
            self.filters(&mut rule.filters);
            for backend in &mut rule.backends {
                self.filters(&mut backend.filters);
                if let Target::Pool(key) = &mut backend.target {
                    self.own(key);
                }
            }
        }
    }

    fn filters(&mut self, filters: &mut [Filter]) {
        for filter in filters {
            if let Filter::Mirror(mirror) = filter {
                self.own(&mut mirror.pool);
            }
        }
    }

    fn own(&mut self, key: &mut PoolKey) {
        let Some(pool) = self.pools.get(key) else {
            return;
        };
        let Some(tls) = &pool.tls else { return };
        let tls = UpstreamTls {
            client: Some(self.certificate.clone()),
            ..tls.clone()
        };
        key.name = format!("{}~{}", key.name, self.gateway);
        let own = PoolSpec {
            key: key.clone(),
            tls: Some(tls),
            ..PoolSpec::clone(pool)
        };
        self.pools.insert(key.clone(), Arc::new(own));
    }
}

/// Adds a listener where the port and hostname are free; whoever came first stays.
fn add(plan: &mut Plan, port: u16, tls: bool, listener: Listener) {
    let open = plan.ports.entry(port).or_insert(PortPlan {
        port,
        tls,
        listeners: Vec::new(),
    });
    if open.tls == tls
        && open
            .listeners
            .iter()
            .all(|known| known.hostname != listener.hostname)
    {
        open.listeners.push(listener);
    }
}

/// Puts listeners in order and fills in the pools that rules reach.
fn finish(plan: &mut Plan, pools: &BTreeMap<PoolKey, Arc<PoolSpec>>) {
    let mut reached = BTreeMap::new();
    for port in plan.ports.values_mut() {
        port.listeners
            .sort_by(|a, b| by_specificity(a.hostname.as_ref(), b.hostname.as_ref()));
        let rules = port.listeners.iter().flat_map(|listener| &listener.rules);
        for key in rules.flat_map(|rule| reaches(rule)) {
            if let Some(pool) = pools.get(key) {
                reached
                    .entry(key.clone())
                    .or_insert_with(|| Arc::clone(pool));
            }
        }
    }
    plan.pools = reached;
}

/// Every pool that a rule sends requests or copies of them to.
fn reaches(rule: &Rule) -> impl Iterator<Item = &PoolKey> {
    let backends = &rule.backends;
    let filters = rule
        .filters
        .iter()
        .chain(backends.iter().flat_map(|backend| &backend.filters));
    let mirrors = filters.filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(&mirror.pool),
        _ => None,
    });
    backends
        .iter()
        .flat_map(|backend| keys(&backend.target))
        .chain(mirrors)
}

fn keys(target: &Target) -> &[PoolKey] {
    match target {
        Target::Pool(key) => std::slice::from_ref(key),
        Target::ByModel(keys) => keys,
        Target::Invalid(_) => &[],
    }
}

/// Where files describe pools and no Gateway: one plain port for every host that chooses among all pools by model name.
pub(super) fn stand_in(
    objects: &Objects,
    port: u16,
    resolver: &mut Resolver<'_>,
    out: &mut Outcome,
) {
    let keys: Vec<_> = objects
        .inference_pools()
        .map(|pool| resolver.inference_pool(pool))
        .collect();
    if keys.is_empty() {
        return;
    }
    for key in &keys {
        resolver.used(key, None, None);
    }
    out.note(
        "Gateway",
        format!("none is described: all pools are served on port {port} by model name"),
    );
    let open: Vec<_> = keys
        .iter()
        .filter(|key| resolver.closed(key).is_none())
        .cloned()
        .collect();
    let target = match keys.iter().find_map(|key| resolver.closed(key)) {
        Some(problem) if open.is_empty() => Target::Invalid(problem.message.clone()),
        _ => Target::ByModel(Arc::from(open)),
    };
    let rule = urls::catch_all(
        "InferencePools",
        vec![Backend {
            weight: 1,
            target,
            filters: Vec::new(),
        }],
    );
    out.plan
        .ports
        .insert(port, urls::open_port(port, "pools", rule));
}
