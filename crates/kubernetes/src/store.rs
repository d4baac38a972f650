//! What is known of the cluster, fed by several watches.
//!
//! An object may come by more than one watch (a Pod that two pools select); it is there as long as one of them has it.
//! A watch that starts anew first tells everything it sees and then what it no longer saw goes: at no time is the store
//! emptier than the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use api::{ObjectKey, Objects};
use serde_json::Value;

use crate::carried::Carried;
use crate::decode::Item;

/// Number of a watch.
pub(crate) type WatchId = u64;

/// An object that cannot be read; its last good state, if there is one, goes on being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object.
    pub object: ObjectKey,
    /// Its `metadata.uid`.
    pub uid: String,
    /// Why it cannot be read.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot be read: {}", self.object, self.reason)
    }
}

/// The status that an object has in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Present {
    /// `metadata.resourceVersion` with which it was seen.
    pub(crate) version: String,
    pub(crate) uid: String,
    pub(crate) status: Value,
}

/// What a change touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// The set of objects is another one, or a problem came or went.
    pub(crate) objects: bool,
    /// A status is another one.
    pub(crate) statuses: bool,
}

/// Objects, their statuses, and what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: Objects,
    present: BTreeMap<ObjectKey, Present>,
    problems: BTreeMap<ObjectKey, Problem>,
    held: BTreeMap<ObjectKey, Held>,
    /// The texts of `objects`, where they are kept.
    carried: BTreeMap<ObjectKey, Arc<Carried>>,
}

#[derive(Debug, Default)]
struct Held {
    by: BTreeSet<WatchId>,
    version: String,
    uid: String,
}

impl Store {
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) fn carried(&self) -> &BTreeMap<ObjectKey, Arc<Carried>> {
        &self.carried
    }

    pub(crate) fn present(&self) -> &BTreeMap<ObjectKey, Present> {
        &self.present
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    /// An object is there, or has changed.
    pub(crate) fn apply(&mut self, watch: WatchId, item: Item) -> Touched {
        let held = self.held.entry(item.key.clone()).or_default();
        held.by.insert(watch);
        // Another watch may be ahead of this one.
        if held.uid == item.uid && is_older(&item.version, &held.version) {
            return Touched::default();
        }
        let replaced = held.uid != item.uid;
        held.version.clone_from(&item.version);
        held.uid.clone_from(&item.uid);
        let mut touched = Touched {
            statuses: self.keep_status(&item),
            ..Touched::default()
        };
        touched.objects = match item.object {
            Ok(object) => {
                let healed = self.problems.remove(&item.key).is_some();
                let same = self.objects.get(&item.key) == Some(&object);
                if !same {
                    self.objects.insert(object);
                    if let Some(carried) = item.carried {
                        self.carried.insert(item.key, carried);
                    }
                }
                healed || !same
            }
            Err(reason) => {
                // The last good state was another object's that had the name.
                let lost = replaced && self.forget(&item.key);
                let problem = Problem {
                    object: item.key.clone(),
                    uid: item.uid,
                    reason,
                };
                let news = self.problems.get(&item.key) != Some(&problem);
                self.problems.insert(item.key, problem);
                lost || news
            }
        };
        touched
    }

    fn keep_status(&mut self, item: &Item) -> bool {
        let Some(status) = &item.status else {
            return false;
        };
        let present = Present {
            version: item.version.clone(),
            uid: item.uid.clone(),
            status: status.clone(),
        };
        let known = self.present.insert(item.key.clone(), present);
        known.is_none_or(|known| known.status != *status || known.uid != item.uid)
    }

    /// A watch has seen an object go.
    pub(crate) fn release(&mut self, watch: WatchId, key: &ObjectKey) -> Touched {
        let Some(held) = self.held.get_mut(key) else {
            return Touched::default();
        };
        held.by.remove(&watch);
        if !held.by.is_empty() {
            return Touched::default();
        }
        self.held.remove(key);
        let had = self.forget(key);
        let problem = self.problems.remove(key).is_some();
        Touched {
            objects: had || problem,
            statuses: self.present.remove(key).is_some(),
        }
    }

    fn forget(&mut self, key: &ObjectKey) -> bool {
        self.carried.remove(key);
        self.objects.remove(key).is_some()
    }

    /// A watch has told everything it sees: what it no longer saw, it has no more.
    pub(crate) fn settle(&mut self, watch: WatchId, seen: &BTreeSet<ObjectKey>) -> Touched {
        let gone: Vec<_> = self
            .held
            .iter()
            .filter(|(key, held)| held.by.contains(&watch) && !seen.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        let mut touched = Touched::default();
        for key in gone {
            let one = self.release(watch, &key);
            touched.objects |= one.objects;
            touched.statuses |= one.statuses;
        }
        touched
    }
}

/// Whether a resource version is before another. They are opaque to clients in principle; where both are numbers, as
/// from every API server over etcd, they are in order (Kubernetes 1.35, KEP-5504).
fn is_older(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::item;
    use crate::kinds::find;

    fn service(name: &str, version: u64, port: Value) -> Item {
        item(
            find("", "Service").unwrap(),
            "v1",
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": version.to_string()},
                "spec": {"ports": [{"port": port}]},
            }))
            .unwrap(),
            true,
        )
    }

    fn port(store: &Store, name: &str) -> Option<u16> {
        Some(store.objects().service("n", name)?.spec.ports[0].port)
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_its_last_good_state() {
        let mut store = Store::default();
        assert!(store.apply(1, service("a", 1, json!(80))).objects);
        assert!(store.apply(1, service("b", 1, json!("no"))).objects);
        assert!(store.apply(1, service("a", 2, json!("no"))).objects);
        assert_eq!(port(&store, "a"), Some(80));
        assert_eq!(port(&store, "b"), None);
        let said: Vec<_> = store.problems().map(ToString::to_string).collect();
        assert!(
            said.len() == 2 && said[0].contains("Service n/a"),
            "{said:?}"
        );
        assert!(
            !store.apply(1, service("a", 3, json!("no"))).objects,
            "said once"
        );
        assert!(store.apply(1, service("a", 4, json!(80))).objects, "healed");
        assert!(
            !store.apply(1, service("a", 5, json!(80))).objects,
            "nothing new"
        );
        assert_eq!(store.problems().count(), 1);
        let b = ObjectKey::new("", "Service", "n", "b");
        assert!(store.release(1, &b).objects);
        assert_eq!(store.problems().count(), 0);
        // The text is that of the last good state as well.
        let a = &store.carried()[&ObjectKey::new("", "Service", "n", "a")];
        assert!(store.carried().len() == 1 && a.text.get().contains(r#""port":80"#));
    }

    #[test]
    fn another_object_of_the_same_name_does_not_inherit() {
        let mut store = Store::default();
        store.apply(1, service("a", 1, json!(80)));
        let mut other = service("a", 2, json!("no"));
        other.uid = "other".to_owned();
        assert!(store.apply(1, other).objects);
        assert_eq!(port(&store, "a"), None);
    }

    #[test]
    fn an_object_stays_while_one_watch_has_it_and_the_latest_counts() {
        let mut store = Store::default();
        let key = ObjectKey::new("", "Service", "n", "a");
        store.apply(1, service("a", 10, json!(80)));
        store.apply(2, service("a", 9, json!(79)));
        assert_eq!(port(&store, "a"), Some(80));
        assert_eq!(store.release(1, &key), Touched::default());
        assert_eq!(port(&store, "a"), Some(80));
        assert!(store.release(2, &key).objects);
        assert_eq!(port(&store, "a"), None);
        assert_eq!(store.release(2, &key), Touched::default());
    }

    #[test]
    fn a_new_start_takes_away_only_what_its_watch_no_longer_sees() {
        let mut store = Store::default();
        for name in ["a", "b", "c"] {
            store.apply(1, service(name, 1, json!(80)));
        }
        store.apply(2, service("c", 1, json!(80)));
        let seen = BTreeSet::from([ObjectKey::new("", "Service", "n", "a")]);
        assert!(store.settle(1, &seen).objects);
        let left: Vec<_> = store
            .objects()
            .services()
            .map(|s| s.meta.name.clone())
            .collect();
        assert_eq!(left, ["a", "c"]);
        assert_eq!(store.settle(1, &seen), Touched::default());
        assert!(store.settle(1, &BTreeSet::new()).objects);
        assert!(store.settle(2, &BTreeSet::new()).objects);
        assert!(store.objects().is_empty());
    }

    #[test]
    fn a_status_alone_is_no_change_of_the_objects() {
        let pool = |version: u64, status: Value| {
            item(
                find(api::INFERENCE_GROUP, "InferencePool").unwrap(),
                "v1",
                serde_json::from_value(json!({
                    "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": version.to_string()},
                    "spec": {"selector": {"matchLabels": {"a": "b"}}, "targetPorts": [{"number": 1}]},
                    "status": status,
                }))
                .unwrap(),
                false,
            )
        };
        let mut store = Store::default();
        assert_eq!(
            store.apply(1, pool(1, json!(null))),
            Touched {
                objects: true,
                statuses: true
            }
        );
        let parents = json!({"parents": []});
        assert_eq!(
            store.apply(1, pool(2, parents.clone())),
            Touched {
                objects: false,
                statuses: true
            }
        );
        assert_eq!(store.apply(1, pool(3, parents)), Touched::default());
        assert_eq!(store.present().values().next().unwrap().version, "3");
    }
}
