//! Server and client of the relay against each other, without a cluster.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ObjectKey, Objects};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::caller::account;
use super::*;
use crate::decode::item;
use crate::kinds::find;
use crate::store::Store;

const CONTROLLER: &str = routing::CONTROLLER_NAME;

/// Two Gateways: `a` with a pool, its picker, certificates and what may and may not be referred to; `b` beside it.
const WORLD: &str = include_str!("tests/world.yaml");

fn documents(yaml: &str) -> Vec<Value> {
    let text = |part: &str| api::read_yaml::<Value>(part).expect("YAML");
    yaml.split("\n---\n").map(text).collect()
}

fn world(objects: &[Value]) -> World {
    let mut store = Store::default();
    for object in objects {
        let version = object["apiVersion"].as_str().expect("a version");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = find(group, object["kind"].as_str().expect("a kind")).expect("a kind we read");
        let object = serde_json::from_value(object.clone()).expect("metadata");
        let item = item(kind, version, object, true);
        assert!(item.object.is_ok(), "{:?}", item.object);
        store.apply(1, item);
    }
    World::new(store.objects().clone(), store.carried().clone())
}

fn gateway(name: &str) -> ObjectKey {
    ObjectKey::new(api::GATEWAY_GROUP, "Gateway", "infra", name)
}

fn names(view: &View) -> Vec<String> {
    view.keys().map(ToString::to_string).collect()
}

#[test]
fn a_gateway_is_given_what_it_needs_and_nothing_else() {
    let world = world(&documents(WORLD));
    let view = world.view(&gateway("a"), CONTROLLER).expect("ours");
    assert_eq!(
        names(&view),
        [
            "BackendTLSPolicy apps/picker",
            "ConfigMap apps/authority",
            "EndpointSlice apps/mirror-1",
            "Gateway infra/a",
            "GatewayClass ours",
            "HTTPRoute apps/chat",
            "InferenceObjective apps/urgent",
            "InferencePool apps/llama",
            "Namespace apps",
            "Namespace certs",
            "Namespace infra",
            "Pod apps/llama-1",
            "ReferenceGrant certs/shared",
            "Secret certs/shared",
            "Secret infra/own",
            "Service apps/mirror",
            "Service apps/picker",
        ]
    );
    let view = world.view(&gateway("b"), CONTROLLER).expect("ours");
    assert_eq!(
        names(&view),
        [
            "Gateway infra/b",
            "GatewayClass ours",
            "HTTPRoute infra/other",
            "Namespace infra",
        ]
    );
    assert!(world.view(&gateway("none"), CONTROLLER).is_none());
    assert!(world.view(&gateway("a"), "example.com/other").is_none());
}

#[test]
fn what_is_given_compiles_to_the_same_plan() {
    let world = world(&documents(WORLD));
    let options = routing::CompileOptions {
        mode: routing::Mode::Cluster,
        ..routing::CompileOptions::default()
    };
    let whole = routing::compile(&objects(&documents(WORLD)), &options);
    for name in ["a", "b"] {
        let view = world.view(&gateway(name), CONTROLLER).expect("ours");
        let given: Objects = view
            .values()
            .map(|one| serde_json::from_str(one.text.get()).expect("JSON"))
            .map(|value| api::decode_value(value).expect("an object"))
            .collect();
        let part = routing::compile(&given, &options);
        let plan = |compiled: &routing::Compiled| {
            let own = compiled
                .gateways
                .iter()
                .find(|one| one.gateway.name == name);
            own.expect("compiled").plan.clone()
        };
        assert_eq!(plan(&part), plan(&whole), "{name}");
        assert!(!plan(&whole).ports.is_empty());
    }
}

fn objects(values: &[Value]) -> Objects {
    let decode = |value: &Value| api::decode_value(value.clone()).expect("an object");
    values.iter().map(decode).collect()
}

#[test]
fn lines_lead_from_one_view_to_the_next() {
    let all = documents(WORLD);
    let before = world(&all).view(&gateway("b"), CONTROLLER).expect("ours");
    let read = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).expect("JSON");
    let first = read(line::first(&before, "token").expect("a first line"));
    assert_eq!(
        (&first["number"], &first["complete"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(first["objects"].as_array().map(Vec::len), Some(4));
    // The same objects, read anew, are no news.
    let same = world(&all).view(&gateway("b"), CONTROLLER).expect("ours");
    assert!(line::line(1, &before, &same).is_none());
    let changed: Vec<Value> = all
        .iter()
        .filter(|one| one["metadata"]["name"] != "other")
        .cloned()
        .map(|mut one| {
            if one["kind"] == "Gateway" && one["metadata"]["name"] == "b" {
                one["spec"]["listeners"][0]["port"] = 81.into();
            }
            one
        })
        .collect();
    let after = world(&changed)
        .view(&gateway("b"), CONTROLLER)
        .expect("ours");
    let next = read(line::line(1, &before, &after).expect("news"));
    assert_eq!(next["objects"].as_array().map(Vec::len), Some(1));
    assert_eq!(next["gone"][0]["name"], "other");
    assert_eq!(next["complete"], false);
}

/// A cluster that knows tokens: `a` and `b` of the data planes of these Gateways, `elsewhere` made out to another
/// audience; it is away at `away`.
fn cluster() -> Client {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        let body = request.into_body().collect().await.expect("in memory");
        let body: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
        assert_eq!(body["spec"]["audiences"], json!([AUDIENCE]));
        let token = body["spec"]["token"].as_str().unwrap_or_default();
        let known = |name: &str, audiences: Value| {
            let user = json!({"username": account(&gateway(name))});
            json!({"authenticated": true, "user": user, "audiences": audiences})
        };
        let status = match token {
            "a" | "b" => known(token, json!([AUDIENCE])),
            "elsewhere" => known("a", json!(["https://kubernetes.default.svc"])),
            "silent" => known("a", Value::Null),
            _ => json!({"authenticated": false, "audiences": [AUDIENCE]}),
        };
        let answer = json!({"spec": {}, "status": status}).to_string();
        let mut response = Response::new(Full::new(Bytes::from(answer)));
        *response.status_mut() = match token {
            "away" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CREATED,
        };
        Ok::<_, Infallible>(response)
    });
    Client::new(service, "default")
}

/// A relay over an in-memory world, and the files that a data plane has.
struct Stage {
    relay: Relay,
    worlds: watch::Sender<Option<Arc<World>>>,
    files: tempfile::TempDir,
}

async fn stage(authority: &Arc<Authority>, first: Option<World>) -> Stage {
    let (worlds, told) = watch::channel(first.map(Arc::new));
    let options = RelayOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        address: "127.0.0.1:1".to_owned(),
        controller_name: CONTROLLER.to_owned(),
    };
    let relay = Relay::start(options, Arc::clone(authority), cluster(), told)
        .await
        .expect("a relay");
    let files = tempfile::tempdir().expect("a folder");
    std::fs::write(files.path().join("ca.crt"), authority.certificate()).expect("written");
    Stage {
        relay,
        worlds,
        files,
    }
}

impl Stage {
    fn options(&self, name: &str, token: &str) -> RelayedOptions {
        let file = self.files.path().join(format!("token-{token}"));
        let mut written = std::fs::File::create(&file).expect("a file");
        writeln!(written, "{token}").expect("written");
        RelayedOptions {
            gateway: gateway(name),
            controller: self.relay.address().to_string(),
            authority: self.files.path().join("ca.crt"),
            token: file,
        }
    }
}

async fn until(relayed: &mut Relayed, what: impl Fn(&Objects) -> bool) {
    let waiting = async {
        while !what(&relayed.objects()) {
            relayed.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("in time");
}

fn port_of(objects: &Objects, name: &str) -> Option<u16> {
    Some(objects.gateway("infra", name)?.spec.listeners[0].port)
}

/// The world with another port at Gateway `b`.
fn with_port(port: u16) -> World {
    let mut all = documents(WORLD);
    for one in &mut all {
        if one["kind"] == "Gateway" && one["metadata"]["name"] == "b" {
            one["spec"]["listeners"][0]["port"] = port.into();
        }
    }
    world(&all)
}

#[tokio::test]
async fn a_data_plane_follows_in_order() {
    let authority = Arc::new(Authority::make().expect("an authority"));
    let stage = stage(&authority, Some(with_port(80))).await;
    let mut relayed = Relayed::start(stage.options("b", "b"));
    assert!(!relayed.synced());
    until(&mut relayed, |objects| port_of(objects, "b") == Some(80)).await;
    assert!(relayed.synced() && relayed.objects().len() == 4);
    let token = relayed.sharing().expect("a token");
    assert_eq!(token, authority.sharing(&gateway("b")));
    assert_ne!(token, authority.sharing(&gateway("a")));
    assert_eq!(token.len(), 64);
    let mut last = 80;
    for port in 81..100 {
        stage.worlds.send_replace(Some(Arc::new(with_port(port))));
        if port % 3 == 0 {
            until(&mut relayed, |objects| {
                port_of(objects, "b").is_some_and(|now| now > last)
            })
            .await;
            last = port_of(&relayed.objects(), "b").expect("a port");
        }
    }
    until(&mut relayed, |objects| port_of(objects, "b") == Some(99)).await;
    // A Gateway that is no longer ours ends the stream; what was known stays.
    stage.worlds.send_replace(Some(Arc::new(World::default())));
    stage.worlds.send_replace(Some(Arc::new(with_port(100))));
    until(&mut relayed, |objects| port_of(objects, "b") == Some(100)).await;
}

#[tokio::test]
async fn callers_get_what_is_theirs() {
    let authority = Arc::new(Authority::make().expect("an authority"));
    let stage = stage(&authority, Some(with_port(80))).await;
    for (name, token, status) in [
        ("a", "a", None),
        ("b", "b", None),
        ("a", "b", Some(StatusCode::FORBIDDEN)),
        ("none", "a", Some(StatusCode::FORBIDDEN)),
        ("a", "elsewhere", Some(StatusCode::UNAUTHORIZED)),
        ("a", "silent", Some(StatusCode::UNAUTHORIZED)),
        ("a", "unknown", Some(StatusCode::UNAUTHORIZED)),
        ("a", "away", Some(StatusCode::SERVICE_UNAVAILABLE)),
    ] {
        let answered = client::answer(stage.options(name, token)).await;
        assert_eq!(
            answered,
            status.map_or(Ok(()), |s| Err(Some(s))),
            "{name} {token}"
        );
    }
    // Before the cluster has been read there is nothing to tell.
    stage.worlds.send_replace(None);
    let answered = client::answer(stage.options("a", "a")).await;
    assert_eq!(answered, Err(Some(StatusCode::SERVICE_UNAVAILABLE)));
    // A controller that another authority has signed is not asked at all.
    let other = Authority::make().expect("an authority");
    std::fs::write(stage.files.path().join("ca.crt"), other.certificate()).expect("written");
    assert_eq!(client::answer(stage.options("a", "a")).await, Err(None));
}

/// Passes connections on to whatever address is in the cell.
async fn crossing(to: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = *to.lock();
            tokio::spawn(async move {
                if let Ok(mut to) = tokio::net::TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_lost_controller_is_looked_for_again_and_another_will_do() {
    let authority = Arc::new(Authority::make().expect("an authority"));
    let first = stage(&authority, Some(with_port(80))).await;
    let second = stage(&authority, Some(with_port(90))).await;
    let to = Arc::new(Mutex::new(first.relay.address()));
    let options = RelayedOptions {
        controller: crossing(Arc::clone(&to)).await.to_string(),
        ..first.options("b", "b")
    };
    let mut relayed = Relayed::start(options);
    until(&mut relayed, |objects| port_of(objects, "b") == Some(80)).await;
    let Stage { relay, files, .. } = first;
    drop(relay);
    *to.lock() = second.relay.address();
    until(&mut relayed, |objects| port_of(objects, "b") == Some(90)).await;
    drop(files);
}

#[tokio::test]
async fn the_authority_is_made_once_and_read_after() {
    let stored: Arc<Mutex<Option<Value>>> = Arc::default();
    let service = tower::service_fn({
        let stored = Arc::clone(&stored);
        move |request: Request<kube::client::Body>| {
            let stored = Arc::clone(&stored);
            async move {
                let is_post = request.method() == http::Method::POST;
                let body = request.into_body().collect().await.expect("in memory");
                let mut stored = stored.lock();
                if is_post {
                    *stored = Some(serde_json::from_slice(&body.to_bytes()).expect("JSON"));
                }
                let missing = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "", "status": "Failure"});
                let status = if stored.is_some() { 200 } else { 404 };
                let answer = stored.clone().unwrap_or(missing).to_string();
                let mut response = Response::new(Full::new(Bytes::from(answer)));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                Ok::<_, Infallible>(response)
            }
        }
    });
    let client = Client::new(service, "default");
    let made = Authority::open(&client, "system").await.expect("made");
    let read = Authority::open(&client, "system").await.expect("read");
    assert_eq!(made.certificate(), read.certificate());
    *stored.lock() = Some(json!({"metadata": {"name": "x"}, "data": {"ca.crt": "eA=="}}));
    assert!(matches!(
        Authority::open(&client, "system").await,
        Err(AuthorityError::Incomplete { .. })
    ));
}

#[test]
fn hosts_are_cut_out_of_addresses() {
    for (address, host) in [
        ("controller.system.svc:8443", "controller.system.svc"),
        ("10.0.0.1:8443", "10.0.0.1"),
        ("[fd00::1]:8443", "fd00::1"),
    ] {
        assert_eq!(authority::host_of(address), host);
    }
}
