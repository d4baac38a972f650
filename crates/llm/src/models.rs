//! Lists of models.

use bytes::Bytes;

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

/// Reads a server's answer to `GET /v1/models`; `None` if it is not a model list.
#[must_use]
pub fn parse_models(body: &[u8]) -> Option<Vec<ModelInfo>> {
    let _ = body;
    None
}

/// One list out of several servers' lists. The first entry of an id wins and keeps its bytes; bodies that are no list
/// are left out.
#[must_use]
pub fn merge_models(bodies: &[&[u8]]) -> Bytes {
    let _ = bodies;
    Bytes::new()
}
