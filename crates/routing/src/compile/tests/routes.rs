//! Rules: filters, limits, what is broken and what still works.

use std::time::Duration;

use http::StatusCode;

use super::*;

fn with_rules(rules: &str) -> Compiled {
    let text = route("a", "r", "[]").replace("[{backendRefs: []}]", rules);
    cluster(&[
        CLASS,
        GATEWAY,
        POOLS,
        &text,
        &service("a", "web", "{port: 80}"),
    ])
}

fn first_rule(compiled: &Compiled) -> &Rule {
    &compiled.plan.ports[&80].listeners[0].rules[0]
}

#[test]
fn filters_compile_in_order() {
    let compiled = with_rules(
        "[{filters: [
          {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '1'}], add: [{name: x-b, value: '2'}], remove: [X-C]}},
          {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}},
          {type: URLRewrite, urlRewrite: {hostname: h.io, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]}]",
    );
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    let request = HeaderChange {
        set: vec![(name("x-a"), value("1"))],
        add: vec![(name("x-b"), value("2"))],
        remove: vec![name("x-c")],
    };
    let response = HeaderChange {
        remove: vec![name("server")],
        ..HeaderChange::default()
    };
    let rewrite = Rewrite {
        hostname: Some("h.io".to_owned()),
        path: Some(PathRewrite::Prefix("/x".to_owned())),
    };
    let expected = [
        Filter::RequestHeaders(request),
        Filter::ResponseHeaders(response),
        Filter::Rewrite(rewrite),
    ];
    assert_eq!(first_rule(&compiled).filters, expected);

    let compiled = with_rules(
        "[{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /y}}}]}]",
    );
    let redirect = Redirect {
        scheme: Some("https".to_owned()),
        hostname: None,
        path: Some(PathRewrite::Full("/y".to_owned())),
        port: Some(8443),
        status: StatusCode::FOUND,
    };
    assert_eq!(first_rule(&compiled).filters, [Filter::Redirect(redirect)]);
    assert_eq!(
        condition(&compiled, "HTTPRoute a/r", "Accepted"),
        "True Accepted"
    );
}

#[test]
fn what_is_not_supported_is_said_and_answers_500() {
    let redirect = |rest: &str| format!("{{type: RequestRedirect, requestRedirect: {{{rest}}}}}");
    let cases = [
        ("{type: RequestMirror}".to_owned(), "UnsupportedValue"),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 101}}".to_owned(), "UnsupportedValue"),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 1, denominator: 0}}}".to_owned(), "UnsupportedValue"),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 1, fraction: {numerator: 1}}}".to_owned(), "UnsupportedValue"),
        ("{type: CORS}".to_owned(), "UnsupportedValue"),
        ("{type: CORS, cors: {allowOrigins: ['a.test']}}".to_owned(), "UnsupportedValue"),
        ("{type: CORS, cors: {allowHeaders: ['a b']}}".to_owned(), "UnsupportedValue"),
        ("{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: web, port: 80}}}".to_owned(), "UnsupportedValue"),
        ("{type: ExtensionRef, extensionRef: {group: x.io, kind: Lua, name: y}}".to_owned(), "UnsupportedValue"),
        ("{type: FromTheFuture}".to_owned(), "UnsupportedValue"),
        ("{type: URLRewrite}".to_owned(), "UnsupportedValue"),
        ("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: x}]}}".to_owned(), "UnsupportedValue"),
        ("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: \"x\\ny\"}]}}".to_owned(), "UnsupportedValue"),
        (redirect("statusCode: 200"), "UnsupportedValue"),
        (redirect("scheme: ftp"), "UnsupportedValue"),
        (redirect("path: {type: Sideways}"), "UnsupportedValue"),
        (redirect("path: {type: ReplaceFullPath}"), "UnsupportedValue"),
        ("{type: URLRewrite, urlRewrite: {hostname: x}}, {type: RequestRedirect, requestRedirect: {hostname: y}}".to_owned(), "IncompatibleFilters"),
    ];
    for (filter, reason) in cases {
        let compiled = with_rules(&format!(
            "[{{filters: [{filter}], backendRefs: [{{name: web, port: 80}}]}}]"
        ));
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "Accepted"),
            format!("False {reason}"),
            "{filter}"
        );
        assert!(
            matches!(first_rule(&compiled).filters[..], [Filter::Unsupported(_)]),
            "{filter}"
        );
        assert!(
            lines(&compiled)
                .iter()
                .any(|line| line.contains("[web: 0 attached")),
            "{filter}"
        );
        // A second rule that works keeps the route.
        let both = with_rules(&format!(
            "[{{filters: [{filter}]}}, {{matches: [{{path: {{value: /ok}}}}], backendRefs: [{{name: web, port: 80}}]}}]"
        ));
        assert_eq!(
            condition(&both, "HTTPRoute a/r", "Accepted"),
            "True Accepted",
            "{filter}"
        );
        assert_eq!(
            condition(&both, "HTTPRoute a/r", "PartiallyInvalid"),
            format!("True {reason}"),
            "{filter}"
        );
        assert_eq!(goes_to(&both.plan, "h/ok"), "a/web:80");
    }
}

#[test]
fn a_match_that_is_broken_is_left_out() {
    let cases = [
        "path: {type: RegularExpression, value: '('}",
        "path: {type: RegularExpression, value: 'a)|(b'}",
        "path: {type: RegularExpression, value: '(?P<x>a{1000}){1000}'}",
        "path: {type: Exact, value: x}",
        "path: {type: Glob, value: /x}",
        "method: 'A B'",
        "headers: [{name: 'a b', value: x}]",
        "headers: [{type: Glob, name: a, value: x}]",
        "headers: [{type: RegularExpression, name: a, value: '['}]",
        "queryParams: [{type: RegularExpression, name: a, value: '['}]",
    ];
    for broken in cases {
        let compiled = with_rules(&format!("[{{matches: [{{{broken}}}]}}]"));
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "Accepted"),
            "False UnsupportedValue",
            "{broken}"
        );
        assert_eq!(goes_to(&compiled.plan, "h/"), "404", "{broken}");
        let both = with_rules(&format!(
            "[{{matches: [{{{broken}}}, {{path: {{value: /ok}}}}], backendRefs: [{{name: web, port: 80}}]}}]"
        ));
        assert_eq!(
            condition(&both, "HTTPRoute a/r", "PartiallyInvalid"),
            "True UnsupportedValue",
            "{broken}"
        );
        assert_eq!(goes_to(&both.plan, "h/ok"), "a/web:80", "{broken}");
    }
}

#[test]
fn a_replaced_prefix_needs_a_prefix() {
    let rule = |path: &str| {
        format!(
            "[{{matches: [{{path: {path}}}], filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}}]}}]"
        )
    };
    assert_eq!(
        condition(
            &with_rules(&rule("{type: Exact, value: /x}")),
            "HTTPRoute a/r",
            "Accepted"
        ),
        "False UnsupportedValue"
    );
    assert_eq!(
        condition(
            &with_rules(&rule("{value: /x}")),
            "HTTPRoute a/r",
            "Accepted"
        ),
        "True Accepted"
    );
}

#[test]
fn limits_of_a_route() {
    let seconds = Duration::from_secs;
    let rule = "[{timeouts: {request: 0s, backendRequest: 1m30s}, retry: {codes: [500, 503], attempts: 4, backoff: 100ms}}]";
    let text = route("a", "r", "[]")
        .replace("[{backendRefs: []}]", rule)
        .replace(
            "generation: 3",
            "annotations: {pointsman.dev/max-body-bytes: '1048576'}",
        );
    let compiled = cluster(&[CLASS, GATEWAY, &text]);
    let policy = &first_rule(&compiled).policy;
    assert_eq!(
        (
            policy.request_timeout,
            policy.backend_timeout,
            policy.max_body
        ),
        (None, Some(seconds(90)), Some(1 << 20))
    );
    let retry = Retry {
        codes: vec![
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
        ],
        attempts: 4,
        backoff: Duration::from_millis(100),
    };
    assert_eq!(policy.retry, Some(retry));
    let bad = text.replace("1048576", "1Mi");
    let compiled = cluster(&[CLASS, GATEWAY, &bad]);
    assert_eq!(first_rule(&compiled).policy.max_body, None);
    assert!(
        compiled
            .notes
            .iter()
            .any(|note| note.message.contains("1Mi"))
    );
}

#[test]
fn sessions() {
    let cases = [
        (
            "{}",
            Some((SessionKind::Cookie, "pointsman-session", false)),
        ),
        (
            "{type: Header}",
            Some((SessionKind::Header, "x-pointsman-session", false)),
        ),
        (
            "{type: Header, sessionName: s}",
            Some((SessionKind::Header, "s", false)),
        ),
        (
            "{sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}",
            Some((SessionKind::Cookie, "s", true)),
        ),
        ("{cookieConfig: {lifetimeType: Permanent}}", None),
        ("{type: Telepathy}", None),
        ("{cookieConfig: {lifetimeType: Eternal}}", None),
    ];
    for (text, expected) in cases {
        let compiled = with_rules(&format!("[{{sessionPersistence: {text}}}]"));
        let session = first_rule(&compiled).policy.session.as_ref();
        assert_eq!(
            session.map(|s| (s.kind, s.name.as_str(), s.permanent)),
            expected,
            "{text}"
        );
        let accepted = if expected.is_some() {
            "True Accepted"
        } else {
            "False UnsupportedValue"
        };
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "Accepted"),
            accepted,
            "{text}"
        );
    }
}

#[test]
fn backend_filters_stay_with_their_backend() {
    let compiled = with_rules(
        "[{backendRefs: [{name: web, port: 80, filters: [{type: FromTheFuture}]}, {name: web, port: 80, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}]}]}]",
    );
    let filters: Vec<_> = first_rule(&compiled)
        .backends
        .iter()
        .map(|backend| &backend.filters[..])
        .collect();
    assert!(
        matches!(
            filters[..],
            [[Filter::Unsupported(_)], [Filter::ResponseHeaders(_)]]
        ),
        "{filters:?}"
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute a/r", "Accepted"),
        "True Accepted"
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute a/r", "PartiallyInvalid"),
        "True UnsupportedValue"
    );
}

#[test]
fn grpc_methods_are_paths() {
    let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: a}
spec:
  parentRefs: [{name: gw}]
  rules:
    - {name: both, matches: [{method: {service: foo.Bar, method: Get}}]}
    - {name: service, matches: [{method: {service: foo.Bar}}]}
    - {name: method, matches: [{method: {method: Put}}]}
    - {name: regex, matches: [{method: {type: RegularExpression, service: 'foo\\.[A-Z]+', method: 'a|b'}}]}
    - {name: header, matches: [{headers: [{name: x, value: y}]}]}
    - {name: all, backendRefs: [{name: web, port: 80}]}
";
    let compiled = cluster(&[CLASS, GATEWAY, text, &service("a", "web", "{port: 80}")]);
    let cases: [(&str, &[(&str, &str)], &str); 10] = [
        ("h/foo.Bar/Get", &[], "both"),
        ("h/foo.Bar/Set", &[], "service"),
        ("h/foo.Bart/Set", &[], "all"),
        ("h/x.Y/Put", &[], "method"),
        ("h/x/y/Put", &[], "all"),
        ("h/foo.AB/b", &[], "regex"),
        ("h/foo.AB/bc", &[], "all"),
        ("h/fooxAB/b", &[], "all"),
        ("h/z/z", &[("x", "y")], "header"),
        ("h/z/z", &[], "all"),
    ];
    for (url, headers, expected) in cases {
        let matched = send(&compiled.plan, 80, url, headers).expect("a rule");
        assert_eq!(matched.rule.name.as_deref(), Some(expected), "{url}");
    }
    // gRPC needs HTTP/2, which a port without appProtocol does not say.
    let pool = compiled.plan.pools.values().next().expect("a pool");
    assert_eq!(
        (pool.key.name.as_str(), pool.protocol),
        ("web:80/grpc", AppProtocol::H2c)
    );
}
