//! Which Gateways get data planes.

use super::*;

const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: pointsman.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/theirs}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: good, namespace: n}
data: {parameters.yaml: 'replicas: 3'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: bad, namespace: n}
data: {parameters.yaml: 'replica: 3'}
";

fn gateway(name: &str, class: &str, more: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: n}}\n\
         spec: {{gatewayClassName: {class}, {more} listeners: [{{name: a, port: 80, protocol: HTTP}}]}}\n"
    )
}

fn parameters(name: &str) -> String {
    format!("infrastructure: {{parametersRef: {{group: '', kind: ConfigMap, name: {name}}}}},")
}

#[test]
fn accepted_gateways_get_data_planes_and_refused_ones_keep_theirs() {
    let mut text = WORLD.to_owned();
    for (name, class, more) in [
        ("plain", "ours", String::new()),
        ("three", "ours", parameters("good")),
        ("refused", "ours", parameters("bad")),
        ("lost", "ours", parameters("missing")),
        (
            "strange",
            "ours",
            "addresses: [{type: example.com/other, value: x}],".to_owned(),
        ),
        ("foreign", "theirs", String::new()),
        ("orphan", "nobodys", String::new()),
    ] {
        text += &gateway(name, class, &more);
    }
    let read = |document: api::Document| document.result.expect("a good document");
    let objects: Objects = api::decode_yaml(&text).into_iter().map(read).collect();
    let parameters = ParametersRead::of(&objects, routing::CONTROLLER_NAME);
    let compiled = routing::compile(
        &objects,
        &CompileOptions {
            mode: Mode::Cluster,
            parameters: ParameterRefs::Read(parameters.refused.clone()),
            ..CompileOptions::default()
        },
    );
    let reason = |name: &str| {
        let own = compiled
            .statuses
            .iter()
            .find(|status| status.object.name == name && status.listener.is_none());
        let own = own.and_then(|status| status.conditions.iter().find(|c| c.type_ == "Accepted"));
        own.map(|condition| condition.reason)
    };
    assert_eq!(reason("refused"), Some("InvalidParameters"));
    assert_eq!(reason("lost"), Some("InvalidParameters"));
    assert_eq!(reason("strange"), Some("UnsupportedAddress"));
    let desired = desired(&objects, &compiled, parameters);
    let mut lines: Vec<_> = desired
        .iter()
        .map(|one| {
            let replicas = one.parameters.as_ref().map(|all| all.replicas);
            (one.gateway.meta.name.as_str(), replicas)
        })
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            ("lost", None),
            ("plain", Some(None)),
            ("refused", None),
            ("strange", None),
            ("three", Some(Some(3))),
        ]
    );
}

#[test]
fn features_are_in_order_and_stand_there_once() {
    assert!(FEATURES.is_sorted_by(|a, b| a < b));
}
