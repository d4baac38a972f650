//! What there is to write.

use std::collections::BTreeMap;

use api::{GATEWAY_GROUP, INFERENCE_X_GROUP, Object, ObjectKey, Objects};
use routing::{Condition, ConditionStatus, ObjectStatus, ParentKey};
use serde_json::{Value, json};

use super::conditions::{holds, is_newer, merged, of_type, same};
use super::{Report, Served};
use crate::store::Present;

/// A status to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    /// The resource version to be bound to; `None` where the API server merges by itself.
    pub(super) version: Option<String>,
    /// The fields of `status` that are ours.
    pub(super) status: Value,
    /// What went wrong since the last time: reasons and messages, for events.
    pub(super) news: Vec<(&'static str, String)>,
}

/// Everything that is to be written, in the order of keys. `now` is a time in RFC 3339.
pub(super) fn changes(
    report: &Report,
    present: &BTreeMap<ObjectKey, Present>,
    controller: &str,
    now: &str,
) -> Vec<Change> {
    let mut said: BTreeMap<&ObjectKey, Vec<&ObjectStatus>> = BTreeMap::new();
    for status in &report.statuses {
        said.entry(&status.object).or_default().push(status);
    }
    let stage = Stage {
        report,
        controller,
        now,
    };
    let compiled = present.iter().filter(|(key, known)| {
        let object = report.objects.get(key);
        object.is_some_and(|object| object.meta().uid.as_deref() == Some(known.uid.as_str()))
    });
    compiled
        .filter_map(|(key, known)| {
            let entries = said.get(key).map_or(&[][..], Vec::as_slice);
            stage.change(key, known, entries)
        })
        .collect()
}

struct Stage<'a> {
    report: &'a Report,
    controller: &'a str,
    now: &'a str,
}

/// A kind whose status is a list with an entry for each parent.
struct Listed {
    list: &'static str,
    reference: &'static str,
    /// Whether entries say whose they are.
    named: bool,
    /// Most entries that the API server takes.
    most: usize,
}

fn listed(key: &ObjectKey) -> Option<Listed> {
    let (list, reference, named, most) = match key.kind.as_str() {
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" => ("parents", "parentRef", true, 32),
        "BackendTLSPolicy" => ("ancestors", "ancestorRef", true, 16),
        "InferencePool" if key.group == INFERENCE_X_GROUP => ("parent", "parentRef", false, 32),
        "InferencePool" => ("parents", "parentRef", true, 32),
        _ => return None,
    };
    Some(Listed {
        list,
        reference,
        named,
        most,
    })
}

impl Stage<'_> {
    fn change(
        &self,
        key: &ObjectKey,
        known: &Present,
        entries: &[&ObjectStatus],
    ) -> Option<Change> {
        if let Some(listed) = listed(key) {
            return self.parents(&listed, key, known, entries);
        }
        if entries.is_empty() {
            return None;
        }
        match key.kind.as_str() {
            "Gateway" | "ListenerSet" => self.gateway(key, known, entries),
            _ => self.plain(key, known, entries),
        }
    }

    /// Kinds with nothing but conditions, and GatewayClasses, which also say what we can do.
    fn plain(&self, key: &ObjectKey, known: &Present, entries: &[&ObjectStatus]) -> Option<Change> {
        let wanted: Vec<Condition> = entries.iter().flat_map(|e| e.conditions.clone()).collect();
        let present = &known.status["conditions"];
        if is_newer(&wanted, present) {
            return None;
        }
        let conditions = merged(&wanted, present, self.now);
        let mut is_same = holds(&conditions, items(present));
        let mut status = json!({ "conditions": conditions });
        if key.kind == "GatewayClass" {
            let features = self
                .report
                .features
                .iter()
                .map(|name| json!({"name": name}));
            let features = Value::Array(features.collect());
            is_same &= known.status["supportedFeatures"] == features;
            status["supportedFeatures"] = features;
        }
        (!is_same).then(|| self.merge(key, known, status, news(&wanted, present)))
    }

    /// A Gateway: its own conditions, its listeners, the addresses at which it is served, and how many sets of listeners
    /// others have added; or such a set: its own conditions and its listeners.
    fn gateway(
        &self,
        key: &ObjectKey,
        known: &Present,
        entries: &[&ObjectStatus],
    ) -> Option<Change> {
        let is_set = key.kind == "ListenerSet";
        let served = self
            .report
            .gateways
            .get(&gateway_of(&self.report.objects, key));
        let ports = ports_of(&self.report.objects, key);
        let mut wanted = Vec::new();
        let mut listeners = Vec::new();
        let mut news_of_all = Vec::new();
        let mut old = false;
        let mut sets = 0;
        for entry in entries {
            let Some(name) = &entry.listener else {
                sets = entry.attached_listener_sets;
                wanted.extend(as_served(&entry.conditions, served, None));
                continue;
            };
            let port = ports.get(name.as_str()).copied();
            let conditions = as_served(&entry.conditions, served, port);
            let before = listener(&known.status, name);
            let before = &before["conditions"];
            old |= is_newer(&conditions, before);
            news_of_all.extend(news(&conditions, before));
            let kinds = entry.supported_kinds.iter();
            let kinds: Vec<_> = kinds
                .map(|kind| json!({"group": kind.group, "kind": kind.kind}))
                .collect();
            listeners.push(json!({
                "name": name,
                "supportedKinds": kinds,
                "attachedRoutes": entry.attached_routes,
                "conditions": merged(&conditions, before, self.now),
            }));
        }
        let present = &known.status["conditions"];
        if old || is_newer(&wanted, present) {
            return None;
        }
        news_of_all.extend(news(&wanted, present));
        let conditions = merged(&wanted, present, self.now);
        let mut is_same = holds(&conditions, items(present))
            && same_listeners(&listeners, &known.status["listeners"]);
        let mut status = json!({"conditions": conditions, "listeners": listeners});
        if !is_set {
            let addresses = addresses(served);
            let before = &known.status["attachedListenerSets"];
            is_same &= items(&known.status["addresses"]) == addresses.as_slice()
                && before.as_u64().unwrap_or(0) == u64::from(sets);
            status["addresses"] = addresses.into();
            status["attachedListenerSets"] = sets.into();
        }
        (!is_same).then(|| self.merge(key, known, status, news_of_all))
    }

    /// A kind with an entry for each parent.
    fn parents(
        &self,
        listed: &Listed,
        key: &ObjectKey,
        known: &Present,
        entries: &[&ObjectStatus],
    ) -> Option<Change> {
        let present = items(&known.status[listed.list]);
        let (ours, others): (Vec<&Value>, Vec<&Value>) = present
            .iter()
            .partition(|entry| self.is_ours(listed, entry));
        let mut wanted = Vec::new();
        let mut news_of_all = Vec::new();
        for entry in entries {
            let Some(parent) = &entry.parent else {
                continue;
            };
            let reference = reference(parent);
            let before = ours
                .iter()
                .find(|entry| entry[listed.reference] == reference);
            let before = before.map_or(&Value::Null, |before| &before["conditions"]);
            if is_newer(&entry.conditions, before) {
                return None;
            }
            news_of_all.extend(news(&entry.conditions, before));
            let conditions = merged(&entry.conditions, before, self.now);
            let mut value = json!({(listed.reference): reference, "conditions": conditions});
            if listed.named {
                value["controllerName"] = self.controller.into();
            }
            wanted.push(value);
        }
        wanted.sort_by_key(|entry| entry[listed.reference].to_string());
        if ours.len() == wanted.len() && ours.iter().zip(&wanted).all(|(a, b)| same_entry(a, b)) {
            return None;
        }
        let keep = |entry: &&&Value| !is_placeholder(listed, entry);
        let mut all: Vec<Value> = others.iter().filter(keep).map(|v| (*v).clone()).collect();
        let room = listed.most.saturating_sub(all.len());
        all.extend(wanted.into_iter().take(room));
        if all.is_empty() && !listed.named {
            all.push(placeholder());
        }
        Some(Change {
            version: Some(known.version.clone()),
            ..self.merge(key, known, json!({(listed.list): all}), news_of_all)
        })
    }

    fn merge(
        &self,
        key: &ObjectKey,
        known: &Present,
        status: Value,
        news: Vec<(&'static str, String)>,
    ) -> Change {
        Change {
            key: key.clone(),
            uid: known.uid.clone(),
            version: None,
            status,
            news,
        }
    }

    /// Whether an entry is ours: it says so, or (where entries do not say) its parent is a Gateway of ours or none.
    fn is_ours(&self, listed: &Listed, entry: &Value) -> bool {
        match entry["controllerName"].as_str() {
            Some(name) => name == self.controller,
            None if listed.named => false,
            None => {
                let reference = &entry[listed.reference];
                let text = |field: &str| reference[field].as_str().unwrap_or_default();
                let is_gateway = matches!(text("kind"), "" | "Gateway");
                let objects = &self.report.objects;
                is_gateway
                    && objects
                        .gateway(text("namespace"), text("name"))
                        .is_none_or(|gateway| {
                            let class = objects.gateway_class(&gateway.spec.gateway_class_name);
                            class.is_some_and(|class| class.spec.controller_name == self.controller)
                        })
            }
        }
    }
}

/// Two entries say the same; the order of their conditions does not matter.
fn same_entry(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return false;
    };
    one.len() == other.len()
        && one.iter().all(|(field, value)| match other.get(field) {
            Some(other) if field == "conditions" => same(items(value), other),
            found => found == Some(value),
        })
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn reference(parent: &ParentKey) -> Value {
    let mut reference = json!({
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.namespace,
        "name": parent.name,
    });
    if let Some(section) = &parent.section {
        reference["sectionName"] = section.as_str().into();
    }
    if let Some(port) = parent.port {
        reference["port"] = port.into();
    }
    reference
}

/// The entry that the old InferencePool's definition gives every pool.
fn placeholder() -> Value {
    json!({
        "parentRef": {"kind": "Status", "name": "default"},
        "conditions": [{
            "type": "Accepted",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

fn is_placeholder(listed: &Listed, entry: &Value) -> bool {
    let reference = &entry[listed.reference];
    reference["kind"] == "Status" && reference["name"] == "default"
}

fn listener(status: &Value, name: &str) -> Value {
    let found = items(&status["listeners"])
        .iter()
        .find(|one| one["name"] == name);
    found.cloned().unwrap_or_default()
}

fn same_listeners(wanted: &[Value], present: &Value) -> bool {
    let present = items(present);
    wanted.len() == present.len()
        && wanted.iter().all(|one| {
            let before = present.iter().find(|before| before["name"] == one["name"]);
            before.is_some_and(|before| {
                items(&one["supportedKinds"]) == items(&before["supportedKinds"])
                    && one["attachedRoutes"] == before["attachedRoutes"]
                    && holds(items(&one["conditions"]), items(&before["conditions"]))
            })
        })
}

fn addresses(served: Option<&Served>) -> Vec<Value> {
    let served = served.iter();
    let ips = served.clone().flat_map(|served| &served.addresses);
    let ips = ips.map(|ip| json!({"type": "IPAddress", "value": ip.to_string()}));
    let names = served.flat_map(|served| &served.hostnames);
    let names = names.map(|name| json!({"type": "Hostname", "value": name}));
    ips.chain(names).collect()
}

/// The Gateway that a ListenerSet belongs to; anything else is its own.
fn gateway_of(objects: &Objects, key: &ObjectKey) -> ObjectKey {
    match objects.get(key) {
        Some(Object::ListenerSet(set)) => {
            let parent = &set.spec.parent_ref;
            let namespace = parent.namespace.as_ref().unwrap_or(&key.namespace);
            ObjectKey::new(GATEWAY_GROUP, "Gateway", namespace, &parent.name)
        }
        _ => key.clone(),
    }
}

/// The ports of listeners by name.
fn ports_of<'o>(objects: &'o Objects, key: &ObjectKey) -> BTreeMap<&'o str, u16> {
    let listeners = match objects.get(key) {
        Some(Object::Gateway(gateway)) => &gateway.spec.listeners[..],
        Some(Object::ListenerSet(set)) => &set.spec.listeners[..],
        _ => &[],
    };
    listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.port))
        .collect()
}

/// Conditions with what the host knows: a Gateway without an address, or a listener whose port is taken, is not
/// programmed whatever compiling says.
fn as_served(
    conditions: &[Condition],
    served: Option<&Served>,
    port: Option<u16>,
) -> Vec<Condition> {
    let whole = served.and_then(|served| served.problem.clone());
    let of_port = || {
        let message = served?.ports.get(&port?)?;
        Some(("Pending", message.clone()))
    };
    let problem = whole.or_else(of_port);
    let replace = |condition: &Condition| match &problem {
        Some((reason, message))
            if condition.type_ == "Programmed" && condition.status == ConditionStatus::True =>
        {
            // The reasons of a listener are fewer than those of its Gateway.
            let reason = if port.is_some() { "Pending" } else { reason };
            let generation = condition.observed_generation;
            Condition::new("Programmed", false, reason, message.clone(), generation)
        }
        _ => condition.clone(),
    };
    conditions.iter().map(replace).collect()
}

/// What has become a problem, for events: conditions that are one now and were not, or for another reason.
fn news(wanted: &[Condition], present: &Value) -> Vec<(&'static str, String)> {
    let is_new = |condition: &&Condition| {
        let known = of_type(present, condition.type_);
        let reason = known.and_then(|known| known["reason"].as_str());
        condition.is_problem() && reason != Some(condition.reason)
    };
    wanted
        .iter()
        .filter(is_new)
        .map(|condition| (condition.reason, condition.message.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
