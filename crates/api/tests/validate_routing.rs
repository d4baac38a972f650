//! The rules an API server would enforce on gateways and routes.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]
#![allow(
    clippy::too_many_lines,
    reason = "a table is as long as its rules are many"
)]

mod common;

use common::check_table;

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

#[test]
fn gateway_class_rules() {
    check_table(
        GATEWAY,
        "GatewayClass",
        &[
            (
                "spec: {controllerName: pointsman.dev/gateway-controller}",
                "",
                "",
            ),
            (
                "spec: {controllerName: pointsman}",
                "spec.controllerName",
                "domain/path",
            ),
            (
                "spec: {controllerName: a.b/}",
                "spec.controllerName",
                "domain/path",
            ),
        ],
    );
}

#[test]
fn gateway_rules() {
    let with = |listeners: &str| format!("spec: {{gatewayClassName: c, listeners: [{listeners}]}}");
    let table = [
        (
            "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP, hostname: a.b}",
            "",
            "",
        ),
        ("{name: a, port: 80, protocol: example.com/own}", "", ""),
        ("", "spec.listeners", "at least 1"),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}",
            "spec.listeners[1].name",
            "unique",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}",
            "spec.listeners[1]",
            "combination",
        ),
        (
            "{name: a, port: 0, protocol: HTTP}",
            "spec.listeners[0].port",
            "0 is no port",
        ),
        (
            "{name: A, port: 1, protocol: HTTP}",
            "spec.listeners[0].name",
            "lower-case",
        ),
        (
            "{name: a, port: 1, protocol: HTTP, hostname: 10.0.0.1}",
            "spec.listeners[0].hostname",
            "no IP address",
        ),
        (
            "{name: a, port: 1, protocol: HTTP, hostname: 'a.*.b'}",
            "spec.listeners[0].hostname",
            "no hostname",
        ),
        (
            "{name: a, port: 1, protocol: TCP, hostname: a.b}",
            "spec.listeners[0].hostname",
            "TCP and UDP",
        ),
        (
            "{name: a, port: 1, protocol: HTTP, tls: {certificateRefs: [{name: c}]}}",
            "spec.listeners[0].tls",
            "protocol HTTP",
        ),
        (
            "{name: a, port: 1, protocol: HTTPS, tls: {mode: Passthrough}}",
            "spec.listeners[0].tls.mode",
            "Terminate",
        ),
        (
            "{name: a, port: 1, protocol: HTTPS, tls: {}}",
            "spec.listeners[0].tls.certificateRefs",
            "certificate",
        ),
        (
            "{name: a, port: 1, protocol: TLS}",
            "spec.listeners[0].tls",
            "must be set",
        ),
        (
            "{name: a, port: 1, protocol: TLS, tls: {mode: Passthrough}}",
            "",
            "",
        ),
    ];
    for (listeners, field, part) in table {
        check_table(GATEWAY, "Gateway", &[(&with(listeners), field, part)]);
    }
    let address = |address: &str| {
        format!(
            "spec: {{gatewayClassName: c, listeners: [{{name: a, port: 1, protocol: HTTP}}], addresses: [{address}]}}"
        )
    };
    check_table(
        GATEWAY,
        "Gateway",
        &[
            (
                &address("{value: '::1'}, {type: Hostname, value: a.b}, {}"),
                "",
                "",
            ),
            (
                &address("{value: gpu1}"),
                "spec.addresses[0].value",
                "no IP address",
            ),
            (
                &address("{value: 10.0.0.1}, {value: 10.0.0.1}"),
                "spec.addresses[1]",
                "unique",
            ),
        ],
    );
}

#[test]
fn http_route_rules() {
    check_table(
        GATEWAY,
        "HTTPRoute",
        &[
            ("spec: {hostnames: ['*.a.b', c]}", "", ""),
            ("spec: {hostnames: ['a.b:80']}", "spec.hostnames[0]", "port"),
            (
                "spec: {hostnames: ['*']}",
                "spec.hostnames[0]",
                "no hostname",
            ),
            ("spec: {rules: []}", "spec.rules", "at least 1"),
            (
                "spec: {parentRefs: [{name: a}, {name: a}]}",
                "spec.parentRefs[1]",
                "unique",
            ),
            (
                "spec: {parentRefs: [{name: a}, {name: a, sectionName: s}]}",
                "spec.parentRefs[1]",
                "on none",
            ),
            (
                "spec: {parentRefs: [{name: a, sectionName: s}, {name: a, sectionName: t}, {name: b}]}",
                "",
                "",
            ),
            (
                "spec: {rules: [{name: a}, {name: a}]}",
                "spec.rules[1].name",
                "unique",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: s}]}]}",
                "spec.rules[0].backendRefs[0].port",
                "required for a Service",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: s, group: inference.networking.k8s.io, kind: InferencePool}]}]}",
                "",
                "",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: s, port: 0}]}]}",
                "spec.rules[0].backendRefs[0].port",
                "0 is no port",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: s, port: 1, weight: 1000001}]}]}",
                "spec.rules[0].backendRefs[0].weight",
                "1000000",
            ),
            (
                "spec: {rules: [{timeouts: {request: 1s, backendRequest: 2s}}]}",
                "spec.rules[0].timeouts.backendRequest",
                "longer",
            ),
            (
                "spec: {rules: [{timeouts: {request: 0s, backendRequest: 2s}}]}",
                "",
                "",
            ),
            (
                "spec: {rules: [{retry: {codes: [500, 200]}}]}",
                "spec.rules[0].retry.codes[1]",
                "400 to 599",
            ),
            (
                "spec: {rules: [{sessionPersistence: {type: Header, cookieConfig: {}}}]}",
                "spec.rules[0].sessionPersistence.cookieConfig",
                "Cookie",
            ),
            (
                "spec: {rules: [{sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}}]}",
                "spec.rules[0].sessionPersistence.absoluteTimeout",
                "Permanent",
            ),
        ],
    );
}

#[test]
fn http_match_rules() {
    let path = "spec.rules[0].matches[0].path.value";
    for (value, part) in [
        ("/v1/chat", ""),
        ("/%20", ""),
        ("v1", "must start with '/'"),
        ("/a//b", "\"//\""),
        ("/a/../b", "\"/../\""),
        ("/a/..", "must not end"),
        ("/a%2Fb", "\"%2F\""),
        ("/a#b", "\"#\""),
        ("/a b", "no path has"),
        ("/a%2", "no path has"),
    ] {
        let body = format!("spec: {{rules: [{{matches: [{{path: {{value: '{value}'}}}}]}}]}}");
        check_table(
            GATEWAY,
            "HTTPRoute",
            &[(&body, if part.is_empty() { "" } else { path }, part)],
        );
    }
    check_table(
        GATEWAY,
        "HTTPRoute",
        &[
            (
                "spec: {rules: [{matches: [{path: {type: RegularExpression, value: 'a(b'}}]}]}",
                "",
                "",
            ),
            (
                "spec: {rules: [{matches: [{headers: [{name: a, value: b}, {name: a, value: c}]}]}]}",
                "spec.rules[0].matches[0].headers[1].name",
                "unique",
            ),
            (
                "spec: {rules: [{matches: [{headers: [{name: 'a b', value: b}]}]}]}",
                "spec.rules[0].matches[0].headers[0].name",
                "no header name",
            ),
            (
                "spec: {rules: [{matches: [{headers: [{name: a, value: ''}]}]}]}",
                "spec.rules[0].matches[0].headers[0].value",
                "empty",
            ),
            (
                "spec: {rules: [{matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]}]}",
                "spec.rules[0].matches[0].queryParams[1].name",
                "unique",
            ),
            (
                "spec: {rules: [{matches: [{method: get}]}]}",
                "spec.rules[0].matches[0].method",
                "GET",
            ),
        ],
    );
    let many = vec!["{path: {value: /a}}"; 65].join(",");
    check_table(
        GATEWAY,
        "HTTPRoute",
        &[(
            &format!("spec: {{rules: [{{matches: [{many}]}}]}}"),
            "spec.rules[0].matches",
            "at most 64",
        )],
    );
}

#[test]
fn filter_rules() {
    let at = |field: &str| format!("spec.rules[0].filters{field}");
    for (filters, field, part) in [
        (
            "{type: RequestRedirect, requestRedirect: {statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}",
            "",
            "",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {statusCode: 200}}",
            "[0].requestRedirect.statusCode",
            "308",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {scheme: ftp}}",
            "[0].requestRedirect.scheme",
            "https",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {hostname: '*.a'}}",
            "[0].requestRedirect.hostname",
            "without wildcard",
        ),
        (
            "{type: RequestRedirect}",
            "[0].requestRedirect",
            "must be set",
        ),
        (
            "{type: URLRewrite, urlRewrite: {}, cors: {}}",
            "[0].cors",
            "must not be set",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}",
            "[0].urlRewrite.path.replaceFullPath",
            "must be set",
        ),
        (
            "{type: CORS, cors: {maxAge: 0}}",
            "[0].cors.maxAge",
            "at least 1",
        ),
        (
            "{type: CORS, cors: {allowOrigins: ['*', 'http://a.b']}}",
            "[0].cors.allowOrigins",
            "alone",
        ),
        (
            "{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}",
            "[1].type",
            "repeated",
        ),
        (
            "{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}",
            "",
            "exclude",
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, {name: a, value: c}]}}",
            "[0].requestHeaderModifier.set[1].name",
            "unique",
        ),
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {remove: ['a:']}}",
            "[0].responseHeaderModifier.remove[0]",
            "no header name",
        ),
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: a, value: \"b\\nc\"}]}}",
            "[0].responseHeaderModifier.add[0].value",
            "no header value",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a}}}",
            "[0].requestMirror.backendRef.port",
            "required",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 101}}",
            "[0].requestMirror.percent",
            "100",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: 101}}}",
            "[0].requestMirror.fraction",
            "denominator",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}}}, {type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}}}",
            "",
            "",
        ),
    ] {
        let body = format!("spec: {{rules: [{{filters: [{filters}]}}]}}");
        let field = if part.is_empty() {
            String::new()
        } else {
            at(field)
        };
        check_table(GATEWAY, "HTTPRoute", &[(&body, &field, part)]);
    }
    check_table(
        GATEWAY,
        "HTTPRoute",
        &[
            (
                "spec: {rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 1}]}]}",
                "spec.rules[0].filters[0].requestRedirect",
                "together with backendRefs",
            ),
            (
                "spec: {rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]}",
                "spec.rules[0].filters[0].urlRewrite.path",
                "PathPrefix",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: a, port: 1, filters: [{type: CORS}]}]}]}",
                "spec.rules[0].backendRefs[0].filters[0].cors",
                "must be set",
            ),
        ],
    );
}

#[test]
fn grpc_route_rules() {
    check_table(
        GATEWAY,
        "GRPCRoute",
        &[
            (
                "spec: {rules: [{matches: [{method: {service: foo.Bar, method: Baz}}]}]}",
                "",
                "",
            ),
            (
                "spec: {rules: [{matches: [{method: {}}]}]}",
                "spec.rules[0].matches[0].method",
                "one of",
            ),
            (
                "spec: {rules: [{matches: [{method: {service: foo/Bar}}]}]}",
                "spec.rules[0].matches[0].method.service",
                "package.Service",
            ),
            (
                "spec: {rules: [{matches: [{method: {method: 1a}}]}]}",
                "spec.rules[0].matches[0].method.method",
                "no method name",
            ),
            (
                "spec: {rules: [{matches: [{method: {type: RegularExpression, service: 'a|b'}}]}]}",
                "",
                "",
            ),
            (
                "spec: {rules: [{filters: [{type: RequestMirror}]}]}",
                "spec.rules[0].filters[0].requestMirror",
                "must be set",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: a}]}]}",
                "spec.rules[0].backendRefs[0].port",
                "required",
            ),
        ],
    );
}

#[test]
fn tls_route_rules() {
    check_table(
        GATEWAY,
        "TLSRoute",
        &[
            (
                "spec: {hostnames: [a.io], rules: [{backendRefs: [{name: a, port: 1}]}]}",
                "",
                "",
            ),
            ("spec: {hostnames: [a.io]}", "spec.rules", "at least 1"),
            (
                "spec: {hostnames: [a.io], rules: [{}]}",
                "spec.rules[0].backendRefs",
                "at least 1",
            ),
            (
                "spec: {hostnames: ['a b'], rules: [{backendRefs: [{name: a, port: 1}]}]}",
                "spec.hostnames[0]",
                "hostname",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: a, port: 1, weight: 1000001}]}]}",
                "spec.rules[0].backendRefs[0].weight",
                "1000000",
            ),
            (
                "spec: {rules: [{backendRefs: [{name: a}]}]}",
                "spec.rules[0].backendRefs[0].port",
                "required",
            ),
        ],
    );
}

#[test]
fn listener_set_rules() {
    let one = "{name: a, port: 80, protocol: HTTP}";
    check_table(
        GATEWAY,
        "ListenerSet",
        &[
            (
                &format!("spec: {{parentRef: {{name: gw}}, listeners: [{one}]}}"),
                "",
                "",
            ),
            (
                "spec: {parentRef: {name: gw}, listeners: []}",
                "spec.listeners",
                "at least 1",
            ),
            (
                &format!("spec: {{parentRef: {{name: ''}}, listeners: [{one}]}}"),
                "spec.parentRef.name",
                "",
            ),
            (
                &format!(
                    "spec: {{parentRef: {{name: gw}}, listeners: [{one}, {{name: a, port: 81, protocol: HTTP}}]}}"
                ),
                "spec.listeners[1].name",
                "name",
            ),
            (
                "spec: {parentRef: {name: gw}, listeners: [{name: a, port: 80, protocol: HTTP, tls: {mode: Passthrough}}]}",
                "spec.listeners[0].tls",
                "HTTP",
            ),
        ],
    );
}
