//! Cross-origin resource sharing: which origins may have answers read by their scripts (Fetch standard, section "CORS
//! protocol"; Gateway API, `HTTPCORSFilter`).
//!
//! An origin is `scheme://host[:port]`, and a port that is left out is the scheme's own. Two origins are the same when
//! all three are. A wildcard at the left of a host stands for any number of labels; alone it stands for every host. The
//! single word `*` stands for every origin, also for `null`, which no other pattern matches.

use http::HeaderValue;

use crate::plan::Hostname;

/// What a `CORS` filter allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins; one that matches suffices.
    pub origins: Vec<OriginMatch>,
    /// Whether credentials may be sent along. Wildcards are then never said to the client.
    pub credentials: bool,
    /// Methods beside the safe ones.
    pub methods: Allowed,
    /// Request headers beside the safe ones.
    pub headers: Allowed,
    /// Response headers that scripts may read beside the safe ones.
    pub expose: Allowed,
    /// How long a preflight answer holds, in seconds.
    pub max_age: u32,
}

/// A list in a `CORS` filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing is listed.
    Nothing,
    /// `*`.
    Any,
    /// These, as they stand in a header.
    Listed(HeaderValue),
}

/// A pattern for origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginMatch {
    /// `*`.
    Any,
    /// An origin, maybe with a wildcard in its host.
    Of {
        /// Whether the scheme is `https`, else it is `http`.
        https: bool,
        /// The host; `None`: every host.
        host: Option<Hostname>,
        /// The port.
        port: u16,
    },
}

impl OriginMatch {
    /// Reads a pattern; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (https, host, port) = parts(text)?;
        Some(Self::Of {
            https,
            host: (host != "*").then(|| Hostname::parse(host)),
            port,
        })
    }

    /// Whether an `Origin` header's value is meant.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of { https, host, port } => parts(origin).is_some_and(|found| {
                (found.0, found.2) == (*https, *port)
                    && host.as_ref().is_none_or(|host| host.matches(found.1))
            }),
        }
    }
}

impl Cors {
    /// Whether scripts of this origin may read answers.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.matches(origin))
    }

    /// Whether scripts of every origin may, so that it need not be named.
    pub fn allows_everybody(&self) -> bool {
        !self.credentials && self.origins.contains(&OriginMatch::Any)
    }
}

/// Whether the scheme is `https`, the host and the port.
fn parts(origin: &str) -> Option<(bool, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let https = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let own = if https { 443 } else { 80 };
    let (host, port) = match rest.rsplit_once(':') {
        // The last colon of an IPv6 address in brackets.
        Some((_, inside)) if inside.ends_with(']') => (rest, own),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (rest, own),
    };
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@']);
    plain.then_some((https, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_its_scheme_host_and_port() {
        // pattern, origin, whether they match
        let cases = [
            ("*", "https://a.test", true),
            ("*", "null", true),
            ("https://a.test", "https://a.test", true),
            ("https://a.test", "https://A.Test", true),
            ("https://a.test", "https://a.test:443", true),
            ("https://a.test:443", "https://a.test", true),
            ("http://a.test", "http://a.test:80", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false),
            ("https://a.test:8443", "https://a.test:8443", true),
            ("https://a.test", "https://b.a.test", false),
            ("https://a.test", "https://a.test.evil", false),
            ("https://*.a.test", "https://b.a.test", true),
            ("https://*.a.test", "https://c.b.a.test", true),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://evila.test", false),
            ("https://*.a.test", "https://evil-a.test", false),
            ("https://*", "https://b.test", true),
            ("https://*", "https://b.test:8443", false),
            ("https://*:8443", "https://b.test:8443", true),
            ("https://*", "null", false),
            ("http://[::1]:80", "http://[::1]", true),
            ("https://a.test", "https://a.test/path", false),
            ("https://a.test", "https://user@a.test", false),
            ("https://a.test", "https://a.test:", false),
            ("https://a.test", "a.test", false),
            ("https://a.test", "", false),
        ];
        for (pattern, origin, expected) in cases {
            let pattern_read = OriginMatch::parse(pattern).expect("a pattern");
            assert_eq!(pattern_read.matches(origin), expected, "{pattern} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_no_pattern() {
        for text in [
            "",
            "a.test",
            "ftp://a.test",
            "https://",
            "https://a.test:x",
            "https://a/b",
        ] {
            assert_eq!(OriginMatch::parse(text), None, "{text:?}");
        }
    }
}
