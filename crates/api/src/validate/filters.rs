//! Rules of route filters.

use std::collections::HashSet;

use super::{Check, names, routes};
use crate::grpc_route::{GrpcFilter, GrpcFilterType};
use crate::http_route::{
    Cors, HttpFilter, HttpRouteRule, PathMatchType, PathModifier, PathModifierType,
    RequestRedirect, UrlRewrite,
};
use crate::route::{FilterType, Header, HeaderModifier, RequestMirror};

const REDIRECTS: &[u16] = &[301, 302, 303, 307, 308];

/// Rules that involve a rule's filters and its other parts.
pub(super) fn http_rule(check: &mut Check, path: &str, rule: &HttpRouteRule) {
    let redirect = rule
        .filters
        .iter()
        .position(|filter| filter.request_redirect.is_some());
    if let (Some(index), false) = (redirect, rule.backend_refs.is_empty()) {
        check.fail(
            format!("{path}.filters[{index}].requestRedirect"),
            "must not be used together with backendRefs: a redirect is the answer",
        );
    }
    let one_prefix = matches!(
        rule.matches.as_slice(),
        [only] if only.path.match_type == PathMatchType::PathPrefix
    );
    let own = rule
        .filters
        .iter()
        .enumerate()
        .map(|(index, filter)| (format!("{path}.filters[{index}]"), filter));
    let backends = rule
        .backend_refs
        .iter()
        .enumerate()
        .flat_map(|(backend, reference)| {
            let filters = reference.filters.iter().enumerate();
            filters.map(move |(index, filter)| {
                (
                    format!("{path}.backendRefs[{backend}].filters[{index}]"),
                    filter,
                )
            })
        });
    for (path, filter) in own.chain(backends) {
        let redirect = filter
            .request_redirect
            .as_ref()
            .and_then(|redirect| redirect.path.as_ref());
        let rewrite = filter
            .url_rewrite
            .as_ref()
            .and_then(|rewrite| rewrite.path.as_ref());
        for (name, modifier) in [("requestRedirect", redirect), ("urlRewrite", rewrite)] {
            let replaces = modifier.is_some_and(|modifier| {
                modifier.modifier_type == PathModifierType::ReplacePrefixMatch
            });
            check.ensure(
                !replaces || one_prefix,
                &format!("{path}.{name}.path"),
                || "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix",
            );
        }
    }
}

/// Filters that a list may hold once only.
fn is_singular(filter: &FilterType) -> bool {
    !matches!(
        filter,
        FilterType::RequestMirror | FilterType::ExtensionRef | FilterType::Unknown(_)
    )
}

pub(super) fn http(check: &mut Check, path: &str, filters: &[HttpFilter]) {
    check.count(path, filters.len(), 0, 16);
    let mut seen = HashSet::new();
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let repeated = is_singular(&filter.filter_type) && !seen.insert(&filter.filter_type);
        check.ensure(!repeated, &format!("{path}.type"), || {
            format!("{} cannot be repeated", filter.filter_type)
        });
        http_filter(check, &path, filter);
    }
    let has = |wanted: FilterType| filters.iter().any(|filter| filter.filter_type == wanted);
    check.ensure(
        !has(FilterType::RequestRedirect) || !has(FilterType::UrlRewrite),
        path,
        || "RequestRedirect and URLRewrite exclude each other",
    );
}

fn http_filter(check: &mut Check, path: &str, filter: &HttpFilter) {
    let fields = [
        (
            FilterType::RequestHeaderModifier,
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterType::ResponseHeaderModifier,
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (
            FilterType::RequestMirror,
            "requestMirror",
            filter.request_mirror.is_some(),
        ),
        (
            FilterType::RequestRedirect,
            "requestRedirect",
            filter.request_redirect.is_some(),
        ),
        (
            FilterType::UrlRewrite,
            "urlRewrite",
            filter.url_rewrite.is_some(),
        ),
        (FilterType::Cors, "cors", filter.cors.is_some()),
        (
            FilterType::ExtensionRef,
            "extensionRef",
            filter.extension_ref.is_some(),
        ),
    ];
    union(check, path, &filter.filter_type, &fields);
    header_modifiers(
        check,
        path,
        filter.request_header_modifier.as_ref(),
        filter.response_header_modifier.as_ref(),
    );
    if let Some(mirror) = &filter.request_mirror {
        check_mirror(check, &format!("{path}.requestMirror"), mirror);
    }
    if let Some(redirect) = &filter.request_redirect {
        check_redirect(check, &format!("{path}.requestRedirect"), redirect);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        check_rewrite(check, &format!("{path}.urlRewrite"), rewrite);
    }
    if let Some(cors) = &filter.cors {
        check_cors(check, &format!("{path}.cors"), cors);
    }
}

pub(super) fn grpc(check: &mut Check, path: &str, filters: &[GrpcFilter]) {
    check.count(path, filters.len(), 0, 16);
    let mut seen = HashSet::new();
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let repeated = is_singular(&FilterType::from(&filter.filter_type))
            && !seen.insert(&filter.filter_type);
        check.ensure(!repeated, &format!("{path}.type"), || {
            format!("{} cannot be repeated", filter.filter_type)
        });
        let fields = [
            (
                GrpcFilterType::RequestHeaderModifier,
                "requestHeaderModifier",
                filter.request_header_modifier.is_some(),
            ),
            (
                GrpcFilterType::ResponseHeaderModifier,
                "responseHeaderModifier",
                filter.response_header_modifier.is_some(),
            ),
            (
                GrpcFilterType::RequestMirror,
                "requestMirror",
                filter.request_mirror.is_some(),
            ),
            (
                GrpcFilterType::ExtensionRef,
                "extensionRef",
                filter.extension_ref.is_some(),
            ),
        ];
        union(check, &path, &filter.filter_type, &fields);
        header_modifiers(
            check,
            &path,
            filter.request_header_modifier.as_ref(),
            filter.response_header_modifier.as_ref(),
        );
        if let Some(mirror) = &filter.request_mirror {
            check_mirror(check, &format!("{path}.requestMirror"), mirror);
        }
    }
}

/// The field that the type names must be there, and no other.
fn union<T: PartialEq + std::fmt::Display>(
    check: &mut Check,
    path: &str,
    chosen: &T,
    fields: &[(T, &str, bool)],
) {
    for (filter_type, field, given) in fields {
        if filter_type == chosen && !given {
            check.fail(
                format!("{path}.{field}"),
                format!("must be set for type {chosen}"),
            );
        } else if filter_type != chosen && *given {
            check.fail(
                format!("{path}.{field}"),
                format!("must not be set: the type is {chosen}"),
            );
        }
    }
}

fn header_modifiers(
    check: &mut Check,
    path: &str,
    request: Option<&HeaderModifier>,
    response: Option<&HeaderModifier>,
) {
    for (field, modifier) in [
        ("requestHeaderModifier", request),
        ("responseHeaderModifier", response),
    ] {
        let Some(modifier) = modifier else { continue };
        let path = format!("{path}.{field}");
        check_headers(check, &format!("{path}.set"), &modifier.set);
        check_headers(check, &format!("{path}.add"), &modifier.add);
        let remove = format!("{path}.remove");
        check.count(&remove, modifier.remove.len(), 0, 16);
        check.unique(
            &modifier.remove,
            |index| format!("{remove}[{index}]"),
            "the header",
        );
        for (index, name) in modifier.remove.iter().enumerate() {
            check.ensure(
                names::is_header_name(name),
                &format!("{remove}[{index}]"),
                || format!("{name:?} is no header name"),
            );
        }
    }
}

fn check_headers(check: &mut Check, path: &str, headers: &[Header]) {
    check.count(path, headers.len(), 0, 16);
    check.unique(
        headers.iter().map(|header| &header.name),
        |index| format!("{path}[{index}].name"),
        "the header",
    );
    for (index, header) in headers.iter().enumerate() {
        let at = format!("{path}[{index}]");
        check.ensure(
            names::is_header_name(&header.name),
            &format!("{at}.name"),
            || format!("{:?} is no header name", header.name),
        );
        let printable = header
            .value
            .bytes()
            .all(|b| b == b'\t' || (b >= b' ' && b != 0x7f));
        check.ensure(
            printable,
            &format!("{at}.value"),
            || "has a character that no header value may have",
        );
        check.text(&format!("{at}.value"), &header.value, 4096);
    }
}

fn check_mirror(check: &mut Check, path: &str, mirror: &RequestMirror) {
    routes::backend_ref(check, &format!("{path}.backendRef"), &mirror.backend_ref);
    check.ensure(
        mirror.percent.is_none_or(|percent| percent <= 100),
        &format!("{path}.percent"),
        || "must be from 0 to 100",
    );
    if let Some(fraction) = mirror.fraction {
        let fits = fraction.denominator >= 1 && fraction.numerator <= fraction.denominator;
        check.ensure(
            fits,
            &format!("{path}.fraction"),
            || "numerator must be at most denominator, and that at least 1",
        );
        check.ensure(
            mirror.percent.is_none(),
            path,
            || "percent and fraction exclude each other",
        );
    }
}

fn check_redirect(check: &mut Check, path: &str, redirect: &RequestRedirect) {
    if let Some(scheme) = &redirect.scheme {
        check.ensure(
            matches!(scheme.as_str(), "http" | "https"),
            &format!("{path}.scheme"),
            || "must be http or https",
        );
    }
    if let Some(hostname) = &redirect.hostname {
        precise_hostname(check, &format!("{path}.hostname"), hostname);
    }
    if let Some(port) = redirect.port {
        check.port(&format!("{path}.port"), port);
    }
    check.ensure(
        REDIRECTS.contains(&redirect.status_code),
        &format!("{path}.statusCode"),
        || "must be 301, 302, 303, 307 or 308",
    );
    if let Some(modifier) = &redirect.path {
        check_path_modifier(check, &format!("{path}.path"), modifier);
    }
}

fn check_rewrite(check: &mut Check, path: &str, rewrite: &UrlRewrite) {
    if let Some(hostname) = &rewrite.hostname {
        precise_hostname(check, &format!("{path}.hostname"), hostname);
    }
    if let Some(modifier) = &rewrite.path {
        check_path_modifier(check, &format!("{path}.path"), modifier);
    }
}

fn precise_hostname(check: &mut Check, path: &str, hostname: &str) {
    check.ensure(names::is_precise_hostname(hostname), path, || {
        format!("{hostname:?} is no hostname without wildcard")
    });
}

fn check_path_modifier(check: &mut Check, path: &str, modifier: &PathModifier) {
    let fields = [
        (
            PathModifierType::ReplaceFullPath,
            "replaceFullPath",
            modifier.replace_full_path.is_some(),
        ),
        (
            PathModifierType::ReplacePrefixMatch,
            "replacePrefixMatch",
            modifier.replace_prefix_match.is_some(),
        ),
    ];
    union(check, path, &modifier.modifier_type, &fields);
    for (field, value) in [
        ("replaceFullPath", &modifier.replace_full_path),
        ("replacePrefixMatch", &modifier.replace_prefix_match),
    ] {
        let short = value.as_ref().is_none_or(|value| value.len() <= 1024);
        check.ensure(
            short,
            &format!("{path}.{field}"),
            || "is longer than 1024 characters",
        );
    }
}

fn check_cors(check: &mut Check, path: &str, cors: &Cors) {
    check.ensure(
        cors.max_age >= 1,
        &format!("{path}.maxAge"),
        || "must be at least 1 second",
    );
    let lists = [
        ("allowOrigins", &cors.allow_origins, 64),
        ("allowMethods", &cors.allow_methods, 9),
        ("allowHeaders", &cors.allow_headers, 64),
        ("exposeHeaders", &cors.expose_headers, 64),
    ];
    for (field, values, max) in lists {
        let path = format!("{path}.{field}");
        check.count(&path, values.len(), 0, max);
        check.unique(values, |index| format!("{path}[{index}]"), "the value");
        // What scripts may read is the one list in which the definition lets '*' stand beside others.
        let star = field != "exposeHeaders" && values.iter().any(|value| value == "*");
        check.ensure(!star || values.len() == 1, &path, || "'*' must stand alone");
    }
}
