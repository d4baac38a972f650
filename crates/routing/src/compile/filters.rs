//! Filters of rules and backends.
//!
//! A filter must not be skipped (Gateway API): one that we do not implement, or that is broken, becomes
//! [`Filter::Unsupported`], so that its rule answers 500, and the route says `UnsupportedValue`. The exception is a mirror
//! whose backend does not resolve: the API wants it dropped, and the route says so in `ResolvedRefs`.

use std::sync::Arc;

use api::http_route::{self, PathModifier, PathModifierType, RequestRedirect, UrlRewrite};
use api::route::{Header, HeaderModifier, RequestMirror};
use api::{BackendObjectRef, FilterType, GrpcFilter, HttpFilter};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::conditions::Problem;
use super::matches::unsupported;
use crate::cors::{Allowed, Cors, OriginMatch};
use crate::plan::{Filter, HeaderChange, Mirror, PathRewrite, PoolKey, Redirect, Rewrite};

/// Compiles filters and collects what is wrong with them. `prefix_only`: every match of the rule is a path prefix, which
/// `ReplacePrefixMatch` needs. `pool_of` resolves the backend of a mirror.
pub(super) fn compile(
    filters: &[HttpFilter],
    prefix_only: bool,
    problems: &mut Vec<Problem>,
    pool_of: &mut dyn FnMut(&BackendObjectRef) -> Option<PoolKey>,
) -> Vec<Filter> {
    let has = |wanted: &FilterType| filters.iter().any(|filter| filter.filter_type == *wanted);
    if has(&FilterType::RequestRedirect) && has(&FilterType::UrlRewrite) {
        let message = "URLRewrite and RequestRedirect cannot stand in one rule";
        problems.push(Problem::new("IncompatibleFilters", message));
        return vec![Filter::Unsupported(message.to_owned())];
    }
    let compiled = filters.iter().filter_map(|filter| {
        let made = match (&filter.filter_type, &filter.request_mirror) {
            (FilterType::RequestMirror, Some(wanted)) => mirror(wanted, pool_of).transpose()?,
            _ => one(filter, prefix_only),
        };
        Some(made.unwrap_or_else(|problem| {
            let message = problem.message.clone();
            problems.push(problem);
            Filter::Unsupported(message)
        }))
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
        FilterType::Cors => {
            cors(filter.cors.as_ref().ok_or_else(missing)?).map(|cors| Filter::Cors(Arc::new(cors)))
        }
        FilterType::RequestMirror => Err(missing()),
        FilterType::ExtensionRef | FilterType::Unknown(_) => {
            Err(unsupported(format!("filter {kind} is not supported")))
        }
    }
}

/// A mirror; `None` when its backend does not resolve.
fn mirror(
    wanted: &RequestMirror,
    pool_of: &mut dyn FnMut(&BackendObjectRef) -> Option<PoolKey>,
) -> Result<Option<Filter>, Problem> {
    let share = match (wanted.percent, wanted.fraction) {
        (None, None) => 1.0,
        (Some(percent), None) => f64::from(percent) / 100.0,
        (None, Some(part)) => f64::from(part.numerator) / f64::from(part.denominator),
        (Some(_), Some(_)) => {
            return Err(unsupported(
                "a mirror cannot have both a percent and a fraction",
            ));
        }
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(unsupported("a mirror's share must be from 0 to all"));
    }
    let pool = pool_of(&wanted.backend_ref);
    Ok(pool.map(|pool| Filter::Mirror(Mirror { pool, share })))
}

fn cors(wanted: &http_route::Cors) -> Result<Cors, Problem> {
    let origin = |text: &String| {
        OriginMatch::parse(text).ok_or_else(|| unsupported(format!("{text:?} is not an origin")))
    };
    let is_method = |name: &str| Method::from_bytes(name.as_bytes()).is_ok();
    let is_header = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    Ok(Cors {
        origins: wanted
            .allow_origins
            .iter()
            .map(origin)
            .collect::<Result<_, _>>()?,
        credentials: wanted.allow_credentials.unwrap_or(false),
        methods: allowed(&wanted.allow_methods, "method", is_method)?,
        headers: allowed(&wanted.allow_headers, "header name", is_header)?,
        expose: allowed(&wanted.expose_headers, "header name", is_header)?,
        max_age: wanted.max_age,
    })
}

/// A list of names as it stands in a header. A star among others stands for all as well.
fn allowed(
    names: &[String],
    what: &str,
    is_sound: impl Fn(&str) -> bool,
) -> Result<Allowed, Problem> {
    if names.is_empty() {
        return Ok(Allowed::Nothing);
    }
    if names.iter().any(|name| name == "*") {
        return Ok(Allowed::Any);
    }
    if let Some(bad) = names.iter().find(|name| !is_sound(name)) {
        return Err(unsupported(format!("{bad:?} is not a {what}")));
    }
    HeaderValue::from_str(&names.join(", "))
        .map(Allowed::Listed)
        .map_err(|_| unsupported(format!("the list of {what}s has forbidden characters")))
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
