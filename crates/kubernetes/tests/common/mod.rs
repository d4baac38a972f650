//! An API server in memory: lists, watches, status applies and Leases, as far as the crate asks for them. It keeps a log
//! of changes that can be cut off (compaction), it can be away, and it can refuse kinds. There are no sockets, so tests
//! run in paused time.

// Each test program uses a part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, channel::Channel, combinators::BoxBody};
use kubernetes::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

type Body = BoxBody<Bytes, Infallible>;

/// The server. Clones are the same.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Objects by collection path (`/api/v1/pods`) and `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Version, collection, type of the event and the object.
    log: Vec<(u64, String, &'static str, Value)>,
    /// Changes up to here are forgotten.
    compacted: u64,
    /// `group/version` and plural of what is installed.
    installed: BTreeSet<(String, String)>,
    forbidden: BTreeSet<String>,
    away: bool,
    /// Counts how often streams were cut.
    cuts: u64,
    requests: Vec<String>,
}

const CORE: &str = "/api/v1/";

/// Where a request goes: the collection, a namespace, a name, and whether it is about the status.
#[derive(Debug, Default)]
struct Target {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

fn target(path: &str) -> Target {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let base = if parts[0] == "api" { 2 } else { 3 };
    let (prefix, mut rest) = (parts[..base].join("/"), &parts[base..]);
    let mut target = Target::default();
    if rest.len() > 2 && rest[0] == "namespaces" {
        target.namespace = Some(rest[1].to_owned());
        rest = &rest[2..];
    }
    target.collection = format!("/{prefix}/{}", rest[0]);
    target.name = rest.get(1).map(|name| (*name).to_owned());
    target.status = rest.get(2) == Some(&"status");
    target
}

fn query(uri: &http::Uri) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        text.replace('+', " ")
            .replace("%3D", "=")
            .replace("%2C", ",")
            .replace("%2F", "/")
    };
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect()
}

/// Whether an object is in a namespace and fits the selectors.
fn fits(object: &Value, namespace: Option<&str>, query: &BTreeMap<String, String>) -> bool {
    let meta = &object["metadata"];
    let labels = query.get("labelSelector").into_iter();
    let mut labels = labels
        .flat_map(|all| all.split(','))
        .filter_map(|one| one.split_once('='));
    let fields = query.get("fieldSelector").into_iter();
    let mut fields = fields
        .flat_map(|all| all.split(','))
        .filter_map(|one| one.split_once('='));
    namespace.is_none_or(|namespace| meta["namespace"] == namespace)
        && labels.all(|(key, value)| meta["labels"][key] == value)
        && fields.all(|(key, value)| key == "metadata.name" && meta["name"] == value)
}

fn id(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                version: 1,
                ..State::default()
            }),
            changed: watch::channel(0).0,
        }))
    }

    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(service, "default")
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let out = act(&mut self.0.state.lock().unwrap());
        self.0.changed.send_modify(|count| *count += 1);
        out
    }

    /// Installs a kind.
    pub(crate) fn install(&self, group_version: &str, plural: &str) {
        self.change(|state| {
            state
                .installed
                .insert((group_version.to_owned(), plural.to_owned()))
        });
    }

    /// Removes a kind and all its objects.
    pub(crate) fn uninstall(&self, group_version: &str, plural: &str) {
        self.change(|state| {
            let collection = format!("/apis/{group_version}/{plural}");
            state
                .installed
                .remove(&(group_version.to_owned(), plural.to_owned()));
            state.objects.remove(&collection);
            state.cuts += 1;
        });
    }

    /// Refuses a collection with 403.
    pub(crate) fn forbid(&self, collection: &str) {
        self.change(|state| state.forbidden.insert(collection.to_owned()));
    }

    /// Stores an object; the collection is for instance `/api/v1/pods`.
    pub(crate) fn put(&self, collection: &str, object: Value) {
        self.change(|state| state.put(collection, object));
    }

    pub(crate) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let version = state.version;
            let objects = state.objects.entry(collection.to_owned()).or_default();
            if let Some(mut object) = objects.remove(&format!("{namespace}/{name}")) {
                object["metadata"]["resourceVersion"] = version.to_string().into();
                state
                    .log
                    .push((version, collection.to_owned(), "DELETED", object));
            }
        });
    }

    /// Goes away: open streams end and every request is answered 503.
    pub(crate) fn go_away(&self) {
        self.change(|state| {
            state.away = true;
            state.cuts += 1;
        });
    }

    pub(crate) fn come_back(&self) {
        self.change(|state| state.away = false);
    }

    /// Forgets all changes so far: whoever has not seen them must list anew.
    pub(crate) fn compact(&self) {
        self.change(|state| {
            state.compacted = state.version;
            state.log.clear();
        });
    }

    pub(crate) fn get(&self, collection: &str, id: &str) -> Option<Value> {
        let state = self.0.state.lock().unwrap();
        state.objects.get(collection)?.get(id).cloned()
    }

    /// Requests so far that begin with this text, such as `PATCH`.
    pub(crate) fn requests(&self, start: &str) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        let all = state.requests.iter();
        all.filter(|one| one.starts_with(start)).cloned().collect()
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let query = query(&head.uri);
        let path = head.uri.path().to_owned();
        let is_watch = query
            .get("watch")
            .is_some_and(|value| value == "true" || value == "1");
        let mut state = self.0.state.lock().unwrap();
        let what = if is_watch {
            "WATCH"
        } else {
            head.method.as_str()
        };
        state.requests.push(format!("{what} {path}"));
        if state.away {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        if path == "/apis" {
            return whole(&state.discovery());
        }
        let target = target(&path);
        if state.forbidden.contains(&target.collection) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        if !state.serves(&target.collection) {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        match (head.method, is_watch) {
            (Method::GET, true) => {
                drop(state);
                self.stream(target, query)
            }
            (Method::GET, false) => state.read(&target, &query),
            (method, _) => {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let answer = state.write(&method, &target, body);
                drop(state);
                self.0.changed.send_modify(|count| *count += 1);
                answer
            }
        }
    }

    /// The stream of a watch; it ends when streams are cut.
    fn stream(&self, target: Target, query: BTreeMap<String, String>) -> Response<Body> {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(64);
        let fake = self.clone();
        tokio::spawn(async move {
            let mut changed = fake.0.changed.subscribe();
            let mut at: u64 = query["resourceVersion"].parse().unwrap_or_default();
            let cuts = fake.0.state.lock().unwrap().cuts;
            loop {
                let (lines, over) = {
                    let state = fake.0.state.lock().unwrap();
                    state.news(&target, &query, &mut at, cuts)
                };
                for line in lines {
                    if sender
                        .send_data(Bytes::from(format!("{line}\n")))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                if over || changed.changed().await.is_err() {
                    return;
                }
            }
        });
        Response::new(body.boxed())
    }
}

impl State {
    fn put(&mut self, collection: &str, mut object: Value) {
        self.version += 1;
        let version = self.version;
        let objects = self.objects.entry(collection.to_owned()).or_default();
        let id = id(&object);
        let is_new = !objects.contains_key(&id);
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = version.to_string().into();
        if meta["uid"].is_null() {
            meta["uid"] = format!("uid of {id}").into();
        }
        objects.insert(id, object.clone());
        let event = if is_new { "ADDED" } else { "MODIFIED" };
        self.log
            .push((version, collection.to_owned(), event, object));
    }

    fn serves(&self, collection: &str) -> bool {
        collection.starts_with(CORE)
            || collection.starts_with("/apis/discovery.k8s.io/")
            || collection.starts_with("/apis/coordination.k8s.io/")
            || collection.starts_with("/apis/events.k8s.io/")
            || collection.starts_with("/apis/apps/")
            || collection.starts_with("/apis/policy/")
            || self
                .installed
                .iter()
                .any(|(version, plural)| collection == format!("/apis/{version}/{plural}"))
    }

    fn discovery(&self) -> Value {
        let groups = self.installed.iter().map(|(group_version, plural)| {
            let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
            json!({"metadata": {"name": group}, "versions": [{"version": version, "resources": [{"resource": plural}]}]})
        });
        // One item for each kind would be several for a group; put them together.
        let mut items: Vec<Value> = Vec::new();
        for group in groups {
            match items
                .iter_mut()
                .find(|item| item["metadata"] == group["metadata"])
            {
                Some(known) => {
                    let versions = group["versions"].as_array().cloned().unwrap_or_default();
                    if let Some(all) = known["versions"].as_array_mut() {
                        all.extend(versions);
                    }
                }
                None => items.push(group),
            }
        }
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
    }

    fn read(&self, target: &Target, query: &BTreeMap<String, String>) -> Response<Body> {
        let none = BTreeMap::new();
        let objects = self.objects.get(&target.collection).unwrap_or(&none);
        let namespace = target.namespace.as_deref();
        if let Some(name) = &target.name {
            let id = format!("{}/{name}", namespace.unwrap_or_default());
            return objects
                .get(&id)
                .map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), whole);
        }
        let items: Vec<_> = objects
            .values()
            .filter(|object| fits(object, namespace, query))
            .collect();
        whole(&json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()},
            "items": items,
        }))
    }

    /// Lines for a watch that has seen everything up to `at`, and whether it is over.
    fn news(
        &self,
        target: &Target,
        query: &BTreeMap<String, String>,
        at: &mut u64,
        cuts: u64,
    ) -> (Vec<Value>, bool) {
        if self.cuts != cuts {
            return (Vec::new(), true);
        }
        if *at < self.compacted {
            let status = status(StatusCode::GONE, "Expired");
            return (vec![json!({"type": "ERROR", "object": status})], true);
        }
        let mut lines = Vec::new();
        for (version, collection, event, object) in &self.log {
            if version <= at || *collection != target.collection {
                continue;
            }
            let is_in = fits(object, target.namespace.as_deref(), query);
            // An object that no longer fits a selector is deleted for the watcher.
            let event = match (is_in, *event) {
                (true, event) => event,
                (false, "MODIFIED") => "DELETED",
                (false, _) => continue,
            };
            lines.push(json!({"type": event, "object": object}));
        }
        *at = self.version;
        (lines, false)
    }

    fn write(&mut self, method: &Method, target: &Target, mut body: Value) -> Response<Body> {
        let namespace = target.namespace.clone().unwrap_or_default();
        let name = target
            .name
            .clone()
            .or_else(|| body["metadata"]["name"].as_str().map(str::to_owned));
        let name = name.unwrap_or_else(|| format!("generated-{}", self.version));
        body["metadata"]["namespace"] = namespace.clone().into();
        body["metadata"]["name"] = name.clone().into();
        let known = self
            .objects
            .get(&target.collection)
            .and_then(|objects| objects.get(&format!("{namespace}/{name}")))
            .cloned();
        let wanted = &body["metadata"]["resourceVersion"];
        let known_version = known
            .as_ref()
            .map(|known| &known["metadata"]["resourceVersion"]);
        if known.is_some() && !wanted.is_null() && Some(wanted) != known_version {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        let object = match (method, known) {
            (&Method::DELETE, None) => return failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::DELETE, Some(known)) => {
                self.version += 1;
                let objects = self.objects.entry(target.collection.clone()).or_default();
                objects.remove(&format!("{namespace}/{name}"));
                let event = (self.version, target.collection.clone(), "DELETED", known);
                self.log.push(event);
                return whole(&status(StatusCode::OK, "Deleted"));
            }
            (&Method::PATCH, known) if !target.status => {
                // One owner of all fields: what is applied replaces what is there, but for what the server keeps.
                if let Some(known) = known {
                    body["metadata"]["uid"] = known["metadata"]["uid"].clone();
                    body["status"] = known["status"].clone();
                }
                body
            }
            (&Method::POST, Some(_)) => return failure(StatusCode::CONFLICT, "AlreadyExists"),
            (&Method::PATCH, None) => return failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::PATCH, Some(mut known)) => {
                // Good enough for one writer: top fields of the status that are given replace those that are there.
                let fields = body["status"].as_object().cloned().unwrap_or_default();
                for (field, value) in fields {
                    known["status"][field] = value;
                }
                known
            }
            _ => body,
        };
        self.put(&target.collection, object);
        let stored = &self.objects[&target.collection][&format!("{namespace}/{name}")];
        whole(stored)
    }
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "code": code.as_u16(), "reason": reason, "message": reason,
    })
}

fn failure(code: StatusCode, reason: &str) -> Response<Body> {
    let mut response = whole(&status(code, reason));
    *response.status_mut() = code;
    response
}

fn whole(value: &Value) -> Response<Body> {
    let text = Bytes::from(value.to_string());
    Response::new(http_body_util::Full::new(text).boxed())
}
