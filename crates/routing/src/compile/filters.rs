//! Filters of rules and backends.
//!
//! A filter must not be skipped (Gateway API): one that we do not implement, or that is broken, becomes
//! [`Filter::Unsupported`], so that its rule answers 500, and the route says `UnsupportedValue`.

use api::http_route::{PathModifier, PathModifierType, RequestRedirect, UrlRewrite};
use api::route::{Header, HeaderModifier};
use api::{FilterType, GrpcFilter, HttpFilter};
use http::{HeaderName, HeaderValue, StatusCode};

use super::conditions::Problem;
use super::matches::unsupported;
use crate::plan::{Filter, HeaderChange, PathRewrite, Redirect, Rewrite};

/// Compiles filters and collects what is wrong with them. `prefix_only`: every match of the rule is a path prefix, which
/// `ReplacePrefixMatch` needs.
pub(super) fn compile(
    filters: &[HttpFilter],
    prefix_only: bool,
    problems: &mut Vec<Problem>,
) -> Vec<Filter> {
    let has = |wanted: &FilterType| filters.iter().any(|filter| filter.filter_type == *wanted);
    if has(&FilterType::RequestRedirect) && has(&FilterType::UrlRewrite) {
        let message = "URLRewrite and RequestRedirect cannot stand in one rule";
        problems.push(Problem::new("IncompatibleFilters", message));
        return vec![Filter::Unsupported(message.to_owned())];
    }
    let compiled = filters.iter().map(|filter| {
        one(filter, prefix_only).unwrap_or_else(|problem| {
            let message = problem.message.clone();
            problems.push(problem);
            Filter::Unsupported(message)
        })
    });
    compiled.collect()
}

/// A gRPC filter as the HTTP filter of the same name.
pub(super) fn of_grpc(filter: &GrpcFilter) -> HttpFilter {
    HttpFilter {
        filter_type: FilterType::from(&filter.filter_type),
        request_header_modifier: filter.request_header_modifier.clone(),
        response_header_modifier: filter.response_header_modifier.clone(),
        request_mirror: filter.request_mirror.clone(),
        request_redirect: None,
        url_rewrite: None,
        cors: None,
        extension_ref: filter.extension_ref.clone(),
    }
}

fn one(filter: &HttpFilter, prefix_only: bool) -> Result<Filter, Problem> {
    let kind = &filter.filter_type;
    let missing = || unsupported(format!("filter {kind} has no settings"));
    match kind {
        FilterType::RequestHeaderModifier => header_change(
            filter
                .request_header_modifier
                .as_ref()
                .ok_or_else(missing)?,
        )
        .map(Filter::RequestHeaders),
        FilterType::ResponseHeaderModifier => header_change(
            filter
                .response_header_modifier
                .as_ref()
                .ok_or_else(missing)?,
        )
        .map(Filter::ResponseHeaders),
        FilterType::RequestRedirect => redirect(
            filter.request_redirect.as_ref().ok_or_else(missing)?,
            prefix_only,
        )
        .map(Filter::Redirect),
        FilterType::UrlRewrite => rewrite(
            filter.url_rewrite.as_ref().ok_or_else(missing)?,
            prefix_only,
        )
        .map(Filter::Rewrite),
        FilterType::RequestMirror
        | FilterType::Cors
        | FilterType::ExtensionRef
        | FilterType::Unknown(_) => Err(unsupported(format!("filter {kind} is not supported"))),
    }
}

fn header_change(modifier: &HeaderModifier) -> Result<HeaderChange, Problem> {
    let pairs = |headers: &[Header]| headers.iter().map(pair).collect::<Result<Vec<_>, _>>();
    Ok(HeaderChange {
        set: pairs(&modifier.set)?,
        add: pairs(&modifier.add)?,
        remove: modifier
            .remove
            .iter()
            .map(|name| header_name(name))
            .collect::<Result<_, _>>()?,
    })
}

fn pair(header: &Header) -> Result<(HeaderName, HeaderValue), Problem> {
    let value = HeaderValue::from_str(&header.value).map_err(|_| {
        unsupported(format!(
            "the value of header {} has forbidden characters",
            header.name
        ))
    })?;
    Ok((header_name(&header.name)?, value))
}

fn header_name(name: &str) -> Result<HeaderName, Problem> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| unsupported(format!("{name:?} is not a header name")))
}

fn redirect(wanted: &RequestRedirect, prefix_only: bool) -> Result<Redirect, Problem> {
    if let Some(scheme) = wanted
        .scheme
        .as_deref()
        .filter(|scheme| !["http", "https"].contains(scheme))
    {
        return Err(unsupported(format!(
            "redirect scheme {scheme:?} is not supported"
        )));
    }
    let status = StatusCode::from_u16(wanted.status_code)
        .ok()
        .filter(|s| [301, 302, 303, 307, 308].contains(&s.as_u16()));
    Ok(Redirect {
        scheme: wanted.scheme.clone(),
        hostname: wanted.hostname.clone(),
        path: wanted
            .path
            .as_ref()
            .map(|path| path_rewrite(path, prefix_only))
            .transpose()?,
        port: wanted.port,
        status: status.ok_or_else(|| {
            unsupported(format!("{} is no status of a redirect", wanted.status_code))
        })?,
    })
}

fn rewrite(wanted: &UrlRewrite, prefix_only: bool) -> Result<Rewrite, Problem> {
    let hostname = wanted.hostname.as_deref();
    if let Some(hostname) =
        hostname.filter(|name| HeaderValue::from_str(name).is_err() || name.is_empty())
    {
        return Err(unsupported(format!("{hostname:?} is not a hostname")));
    }
    let path = wanted
        .path
        .as_ref()
        .map(|path| path_rewrite(path, prefix_only))
        .transpose()?;
    Ok(Rewrite {
        hostname: wanted.hostname.clone(),
        path,
    })
}

fn path_rewrite(modifier: &PathModifier, prefix_only: bool) -> Result<PathRewrite, Problem> {
    let missing = || {
        unsupported(format!(
            "path modifier {} has no value",
            modifier.modifier_type
        ))
    };
    match &modifier.modifier_type {
        PathModifierType::ReplaceFullPath => modifier
            .replace_full_path
            .clone()
            .map(PathRewrite::Full)
            .ok_or_else(missing),
        PathModifierType::ReplacePrefixMatch if !prefix_only => {
            Err(unsupported("ReplacePrefixMatch needs a PathPrefix match"))
        }
        PathModifierType::ReplacePrefixMatch => modifier
            .replace_prefix_match
            .clone()
            .map(PathRewrite::Prefix)
            .ok_or_else(missing),
        PathModifierType::Unknown(other) => Err(unsupported(format!(
            "path modifier {other} is not supported"
        ))),
    }
}
