//! The filters of a rule and of a backend: header changes, redirects, rewrites (Gateway API, HTTPRouteFilter). What
//! `CORS` means is told in [`crate::cors`], what mirrors do in [`crate::exchange`].
//!
//! A filter that this version does not know answers 500: the standard forbids to skip one.

use http::header::{HOST, HeaderMap, LOCATION};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Response, StatusCode};
use routing::{Filter, HeaderChange, PathRewrite, Redirect, Rewrite};

use crate::cors::{self, Marks};
use crate::refusal::Refusal;

/// Sets, then adds, then removes.
pub(crate) fn change_headers(headers: &mut HeaderMap, change: &HeaderChange) {
    for (name, value) in &change.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &change.add {
        headers.append(name.clone(), value.clone());
    }
    for name in &change.remove {
        headers.remove(name);
    }
}

/// Applies the response changes of `filters`.
pub(crate) fn change_response(headers: &mut HeaderMap, filters: &[Filter]) {
    for filter in filters {
        if let Filter::ResponseHeaders(change) = filter {
            change_headers(headers, change);
        }
    }
}

/// What the request side of a filter list leads to.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Go on.
    Forward,
    /// Answer this instead.
    Answer(Response<()>),
}

/// The request as filters see it.
#[derive(Debug)]
pub(crate) struct Target<'r> {
    /// Headers to change.
    pub(crate) headers: &'r mut HeaderMap,
    /// Path and query to change.
    pub(crate) uri: &'r mut Uri,
    /// The host that the client asked for, without port.
    pub(crate) host: &'r str,
    /// `https` when the client spoke TLS.
    pub(crate) tls: bool,
    /// The port of the listener.
    pub(crate) port: u16,
    /// Bytes of the path that the rule's prefix matched.
    pub(crate) matched_prefix: usize,
    /// A browser asks what it may do, before it does it.
    pub(crate) preflight: bool,
    /// What the answer will say to scripts of other origins; none: the server has the say.
    pub(crate) marks: Option<Marks>,
}

/// Applies the request side of `filters`, in order.
pub(crate) fn change_request(
    filters: &[Filter],
    target: &mut Target<'_>,
) -> Result<Effect, Refusal> {
    // Before all others: what a browser may read does not depend on what else happens.
    for filter in filters {
        if let Filter::Cors(cors) = filter {
            if target.preflight {
                return Ok(Effect::Answer(cors::answer(cors, target.headers)));
            }
            target.marks = Some(Marks::of(cors, target.headers));
        }
    }
    for filter in filters {
        match filter {
            Filter::RequestHeaders(change) => change_headers(target.headers, change),
            Filter::ResponseHeaders(_) | Filter::Cors(_) | Filter::Mirror(_) => {}
            Filter::Redirect(redirect) => return redirect_to(redirect, target).map(Effect::Answer),
            Filter::Rewrite(rewrite) => rewrite_request(rewrite, target)?,
            Filter::Unsupported(what) => return Err(Refusal::Filter(what.clone())),
        }
    }
    Ok(Effect::Forward)
}

fn rewrite_request(rewrite: &Rewrite, target: &mut Target<'_>) -> Result<(), Refusal> {
    if let Some(hostname) = &rewrite.hostname {
        let value = HeaderValue::from_str(hostname).map_err(|_| broken("hostname"))?;
        target.headers.insert(HOST, value);
    }
    if let Some(path) = &rewrite.path {
        *target.uri = Uri::from(rewritten(path, target)?);
    }
    Ok(())
}

/// The path after a rewrite, with the request's own query.
fn rewritten(rewrite: &PathRewrite, target: &Target<'_>) -> Result<PathAndQuery, Refusal> {
    let mut path = routing::rewrite_path(target.uri.path(), rewrite, target.matched_prefix);
    if let Some(query) = target.uri.query() {
        path.push('?');
        path.push_str(query);
    }
    PathAndQuery::try_from(path).map_err(|_| broken("path"))
}

fn broken(what: &str) -> Refusal {
    Refusal::Filter(format!("the new {what} is not valid in a request"))
}

/// The answer of a redirect. The port is left out where it is the scheme's own (Gateway API,
/// HTTPRequestRedirectFilter.port).
fn redirect_to(redirect: &Redirect, target: &Target<'_>) -> Result<Response<()>, Refusal> {
    let scheme = redirect
        .scheme
        .as_deref()
        .unwrap_or(if target.tls { "https" } else { "http" });
    let well_known = if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        80
    };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => target.port,
    };
    let host = redirect.hostname.as_deref().unwrap_or(target.host);
    let authority = if port == well_known {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let path = match &redirect.path {
        Some(path) => rewritten(path, target)?,
        None => target
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    };
    let location = Uri::builder()
        .scheme(Scheme::try_from(scheme).map_err(|_| broken("scheme"))?)
        .authority(Authority::try_from(authority).map_err(|_| broken("host"))?)
        .path_and_query(path)
        .build()
        .map_err(|_| broken("location"))?;
    let mut answer = Response::new(());
    *answer.status_mut() = if redirect.status.is_redirection() {
        redirect.status
    } else {
        StatusCode::FOUND
    };
    let value = HeaderValue::try_from(location.to_string()).map_err(|_| broken("location"))?;
    answer.headers_mut().insert(LOCATION, value);
    Ok(answer)
}
