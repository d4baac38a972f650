//! Gateways, listeners, certificates, and what attaches where.

use super::*;

fn gateway(listeners: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: a, generation: 4}}
spec:
  gatewayClassName: ours
  listeners: {listeners}
"
    )
}

fn secret(namespace: &str, name: &str, body: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
type: kubernetes.io/tls
stringData:
  tls.crt: \"-----BEGIN CERTIFICATE-----\\n{body}\\n-----END CERTIFICATE-----\\n\"
  tls.key: \"-----BEGIN PRIVATE KEY-----\\n{body}\\n-----END PRIVATE KEY-----\\n\"
"
    )
}

/// Accepted, Programmed, ResolvedRefs, Conflicted of a listener, with the reason where something is wrong.
fn judged(compiled: &Compiled, name: &str) -> String {
    let short = |type_: &str| {
        let full = listener(compiled, "Gateway a/gw", name, type_);
        let good = if type_ == "Conflicted" {
            "False"
        } else {
            "True"
        };
        full.strip_prefix(good).map_or(
            full.split(' ').nth(1).unwrap_or_default().to_owned(),
            |_| "ok".to_owned(),
        )
    };
    ["Accepted", "Programmed", "ResolvedRefs", "Conflicted"]
        .map(short)
        .join(" ")
}

/// Listeners, the judgement by listener name, the Gateway's Accepted.
type Case = (String, Vec<(&'static str, &'static str)>, &'static str);

#[test]
fn listeners_are_judged_one_by_one() {
    for case in listener_cases().into_iter().chain(conflict_cases()) {
        judge(case);
    }
}

fn judge((listeners, expected, accepted): Case) {
    let compiled = cluster(&[
        CLASS,
        &gateway(&listeners),
        &secret("a", "cert", "MAMCAQA="),
        &secret("b", "cert", "MAMCAQA="),
        &secret("a", "broken", "Hello world"),
    ]);
    for (name, expected) in &expected {
        assert_eq!(judged(&compiled, name), *expected, "{name} of {listeners}");
    }
    assert_eq!(
        condition(&compiled, "Gateway a/gw", "Accepted"),
        accepted,
        "{listeners}"
    );
    let served: usize = compiled
        .plan
        .ports
        .values()
        .map(|port| port.listeners.len())
        .sum();
    assert_eq!(
        served,
        expected
            .iter()
            .filter(|(_, text)| text.split(' ').nth(1) == Some("ok"))
            .count()
    );
    let programmed = if served > 0 {
        "True Programmed"
    } else {
        "False Invalid"
    };
    assert_eq!(
        condition(&compiled, "Gateway a/gw", "Programmed"),
        programmed,
        "{listeners}"
    );
}

fn listener_cases() -> Vec<Case> {
    let good = "{name: web, port: 80, protocol: HTTP}";
    let https = |name: &str, refs: &str| {
        format!(
            "{{name: {name}, port: 443, hostname: {name}.io, protocol: HTTPS, tls: {{certificateRefs: {refs}}}}}"
        )
    };
    vec![
        (
            format!("[{good}]"),
            vec![("web", "ok ok ok ok")],
            "True Accepted",
        ),
        (
            format!(
                "[{good}, {{name: t, port: 81, protocol: TCP}}, {{name: x, port: 82, protocol: example.com/bar}}]"
            ),
            vec![
                ("web", "ok ok ok ok"),
                ("t", "UnsupportedProtocol Invalid ok ok"),
                ("x", "UnsupportedProtocol Invalid ok ok"),
            ],
            "True ListenersNotValid",
        ),
        (
            "[{name: t, port: 81, protocol: TLS}]".to_owned(),
            vec![("t", "ok Invalid InvalidCertificateRef ok")],
            "True Accepted",
        ),
        (
            format!(
                "[{}, {}, {}, {}]",
                https("good", "[{name: cert}]"),
                https("gone", "[{name: gone}]"),
                https("bad", "[{name: broken}]"),
                https("both", "[{name: gone}, {name: cert}]")
            ),
            vec![
                ("good", "ok ok ok ok"),
                ("gone", "ok Invalid InvalidCertificateRef ok"),
                ("bad", "ok Invalid InvalidCertificateRef ok"),
                ("both", "ok ok InvalidCertificateRef ok"),
            ],
            "True Accepted",
        ),
        (
            format!(
                "[{}, {}, {}]",
                https("none", "[]"),
                https("kind", "[{kind: ConfigMap, name: cert}]"),
                https("far", "[{name: cert, namespace: b}]")
            ),
            vec![
                ("none", "ok Invalid InvalidCertificateRef ok"),
                ("kind", "ok Invalid InvalidCertificateRef ok"),
                ("far", "ok Invalid RefNotPermitted ok"),
            ],
            "True Accepted",
        ),
    ]
}

fn conflict_cases() -> Vec<Case> {
    let good = "{name: web, port: 80, protocol: HTTP}";
    vec![
        (
            format!("[{good}, {{name: p, port: 80, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}, {{name: q, port: 81, protocol: HTTP}}]"),
            vec![
                ("web", "ProtocolConflict Invalid ok ProtocolConflict"),
                ("p", "ProtocolConflict Invalid ok ProtocolConflict"),
                ("q", "ok ok ok ok"),
            ],
            "True ListenersNotValid",
        ),
        (
            "[{name: h, port: 80, protocol: HTTP, hostname: A.io}, {name: i, port: 80, protocol: HTTP, hostname: a.io}, {name: j, port: 80, protocol: HTTP, hostname: b.io}]".to_owned(),
            vec![
                ("h", "HostnameConflict Invalid ok HostnameConflict"),
                ("i", "HostnameConflict Invalid ok HostnameConflict"),
                ("j", "ok ok ok ok"),
            ],
            "True ListenersNotValid",
        ),
        (
            "[{name: k, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: Nonsense}]}}, {name: l, port: 81, protocol: HTTP, allowedRoutes: {kinds: [{group: x.io, kind: HTTPRoute}]}}]".to_owned(),
            vec![("k", "ok ok InvalidRouteKinds ok"), ("l", "ok Invalid InvalidRouteKinds ok")],
            "True Accepted",
        ),
        (
            "[{name: m, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}]".to_owned(),
            vec![("m", "UnsupportedProtocol Invalid InvalidCertificateRef ok")],
            "False ListenersNotValid",
        ),
    ]
}

#[test]
fn a_certificate_of_another_namespace_needs_a_grant() {
    let https = gateway(
        "[{name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: b}]}}]",
    );
    let cases = [
        (
            grant("b", "Gateway", "a", "{group: '', kind: Secret}"),
            "True ResolvedRefs",
        ),
        (
            grant("b", "Gateway", "a", "{group: '', kind: Secret, name: cert}"),
            "True ResolvedRefs",
        ),
        (
            grant(
                "b",
                "Gateway",
                "a",
                "{group: '', kind: Secret, name: other}",
            ),
            "False RefNotPermitted",
        ),
        (
            grant("b", "HTTPRoute", "a", "{group: '', kind: Secret}"),
            "False RefNotPermitted",
        ),
        (
            grant("a", "Gateway", "a", "{group: '', kind: Secret}"),
            "False RefNotPermitted",
        ),
    ];
    for (grant, expected) in cases {
        let compiled = cluster(&[CLASS, &https, &grant, &secret("b", "cert", "MAMCAQA=")]);
        assert_eq!(
            listener(&compiled, "Gateway a/gw", "tls", "ResolvedRefs"),
            expected,
            "{grant}"
        );
        if expected.starts_with("True") {
            let certificate = &compiled.plan.ports[&443].listeners[0].certificates[0];
            assert!(
                compiled.plan.ports[&443].tls
                    && certificate.source == "b/cert"
                    && !format!("{certificate:?}").contains("PRIVATE")
            );
        }
    }
}

#[test]
fn gateways_and_classes_are_claimed_by_controller_name() {
    let of = |class: &str| GATEWAY.replace("ours", class);
    let parameters = CLASS.replace(
        "pointsman.dev/gateway-controller",
        "pointsman.dev/gateway-controller, parametersRef: {group: '', kind: ConfigMap, name: x}",
    );
    let infrastructure = GATEWAY.replace(
        "spec:",
        "spec:\n  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: x}}",
    );
    let named = GATEWAY.replace(
        "spec:",
        "spec:\n  addresses: [{type: NamedAddress, value: x}]",
    );
    // classes, Gateway, in files, in a cluster
    let cases = [
        (CLASS, of("ours"), "True Accepted", "True Accepted"),
        (CLASS, of("theirs"), "none", "none"),
        (CLASS, of("nowhere"), "True Accepted", "none"),
        ("", of("ours"), "True Accepted", "none"),
        (
            &parameters,
            of("ours"),
            "False InvalidParameters",
            "False InvalidParameters",
        ),
        (
            CLASS,
            infrastructure,
            "False InvalidParameters",
            "False InvalidParameters",
        ),
        (
            CLASS,
            named,
            "False UnsupportedAddress",
            "False UnsupportedAddress",
        ),
    ];
    for (class, gateway, in_files, in_cluster) in cases {
        let route = route("a", "r", "[]");
        for (compiled, expected) in [
            (files(&[class, &gateway, &route]), in_files),
            (cluster(&[class, &gateway, &route]), in_cluster),
        ] {
            assert_eq!(
                condition(&compiled, "Gateway a/gw", "Accepted"),
                expected,
                "{class} {gateway}"
            );
            assert_eq!(
                compiled.plan.ports.len(),
                usize::from(expected.starts_with("True"))
            );
            assert_eq!(
                condition(&compiled, "HTTPRoute a/r", "Accepted") == "none",
                expected == "none"
            );
        }
    }
    assert_eq!(
        condition(&cluster(&[CLASS]), "GatewayClass ours", "Accepted"),
        "True Accepted"
    );
    assert_eq!(
        condition(&cluster(&[CLASS]), "GatewayClass theirs", "Accepted"),
        "none"
    );
}

#[test]
fn client_certificates_that_are_demanded_are_not_waived() {
    let text = gateway(
        "[{name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}, {name: tls2, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]",
    );
    let text = format!(
        "{text}  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}}}, perPort: [{{port: 444, tls: {{}}}}]}}}}\n"
    );
    let compiled = cluster(&[CLASS, &text, &secret("a", "cert", "MAMCAQA=")]);
    assert_eq!(
        listener(&compiled, "Gateway a/gw", "tls", "Accepted"),
        "False NoValidCACertificate"
    );
    assert_eq!(compiled.plan.ports.keys().collect::<Vec<_>>(), [&444]);
}

#[test]
fn routes_attach_where_they_may() {
    let listeners = gateway(
        "[{name: any, port: 80, protocol: HTTP, hostname: '*.a.io', allowedRoutes: {namespaces: {from: All}}},
          {name: same, port: 81, protocol: HTTP},
          {name: grpc, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}], namespaces: {from: All}}},
          {name: some, port: 83, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: x}}}}},
          {name: byname, port: 84, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: c}}}}}]",
    );
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: b, labels: {team: x}}\n";
    // namespace, parentRef, hostnames, Accepted, listeners attached to
    let cases = [
        ("a", "{name: gw}", "[]", "True Accepted", "any same"),
        (
            "a",
            "{name: gw, sectionName: same}",
            "[]",
            "True Accepted",
            "same",
        ),
        ("a", "{name: gw, port: 80}", "[]", "True Accepted", "any"),
        (
            "a",
            "{name: gw, port: 80, sectionName: same}",
            "[]",
            "False NoMatchingParent",
            "",
        ),
        (
            "a",
            "{name: gw, sectionName: nope}",
            "[]",
            "False NoMatchingParent",
            "",
        ),
        (
            "a",
            "{name: gw, sectionName: grpc}",
            "[]",
            "False NotAllowedByListeners",
            "",
        ),
        (
            "a",
            "{name: gw, sectionName: any}",
            "[b.io]",
            "False NoMatchingListenerHostname",
            "",
        ),
        ("a", "{name: gw}", "[b.io]", "True Accepted", "same"),
        (
            "a",
            "{name: gw, sectionName: any}",
            "[a.io]",
            "False NoMatchingListenerHostname",
            "",
        ),
        (
            "a",
            "{name: gw, sectionName: any}",
            "['x.a.io', 'a.io']",
            "True Accepted",
            "any",
        ),
        (
            "b",
            "{name: gw, namespace: a}",
            "[]",
            "True Accepted",
            "any some",
        ),
        (
            "b",
            "{name: gw, namespace: a, sectionName: same}",
            "[]",
            "False NotAllowedByListeners",
            "",
        ),
        (
            "c",
            "{name: gw, namespace: a}",
            "[]",
            "True Accepted",
            "any byname",
        ),
        ("b", "{name: gw}", "[]", "none", ""),
    ];
    for (place, parent, hostnames, accepted, attached) in cases {
        let route = route(place, "r", "[]")
            .replace("{name: gw, namespace: a}", parent)
            .replace("  rules", &format!("  hostnames: {hostnames}\n  rules"));
        let compiled = cluster(&[CLASS, &listeners, namespace, &route]);
        let what = format!("{place} {parent} {hostnames}");
        assert_eq!(
            condition(&compiled, &format!("HTTPRoute {place}/r"), "Accepted"),
            accepted,
            "{what}"
        );
        let on = compiled
            .statuses
            .iter()
            .filter(|status| status.attached_routes == 1)
            .filter_map(|s| s.listener.as_deref());
        let mut on: Vec<_> = on.collect();
        on.sort_by_key(|name| {
            ["any", "same", "grpc", "some", "byname"]
                .iter()
                .position(|known| known == name)
        });
        assert_eq!(on.join(" "), attached, "{what}");
    }
}

#[test]
fn two_references_to_one_listener_attach_once() {
    let twice = route("a", "r", "[]").replace(
        "[{name: gw, namespace: a}]",
        "[{name: gw}, {name: gw, port: 80}]",
    );
    let compiled = cluster(&[CLASS, GATEWAY, &twice]);
    assert_eq!(compiled.plan.ports[&80].listeners[0].rules.len(), 1);
    assert!(
        lines(&compiled)
            .iter()
            .any(|line| line.contains("[web: 1 attached"))
    );
}

#[test]
fn files_say_when_a_parent_is_missing() {
    let stray = route("b", "r", "[]").replace(", namespace: a}]", "}]");
    assert_eq!(
        condition(
            &files(&[CLASS, GATEWAY, &stray]),
            "HTTPRoute b/r",
            "Accepted"
        ),
        "False NoMatchingParent"
    );
}

#[test]
fn gateways_in_files_share_ports_and_in_a_cluster_do_not() {
    let young = GATEWAY
        .replace("name: gw", "name: young")
        .replace("generation: 4", "creationTimestamp: 2025-01-02T00:00:00Z");
    let old = GATEWAY.replace("generation: 4", "creationTimestamp: 2025-01-01T00:00:00Z");
    let third = young
        .replace("name: young", "name: third")
        .replace("port: 80", "hostname: third.io, port: 80");
    let to_young = route("a", "y", "[]").replace("name: gw", "name: young");
    let shared = files(&[CLASS, &old, &young, &third, &to_young]);
    assert_eq!(
        listener(&shared, "Gateway a/young", "web", "Conflicted"),
        "True HostnameConflict"
    );
    assert_eq!(
        condition(&shared, "Gateway a/young", "Accepted"),
        "False ListenersNotValid"
    );
    assert_eq!(
        listener(&shared, "Gateway a/gw", "web", "Conflicted"),
        "False NoConflicts"
    );
    assert_eq!(
        condition(&shared, "HTTPRoute a/y", "Accepted"),
        "False NotAllowedByListeners"
    );
    let names: Vec<_> = shared.plan.ports[&80]
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(names, ["a/third/web", "a/gw/web"]);

    let apart = cluster(&[CLASS, &old, &young, &third, &to_young]);
    assert_eq!(
        condition(&apart, "Gateway a/young", "Accepted"),
        "True Accepted"
    );
    let own: Vec<_> = apart
        .gateways
        .iter()
        .map(|own| {
            (
                own.gateway.name.as_str(),
                own.plan.ports[&80].listeners.len(),
            )
        })
        .collect();
    assert_eq!(own, [("gw", 1), ("third", 1), ("young", 1)]);
    assert_eq!(
        apart.gateways[2].plan.ports[&80].listeners[0].rules.len(),
        1
    );
}

#[test]
fn trust_is_an_annotation_of_the_gateway() {
    for (text, trusted) in [
        ("annotations: {pointsman.dev/trusted: 'true'}", true),
        ("annotations: {pointsman.dev/trusted: 'yes'}", false),
        ("generation: 1", false),
    ] {
        let compiled = files(&[CLASS, &GATEWAY.replace("generation: 4", text)]);
        assert_eq!(
            compiled.plan.ports[&80].listeners[0].trusted, trusted,
            "{text}"
        );
    }
}
