//! Match conditions of routes, with every expression compiled.
//!
//! Regular expressions are those of the `regex` crate (RE2's syntax, no backtracking) and must match the whole path or
//! value. A rule of a GRPCRoute is a condition on the path `/service/method`.

use api::route::HeaderMatch;
use api::{
    GrpcMethodMatch, GrpcRouteMatch, HttpPathMatch, HttpRouteMatch, MatchType, PathMatchType,
    QueryParamMatch,
};
use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};

use super::conditions::Problem;
use crate::plan::{Match, PathMatch, ValueMatch};

/// Bound on the memory of one compiled expression: objects come from many hands.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

pub(super) fn unsupported(message: impl Into<String>) -> Problem {
    Problem::new("UnsupportedValue", message)
}

/// A match of an HTTPRoute.
pub(super) fn http(wanted: &HttpRouteMatch) -> Result<Match, Problem> {
    let method = wanted.method.as_deref().map(|method| {
        Method::from_bytes(method.as_bytes())
            .map_err(|_| unsupported(format!("{method:?} is not a method")))
    });
    Ok(Match {
        path: path(&wanted.path)?,
        method: method.transpose()?,
        headers: headers(&wanted.headers)?,
        query: query(&wanted.query_params)?,
    })
}

/// A match of a GRPCRoute.
pub(super) fn grpc(wanted: &GrpcRouteMatch) -> Result<Match, Problem> {
    let path = wanted
        .method
        .as_ref()
        .map_or_else(|| Ok(PathMatch::Prefix(String::new())), grpc_path)?;
    Ok(Match {
        path,
        headers: headers(&wanted.headers)?,
        ..Match::any()
    })
}

fn path(wanted: &HttpPathMatch) -> Result<PathMatch, Problem> {
    let value = wanted.value.as_str();
    match wanted.match_type {
        PathMatchType::RegularExpression => Ok(PathMatch::Regex(regex(value)?)),
        PathMatchType::Unknown(ref other) => Err(unsupported(format!(
            "path match type {other} is not supported"
        ))),
        _ if !value.starts_with('/') => Err(unsupported(format!(
            "path {value:?} does not start with a slash"
        ))),
        PathMatchType::Exact => Ok(PathMatch::Exact(value.to_owned())),
        PathMatchType::PathPrefix => Ok(PathMatch::Prefix(value.trim_end_matches('/').to_owned())),
    }
}

fn grpc_path(wanted: &GrpcMethodMatch) -> Result<PathMatch, Problem> {
    let (service, method) = (wanted.service.as_deref(), wanted.method.as_deref());
    match (&wanted.match_type, service, method) {
        (_, None, None) => Ok(PathMatch::Prefix(String::new())),
        (MatchType::Exact, Some(service), Some(method)) => {
            Ok(PathMatch::Exact(format!("/{service}/{method}")))
        }
        (MatchType::Exact, Some(service), None) => Ok(PathMatch::Prefix(format!("/{service}"))),
        (MatchType::Exact, None, Some(method)) => Ok(PathMatch::Regex(regex(&format!(
            "/[^/]+/{}",
            regex::escape(method)
        ))?)),
        (MatchType::RegularExpression, _, _) => {
            let any = "[^/]+";
            let text = format!(
                "/(?:{})/(?:{})",
                service.unwrap_or(any),
                method.unwrap_or(any)
            );
            Ok(PathMatch::Regex(regex(&text)?))
        }
        (MatchType::Unknown(other), _, _) => Err(unsupported(format!(
            "method match type {other} is not supported"
        ))),
    }
}

/// Of several entries for one header the first counts, whatever the case of their names (Gateway API).
fn headers(wanted: &[HeaderMatch]) -> Result<Vec<(HeaderName, ValueMatch)>, Problem> {
    let mut all: Vec<(HeaderName, ValueMatch)> = Vec::with_capacity(wanted.len());
    for header in wanted {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| unsupported(format!("{:?} is not a header name", header.name)))?;
        if all.iter().all(|(known, _)| *known != name) {
            all.push((name, value(&header.match_type, &header.value)?));
        }
    }
    Ok(all)
}

fn query(wanted: &[QueryParamMatch]) -> Result<Vec<(String, ValueMatch)>, Problem> {
    let mut all: Vec<(String, ValueMatch)> = Vec::with_capacity(wanted.len());
    for param in wanted {
        if all.iter().all(|(known, _)| *known != param.name) {
            all.push((param.name.clone(), value(&param.match_type, &param.value)?));
        }
    }
    Ok(all)
}

fn value(match_type: &MatchType, value: &str) -> Result<ValueMatch, Problem> {
    match match_type {
        MatchType::Exact => Ok(ValueMatch::Exact(value.to_owned())),
        MatchType::RegularExpression => Ok(ValueMatch::Regex(regex(value)?)),
        MatchType::Unknown(other) => {
            Err(unsupported(format!("match type {other} is not supported")))
        }
    }
}

fn regex(text: &str) -> Result<Regex, Problem> {
    // Compiled alone first: "a)|(b" must not become valid by the parentheses put round it.
    let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_SIZE_LIMIT).build();
    build(text)
        .and_then(|_| build(&format!("^(?:{text})$")))
        .map_err(|_| {
            unsupported(format!(
                "{text:?} is not a regular expression of RE2's kind and moderate size"
            ))
        })
}
