//! What is written over what is there. Names such as S-03 are those of Istio's status tests, whose behaviour users know.

use std::net::IpAddr;
use std::sync::Arc;

use api::INFERENCE_GROUP;
use routing::{CompileOptions, Mode};
use serde_json::{Value, json};

use super::super::{Report, Served};
use super::*;

const OURS: &str = "pointsman.dev/gateway-controller";
const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-02-02T00:00:00Z";

const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours, uid: u, generation: 1}
spec: {controllerName: pointsman.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs, uid: u, generation: 1}
spec: {controllerName: example.com/theirs}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: a, uid: u, generation: 2}
spec:
  gatewayClassName: ours
  listeners: [{name: web, port: 80, protocol: HTTP}, {name: two, port: 81, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: a, uid: u, generation: 1}
spec: {gatewayClassName: theirs, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p, namespace: a, uid: u, generation: 3}
spec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: old, namespace: a, uid: u, generation: 3}
spec: {selector: {app: x}, targetPortNumber: 8000}
";

const ROUTE: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: a, uid: u, generation: 5}
spec:
  parentRefs: [{name: gw}, {name: other}]
  rules:
    - backendRefs:
        - {group: inference.networking.k8s.io, kind: InferencePool, name: p}
        - {group: inference.networking.x-k8s.io, kind: InferencePool, name: old}
";

fn report(yaml: &[&str]) -> Report {
    let read = |document: api::Document| document.result.expect("a good document");
    let objects: Objects = api::decode_yaml(&yaml.concat())
        .into_iter()
        .map(read)
        .collect();
    let options = CompileOptions {
        mode: Mode::Cluster,
        ..CompileOptions::default()
    };
    let compiled = routing::compile(&objects, &options);
    let gateway = ObjectKey::new(GATEWAY_GROUP, "Gateway", "a", "gw");
    let served = Served {
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        ..Served::default()
    };
    Report {
        objects: Arc::new(objects),
        statuses: compiled.statuses,
        gateways: BTreeMap::from([(gateway, served)]),
        features: &["Gateway", "HTTPRoute"],
    }
}

fn key(group: &str, kind: &str, name: &str) -> ObjectKey {
    let namespace = if kind == "GatewayClass" { "" } else { "a" };
    ObjectKey::new(group, kind, namespace, name)
}

/// What is written on one object that has `status`.
fn written(report: &Report, key: &ObjectKey, status: Value) -> Option<Change> {
    let known = Present {
        version: "7".to_owned(),
        uid: "u".to_owned(),
        status,
    };
    let present = BTreeMap::from([(key.clone(), known)]);
    changes(report, &present, OURS, NOW).pop()
}

/// Entries as `namespace/name controller: Type=Status ...`.
fn entries(status: &Value, list: &str) -> Vec<String> {
    let line = |entry: &Value| {
        let reference = entry.get("parentRef").unwrap_or(&entry["ancestorRef"]);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let conditions = items(&entry["conditions"]).iter();
        let conditions: Vec<_> = conditions
            .map(|c| {
                format!(
                    "{}={}/{}",
                    text(&c["type"]),
                    text(&c["status"]),
                    text(&c["reason"])
                )
            })
            .collect();
        let (namespace, name) = (text(&reference["namespace"]), text(&reference["name"]));
        format!(
            "{namespace}/{name} {}: {}",
            text(&entry["controllerName"]),
            conditions.join(" ")
        )
    };
    items(&status[list]).iter().map(line).collect()
}

const GOOD: &str =
    "a/gw pointsman.dev/gateway-controller: Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";

fn theirs() -> Value {
    json!({
        "parentRef": {"name": "other", "namespace": "a", "extra": [1, 2]},
        "controllerName": "example.com/theirs",
        "conditions": [{"type": "Whatever", "status": "Maybe"}],
        "unknown": {"kept": true},
    })
}

#[test]
fn our_parent_is_added_beside_theirs_which_stay_byte_for_byte() {
    // S-01, S-02, S-03, S-04, S-18.
    let report = report(&[WORLD, ROUTE]);
    let pool = key(INFERENCE_GROUP, "InferencePool", "p");
    let change = written(&report, &pool, Value::Null).expect("something to say");
    assert_eq!(entries(&change.status, "parents"), [GOOD]);
    assert_eq!(
        change.version.as_deref(),
        Some("7"),
        "a list is written over what was read"
    );
    let change = written(&report, &pool, json!({"parents": [theirs()]})).expect("a change");
    assert_eq!(change.status["parents"][0], theirs());
    assert_eq!(entries(&change.status, "parents")[1..], [GOOD]);
    let condition = &change.status["parents"][1]["conditions"][0];
    assert_eq!(condition["observedGeneration"], 3);
    assert_eq!(condition["lastTransitionTime"], NOW);
}

#[test]
fn a_second_round_writes_nothing() {
    let report = report(&[WORLD, ROUTE]);
    for key in [
        key(INFERENCE_GROUP, "InferencePool", "p"),
        key(INFERENCE_X_GROUP, "InferencePool", "old"),
        key(GATEWAY_GROUP, "HTTPRoute", "r"),
        key(GATEWAY_GROUP, "Gateway", "gw"),
        key(GATEWAY_GROUP, "GatewayClass", "ours"),
    ] {
        let first = written(&report, &key, Value::Null).expect("something to say");
        assert_eq!(written(&report, &key, first.status.clone()), None, "{key}");
        // The API server may give lists of conditions back in another order.
        let mut turned = first.status;
        turn(&mut turned);
        assert_eq!(written(&report, &key, turned), None, "{key}, turned");
    }
}

fn turn(value: &mut Value) {
    if let Value::Object(fields) = value {
        for (field, value) in fields {
            match value {
                Value::Array(items) if field == "conditions" => items.reverse(),
                Value::Array(items) => items.iter_mut().for_each(turn),
                other => turn(other),
            }
        }
    }
}

#[test]
fn what_has_gone_is_removed() {
    // S-07, S-19, S-20.
    let report = report(&[WORLD]);
    let pool = key(INFERENCE_GROUP, "InferencePool", "p");
    let stale = json!({
        "parentRef": {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "gw", "namespace": "a"},
        "controllerName": OURS,
        "conditions": [],
    });
    let change = written(
        &report,
        &pool,
        json!({"parents": [stale.clone(), theirs()]}),
    )
    .expect("a change");
    assert_eq!(change.status, json!({"parents": [theirs()]}));
    let change = written(&report, &pool, json!({"parents": [stale]})).expect("a change");
    assert_eq!(change.status, json!({"parents": []}));
    for nothing in [
        Value::Null,
        json!({}),
        json!({"parents": []}),
        json!({"parents": [theirs()]}),
    ] {
        assert_eq!(written(&report, &pool, nothing), None);
    }
}

#[test]
fn our_entry_is_made_anew_with_exactly_our_conditions() {
    // S-08, S-10.
    let report = report(&[WORLD, ROUTE]);
    let pool = key(INFERENCE_GROUP, "InferencePool", "p");
    let before = json!({"parents": [{
        "parentRef": {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "gw", "namespace": "a"},
        "controllerName": OURS,
        "conditions": [
            {"type": "Exotic", "status": "True", "reason": "X", "message": "", "lastTransitionTime": THEN},
            {"type": "Accepted", "status": "True", "reason": "Old", "message": "m", "observedGeneration": 2, "lastTransitionTime": THEN},
            {"type": "ResolvedRefs", "status": "False", "reason": "Old", "message": "m", "observedGeneration": 3, "lastTransitionTime": THEN},
        ],
    }]});
    let change = written(&report, &pool, before).expect("a change");
    assert_eq!(entries(&change.status, "parents"), [GOOD]);
    let times: Vec<_> = items(&change.status["parents"][0]["conditions"])
        .iter()
        .map(|c| c["lastTransitionTime"].as_str().unwrap())
        .collect();
    assert_eq!(times, [THEN, NOW], "a time changes with the status alone");
}

#[test]
fn the_placeholder_of_the_old_pool_goes_and_comes_back() {
    // S-09.
    let pool = key(INFERENCE_X_GROUP, "InferencePool", "old");
    let with_route = report(&[WORLD, ROUTE]);
    let change = written(&with_route, &pool, json!({"parent": [placeholder()]})).expect("a change");
    let line = "a/gw -: Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    assert_eq!(entries(&change.status, "parent"), [line]);
    let without = report(&[WORLD]);
    let back = written(&without, &pool, change.status).expect("a change");
    assert_eq!(back.status, json!({"parent": [placeholder()]}));
    assert_eq!(written(&without, &pool, back.status), None);
    // The entry of another controller's Gateway is theirs although entries do not say so.
    let other = json!({"parentRef": {"name": "other", "namespace": "a"}, "conditions": []});
    assert_eq!(written(&without, &pool, json!({"parent": [other]})), None);
}

#[test]
fn a_gateway_tells_its_listeners_and_addresses() {
    let report = report(&[WORLD, ROUTE]);
    let gateway = key(GATEWAY_GROUP, "Gateway", "gw");
    let change = written(&report, &gateway, Value::Null).expect("a change");
    let status = &change.status;
    assert_eq!(change.version, None, "the API server merges");
    assert_eq!(
        status["addresses"],
        json!([{"type": "IPAddress", "value": "10.0.0.1"}])
    );
    assert_eq!(status["listeners"][1]["name"], "web");
    assert_eq!(status["listeners"][1]["attachedRoutes"], 1);
    assert_eq!(
        status["listeners"][1]["supportedKinds"],
        json!([{"group": GATEWAY_GROUP, "kind": "HTTPRoute"}, {"group": GATEWAY_GROUP, "kind": "GRPCRoute"}])
    );
    let types: Vec<_> = items(&status["conditions"])
        .iter()
        .map(|c| &c["type"])
        .collect();
    assert_eq!(types, ["Accepted", "Programmed"]);
    // A condition of somebody else is no reason to write.
    let mut more = change.status.clone();
    more["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "Scheduled", "status": "True"}));
    assert_eq!(written(&report, &gateway, more), None);
    // A listener that is not there any more is.
    let mut more = change.status;
    more["listeners"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "gone"}));
    assert!(written(&report, &gateway, more).is_some());
}

#[test]
fn a_gateway_that_is_not_served_says_so() {
    let mut report = report(&[WORLD]);
    let gateway = key(GATEWAY_GROUP, "Gateway", "gw");
    let programmed = |report: &Report| -> Vec<String> {
        let status = written(report, &gateway, Value::Null)
            .expect("a change")
            .status;
        let of = |entry: &Value| {
            let condition = of_type(&entry["conditions"], "Programmed").expect("a condition");
            format!(
                "{} {} {}",
                condition["status"], condition["reason"], condition["message"]
            )
            .replace('"', "")
        };
        std::iter::once(&status)
            .chain(items(&status["listeners"]))
            .map(of)
            .collect()
    };
    assert_eq!(
        programmed(&report),
        ["True Programmed ", "True Programmed ", "True Programmed "]
    );
    let in_use = "port 81 is in use".to_owned();
    report
        .gateways
        .get_mut(&gateway)
        .unwrap()
        .ports
        .insert(81, in_use);
    assert_eq!(
        programmed(&report),
        [
            "True Programmed ",
            "False Pending port 81 is in use",
            "True Programmed "
        ]
    );
    report.gateways.get_mut(&gateway).unwrap().problem =
        Some(("AddressNotUsable", "no".to_owned()));
    assert_eq!(
        programmed(&report),
        [
            "False AddressNotUsable no",
            "False Pending no",
            "False Pending no"
        ]
    );
}

#[test]
fn a_class_of_ours_tells_what_we_can_do_and_others_are_left_alone() {
    let report = report(&[WORLD]);
    let change = written(
        &report,
        &key(GATEWAY_GROUP, "GatewayClass", "ours"),
        Value::Null,
    )
    .expect("a change");
    assert_eq!(
        change.status["supportedFeatures"],
        json!([{"name": "Gateway"}, {"name": "HTTPRoute"}])
    );
    assert_eq!(change.status["conditions"][0]["type"], "Accepted");
    assert_eq!(
        written(
            &report,
            &key(GATEWAY_GROUP, "GatewayClass", "theirs"),
            Value::Null
        ),
        None
    );
    assert_eq!(
        written(
            &report,
            &key(GATEWAY_GROUP, "Gateway", "other"),
            Value::Null
        ),
        None
    );
}

#[test]
fn nothing_is_said_about_what_was_not_compiled_or_has_changed_since() {
    let report = report(&[WORLD, ROUTE]);
    let pool = key(INFERENCE_GROUP, "InferencePool", "p");
    assert_eq!(
        written(
            &report,
            &key(INFERENCE_GROUP, "InferencePool", "new"),
            Value::Null
        ),
        None
    );
    let other = Present {
        version: "7".to_owned(),
        uid: "another".to_owned(),
        status: Value::Null,
    };
    let present = BTreeMap::from([(pool.clone(), other)]);
    assert_eq!(changes(&report, &present, OURS, NOW), []);
    // Another copy of this program has already seen generation 4.
    let mut newer = written(&report, &pool, Value::Null).unwrap().status;
    newer["parents"][0]["conditions"][0]["observedGeneration"] = 4.into();
    newer["parents"][0]["conditions"][0]["reason"] = "Later".into();
    assert_eq!(written(&report, &pool, newer), None);
}

#[test]
fn what_goes_wrong_makes_news_once() {
    let bad = ROUTE.replace("name: p}", "name: missing}");
    let report = report(&[WORLD, &bad]);
    let route = key(GATEWAY_GROUP, "HTTPRoute", "r");
    let change = written(&report, &route, Value::Null).expect("a change");
    let reasons: Vec<_> = change.news.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons, ["BackendNotFound"]);
    let mut again = change.status;
    again["parents"][0]["conditions"][1]["message"] = "another".into();
    let change = written(&report, &route, again).expect("a change");
    assert_eq!(change.news, []);
}

#[test]
fn lists_stay_within_what_the_api_server_takes() {
    let report = report(&[WORLD, ROUTE]);
    let pool = key(INFERENCE_GROUP, "InferencePool", "p");
    let full: Vec<_> = (0..32).map(|_| theirs()).collect();
    let change = written(&report, &pool, json!({ "parents": full }));
    assert_eq!(
        change.map(|change| items(&change.status["parents"]).len()),
        Some(32)
    );
}

#[test]
fn listeners_of_others_have_statuses_and_are_counted() {
    let allowed = WORLD.replacen(
        "  gatewayClassName: ours\n",
        "  gatewayClassName: ours\n  allowedListeners: {namespaces: {from: All}}\n",
        1,
    );
    let set = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: s, namespace: a, uid: u, generation: 2}
spec:
  parentRef: {name: gw}
  listeners: [{name: more, port: 82, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: t, namespace: a, uid: u, generation: 1}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: x, port: 1}]}]}
";
    let report = report(&[&allowed, set]);
    let (gateway, set) = (
        key(GATEWAY_GROUP, "Gateway", "gw"),
        key(GATEWAY_GROUP, "ListenerSet", "s"),
    );
    let change = written(&report, &gateway, Value::Null).expect("a change");
    assert_eq!(change.status["attachedListenerSets"], 1);
    let change = written(&report, &set, Value::Null).expect("a change");
    assert_eq!(change.status["listeners"][0]["name"], "more");
    assert_eq!(change.status["conditions"][0]["type"], "Accepted");
    assert_eq!(change.status["conditions"][0]["status"], "True");
    assert!(change.status.get("addresses").is_none());
    assert!(change.status.get("attachedListenerSets").is_none());
    assert_eq!(written(&report, &set, change.status), None);
    // A port that somebody else has is the set's trouble too.
    let mut taken = report.clone();
    let served = taken.gateways.get_mut(&gateway).expect("served");
    served.ports.insert(82, "in use".to_owned());
    let change = written(&taken, &set, Value::Null).expect("a change");
    let of_listener = &change.status["listeners"][0]["conditions"];
    let programmed = of_type(of_listener, "Programmed").expect("said");
    assert_eq!(programmed["status"], "False");
    let route = key(GATEWAY_GROUP, "TLSRoute", "t");
    let change = written(&report, &route, Value::Null).expect("a change");
    assert_eq!(items(&change.status["parents"]).len(), 1);
}
