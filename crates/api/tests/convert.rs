//! InferencePool v1alpha2 to v1 and back; durations.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use api::convert::{ConversionError, from_v1alpha2, to_v1, to_v1alpha2};
use api::{Duration, InferencePool, InferencePoolV1Alpha2};
use proptest::prelude::*;
use serde_json::{Value, json};

fn old(value: Value) -> InferencePoolV1Alpha2 {
    serde_json::from_value(value).unwrap()
}

fn old_pool() -> Value {
    json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
        "spec": {
            "selector": {"app": "vllm"},
            "targetPortNumber": 8000,
            "extensionRef": {"group": "", "kind": "Service", "name": "epp", "portNumber": 9100, "failureMode": "FailOpen"}
        },
        "status": {"parent": [{
            "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"},
            "conditions": [{"type": "Accepted", "status": "False", "reason": "NotSupportedByGateway", "message": "m"}]
        }]}
    })
}

#[test]
fn v1alpha2_becomes_v1_field_by_field() {
    let pool = to_v1(&old(old_pool()));
    assert_eq!(
        serde_json::to_value(&pool).unwrap(),
        json!({
            "apiVersion": "inference.networking.k8s.io/v1",
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "spec": {
                "selector": {"matchLabels": {"app": "vllm"}},
                "targetPorts": [{"number": 8000}],
                "appProtocol": "http",
                "endpointPickerRef": {"group": "", "kind": "Service", "name": "epp", "port": {"number": 9100}, "failureMode": "FailOpen"}
            },
            "status": {"parents": [{
                "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"},
                "conditions": [{"type": "Accepted", "status": "False", "reason": "NotSupportedByParent", "message": "m"}]
            }]}
        })
    );
}

#[test]
fn there_and_back_is_the_same_object() {
    let pool = old(old_pool());
    assert_eq!(to_v1alpha2(&to_v1(&pool)).unwrap(), pool);
}

#[test]
fn reading_keeps_the_version_that_was_written() {
    let pool = from_v1alpha2(&old(old_pool()));
    assert!(pool.is_v1alpha2());
    assert!(!to_v1(&old(old_pool())).is_v1alpha2());
}

#[test]
fn what_stands_for_nobody_has_looked_is_dropped() {
    let mut value = old_pool();
    let waiting = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z"});
    value["status"]["parent"] = json!([
        {"parentRef": {"kind": "Status", "name": "default"}, "conditions": [waiting]},
        {"parentRef": {"name": "gw"}, "conditions": [waiting, {"type": "ResolvedRefs", "status": "True", "reason": "Own"}]},
    ]);
    let status = to_v1(&old(value)).status.unwrap();
    let [parent] = status.parents.as_slice() else {
        panic!("{status:?}")
    };
    assert_eq!(
        (
            parent.parent_ref.kind.as_str(),
            parent.parent_ref.group.as_str()
        ),
        ("Gateway", "gateway.networking.k8s.io")
    );
    assert_eq!(
        parent
            .conditions
            .iter()
            .map(|c| c.reason.as_str())
            .collect::<Vec<_>>(),
        ["Own"]
    );
}

#[test]
fn back_to_v1alpha2_the_first_port_survives_and_none_is_an_error() {
    let v1 = |ports: Value| -> InferencePool {
        serde_json::from_value(json!({
            "apiVersion": "inference.networking.k8s.io/v1", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"selector": {"matchLabels": {}}, "targetPorts": ports, "endpointPickerRef": {"name": "epp", "kind": "Other"}}
        }))
        .unwrap()
    };
    let old = to_v1alpha2(&v1(json!([{"number": 1}, {"number": 2}]))).unwrap();
    assert_eq!(old.spec.target_port_number, 1);
    assert_eq!(old.spec.extension_ref.unwrap().port_number, 9002);
    assert_eq!(
        to_v1alpha2(&v1(json!([]))),
        Err(ConversionError::NoTargetPort)
    );
}

#[test]
fn durations_follow_the_grammar() {
    for (text, millis) in [
        ("0s", 0),
        ("10s", 10_000),
        ("1m30s", 90_000),
        ("1h2m3s4ms", 3_723_004),
        ("99999h", 359_996_400_000),
        ("500ms", 500),
        ("1s1s", 2_000),
    ] {
        assert_eq!(
            text.parse::<Duration>().unwrap().get().as_millis(),
            millis,
            "{text}"
        );
    }
    for bad in [
        "",
        "0",
        "10",
        "s",
        "1.5s",
        "-1s",
        "1 s",
        "1d",
        "100000s",
        "1h1h1h1h1h",
        "1us",
        "1S",
        "\u{661}s",
    ] {
        assert!(bad.parse::<Duration>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn durations_print_what_they_parse(hours in 0u32..1000, minutes in 0u32..60, seconds in 0u32..60, millis in 0u32..1000) {
        let text = format!("{hours}h{minutes}m{seconds}s{millis}ms");
        let duration: Duration = text.parse().unwrap();
        prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
    }

    #[test]
    fn any_text_as_a_duration_never_panics(text in ".{0,40}") {
        let _ = text.parse::<Duration>();
    }
}
