//! What a request's head says.

use bytes::Bytes;
use fleet::fields::{Purpose, purpose};
use fleet::{Hints, flow_of};
use http::Method;
use smallvec::SmallVec;

use crate::metadata::Metadata;
use crate::proto::core::{HeaderMap, HeaderValue};
use crate::proto::ext_proc::HttpHeaders;

/// The header, and the key in metadata, that names the servers to ask.
pub(super) const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The key that names the server that has answered.
pub(super) const SERVED: &str = "x-gateway-destination-endpoint-served";
/// The namespace of both.
pub(super) const NAMESPACE: &str = "envoy.lb";
/// The namespace and the key of the servers that may be chosen.
pub(super) const SUBSET: (&str, &str) = (
    "envoy.lb.subset_hint",
    "x-gateway-destination-endpoint-subset",
);

/// The value of a header: the raw bytes where there are any.
pub(super) fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() {
        header.value.as_bytes()
    } else {
        &header.raw_value
    }
}

/// The value of the first header of that name that is text.
pub(super) fn find<'h>(headers: Option<&'h HeaderMap>, name: &str) -> Option<&'h str> {
    let header = headers?.headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(value(header)).ok()
}

/// The head of a request, read.
#[derive(Debug, Default)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) host: String,
    pub(super) content_type: Option<String>,
    pub(super) request_id: Option<Bytes>,
    pub(super) traceparent: Option<String>,
    objective: Option<String>,
    model: Option<String>,
    ttft_slo: Option<String>,
    pub(super) fairness: Option<String>,
    /// Servers that a conformance test asks for.
    pub(super) test_selection: Option<String>,
    /// The client wants to know why.
    pub(super) explain: bool,
    /// Fields that the server must not see.
    pub(super) consumed: SmallVec<[String; 2]>,
}

impl RequestHead {
    pub(super) fn read(head: HttpHeaders) -> Self {
        let mut read = Self::default();
        for header in head.headers.map(|map| map.headers).unwrap_or_default() {
            read.field(header);
        }
        read
    }

    fn field(&mut self, header: HeaderValue) {
        let text = || std::str::from_utf8(value(&header)).ok().map(str::to_owned);
        match header.key.as_str() {
            ":method" => {
                self.method = Method::from_bytes(value(&header)).unwrap_or_default();
            }
            ":path" => self.path = text().unwrap_or_default(),
            ":authority" | "host" => {
                if let Some(host) = text() {
                    self.host = host;
                }
            }
            "content-type" => self.content_type = text(),
            "traceparent" => self.traceparent = text(),
            "test-epp-endpoint-selection" => self.test_selection = text(),
            // A copy: a slice would hold the whole message for as long as the request lasts.
            "x-request-id" => self.request_id = Some(Bytes::copy_from_slice(value(&header))),
            name => self.wish(purpose(name), header),
        }
    }

    /// Of a field that is given under both of its names, the last one counts.
    fn wish(&mut self, purpose: Purpose, header: HeaderValue) {
        let text = std::str::from_utf8(value(&header))
            .ok()
            .filter(|text| !text.is_empty())
            .map(str::to_owned);
        match purpose {
            Purpose::Other => return,
            Purpose::Objective => self.objective = text,
            Purpose::Fairness => self.fairness = text,
            Purpose::Model => self.model = text,
            Purpose::FirstTokenTarget => self.ttft_slo = text,
            Purpose::Explain => {
                self.explain = text.is_some_and(|text| text == "1" || text == "true");
            }
            Purpose::TokenTarget | Purpose::Steering | Purpose::Engines => {}
        }
        if !self.consumed.contains(&header.key) {
            self.consumed.push(header.key);
        }
    }

    pub(super) fn hints(&self) -> Hints<'_> {
        Hints {
            objective: self.objective.as_deref(),
            model: self.model.as_deref(),
            ttft_slo: self.ttft_slo.as_deref(),
        }
    }

    pub(super) fn flow(&self) -> u64 {
        flow_of(self.fairness.as_ref().map(String::as_bytes))
    }
}

/// The servers that may be chosen, as the proxy says: each an address or an address and a port. `None`: it does not say.
pub(super) fn subset(metadata: Option<&Metadata>) -> Option<Vec<String>> {
    use prost_types::value::Kind;
    let value = metadata?.get(SUBSET.0, SUBSET.1)?;
    let entries = |text: &str| -> Vec<String> {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Some(match value.kind {
        Some(Kind::StringValue(text)) => entries(&text),
        Some(Kind::ListValue(list)) => list
            .values
            .into_iter()
            .filter_map(|value| match value.kind {
                Some(Kind::StringValue(text)) => Some(entries(&text)),
                _ => None,
            })
            .flatten()
            .collect(),
        // Something else narrows the choice to nothing that can be read.
        _ => Vec::new(),
    })
}

/// Whether an entry of a subset names this server.
pub(super) fn names(entry: &str, server: std::net::SocketAddr) -> bool {
    if let Ok(address) = entry.parse::<std::net::SocketAddr>() {
        return address == server;
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>()
        .is_ok_and(|ip| ip == server.ip())
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;
    use prost_types::{ListValue, Struct, Value};

    use super::*;

    fn header(key: &str, value: &str) -> HeaderValue {
        HeaderValue {
            key: key.to_owned(),
            raw_value: Bytes::copy_from_slice(value.as_bytes()),
            ..HeaderValue::default()
        }
    }

    #[test]
    fn a_head_is_read_and_what_is_for_us_is_marked() {
        let head = HttpHeaders {
            headers: Some(HeaderMap {
                headers: vec![
                    header(":method", "POST"),
                    header(":path", "/v1/completions?x=1"),
                    header(":authority", "llm.example"),
                    header("x-llm-d-inference-objective", "gold"),
                    header("x-gateway-destination-endpoint", "6.6.6.6:1"),
                    header("x-prefiller-host-port", "6.6.6.6:1"),
                    header("x-slo-tpot-ms", "5"),
                    header("x-other", "stays"),
                    HeaderValue {
                        key: "x-gateway-inference-fairness-id".into(),
                        value: "team".into(),
                        ..HeaderValue::default()
                    },
                ],
            }),
            end_of_stream: false,
        };
        let head = RequestHead::read(head);
        assert_eq!(
            (head.method.as_str(), head.path.as_str()),
            ("POST", "/v1/completions?x=1")
        );
        assert_eq!(head.host, "llm.example");
        assert_eq!(head.hints().objective, Some("gold"));
        assert_eq!(head.fairness.as_deref(), Some("team"));
        assert_eq!(head.consumed.len(), 5, "{:?}", head.consumed);
        assert!(!head.consumed.iter().any(|name| name == "x-other"));
    }

    #[test]
    fn a_subset_is_a_list_or_a_text_and_may_be_empty() {
        let with = |kind: Kind| {
            let content = Struct {
                fields: [(SUBSET.1.to_owned(), Value { kind: Some(kind) })].into(),
            };
            subset(Some(&Metadata::default().with(SUBSET.0, content)))
        };
        let text = |text: &str| Kind::StringValue(text.to_owned());
        let list = |texts: &[&str]| {
            Kind::ListValue(ListValue {
                values: texts
                    .iter()
                    .map(|t| Value {
                        kind: Some(text(t)),
                    })
                    .collect(),
            })
        };
        let some = |entries: &[&str]| Some(entries.iter().map(|e| (*e).to_owned()).collect());
        assert_eq!(subset(None), None);
        assert_eq!(subset(Some(&Metadata::default())), None);
        assert_eq!(
            with(text("1.1.1.1:80, 2.2.2.2")),
            some(&["1.1.1.1:80", "2.2.2.2"])
        );
        assert_eq!(
            with(list(&["1.1.1.1:80", "2.2.2.2:80"])),
            some(&["1.1.1.1:80", "2.2.2.2:80"])
        );
        for empty in [text(""), text(" ,"), list(&[]), Kind::NumberValue(1.0)] {
            assert_eq!(with(empty.clone()), some(&[]), "{empty:?}");
        }
    }

    #[test]
    fn entries_name_servers_by_address_or_by_address_and_port() {
        for (entry, server, same) in [
            ("1.1.1.1:80", "1.1.1.1:80", true),
            ("1.1.1.1:81", "1.1.1.1:80", false),
            ("1.1.1.1", "1.1.1.1:80", true),
            ("[::1]:80", "[::1]:80", true),
            ("[::1]", "[::1]:80", true),
            ("::1", "[::1]:80", true),
            ("localhost", "127.0.0.1:80", false),
            ("", "127.0.0.1:80", false),
        ] {
            assert_eq!(
                names(entry, server.parse().unwrap()),
                same,
                "{entry} {server}"
            );
        }
    }
}
