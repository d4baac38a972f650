//! The wire between controller and data plane: one JSON object a line.
//!
//! The first line of a stream holds everything (`complete`), each further one what has changed since the line before:
//! objects that are new or other, and keys of those that are gone. Lines are numbered from 0; whoever misses one must
//! begin anew. The first line also holds the token by which the data planes of this Gateway know each other. An empty line says that the sender is still there.

use std::sync::Arc;

use api::ObjectKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::View;
use crate::carried::Carried;

/// A line as it is read.
#[derive(Deserialize)]
pub(super) struct Line {
    pub(super) number: u64,
    #[serde(default)]
    pub(super) complete: bool,
    pub(super) objects: Vec<Value>,
    #[serde(default)]
    pub(super) gone: Vec<Key>,
    #[serde(default)]
    pub(super) sharing: Option<String>,
}

/// A line as it is written.
#[derive(Serialize)]
struct Written<'a> {
    number: u64,
    complete: bool,
    objects: Vec<&'a RawValue>,
    gone: Vec<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sharing: Option<&'a str>,
}

/// An [`ObjectKey`].
#[derive(Serialize, Deserialize)]
pub(super) struct Key {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl From<&ObjectKey> for Key {
    fn from(key: &ObjectKey) -> Self {
        Self {
            group: key.group.clone(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl From<Key> for ObjectKey {
    fn from(key: Key) -> Self {
        Self::new(key.group, key.kind, key.namespace, key.name)
    }
}

/// The first line.
pub(super) fn first(now: &View, sharing: &str) -> Option<Vec<u8>> {
    written(0, None, now, Some(sharing))
}

/// The line that leads from what was sent to what is now; `None` when nothing has changed.
pub(super) fn line(number: u64, sent: &View, now: &View) -> Option<Vec<u8>> {
    written(number, Some(sent), now, None)
}

fn written(number: u64, sent: Option<&View>, now: &View, sharing: Option<&str>) -> Option<Vec<u8>> {
    let is_new = |key: &ObjectKey, carried: &Arc<Carried>| {
        sent.and_then(|sent| sent.get(key))
            .is_none_or(|known| !Arc::ptr_eq(known, carried) && known != carried)
    };
    let objects: Vec<&RawValue> = now
        .iter()
        .filter(|(key, carried)| is_new(key, carried))
        .map(|(_, carried)| &*carried.text)
        .collect();
    let gone = sent.into_iter().flatten();
    let gone: Vec<Key> = gone
        .filter(|(key, _)| !now.contains_key(key))
        .map(|(key, _)| key.into())
        .collect();
    if sent.is_some() && objects.is_empty() && gone.is_empty() {
        return None;
    }
    let written = Written {
        number,
        complete: sent.is_none(),
        objects,
        gone,
        sharing,
    };
    let mut text = serde_json::to_vec(&written).ok()?;
    text.push(b'\n');
    Some(text)
}
