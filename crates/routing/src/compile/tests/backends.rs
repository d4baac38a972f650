//! What backendRefs lead to.

use super::*;

fn resolved(backend: &str, more: &[&str]) -> (String, String, Compiled) {
    let route = route("a", "r", &format!("[{backend}]"));
    let mut parts = vec![CLASS, GATEWAY, POOLS, &route];
    parts.extend(more);
    let compiled = cluster(&parts);
    assert_eq!(
        condition(&compiled, "HTTPRoute a/r", "Accepted"),
        "True Accepted",
        "{backend}"
    );
    (
        condition(&compiled, "HTTPRoute a/r", "ResolvedRefs"),
        goes_to(&compiled.plan, "h/"),
        compiled,
    )
}

#[test]
fn references_resolve_or_say_why_not() {
    let web = service(
        "a",
        "web",
        "{name: http, port: 80}, {name: udp, port: 81, protocol: UDP}, {port: 82, appProtocol: https}",
    );
    let import = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: InferencePoolImport\nmetadata: {name: far, namespace: a}\n";
    let external = "apiVersion: v1\nkind: Service\nmetadata: {name: ext, namespace: a}\nspec: {type: ExternalName, externalName: x.io, ports: [{port: 80}]}\n";
    let group = "group: inference.networking.x-k8s.io";
    let cases = [
        (
            "{name: web, port: 80}".to_owned(),
            "True ResolvedRefs",
            "a/web:80",
        ),
        ("{name: web}".to_owned(), "False BackendNotFound", "invalid"),
        (
            "{name: web, port: 8080}".to_owned(),
            "False BackendNotFound",
            "invalid",
        ),
        (
            "{name: web, port: 81}".to_owned(),
            "False UnsupportedProtocol",
            "invalid",
        ),
        (
            "{name: web, port: 82}".to_owned(),
            "False UnsupportedProtocol",
            "invalid",
        ),
        (
            "{name: gone, port: 80}".to_owned(),
            "False BackendNotFound",
            "invalid",
        ),
        (
            "{name: ext, port: 80}".to_owned(),
            "False BackendNotFound",
            "invalid",
        ),
        (
            "{kind: Gadget, name: web}".to_owned(),
            "False InvalidKind",
            "invalid",
        ),
        (
            "{group: x.io, kind: Service, name: web, port: 80}".to_owned(),
            "False InvalidKind",
            "invalid",
        ),
        (pool_ref("llama"), "True ResolvedRefs", "a/llama"),
        (
            pool_ref("llama").replace('}', ", port: 8888}"),
            "True ResolvedRefs",
            "a/llama",
        ),
        (pool_ref("old"), "False BackendNotFound", "invalid"),
        (
            format!("{{{group}, kind: InferencePool, name: old}}"),
            "True ResolvedRefs",
            "a/old",
        ),
        (
            format!("{{{group}, kind: InferencePool, name: llama}}"),
            "False BackendNotFound",
            "invalid",
        ),
        (
            format!("{{{group}, kind: InferencePoolImport, name: far}}"),
            "False InvalidKind",
            "invalid",
        ),
        (
            format!("{{{group}, kind: InferencePoolImport, name: nope}}"),
            "False BackendNotFound",
            "invalid",
        ),
    ];
    for (backend, expected, target) in cases {
        let (condition, goes, _) = resolved(&backend, &[&web, import, external]);
        assert_eq!(condition, expected, "{backend}");
        assert!(goes.starts_with(target), "{backend}: {goes}");
    }
    let (_, _, compiled) = resolved(
        &format!("{{{group}, kind: InferencePoolImport, name: far}}"),
        &[import],
    );
    assert_eq!(
        condition(&compiled, "InferencePoolImport a/far", "Accepted"),
        "False NotSupportedByParent"
    );
}

#[test]
fn no_backend_or_no_weight_is_500() {
    for backends in ["[]", "[{name: web, port: 80, weight: 0}]"] {
        let compiled = cluster(&[
            CLASS,
            GATEWAY,
            &route("a", "r", backends),
            &service("a", "web", "{port: 80}"),
        ]);
        assert_eq!(goes_to(&compiled.plan, "h/"), "500", "{backends}");
    }
}

#[test]
fn the_port_says_what_the_servers_speak() {
    let policy = tls_policy(
        "web",
        "wellKnownCACertificates: System, hostname: web.io",
        "2025-01-01",
    );
    // port, protocol and TLS without and with a policy; None: UnsupportedProtocol
    let cases = [
        (
            "{port: 80}",
            Some((AppProtocol::Http, false)),
            Some((AppProtocol::Http, true)),
        ),
        (
            "{port: 80, appProtocol: http}",
            Some((AppProtocol::Http, false)),
            Some((AppProtocol::Http, true)),
        ),
        (
            "{port: 80, appProtocol: kubernetes.io/ws}",
            Some((AppProtocol::Http, false)),
            Some((AppProtocol::Http, true)),
        ),
        (
            "{port: 80, appProtocol: kubernetes.io/h2c}",
            Some((AppProtocol::H2c, false)),
            Some((AppProtocol::H2c, true)),
        ),
        (
            "{port: 80, appProtocol: kubernetes.io/wss}",
            None,
            Some((AppProtocol::Http, true)),
        ),
        (
            "{port: 80, appProtocol: https}",
            None,
            Some((AppProtocol::Http, true)),
        ),
        (
            "{port: 80, appProtocol: example.com/mine}",
            Some((AppProtocol::Http, false)),
            Some((AppProtocol::Http, true)),
        ),
        ("{port: 80, appProtocol: kubernetes.io/future}", None, None),
        ("{port: 80, appProtocol: tcp}", None, None),
    ];
    for (port, plain, with_policy) in cases {
        for (policy, expected) in [("", plain), (policy.as_str(), with_policy)] {
            let (condition, _, compiled) = resolved(
                "{name: web, port: 80}",
                &[&service("a", "web", port), policy],
            );
            let pool = compiled.plan.pools.values().next();
            assert_eq!(
                pool.map(|pool| (pool.protocol, pool.tls.is_some())),
                expected,
                "{port} {policy}"
            );
            let expected = if expected.is_some() {
                "True ResolvedRefs"
            } else {
                "False UnsupportedProtocol"
            };
            assert_eq!(condition, expected, "{port} {policy}");
        }
    }
}

fn tls_policy(name: &str, validation: &str, day: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: tls-{day}, namespace: a, generation: 5, creationTimestamp: {day}T00:00:00Z}}
spec:
  targetRefs: [{{group: '', kind: Service, name: {name}}}]
  validation: {{{validation}}}
"
    )
}

#[test]
fn a_tls_policy_that_cannot_be_used_closes_its_servers() {
    let map = |name: &str, body: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: a}}\ndata: {{ca.crt: \"-----BEGIN CERTIFICATE-----\\n{body}\\n-----END CERTIFICATE-----\\n\"}}\n"
        )
    };
    let (good, bad) = (map("ca", "MAMCAQA="), map("bad", "hello"));
    let refs = |names: &[&str]| {
        let all: Vec<_> = names
            .iter()
            .map(|name| format!("{{group: '', kind: ConfigMap, name: {name}}}"))
            .collect();
        format!("hostname: web.io, caCertificateRefs: [{}]", all.join(", "))
    };
    // validation, Accepted, ResolvedRefs, does traffic flow
    let cases = [
        ("hostname: web.io, wellKnownCACertificates: System".to_owned(), "True Accepted", "True ResolvedRefs", true),
        ("hostname: web.io, wellKnownCACertificates: Other".to_owned(), "False Invalid", "True ResolvedRefs", false),
        ("hostname: web.io".to_owned(), "False Invalid", "True ResolvedRefs", false),
        ("hostname: '', wellKnownCACertificates: System".to_owned(), "False Invalid", "True ResolvedRefs", false),
        (
            "hostname: web.io, wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, hostname: x}, {type: URI, uri: 'spiffe://x/y'}]".to_owned(),
            "True Accepted",
            "True ResolvedRefs",
            true,
        ),
        (
            "hostname: web.io, wellKnownCACertificates: System, subjectAltNames: [{type: URI, hostname: x}]".to_owned(),
            "False Invalid",
            "True ResolvedRefs",
            false,
        ),
        (
            "hostname: web.io, wellKnownCACertificates: System, subjectAltNames: [{type: Email}]".to_owned(),
            "False Invalid",
            "True ResolvedRefs",
            false,
        ),
        (refs(&["ca"]), "True Accepted", "True ResolvedRefs", true),
        (refs(&["bad"]), "False NoValidCACertificate", "False InvalidCACertificateRef", false),
        (refs(&["gone"]), "False NoValidCACertificate", "False InvalidCACertificateRef", false),
        (refs(&["ca", "gone"]), "True Accepted", "False InvalidCACertificateRef", true),
        (refs(&["ca"]).replace("ConfigMap", "Gadget"), "False NoValidCACertificate", "False InvalidKind", false),
    ];
    for (validation, accepted, resolved_refs, flows) in cases {
        let policy = tls_policy("web", &validation, "2025-01-01");
        let (route, goes, compiled) = resolved(
            "{name: web, port: 80}",
            &[&service("a", "web", "{port: 80}"), &policy, &good, &bad],
        );
        assert_eq!(
            condition(&compiled, "BackendTLSPolicy a/tls-2025-01-01", "Accepted"),
            accepted,
            "{validation}"
        );
        assert_eq!(
            condition(
                &compiled,
                "BackendTLSPolicy a/tls-2025-01-01",
                "ResolvedRefs"
            ),
            resolved_refs,
            "{validation}"
        );
        assert_eq!(
            (route.as_str(), goes == "a/web:80"),
            ("True ResolvedRefs", flows),
            "{validation}"
        );
    }
}

#[test]
fn the_older_and_the_more_specific_tls_policy_win() {
    let old = tls_policy(
        "web",
        "hostname: old, wellKnownCACertificates: System",
        "2025-01-01",
    );
    let young = tls_policy(
        "web",
        "hostname: young, wellKnownCACertificates: System",
        "2025-01-02",
    );
    let for_port = tls_policy(
        "web",
        "hostname: port, wellKnownCACertificates: System",
        "2025-01-03",
    )
    .replace("name: web}", "name: web, sectionName: http}");
    let (_, _, compiled) = resolved(
        "{name: web, port: 80}, {name: web, port: 81}",
        &[
            &service(
                "a",
                "web",
                "{name: http, port: 80}, {name: other, port: 81}",
            ),
            &old,
            &young,
            &for_port,
        ],
    );
    let names: Vec<_> = compiled
        .plan
        .pools
        .values()
        .map(|pool| pool.tls.clone().expect("TLS").server_name.expect("a name"))
        .collect();
    assert_eq!(names, ["port", "old"]);
    assert_eq!(
        condition(&compiled, "BackendTLSPolicy a/tls-2025-01-02", "Accepted"),
        "False Conflicted"
    );
    assert_eq!(
        condition(&compiled, "BackendTLSPolicy a/tls-2025-01-01", "Accepted"),
        "True Accepted"
    );
}
