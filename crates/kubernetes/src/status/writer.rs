//! Sends statuses to the API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::ObjectKey;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Report;
use super::plan::{Change, changes};
use crate::kinds::{Kind, find};
use crate::store::Present;
use crate::watch::Watch;

/// How many objects are written at once.
const AT_ONCE: usize = 8;
/// When to try again what failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Writes reports to the cluster while it leads. Dropping it stops the writing.
#[derive(Debug)]
pub struct StatusWriter {
    reports: watch::Sender<Option<Arc<Report>>>,
    task: AbortHandle,
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StatusWriter {
    /// Begins to write. `leading` says whether this process may; `controller` is the name under which entries are made.
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn start(
        client: Client,
        watch: Watch,
        controller: String,
        leading: watch::Receiver<bool>,
    ) -> Self {
        let (reports, received) = watch::channel(None);
        let reporter = Reporter {
            controller: controller.clone(),
            instance: None,
        };
        let writer = Writer {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            watch,
            controller,
            written: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        let task = tokio::spawn(writer.run(received, leading)).abort_handle();
        Self { reports, task }
    }

    /// Gives the newest report; what it replaces need not have been written.
    pub fn report(&self, report: Report) {
        self.reports.send_replace(Some(Arc::new(report)));
    }
}

struct Writer {
    client: Client,
    recorder: Recorder,
    watch: Watch,
    controller: String,
    /// What was written and has not come back by the watch yet.
    written: BTreeMap<ObjectKey, Written>,
    /// Which problems of unreadable objects have been told in an event.
    told: BTreeMap<ObjectKey, String>,
}

/// A write of ours.
struct Written {
    /// The version it replaced.
    over: String,
    change: Value,
    /// The outcome.
    present: Present,
}

impl Writer {
    async fn run(
        mut self,
        mut reports: watch::Receiver<Option<Arc<Report>>>,
        mut leading: watch::Receiver<bool>,
    ) {
        let mut again = false;
        loop {
            tokio::select! {
                changed = reports.changed() => if changed.is_err() { return },
                changed = leading.changed() => if changed.is_err() { return },
                () = self.watch.any_change() => {}
                () = tokio::time::sleep(AGAIN), if again => {}
            }
            let report = reports.borrow_and_update().clone();
            let leads = *leading.borrow_and_update();
            again = match report {
                Some(report) if leads => !self.reconcile(&report).await,
                _ => false,
            };
        }
    }

    /// Writes what differs. Whether all of it could be written.
    async fn reconcile(&mut self, report: &Report) -> bool {
        let present = self.present();
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let mut todo = changes(report, &present, &self.controller, &now);
        // The API server may have its own view of what was applied; saying it again would not change its mind.
        todo.retain(|change| !self.is_repetition(change, &present));
        let client = &self.client;
        let controller = self.controller.as_str();
        let watch = &self.watch;
        let recorder = &self.recorder;
        let sending = todo.into_iter().map(|change| async move {
            let outcome = send(client, watch, controller, &change).await;
            if let Ok(Sent::Written(_)) = &outcome {
                tell(recorder, watch, &change).await;
            }
            (change, outcome)
        });
        let outcomes: Vec<_> = futures_util::stream::iter(sending)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut all = true;
        for (change, outcome) in outcomes {
            match outcome {
                Ok(Sent::Written(after)) => self.remember(change, &present, after),
                Ok(Sent::Gone) => {}
                Ok(Sent::Conflict) => all = false,
                Err(error) => {
                    all = false;
                    tracing::warn!(object = %change.key, %error, "a status cannot be written; trying again");
                }
            }
        }
        self.tell_problems().await;
        all
    }

    /// The statuses as the watch has them, and over these what we wrote and the watch has not seen yet.
    fn present(&mut self) -> BTreeMap<ObjectKey, Present> {
        let mut present = self.watch.present();
        self.written.retain(|key, written| {
            let Some(known) = present.get_mut(key) else {
                return false;
            };
            if known.version == written.over {
                *known = written.present.clone();
            }
            known.version == written.present.version
        });
        present
    }

    fn is_repetition(&self, change: &Change, present: &BTreeMap<ObjectKey, Present>) -> bool {
        let written = self.written.get(&change.key);
        written.is_some_and(|written| {
            present
                .get(&change.key)
                .is_some_and(|known| known.version == written.present.version)
                && same_but_for_times(&written.change, &change.status)
        })
    }

    fn remember(&mut self, change: Change, present: &BTreeMap<ObjectKey, Present>, after: Present) {
        let over = present.get(&change.key).map(|known| known.version.clone());
        let written = Written {
            over: over.unwrap_or_default(),
            change: change.status,
            present: after,
        };
        self.written.insert(change.key, written);
    }

    /// Unreadable objects have no conditions that could be trusted; their owners are told by an event.
    async fn tell_problems(&mut self) {
        let problems = self.watch.problems();
        self.told
            .retain(|key, _| problems.iter().any(|problem| problem.object == *key));
        for problem in problems {
            if self.told.get(&problem.object) == Some(&problem.reason) {
                continue;
            }
            let event = warning("Unreadable", &problem.reason);
            publish(
                &self.recorder,
                &self.watch,
                &problem.object,
                &problem.uid,
                &event,
            )
            .await;
            self.told.insert(problem.object, problem.reason);
        }
    }
}

/// Whether two statuses differ in transition times only.
fn same_but_for_times(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(field, value)| {
                    field == "lastTransitionTime"
                        || other
                            .get(field)
                            .is_some_and(|other| same_but_for_times(value, other))
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| same_but_for_times(one, other))
        }
        _ => one == other,
    }
}

fn resource(kind: &Kind, version: &str) -> ApiResource {
    let api_version = if kind.group.is_empty() {
        version.to_owned()
    } else {
        format!("{}/{version}", kind.group)
    };
    ApiResource {
        group: kind.group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    }
}

/// What became of a write.
enum Sent {
    /// The status is this now.
    Written(Present),
    /// The object has gone, or its kind.
    Gone,
    /// The object has changed meanwhile, or another one has its name: to be looked at again.
    Conflict,
}

/// Applies one status.
async fn send(
    client: &Client,
    watch: &Watch,
    controller: &str,
    change: &Change,
) -> Result<Sent, kube::Error> {
    let key = &change.key;
    let (Some(kind), Some(version)) = (
        find(&key.group, &key.kind),
        watch.version(&key.group, &key.kind),
    ) else {
        return Ok(Sent::Gone);
    };
    let resource = resource(kind, version);
    let api: Api<DynamicObject> = if kind.namespaced {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    let mut body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": key.name, "uid": change.uid},
        "status": change.status,
    });
    if let Some(version) = &change.version {
        body["metadata"]["resourceVersion"] = version.as_str().into();
    }
    let params = PatchParams::apply(controller).force();
    match api
        .patch_status(&key.name, &params, &Patch::Apply(body))
        .await
    {
        Ok(mut after) => Ok(Sent::Written(Present {
            version: after.metadata.resource_version.take().unwrap_or_default(),
            uid: change.uid.clone(),
            status: after
                .data
                .get_mut("status")
                .map(Value::take)
                .unwrap_or_default(),
        })),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Sent::Gone),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Sent::Conflict),
        Err(error) => Err(error),
    }
}

/// Events for what went wrong.
async fn tell(recorder: &Recorder, watch: &Watch, change: &Change) {
    for (reason, message) in &change.news {
        let event = warning(reason, message);
        publish(recorder, watch, &change.key, &change.uid, &event).await;
    }
}

fn warning(reason: &str, message: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        // Longer notes are refused (events.k8s.io/v1).
        note: Some(message.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// An event is a courtesy: one that cannot be written is no reason to stop.
async fn publish(recorder: &Recorder, watch: &Watch, key: &ObjectKey, uid: &str, event: &Event) {
    let Some(kind) = find(&key.group, &key.kind) else {
        return;
    };
    let Some(version) = watch.version(&key.group, &key.kind) else {
        return;
    };
    let reference = ObjectReference {
        api_version: Some(resource(kind, version).api_version),
        kind: Some(key.kind.clone()),
        name: Some(key.name.clone()),
        namespace: kind.namespaced.then(|| key.namespace.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    if let Err(error) = recorder.publish(event, &reference).await {
        tracing::debug!(object = %key, %error, "an event cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::same_but_for_times;

    #[test]
    fn times_alone_make_no_difference() {
        let of = |time: &str, status: &str| json!({"a": [{"status": status, "lastTransitionTime": time}]});
        assert!(same_but_for_times(&of("1", "True"), &of("2", "True")));
        assert!(!same_but_for_times(&of("1", "True"), &of("1", "False")));
        assert!(!same_but_for_times(
            &json!({"a": [1]}),
            &json!({"a": [1, 2]})
        ));
        assert!(!same_but_for_times(&json!({"a": 1}), &json!({"b": 1})));
    }
}
