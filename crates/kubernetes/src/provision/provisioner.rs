//! Makes what there is into what there should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Gateway, ObjectKey, Objects, Resource};
use futures_util::StreamExt;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::manifests::{CONTROLLER_LABEL, Manifest, Provided, ProvisionSettings, manifests};
use super::names::resource_name;
use super::parameters::Parameters;
use super::present::{Id, Present, resource};
use super::served::served;
use crate::status::Served;
use crate::wanted::Scope;

/// How many objects are written at once.
const AT_ONCE: usize = 8;
/// When to look again after a failure, or at what a watch has not shown yet.
const AGAIN: Duration = Duration::from_secs(3);

/// A Gateway that is to have data planes.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The Gateway.
    pub gateway: Arc<Gateway>,
    /// Ports to serve beyond those of its own listeners: sets of listeners add some.
    pub ports: BTreeSet<u16>,
    /// What is said about its data planes; `None`: that cannot be used, and what there is stays.
    pub parameters: Option<Parameters>,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    gateways: Vec<Desired>,
    /// Namespaces and names of what belonged to Gateways that are another controller's now.
    foreign: BTreeSet<(String, String)>,
}

/// Keeps data planes in line with Gateways while it leads. Dropping it stops that; what there is stays.
#[derive(Debug)]
pub struct Provisioner {
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    present: Present,
    refused: Refused,
    controller_name: String,
    task: AbortHandle,
    _watches: JoinSet<()>,
}

/// Gateways for which something could not be made, and why.
type Refused = Arc<Mutex<BTreeMap<ObjectKey, String>>>;

impl Drop for Provisioner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provisioner {
    /// Begins to watch, and to write while `leading`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(
        client: Client,
        scope: &Scope,
        settings: ProvisionSettings,
        leading: watch::Receiver<bool>,
    ) -> Self {
        let (present, watches) = Present::start(&client, scope, &settings.controller_name);
        let (wanted, received) = watch::channel(None);
        let refused = Refused::default();
        let controller_name = settings.controller_name.clone();
        let making = Making {
            client,
            settings,
            present: present.clone(),
            refused: Arc::clone(&refused),
            written: BTreeMap::new(),
        };
        let task = tokio::spawn(making.run(received, leading)).abort_handle();
        Self {
            wanted,
            present,
            refused,
            controller_name,
            task,
            _watches: watches,
        }
    }

    /// Says for which Gateways there should be data planes, out of these objects.
    pub fn want(&self, gateways: Vec<Desired>, objects: &Objects) {
        let foreign = objects.gateways().filter(|gateway| {
            let class = objects.gateway_class(&gateway.spec.gateway_class_name);
            class.is_some_and(|class| class.spec.controller_name != self.controller_name)
        });
        let foreign = foreign
            .map(|gateway| {
                let meta = &gateway.meta;
                (meta.namespace.clone(), resource_name(&meta.name))
            })
            .collect();
        let wanted = Wanted { gateways, foreign };
        self.wanted.send_replace(Some(Arc::new(wanted)));
    }

    /// Resolves when something that was provisioned has changed. May be dropped and called again.
    pub async fn changed(&mut self) {
        if self.present.revision.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether what was provisioned is known. Before that nothing can be said about addresses.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.present.synced()
    }

    /// How a Gateway is served by its data planes.
    #[must_use]
    pub fn served(&self, gateway: &Gateway, objects: &Objects) -> Served {
        let name = resource_name(&gateway.meta.name);
        let service = self
            .present
            .get(Provided::Service, &gateway.meta.namespace, &name);
        let mut served = served(gateway, service.as_deref(), objects);
        if let Some(why) = self.refused.lock().get(&gateway.key()) {
            served.problem = Some(("Pending", why.clone()));
        }
        served
    }
}

/// A write of ours.
struct Written {
    /// What was asked for.
    body: Value,
    /// The version it replaced.
    over: Option<String>,
    /// What came of it.
    after: Value,
    at: Instant,
}

struct Making {
    client: Client,
    settings: ProvisionSettings,
    present: Present,
    refused: Refused,
    written: BTreeMap<Id, Written>,
}

impl Making {
    async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
        mut leading: watch::Receiver<bool>,
    ) {
        let mut again = false;
        let mut revision = self.present.revision.clone();
        loop {
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                changed = leading.changed() => if changed.is_err() { return },
                changed = revision.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if again => {}
            }
            let target = wanted.borrow_and_update().clone();
            let leads = *leading.borrow_and_update();
            revision.borrow_and_update();
            again = match target {
                Some(target) if leads && self.present.synced() => !self.reconcile(&target).await,
                _ => false,
            };
        }
    }

    /// Writes what differs. Whether there is nothing left to do.
    async fn reconcile(&mut self, wanted: &Wanted) -> bool {
        let present = self.present.objects();
        let mut kept = BTreeSet::new();
        let mut todo = Vec::new();
        let mut waiting = false;
        for desired in &wanted.gateways {
            let gateway = &desired.gateway;
            // What is being deleted takes what it owns with it.
            let Some(parameters) = desired
                .parameters
                .as_ref()
                .filter(|_| gateway.meta.deletion_timestamp.is_none())
            else {
                continue;
            };
            for manifest in manifests(gateway, &desired.ports, parameters, &self.settings) {
                let id = id(&manifest);
                match self.judge(&manifest, &id, present.get(&id).map(|one| &**one)) {
                    Judgement::Same => {}
                    Judgement::Unseen => waiting = true,
                    Judgement::Differs => todo.push((gateway.key(), manifest, id.clone())),
                }
                kept.insert(id);
            }
        }
        let mut done = self.remove(&present, wanted).await;
        done &= self.write(todo, &present).await;
        self.written.retain(|id, _| kept.contains(id));
        done && !waiting
    }

    fn judge(&self, manifest: &Manifest, id: &Id, present: Option<&Value>) -> Judgement {
        if present.is_some_and(|present| is_part_of(&manifest.body, present)) {
            return Judgement::Same;
        }
        let Some(written) = self.written.get(id).filter(|one| one.body == manifest.body) else {
            return Judgement::Differs;
        };
        // The API server may write a value in another way; saying it again would not change its mind.
        if present.is_some_and(|present| essence(present) == written.after) {
            return Judgement::Same;
        }
        let version = present.and_then(version);
        if version == written.over && written.at.elapsed() < AGAIN {
            return Judgement::Unseen;
        }
        Judgement::Differs
    }

    async fn write(
        &mut self,
        todo: Vec<(ObjectKey, Manifest, Id)>,
        present: &BTreeMap<Id, Arc<Value>>,
    ) -> bool {
        let (client, settings) = (&self.client, &self.settings);
        let sending = todo.into_iter().map(|(gateway, manifest, id)| async move {
            let known = present.contains_key(&id);
            let outcome = apply(client, settings, &manifest, &id, known).await;
            (gateway, manifest, id, outcome)
        });
        // In order: what a Deployment's Pods mount is asked for before it.
        let outcomes: Vec<_> = futures_util::stream::iter(sending)
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut all = true;
        let mut refused = BTreeMap::new();
        for (gateway, manifest, id, outcome) in outcomes {
            match outcome {
                Ok(after) => {
                    tracing::info!(%gateway, kind = ?id.0, name = id.2, "provisioned");
                    let written = Written {
                        body: manifest.body,
                        over: present.get(&id).and_then(|present| version(present)),
                        after: essence(&after),
                        at: Instant::now(),
                    };
                    self.written.insert(id, written);
                }
                Err(error) => {
                    all = false;
                    let why = format!("{:?} {} cannot be provisioned: {error}", id.0, id.2);
                    if self.refused.lock().get(&gateway) != Some(&why) {
                        tracing::warn!(%gateway, "{why}; trying again");
                    }
                    refused.insert(gateway, why);
                }
            }
        }
        *self.refused.lock() = refused;
        all
    }

    /// Takes away what belonged to Gateways that have gone to another class.
    async fn remove(&self, present: &BTreeMap<Id, Arc<Value>>, wanted: &Wanted) -> bool {
        let mut all = true;
        let strays = present.iter().filter(|((_, namespace, _), object)| {
            let labels = &object["metadata"]["labels"];
            let instance = labels["app.kubernetes.io/instance"].as_str();
            let owner = (namespace.clone(), instance.unwrap_or_default().to_owned());
            wanted.foreign.contains(&owner)
        });
        for ((kind, namespace, name), object) in strays {
            if object["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource(*kind));
            let params = DeleteParams::background().preconditions(Preconditions {
                uid: object["metadata"]["uid"].as_str().map(str::to_owned),
                resource_version: None,
            });
            match api.delete(name, &params).await {
                Ok(_) => {
                    tracing::info!(
                        ?kind,
                        namespace,
                        name,
                        "removed: the Gateway has another class"
                    );
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    all = false;
                    tracing::warn!(?kind, namespace, name, %error, "cannot be removed; trying again");
                }
            }
        }
        all
    }
}

enum Judgement {
    Same,
    /// Written, and the watch has not shown it yet.
    Unseen,
    Differs,
}

fn id(manifest: &Manifest) -> Id {
    let text = |field: &str| manifest.body["metadata"][field].as_str();
    let of = |field| text(field).unwrap_or_default().to_owned();
    (manifest.kind, of("namespace"), of("name"))
}

fn version(object: &Value) -> Option<String> {
    object["metadata"]["resourceVersion"]
        .as_str()
        .map(str::to_owned)
}

/// An object without what changes by itself.
fn essence(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        for field in ["resourceVersion", "generation", "managedFields"] {
            meta.remove(field);
        }
    }
    object
}

/// Whether everything that is wanted is there. What is there beside it is the API server's or somebody else's.
pub(super) fn is_part_of(wanted: &Value, present: &Value) -> bool {
    match (wanted, present) {
        (Value::Object(wanted), _) => wanted.iter().all(|(field, value)| {
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            match present.get(field) {
                Some(present) => is_part_of(value, present),
                None => is_empty,
            }
        }),
        (Value::Array(wanted), Value::Array(present)) => {
            wanted.len() == present.len()
                && wanted
                    .iter()
                    .zip(present)
                    .all(|(wanted, present)| is_part_of(wanted, present))
        }
        _ => wanted == present,
    }
}

/// Why something was not applied.
#[derive(Debug, thiserror::Error)]
enum NotApplied {
    #[error("one of this name is there and was not made for this Gateway")]
    Taken,
    #[error(transparent)]
    Cluster(#[from] kube::Error),
}

/// Applies one manifest. `known`: there is one with our label.
async fn apply(
    client: &Client,
    settings: &ProvisionSettings,
    manifest: &Manifest,
    (kind, namespace, name): &Id,
    known: bool,
) -> Result<Value, NotApplied> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(*kind));
    if !known && let Some(there) = api.get_opt(name).await? {
        let ours = &manifest.body["metadata"]["labels"][CONTROLLER_LABEL];
        let labels = there.metadata.labels.unwrap_or_default();
        if labels.get(CONTROLLER_LABEL).map(String::as_str) != ours.as_str() {
            return Err(NotApplied::Taken);
        }
    }
    let manager = format!("{}-provisioner", settings.controller_name);
    let params = PatchParams::apply(&manager).force();
    let after = api
        .patch(name, &params, &Patch::Apply(&manifest.body))
        .await?;
    Ok(serde_json::to_value(after).unwrap_or_default())
}
