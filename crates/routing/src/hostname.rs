//! Hostnames as the Gateway API means them.
//!
//! A hostname is a DNS name or a wildcard `*.example.com`. A wildcard stands for one or more whole labels on the left,
//! so `*.example.com` matches `a.example.com` and `a.b.example.com`, and not `example.com`. Case does not matter and a
//! trailing dot is ignored (Gateway API, `HTTPRouteSpec.hostnames` and `Listener.hostname`).
//!
//! A route serves a listener only for the *intersection* of their hostnames: the more specific of the two where one
//! covers the other, nothing where neither does, and the whole of the one when the other is not limited.

use std::cmp::Ordering;
use std::fmt;

use crate::plan::Hostname;

impl Hostname {
    /// Reads a hostname as written in an object; it is stored in lower case and without a trailing dot.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => Self::Wildcard(suffix.to_owned()),
            _ => Self::Exact(text),
        }
    }

    /// Whether a request for `host` (without port, any case) is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::Wildcard(suffix) => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                host.len() > suffix.len()
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
        }
    }

    /// Whether every host that `other` matches is matched by `self` too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(_), Self::Wildcard(_)) => false,
            (Self::Wildcard(_), Self::Exact(name)) => self.matches(name),
            (Self::Wildcard(a), Self::Wildcard(b)) => b.ends_with(a.as_str()),
        }
    }

    /// The hosts that both match, if there are any.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// Orders the more specific hostname first: exact names before wildcards, longer ones before shorter ones, then by
    /// the alphabet so that the order is total.
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let rank = |h: &Self| match h {
            Self::Exact(name) => (0, usize::MAX - name.len()),
            Self::Wildcard(suffix) => (1, usize::MAX - suffix.len()),
        };
        rank(self).cmp(&rank(other)).then_with(|| self.cmp(other))
    }
}

/// As [`Hostname::by_specificity`], with "any host" (`None`) last.
pub(crate) fn by_specificity(a: Option<&Hostname>, b: Option<&Hostname>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.by_specificity(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// The hostnames a route serves on a listener; `None` when they have nothing in common. An empty list means any host.
pub(crate) fn route_hostnames(
    listener: Option<&Hostname>,
    route: &[Hostname],
) -> Option<Vec<Hostname>> {
    match (listener, route) {
        (None, _) => Some(route.to_vec()),
        (Some(listener), []) => Some(vec![listener.clone()]),
        (Some(listener), _) => {
            let mut both: Vec<_> = route
                .iter()
                .filter_map(|name| listener.intersect(name))
                .collect();
            both.sort_by(Hostname::by_specificity);
            both.dedup();
            (!both.is_empty()).then_some(both)
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_or_more_labels() {
        let cases = [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com", true),
            ("example.com", "example.com.", true),
            ("example.com", "a.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "A.B.Example.Com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.Example.com", "a.example.com", true),
        ];
        for (name, host, expected) in cases {
            assert_eq!(
                Hostname::parse(name).matches(host),
                expected,
                "{name} {host}"
            );
        }
    }

    #[test]
    fn a_route_serves_what_it_shares_with_the_listener() {
        type Case<'c> = (&'c str, &'c [&'c str], Option<&'c [&'c str]>);
        // listener, route, expected (None: nothing in common)
        let cases: [Case<'_>; 12] = [
            ("", &[], Some(&[])),
            ("", &["a.com"], Some(&["a.com"])),
            ("a.com", &[], Some(&["a.com"])),
            ("a.com", &["a.com"], Some(&["a.com"])),
            ("a.com", &["A.COM", "b.com"], Some(&["a.com"])),
            ("a.com", &["b.com"], None),
            ("a.b.com", &["*.b.com"], Some(&["a.b.com"])),
            ("b.com", &["*.b.com"], None),
            (
                "*.b.com",
                &["x.b.com", "b.com", "y.z.b.com"],
                Some(&["y.z.b.com", "x.b.com"]),
            ),
            ("*.b.com", &["*.b.com"], Some(&["*.b.com"])),
            (
                "*.b.com",
                &["*.c.b.com", "*.com"],
                Some(&["*.c.b.com", "*.b.com"]),
            ),
            ("*.b.com", &["*.c.com"], None),
        ];
        for (listener, route, expected) in cases {
            let listener_name = (!listener.is_empty()).then(|| Hostname::parse(listener));
            let names: Vec<_> = route.iter().map(|n| Hostname::parse(n)).collect();
            let got = route_hostnames(listener_name.as_ref(), &names)
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
            let expected =
                expected.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(got, expected, "{listener} {route:?}");
        }
    }

    #[test]
    fn exact_beats_long_beats_short_beats_any() {
        let mut names = [
            None,
            Some("*.b.com"),
            Some("z.com"),
            Some("*.a.b.com"),
            Some("long.a.b.com"),
        ]
        .map(|n| n.map(Hostname::parse));
        names.sort_by(|a, b| by_specificity(a.as_ref(), b.as_ref()));
        let names = names.map(|n| n.map_or("any".to_owned(), |n| n.to_string()));
        assert_eq!(
            names,
            ["long.a.b.com", "z.com", "*.a.b.com", "*.b.com", "any"]
        );
    }
}
