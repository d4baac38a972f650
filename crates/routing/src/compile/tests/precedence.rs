//! Which rule a request gets, against an oracle that looks at all rules for each request.

use std::cmp::Reverse;

use api::route::HeaderMatch;
use api::{
    HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, MatchType, Meta,
    ParentRef, PathMatchType, QueryParamMatch,
};
use proptest::prelude::*;

use super::*;

#[test]
fn the_most_specific_rule_wins() {
    let rule = |name: &str, matches: &str| format!("{{name: {name}, matches: [{matches}]}}");
    let rules = [
        rule("any", "{}"),
        rule(
            "regex",
            "{path: {type: RegularExpression, value: '/v[0-9]+/.*'}}",
        ),
        rule(
            "longer-regex",
            "{path: {type: RegularExpression, value: '/v[0-9]+/long.*'}}",
        ),
        rule("v1", "{path: {value: /v1}}"),
        rule("v1-chat", "{path: {value: /v1/chat/}}"),
        rule("exact", "{path: {type: Exact, value: /v1/chat}}"),
        rule(
            "one-header",
            "{path: {value: /h}, headers: [{name: A, value: '1'}]}",
        ),
        rule(
            "two-headers",
            "{path: {value: /h}, headers: [{name: A, value: '1'}, {name: b, value: '2'}, {name: a, value: '9'}]}",
        ),
        rule(
            "query",
            "{path: {value: /h}, queryParams: [{name: q, value: a b}]}",
        ),
        rule("method", "{path: {value: /m}, method: GET}"),
        rule(
            "method-header",
            "{path: {value: /m}, headers: [{name: a, value: '1'}, {name: b, value: '2'}]}",
        ),
        rule("post", "{path: {value: /p}, method: POST}"),
        rule("first-of-equals", "{path: {value: /e}}"),
        rule("second-of-equals", "{path: {value: /e}}"),
    ];
    let route =
        route("a", "r", "[]").replace("[{backendRefs: []}]", &format!("[{}]", rules.join(", ")));
    let compiled = cluster(&[CLASS, GATEWAY, &route]);
    let cases: [(&str, &[(&str, &str)], &str); 21] = [
        ("h/", &[], "any"),
        ("h/v1", &[], "v1"),
        ("h/v1/", &[], "v1"),
        ("h/v1/chat", &[], "exact"),
        ("h/v1/chat/", &[], "v1-chat"),
        ("h/v1/chat/x", &[], "v1-chat"),
        ("h/v1/chatter", &[], "v1"),
        ("h/v2/chat", &[], "regex"),
        ("h/v2/long", &[], "longer-regex"),
        ("h/x/v2/chat", &[], "any"),
        ("h/V1", &[], "any"),
        ("h/h", &[("a", "1")], "one-header"),
        ("h/h", &[("A", "1"), ("B", "2")], "two-headers"),
        ("h/h", &[("a", "1"), ("a", "2")], "any"),
        ("h/h?q=a+b", &[], "query"),
        ("h/h?x&q=a%20b&q=c", &[], "query"),
        ("h/h?q=a%20b", &[("a", "1")], "one-header"),
        ("h/h?q=c&q=a+b", &[], "any"),
        ("h/m", &[("a", "1"), ("b", "2")], "method"),
        ("h/p", &[], "any"),
        ("h/e", &[], "first-of-equals"),
    ];
    for (url, headers, expected) in cases {
        let matched = send(&compiled.plan, 80, url, headers).expect("a rule");
        assert_eq!(
            matched.rule.name.as_deref(),
            Some(expected),
            "{url} {headers:?}"
        );
    }
}

#[test]
fn the_oldest_route_then_the_name_decides() {
    let dated = |namespace: &str, name: &str, day: Option<&str>| {
        let date = day.map_or(String::new(), |day| {
            format!(", creationTimestamp: {day}T00:00:00Z")
        });
        route(namespace, name, "[]").replace(", generation: 3", &date)
    };
    let cases = [
        (
            dated("a", "x", Some("2025-01-02")),
            dated("b", "y", Some("2025-01-01")),
            "HTTPRoute b/y",
        ),
        (
            dated("a", "z", Some("2025-01-01")),
            dated("a", "y", Some("2025-01-01")),
            "HTTPRoute a/y",
        ),
        (
            dated("b", "a", Some("2025-01-01")),
            dated("a", "b", Some("2025-01-01")),
            "HTTPRoute a/b",
        ),
        (
            dated("a", "a", None),
            dated("b", "b", Some("2025-01-01")),
            "HTTPRoute b/b",
        ),
        (
            dated("b", "a", None),
            dated("a", "b", None),
            "HTTPRoute a/b",
        ),
    ];
    for (first, second, expected) in cases {
        let compiled = cluster(&[CLASS, GATEWAY, &first, &second]);
        assert_eq!(
            send(&compiled.plan, 80, "h/", &[])
                .expect("a rule")
                .rule
                .route,
            expected,
            "{first}{second}"
        );
    }
}

#[test]
fn the_hostname_comes_before_the_path() {
    let on = |name: &str, hostnames: &str, path: &str| {
        route("a", name, "[]").replace("  rules: [{backend", &format!("  hostnames: {hostnames}\n  rules: [{{matches: [{{path: {{value: {path}}}}}], backend"))
    };
    let compiled = cluster(&[
        CLASS,
        GATEWAY,
        &on("exact", "[a.b.io, other.io]", "/"),
        &on("long", "['*.b.io']", "/x/y"),
        &on("short", "['*.io']", "/x/y/z"),
        &on("any", "[]", "/x/y/z/long"),
    ]);
    let cases = [
        ("a.b.io/x/y/z/long", "exact"),
        ("A.B.IO/x", "exact"),
        ("c.b.io/x/y/z/long", "long"),
        ("c.b.io/x", "404"),
        ("d.c.b.io/x/y", "long"),
        ("b.io/x/y/z/long", "short"),
        ("io/x/y/z/long", "any"),
        ("other.io/", "exact"),
        ("else/", "404"),
    ];
    for (url, expected) in cases {
        let got = match send(&compiled.plan, 80, url, &[]) {
            Ok(matched) => matched
                .rule
                .route
                .trim_start_matches("HTTPRoute a/")
                .to_owned(),
            Err(no_match) => no_match.status().as_u16().to_string(),
        };
        assert_eq!(got, expected, "{url}");
    }
}

/// One generated rule with one match.
#[derive(Debug, Clone)]
struct Spec {
    hostname: Option<&'static str>,
    exact: bool,
    path: String,
    method: bool,
    headers: Vec<&'static str>,
    query: bool,
    /// Seconds since the epoch.
    created: Option<i64>,
}

fn paths() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec!["a", "b", "ab"]);
    (prop::collection::vec(element, 0..4), any::<bool>()).prop_map(|(elements, slash)| {
        let text: String = elements
            .iter()
            .map(|element| format!("/{element}"))
            .collect();
        if text.is_empty() || slash {
            text + "/"
        } else {
            text
        }
    })
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let hosts = prop::sample::select(vec![
        None,
        Some("x.io"),
        Some("*.io"),
        Some("y.x.io"),
        Some("*.x.io"),
    ]);
    let headers = prop::sample::subsequence(vec!["h1", "h2", "h3"], 0..=3);
    let created = prop::option::of(0..3_i64);
    let one = (
        hosts,
        any::<bool>(),
        paths(),
        any::<bool>(),
        headers,
        any::<bool>(),
        created,
    )
        .prop_map(
            |(hostname, exact, path, method, headers, query, created)| Spec {
                hostname,
                exact,
                path,
                method,
                headers,
                query,
                created,
            },
        );
    prop::collection::vec(one, 0..12)
}

fn compile_specs(specs: &[Spec]) -> Compiled {
    let mut all = objects(&[CLASS, GATEWAY].join("\n"));
    for (index, spec) in specs.iter().enumerate() {
        let header = |name: &&str| HeaderMatch {
            match_type: MatchType::Exact,
            name: (*name).to_owned(),
            value: "1".to_owned(),
        };
        let query = QueryParamMatch {
            match_type: MatchType::Exact,
            name: "q".to_owned(),
            value: "1".to_owned(),
        };
        let wanted = HttpRouteMatch {
            path: HttpPathMatch {
                match_type: if spec.exact {
                    PathMatchType::Exact
                } else {
                    PathMatchType::PathPrefix
                },
                value: spec.path.clone(),
            },
            headers: spec.headers.iter().map(header).collect(),
            query_params: spec.query.then_some(query).into_iter().collect(),
            method: spec.method.then(|| "GET".to_owned()),
        };
        let parent = ParentRef {
            group: api::GATEWAY_GROUP.to_owned(),
            kind: "Gateway".to_owned(),
            namespace: None,
            name: "gw".to_owned(),
            section_name: None,
            port: None,
        };
        all.insert(HttpRoute {
            api_version: "gateway.networking.k8s.io/v1".to_owned(),
            meta: Meta {
                creation_timestamp: spec.created.map(|seconds| {
                    format!("1970-01-01T00:00:0{seconds}Z")
                        .parse()
                        .expect("a time")
                }),
                ..Meta::named("a", format!("r{index:02}"))
            },
            spec: HttpRouteSpec {
                parent_refs: vec![parent],
                hostnames: spec.hostname.iter().map(ToString::to_string).collect(),
                rules: vec![HttpRouteRule {
                    matches: vec![wanted],
                    ..HttpRouteRule::default()
                }],
            },
        });
    }
    compile(
        &all,
        &CompileOptions {
            mode: Mode::Cluster,
            ..CompileOptions::default()
        },
    )
}

/// The index of the rule that the specification says, looking at every rule.
fn oracle(specs: &[Spec], host: &str, path: &str, headers: &[&str], query: bool) -> Option<usize> {
    let elements = |path: &str| {
        path.split('/')
            .filter(|e| !e.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let fits = |spec: &Spec| {
        let host_fits = spec
            .hostname
            .is_none_or(|name| match name.strip_prefix("*") {
                Some(suffix) => host.ends_with(suffix) && host != suffix,
                None => name == host,
            });
        let path_fits = if spec.exact {
            spec.path == path
        } else {
            elements(path).starts_with(&elements(&spec.path))
        };
        host_fits
            && path_fits
            && spec.headers.iter().all(|name| headers.contains(name))
            && (query || !spec.query)
    };
    let score = |index: usize| {
        let spec = &specs[index];
        let host = spec.hostname.map_or((0, 0), |name| {
            (if name.starts_with('*') { 1 } else { 2 }, name.len())
        });
        let prefix = if spec.exact {
            0
        } else {
            spec.path.trim_end_matches('/').len()
        };
        let age = Reverse(spec.created.unwrap_or(i64::MAX));
        (
            (host, spec.exact, prefix),
            (spec.method, spec.headers.len(), spec.query),
            (age, Reverse(index)),
        )
    };
    (0..specs.len())
        .filter(|index| fits(&specs[*index]))
        .max_by_key(|index| score(*index))
}

proptest! {
    #[test]
    fn routing_agrees_with_the_oracle(
        specs in specs(),
        host in prop::sample::select(vec!["x.io", "y.x.io", "z.x.io", "io", "w.io"]),
        path in paths(),
        headers in prop::sample::subsequence(vec!["h1", "h2", "h3"], 0..=3),
        query in any::<bool>(),
    ) {
        let compiled = compile_specs(&specs);
        let pairs: Vec<_> = headers.iter().map(|name| (*name, "1")).collect();
        let url = format!("{host}{path}{}", if query { "?q=1" } else { "" });
        let got = send(&compiled.plan, 80, &url, &pairs).ok().map(|matched| matched.rule.route.clone());
        let expected = oracle(&specs, host, &path, &headers, query).map(|index| format!("HTTPRoute a/r{index:02}"));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn routing_never_panics(specs in specs(), host in "\\PC{0,12}", path in "\\PC{0,20}", query in "\\PC{0,20}") {
        let compiled = compile_specs(&specs);
        let headers = HeaderMap::new();
        let head = RequestHead { method: &Method::GET, host: &host, path: &path, query: Some(&query), headers: &headers, sni: None };
        if let Ok(matched) = compiled.plan.route(80, &head) {
            prop_assert!(path.is_char_boundary(matched.matched_prefix));
            let rewritten = rewrite_path(&path, &PathRewrite::Prefix("/new".to_owned()), matched.matched_prefix);
            prop_assert!(rewritten.starts_with('/'));
        }
    }
}
