//! TLS: clients that prove who they are, sessions that are passed on, and what is shown to servers.

use super::*;

fn gateway(tls: &str, listeners: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: a, generation: 4}}
spec:
  gatewayClassName: ours
  tls: {tls}
  listeners: {listeners}
"
    )
}

const CERT: &str = "
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: a}
stringData:
  tls.crt: \"-----BEGIN CERTIFICATE-----\\nMAMCAQA=\\n-----END CERTIFICATE-----\\n\"
  tls.key: \"-----BEGIN PRIVATE KEY-----\\nMAMCAQA=\\n-----END PRIVATE KEY-----\\n\"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca, namespace: a}
data: {ca.crt: \"-----BEGIN CERTIFICATE-----\\nMAMCAQA=\\n-----END CERTIFICATE-----\\n\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca, namespace: b}
data: {ca.crt: \"-----BEGIN CERTIFICATE-----\\nMAMCAQA=\\n-----END CERTIFICATE-----\\n\"}
";

const HTTPS: &str = "[{name: web, port: 80, protocol: HTTP}, \
    {name: one, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}, \
    {name: two, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]";

#[test]
fn clients_are_asked_for_certificates_by_port() {
    let ca = |rest: &str| format!("{{group: '', kind: ConfigMap, {rest}}}");
    let good = ca("name: ca");
    let default = |refs: &str| {
        format!("{{frontend: {{default: {{validation: {{caCertificateRefs: [{refs}]}}}}}}}}")
    };
    let per_port = |refs: &str| {
        format!(
            "{{frontend: {{default: {{validation: {{caCertificateRefs: [{good}]}}}}, \
             perPort: [{{port: 444, tls: {{validation: {{caCertificateRefs: [{refs}]}}}}}}]}}}}"
        )
    };
    // spec.tls, Accepted and ResolvedRefs of listener two, do one and two serve
    let cases = [
        (
            default(&good),
            "True Accepted",
            "True ResolvedRefs",
            [true, true],
        ),
        (
            per_port(&good),
            "True Accepted",
            "True ResolvedRefs",
            [true, true],
        ),
        (
            per_port(&ca("name: gone")),
            "False NoValidCACertificate",
            "False InvalidCACertificateRef",
            [true, false],
        ),
        (
            per_port("{group: '', kind: Service, name: ca}"),
            "False NoValidCACertificate",
            "False InvalidCACertificateKind",
            [true, false],
        ),
        (
            per_port(&ca("name: ca, namespace: b")),
            "False NoValidCACertificate",
            "False RefNotPermitted",
            [true, false],
        ),
        (
            per_port(&format!("{good}, {}", ca("name: gone"))),
            "True Accepted",
            "False InvalidCACertificateRef",
            [true, true],
        ),
        (
            default(&ca("name: gone")),
            "False NoValidCACertificate",
            "False InvalidCACertificateRef",
            [false, false],
        ),
    ];
    for (tls, accepted, resolved, serve) in cases {
        let compiled = cluster(&[CLASS, &gateway(&tls, HTTPS), CERT]);
        let of = |name: &str, type_: &str| listener(&compiled, "Gateway a/gw", name, type_);
        assert_eq!(of("two", "Accepted"), accepted, "{tls}");
        assert_eq!(of("two", "ResolvedRefs"), resolved, "{tls}");
        assert_eq!(of("web", "Programmed"), "True Programmed", "{tls}");
        for (port, serves) in [443, 444].into_iter().zip(serve) {
            let served = compiled.plan.ports.get(&port);
            assert_eq!(served.is_some(), serves, "{tls}");
            let auth = served.and_then(|port| port.listeners[0].clients.as_ref());
            assert_eq!(auth.is_some_and(|auth| !auth.optional), serves, "{tls}");
        }
        assert!(compiled.plan.ports[&80].listeners[0].clients.is_none());
    }
    let granted = grant("b", "Gateway", "a", "{group: '', kind: ConfigMap}");
    let far = gateway(&per_port(&ca("name: ca, namespace: b")), HTTPS);
    let compiled = cluster(&[CLASS, &far, CERT, &granted]);
    assert_eq!(
        listener(&compiled, "Gateway a/gw", "two", "Accepted"),
        "True Accepted"
    );
}

#[test]
fn letting_anybody_in_is_said() {
    let tls = "{frontend: {default: {validation: {mode: AllowInsecureFallback, \
               caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}";
    let compiled = cluster(&[CLASS, &gateway(tls, HTTPS), CERT]);
    let auth = compiled.plan.ports[&443].listeners[0].clients.as_ref();
    assert!(auth.is_some_and(|auth| auth.optional));
    assert_eq!(
        condition(&compiled, "Gateway a/gw", "InsecureFrontendValidationMode"),
        "True ConfigurationChanged"
    );
    let unknown = tls.replace("AllowInsecureFallback", "Sideways");
    let compiled = cluster(&[CLASS, &gateway(&unknown, HTTPS), CERT]);
    assert_eq!(
        listener(&compiled, "Gateway a/gw", "one", "Accepted"),
        "False UnsupportedValue"
    );
}

#[test]
fn a_gateway_shows_its_certificate_to_servers_behind_tls() {
    let with = |reference: &str| {
        let tls = format!("{{backend: {{clientCertificateRef: {reference}}}}}");
        gateway(
            &tls,
            "[{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]",
        )
    };
    let policy = "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p, namespace: a}
spec:
  targetRefs: [{group: '', kind: Service, name: secure}]
  validation: {hostname: secure.io, wellKnownCACertificates: System}
";
    let text = route(
        "a",
        "r",
        "[{name: secure, port: 80}, {name: plain, port: 80}]",
    );
    let services = [
        service("a", "secure", "{port: 80}"),
        service("a", "plain", "{port: 80}"),
    ];
    let cases = [
        ("{name: cert}", "True ResolvedRefs"),
        ("{name: gone}", "False InvalidClientCertificateRef"),
        (
            "{kind: ConfigMap, name: ca}",
            "False InvalidClientCertificateRef",
        ),
        ("{name: cert, namespace: b}", "False RefNotPermitted"),
    ];
    for (reference, expected) in cases {
        let compiled = cluster(&[
            CLASS,
            &with(reference),
            CERT,
            policy,
            &text,
            &services[0],
            &services[1],
        ]);
        assert_eq!(
            condition(&compiled, "Gateway a/gw", "ResolvedRefs"),
            expected
        );
        assert_eq!(
            condition(&compiled, "Gateway a/gw", "Accepted"),
            "True Accepted"
        );
        for plan in [&compiled.plan, &compiled.gateways[0].plan] {
            let shown: Vec<_> = plan
                .pools
                .values()
                .map(|pool| {
                    let client = pool.tls.as_ref().and_then(|tls| tls.client.as_ref());
                    (pool.key.name.as_str(), client.is_some())
                })
                .collect();
            if expected.starts_with("True") {
                assert_eq!(shown, [("plain:80", false), ("secure:80~a/gw", true)]);
                assert_eq!(goes_to(plan, "h/x"), "a/secure:80~a/gw");
            } else {
                assert_eq!(shown, [("plain:80", false), ("secure:80", false)]);
            }
        }
        assert_eq!(
            condition(&compiled, "BackendTLSPolicy a/p", "Accepted"),
            "True Accepted"
        );
    }
}

fn tls_route(name: &str, hostnames: &str, backends: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {{name: {name}, namespace: a}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: {hostnames}
  rules: [{{backendRefs: {backends}}}]
"
    )
}

#[test]
fn sessions_go_by_the_name_they_ask_for() {
    let listeners = "[{name: pass, port: 443, protocol: TLS, hostname: '*.x.io', tls: {mode: Passthrough}}, \
        {name: end, port: 443, protocol: TLS, hostname: end.io, tls: {certificateRefs: [{name: cert}]}}, \
        {name: web, port: 443, protocol: HTTPS, hostname: web.io, tls: {certificateRefs: [{name: cert}]}}]";
    let routes = [
        tls_route("one", "[a.x.io]", "[{name: one, port: 80}]"),
        tls_route("any", "['*.x.io', end.io]", "[{name: any, port: 80}]"),
        tls_route("lost", "[z.x.io]", "[{name: gone, port: 80}]"),
        tls_route("other", "[web.io]", "[{name: any, port: 80}]"),
    ];
    // A policy, and a protocol that HTTP is not, are of no concern here.
    let policy = "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p, namespace: a}
spec:
  targetRefs: [{group: '', kind: Service, name: any}]
  validation: {hostname: secure.io, wellKnownCACertificates: System}
";
    let services = [
        service("a", "one", "{port: 80, appProtocol: https}"),
        service("a", "any", "{port: 80, appProtocol: tcp}"),
    ];
    let gateway = gateway("{}", listeners);
    let mut parts = vec![CLASS, &gateway, CERT, policy, &services[0], &services[1]];
    parts.extend(routes.iter().map(String::as_str));
    let compiled = cluster(&parts);
    let modes: Vec<_> = compiled.plan.ports[&443]
        .listeners
        .iter()
        .map(|listener| listener.mode)
        .collect();
    assert_eq!(
        modes,
        [
            ListenerMode::TlsTerminate,
            ListenerMode::Http,
            ListenerMode::TlsPassthrough
        ]
    );
    let goes = |name: &str| {
        let rule = compiled.plan.route_session(443, name)?;
        match &rule.choose(0.0)?.target {
            Target::Pool(key) => Some(key.to_string()),
            _ => Some("invalid".to_owned()),
        }
    };
    for (name, expected) in [
        ("a.x.io", Some("a/one:80/tls")),
        ("b.x.io", Some("a/any:80/tls")),
        ("end.io", Some("a/any:80/tls")),
        ("z.x.io", Some("invalid")),
        ("x.io", None),
        ("web.io", None),
    ] {
        assert_eq!(goes(name).as_deref(), expected, "{name}");
    }
    assert!(compiled.plan.pools.values().all(|pool| pool.tls.is_none()));
    assert_eq!(
        condition(&compiled, "TLSRoute a/lost", "ResolvedRefs"),
        "False BackendNotFound"
    );
    assert_eq!(
        condition(&compiled, "TLSRoute a/other", "Accepted"),
        "False NoMatchingListenerHostname"
    );
    for name in ["pass", "end"] {
        let kinds = compiled
            .statuses
            .iter()
            .find(|status| status.listener.as_deref() == Some(name))
            .map(|status| {
                status
                    .supported_kinds
                    .iter()
                    .map(|kind| kind.kind)
                    .collect()
            });
        assert_eq!(kinds, Some(vec!["TLSRoute"]));
    }
}

#[test]
fn listeners_of_one_name_are_in_conflict_whatever_ends_their_tls() {
    let listeners = "[{name: pass, port: 443, protocol: TLS, hostname: x.io, tls: {mode: Passthrough}}, \
        {name: web, port: 443, protocol: HTTPS, hostname: x.io, tls: {certificateRefs: [{name: cert}]}}]";
    let compiled = cluster(&[CLASS, &gateway("{}", listeners), CERT]);
    for name in ["pass", "web"] {
        let conflicted = listener(&compiled, "Gateway a/gw", name, "Conflicted");
        assert_eq!(conflicted, "True HostnameConflict");
    }
}

#[test]
fn a_session_needs_a_listener_that_takes_it() {
    for (listeners, expected) in [
        (HTTPS, "False NotAllowedByListeners"),
        (
            "[{name: t, port: 443, protocol: TLS, tls: {mode: Sideways}}]",
            "True Accepted",
        ),
        (
            "[{name: t, port: 443, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}]",
            "False NotAllowedByListeners",
        ),
    ] {
        let text = tls_route("r", "[x.io]", "[{name: one, port: 80}]");
        let one = service("a", "one", "{port: 80}");
        let compiled = cluster(&[CLASS, &gateway("{}", listeners), CERT, &text, &one]);
        assert_eq!(
            condition(&compiled, "TLSRoute a/r", "Accepted"),
            expected,
            "{listeners}"
        );
    }
    let odd = gateway(
        "{}",
        "[{name: t, port: 443, protocol: TLS, tls: {mode: Sideways}}]",
    );
    let compiled = cluster(&[CLASS, &odd]);
    assert_eq!(
        listener(&compiled, "Gateway a/gw", "t", "Accepted"),
        "False UnsupportedValue"
    );
}
