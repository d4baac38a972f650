//! Whole examples.

use super::*;

/// The objects with which the project began, with two servers.
const FIRST: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: customer-support-bot, namespace: ai-workloads}
spec:
  modelName: customer-support
  criticality: Critical
  poolRef: {name: llama-pool}
  targetModels:
    - {name: llama-3-8b-customer-v1, weight: 80}
    - {name: llama-3-8b-customer-v2, weight: 20}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llama-pool, namespace: ai-workloads}
spec:
  targetPortNumber: 8000
  selector: {app: llama-server, version: v1}
  extensionRef: {name: llama-endpoint-picker}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: gpu1, namespace: ai-workloads, labels: {app: llama-server, version: v1}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: gpu2, namespace: ai-workloads, labels: {app: llama-server, version: v1}}
addressType: FQDN
ports: [{port: 8001}]
endpoints: [{addresses: [gpu2.lan]}]
";

#[test]
fn the_two_objects_that_started_the_project_are_enough() {
    let compiled = files(&[FIRST]);
    let pool = compiled.plan.pools.values().next().expect("the pool");
    assert_eq!(
        pool.endpoints
            .iter()
            .map(|server| server.name.as_str())
            .collect::<Vec<_>>(),
        ["127.0.0.1:8000", "gpu2.lan:8001"]
    );
    assert_eq!(pool.picker, Picker::Inside);
    assert!(
        compiled
            .notes
            .iter()
            .any(|note| note.message.contains("llama-endpoint-picker"))
    );
    assert!(
        compiled
            .statuses
            .iter()
            .all(|status| status.problems().count() == 0),
        "{:?}",
        lines(&compiled)
    );

    let rolls = 10_000;
    let mut first = 0;
    for roll in 0..rolls {
        let found =
            pool.models
                .resolve("customer-support", None, f64::from(roll) / f64::from(rolls));
        assert_eq!(found.priority, CRITICAL);
        first += u32::from(found.target_model == Some("llama-3-8b-customer-v1"));
    }
    assert_eq!(first, 8_000);
    let unknown = pool.models.resolve("somebody-else", None, 0.5);
    assert_eq!((unknown.target_model, unknown.priority), (None, SHEDDABLE));
    assert_eq!(pool.models.public_names(), ["customer-support"]);
}

#[test]
fn conditions_of_a_full_example() {
    let mixed = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: a, generation: 7}
spec:
  parentRefs: [{name: gw}, {name: gw, sectionName: nope}]
  hostnames: [chat.example.com]
  rules:
    - matches: [{path: {value: /v1}}]
      backendRefs:
        - {group: inference.networking.k8s.io, kind: InferencePool, name: llama, weight: 9}
        - {name: gone, port: 80, weight: 1}
    - matches: [{path: {value: /future}}]
      filters: [{type: FromTheFuture}]
      backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: old}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc, namespace: b}
spec:
  parentRefs: [{name: gw, namespace: a}]
  rules: [{backendRefs: [{name: web, namespace: a, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: strange, namespace: a}
spec:
  parentRefs: [{name: gw}]
  rules: [{filters: [{type: ExtensionRef, extensionRef: {group: x.io, kind: Lua, name: y}}]}]
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: a}
spec: {modelName: m, poolRef: {name: llama}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: n, namespace: a}
spec: {modelName: m, poolRef: {name: llama}}
";
    let text = lines(&files(&[
        CLASS,
        GATEWAY,
        POOLS,
        mixed,
        &service("a", "web", "{port: 80}"),
    ]))
    .join("\n");
    insta::assert_snapshot!(text);
}
