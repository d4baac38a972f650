//! Status scenarios of pools and routes that users of other gateways rely on.

use super::*;

const SECOND: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw2, namespace: b}
spec:
  gatewayClassName: ours
  listeners: [{name: web, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: foreign, namespace: a}
spec:
  gatewayClassName: theirs
  listeners: [{name: web, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

const EPP_POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: epp, namespace: a, generation: 9}
spec:
  selector: {matchLabels: {app: llama}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, kind: KIND, port: {number: 9002}}
";

fn with_parents(name: &str, parents: &str, backends: &str) -> String {
    route("a", name, backends).replace("[{name: gw, namespace: a}]", parents)
}

/// The Gateways that a pool's status names, with Accepted.
fn parents(compiled: &Compiled, pool: &str) -> Vec<String> {
    let all = compiled
        .statuses
        .iter()
        .filter(|status| status.object.to_string() == format!("InferencePool {pool}"));
    let text = |status: &ObjectStatus| {
        let types: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| condition.type_)
            .collect();
        assert_eq!(types, ["Accepted", "ResolvedRefs"]);
        let parent = status.parent.as_ref().expect("a parent");
        assert_eq!(
            (parent.kind.as_str(), &parent.section, parent.port),
            ("Gateway", &None, None)
        );
        format!(
            "{}/{} {} {}",
            parent.namespace, parent.name, status.conditions[0].status, status.conditions[0].reason
        )
    };
    all.map(text).collect()
}

fn parents_with(routes: &[String]) -> Vec<String> {
    let mut parts = vec![CLASS, GATEWAY, SECOND, POOLS];
    parts.extend(routes.iter().map(String::as_str));
    parents(&cluster(&parts), "a/llama")
}

#[test]
fn a_pool_names_each_gateway_that_uses_it_once() {
    let pool = format!("[{}]", pool_ref("llama"));
    let on = |name: &str, parents: &str| with_parents(name, parents, &pool);
    let (gw, gw2, foreign) = ("{name: gw}", "{name: gw2, namespace: b}", "{name: foreign}");
    let (first, second) = ("a/gw True Accepted", "b/gw2 True Accepted");
    let cases: [(&str, Vec<String>, &[&str]); 12] = [
        (
            "accepted route (S-01, S-14)",
            vec![on("r", &format!("[{gw}]"))],
            &[first],
        ),
        (
            "a foreign Gateway beside ours (S-02)",
            vec![on("r", &format!("[{gw}, {foreign}]"))],
            &[first],
        ),
        (
            "two routes, two Gateways (S-05)",
            vec![on("r", &format!("[{gw}]")), on("s", &format!("[{gw2}]"))],
            &[first, second],
        ),
        (
            "two routes, one Gateway (S-06)",
            vec![on("r", &format!("[{gw}]")), on("s", &format!("[{gw}]"))],
            &[first],
        ),
        ("no route any more (S-07)", vec![], &[]),
        (
            "a Gateway elsewhere (S-11)",
            vec![on("r", &format!("[{gw2}]"))],
            &[second],
        ),
        (
            "a listener by name twice",
            vec![on(
                "r",
                "[{name: gw, sectionName: web}, {name: gw, port: 80}]",
            )],
            &[first],
        ),
        (
            "only a foreign Gateway (S-18)",
            vec![on("r", &format!("[{foreign}]"))],
            &[],
        ),
        (
            "no backend (S-19)",
            vec![with_parents("r", &format!("[{gw}]"), "[]")],
            &[],
        ),
        ("no parent (S-20)", vec![on("r", "[]")], &[]),
        (
            "refused by the Gateway (S-16)",
            vec![on("r", "[{name: gw, sectionName: no}]")],
            &["a/gw False HTTPRouteNotAccepted"],
        ),
        (
            "one refused and one accepted",
            vec![
                on("r", "[{name: gw, sectionName: no}]"),
                on("s", &format!("[{gw}]")),
            ],
            &[first],
        ),
    ];
    for (what, routes, expected) in cases {
        assert_eq!(parents_with(&routes), expected, "{what}");
    }
}

#[test]
fn a_refusal_names_route_and_gateway() {
    let compiled = cluster(&[
        CLASS,
        GATEWAY,
        POOLS,
        &with_parents(
            "r",
            "[{name: gw, sectionName: no}]",
            &format!("[{}]", pool_ref("llama")),
        ),
    ]);
    let line = lines(&compiled)
        .into_iter()
        .find(|line| line.starts_with("InferencePool a/llama") && line.contains("Accepted="));
    let line = line.expect("a line");
    assert!(
        line.contains("HTTPRoute a/r") && line.contains("Gateway a/gw") && line.contains(" g2 "),
        "{line}"
    );
}

#[test]
fn a_pool_in_another_namespace_needs_a_grant() {
    // S-12, S-13, C-03
    let elsewhere = route(
        "b",
        "r",
        "[{group: inference.networking.k8s.io, kind: InferencePool, name: llama, namespace: a}]",
    );
    let to = "{group: inference.networking.k8s.io, kind: InferencePool, name: llama}";
    let grants = [
        (String::new(), "False RefNotPermitted", 0),
        (grant("a", "HTTPRoute", "b", to), "True ResolvedRefs", 1),
        (
            grant(
                "a",
                "HTTPRoute",
                "b",
                "{group: inference.networking.k8s.io, kind: InferencePool}",
            ),
            "True ResolvedRefs",
            1,
        ),
        (grant("a", "HTTPRoute", "c", to), "False RefNotPermitted", 0),
        (grant("a", "GRPCRoute", "b", to), "False RefNotPermitted", 0),
        (grant("b", "HTTPRoute", "b", to), "False RefNotPermitted", 0),
        (
            grant(
                "a",
                "HTTPRoute",
                "b",
                "{group: '', kind: Service, name: llama}",
            ),
            "False RefNotPermitted",
            0,
        ),
        (
            grant("a", "HTTPRoute", "b", &to.replace("llama", "other")),
            "False RefNotPermitted",
            0,
        ),
    ];
    for (grant, expected, pool_parents) in grants {
        let compiled = cluster(&[CLASS, GATEWAY, POOLS, &elsewhere, &grant]);
        assert_eq!(
            condition(&compiled, "HTTPRoute b/r", "ResolvedRefs"),
            expected,
            "{grant}"
        );
        assert_eq!(
            condition(&compiled, "HTTPRoute b/r", "Accepted"),
            "True Accepted",
            "{grant}"
        );
        assert_eq!(parents(&compiled, "a/llama").len(), pool_parents, "{grant}");
        let served = goes_to(&compiled.plan, "h/") == "a/llama";
        assert_eq!(served, pool_parents == 1, "{grant}");
    }
}

#[test]
fn the_picker_of_a_pool_must_be_a_service() {
    // S-15, S-21, S-22: kind, described, mode, ResolvedRefs, is the picker inside
    let cases = [
        ("Service", true, Mode::Cluster, "True ResolvedRefs", false),
        (
            "Service",
            false,
            Mode::Cluster,
            "False InvalidExtensionRef",
            false,
        ),
        (
            "Deployment",
            true,
            Mode::Cluster,
            "False InvalidExtensionRef",
            false,
        ),
        ("Service", true, Mode::Files, "True ResolvedRefs", false),
        ("Service", false, Mode::Files, "True ResolvedRefs", true),
        (
            "Deployment",
            false,
            Mode::Files,
            "False InvalidExtensionRef",
            false,
        ),
    ];
    for (kind, described, mode, expected, inside) in cases {
        let picker = service("a", "picker", "{port: 9002, appProtocol: http2}");
        let text = [
            CLASS,
            GATEWAY,
            &EPP_POOL.replace("KIND", kind),
            &route("a", "r", &format!("[{}]", pool_ref("epp"))),
            if described { &picker } else { "" },
        ];
        let options = CompileOptions {
            mode,
            ..CompileOptions::default()
        };
        let compiled = compile(&objects(&text.join("\n---\n")), &options);
        let what = format!("{kind} {described} {mode:?}");
        assert_eq!(
            condition(&compiled, "InferencePool a/epp", "ResolvedRefs"),
            expected,
            "{what}"
        );
        assert_eq!(
            condition(&compiled, "InferencePool a/epp", "Accepted"),
            "True Accepted",
            "{what}"
        );
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "ResolvedRefs"),
            "True ResolvedRefs",
            "{what}"
        );
        let pool = compiled.plan.pools.values().next().expect("the pool");
        assert_eq!(pool.picker == Picker::Inside, inside, "{what}");
        let said = compiled
            .notes
            .iter()
            .any(|note| note.message.contains("picker inside"));
        assert_eq!(said, inside, "{what} {:?}", compiled.notes);
    }
}

#[test]
fn two_rules_and_two_routes_keep_their_pools() {
    // C-01, C-02, C-05
    let second = POOLS
        .replace("llama", "mistral")
        .replace("name: old", "name: older");
    let by_header = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: two, namespace: a}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
    - matches: [{{headers: [{{name: x-model, value: m}}]}}]
      backendRefs: [{}]
    - backendRefs: [{}]
",
        pool_ref("mistral"),
        pool_ref("llama")
    );
    let plain = route("a", "plain", "[{name: web, port: 80}]").replace(
        "backendRefs",
        "matches: [{path: {value: /web}}], backendRefs",
    );
    let compiled = cluster(&[
        CLASS,
        GATEWAY,
        POOLS,
        &second,
        &by_header,
        &plain,
        &service("a", "web", "{port: 80}"),
    ]);
    let pick = |url, headers: &[(&str, &str)]| {
        let matched = send(&compiled.plan, 80, url, headers).expect("a rule");
        matched
            .rule
            .choose(0.5)
            .map(|backend| backend.target.clone())
    };
    let target = |kind, name: &str| {
        Some(Target::Pool(PoolKey {
            kind,
            namespace: "a".to_owned(),
            name: name.to_owned(),
        }))
    };
    assert_eq!(
        pick("h/", &[("X-Model", "m")]),
        target(PoolKind::Inference, "mistral")
    );
    assert_eq!(pick("h/", &[]), target(PoolKind::Inference, "llama"));
    assert_eq!(
        pick("h/web/x", &[("x-model", "m")]),
        target(PoolKind::Service, "web:80")
    );
    for name in ["two", "plain"] {
        for type_ in ["Accepted", "ResolvedRefs"] {
            assert!(
                condition(&compiled, &format!("HTTPRoute a/{name}"), type_).starts_with("True"),
                "{name} {type_}"
            );
        }
    }
}

#[test]
fn one_denied_backend_leaves_the_others() {
    // C-04: the pool's share is served, the denied one answers 500, both weights stay.
    let mixed = route(
        "b",
        "mixed",
        "[{group: inference.networking.k8s.io, kind: InferencePool, name: llama, namespace: a, weight: 3}, {name: web, namespace: c, port: 80, weight: 1}, {name: gone, port: 80, weight: 0}]",
    );
    let other = route("b", "other", "[]");
    let to = "{group: inference.networking.k8s.io, kind: InferencePool}";
    let compiled = cluster(&[
        CLASS,
        GATEWAY,
        POOLS,
        &mixed,
        &other,
        &grant("a", "HTTPRoute", "b", to),
        &service("c", "web", "{port: 80}"),
    ]);
    assert_eq!(
        condition(&compiled, "HTTPRoute b/mixed", "Accepted"),
        "True Accepted"
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute b/mixed", "ResolvedRefs"),
        "False RefNotPermitted"
    );
    let line = lines(&compiled)
        .into_iter()
        .find(|line| line.contains("RefNotPermitted"))
        .expect("a line");
    assert!(line.contains("c/web") && line.contains("b/gone"), "{line}");
    assert!(
        lines(&compiled)
            .iter()
            .any(|line| line.contains("[web: 2 attached")),
        "{:?}",
        lines(&compiled)
    );
    let rule = &compiled.plan.ports[&80].listeners[0].rules[0];
    let shares = |roll| {
        rule.choose(roll)
            .map(|backend| matches!(backend.target, Target::Pool(_)))
    };
    assert_eq!(
        [0.0, 0.74, 0.76].map(shares),
        [Some(true), Some(true), Some(false)]
    );
}
