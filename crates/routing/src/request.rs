//! Finding the rule for a request.
//!
//! A request belongs to exactly one listener of its port: the one with the most specific hostname that matches (Gateway
//! API, listener isolation). Within that listener the rules stand in order of precedence already, so the first one that
//! matches is the right one. Nothing is compiled, allocated or sorted here, except where a query parameter has to be
//! decoded.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use crate::plan::{Listener, ListenerMode, Match, PathMatch, Plan, PortPlan, Rule, ValueMatch};

/// The head of a request, as far as routing looks at it.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: &'a Method,
    /// Host without port, in any case.
    pub host: &'a str,
    /// Path as sent, without the query.
    pub path: &'a str,
    /// Query as sent, without the question mark.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Server name of the TLS handshake; `None` without TLS or SNI.
    pub sni: Option<&'a str>,
}

/// The rule that a request belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'p> {
    /// The listener that took the request.
    pub listener: &'p Listener,
    /// The rule.
    pub rule: &'p Arc<Rule>,
    /// How many bytes of the path the rule's prefix matched; 0 for other path conditions.
    pub matched_prefix: usize,
}

/// Why no rule was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMatch {
    /// No listener of this port is for this host: 404; or 421 when the TLS handshake named another listener than the
    /// request does (GEP-3567).
    #[error("no listener serves this host")]
    NoListener(StatusCode),
    /// The listener has no rule that matches: 404.
    #[error("no route matches")]
    NoRoute,
}

impl NoMatch {
    /// The answer's status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoListener(status) => status,
            Self::NoRoute => StatusCode::NOT_FOUND,
        }
    }
}

impl Plan {
    /// Finds the rule for a request that came in on `port`.
    pub fn route<'p>(&'p self, port: u16, head: &RequestHead<'_>) -> Result<Matched<'p>, NoMatch> {
        let port = self
            .ports
            .get(&port)
            .ok_or(NoMatch::NoListener(StatusCode::NOT_FOUND))?;
        let listener = port.listener_of(head)?;
        listener.find(head).ok_or(NoMatch::NoRoute)
    }
}

impl Plan {
    /// The rule for a TLS session that asks for `name`, on a listener that passes on what sessions carry.
    pub fn route_session(&self, port: u16, name: &str) -> Option<&Arc<Rule>> {
        let listener = self.ports.get(&port)?.listener_for(name)?;
        if listener.mode == ListenerMode::Http {
            return None;
        }
        let fits = |rule: &&Arc<Rule>| {
            let names = &rule.hostnames;
            names.is_empty() || names.iter().any(|known| known.matches(name))
        };
        listener.rules.iter().find(fits)
    }
}

impl PortPlan {
    /// The most specific listener for a host name, from SNI or from a request.
    pub fn listener_for(&self, host: &str) -> Option<&Listener> {
        self.listeners
            .iter()
            .find(|l| l.hostname.as_ref().is_none_or(|name| name.matches(host)))
    }

    fn listener_of(&self, head: &RequestHead<'_>) -> Result<&Listener, NoMatch> {
        let listener = self
            .listener_for(head.host)
            .ok_or(NoMatch::NoListener(StatusCode::NOT_FOUND))?;
        let greeted = head
            .sni
            .filter(|_| self.tls)
            .and_then(|name| self.listener_for(name));
        if greeted.is_some_and(|greeted| !std::ptr::eq(greeted, listener)) {
            return Err(NoMatch::NoListener(StatusCode::MISDIRECTED_REQUEST));
        }
        Ok(listener)
    }
}

impl Listener {
    fn find<'p>(&'p self, head: &RequestHead<'_>) -> Option<Matched<'p>> {
        self.rules.iter().find_map(|rule| {
            let host_fits = rule.hostnames.is_empty()
                || rule.hostnames.iter().any(|name| name.matches(head.host));
            let matched_prefix = host_fits.then(|| rule.matches.evaluate(head)).flatten()?;
            Some(Matched {
                listener: self,
                rule,
                matched_prefix,
            })
        })
    }
}

impl Match {
    /// A match that every request meets.
    pub fn any() -> Self {
        Self {
            path: PathMatch::Prefix(String::new()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    /// Whether a request meets all conditions; if so, how many bytes of its path a prefix condition matched.
    pub fn evaluate(&self, head: &RequestHead<'_>) -> Option<usize> {
        let matched = self.path.evaluate(head.path)?;
        let rest = self
            .method
            .as_ref()
            .is_none_or(|method| method == head.method)
            && self
                .headers
                .iter()
                .all(|(name, value)| header_matches(head.headers, name, value))
            && self
                .query
                .iter()
                .all(|(name, value)| query_matches(head.query, name, value));
        rest.then_some(matched)
    }
}

impl PathMatch {
    fn evaluate(&self, path: &str) -> Option<usize> {
        match self {
            Self::Exact(exact) => (path == exact).then_some(0),
            // Whole elements only: `/abc` is a prefix of `/abc` and `/abc/d`, and not of `/abcd`.
            Self::Prefix(prefix) => {
                let rest = path.strip_prefix(prefix.as_str())?;
                (rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
                    .then_some(prefix.len())
            }
            Self::Regex(regex) => regex.is_match(path).then_some(0),
        }
    }
}

impl ValueMatch {
    fn evaluate(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// A header that is sent several times counts as one list joined by commas (RFC 9110, section 5.3).
fn header_matches(headers: &HeaderMap, name: &http::HeaderName, condition: &ValueMatch) -> bool {
    let mut values = headers.get_all(name).iter().map(http::HeaderValue::to_str);
    let (Some(Ok(first)), second) = (values.next(), values.next()) else {
        return false;
    };
    let Some(second) = second else {
        return condition.evaluate(first);
    };
    let mut joined = first.to_owned();
    for value in std::iter::once(second).chain(values) {
        let Ok(value) = value else { return false };
        joined.push(',');
        joined.push_str(value);
    }
    condition.evaluate(&joined)
}

/// Of a parameter that is sent several times the first counts.
fn query_matches(query: Option<&str>, name: &str, condition: &ValueMatch) -> bool {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.find(|(key, _)| decode(key).as_deref() == Some(name));
    found
        .and_then(|(_, value)| decode(value))
        .is_some_and(|value| condition.evaluate(&value))
}

/// Decodes `application/x-www-form-urlencoded` text: `+` is a space, `%XX` a byte. Percent signs that start no byte
/// stand for themselves; bytes that are not UTF-8 match nothing.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| Some(hex(at + 1)? * 16 + hex(at + 2)?))
            .flatten();
        match escaped.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

impl Rule {
    /// Chooses a backend by weight, independently for each request: `roll` is uniform in [0, 1). `None` when there is
    /// nothing to choose from (no backends, or all weights 0): the answer is 500 (Gateway API, HTTPRouteRule).
    pub fn choose(&self, roll: f64) -> Option<&crate::plan::Backend> {
        let weights = self
            .backends
            .iter()
            .map(|backend| u64::from(backend.weight));
        crate::weighted::pick(weights, roll).map(|index| &self.backends[index])
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
