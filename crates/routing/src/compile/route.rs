//! Routes: HTTPRoute, GRPCRoute and TLSRoute seen as one, and their rules compiled.
//!
//! A broken part costs as little as possible: a match that cannot be compiled is left out, a filter that we do not
//! implement makes its rule answer 500, a reference that does not resolve makes its backend answer 500. The route is
//! `Accepted: False` only when none of its rules can work; when some can, it says `PartiallyInvalid`.

use std::collections::BTreeSet;
use std::time::Duration;

use api::http_route::{HttpRetry, HttpTimeouts};
use api::route::{CookieLifetime, SessionPersistence as WantedSession, SessionType};
use api::{
    BackendObjectRef, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, HttpFilter, HttpRoute,
    HttpRouteRule, Meta, ObjectKey, Objects, ParentRef, Resource, TlsRoute, TlsRouteRule,
};
use http::StatusCode;

use super::Outcome;
use super::backends::{Referrer, Resolver};
use super::conditions::Problem;
use super::{filters, matches};
use crate::plan::{
    Backend, Filter, Hostname, Match, PathMatch, PoolKey, Retry, RoutePolicy, Rule, SessionKind,
    SessionPersistence, Target,
};

/// Attempts after the first where a `retry` does not say how many.
const DEFAULT_RETRY_ATTEMPTS: u32 = 2;

/// Names under which a session travels where the route does not give one.
const DEFAULT_SESSION_COOKIE: &str = "pointsman-session";
const DEFAULT_SESSION_HEADER: &str = "x-pointsman-session";

/// A route of any kind.
pub(super) struct RouteView<'o> {
    pub(super) key: ObjectKey,
    pub(super) kind: &'static str,
    pub(super) meta: &'o Meta,
    pub(super) parents: &'o [ParentRef],
    pub(super) hostnames: Vec<Hostname>,
    rules: Vec<RuleView>,
}

struct RuleView {
    name: Option<String>,
    matches: Vec<Result<Match, Problem>>,
    filters: Vec<HttpFilter>,
    backends: Vec<BackendView>,
    policy: RoutePolicy,
    session: Option<WantedSession>,
}

struct BackendView {
    reference: BackendObjectRef,
    weight: u32,
    filters: Vec<HttpFilter>,
}

/// A route after compilation, independent of its parents.
#[derive(Default)]
pub(super) struct CompiledRoute {
    /// Index, matches, and the rule without matches and hostnames.
    pub(super) rules: Vec<(usize, Vec<Match>, Rule)>,
    /// Why no rule can work.
    pub(super) refused: Option<Problem>,
    /// Why some part cannot.
    pub(super) partial: Option<Problem>,
    /// Which references do not resolve.
    pub(super) unresolved: Option<Problem>,
    /// Pools that are referred to.
    pub(super) pools: BTreeSet<PoolKey>,
}

/// All routes.
pub(super) fn views(objects: &Objects) -> Vec<RouteView<'_>> {
    let http = objects.http_routes().map(|route| http_view(route));
    http.chain(objects.grpc_routes().map(|route| grpc_view(route)))
        .chain(objects.tls_routes().map(|route| tls_view(route)))
        .collect()
}

fn http_view(route: &HttpRoute) -> RouteView<'_> {
    RouteView {
        key: route.key(),
        kind: "HTTPRoute",
        meta: &route.meta,
        parents: &route.spec.parent_refs,
        hostnames: route
            .spec
            .hostnames
            .iter()
            .map(|name| Hostname::parse(name))
            .collect(),
        rules: route.spec.rules.iter().map(http_rule).collect(),
    }
}

fn http_rule(rule: &HttpRouteRule) -> RuleView {
    let backends = rule.backend_refs.iter().map(|backend| BackendView {
        reference: backend.object(),
        weight: backend.weight,
        filters: backend.filters.clone(),
    });
    let timeouts = rule.timeouts.clone().unwrap_or_default();
    RuleView {
        name: rule.name.clone(),
        matches: rule.matches.iter().map(matches::http).collect(),
        filters: rule.filters.clone(),
        backends: backends.collect(),
        policy: policy(&timeouts, rule.retry.as_ref()),
        session: rule.session_persistence.clone(),
    }
}

fn grpc_view(route: &GrpcRoute) -> RouteView<'_> {
    RouteView {
        key: route.key(),
        kind: "GRPCRoute",
        meta: &route.meta,
        parents: &route.spec.parent_refs,
        hostnames: route
            .spec
            .hostnames
            .iter()
            .map(|name| Hostname::parse(name))
            .collect(),
        rules: route.spec.rules.iter().map(grpc_rule).collect(),
    }
}

fn grpc_rule(rule: &GrpcRouteRule) -> RuleView {
    let backends = rule.backend_refs.iter().map(|backend| BackendView {
        reference: backend.object(),
        weight: backend.weight,
        filters: backend.filters.iter().map(filters::of_grpc).collect(),
    });
    let every_call = [GrpcRouteMatch::default()];
    let wanted = if rule.matches.is_empty() {
        &every_call[..]
    } else {
        &rule.matches
    };
    RuleView {
        name: rule.name.clone(),
        matches: wanted.iter().map(matches::grpc).collect(),
        filters: rule.filters.iter().map(filters::of_grpc).collect(),
        backends: backends.collect(),
        policy: RoutePolicy::default(),
        session: rule.session_persistence.clone(),
    }
}

fn tls_view(route: &TlsRoute) -> RouteView<'_> {
    RouteView {
        key: route.key(),
        kind: "TLSRoute",
        meta: &route.meta,
        parents: &route.spec.parent_refs,
        hostnames: route
            .spec
            .hostnames
            .iter()
            .map(|name| Hostname::parse(name))
            .collect(),
        rules: route.spec.rules.iter().map(tls_rule).collect(),
    }
}

/// A session has nothing but its name, which is the route's.
fn tls_rule(rule: &TlsRouteRule) -> RuleView {
    let backends = rule.backend_refs.iter().map(|backend| BackendView {
        reference: backend.object(),
        weight: backend.weight,
        filters: Vec::new(),
    });
    RuleView {
        name: rule.name.clone(),
        matches: vec![Ok(Match::any())],
        filters: Vec::new(),
        backends: backends.collect(),
        policy: RoutePolicy::default(),
        session: None,
    }
}

fn policy(timeouts: &HttpTimeouts, retry: Option<&HttpRetry>) -> RoutePolicy {
    // `0s` switches a timeout off.
    let limit =
        |timeout: Option<api::Duration>| timeout.filter(|t| !t.is_zero()).map(api::Duration::get);
    RoutePolicy {
        request_timeout: limit(timeouts.request),
        backend_timeout: limit(timeouts.backend_request),
        retry: retry.map(|retry| Retry {
            codes: retry
                .codes
                .iter()
                .filter_map(|code| StatusCode::from_u16(*code).ok())
                .collect(),
            attempts: retry.attempts.unwrap_or(DEFAULT_RETRY_ATTEMPTS),
            backoff: retry.backoff.map_or(Duration::ZERO, api::Duration::get),
        }),
        session: None,
        max_body: None,
    }
}

fn session(wanted: &WantedSession) -> Result<SessionPersistence, Problem> {
    let kind = match &wanted.session_type {
        SessionType::Cookie => SessionKind::Cookie,
        SessionType::Header => SessionKind::Header,
        SessionType::Unknown(other) => {
            return Err(matches::unsupported(format!(
                "sessions of type {other} are not supported"
            )));
        }
    };
    let lifetime = wanted
        .cookie_config
        .as_ref()
        .map(|config| &config.lifetime_type);
    if let Some(CookieLifetime::Unknown(other)) = lifetime {
        return Err(matches::unsupported(format!(
            "cookie lifetime {other} is not supported"
        )));
    }
    let permanent = lifetime == Some(&CookieLifetime::Permanent);
    if permanent && wanted.absolute_timeout.is_none() {
        return Err(matches::unsupported(
            "a permanent session cookie needs absoluteTimeout",
        ));
    }
    let default_name = match kind {
        SessionKind::Cookie => DEFAULT_SESSION_COOKIE,
        SessionKind::Header => DEFAULT_SESSION_HEADER,
    };
    Ok(SessionPersistence {
        kind,
        name: wanted
            .session_name
            .clone()
            .unwrap_or_else(|| default_name.to_owned()),
        absolute_timeout: wanted.absolute_timeout.map(api::Duration::get),
        idle_timeout: wanted.idle_timeout.map(api::Duration::get),
        permanent,
    })
}

/// Annotation `pointsman.dev/max-body-bytes`.
fn max_body(view: &RouteView<'_>, out: &mut Outcome) -> Option<u64> {
    let text = view.meta.annotations.get("pointsman.dev/max-body-bytes")?;
    let limit = text.parse().ok();
    if limit.is_none() {
        out.note(
            &view.key,
            format!(
                "pointsman.dev/max-body-bytes {text:?} is not a number of bytes: the default holds"
            ),
        );
    }
    limit
}

/// Compiles all rules of a route.
pub(super) fn compile(
    view: &RouteView<'_>,
    resolver: &mut Resolver<'_>,
    out: &mut Outcome,
) -> CompiledRoute {
    let max_body = max_body(view, out);
    if view.parents.is_empty() {
        out.note(&view.key, "has no parentRefs and attaches to nothing");
    }
    let mut compiled = CompiledRoute::default();
    let (mut problems, mut unresolved) = (Vec::new(), Vec::new());
    let mut working = 0;
    for (index, rule) in view.rules.iter().enumerate() {
        let parts = compile_rule(view, rule, resolver, &mut compiled.pools);
        working += usize::from(!parts.broken);
        problems.extend(parts.problems);
        unresolved.extend(parts.unresolved);
        let policy = RoutePolicy {
            max_body,
            ..parts.rule.policy.clone()
        };
        if !parts.matches.is_empty() {
            compiled.rules.push((
                index,
                parts.matches,
                Rule {
                    policy,
                    ..parts.rule
                },
            ));
        }
    }
    let problem = Problem::join(&problems);
    if working == 0 {
        compiled.refused = problem;
    } else {
        compiled.partial = problem;
    }
    compiled.unresolved = Problem::join(&unresolved);
    compiled
}

/// Follows the references of one rule and remembers what came of them.
struct Links<'l, 'o> {
    from: Referrer<'l>,
    resolver: &'l mut Resolver<'o>,
    pools: &'l mut BTreeSet<PoolKey>,
    unresolved: Vec<Problem>,
}

impl Links<'_, '_> {
    fn target(&mut self, reference: &BackendObjectRef) -> Target {
        let resolved = self.resolver.resolve(self.from, reference);
        self.unresolved.extend(resolved.problem);
        self.pools.extend(resolved.pool);
        resolved.target
    }

    fn filters(
        &mut self,
        wanted: &[HttpFilter],
        prefix_only: bool,
        problems: &mut Vec<Problem>,
    ) -> Vec<Filter> {
        for extension in wanted.iter().filter_map(|f| f.extension_ref.as_ref()) {
            let message = format!("filters of kind {} are not supported", extension.kind);
            self.unresolved.push(Problem::new("InvalidKind", message));
        }
        let mut pool_of = |reference: &BackendObjectRef| match self.target(reference) {
            Target::Pool(key) => Some(key),
            Target::ByModel(_) | Target::Invalid(_) => None,
        };
        filters::compile(wanted, prefix_only, problems, &mut pool_of)
    }
}

struct RuleParts {
    matches: Vec<Match>,
    rule: Rule,
    problems: Vec<Problem>,
    unresolved: Vec<Problem>,
    /// The rule cannot serve anything.
    broken: bool,
}

fn compile_rule(
    view: &RouteView<'_>,
    rule: &RuleView,
    resolver: &mut Resolver<'_>,
    pools: &mut BTreeSet<PoolKey>,
) -> RuleParts {
    let mut problems: Vec<_> = rule
        .matches
        .iter()
        .filter_map(|wanted| wanted.as_ref().err().cloned())
        .collect();
    let matches: Vec<_> = rule
        .matches
        .iter()
        .filter_map(|wanted| wanted.as_ref().ok().cloned())
        .collect();
    let prefix_only = matches
        .iter()
        .all(|wanted| matches!(wanted.path, PathMatch::Prefix(_)));
    let mut links = Links {
        from: Referrer {
            kind: view.kind,
            namespace: &view.meta.namespace,
        },
        resolver,
        pools,
        unresolved: Vec::new(),
    };
    let mut filters = links.filters(&rule.filters, prefix_only, &mut problems);
    let mut policy = rule.policy.clone();
    match rule.session.as_ref().map(session).transpose() {
        Ok(session) => policy.session = session,
        Err(problem) => {
            filters.push(Filter::Unsupported(problem.message.clone()));
            problems.push(problem);
        }
    }
    let broken = matches.is_empty()
        || filters
            .iter()
            .any(|filter| matches!(filter, Filter::Unsupported(_)));
    let mut backends = Vec::with_capacity(rule.backends.len());
    for backend in &rule.backends {
        backends.push(Backend {
            weight: backend.weight,
            target: links.target(&backend.reference),
            filters: links.filters(&backend.filters, prefix_only, &mut problems),
        });
    }
    let unresolved = links.unresolved;
    let rule = Rule {
        route: format!("{} {}/{}", view.kind, view.meta.namespace, view.meta.name),
        name: rule.name.clone(),
        hostnames: Vec::new(),
        matches: Match::any(),
        filters,
        backends,
        policy,
    };
    RuleParts {
        matches,
        rule,
        problems,
        unresolved,
        broken,
    }
}
