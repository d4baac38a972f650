//! The head of a request before anything is decided: whose it is, what it must not carry on.
//!
//! Three kinds of fields never reach a server: those that speak about this hop only (RFC 9110, section 7.6.1), those by
//! which a client could steer the pick (the endpoint picker protocol's own, `x-pointsman-*`), and the hints that we
//! consume. Fields with which engines steer each other (prefill hosts, data parallel ranks) are refused with 400 unless
//! the listener's clients are trusted: through them a client could make a server open connections to any host.

use fleet::fields::{self, Purpose};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use smallvec::SmallVec;

use crate::refusal::Refusal;

/// What the head told that the body and the servers do not.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Name of an InferenceObjective.
    pub(crate) objective: Option<HeaderValue>,
    /// Name of the flow for fairness.
    pub(crate) fairness: Option<HeaderValue>,
    /// Model name to put in place of the body's; trusted clients only.
    pub(crate) model: Option<HeaderValue>,
    /// Longest useful time to the first token, in milliseconds.
    pub(crate) ttft_slo: Option<HeaderValue>,
    /// The client wants to know why.
    pub(crate) explain: bool,
    /// The protocol that the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The hints as the client wrote them, for a picker outside.
    pub(crate) told: Vec<(HeaderName, HeaderValue)>,
}

/// What is done with a field of a request.
enum Field {
    Keep,
    Drop,
    Hint(fn(&mut Hints) -> &mut Option<HeaderValue>),
    Explain,
    Reserved,
}

fn field(name: &HeaderName) -> Field {
    match name.as_str() {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "transfer-encoding"
        | "upgrade"
        | "expect"
        | "proxy-authorization"
        | "http2-settings" => Field::Drop,
        name => hint(fields::purpose(name)),
    }
}

fn hint(purpose: Purpose) -> Field {
    match purpose {
        Purpose::Objective => Field::Hint(|hints| &mut hints.objective),
        Purpose::Fairness => Field::Hint(|hints| &mut hints.fairness),
        Purpose::Model => Field::Hint(|hints| &mut hints.model),
        Purpose::FirstTokenTarget => Field::Hint(|hints| &mut hints.ttft_slo),
        Purpose::Explain => Field::Explain,
        Purpose::Steering => Field::Drop,
        Purpose::Engines => Field::Reserved,
        Purpose::TokenTarget | Purpose::Other => Field::Keep,
    }
}

/// Takes out of `headers` what servers must not see, and returns what it told.
pub(crate) fn sanitise(headers: &mut HeaderMap, trusted: bool) -> Result<Hints, Refusal> {
    let mut hints = Hints::default();
    let mut doomed: SmallVec<[HeaderName; 8]> = SmallVec::new();
    for name in headers.keys() {
        match field(name) {
            Field::Keep => {}
            Field::Reserved if trusted => {}
            Field::Reserved => return Err(Refusal::Reserved(name.as_str().to_owned())),
            _ => doomed.push(name.clone()),
        }
    }
    let connection: SmallVec<[HeaderValue; 2]> = headers
        .get_all(header::CONNECTION)
        .iter()
        .cloned()
        .collect();
    if connection.iter().any(|value| lists(value, "upgrade")) {
        hints.upgrade = headers.get(header::UPGRADE).cloned();
    }
    for name in doomed {
        let value = headers.remove(&name);
        match field(&name) {
            Field::Hint(slot) => {
                hints
                    .told
                    .extend(value.clone().map(|value| (name.clone(), value)));
                *slot(&mut hints) = value;
            }
            Field::Explain => {
                hints.explain = value.is_some_and(|value| value == "1" || value == "true");
            }
            _ => {}
        }
    }
    for value in &connection {
        drop_listed(headers, value);
    }
    if headers
        .get(header::TE)
        .is_some_and(|value| value != "trailers")
    {
        headers.remove(header::TE);
    }
    Ok(hints)
}

/// Takes out of an answer's headers what speaks about the server's hop only.
pub(crate) fn sanitise_answer(headers: &mut HeaderMap) {
    if let Some(value) = headers.remove(header::CONNECTION) {
        drop_listed(headers, &value);
    }
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

fn lists(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|found| found.eq_ignore_ascii_case(token))
}

/// Removes the fields that a `Connection` value names, but none by which the message itself is understood.
fn drop_listed(headers: &mut HeaderMap, connection: &HeaderValue) {
    if connection == "keep-alive" || connection == "close" {
        return;
    }
    for token in tokens(connection) {
        let framing = ["host", "content-length", "content-type"];
        if !token.is_empty() && !framing.iter().any(|name| token.eq_ignore_ascii_case(name)) {
            headers.remove(token);
        }
    }
}

/// Refuses what can be read in two ways, or is not for a reverse proxy.
pub(crate) fn check(head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Method);
    }
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() {
            return Err(Refusal::Framing(
                "the only transfer coding taken is chunked, once",
            ));
        }
    }
    if head.headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Refusal::Framing("more than one Host"));
    }
    if head.version == Version::HTTP_11 && authority(head).is_none() {
        return Err(Refusal::Framing("no Host"));
    }
    Ok(())
}

/// The authority that a request is for: of its target where it has one (RFC 9112, section 3.2.2), else its Host.
pub(crate) fn authority(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(header::HOST)?.to_str().ok(),
    }
}

/// The host without a port, user or brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).expect("name"),
                HeaderValue::try_from(*value).expect("value"),
            );
        }
        headers
    }

    #[test]
    fn fields_of_this_hop_and_steering_fields_go_and_the_rest_stays() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop, host"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("host", "a"),
            ("authorization", "Bearer k"),
            ("x-gateway-destination-endpoint", "10.0.0.1:80"),
            ("x-gateway-destination-endpoint-subset", "10.0.0.1:80"),
            ("x-pointsman-endpoint", "forged"),
            ("x-gateway-inference-objective", "gold"),
            ("x-gateway-inference-fairness-id", "team"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ]);
        let hints = sanitise(&mut headers, false).expect("sound");
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host", "traceparent"]);
        assert_eq!(hints.objective.expect("given"), "gold");
        assert_eq!(hints.fairness.expect("given"), "team");
        assert!(hints.upgrade.is_none());
    }

    #[test]
    fn reserved_fields_are_for_trusted_clients() {
        for name in ["x-prefiller-host-port", "x-data-parallel-rank"] {
            let mut headers = map(&[(name, "1")]);
            assert!(
                matches!(sanitise(&mut headers, false), Err(Refusal::Reserved(field)) if field == name)
            );
            sanitise(&mut headers, true).expect("trusted");
            assert!(headers.contains_key(name));
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields() {
        let both = [("connection", "Upgrade"), ("upgrade", "websocket")];
        assert_eq!(
            sanitise(&mut map(&both), false)
                .expect("sound")
                .upgrade
                .expect("both"),
            "websocket"
        );
        assert!(
            sanitise(&mut map(&both[1..]), false)
                .expect("sound")
                .upgrade
                .is_none()
        );
    }

    #[test]
    fn hosts_lose_port_user_and_brackets() {
        for (authority, host) in [
            ("a", "a"),
            ("a:80", "a"),
            ("u@a:80", "a"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("", ""),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
