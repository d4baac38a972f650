//! Lists of models: `GET /v1/models`.
//!
//! vLLM, SGLang and OpenAI answer `{"object":"list","data":[…]}`. llama.cpp answers the same, with a second list of
//! another shape under `models` beside it. vLLM names an adapter's base model in `parent`.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One model or adapter that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name that requests use.
    pub id: String,
    /// The base model of an adapter.
    pub parent: Option<String>,
    /// Where the weights came from.
    pub root: Option<String>,
    /// The context length in tokens.
    pub max_model_len: Option<u32>,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

/// The members that are read, of whatever type: a server's oddity must not hide its other models.
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    parent: serde_json::Value,
    #[serde(default)]
    root: serde_json::Value,
    #[serde(default)]
    max_model_len: serde_json::Value,
    #[serde(default)]
    meta: serde_json::Value,
}

impl From<Entry> for ModelInfo {
    fn from(entry: Entry) -> Self {
        let text = |value: &serde_json::Value| value.as_str().map(String::from);
        let length = entry
            .max_model_len
            .as_u64()
            .or_else(|| entry.meta.get("n_ctx")?.as_u64());
        Self {
            parent: text(&entry.parent),
            root: text(&entry.root),
            max_model_len: length.and_then(|length| u32::try_from(length).ok()),
            id: entry.id,
        }
    }
}

/// Reads a server's answer to `GET /v1/models`; `None` if it is not a model list. Entries without an id are left out.
#[must_use]
pub fn parse_models(body: &[u8]) -> Option<Vec<ModelInfo>> {
    Some(
        entries(body)?
            .into_iter()
            .map(|(entry, _)| entry.into())
            .collect(),
    )
}

/// One list out of several servers' lists. The first entry of an id wins and keeps its bytes; bodies that are no list
/// are left out.
#[must_use]
pub fn merge_models(bodies: &[&[u8]]) -> Bytes {
    let mut seen = HashSet::new();
    let mut merged = String::from(r#"{"object":"list","data":["#);
    for (entry, raw) in bodies.iter().filter_map(|body| entries(body)).flatten() {
        if !seen.insert(entry.id) {
            continue;
        }
        if seen.len() > 1 {
            merged.push(',');
        }
        merged.push_str(raw.get());
    }
    merged.push_str("]}");
    Bytes::from(merged)
}

fn entries(body: &[u8]) -> Option<Vec<(Entry, &RawValue)>> {
    let list: List<'_> = serde_json::from_slice(body).ok()?;
    Some(
        list.data
            .into_iter()
            .filter_map(|raw| Some((serde_json::from_str(raw.get()).ok()?, raw)))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
