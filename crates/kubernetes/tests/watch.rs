//! The copy of a cluster, over an API server in memory and in paused time.

mod common;

use std::time::Duration;

use api::Objects;
use common::Fake;
use kubernetes::{Scope, Watch};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/pods";
const POOLS: &str = "/apis/inference.networking.k8s.io/v1/inferencepools";
const SERVICES: &str = "/api/v1/services";

fn service(name: &str, port: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"ports": [{"port": port}]}})
}

fn pool(labels: Value) -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"selector": {"matchLabels": labels}, "targetPorts": [{"number": 8000}]},
    })
}

fn pod(name: &str, labels: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n", "labels": labels},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn ports(objects: &Objects) -> Vec<String> {
    let line =
        |s: &std::sync::Arc<api::Service>| format!("{}:{}", s.meta.name, s.spec.ports[0].port);
    objects.services().map(line).collect()
}

fn pods(objects: &Objects) -> Vec<String> {
    objects.pods().map(|pod| pod.meta.name.clone()).collect()
}

/// Waits until the copy is as it should be; a minute of paused time at most.
async fn until(watch: &mut Watch, what: &str, holds: impl Fn(&Watch) -> bool) {
    let waiting = async {
        while !holds(watch) {
            watch.changed().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(found.is_ok(), "{what}: {:?}", watch.objects());
}

async fn synced(fake: &Fake, scope: Scope) -> Watch {
    let mut watch = Watch::start(fake.client(), scope);
    until(&mut watch, "the first picture", Watch::synced).await;
    watch
}

#[tokio::test(start_paused = true)]
async fn objects_come_change_and_go() {
    let fake = Fake::new();
    fake.put(SERVICES, service("a", json!(80)));
    let mut watch = synced(&fake, Scope::All).await;
    assert_eq!(ports(&watch.objects()), ["a:80"]);
    let before = watch.objects();
    fake.put(SERVICES, service("b", json!(81)));
    until(&mut watch, "b", |w| ports(&w.objects()) == ["a:80", "b:81"]).await;
    fake.put(SERVICES, service("a", json!(82)));
    until(&mut watch, "a changes", |w| {
        ports(&w.objects()) == ["a:82", "b:81"]
    })
    .await;
    fake.delete(SERVICES, "n", "a");
    until(&mut watch, "a goes", |w| ports(&w.objects()) == ["b:81"]).await;
    assert_eq!(ports(&before), ["a:80"], "a copy is a copy");
}

#[tokio::test(start_paused = true)]
async fn one_bad_object_takes_nothing_down() {
    let fake = Fake::new();
    fake.put(SERVICES, service("bad", json!("eighty")));
    fake.put(SERVICES, service("good", json!(80)));
    let mut watch = synced(&fake, Scope::All).await;
    assert_eq!(ports(&watch.objects()), ["good:80"]);
    let told = watch.problems();
    assert!(
        told.len() == 1 && told[0].to_string().contains("Service n/bad"),
        "{told:?}"
    );
    fake.put(SERVICES, service("good", json!("eighty")));
    until(&mut watch, "another problem", |w| w.problems().len() == 2).await;
    assert_eq!(ports(&watch.objects()), ["good:80"], "the last good state");
    fake.put(SERVICES, service("bad", json!(81)));
    until(&mut watch, "healed", |w| {
        ports(&w.objects()) == ["bad:81", "good:80"]
    })
    .await;
    assert_eq!(watch.problems().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_everything_stays() {
    let fake = Fake::new();
    fake.put(SERVICES, service("a", json!(80)));
    fake.put(SERVICES, service("b", json!(80)));
    let mut watch = synced(&fake, Scope::All).await;
    fake.go_away();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(ports(&watch.objects()), ["a:80", "b:80"]);
    // What happens meanwhile is forgotten by the server: 410, and a new list.
    fake.delete(SERVICES, "n", "a");
    fake.put(SERVICES, service("c", json!(80)));
    fake.compact();
    assert_eq!(ports(&watch.objects()), ["a:80", "b:80"]);
    fake.come_back();
    until(&mut watch, "c comes, a goes", |w| {
        ports(&w.objects()) == ["b:80", "c:80"]
    })
    .await;
    fake.put(SERVICES, service("d", json!(80)));
    until(&mut watch, "d", |w| ports(&w.objects()).len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_away_at_first_is_waited_for() {
    let fake = Fake::new();
    fake.put(SERVICES, service("a", json!(80)));
    fake.go_away();
    let mut watch = Watch::start(fake.client(), Scope::All);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!watch.synced() && watch.objects().is_empty());
    fake.come_back();
    until(&mut watch, "the first picture", |w| {
        w.synced() && !w.objects().is_empty()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_found_and_one_that_goes_is_left() {
    let fake = Fake::new();
    fake.put(PODS, pod("x", json!({"app": "x"})));
    let mut watch = synced(&fake, Scope::All).await;
    assert!(pods(&watch.objects()).is_empty(), "no pool selects it");
    fake.install("inference.networking.k8s.io/v1", "inferencepools");
    fake.put(POOLS, pool(json!({"app": "x"})));
    until(&mut watch, "the pool and its Pod", |w| {
        pods(&w.objects()) == ["x"]
    })
    .await;
    fake.uninstall("inference.networking.k8s.io/v1", "inferencepools");
    until(&mut watch, "both go", |w| w.objects().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let asked = fake.requests(&format!("GET {POOLS}")).len();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        fake.requests(&format!("GET {POOLS}")).len(),
        asked,
        "nobody asks for it any more"
    );
    fake.install("inference.networking.k8s.io/v1", "inferencepools");
    fake.put(POOLS, pool(json!({"app": "x"})));
    until(&mut watch, "both come back", |w| {
        pods(&w.objects()) == ["x"]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pods_follow_the_selector_without_a_gap() {
    let fake = Fake::new();
    fake.install("inference.networking.k8s.io/v1", "inferencepools");
    fake.put(POOLS, pool(json!({"app": "x"})));
    fake.put(PODS, pod("both", json!({"app": "x", "tier": "gold"})));
    fake.put(PODS, pod("one", json!({"app": "x"})));
    fake.put(PODS, pod("none", json!({"app": "y"})));
    let mut watch = synced(&fake, Scope::All).await;
    assert_eq!(pods(&watch.objects()), ["both", "one"]);
    fake.put(POOLS, pool(json!({"tier": "gold"})));
    loop {
        watch.changed().await;
        let pods = pods(&watch.objects());
        assert!(pods.contains(&"both".to_owned()), "{pods:?}");
        if pods == ["both"] {
            break;
        }
    }
    fake.put(PODS, pod("both", json!({"app": "x"})));
    until(&mut watch, "it no longer fits", |w| {
        pods(&w.objects()).is_empty()
    })
    .await;
    fake.put(POOLS, pool(json!({"app": "x"})));
    until(&mut watch, "the old selector", |w| {
        pods(&w.objects()) == ["both", "one"]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_does_not_hold_up_the_rest() {
    let fake = Fake::new();
    fake.forbid(SERVICES);
    fake.put("/api/v1/namespaces", json!({"metadata": {"name": "n"}}));
    let watch = synced(&fake, Scope::All).await;
    assert_eq!(watch.objects().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_picker_asks_for_its_pool_and_pods_alone() {
    let fake = Fake::new();
    fake.install("inference.networking.k8s.io/v1", "inferencepools");
    fake.put(POOLS, pool(json!({"app": "x"})));
    let mut other = pool(json!({"app": "y"}));
    other["metadata"]["name"] = "other".into();
    fake.put(POOLS, other);
    fake.put(PODS, pod("x", json!({"app": "x"})));
    fake.put(PODS, pod("y", json!({"app": "y"})));
    let scope = Scope::Pool {
        namespace: "n".to_owned(),
        name: "p".to_owned(),
        group: api::INFERENCE_GROUP.to_owned(),
    };
    let watch = synced(&fake, scope).await;
    let objects = watch.objects();
    assert_eq!(
        (objects.inference_pools().count(), pods(&objects)),
        (1, vec!["x".to_owned()])
    );
    let asked: Vec<_> = fake.requests("GET /api/v1/namespaces/n/pods");
    assert!(!asked.is_empty() && fake.requests("GET /api/v1/secrets").is_empty());
    assert!(fake.requests("GET /api/v1/services").is_empty());
    drop(watch);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = fake.requests("").len();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(fake.requests("").len(), before, "dropped means ended");
}
