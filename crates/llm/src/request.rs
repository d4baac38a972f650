//! A request body, read in place.

use std::borrow::Cow;
use std::ops::Range;

use crate::{Dialect, Prompt, RequestError};

/// The model that a body asks for, and where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelField<'a> {
    /// The name, unescaped.
    pub name: Cow<'a, str>,
    /// Bytes of the value in the body: for JSON the string with its quotes, for multipart the bare value.
    pub span: Range<usize>,
}

/// What a gateway wants to know of a body. Borrows from the body and says nothing of fields it does not know.
#[derive(Debug, Clone)]
pub struct RequestView<'a> {
    /// The dialect it was read as.
    pub dialect: Dialect,
    /// The model, if named.
    pub model: Option<ModelField<'a>>,
    /// The client wants a stream.
    pub stream: bool,
    /// The client asked for a usage event in the stream.
    pub include_usage: bool,
    /// Most tokens the answer may have.
    pub max_tokens: Option<u32>,
    /// Answers wanted per prompt, at least 1.
    pub n: u32,
    /// The prompt, in the order in which a chat template lays it out.
    pub prompt: Prompt<'a>,
    /// Separates prefix caches of tenants.
    pub cache_salt: Option<Cow<'a, str>>,
    /// vLLM's own priority field (lower is sooner), read only.
    pub priority: Option<i64>,
    /// Responses API: the answer this one continues.
    pub previous_response_id: Option<Cow<'a, str>>,
    /// Responses API: the conversation this belongs to.
    pub conversation: Option<Cow<'a, str>>,
    /// The first engine-internal field found, which a public listener must refuse.
    pub reserved_field: Option<&'static str>,
}

/// Reads a body as `dialect` says. `content_type` matters for multipart dialects only.
///
/// # Errors
/// When the body is not what the dialect's servers could read at all, or its model cannot be told for certain.
pub fn read<'a>(
    dialect: Dialect,
    content_type: Option<&str>,
    body: &'a [u8],
) -> Result<RequestView<'a>, RequestError> {
    let _ = (dialect, content_type, body);
    Err(RequestError::NotAnObject { at: 0 })
}
