//! Provisioning over an API server in memory, in paused time.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::Objects;
use common::Fake;
use kubernetes::{Desired, Parameters, ProvisionSettings, Provisioner, Scope};
use serde_json::json;
use tokio::sync::watch;

const SERVICES: &str = "/api/v1/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";

fn settings() -> ProvisionSettings {
    ProvisionSettings {
        controller_name: "pointsman.dev/gateway-controller".to_owned(),
        image: "pointsman:1".to_owned(),
        address: "controller:8443".to_owned(),
        authority: "PEM".to_owned(),
    }
}

fn objects(class: &str, port: u16) -> Objects {
    let text = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: ours}}
spec: {{controllerName: pointsman.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: theirs}}
spec: {{controllerName: example.com/theirs}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web, namespace: apps, uid: u1}}
spec: {{gatewayClassName: {class}, listeners: [{{name: a, port: {port}, protocol: HTTP}}]}}
"
    );
    let read = |document: api::Document| document.result.expect("a good document");
    api::decode_yaml(&text).into_iter().map(read).collect()
}

fn want(provisioner: &Provisioner, class: &str, port: u16, parameters: Option<Parameters>) {
    let objects = objects(class, port);
    let gateway = objects.gateway("apps", "web").expect("the Gateway");
    let desired = Desired {
        gateway: Arc::clone(gateway),
        ports: [].into(),
        parameters,
    };
    let gateways = if class == "ours" {
        vec![desired]
    } else {
        Vec::new()
    };
    provisioner.want(gateways, &objects);
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

fn start(fake: &Fake, leads: &watch::Sender<bool>) -> Provisioner {
    Provisioner::start(fake.client(), &Scope::All, settings(), leads.subscribe())
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_made_once_and_only_by_the_leader() {
    let fake = Fake::new();
    let (leads, _) = watch::channel(false);
    let provisioner = start(&fake, &leads);
    want(&provisioner, "ours", 80, Some(Parameters::default()));
    settle().await;
    assert!(provisioner.synced());
    assert!(fake.requests("PATCH").is_empty(), "another copy leads");
    leads.send_replace(true);
    settle().await;
    assert_eq!(fake.requests("PATCH").len(), 6);
    for _ in 0..3 {
        want(&provisioner, "ours", 80, Some(Parameters::default()));
        settle().await;
    }
    assert_eq!(
        fake.requests("PATCH").len(),
        6,
        "nothing new, nothing written"
    );
    // A change touches what it is about.
    want(&provisioner, "ours", 81, Some(Parameters::default()));
    settle().await;
    assert_eq!(fake.requests("PATCH").len(), 7);
    let service = fake.get(SERVICES, "apps/web-pointsman").expect("a Service");
    assert_eq!(service["spec"]["ports"][0]["port"], 81);
    // A copy that takes over finds everything as it should be.
    drop(provisioner);
    let next = start(&fake, &leads);
    want(&next, "ours", 81, Some(Parameters::default()));
    settle().await;
    assert_eq!(fake.requests("PATCH").len(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_others_change_or_delete_is_put_back() {
    let fake = Fake::new();
    let (leads, _) = watch::channel(true);
    let provisioner = start(&fake, &leads);
    want(&provisioner, "ours", 80, Some(Parameters::default()));
    settle().await;
    let mut deployment = fake.get(DEPLOYMENTS, "apps/web-pointsman").expect("made");
    deployment["spec"]["replicas"] = 7.into();
    deployment["spec"]["paused"] = true.into();
    fake.put(DEPLOYMENTS, deployment);
    fake.delete(SERVICES, "apps", "web-pointsman");
    settle().await;
    let deployment = fake.get(DEPLOYMENTS, "apps/web-pointsman").expect("there");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert!(fake.get(SERVICES, "apps/web-pointsman").is_some());
    assert_eq!(fake.requests("PATCH").len(), 8);
    // Parameters that cannot be used change nothing.
    want(&provisioner, "ours", 90, None);
    settle().await;
    assert_eq!(fake.requests("PATCH").len(), 8);
    assert!(fake.requests("DELETE").is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_class_takes_everything_away_and_a_lost_one_nothing() {
    let fake = Fake::new();
    let (leads, _) = watch::channel(true);
    let provisioner = start(&fake, &leads);
    want(&provisioner, "ours", 80, Some(Parameters::default()));
    settle().await;
    want(&provisioner, "nobodys", 80, None);
    settle().await;
    assert!(fake.requests("DELETE").is_empty());
    want(&provisioner, "theirs", 80, None);
    settle().await;
    let deleted: BTreeSet<_> = fake.requests("DELETE").into_iter().collect();
    assert_eq!(deleted.len(), 6, "{deleted:?}");
    assert!(fake.get(DEPLOYMENTS, "apps/web-pointsman").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_made_is_left_alone_and_said() {
    let fake = Fake::new();
    let (leads, _) = watch::channel(true);
    let theirs = json!({"metadata": {"name": "web-pointsman", "namespace": "apps"}, "spec": {"type": "ClusterIP"}});
    fake.put(SERVICES, theirs);
    let provisioner = start(&fake, &leads);
    want(&provisioner, "ours", 80, Some(Parameters::default()));
    settle().await;
    let service = fake.get(SERVICES, "apps/web-pointsman").expect("theirs");
    assert!(service["metadata"]["labels"].is_null());
    assert!(
        fake.get(DEPLOYMENTS, "apps/web-pointsman").is_some(),
        "the rest is made"
    );
    let objects = objects("ours", 80);
    let gateway = objects.gateway("apps", "web").expect("the Gateway");
    let (reason, why) = provisioner
        .served(gateway, &objects)
        .problem
        .expect("a problem");
    assert!(
        reason == "Pending" && why.contains("Service web-pointsman"),
        "{why}"
    );
    fake.delete(SERVICES, "apps", "web-pointsman");
    settle().await;
    let served = provisioner.served(gateway, &objects).problem;
    assert_eq!(served.map(|(reason, _)| reason), Some("AddressNotAssigned"));
}
