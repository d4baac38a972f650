//! Statuses and leader election over an API server in memory, in paused time.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::Fake;
use kubernetes::{Client, Election, ElectionOptions, Report, Scope, StatusWriter, Watch};
use routing::{CompileOptions, Mode};
use serde_json::{Value, json};
use tokio::sync::watch;

const CONTROLLER: &str = "pointsman.dev/gateway-controller";
const CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";

fn class(parameters: bool) -> Value {
    let mut spec = json!({"controllerName": CONTROLLER});
    if parameters {
        spec["parametersRef"] = json!({"group": "example.com", "kind": "Other", "name": "x"});
    }
    json!({"metadata": {"name": "ours", "generation": 1}, "spec": spec})
}

fn cluster() -> Fake {
    let fake = Fake::new();
    fake.install("gateway.networking.k8s.io/v1", "gatewayclasses");
    fake.put(CLASSES, class(false));
    fake
}

async fn writer(fake: &Fake, leads: &watch::Sender<bool>) -> (Watch, StatusWriter) {
    let mut watch = Watch::start(fake.client(), Scope::All);
    while !watch.synced() {
        watch.changed().await;
    }
    let controller = CONTROLLER.to_owned();
    let writer = StatusWriter::start(fake.client(), watch.clone(), controller, leads.subscribe());
    (watch, writer)
}

fn report(watch: &Watch) -> Report {
    let objects = watch.objects();
    let options = CompileOptions {
        mode: Mode::Cluster,
        ..CompileOptions::default()
    };
    Report {
        statuses: routing::compile(&objects, &options).statuses,
        objects,
        gateways: BTreeMap::new(),
        features: &["Gateway"],
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

fn accepted(fake: &Fake) -> Value {
    let class = fake.get(CLASSES, "/ours").expect("the class");
    class["status"]["conditions"][0].clone()
}

#[tokio::test(start_paused = true)]
async fn what_is_found_out_is_written_once() {
    let fake = cluster();
    let (leads, _) = watch::channel(true);
    let (watch, writer) = writer(&fake, &leads).await;
    writer.report(report(&watch));
    settle().await;
    assert_eq!(accepted(&fake)["status"], "True");
    assert_eq!(fake.requests("PATCH").len(), 1);
    for _ in 0..3 {
        writer.report(report(&watch));
        settle().await;
    }
    assert_eq!(
        fake.requests("PATCH").len(),
        1,
        "nothing new, nothing written"
    );
    let told = fake.requests("POST /apis/events.k8s.io");
    assert!(told.is_empty(), "nothing is wrong: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_overwrites_is_said_again() {
    let fake = cluster();
    let (leads, _) = watch::channel(true);
    let (watch, writer) = writer(&fake, &leads).await;
    writer.report(report(&watch));
    settle().await;
    let mut class = fake.get(CLASSES, "/ours").expect("the class");
    class["status"] = json!({});
    fake.put(CLASSES, class);
    settle().await;
    assert_eq!(accepted(&fake)["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn a_problem_is_told_in_an_event_once() {
    let fake = cluster();
    let (leads, _) = watch::channel(true);
    let (watch, writer) = writer(&fake, &leads).await;
    fake.put(CLASSES, class(true));
    settle().await;
    for _ in 0..3 {
        writer.report(report(&watch));
        settle().await;
    }
    assert_eq!(accepted(&fake)["reason"], "InvalidParameters");
    assert_eq!(fake.requests("POST /apis/events.k8s.io").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_what_fails_is_tried_again() {
    let fake = cluster();
    let (leads, _) = watch::channel(false);
    let (watch, writer) = writer(&fake, &leads).await;
    writer.report(report(&watch));
    settle().await;
    assert!(fake.requests("PATCH").is_empty());
    fake.go_away();
    leads.send_replace(true);
    settle().await;
    assert!(accepted(&fake).is_null() && !fake.requests("PATCH").is_empty());
    fake.come_back();
    settle().await;
    assert_eq!(accepted(&fake)["status"], "True");
}

fn candidate(client: Client, identity: &str) -> Election {
    Election::start(
        client,
        ElectionOptions::new("default", "pointsman", identity),
    )
}

fn leads(election: &Election) -> bool {
    *election.leading().borrow()
}

#[tokio::test(start_paused = true)]
async fn one_of_several_leads_and_is_replaced_when_it_goes() {
    let fake = Fake::new();
    let first = candidate(fake.client(), "first");
    settle().await;
    let second = candidate(fake.client(), "second");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(leads(&first) && !leads(&second));
    // In good order: the other one need not wait.
    first.resign().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(leads(&second));
    let third = candidate(fake.client(), "third");
    settle().await;
    assert!(!leads(&third));
    // Without a word: only when the Lease has run out.
    drop(second);
    settle().await;
    assert!(!leads(&third));
    settle().await;
    assert!(leads(&third));
    let lease = fake.get(LEASES, "default/pointsman").expect("the Lease");
    assert_eq!(lease["spec"]["holderIdentity"], "third");
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_may_begin() {
    let fake = Fake::new();
    let election = candidate(fake.client(), "first");
    settle().await;
    assert!(leads(&election));
    fake.go_away();
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert!(!leads(&election), "the Lease runs out after 15 s");
    fake.come_back();
    settle().await;
    assert!(leads(&election));
}
