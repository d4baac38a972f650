//! ListenerSets: who may add listeners, who yields, and what attaches to them.

use super::*;

const OPEN: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: a, generation: 4}
spec:
  gatewayClassName: ours
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: web, port: 80, protocol: HTTP, hostname: own.io, allowedRoutes: {namespaces: {from: All}}}]
";

/// A ListenerSet for Gateway `a/gw`.
fn set(namespace: &str, name: &str, created: &str, listeners: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, generation: 2, creationTimestamp: '{created}T00:00:00Z'}}
spec:
  parentRef: {{name: gw, namespace: a}}
  listeners: {listeners}
"
    )
}

fn http(name: &str, hostname: &str) -> String {
    format!(
        "{{name: {name}, port: 80, protocol: HTTP, hostname: {hostname}, allowedRoutes: {{namespaces: {{from: All}}}}}}"
    )
}

fn attached(compiled: &Compiled) -> u32 {
    let of_gateway = |status: &&ObjectStatus| {
        status.object.to_string() == "Gateway a/gw" && status.listener.is_none()
    };
    let found = compiled.statuses.iter().find(of_gateway);
    found.expect("a status").attached_listener_sets
}

#[test]
fn a_gateway_says_whose_sets_may_attach() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: b, labels: {team: blue}}\n";
    let cases = [
        ("{namespaces: {from: All}}", "True Accepted"),
        ("{namespaces: {from: Same}}", "False NotAllowed"),
        ("{namespaces: {from: None}}", "False NotAllowed"),
        ("{namespaces: {from: Sideways}}", "False NotAllowed"),
        ("{}", "False NotAllowed"),
        (
            "{namespaces: {from: Selector, selector: {matchLabels: {team: blue}}}}",
            "True Accepted",
        ),
        (
            "{namespaces: {from: Selector, selector: {matchLabels: {team: red}}}}",
            "False NotAllowed",
        ),
    ];
    for (allowed, expected) in cases {
        let gateway = OPEN.replace(
            "{namespaces: {from: All}}\n  listeners",
            &format!("{allowed}\n  listeners"),
        );
        let one = set(
            "b",
            "s",
            "2025-01-01",
            &format!("[{}]", http("l", "set.io")),
        );
        let compiled = cluster(&[CLASS, &gateway, namespace, &one]);
        let is_in = expected.starts_with("True");
        assert_eq!(
            condition(&compiled, "ListenerSet b/s", "Accepted"),
            expected,
            "{allowed}"
        );
        let programmed = if is_in { "True Programmed" } else { expected };
        assert_eq!(
            condition(&compiled, "ListenerSet b/s", "Programmed"),
            programmed,
            "{allowed}"
        );
        assert_eq!(attached(&compiled), u32::from(is_in), "{allowed}");
        assert_eq!(
            compiled.plan.ports[&80].listeners.len(),
            1 + usize::from(is_in)
        );
    }
    let same = OPEN.replace("from: All}}\n  listeners", "from: Same}}\n  listeners");
    let one = set(
        "a",
        "s",
        "2025-01-01",
        &format!("[{}]", http("l", "set.io")),
    );
    let compiled = cluster(&[CLASS, &same, &one]);
    assert_eq!(
        condition(&compiled, "ListenerSet a/s", "Accepted"),
        "True Accepted"
    );
    assert_eq!(
        condition(&compiled, "Gateway a/gw", "Accepted"),
        "True Accepted"
    );
}

#[test]
fn later_listeners_yield_to_earlier_ones() {
    let young = set(
        "b",
        "young",
        "2025-01-02",
        &format!(
            "[{}, {}, {}]",
            http("own", "own.io"),
            http("old", "old.io"),
            http("free", "free.io")
        ),
    );
    let old = set(
        "b",
        "old",
        "2025-01-01",
        &format!("[{}]", http("l", "old.io")),
    );
    let tcp = set(
        "b",
        "tcp",
        "2025-01-03",
        "[{name: l, port: 80, protocol: TCP}]",
    );
    let compiled = cluster(&[CLASS, OPEN, &young, &old, &tcp]);
    let judged = |object: &str, name: &str| {
        ["Accepted", "Programmed", "Conflicted"]
            .map(|type_| listener(&compiled, object, name, type_))
    };
    let good = ["True Accepted", "True Programmed", "False NoConflicts"];
    let lost = |why: &str| {
        [
            format!("False {why}"),
            format!("False {why}"),
            format!("True {why}"),
        ]
    };
    assert_eq!(judged("Gateway a/gw", "web"), good);
    assert_eq!(judged("ListenerSet b/old", "l"), good);
    assert_eq!(judged("ListenerSet b/young", "free"), good);
    assert_eq!(
        judged("ListenerSet b/young", "own"),
        lost("HostnameConflict")
    );
    assert_eq!(
        judged("ListenerSet b/young", "old"),
        lost("HostnameConflict")
    );
    assert_eq!(judged("ListenerSet b/tcp", "l"), lost("ProtocolConflict"));
    for (name, expected) in [
        ("old", "True Accepted"),
        ("young", "True ListenersNotValid"),
        ("tcp", "False ListenersNotValid"),
    ] {
        let object = format!("ListenerSet b/{name}");
        assert_eq!(condition(&compiled, &object, "Accepted"), expected);
    }
    assert_eq!(attached(&compiled), 2);
    assert_eq!(compiled.plan.ports[&80].listeners.len(), 3);
}

#[test]
fn routes_attach_to_the_parent_they_name() {
    let parent = "[{name: gw, namespace: a}]";
    let with = |name: &str, parents: &str| {
        route("b", name, "[{name: web, port: 80}]")
            .replace(parent, parents)
            .replace(
                "rules: [{",
                &format!("rules: [{{matches: [{{path: {{value: /{name}}}}}], "),
            )
    };
    let of_set = "[{kind: ListenerSet, name: s}]";
    let section = "[{kind: ListenerSet, name: s, sectionName: two}]";
    let wrong = "[{name: gw, namespace: a, sectionName: one}]";
    let nobody = "[{kind: ListenerSet, name: gone}]";
    let one = set(
        "b",
        "s",
        "2025-01-01",
        "[{name: one, port: 80, protocol: HTTP, hostname: one.io}, {name: two, port: 80, protocol: HTTP, hostname: two.io}]",
    );
    let routes = [
        with("gateway", parent),
        with("set", of_set),
        with("section", section),
        with("wrong", wrong),
        with("nobody", nobody),
    ];
    let web = service("b", "web", "{port: 80}");
    let mut parts = vec![CLASS, OPEN, &one, &web];
    parts.extend(routes.iter().map(String::as_str));
    let compiled = cluster(&parts);
    let goes = |url: &str| goes_to(&compiled.plan, url);
    for (url, expected) in [
        ("own.io/gateway", "b/web:80"),
        ("one.io/gateway", "404"),
        ("own.io/set", "404"),
        ("one.io/set", "b/web:80"),
        ("two.io/set", "b/web:80"),
        ("one.io/section", "404"),
        ("two.io/section", "b/web:80"),
        ("one.io/wrong", "404"),
        ("own.io/wrong", "404"),
    ] {
        assert_eq!(goes(url), expected, "{url}");
    }
    assert_eq!(
        condition(&compiled, "HTTPRoute b/set", "Accepted"),
        "True Accepted"
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute b/wrong", "Accepted"),
        "False NoMatchingParent"
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute b/nobody", "Accepted"),
        "none"
    );
    let counts: Vec<_> = compiled
        .statuses
        .iter()
        .filter_map(|status| Some((status.listener.as_deref()?, status.attached_routes)))
        .collect();
    assert_eq!(counts, [("web", 1), ("one", 1), ("two", 2)]);
    // To files what is not described is missing.
    let compiled = files(&parts);
    assert_eq!(
        condition(&compiled, "HTTPRoute b/nobody", "Accepted"),
        "False NoMatchingParent"
    );
}

#[test]
fn a_set_is_its_own_namespace_for_routes_and_secrets() {
    let tls = set(
        "b",
        "s",
        "2025-01-01",
        "[{name: l, port: 443, protocol: HTTPS, hostname: set.io, tls: {certificateRefs: [{name: cert, namespace: c}]}}]",
    );
    let cert = "
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: c}
stringData:
  tls.crt: \"-----BEGIN CERTIFICATE-----\\nMAMCAQA=\\n-----END CERTIFICATE-----\\n\"
  tls.key: \"-----BEGIN PRIVATE KEY-----\\nMAMCAQA=\\n-----END PRIVATE KEY-----\\n\"
";
    let of_gateway = grant("c", "Gateway", "a", "{group: '', kind: Secret}");
    let of_set = grant("c", "ListenerSet", "b", "{group: '', kind: Secret}");
    for (grant, expected, accepted) in [
        (
            &of_gateway,
            "False RefNotPermitted",
            "False ListenersNotValid",
        ),
        (&of_set, "True ResolvedRefs", "True Accepted"),
    ] {
        let compiled = cluster(&[CLASS, OPEN, &tls, cert, grant]);
        assert_eq!(
            listener(&compiled, "ListenerSet b/s", "l", "ResolvedRefs"),
            expected
        );
        assert_eq!(
            condition(&compiled, "ListenerSet b/s", "Accepted"),
            accepted
        );
    }
    let plain = set(
        "b",
        "s",
        "2025-01-01",
        "[{name: l, port: 80, protocol: HTTP, hostname: set.io}]",
    );
    for (namespace, expected) in [("a", "False NotAllowedByListeners"), ("b", "True Accepted")] {
        let text = route(namespace, "r", "[]").replace(
            "[{name: gw, namespace: a}]",
            "[{kind: ListenerSet, name: s, namespace: b}]",
        );
        let compiled = cluster(&[CLASS, OPEN, &plain, &text]);
        let object = format!("HTTPRoute {namespace}/r");
        assert_eq!(condition(&compiled, &object, "Accepted"), expected);
    }
}

#[test]
fn a_set_of_a_refused_gateway_is_refused_and_others_are_not_ours() {
    let one = set(
        "b",
        "s",
        "2025-01-01",
        &format!("[{}]", http("l", "set.io")),
    );
    let refused = OPEN.replace(
        "spec:",
        "spec:\n  addresses: [{type: NamedAddress, value: x}]",
    );
    let compiled = cluster(&[CLASS, &refused, &one]);
    assert_eq!(
        condition(&compiled, "ListenerSet b/s", "Accepted"),
        "False ParentNotAccepted"
    );
    let theirs = OPEN.replace("gatewayClassName: ours", "gatewayClassName: theirs");
    let compiled = cluster(&[CLASS, &theirs, &one]);
    assert_eq!(condition(&compiled, "ListenerSet b/s", "Accepted"), "none");
}
