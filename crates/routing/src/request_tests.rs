use super::*;
use crate::plan::{Backend, Hostname, RoutePolicy, Target};
use http::{HeaderName, HeaderValue};

fn head<'a>(
    method: &'a Method,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
) -> RequestHead<'a> {
    RequestHead {
        method,
        host: "h",
        path,
        query,
        headers,
        sni: None,
    }
}

#[test]
fn prefixes_match_whole_elements() {
    let cases = [
        ("", "/", Some(0)),
        ("", "*", Some(0)),
        ("/abc", "/abc", Some(4)),
        ("/abc", "/abc/", Some(4)),
        ("/abc", "/abc/d", Some(4)),
        ("/abc", "/abcd", None),
        ("/abc", "/ab", None),
        ("/abc", "/ABC", None),
        ("/abc", "/%61bc", None),
    ];
    for (prefix, path, expected) in cases {
        let wanted = Match {
            path: PathMatch::Prefix(prefix.to_owned()),
            ..Match::any()
        };
        assert_eq!(
            wanted.evaluate(&head(&Method::GET, path, None, &HeaderMap::new())),
            expected,
            "{prefix} {path}"
        );
    }
}

#[test]
fn queries_are_decoded_and_the_first_value_counts() {
    let cases = [
        (Some("a=1"), true),
        (Some("b=2&a=1"), true),
        (Some("a=1&a=2"), true),
        (Some("a=2&a=1"), false),
        (Some("%61=%31"), true),
        (Some("a=%3"), false),
        (Some("a=1%"), false),
        (Some("a=%FF"), false),
        (Some("A=1"), false),
        (Some("a"), false),
        (Some("&&a=1&"), true),
        (Some(""), false),
        (None, false),
    ];
    let wanted = Match {
        query: vec![("a".to_owned(), ValueMatch::Exact("1".to_owned()))],
        ..Match::any()
    };
    for (query, expected) in cases {
        let matched = wanted
            .evaluate(&head(&Method::GET, "/", query, &HeaderMap::new()))
            .is_some();
        assert_eq!(matched, expected, "{query:?}");
    }
    assert_eq!(decode("a+b%20c%2").as_deref(), Some("a b c%2"));
    assert_eq!(decode("%c3%a9%zz").as_deref(), Some("é%zz"));
}

#[test]
fn repeated_headers_are_a_list() {
    let regex = regex::Regex::new("^(?:x.*)$").expect("an expression");
    let exact = |text: &str| ValueMatch::Exact(text.to_owned());
    let cases: [(&[&[u8]], ValueMatch, bool); 8] = [
        (&[b"x"], exact("x"), true),
        (&[b"X"], exact("x"), false),
        (&[], exact(""), false),
        (&[b""], exact(""), true),
        (&[b"x", b"y"], exact("x"), false),
        (&[b"x", b"y"], exact("x,y"), true),
        (&[b"x", b"\xff"], exact("x"), false),
        (&[b"xyz"], ValueMatch::Regex(regex), true),
    ];
    for (values, condition, expected) in cases {
        let name = HeaderName::from_static("k");
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let wanted = Match {
            headers: vec![(name, condition)],
            ..Match::any()
        };
        assert_eq!(
            wanted
                .evaluate(&head(&Method::GET, "/", None, &headers))
                .is_some(),
            expected,
            "{values:?}"
        );
    }
}

fn rule(name: &str, backends: Vec<Backend>) -> Arc<Rule> {
    Arc::new(Rule {
        route: name.to_owned(),
        name: None,
        hostnames: Vec::new(),
        matches: Match::any(),
        filters: Vec::new(),
        backends,
        policy: RoutePolicy::default(),
    })
}

fn tls_port(hostnames: &[&str]) -> Plan {
    let listener = |name: &&str| Listener {
        name: (*name).to_owned(),
        hostname: (!name.is_empty()).then(|| Hostname::parse(name)),
        rules: vec![rule(name, Vec::new())],
        ..Listener::default()
    };
    let port = PortPlan {
        port: 443,
        tls: true,
        listeners: hostnames.iter().map(listener).collect(),
    };
    Plan {
        ports: [(443, port)].into(),
        ..Plan::default()
    }
}

#[test]
fn a_request_for_another_listener_than_the_handshake_is_misdirected() {
    let with_rest = ["a.x.io", "*.x.io", ""];
    let without = ["a.x.io", "*.x.io"];
    // listeners, SNI, host, outcome
    let cases: [(&[&str], Option<&str>, &str, &str); 10] = [
        (&with_rest, Some("a.x.io"), "a.x.io", "a.x.io"),
        (&with_rest, Some("a.x.io"), "b.x.io", "421"),
        (&with_rest, Some("a.x.io"), "other", "421"),
        (&with_rest, Some("b.x.io"), "c.x.io", "*.x.io"),
        (&with_rest, Some("b.x.io"), "a.x.io", "421"),
        (&with_rest, None, "a.x.io", "a.x.io"),
        (&with_rest, Some("else"), "other", ""),
        (&without, Some("a.x.io"), "other", "404"),
        (&without, Some("else"), "a.x.io", "a.x.io"),
        (&without, None, "x.io", "404"),
    ];
    for (hostnames, sni, host, expected) in cases {
        let plan = tls_port(hostnames);
        let headers = HeaderMap::new();
        let head = RequestHead {
            host,
            sni,
            ..head(&Method::GET, "/", None, &headers)
        };
        let got = match plan.route(443, &head) {
            Ok(matched) => matched.listener.name.clone(),
            Err(no_match) => no_match.status().as_u16().to_string(),
        };
        assert_eq!(got, expected, "{hostnames:?} {sni:?} {host}");
        assert_eq!(
            plan.route(80, &head).err(),
            Some(NoMatch::NoListener(StatusCode::NOT_FOUND))
        );
    }
}

#[test]
fn shares_over_many_rolls_follow_the_weights() {
    let backend = |weight| Backend {
        weight,
        target: Target::Invalid(weight.to_string()),
        filters: Vec::new(),
    };
    let rule = rule("r", vec![backend(70), backend(0), backend(30)]);
    let mut counts = [0; 2];
    for roll in 0..10_000 {
        match rule
            .choose(f64::from(roll) / 10_000.0)
            .map(|backend| backend.weight)
        {
            Some(70) => counts[0] += 1,
            Some(30) => counts[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, [7_000, 3_000]);
    assert!(
        Rule {
            backends: vec![backend(0)],
            ..(*rule).clone()
        }
        .choose(0.5)
        .is_none()
    );
}
