//! `pointsman check`: 0 when nothing is wrong, 1 and the place when something is.

mod support;

use std::path::Path;

use support::objects::{THE_TWO_OBJECTS, gateway, pool, route, service};
use support::{Folder, check};

/// A Gateway, a pool and a route between them; nothing is wrong.
fn sound() -> String {
    let to_pool = "    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    format!(
        "{}{}{}",
        gateway("edge", "gateway", 8080),
        pool("edge", "llama", "llama"),
        route("edge", "models", to_pool)
    )
}

#[test]
fn what_is_sound_passes() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/two-models");
    let said = check(&example, &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    for object in [
        "Gateway ai-workloads/inference",
        "HTTPRoute ai-workloads/models",
        "InferenceModel ai-workloads/customer-support-bot",
    ] {
        assert!(said.text.contains(object), "{object} in {}", said.text);
    }
    for text in [sound(), THE_TWO_OBJECTS.to_owned()] {
        let folder = Folder::new(&[("all.yaml", &text)]);
        let said = check(folder.path(), &[]);
        assert_eq!(said.code, 0, "{}", said.text);
        let said = check(&folder.path().join("all.yaml"), &["-o", "json"]);
        assert_eq!(said.code, 0, "{}", said.text);
        serde_json::from_str::<serde_json::Value>(&said.text).expect("JSON");
    }
}

/// A case: what it is, the files beside the sound ones, and what must be said.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const BROKEN: &[Case] = &[
    (
        "broken YAML",
        &[("a.yaml", "kind: Service\nmetadata: {name: a\nspec: []\n")],
        &["a.yaml:"],
    ),
    (
        "a tab where there may be none",
        &[(
            "a.yaml",
            "apiVersion: v1\nkind: Service\nmetadata:\n\tname: a\n",
        )],
        &["a.yaml:4"],
    ),
    (
        "a port out of range",
        &[(
            "a.yaml",
            "apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p, namespace: ns}
spec:
  selector: {matchLabels: {app: x}}
  targetPorts:
    - number: 70000
  endpointPickerRef: {name: picker, port: {number: 9002}}
",
        )],
        &[
            "a.yaml:7",
            "InferencePool ns/p",
            "spec.targetPorts[0].number",
        ],
    ),
    (
        "a required field is missing",
        &[(
            "a.yaml",
            "apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: ns}
spec:
  modelName: m
",
        )],
        &["a.yaml:", "InferenceModel ns/m", "poolRef"],
    ),
    (
        "a word that is none of the known ones",
        &[(
            "a.yaml",
            "apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: ns}
spec:
  modelName: m
  criticality: Urgent
  poolRef: {name: p}
",
        )],
        &["a.yaml:6", "spec.criticality", "Critical"],
    ),
    (
        "weights for some targets only",
        &[(
            "a.yaml",
            "apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: edge}
spec:
  modelName: m
  poolRef: {name: llama}
  targetModels: [{name: a, weight: 1}, {name: b}]
",
        )],
        &["a.yaml:", "spec.targetModels", "weight"],
    ),
    (
        "a path without a slash",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: edge}
spec:
  parentRefs: [{name: gateway}]
  rules:
    - matches:
        - path: {type: PathPrefix, value: v1}
",
        )],
        &[
            "a.yaml:8",
            "HTTPRoute edge/r",
            "spec.rules[0].matches[0].path",
        ],
    ),
    (
        "a route to a pool that is not there",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: edge}
spec:
  parentRefs: [{name: gateway}]
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: missing}]}]
",
        )],
        &[
            "HTTPRoute edge/r",
            "ResolvedRefs",
            "BackendNotFound",
            "missing",
        ],
    ),
    (
        "a kind that no route goes to",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: edge}
spec:
  parentRefs: [{name: gateway}]
  rules: [{backendRefs: [{kind: ConfigMap, name: c, port: 80}]}]
",
        )],
        &["HTTPRoute edge/r", "ResolvedRefs", "InvalidKind"],
    ),
    (
        "a Service of another namespace without a grant",
        &[
            (
                "a.yaml",
                "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: edge}
spec:
  parentRefs: [{name: gateway}]
  rules: [{backendRefs: [{name: web, namespace: shop, port: 80}]}]
",
            ),
            (
                "b.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n",
            ),
        ],
        &["HTTPRoute edge/r", "ResolvedRefs", "RefNotPermitted"],
    ),
    (
        "a certificate that is not there",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: secure, namespace: edge}
spec:
  gatewayClassName: any
  listeners:
    - {name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: missing}]}}
",
        )],
        &[
            "Gateway edge/secure",
            "https",
            "InvalidCertificateRef",
            "missing",
        ],
    ),
    (
        "an unreadable certificate",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: secure, namespace: edge}
spec:
  gatewayClassName: any
  listeners:
    - {name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: junk}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: junk, namespace: edge}
type: kubernetes.io/tls
stringData: {tls.crt: no certificate, tls.key: no key}
",
        )],
        &["Gateway edge/secure", "InvalidCertificateRef", "junk"],
    ),
    (
        "a Gateway that is not there",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: edge}
spec:
  parentRefs: [{name: missing}]
",
        )],
        &["HTTPRoute edge/r", "missing"],
    ),
    (
        "a pool that an InferenceModel does not find",
        &[(
            "a.yaml",
            "apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: edge}
spec: {modelName: m, poolRef: {name: missing}}
",
        )],
        &["InferenceModel edge/m", "missing"],
    ),
    (
        "one object twice",
        &[
            (
                "a.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n",
            ),
            (
                "b.yaml",
                "# again\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 81}]}\n",
            ),
        ],
        &["b.yaml:2", "Service shop/web", "a.yaml"],
    ),
    (
        "two listeners on one port with one host",
        &[(
            "a.yaml",
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: twice, namespace: edge}
spec:
  gatewayClassName: any
  listeners:
    - {name: one, port: 8081, protocol: HTTP}
    - {name: two, port: 8081, protocol: HTTP}
",
        )],
        &["Gateway edge/twice", "Conflicted"],
    ),
];

#[test]
fn what_is_broken_is_named_and_fails() {
    for (what, files, said) in BROKEN {
        let folder = Folder::new(files);
        folder.write("sound.yaml", &sound());
        let checked = check(folder.path(), &[]);
        assert_eq!(checked.code, 1, "{what}: {}", checked.text);
        for text in *said {
            assert!(
                checked.text.contains(text),
                "{what}: no {text:?} in\n{}",
                checked.text
            );
        }
        let json = check(folder.path(), &["-o", "json"]);
        assert_eq!(json.code, 1, "{what}");
        serde_json::from_str::<serde_json::Value>(&json.text).expect("JSON");
        let table: Vec<&str> = checked
            .text
            .lines()
            .filter(|line| line.contains("/models "))
            .collect();
        assert!(
            table.iter().all(|line| line.contains(" True ")),
            "{what}: the sound route stays sound: {table:#?}"
        );
    }
}

#[test]
fn a_grant_or_the_missing_object_makes_it_sound() {
    let across = "    - backendRefs: [{name: web, namespace: shop, port: 80}]";
    let grant = "---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: shop}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge}]
  to: [{group: \"\", kind: Service}]
";
    let with = |more: &str| format!("{}{}{more}", sound(), route("edge", "across", across));
    let cases = [
        (String::new(), 1),
        (service("shop", "web"), 1),
        (grant.to_owned(), 1),
        (service("shop", "web") + grant, 0),
    ];
    for (more, code) in cases {
        let folder = Folder::new(&[("all.yaml", &with(&more))]);
        let said = check(folder.path(), &[]);
        assert_eq!(said.code, code, "{}", said.text);
    }
}

#[test]
fn a_missing_path_and_other_kinds() {
    let said = check(Path::new("/nowhere/at/all"), &[]);
    assert_eq!(said.code, 1);
    assert!(said.text.contains("/nowhere/at/all"), "{}", said.text);
    let other = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {}\n";
    let folder = Folder::new(&[("all.yaml", &(sound() + other))]);
    let said = check(folder.path(), &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    assert!(said.text.contains("Deployment"), "{}", said.text);
}
