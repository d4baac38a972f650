//! What there is of what we made: watched by label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::manifests::{CONTROLLER_LABEL, Provided};
use super::names::controller_label;
use crate::wanted::Scope;
use crate::watch::Pause;

/// Kind, namespace and name.
pub(super) type Id = (Provided, String, String);

/// Objects with our label. Clones see the same.
#[derive(Debug, Clone)]
pub(super) struct Present {
    shared: Arc<Shared>,
    /// Counts changes.
    pub(super) revision: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    objects: Mutex<BTreeMap<Id, Arc<Value>>>,
    /// Watches that have not told everything yet.
    starting: Mutex<BTreeSet<usize>>,
    revision: watch::Sender<u64>,
}

impl Present {
    /// Begins to watch; the tasks run as long as the set.
    pub(super) fn start(client: &Client, scope: &Scope, controller: &str) -> (Self, JoinSet<()>) {
        let namespaces = match scope {
            Scope::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
            Scope::Pool { namespace, .. } | Scope::Pods { namespace, .. } => {
                vec![Some(namespace.clone())]
            }
            Scope::ConfigMaps { namespace, .. } => vec![namespace.clone()],
            Scope::All => vec![None],
        };
        let labels = format!("{CONTROLLER_LABEL}={}", controller_label(controller));
        let (sender, revision) = watch::channel(0);
        let targets: Vec<_> = Provided::ALL
            .into_iter()
            .flat_map(|kind| namespaces.iter().map(move |ns| (kind, ns.clone())))
            .collect();
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            starting: Mutex::new((0..targets.len()).collect()),
            revision: sender,
        });
        let mut tasks = JoinSet::new();
        for (number, (kind, namespace)) in targets.into_iter().enumerate() {
            let following = Following {
                kind,
                namespace,
                number,
                labels: labels.clone(),
                shared: Arc::clone(&shared),
                seen: None,
            };
            tasks.spawn(following.run(client.clone()));
        }
        (Self { shared, revision }, tasks)
    }

    /// Whether everything has been seen once.
    pub(super) fn synced(&self) -> bool {
        self.shared.starting.lock().is_empty()
    }

    pub(super) fn objects(&self) -> BTreeMap<Id, Arc<Value>> {
        self.shared.objects.lock().clone()
    }

    pub(super) fn get(&self, kind: Provided, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let id = (kind, namespace.to_owned(), name.to_owned());
        self.shared.objects.lock().get(&id).cloned()
    }
}

impl Shared {
    fn change(&self, act: impl FnOnce(&mut BTreeMap<Id, Arc<Value>>)) {
        act(&mut self.objects.lock());
        self.revision.send_modify(|revision| *revision += 1);
    }
}

pub(super) fn resource(kind: Provided) -> ApiResource {
    let (group, version, kind, plural) = kind.names();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

struct Following {
    kind: Provided,
    namespace: Option<String>,
    number: usize,
    labels: String,
    shared: Arc<Shared>,
    /// While it starts anew: what it has told so far.
    seen: Option<BTreeSet<Id>>,
}

impl Following {
    async fn run(mut self, client: Client) {
        let resource = resource(self.kind);
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let config = watcher::Config::default().labels(&self.labels);
        // As for all watches: an attempt alone is no success, and must not end the pauses.
        let told = watcher(api, config)
            .filter(|event| std::future::ready(!matches!(event, Ok(Event::Init))));
        let mut events = std::pin::pin!(told.backoff(Pause::default()));
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    self.take(event);
                }
                Err(error) => {
                    // Half a list is told from its beginning again.
                    self.seen = None;
                    if !failing {
                        tracing::warn!(kind = resource.kind, %error, "what was provisioned cannot be watched");
                    }
                    failing = true;
                }
            }
        }
    }

    fn id(&self, object: &DynamicObject) -> Id {
        let meta = &object.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        (self.kind, namespace, meta.name.clone().unwrap_or_default())
    }

    fn take(&mut self, event: Event<DynamicObject>) {
        let starting = matches!(event, Event::InitApply(_));
        match event {
            Event::Init => {}
            Event::InitApply(mut object) | Event::Apply(mut object) => {
                let id = self.id(&object);
                if starting {
                    self.seen.get_or_insert_default().insert(id.clone());
                }
                object.metadata.managed_fields = None;
                if let Ok(value) = serde_json::to_value(&object) {
                    self.shared
                        .change(|objects| drop(objects.insert(id, Arc::new(value))));
                }
            }
            Event::Delete(object) => {
                let id = self.id(&object);
                self.shared.change(|objects| drop(objects.remove(&id)));
            }
            Event::InitDone => {
                let seen = self.seen.take().unwrap_or_default();
                let (kind, namespace) = (self.kind, self.namespace.clone());
                self.shared.starting.lock().remove(&self.number);
                self.shared.change(|objects| {
                    objects.retain(|id, _| {
                        let ours =
                            id.0 == kind && namespace.as_ref().is_none_or(|name| *name == id.1);
                        !ours || seen.contains(id)
                    });
                });
            }
        }
    }
}
