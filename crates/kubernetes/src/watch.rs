//! A copy of what a cluster says, kept up to date.
//!
//! A supervisor asks every few seconds what the API server serves and keeps one task for each watch that
//! [`crate::wanted`] wants. A watch that is no longer wanted goes only when all wanted ones have told what they see, so
//! that a pool whose selector changes is never without servers.
//!
//! While the API server is away nothing is forgotten; `kube`'s watcher resumes where it was, or lists anew when the
//! server has forgotten that place (410).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ObjectKey, Objects};
use futures_util::StreamExt;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::decode::{item, key};
use crate::discovery::{Served, discover};
use crate::kinds::{KINDS, find};
use crate::relay::World;
use crate::store::{Present, Problem, Store, Touched, WatchId};
use crate::wanted::{Scope, Target, wanted};

/// How often it is asked what the API server serves.
const DISCOVERY: Duration = Duration::from_secs(10);
/// How soon it is asked again after a failure, or when a watch has found its kind missing.
const DISCOVERY_AGAIN: Duration = Duration::from_secs(1);

/// Settings of a [`Watch`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Secrets and ConfigMaps are read only where Gateways of classes with this `controllerName` refer to them; `None`:
    /// of all classes.
    pub controller_name: Option<String>,
    /// Keep the texts of objects too, to hand them on ([`Watch::world`]).
    pub carry: bool,
}

/// A copy of what a cluster says. Clones see the same; the last one that goes ends the watching.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    revision: watch::Receiver<Revision>,
    /// The last revision that was told of.
    seen: Revision,
    _tasks: Arc<Supervised>,
}

/// Counts changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Revision {
    objects: u64,
    statuses: u64,
    synced: bool,
}

#[derive(Debug)]
struct Supervised(AbortHandle);

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    /// The objects as of a revision, so that asking twice copies once.
    copy: Mutex<(u64, Arc<Objects>)>,
    revision: watch::Sender<Revision>,
    /// The supervisor should look again.
    look: Notify,
    running: Mutex<BTreeMap<Target, Running>>,
}

/// A watch that runs.
#[derive(Debug)]
struct Running {
    id: WatchId,
    task: AbortHandle,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has not told everything yet.
    Starting,
    /// Has told everything it sees at least once.
    Settled,
    /// May not look (403).
    Forbidden,
    /// Its kind is not there (404).
    Missing,
}

impl Watch {
    /// Begins to watch. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(client: Client, scope: Scope) -> Self {
        Self::start_with(client, scope, WatchOptions::default())
    }

    /// Begins to watch, with settings. Must be called within a tokio runtime.
    #[must_use]
    pub fn start_with(client: Client, scope: Scope, options: WatchOptions) -> Self {
        let (sender, revision) = watch::channel(Revision::default());
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            copy: Mutex::default(),
            revision: sender,
            look: Notify::new(),
            running: Mutex::default(),
        });
        let supervisor = Supervisor {
            client,
            scope,
            options,
            shared: Arc::clone(&shared),
            served: None,
            next_id: 0,
        };
        let task = tokio::spawn(supervisor.run()).abort_handle();
        Self {
            shared,
            revision,
            seen: Revision::default(),
            _tasks: Arc::new(Supervised(task)),
        }
    }

    /// The objects as of now.
    #[must_use]
    pub fn objects(&self) -> Arc<Objects> {
        let store = self.shared.store.lock();
        let revision = self.shared.revision.borrow().objects;
        let mut copy = self.shared.copy.lock();
        if copy.0 != revision {
            *copy = (revision, Arc::new(store.objects().clone()));
        }
        Arc::clone(&copy.1)
    }

    /// The objects with their texts, as of now. Without [`WatchOptions::carry`] there are none.
    #[must_use]
    pub fn world(&self) -> World {
        let store = self.shared.store.lock();
        World::new(store.objects().clone(), store.carried().clone())
    }

    /// Resolves when objects have changed since the last call, or the first full picture is there. May be dropped and
    /// called again without losing a change.
    pub async fn changed(&mut self) {
        self.wait(|old, new| old.objects != new.objects || old.synced != new.synced)
            .await;
    }

    /// Resolves when objects or their statuses have changed.
    pub(crate) async fn any_change(&mut self) {
        self.wait(|old, new| old != new).await;
    }

    async fn wait(&mut self, differs: impl Fn(&Revision, &Revision) -> bool) {
        loop {
            let now = *self.revision.borrow_and_update();
            if differs(&self.seen, &now) {
                self.seen = now;
                return;
            }
            // The sender lives in `shared`.
            if self.revision.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether everything that can be seen has been seen once. An empty copy before that means nothing.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.shared.revision.borrow().synced
    }

    /// Objects that cannot be read. Their last good states, where there are any, are among [`Self::objects`].
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.shared.store.lock().problems().cloned().collect()
    }

    /// The addresses that Gateways have in their statuses.
    #[must_use]
    pub fn gateway_addresses(&self) -> BTreeMap<ObjectKey, Vec<IpAddr>> {
        let store = self.shared.store.lock();
        let gateways = store
            .present()
            .iter()
            .filter(|(key, _)| key.kind == "Gateway");
        gateways
            .map(|(key, present)| {
                let listed = present.status["addresses"].as_array();
                let values = listed.into_iter().flatten();
                let addresses = values.filter_map(|one| one["value"].as_str()?.parse().ok());
                (key.clone(), addresses.collect())
            })
            .collect()
    }

    /// The statuses that objects have.
    pub(crate) fn present(&self) -> BTreeMap<ObjectKey, Present> {
        self.shared.store.lock().present().clone()
    }

    /// The version in which a kind is watched; `None` when it is not.
    pub(crate) fn version(&self, group: &str, kind: &str) -> Option<&'static str> {
        let running = self.shared.running.lock();
        running
            .keys()
            .find(|target| target.group == group && target.kind == kind)
            .map(|target| target.version)
    }
}

impl Shared {
    fn touch(&self, touched: Touched) {
        if touched == Touched::default() {
            return;
        }
        self.revision.send_modify(|revision| {
            revision.objects += u64::from(touched.objects);
            revision.statuses += u64::from(touched.statuses);
        });
        if touched.objects {
            self.look.notify_one();
        }
    }

    /// Changes the store and tells of it in one step, so that a revision always means the same objects.
    fn change(&self, act: impl FnOnce(&mut Store) -> Touched) {
        let mut store = self.store.lock();
        let touched = act(&mut store);
        self.touch(touched);
    }

    fn set_state(&self, target: &Target, id: WatchId, state: State) -> bool {
        let mut running = self.running.lock();
        match running.get_mut(target) {
            Some(known) if known.id == id && known.state != state => {
                known.state = state;
                self.look.notify_one();
                true
            }
            _ => false,
        }
    }
}

/// Keeps watches in line with what is wanted.
struct Supervisor {
    client: Client,
    scope: Scope,
    options: WatchOptions,
    shared: Arc<Shared>,
    served: Option<Served>,
    next_id: WatchId,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for running in self.shared.running.lock().values() {
            running.task.abort();
        }
    }
}

impl Supervisor {
    async fn run(mut self) {
        let mut ask = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(ask) => {
                    let pause = if self.ask().await { DISCOVERY } else { DISCOVERY_AGAIN };
                    ask = tokio::time::Instant::now() + pause;
                }
                () = self.shared.look.notified() => {}
            }
            if self.kind_lost() {
                ask = ask.min(tokio::time::Instant::now() + DISCOVERY_AGAIN);
            }
            self.align();
        }
    }

    /// Whether a watch says that its kind is gone.
    fn kind_lost(&self) -> bool {
        let running = self.shared.running.lock();
        running.values().any(|one| one.state == State::Missing)
    }

    /// Asks what is served; whether there was an answer.
    async fn ask(&mut self) -> bool {
        match discover(&self.client).await {
            Ok(served) => {
                self.take(served);
                true
            }
            Err(error) => {
                if self.served.is_none() {
                    tracing::warn!(%error, "the API server does not say what it serves; asking again");
                }
                false
            }
        }
    }

    /// Takes up what is served. A kind that seems gone goes only if its watch says so too: an API server that has just
    /// started may not know its custom resources for a moment.
    fn take(&mut self, mut served: Served) {
        if let Some(before) = &self.served {
            let running = self.shared.running.lock();
            for (kind, version) in before {
                let missing = running
                    .iter()
                    .any(|(t, one)| (t.group, t.kind) == *kind && one.state == State::Missing);
                if !missing {
                    served.entry(*kind).or_insert(version);
                }
            }
        }
        self.tell(&served);
        self.served = Some(served);
    }

    /// One line for each kind that is not there, and one when it comes.
    fn tell(&self, served: &Served) {
        for kind in KINDS {
            let id = (kind.group, kind.kind);
            let before = self.served.as_ref().map(|before| before.contains_key(&id));
            let name = format!("{}.{}", kind.plural, kind.group);
            match (before, served.get(&id)) {
                (None | Some(true), None) => {
                    tracing::info!(
                        kind = name,
                        "the cluster does not have this kind: off until it is installed"
                    );
                }
                (Some(false), Some(version)) => {
                    tracing::info!(kind = name, version, "this kind is installed now");
                }
                _ => {}
            }
        }
    }

    /// Starts and ends watches.
    fn align(&mut self) {
        let Some(served) = &self.served else { return };
        let controller = self.options.controller_name.as_deref();
        let wanted = {
            let store = self.shared.store.lock();
            wanted(&self.scope, served, store.objects(), controller)
        };
        let shared = Arc::clone(&self.shared);
        let mut running = shared.running.lock();
        for target in &wanted {
            if !running.contains_key(target) {
                let started = self.start(target.clone());
                running.insert(target.clone(), started);
            }
        }
        let told = |target: &Target| {
            running
                .get(target)
                .is_some_and(|one| one.state != State::Starting)
        };
        if !wanted.iter().all(told) {
            return;
        }
        let stale: Vec<_> = running
            .keys()
            .filter(|target| !wanted.contains(target))
            .cloned()
            .collect();
        let ended: Vec<_> = stale
            .iter()
            .filter_map(|target| running.remove(target))
            .collect();
        drop(running);
        for one in ended {
            one.task.abort();
            self.shared
                .change(|store| store.settle(one.id, &BTreeSet::new()));
        }
        self.shared.revision.send_if_modified(|revision| {
            let news = !revision.synced;
            revision.synced = true;
            news
        });
    }

    fn start(&mut self, target: Target) -> Running {
        self.next_id += 1;
        let id = self.next_id;
        let follow = Follow {
            target,
            id,
            shared: Arc::clone(&self.shared),
            seen: None,
            failing: false,
            carry: self.options.carry,
        };
        let task = tokio::spawn(follow.run(self.client.clone())).abort_handle();
        Running {
            id,
            task,
            state: State::Starting,
        }
    }
}

/// One watch.
struct Follow {
    target: Target,
    id: WatchId,
    shared: Arc<Shared>,
    /// While it starts anew: what it has told so far.
    seen: Option<BTreeSet<ObjectKey>>,
    failing: bool,
    carry: bool,
}

impl Follow {
    async fn run(mut self, client: Client) {
        let Some(kind) = find(self.target.group, self.target.kind) else {
            return;
        };
        let resource = ApiResource {
            group: kind.group.to_owned(),
            version: self.target.version.to_owned(),
            api_version: api_version(kind.group, self.target.version),
            kind: kind.kind.to_owned(),
            plural: kind.plural.to_owned(),
        };
        let api: Api<DynamicObject> = match &self.target.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let config = watcher::Config {
            label_selector: self.target.labels.clone(),
            field_selector: self.target.fields.clone(),
            ..watcher::Config::default()
        };
        // An attempt begins with a word of the watcher itself, before the API server has said anything: that is no
        // success, and must not end the pauses.
        let told = watcher(api, config)
            .filter(|event| std::future::ready(!matches!(event, Ok(Event::Init))));
        let mut events = std::pin::pin!(told.backoff(Pause::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if self.failing {
                        self.failing = false;
                        tracing::info!(watch = %self.name(), "the watch is back");
                    }
                    self.take(event);
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn take(&mut self, event: Event<DynamicObject>) {
        let Some(kind) = find(self.target.group, self.target.kind) else {
            return;
        };
        let (id, version) = (self.id, self.target.version);
        let starting = matches!(event, Event::InitApply(_));
        match event {
            Event::Init => {}
            Event::InitApply(object) | Event::Apply(object) => {
                let item = item(kind, version, object, self.carry);
                if starting {
                    let seen = self.seen.get_or_insert_default();
                    seen.insert(item.key.clone());
                }
                if let Err(reason) = &item.object {
                    tracing::warn!(object = %item.key, reason, "an object cannot be read; its last good state stays");
                }
                self.shared.change(|store| store.apply(id, item));
            }
            Event::Delete(object) => {
                let key = key(kind, &object);
                self.shared.change(|store| store.release(id, &key));
            }
            Event::InitDone => {
                let seen = self.seen.take().unwrap_or_default();
                self.shared.change(|store| store.settle(id, &seen));
                self.shared.set_state(&self.target, id, State::Settled);
            }
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        // Half a list is told from its beginning again.
        self.seen = None;
        let state = match status_code(error) {
            // Watches end this way in the normal course of things; the watcher lists anew.
            Some(410) => return,
            Some(404) => Some(State::Missing),
            Some(401 | 403) => Some(State::Forbidden),
            _ => None,
        };
        if !self.failing {
            self.failing = true;
            tracing::warn!(watch = %self.name(), %error, "a watch fails; what is known goes on being used");
        }
        if let Some(state) = state {
            self.shared.set_state(&self.target, self.id, state);
        }
    }

    fn name(&self) -> String {
        let Target {
            kind,
            namespace,
            labels,
            fields,
            ..
        } = &self.target;
        let parts = [namespace, labels, fields];
        let parts: Vec<_> = parts.into_iter().flatten().map(String::as_str).collect();
        format!("{kind} {}", parts.join(" ")).trim_end().to_owned()
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn status_code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

/// Pauses between attempts: from a fifth of a second to ten, each up to half longer so that a cluster's many clients do
/// not come back all at once.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE.0)
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0.mul_f64(1.0 + rand::random::<f64>() / 2.0);
        self.0 = (self.0 * 2).min(PAUSE.1);
        Some(pause)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = PAUSE.0;
    }
}
