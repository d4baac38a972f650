//! A request body, read in place.
//!
//! What a gateway must be certain of is checked: the body is one JSON object (or one multipart form), and it names at
//! most one model, as a string. Everything else is the server's to judge: a field of the wrong type counts as absent,
//! an unknown field is stepped over, of a repeated field other than `model` the last one counts, as it does in Python.
//! Keys are compared unescaped, because servers do so too.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{Kind, Reader, Text};
use crate::{Dialect, Prompt, RequestError, multipart};

type Result<T> = std::result::Result<T, RequestError>;

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

impl<'a> RequestView<'a> {
    pub(crate) fn empty(dialect: Dialect) -> Self {
        Self {
            dialect,
            model: None,
            stream: false,
            include_usage: false,
            max_tokens: None,
            n: 1,
            prompt: Prompt::default(),
            cache_salt: None,
            priority: None,
            previous_response_id: None,
            conversation: None,
            reserved_field: None,
        }
    }

    /// True when the model's span covers a JSON string, as [`crate::splice_model`] asks.
    #[must_use]
    pub fn is_json(&self) -> bool {
        !is_multipart(self.dialect)
    }
}

/// Reads a body as `dialect` says. `content_type` matters for multipart dialects only.
///
/// # Errors
/// When the body is not what the dialect's servers could read at all, or its model cannot be told for certain.
pub fn read<'a>(
    dialect: Dialect,
    content_type: Option<&str>,
    body: &'a [u8],
) -> Result<RequestView<'a>> {
    if is_multipart(dialect) {
        return multipart::read(dialect, content_type, body);
    }
    let mut reader = Reader::new(body)?;
    let start = reader.at();
    if reader.kind()? != Kind::Object {
        reader.skip()?;
        reader.end()?;
        return Err(RequestError::NotAnObject { at: start });
    }
    let mut fields = Fields {
        view: RequestView::empty(dialect),
        max_tokens_rank: 0,
        model_error: None,
    };
    reader.object(|reader, key, key_at| {
        let slot = key.with(|key| slot(dialect, key));
        fields.take(reader, slot, key_at)
    })?;
    let end = reader.at().saturating_sub(1);
    reader.end()?;
    fields.finish(end)
}

fn is_multipart(dialect: Dialect) -> bool {
    matches!(
        dialect,
        Dialect::AudioTranscriptions | Dialect::AudioTranslations
    )
}

/// Servers that serve one model let these dialects leave it out.
fn needs_model(dialect: Dialect) -> bool {
    use Dialect as D;
    matches!(
        dialect,
        D::ChatCompletions
            | D::Completions
            | D::Embeddings
            | D::Responses
            | D::Messages
            | D::CountTokens
    )
}

/// What a top-level field is for.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Model,
    Stream,
    StreamOptions,
    /// With a rank: of several names for the cap the highest rank counts.
    MaxTokens(u8),
    N,
    CacheSalt,
    Priority,
    PreviousResponse,
    Conversation,
    Tools,
    System,
    Turns,
    Plain,
    /// An object that servers unpack into engine arguments.
    Extra,
    Reserved(&'static str),
    Skip,
}

fn slot(dialect: Dialect, key: &str) -> Slot {
    match key {
        "model" => Slot::Model,
        "stream" => Slot::Stream,
        "stream_options" => Slot::StreamOptions,
        "max_completion_tokens" => Slot::MaxTokens(3),
        "max_tokens" | "max_output_tokens" | "max_new_tokens" => Slot::MaxTokens(2),
        "n_predict" => Slot::MaxTokens(1),
        "n" => Slot::N,
        "cache_salt" => Slot::CacheSalt,
        "priority" => Slot::Priority,
        "extra_args" | "vllm_xargs" | "extra_body" | "sampling_params" => Slot::Extra,
        _ => reserved(key).map_or_else(|| prompt_slot(dialect, key), Slot::Reserved),
    }
}

/// Fields by which parts of a fleet talk to each other. From outside they crash engines, make them fetch from any
/// host, or read other tenants' cache blocks.
pub(crate) fn reserved(key: &str) -> Option<&'static str> {
    const RESERVED: [&str; 13] = [
        "kv_transfer_params",
        "ec_transfer_params",
        "disaggregated_params",
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
        "bootstrap_pair_key",
        "routed_dp_rank",
        "disagg_prefill_dp_rank",
        "decode_dp_rank",
        "prefill_dp_rank",
        "data_parallel_rank",
        "cache_hit_threshold",
    ];
    RESERVED.into_iter().find(|name| *name == key)
}

/// Where the prompt stands.
fn prompt_slot(dialect: Dialect, key: &str) -> Slot {
    use Dialect as D;
    match (dialect, key) {
        (
            D::ChatCompletions | D::Tokenize | D::Generate | D::Messages | D::CountTokens,
            "messages",
        )
        | (D::Embeddings | D::Classify | D::Pooling, "messages")
        | (D::Responses, "input") => Slot::Turns,
        (
            D::ChatCompletions
            | D::Tokenize
            | D::Responses
            | D::Messages
            | D::CountTokens
            | D::Generate,
            "tools",
        )
        | (D::ChatCompletions, "functions") => Slot::Tools,
        (D::Messages | D::CountTokens | D::Generate, "system")
        | (D::Responses, "instructions")
        | (D::Rerank, "query")
        | (D::Score, "text_1" | "queries" | "data_1") => Slot::System,
        (D::Completions | D::Tokenize, "prompt")
        | (D::Tokenize, "content")
        | (D::Detokenize, "tokens")
        | (D::Embeddings, "input" | "texts" | "inputs" | "content")
        | (D::Classify | D::Pooling, "input" | "data")
        | (D::Rerank | D::Score, "documents")
        | (D::Score, "text_2" | "data_2")
        | (D::Generate, "prompt" | "text" | "input_ids" | "input") => Slot::Plain,
        (D::Responses, "previous_response_id") => Slot::PreviousResponse,
        (D::Responses, "conversation") => Slot::Conversation,
        _ => Slot::Skip,
    }
}

/// The view while it is being filled.
struct Fields<'a> {
    view: RequestView<'a>,
    max_tokens_rank: u8,
    /// Reported only once the whole document is known to be JSON.
    model_error: Option<RequestError>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, reader: &mut Reader<'a>, slot: Slot, key_at: usize) -> Result<()> {
        let view = &mut self.view;
        match slot {
            Slot::Model => return self.model(reader, key_at),
            Slot::MaxTokens(rank) => return self.max_tokens(reader, rank),
            Slot::Extra => return self.extra(reader),
            Slot::Stream => view.stream = truthy(reader.skip()?),
            Slot::StreamOptions => view.include_usage = include_usage(reader)?,
            Slot::N => view.n = number(reader.skip()?).unwrap_or(1).max(1),
            Slot::Priority => view.priority = reader.skip()?.parse().ok(),
            Slot::CacheSalt => view.cache_salt = reader.string_or_skip()?.map(Text::to_cow),
            Slot::PreviousResponse => {
                view.previous_response_id = reader.string_or_skip()?.map(Text::to_cow);
            }
            Slot::Conversation => view.conversation = string_or_id(reader)?.map(Text::to_cow),
            Slot::Tools => view.prompt.read_tools(reader)?,
            Slot::System => view.prompt.read_system(reader)?,
            Slot::Turns => view.prompt.read_turns(reader)?,
            Slot::Plain => view.prompt.read_plain(reader)?,
            Slot::Reserved(name) => self.reserved(reader, name)?,
            Slot::Skip => drop(reader.skip()?),
        }
        Ok(())
    }

    fn model(&mut self, reader: &mut Reader<'a>, key_at: usize) -> Result<()> {
        let start = reader.at();
        if self.view.model.is_some() || self.model_error.is_some() {
            if !matches!(self.model_error, Some(RequestError::ModelTwice { .. })) {
                self.model_error = Some(RequestError::ModelTwice { at: key_at });
            }
            return reader.skip().map(drop);
        }
        let is_null = reader.kind()? == Kind::Word;
        let name = match reader.string_or_skip()? {
            Some(text) => text.to_strict(),
            None if is_null && reader.since(start) == "null" => {
                self.model_error = Some(RequestError::ModelMissing { at: start });
                return Ok(());
            }
            None => None,
        };
        match name {
            Some(name) => {
                self.view.model = Some(ModelField {
                    name,
                    span: start..reader.at(),
                });
            }
            None => self.model_error = Some(RequestError::ModelNotAString { at: start }),
        }
        Ok(())
    }

    fn max_tokens(&mut self, reader: &mut Reader<'a>, rank: u8) -> Result<()> {
        let value = number(reader.skip()?);
        if value.is_some() && rank >= self.max_tokens_rank {
            self.view.max_tokens = value;
            self.max_tokens_rank = rank;
        }
        Ok(())
    }

    fn reserved(&mut self, reader: &mut Reader<'a>, name: &'static str) -> Result<()> {
        if reader.skip()? != "null" {
            self.view.reserved_field.get_or_insert(name);
        }
        Ok(())
    }

    /// Looks for reserved fields, and for SGLang's cap, inside an object of engine arguments.
    fn extra(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        if reader.kind()? != Kind::Object {
            return reader.skip().map(drop);
        }
        reader.object(
            |reader, key, _| match key.with(|key| slot(Dialect::Generate, key)) {
                Slot::Reserved(name) => self.reserved(reader, name),
                Slot::Extra => self.extra(reader),
                Slot::MaxTokens(rank) => self.max_tokens(reader, rank),
                _ => reader.skip().map(drop),
            },
        )
    }

    fn finish(self, end: usize) -> Result<RequestView<'a>> {
        let required = needs_model(self.view.dialect);
        match (self.model_error, &self.view.model) {
            (Some(RequestError::ModelMissing { .. }), _) if !required => Ok(self.view),
            (Some(error), _) => Err(error),
            (None, None) if required => Err(RequestError::ModelMissing { at: end }),
            (None, _) => Ok(self.view),
        }
    }
}

/// Servers written with pydantic take more than `true` for true.
pub(crate) fn truthy(raw: &str) -> bool {
    const TRUE: [&str; 6] = ["true", "1", "yes", "on", "t", "y"];
    let bare = raw.trim_matches('"');
    raw == "1.0" || TRUE.iter().any(|word| bare.eq_ignore_ascii_case(word))
}

/// A count, also when written as `16.0` or beyond 32 bits; negative numbers mean no limit in llama.cpp.
pub(crate) fn number(raw: &str) -> Option<u32> {
    if let Ok(value) = raw.parse() {
        return Some(value);
    }
    let value: f64 = raw.parse().ok()?;
    // A float that is not negative saturates when cast.
    (value >= 0.0).then_some(value as u32)
}

fn include_usage(reader: &mut Reader<'_>) -> Result<bool> {
    if reader.kind()? != Kind::Object {
        return reader.skip().map(|_| false);
    }
    let mut wanted = false;
    reader.object(|reader, key, _| {
        let value = reader.skip()?;
        if key.with(|key| key == "include_usage") {
            wanted = truthy(value);
        }
        Ok(())
    })?;
    Ok(wanted)
}

/// A string, or the `id` of an object.
fn string_or_id<'a>(reader: &mut Reader<'a>) -> Result<Option<Text<'a>>> {
    if reader.kind()? != Kind::Object {
        return reader.string_or_skip();
    }
    let mut id = None;
    reader.object(|reader, key, _| {
        let value = reader.string_or_skip()?;
        if key.with(|key| key == "id") {
            id = value;
        }
        Ok(())
    })?;
    Ok(id)
}

#[cfg(test)]
mod tests;
