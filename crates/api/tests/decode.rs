//! Reading whole files: kinds, defaults, lists, and broken documents with their lines.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use api::{
    Criticality, DecodeError, FailureMode, HttpPathMatch, LabelSelector, Object, ObjectKey,
    PathMatchType, decode_value, decode_yaml, line_of, validate,
};
use proptest::prelude::*;
use serde_json::json;

/// The two objects with which most users begin.
const STARTER: &str = "\
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
";

fn one(text: &str) -> Object {
    let mut documents = decode_yaml(text);
    assert_eq!(documents.len(), 1, "{documents:#?}");
    let document = documents.remove(0);
    assert_eq!(document.warnings, [], "{text}");
    document.result.unwrap()
}

fn error(text: &str) -> DecodeError {
    let mut documents = decode_yaml(text);
    assert_eq!(documents.len(), 1, "{documents:#?}");
    documents.remove(0).result.unwrap_err()
}

#[test]
fn the_starter_objects_decode_with_their_defaults() {
    let documents = decode_yaml(STARTER);
    assert_eq!(
        documents.iter().map(|d| d.line).collect::<Vec<_>>(),
        [1, 12]
    );
    let [model, pool] = documents.as_slice() else {
        panic!("two documents")
    };

    let Ok(Object::InferenceModel(model)) = &model.result else {
        panic!("{model:?}")
    };
    assert_eq!(model.spec.criticality, Some(Criticality::Critical));
    assert_eq!(model.spec.priority(), 1);
    assert_eq!(model.spec.pool_ref.group, None);
    assert_eq!(model.spec.pool_ref.kind, "InferencePool");
    assert_eq!(model.spec.target_models[1].weight, Some(20));

    assert_eq!(
        pool.key,
        Some(ObjectKey::new(
            "inference.networking.x-k8s.io",
            "InferencePool",
            "ai-workloads",
            "llama-pool"
        ))
    );
    let Ok(Object::InferencePool(pool)) = &pool.result else {
        panic!("{pool:?}")
    };
    assert!(pool.is_v1alpha2());
    assert_eq!(pool.spec.target_ports[0].number, 8000);
    assert_eq!(pool.spec.selector.match_labels["version"], "v1");
    let picker = pool.spec.endpoint_picker_ref.as_ref().unwrap();
    assert_eq!(
        (picker.kind.as_str(), picker.port.unwrap().number),
        ("Service", 9002)
    );
    assert_eq!(picker.failure_mode, FailureMode::FailClose);

    let objects: api::Objects = documents.into_iter().map(|d| d.result.unwrap()).collect();
    for object in objects.iter() {
        assert_eq!(validate(object), []);
    }
    let model = objects.inference_models().next().unwrap();
    let pool = objects
        .referenced_pool("ai-workloads", &model.spec.pool_ref)
        .unwrap();
    assert_eq!(pool.meta.name, "llama-pool");
}

#[test]
fn a_pool_reference_without_group_prefers_the_v1_pool() {
    let both = format!(
        "{STARTER}---\n{}",
        "\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama-pool, namespace: ai-workloads}
spec:
  selector: {matchLabels: {app: llama-server}}
  targetPorts: [{number: 8000}]
"
    );
    let objects: api::Objects = decode_yaml(&both)
        .into_iter()
        .map(|d| d.result.unwrap())
        .collect();
    assert_eq!(objects.inference_pools().count(), 2);
    let mut reference = objects
        .inference_models()
        .next()
        .unwrap()
        .spec
        .pool_ref
        .clone();
    let of = |reference: &api::PoolRef| {
        objects
            .referenced_pool("ai-workloads", reference)
            .map(|p| p.is_v1alpha2())
    };
    assert_eq!(of(&reference), Some(false));
    reference.group = Some("inference.networking.x-k8s.io".into());
    assert_eq!(of(&reference), Some(true));
    reference.group = Some("example.com".into());
    assert_eq!(of(&reference), None);
}

#[test]
fn routes_get_the_defaults_of_their_definition() {
    let object = one("\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw, sectionName: null}]
  rules:
  - backendRefs: [{name: svc, port: 80}]
  - matches: [{path: {value: /v1}}, {headers: [{name: a, value: b}]}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}, {type: Dance}]
");
    let Object::HttpRoute(route) = &object else {
        panic!("{object:?}")
    };
    assert_eq!(object.key().to_string(), "HTTPRoute default/r");
    assert_eq!(route.spec.parent_refs[0].group, "gateway.networking.k8s.io");
    assert_eq!(route.spec.parent_refs[0].kind, "Gateway");
    assert_eq!(route.spec.parent_refs[0].section_name, None);
    let [first, second] = route.spec.rules.as_slice() else {
        panic!()
    };
    assert_eq!(first.matches, [Default::default()]);
    let backend = &first.backend_refs[0];
    assert_eq!(
        (
            backend.group.as_str(),
            backend.kind.as_str(),
            backend.weight
        ),
        ("", "Service", 1)
    );
    assert_eq!(
        second.matches[0].path,
        HttpPathMatch {
            match_type: PathMatchType::PathPrefix,
            value: "/v1".into()
        }
    );
    assert_eq!(second.matches[1].path.value, "/");
    assert_eq!(
        second.filters[0]
            .request_redirect
            .as_ref()
            .unwrap()
            .status_code,
        302
    );
    assert_eq!(
        second.filters[1].filter_type,
        api::FilterType::Unknown("Dance".into())
    );
    assert!(
        validate(&object).is_empty(),
        "an unknown filter is for routing to judge"
    );
}

#[test]
fn a_route_without_rules_or_spec_matches_everything() {
    for text in [
        "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: HTTPRoute, metadata: {name: r}}",
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {hostnames: [a.b]}}",
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {rules: [{matches: []}]}}",
    ] {
        let Object::HttpRoute(route) = one(text) else {
            panic!()
        };
        assert_eq!(route.spec.rules.len(), 1);
        assert_eq!(route.spec.rules[0].matches[0].path.value, "/");
    }
}

#[test]
fn listeners_allow_routes_of_their_own_namespace_and_terminate_tls() {
    let object = one("\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: pointsman
  listeners:
  - {name: web, port: 80, protocol: HTTP}
  - name: secure
    port: 443
    protocol: HTTPS
    hostname: '*.example.com'
    tls: {certificateRefs: [{name: cert}]}
    allowedRoutes: {kinds: [{kind: HTTPRoute}]}
");
    let Object::Gateway(gateway) = &object else {
        panic!()
    };
    let [web, secure] = gateway.spec.listeners.as_slice() else {
        panic!()
    };
    assert_eq!(
        web.allowed_routes.namespaces.from,
        api::FromNamespaces::Same
    );
    assert_eq!(
        secure.allowed_routes.namespaces.from,
        api::FromNamespaces::Same
    );
    assert_eq!(
        secure.allowed_routes.kinds[0].group,
        "gateway.networking.k8s.io"
    );
    let tls = secure.tls.as_ref().unwrap();
    assert_eq!(tls.mode, api::TlsMode::Terminate);
    assert_eq!(
        (
            tls.certificate_refs[0].kind.as_str(),
            tls.certificate_refs[0].group.as_str()
        ),
        ("Secret", "")
    );
    assert_eq!(validate(&object), []);
}

/// Every kind and version that is read, in its smallest form.
const SMALLEST: &[(&str, &str, &str)] = &[
    (
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        "spec: {controllerName: a.b/c}",
    ),
    (
        "gateway.networking.k8s.io/v1beta1",
        "Gateway",
        "spec: {gatewayClassName: a, listeners: [{name: a, port: 1, protocol: HTTP}]}",
    ),
    (
        "gateway.networking.k8s.io/v1",
        "GRPCRoute",
        "spec: {rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: a, port: 1}]}]}",
    ),
    (
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
        "spec: {from: [{group: a, kind: b, namespace: c}], to: [{group: '', kind: Secret}]}",
    ),
    (
        "gateway.networking.k8s.io/v1",
        "ReferenceGrant",
        "spec: {from: [{group: a, kind: b, namespace: c}], to: [{group: '', kind: Secret}]}",
    ),
    (
        "gateway.networking.k8s.io/v1alpha3",
        "BackendTLSPolicy",
        "spec: {targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a.b, wellKnownCACertificates: System}}",
    ),
    (
        "gateway.networking.k8s.io/v1",
        "BackendTLSPolicy",
        "spec: {targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a.b, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}",
    ),
    (
        "v1",
        "Service",
        "spec: {ports: [{port: 80, targetPort: http}], clusterIP: None}",
    ),
    ("v1", "ConfigMap", "data: {a: b}"),
    ("v1", "Secret", "data: {a: aGk=}"),
    ("v1", "Namespace", ""),
    (
        "v1",
        "Pod",
        "spec: {containers: []}\nstatus: {podIP: 10.0.0.1}",
    ),
    (
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 8000}]",
    ),
    (
        "inference.networking.k8s.io/v1",
        "InferencePool",
        "spec: {selector: {matchLabels: {a: b}}, targetPorts: [{number: 1}], appProtocol: http, endpointPickerRef: {name: a, port: {number: 9002}}}",
    ),
    (
        "inference.networking.x-k8s.io/v1alpha2",
        "InferenceObjective",
        "spec: {priority: -3, poolRef: {name: a}}",
    ),
    (
        "llm-d.ai/v1alpha1",
        "InferenceObjective",
        "spec: {poolRef: {name: a}}",
    ),
    (
        "llm-d.ai/v1alpha2",
        "InferenceModelRewrite",
        "spec: {poolRef: {name: a}, rules: [{targets: [{modelRewrite: b, weight: 1}]}]}",
    ),
    (
        "inference.networking.x-k8s.io/v1alpha2",
        "InferenceModelRewrite",
        "spec: {poolRef: {name: a}, rules: [{matches: [{model: {value: a}}], targets: [{modelRewrite: b}]}]}",
    ),
    (
        "inference.networking.x-k8s.io/v1alpha1",
        "InferencePoolImport",
        "status: {controllers: [{name: a.b/c, exportingClusters: [{name: east}]}]}",
    ),
];

#[test]
fn every_kind_decodes_and_keeps_its_group() {
    for (version, kind, rest) in SMALLEST.iter().copied() {
        let object = one(&format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n{rest}\n"
        ));
        assert_eq!((object.kind(), object.api_version()), (kind, version));
        let key = object.key();
        assert_eq!(
            key.group,
            version.split_once('/').map_or("", |(group, _)| group)
        );
        let cluster_scoped = matches!(kind, "GatewayClass" | "Namespace");
        assert_eq!(key.namespace, if cluster_scoped { "" } else { "default" });
        assert_eq!(validate(&object), [], "{version} {kind}");
    }
}

/// Bad documents: the line, the field, and a part of the message.
#[test]
fn bad_documents_name_line_field_and_way_out() {
    let route = |rest: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: r\nspec:\n{rest}"
        )
    };
    let table: Vec<(String, usize, Option<&str>, &str)> = vec![
        (route("  rules:\n  - backendRefs:\n    - name: a\n      port: 80\n    - name: b\n      port: 70000\n"), 11, Some("spec.rules[0].backendRefs[1].port"), "0 to 65535"),
        (route("  rules:\n  - backendRefs:\n    - name: a\n      port: \"80\"\n"), 9, Some("spec.rules[0].backendRefs[0].port"), "without quotes"),
        (route("  rules:\n  - backendRefs:\n    - port: 80\n"), 8, Some("spec.rules[0].backendRefs[0].name"), "required"),
        (route("  rules:\n  - backendRefs:\n    - name: a\n      weight: -1\n"), 9, Some("spec.rules[0].backendRefs[0].weight"), "whole number"),
        (route("  hostnames: a.example.com\n"), 6, Some("spec.hostnames"), "a list"),
        (route("  rules:\n  - timeouts:\n      request: 10sec\n"), 8, Some("spec.rules[0].timeouts.request"), "not a duration"),
        (route("  hostnames: [a]\n  hostnames: [b]\n"), 7, None, "given twice"),
        (route("  hostnames: [a\n"), 6, None, "not valid YAML"),
        ("kind: HTTPRoute\nmetadata: {name: r}\n".into(), 1, Some("apiVersion"), "every object needs"),
        ("apiVersion: v1\nmetadata: {name: r}\n".into(), 1, Some("kind"), "every object needs"),
        ("apiVersion: v1\nkind: Service\nspec: {}\n".into(), 1, Some("metadata"), "required"),
        ("apiVersion: v1\nkind: Service\nmetadata: {}\n".into(), 3, Some("metadata.name"), "needs a name"),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  name: 7\n".into(), 4, Some("metadata.name"), "put it in quotes"),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  labels:\n    app.kubernetes.io/name: true\n".into(), 6, Some("metadata.labels.app.kubernetes.io/name"), "put it in quotes"),
        ("- a\n- b\n".into(), 1, None, "no Kubernetes object"),
        ("just words\n".into(), 1, None, "no Kubernetes object"),
        ("a: *nothing\n".into(), 1, None, "not valid YAML"),
        ("? {a: b}\n: c\n".into(), 1, None, "plain text"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n".into(), 2, None, "not read here"),
        ("apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: a}\n".into(), 2, None, "write gateway.networking.k8s.io/v1"),
        ("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\n".into(), 2, None, "not read here"),
        ("apiVersion: inference.networking.k8s.io/v1\nkind: InferenceModel\nmetadata: {name: a}\n".into(), 2, None, "write inference.networking.x-k8s.io/v1alpha2"),
        ("apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata: {name: a}\nspec:\n  selector: {version: 1}\n  targetPortNumber: 8000\n".into(), 5, Some("spec.selector.version"), "put it in quotes"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nbinaryData:\n  x: '***'\n".into(), 5, Some("binaryData.x"), "not base64"),
    ];
    for (text, line, field, part) in table {
        let error = error(&text);
        assert_eq!(error.line(), Some(line), "{text}\n{error}");
        assert_eq!(error.path(), field, "{text}\n{error}");
        assert!(error.to_string().contains(part), "{text}\n{error}");
        assert!(error.message().contains(part), "{text}\n{error}");
    }
}

#[test]
fn errors_read_as_one_sentence_with_place_and_field() {
    let text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: http\n";
    assert_eq!(
        error(text).to_string(),
        "line 6, column 5: spec.ports[0].port: found string \"http\", expected a whole number from 0 to 65535; write it without quotes"
    );
}

#[test]
fn broken_documents_leave_their_neighbours_alone() {
    let text = "\
apiVersion: v1
kind: Namespace
metadata: {name: one}
---
# nothing but a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: two
---
apiVersion: v1
kind: Namespace
metadata: {name: 3}
---
apiVersion: v1
  kind: Namespace
---
apiVersion: v1
kind: Namespace
metadata: {name: four}
...
";
    let documents = decode_yaml(text);
    let names: Vec<_> = documents
        .iter()
        .map(|d| d.result.as_ref().ok().map(|o| o.meta().name.as_str()))
        .collect();
    assert_eq!(names, [Some("one"), None, None, None, Some("four")]);
    assert_eq!(
        documents.iter().map(|d| d.line).collect::<Vec<_>>(),
        [1, 7, 11, 15, 18]
    );
}

#[test]
fn a_list_opens_into_its_items_with_their_own_lines_and_paths() {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: one}
- apiVersion: v1
  kind: Service
  metadata: {name: two, namespace: ns}
  spec:
    ports:
    - {port: 99999}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClassList
items:
- metadata: {name: c}
  spec: {controllerName: a.b/c}
";
    let documents = decode_yaml(text);
    assert_eq!(
        documents.iter().map(|d| d.line).collect::<Vec<_>>(),
        [4, 7, 17]
    );
    assert!(documents[0].result.is_ok() && documents[2].result.is_ok());
    assert_eq!(
        documents[1].key,
        Some(ObjectKey::new("", "Service", "ns", "two"))
    );
    let error = documents[1].result.as_ref().unwrap_err();
    assert_eq!(
        (error.line(), error.path()),
        (Some(12), Some("spec.ports[0].port"))
    );
    assert_eq!(documents[1].line_of("spec.ports[0].port"), Some(12));
}

#[test]
fn json_is_read_too_and_anchors_and_merge_keys_work() {
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\", \"labels\": {\"x\": \"\\u00e9\"}}\n}";
    let Object::Namespace(namespace) = one(json) else {
        panic!()
    };
    assert_eq!(namespace.meta.labels["x"], "\u{e9}");
    let yaml = "\
apiVersion: v1
kind: Namespace
metadata:
  name: &n a
  labels: &l {x: 'y', z: *n}
  annotations: {<<: *l, x: own}
";
    let Object::Namespace(namespace) = one(yaml) else {
        panic!()
    };
    assert_eq!(namespace.meta.annotations["x"], "own");
    assert_eq!(namespace.meta.annotations["z"], "a");
}

#[test]
fn hostile_yaml_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(error(&bomb).to_string().contains("expand to too much"));
    let deep = "[".repeat(10_000);
    assert!(decode_yaml(&deep)[0].result.is_err());
    assert!(decode_yaml("a: &a [*a]")[0].result.is_err());
}

#[test]
fn unknown_fields_are_noted_and_do_not_fail_the_object() {
    let text = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, finalizers: [a]}
spec:
  hostname: a.b
  rules:
  - backendRefs:
    - {name: a, port: 80, wieght: 3, filters: []}
status: {parents: []}
";
    let documents = decode_yaml(text);
    assert!(documents[0].result.is_ok());
    let warnings = &documents[0].warnings;
    let paths: Vec<_> = warnings.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(
        paths,
        ["spec.hostname", "spec.rules[0].backendRefs[0].wieght"]
    );
    assert_eq!(documents[0].line_of(paths[1]), Some(8));
}

#[test]
fn line_of_falls_back_to_what_is_around_a_missing_field() {
    let text = "a:\n  b:\n  - c: 1\n  - d: 2\n";
    assert_eq!(line_of(text, "a.b[1].d"), Some(4));
    assert_eq!(line_of(text, "a.b[1].e.f"), Some(4));
    assert_eq!(line_of(text, "a.x"), Some(1));
    assert_eq!(line_of(text, "nothing"), Some(1));
    assert_eq!(line_of("", "a"), None);
}

#[test]
fn values_of_a_watch_decode_and_null_means_absent() {
    let object = decode_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "n", "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 4,
                     "uid": "u", "resourceVersion": "12", "deletionTimestamp": null, "managedFields": [{}]},
        "spec": {"clusterIP": null, "ports": [{"port": 80, "targetPort": 8080}], "selector": null}
    }))
    .unwrap();
    assert_eq!(object.meta().generation, Some(4));
    assert_eq!(
        object.meta().creation_timestamp.unwrap().to_string(),
        "2026-01-02T03:04:05Z"
    );
    assert_eq!(object.meta().deletion_timestamp, None);
    let error = decode_value(json!({"apiVersion": "v1", "kind": "Node"})).unwrap_err();
    assert!(error.is_unknown_kind());
    assert_eq!(error.line(), None);
    assert!(decode_value(json!(null)).is_err());
}

#[test]
fn secrets_are_decoded_and_never_shown() {
    let text = "\
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {a: aHVudGVyMg==, b: eHh4}
stringData: {b: hunter2}
";
    let object = one(text);
    let Object::Secret(secret) = &object else {
        panic!()
    };
    assert_eq!(secret.secret_type, "Opaque");
    assert_eq!(secret.data["a"].expose(), b"hunter2");
    assert_eq!(secret.data["b"].expose(), b"hunter2", "stringData wins");
    assert!(!format!("{object:?}").contains("hunter2"));
    for bad in [
        "data: {a: hunter2}",
        "data: hunter2",
        "stringData: [hunter2]",
        "stringData: {a: [hunter2]}",
        "stringData: {a: {b: hunter2}}",
        "type: [hunter2]",
        "metadata: hunter2",
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Secret\n{}{bad}\n",
            if bad.starts_with("meta") {
                ""
            } else {
                "metadata: {name: s}\n"
            }
        );
        let document = decode_yaml(&text).remove(0);
        assert!(document.result.is_err(), "{bad}");
        let shown = format!("{document:?} {}", document.result.as_ref().unwrap_err());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn selectors_match_labels_and_expressions() {
    let labels = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect()
    };
    let selector: LabelSelector = serde_json::from_value(json!({
        "matchLabels": {"app": "x"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "zone", "operator": "NotIn", "values": ["z1"]},
        ]
    }))
    .unwrap();
    assert!(selector.matches(&labels(&[("app", "x"), ("tier", "b")])));
    assert!(selector.matches(&labels(&[("app", "x"), ("tier", "a"), ("zone", "z2")])));
    assert!(!selector.matches(&labels(&[("app", "x"), ("tier", "c")])));
    assert!(!selector.matches(&labels(&[("app", "x")])));
    assert!(!selector.matches(&labels(&[("app", "x"), ("tier", "a"), ("old", "")])));
    assert!(!selector.matches(&labels(&[("app", "x"), ("tier", "a"), ("zone", "z1")])));
    assert!(LabelSelector::default().matches(&labels(&[])));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = decode_yaml(&text);
    }

    #[test]
    fn yaml_shaped_text_never_panics(text in "([a-c]: |- |\\[|\\]|\\{|\\}|, |\n|  |---\n|&a |\\*a|<<: |'|\"|\\||>|#|!!str |\\? |%|1|~|\u{feff}){0,60}") {
        let documents = decode_yaml(&text);
        for document in &documents {
            let _ = document.line_of("a.b[0]");
        }
    }

    #[test]
    fn a_damaged_starter_never_panics_and_keeps_line_numbers_in_range(at in 0..STARTER.len(), junk in ".{0,4}") {
        let mut text = STARTER.to_owned();
        text.insert_str(at, &junk);
        // Line breaks of any version of YAML: a carriage return alone is one (YAML 1.2 §5.4), and more were in 1.1.
        let lines = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
        for document in decode_yaml(&text) {
            prop_assert!(document.line <= lines);
            if let Err(error) = document.result {
                prop_assert!(error.line().is_none_or(|line| line <= lines));
            }
        }
    }
}
