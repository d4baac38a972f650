//! Rules of HTTPRoute, GRPCRoute and TLSRoute, without those of their filters.

use std::collections::HashMap;

use super::gateway::hostname_message;
use super::{Check, filters, names};
use crate::grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteRule};
use crate::http_route::{
    HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRule, HttpTimeouts, PathMatchType,
};
use crate::route::{
    BackendObjectRef, CookieLifetime, HeaderMatch, MatchType, ParentRef, SessionPersistence,
    SessionType,
};
use crate::tls_route::TlsRoute;

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

pub(super) fn http(check: &mut Check, route: &HttpRoute) {
    let spec = &route.spec;
    parents_and_hosts(check, &spec.parent_refs, &spec.hostnames);
    check.count("spec.rules", spec.rules.len(), 1, 16);
    let matches = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    check.count("spec.rules", matches, 0, 128);
    rule_names(check, spec.rules.iter().map(|rule| rule.name.as_deref()));
    for (index, rule) in spec.rules.iter().enumerate() {
        http_rule(check, &format!("spec.rules[{index}]"), rule);
    }
}

fn http_rule(check: &mut Check, path: &str, rule: &HttpRouteRule) {
    check.count(&format!("{path}.matches"), rule.matches.len(), 0, 64);
    for (index, found) in rule.matches.iter().enumerate() {
        http_match(check, &format!("{path}.matches[{index}]"), found);
    }
    filters::http(check, &format!("{path}.filters"), &rule.filters);
    filters::http_rule(check, path, rule);
    check.count(
        &format!("{path}.backendRefs"),
        rule.backend_refs.len(),
        0,
        16,
    );
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{index}]");
        backend_ref(check, &path, &backend.object());
        weight(check, &path, backend.weight);
        filters::http(check, &format!("{path}.filters"), &backend.filters);
    }
    if let Some(timeouts) = &rule.timeouts {
        check_timeouts(check, path, timeouts);
    }
    if let Some(retry) = &rule.retry {
        for (index, code) in retry.codes.iter().enumerate() {
            check.ensure(
                (400..600).contains(code),
                &format!("{path}.retry.codes[{index}]"),
                || "must be from 400 to 599",
            );
        }
    }
    if let Some(session) = &rule.session_persistence {
        check_session(check, &format!("{path}.sessionPersistence"), session);
    }
}

fn check_timeouts(check: &mut Check, path: &str, timeouts: &HttpTimeouts) {
    if let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request) {
        check.ensure(
            request.is_zero() || backend <= request,
            &format!("{path}.timeouts.backendRequest"),
            || format!("{backend} is longer than the whole request may take ({request})"),
        );
    }
}

fn check_session(check: &mut Check, path: &str, session: &SessionPersistence) {
    let Some(cookie) = &session.cookie_config else {
        return;
    };
    check.ensure(
        session.session_type == SessionType::Cookie,
        &format!("{path}.cookieConfig"),
        || "can only be set with type Cookie",
    );
    let permanent = cookie.lifetime_type == CookieLifetime::Permanent;
    check.ensure(
        !permanent || session.absolute_timeout.is_some(),
        &format!("{path}.absoluteTimeout"),
        || "is needed when the cookie's lifetimeType is Permanent",
    );
}

fn http_match(check: &mut Check, path: &str, found: &HttpRouteMatch) {
    http_path(check, &format!("{path}.path.value"), &found.path);
    headers(check, &format!("{path}.headers"), &found.headers);
    let params = format!("{path}.queryParams");
    check.count(&params, found.query_params.len(), 0, 16);
    check.unique(
        found.query_params.iter().map(|param| &param.name),
        |index| format!("{params}[{index}].name"),
        "the query parameter",
    );
    for (index, param) in found.query_params.iter().enumerate() {
        check.text(&format!("{params}[{index}].name"), &param.name, 256);
        check.text(&format!("{params}[{index}].value"), &param.value, 1024);
    }
    if let Some(method) = &found.method {
        check.ensure(
            METHODS.contains(&method.as_str()),
            &format!("{path}.method"),
            || {
                format!(
                    "{method:?} is no method; write one of {}",
                    METHODS.join(", ")
                )
            },
        );
    }
}

/// Sequences that an Exact or PathPrefix value must not contain.
const FORBIDDEN_IN_PATHS: &[&str] = &["//", "/./", "/../", "%2f", "%2F", "#"];
/// Endings that an Exact or PathPrefix value must not have.
const FORBIDDEN_ENDINGS: &[&str] = &["/..", "/."];

fn http_path(check: &mut Check, path: &str, found: &HttpPathMatch) {
    let value = &found.value;
    check.ensure(
        value.len() <= 1024,
        path,
        || "is longer than 1024 characters",
    );
    if !matches!(
        found.match_type,
        PathMatchType::Exact | PathMatchType::PathPrefix
    ) {
        return;
    }
    check.ensure(value.starts_with('/'), path, || {
        format!("{value:?} must start with '/'")
    });
    for part in FORBIDDEN_IN_PATHS {
        check.ensure(!value.contains(part), path, || {
            format!("must not contain {part:?}")
        });
    }
    for ending in FORBIDDEN_ENDINGS {
        check.ensure(!value.ends_with(ending), path, || {
            format!("must not end with {ending:?}")
        });
    }
    check.ensure(has_path_characters(value), path, || {
        format!("{value:?} has a character that no path has; encode it as %XX")
    });
}

/// Whether only unreserved and reserved path characters and percent-encoded bytes occur (RFC 3986).
fn has_path_characters(value: &str) -> bool {
    let mut bytes = value.bytes();
    while let Some(b) = bytes.next() {
        let fits = match b {
            b'%' => [bytes.next(), bytes.next()]
                .into_iter()
                .all(|digit| digit.is_some_and(|d| d.is_ascii_hexdigit())),
            b'#' => true, // complained about already
            _ => b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&b),
        };
        if !fits {
            return false;
        }
    }
    true
}

fn headers(check: &mut Check, path: &str, found: &[HeaderMatch]) {
    check.count(path, found.len(), 0, 16);
    check.unique(
        found.iter().map(|header| &header.name),
        |index| format!("{path}[{index}].name"),
        "the header",
    );
    for (index, header) in found.iter().enumerate() {
        check.ensure(
            names::is_header_name(&header.name),
            &format!("{path}[{index}].name"),
            || format!("{:?} is no header name", header.name),
        );
        check.text(&format!("{path}[{index}].value"), &header.value, 4096);
    }
}

pub(super) fn grpc(check: &mut Check, route: &GrpcRoute) {
    let spec = &route.spec;
    parents_and_hosts(check, &spec.parent_refs, &spec.hostnames);
    check.count("spec.rules", spec.rules.len(), 0, 16);
    let matches = spec
        .rules
        .iter()
        .map(|rule| rule.matches.len().max(1))
        .sum();
    check.count("spec.rules", matches, 0, 128);
    rule_names(check, spec.rules.iter().map(|rule| rule.name.as_deref()));
    for (index, rule) in spec.rules.iter().enumerate() {
        grpc_rule(check, &format!("spec.rules[{index}]"), rule);
    }
}

fn grpc_rule(check: &mut Check, path: &str, rule: &GrpcRouteRule) {
    check.count(&format!("{path}.matches"), rule.matches.len(), 0, 64);
    for (index, found) in rule.matches.iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        if let Some(method) = &found.method {
            grpc_method(check, &format!("{path}.method"), method);
        }
        headers(check, &format!("{path}.headers"), &found.headers);
    }
    filters::grpc(check, &format!("{path}.filters"), &rule.filters);
    check.count(
        &format!("{path}.backendRefs"),
        rule.backend_refs.len(),
        0,
        16,
    );
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{index}]");
        backend_ref(check, &path, &backend.object());
        weight(check, &path, backend.weight);
        filters::grpc(check, &format!("{path}.filters"), &backend.filters);
    }
    if let Some(session) = &rule.session_persistence {
        check_session(check, &format!("{path}.sessionPersistence"), session);
    }
}

fn grpc_method(check: &mut Check, path: &str, found: &GrpcMethodMatch) {
    check.ensure(
        found.service.is_some() || found.method.is_some(),
        path,
        || "one of service and method is needed",
    );
    if found.match_type != MatchType::Exact {
        return;
    }
    if let Some(service) = &found.service {
        let parts = service.strip_prefix('.').unwrap_or(service);
        check.ensure(
            parts.split('.').all(is_identifier),
            &format!("{path}.service"),
            || format!("{service:?} is no service name; write it as package.Service"),
        );
    }
    if let Some(method) = &found.method {
        check.ensure(is_identifier(method), &format!("{path}.method"), || {
            format!("{method:?} is no method name")
        });
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn rule_names<'a>(check: &mut Check, found: impl Iterator<Item = Option<&'a str>>) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (index, name) in found.enumerate() {
        let Some(name) = name else { continue };
        if first.insert(name, index).is_some() {
            check.fail(
                format!("spec.rules[{index}].name"),
                "the rule's name must be unique in the route",
            );
        }
    }
}

fn parents_and_hosts(check: &mut Check, parents: &[ParentRef], hostnames: &[String]) {
    check.count("spec.parentRefs", parents.len(), 0, 32);
    for (index, parent) in parents.iter().enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        check.object_name(&format!("{path}.name"), &parent.name);
        if let Some(port) = parent.port {
            check.port(&format!("{path}.port"), port);
        }
    }
    check.unique(
        parents,
        |index| format!("spec.parentRefs[{index}]"),
        "the parent with its section and port",
    );
    mixed_parents(check, parents);
    check.count("spec.hostnames", hostnames.len(), 0, 16);
    for (index, hostname) in hostnames.iter().enumerate() {
        check.ensure(
            names::is_hostname(hostname),
            &format!("spec.hostnames[{index}]"),
            || hostname_message(hostname),
        );
    }
}

/// Several references to one parent must all name a section or a port, or none may.
fn mixed_parents(check: &mut Check, parents: &[ParentRef]) {
    let mut named = HashMap::new();
    for (index, parent) in parents.iter().enumerate() {
        let identity = (&parent.group, &parent.kind, &parent.namespace, &parent.name);
        let narrowed = parent.section_name.is_some() || parent.port.is_some();
        if *named.entry(identity).or_insert(narrowed) != narrowed {
            check.fail(
                format!("spec.parentRefs[{index}]"),
                "sectionName or port must be set on all references to one parent, or on none",
            );
        }
    }
}

pub(super) fn tls(check: &mut Check, route: &TlsRoute) {
    let spec = &route.spec;
    parents_and_hosts(check, &spec.parent_refs, &spec.hostnames);
    check.count("spec.rules", spec.rules.len(), 1, 1);
    for (index, rule) in spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}].backendRefs");
        check.count(&path, rule.backend_refs.len(), 1, 16);
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            let path = format!("{path}[{index}]");
            backend_ref(check, &path, &backend.object());
            weight(check, &path, backend.weight);
        }
    }
}

pub(super) fn backend_ref(check: &mut Check, path: &str, backend: &BackendObjectRef) {
    check.object_name(&format!("{path}.name"), &backend.name);
    match backend.port {
        Some(port) => check.port(&format!("{path}.port"), port),
        None if backend.group.is_empty() && backend.kind == "Service" => {
            check.fail(format!("{path}.port"), "a port is required for a Service");
        }
        None => {}
    }
}

fn weight(check: &mut Check, path: &str, weight: u32) {
    check.ensure(
        weight <= 1_000_000,
        &format!("{path}.weight"),
        || "must be from 0 to 1000000",
    );
}
