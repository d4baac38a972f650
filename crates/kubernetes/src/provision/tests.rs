//! From Gateways to manifests, and from what there is to what is said.

use api::{Gateway, Objects};
use serde_json::{Value, json};

use super::manifests::{Manifest, Provided, manifests};
use super::provisioner::is_part_of;
use super::served::served;
use super::*;

fn objects(yaml: &str) -> Objects {
    let read = |document: api::Document| document.result.expect("a good document");
    api::decode_yaml(yaml).into_iter().map(read).collect()
}

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec:
  controllerName: pointsman.dev/gateway-controller
  parametersRef: {group: '', kind: ConfigMap, name: defaults, namespace: system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: defaults, namespace: system}
data:
  parameters.yaml: |
    replicas: 5
    service: {type: ClusterIP, annotations: {from: class}}
    resources: {limits: {memory: 1Gi, cpu: 2}}
---
";

fn gateway(spec: &str) -> String {
    format!(
        "{CLASS}apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: web, namespace: apps, uid: u1}}\nspec: {{gatewayClassName: ours, {spec}}}\n"
    )
}

const LISTENERS: &str = "listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS}, {name: c, port: 443, protocol: HTTPS, hostname: x.y}, {name: d, port: 8080, protocol: HTTP}]";

fn settings() -> ProvisionSettings {
    ProvisionSettings {
        controller_name: "pointsman.dev/gateway-controller".to_owned(),
        image: "example.com/pointsman:1".to_owned(),
        address: "controller.system.svc:8443".to_owned(),
        authority: "PEM".to_owned(),
    }
}

fn made(objects: &Objects, parameters: &Parameters) -> Vec<Manifest> {
    let gateway = objects.gateway("apps", "web").expect("the Gateway");
    manifests(gateway, &[8443].into(), parameters, &settings())
}

fn of(all: &[Manifest], kind: Provided) -> &Value {
    let found = all.iter().find(|one| one.kind == kind);
    &found.expect("a manifest").body
}

#[test]
fn everything_carries_the_gateways_name_labels_and_ownership() {
    let infrastructure =
        "infrastructure: {labels: {team: a, app.kubernetes.io/name: mine}, annotations: {note: x}}";
    let objects = objects(&gateway(&format!("{infrastructure}, {LISTENERS}")));
    let all = made(&objects, &Parameters::default());
    assert_eq!(all.len(), 6);
    let pod = &of(&all, Provided::Deployment)["spec"]["template"];
    let bodies = all.iter().map(|one| &one.body).chain([pod]);
    for body in bodies {
        let meta = &body["metadata"];
        let labels = &meta["labels"];
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "web");
        assert_eq!(labels["team"], "a");
        assert_eq!(labels["app.kubernetes.io/name"], "pointsman", "ours win");
        assert_eq!(meta["annotations"]["note"], "x");
    }
    for Manifest { body, .. } in &all {
        let meta = &body["metadata"];
        let name = meta["name"].as_str().expect("a name");
        assert!(name == "web-pointsman" || name == "web-pointsman-siblings");
        assert_eq!(meta["namespace"], "apps");
        let owner = &meta["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"]),
            (&json!("Gateway"), &json!("u1"))
        );
        assert!(
            owner["blockOwnerDeletion"].is_null(),
            "would need another right"
        );
    }
}

#[test]
fn ports_are_mapped_so_that_nobody_must_be_root() {
    let objects = objects(&gateway(LISTENERS));
    let all = made(&objects, &Parameters::default());
    let ports = of(&all, Provided::Service)["spec"]["ports"]
        .as_array()
        .expect("ports");
    let ports: Vec<_> = ports
        .iter()
        .map(|one| (&one["port"], &one["targetPort"]))
        .collect();
    let expected = [(80, 64_592), (443, 64_955), (8080, 8080), (8443, 8443)];
    let expected = expected.map(|(port, target)| (json!(port), json!(target)));
    let expected: Vec<_> = expected
        .iter()
        .map(|(port, target)| (port, target))
        .collect();
    assert_eq!(ports, expected);
    for port in 1..=u16::MAX {
        assert!(bound_port(port) >= 1024);
    }
    assert_eq!((bound_port(1023), bound_port(1024)), (65_535, 1024));
}

#[test]
fn pods_are_confined_and_end_in_good_order() {
    let objects = objects(&gateway(LISTENERS));
    let all = made(&objects, &Parameters::default());
    let spec = &of(&all, Provided::Deployment)["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 630);
    assert_eq!(
        pod["topologySpreadConstraints"].as_array().map(Vec::len),
        Some(2)
    );
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "example.com/pointsman:1");
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let args = container["args"].to_string();
    for part in [
        "--gateway=apps/web",
        "--controller=controller.system.svc:8443",
        "--farewell=5s",
        "--drain-timeout=615s",
    ] {
        assert!(args.contains(part), "{part} in {args}");
    }
    assert_eq!(
        of(&all, Provided::PodDisruptionBudget)["spec"]["maxUnavailable"],
        1
    );
    assert_eq!(of(&all, Provided::ConfigMap)["data"]["ca.crt"], "PEM");
}

#[test]
fn a_gateways_parameters_win_over_its_classs_field_by_field() {
    let own = "
---
apiVersion: v1
kind: ConfigMap
metadata: {name: own, namespace: apps}
data:
  parameters.yaml: |
    image: other:2
    args: [--explain]
    service: {type: LoadBalancer, loadBalancerClass: lb}
    pod: {nodeSelector: {pool: edge}, labels: {more: x}}
    podDisruptionBudget: {minAvailable: 50%}
    terminationGracePeriodSeconds: 10
";
    let reference = "infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: own}}";
    let text = gateway(&format!(
        "{reference}, addresses: [{{value: 10.0.0.7}}], {LISTENERS}"
    )) + own;
    let objects = objects(&text);
    let gateway = objects.gateway("apps", "web").expect("the Gateway");
    let parameters = Parameters::of(&objects, gateway).expect("good parameters");
    let all = made(&objects, &parameters);
    let deployment = &of(&all, Provided::Deployment)["spec"];
    assert_eq!(deployment["replicas"], 5);
    let pod = &deployment["template"];
    assert_eq!(pod["metadata"]["labels"]["more"], "x");
    assert_eq!(pod["spec"]["nodeSelector"]["pool"], "edge");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "other:2");
    assert_eq!(container["resources"]["limits"]["cpu"], 2);
    let args = container["args"].as_array().expect("arguments");
    assert_eq!(args.last(), Some(&json!("--explain")));
    assert!(args.contains(&json!("--drain-timeout=1s")), "{args:?}");
    let service = of(&all, Provided::Service);
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["spec"]["loadBalancerClass"], "lb");
    assert_eq!(service["spec"]["loadBalancerIP"], "10.0.0.7");
    assert_eq!(service["metadata"]["annotations"]["from"], "class");
    assert_eq!(
        of(&all, Provided::PodDisruptionBudget)["spec"]["minAvailable"],
        "50%"
    );
    // A number of zero is somebody else's business.
    let scaled = Parameters {
        replicas: Some(0),
        ..parameters
    };
    assert!(of(&made(&objects, &scaled), Provided::Deployment)["spec"]["replicas"].is_null());
}

#[test]
fn parameters_that_cannot_be_used_are_named() {
    for (text, word) in [
        ("replica: 3", "replica"),
        ("replicas: many", "replicas"),
        ("replicas: -1", "replicas"),
        ("service: {type: Other}", "Other"),
        ("service: {kind: LoadBalancer}", "kind"),
        (
            "service: {type: ClusterIP, externalTrafficPolicy: Local}",
            "externalTrafficPolicy",
        ),
        ("podDisruptionBudget: {}", "podDisruptionBudget"),
        (
            "podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}",
            "podDisruptionBudget",
        ),
        (
            "podDisruptionBudget: {minAvailable: most}",
            "podDisruptionBudget",
        ),
        ("resources: {claims: {a: b}}", "resources"),
        ("image: ''", "image"),
        ("imagePullPolicy: Sometimes", "imagePullPolicy"),
        ("[", ""),
        ("", "one document"),
    ] {
        let mut all = objects(CLASS);
        let key = api::ObjectKey::new("", "ConfigMap", "system", "defaults");
        all.remove(&key);
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "defaults", "namespace": "system"},
            "data": {PARAMETERS_KEY: text},
        });
        all.insert(api::decode_value(map).expect("a ConfigMap"));
        let class = all.gateway_class("ours").expect("the class");
        let error = Parameters::of_class(&all, class)
            .expect_err(text)
            .to_string();
        assert!(
            error.contains(word) && error.contains("ConfigMap system/defaults"),
            "{text}: {error}"
        );
    }
    let mut all = objects(CLASS);
    all.remove(&api::ObjectKey::new("", "ConfigMap", "system", "defaults"));
    let class = all.gateway_class("ours").expect("the class");
    let error = Parameters::of_class(&all, class).expect_err("nothing there");
    assert!(error.to_string().contains("not found"), "{error}");
}

#[test]
fn what_the_api_server_adds_is_no_difference() {
    for (wanted, present, same) in [
        (json!({"a": 1}), json!({"a": 1, "b": 2}), true),
        (json!({"a": 1}), json!({"a": 2}), false),
        (json!({"a": 1}), json!({}), false),
        (json!({"a": {}, "b": []}), json!({}), true),
        (
            json!({"a": [{"x": 1}]}),
            json!({"a": [{"x": 1, "y": 2}]}),
            true,
        ),
        (json!({"a": [1]}), json!({"a": [1, 2]}), false),
        (json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 1}}), true),
        (json!({"a": "1"}), json!({"a": 1}), false),
    ] {
        assert_eq!(is_part_of(&wanted, &present), same, "{wanted} {present}");
    }
}

#[test]
fn every_change_of_what_is_wanted_shows() {
    let applied = |text: &str| {
        let objects = objects(&gateway(text));
        let all = made(&objects, &Parameters::default());
        all.iter()
            .map(|one| one.body["metadata"]["annotations"]["pointsman.dev/applied"].clone())
            .collect::<Vec<_>>()
    };
    let plain = applied(LISTENERS);
    assert_eq!(plain, applied(LISTENERS), "the same each time");
    let labelled = applied(&format!(
        "infrastructure: {{labels: {{a: b}}}}, {LISTENERS}"
    ));
    // A label that goes again must be noticed on every object.
    assert!(plain.iter().zip(&labelled).all(|(one, other)| one != other));
}

const READY: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, namespace: apps, labels: {kubernetes.io/service-name: web-pointsman}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1], conditions: {ready: READY}}]
";

/// A Service of a load balancer.
fn balancer(ingress: Value) -> Option<Value> {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1"});
    Some(json!({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}))
}

fn at(ip: &str) -> Option<Value> {
    balancer(json!([{"ip": ip}]))
}

/// A Service inside the cluster.
fn inside() -> Option<Value> {
    let ips = ["10.96.0.1", "fd00::1"];
    Some(json!({"spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips}}))
}

/// What is said of a Gateway: its addresses, and why it is not programmed.
fn said(spec: &str, service: Option<Value>, ready: bool) -> String {
    let ready = READY.replace("READY", &ready.to_string());
    let objects = objects(&(gateway(&format!("{spec}{LISTENERS}")) + &ready));
    let gateway: &Gateway = objects.gateway("apps", "web").expect("the Gateway");
    let said = served(gateway, service.as_ref(), &objects);
    let all = said.addresses.iter().map(ToString::to_string);
    let mut all: Vec<_> = all.chain(said.hostnames).collect();
    all.extend(said.problem.map(|(reason, _)| reason.to_owned()));
    all.join(" ")
}

#[test]
fn a_gateway_is_programmed_when_it_can_be_reached() {
    for (service, ready, expected) in [
        (None, true, "AddressNotAssigned"),
        (balancer(json!([])), true, "AddressNotAssigned"),
        (at("10.0.0.1"), true, "10.0.0.1"),
        (at("10.0.0.1"), false, "10.0.0.1 Pending"),
        (
            balancer(json!([{"hostname": "lb.example"}])),
            true,
            "lb.example",
        ),
        (inside(), true, "10.96.0.1 fd00::1"),
    ] {
        assert_eq!(said("", service.clone(), ready), expected, "{service:?}");
    }
}

#[test]
fn an_address_that_was_asked_for_must_be_had() {
    let asked = "addresses: [{value: 10.0.0.7}], ";
    let any = "addresses: [{type: IPAddress}], ";
    let name = "addresses: [{type: Hostname, value: a.b}], ";
    for (spec, service, expected) in [
        (asked, at("10.0.0.7"), "10.0.0.7"),
        (asked, at("10.0.0.1"), "10.0.0.1 AddressNotUsable"),
        (asked, balancer(json!([])), "AddressNotUsable"),
        (asked, inside(), "10.96.0.1 fd00::1 AddressNotUsable"),
        (any, at("10.0.0.1"), "10.0.0.1"),
        (name, at("10.0.0.1"), "10.0.0.1 AddressNotUsable"),
    ] {
        assert_eq!(said(spec, service.clone(), true), expected, "{spec}");
    }
}

#[test]
fn the_admin_port_is_nobody_elses() {
    let objects = objects(&gateway(
        "listeners: [{name: a, port: 19090, protocol: HTTP}]",
    ));
    let gateway: &Gateway = objects.gateway("apps", "web").expect("the Gateway");
    assert!(
        served(gateway, None, &objects)
            .ports
            .contains_key(&ADMIN_PORT)
    );
}

#[test]
fn replicas_share_unless_told_otherwise() {
    let objects = objects(&gateway(LISTENERS));
    let shared = made(&objects, &Parameters::default());
    let siblings: Vec<_> = shared
        .iter()
        .filter(|one| one.body["spec"]["clusterIP"] == "None")
        .collect();
    assert_eq!(siblings.len(), 1);
    assert_eq!(siblings[0].body["spec"]["publishNotReadyAddresses"], true);
    let text = of(&shared, Provided::Deployment).to_string();
    for part in [
        "--siblings=web-pointsman-siblings.apps.svc:19007",
        "--sharing-token-from-controller",
        "emptyDir",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let alone = Parameters {
        sharing: Some(false),
        ..Parameters::default()
    };
    let alone = made(&objects, &alone);
    assert_eq!(alone.len(), 5);
    assert!(
        !of(&alone, Provided::Deployment)
            .to_string()
            .contains("sharing")
    );
}
