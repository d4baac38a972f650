//! The prompt as the engine will see it.
//!
//! A server's chat template lays a request out as one text: tool definitions, the system prompt, then the turns. Two
//! requests share cached blocks exactly as far as these texts agree. [`Prompt`] keeps the pieces in that order,
//! whatever order the body had them in, as slices of the body; ids that templates do not print (tool call ids,
//! message ids) and thoughts that templates drop are left out.
//!
//! Where a body holds several prompts (a list of completions, documents to rank), each is a sequence of its own: the
//! first gives the pieces, the others only count.

use crate::RequestError;
use crate::json::{Kind, Reader, Text};

type Result<T> = std::result::Result<T, RequestError>;

/// Claude Code opens its system prompt with a line that changes on each call and that servers drop.
const BILLING_LINE: &str = "x-anthropic-billing-header";

/// The pieces of a prompt in the order of a chat template: tools, system, then the turns.
#[derive(Debug, Clone, Default)]
pub struct Prompt<'a> {
    pub(crate) tools: Option<&'a str>,
    pub(crate) system: Vec<Segment<'a>>,
    pub(crate) turns: Vec<Segment<'a>>,
    /// Bytes of the prompts after the first, token ids counted as four.
    pub(crate) rest_bytes: usize,
}

/// One piece of a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Segment<'a> {
    /// A turn of this role begins.
    Role(Text<'a>),
    /// Text.
    Text(Text<'a>),
    /// JSON that the template prints as such.
    Json(&'a str),
    /// An image, audio clip, video or file.
    Media(Media, Payload<'a>),
    /// A JSON array of token ids.
    Ids(&'a str),
}

/// What an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Image,
    Audio,
    Video,
    File,
}

/// The data or the address of an attachment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// Base64 or a URL or an id.
    Text(Text<'a>),
    /// A part of a multipart form.
    Bytes(&'a [u8]),
}

const NOTHING: Text<'static> = Text::plain("");

impl<'a> Prompt<'a> {
    /// No prompt was found in the body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tools.is_none() && self.system.is_empty() && self.turns.is_empty()
    }

    /// Tool definitions: the bytes of the value.
    pub(crate) fn read_tools(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        let raw = reader.skip()?;
        self.tools = (raw != "null" && raw != "[]").then_some(raw);
        Ok(())
    }

    /// A system prompt, instructions, or the query that documents are ranked by: text or content parts.
    pub(crate) fn read_system(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        self.system.clear();
        self.system.push(Segment::Role(Text::plain("system")));
        content(reader, &mut self.system)?;
        let billing = |s: &Segment<'_>| matches!(s, Segment::Text(t) if t.with(|t| t.starts_with(BILLING_LINE)));
        self.system.retain(|segment| !billing(segment));
        if self.system.len() == 1 {
            self.system.clear();
        }
        Ok(())
    }

    /// Messages or input items. A list of lists holds several conversations.
    pub(crate) fn read_turns(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        self.turns.clear();
        self.rest_bytes = 0;
        if reader.kind()? != Kind::Array {
            return turn(reader, &mut self.turns);
        }
        let mut conversations = 0;
        reader.array(|reader| {
            if reader.kind()? != Kind::Array {
                return turn(reader, &mut self.turns);
            }
            conversations += 1;
            if conversations == 1 {
                return reader.array(|reader| turn(reader, &mut self.turns));
            }
            self.rest_bytes += reader.skip()?.len();
            Ok(())
        })
    }

    /// A prompt without turns: a string, token ids, or a list of either, of content parts or of documents.
    pub(crate) fn read_plain(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        self.turns.clear();
        self.rest_bytes = 0;
        if reader.kind()? != Kind::Array {
            return content(reader, &mut self.turns);
        }
        let mut ids = false;
        let mut count = 0;
        let start = reader.at();
        reader.array(|reader| {
            count += 1;
            let kind = reader.kind()?;
            ids |= kind == Kind::Number;
            if count == 1 && kind != Kind::Number {
                return self.first_plain(reader);
            }
            let raw = reader.skip()?;
            self.rest_bytes += if kind == Kind::Array {
                4 * count_ids(raw)
            } else {
                raw.len()
            };
            Ok(())
        })?;
        if ids {
            self.turns.clear();
            self.rest_bytes = 0;
            self.turns.push(Segment::Ids(reader.since(start)));
        }
        Ok(())
    }

    fn first_plain(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        if reader.kind()? == Kind::Array {
            self.turns.push(Segment::Ids(reader.skip()?));
            return Ok(());
        }
        part(reader, &mut self.turns)
    }
}

/// Numbers in a flat JSON array, near enough.
fn count_ids(array: &str) -> usize {
    memchr::memchr_iter(b',', array.as_bytes()).count() + usize::from(array.len() > 2)
}

/// One message or input item.
fn turn<'a>(reader: &mut Reader<'a>, out: &mut Vec<Segment<'a>>) -> Result<()> {
    if reader.kind()? != Kind::Object {
        out.push(Segment::Role(Text::plain("user")));
        return content(reader, out);
    }
    let start = out.len();
    out.push(Segment::Role(NOTHING));
    let (mut role, mut kind) = (None, None);
    let mut calls = Vec::new();
    reader.object(|reader, key, _| {
        match key.with(turn_key) {
            TurnKey::Role => role = reader.string_or_skip()?,
            TurnKey::Type => kind = reader.string_or_skip()?,
            TurnKey::Content => content(reader, out)?,
            TurnKey::Calls => call(reader, &mut calls)?,
            TurnKey::Skip => drop(reader.skip()?),
        }
        Ok(())
    })?;
    if let (Some(first), Some(name)) = (out.get_mut(start), role.or(kind)) {
        *first = Segment::Role(name);
    }
    out.append(&mut calls);
    Ok(())
}

enum TurnKey {
    Role,
    Type,
    Content,
    Calls,
    Skip,
}

fn turn_key(key: &str) -> TurnKey {
    match key {
        "role" => TurnKey::Role,
        "type" => TurnKey::Type,
        "content" | "output" => TurnKey::Content,
        "tool_calls" | "function_call" | "name" | "arguments" | "input" => TurnKey::Calls,
        _ => TurnKey::Skip,
    }
}

/// Tool calls, or one member of a call: names and arguments, without ids.
fn call<'a>(reader: &mut Reader<'a>, out: &mut Vec<Segment<'a>>) -> Result<()> {
    match reader.kind()? {
        Kind::String => out.push(Segment::Text(reader.string()?)),
        Kind::Array => reader.array(|reader| call(reader, out))?,
        Kind::Object => reader.object(|reader, key, _| match key.with(call_key) {
            CallKey::Inside => call(reader, out),
            CallKey::Json if reader.kind()? != Kind::String => {
                out.push(Segment::Json(reader.skip()?));
                Ok(())
            }
            CallKey::Json => call(reader, out),
            CallKey::Skip => reader.skip().map(drop),
        })?,
        Kind::Number | Kind::Word => drop(reader.skip()?),
    }
    Ok(())
}

enum CallKey {
    Inside,
    Json,
    Skip,
}

fn call_key(key: &str) -> CallKey {
    match key {
        "function" | "custom" | "name" => CallKey::Inside,
        "arguments" | "input" => CallKey::Json,
        _ => CallKey::Skip,
    }
}

/// The content of a turn: text, one part, or a list of parts.
fn content<'a>(reader: &mut Reader<'a>, out: &mut Vec<Segment<'a>>) -> Result<()> {
    match reader.kind()? {
        Kind::Array => reader.array(|reader| part(reader, out)),
        _ => part(reader, out),
    }
}

/// What a member of a content part is.
enum PartKey {
    Type,
    Text,
    Json,
    Content,
    Uuid,
    Media(Media),
    Skip,
}

fn part_key(key: &str) -> PartKey {
    match key {
        "type" => PartKey::Type,
        "text" | "refusal" | "name" => PartKey::Text,
        "input" => PartKey::Json,
        "content" => PartKey::Content,
        "uuid" => PartKey::Uuid,
        "image_url" | "image" | "image_embeds" | "source" => PartKey::Media(Media::Image),
        "input_audio" | "audio_url" | "audio" | "audio_embeds" => PartKey::Media(Media::Audio),
        "video_url" | "video" | "video_embeds" => PartKey::Media(Media::Video),
        "file" | "file_data" | "file_id" | "file_url" => PartKey::Media(Media::File),
        _ => PartKey::Skip,
    }
}

/// One content part of any dialect. A part's `uuid` stands for its data in vLLM's cache, so it does here.
fn part<'a>(reader: &mut Reader<'a>, out: &mut Vec<Segment<'a>>) -> Result<()> {
    match reader.kind()? {
        Kind::String => {
            out.push(Segment::Text(reader.string()?));
            return Ok(());
        }
        Kind::Object => {}
        Kind::Array | Kind::Number | Kind::Word => return reader.skip().map(drop),
    }
    let first = out.len();
    let (mut kind, mut uuid) = (NOTHING, None);
    reader.object(|reader, key, _| {
        match key.with(part_key) {
            PartKey::Type => kind = reader.string_or_skip()?.unwrap_or(NOTHING),
            PartKey::Text => out.extend(reader.string_or_skip()?.map(Segment::Text)),
            PartKey::Json => out.push(Segment::Json(reader.skip()?)),
            PartKey::Content => content(reader, out)?,
            PartKey::Uuid => uuid = reader.string_or_skip()?,
            PartKey::Media(media) => {
                out.extend(payload(reader)?.map(|data| Segment::Media(media, Payload::Text(data))));
            }
            PartKey::Skip => drop(reader.skip()?),
        }
        Ok(())
    })?;
    settle_media(out, first, kind, uuid);
    Ok(())
}

/// Applies what a part's `type` and `uuid` say, which may stand after its data.
fn settle_media<'a>(
    out: &mut Vec<Segment<'a>>,
    first: usize,
    kind: Text<'a>,
    uuid: Option<Text<'a>>,
) {
    let is_file = kind.with(|kind| matches!(kind, "document" | "input_file"));
    let mut found = false;
    for segment in out.iter_mut().skip(first) {
        if let Segment::Media(media, data) = segment {
            found = true;
            if is_file {
                *media = Media::File;
            }
            if let Some(id) = uuid {
                *data = Payload::Text(id);
            }
        }
    }
    if let (false, Some(id)) = (found, uuid) {
        out.push(Segment::Media(Media::Image, Payload::Text(id)));
    }
}

/// The data or address of an attachment: the value itself, or the member of it that holds the data.
fn payload<'a>(reader: &mut Reader<'a>) -> Result<Option<Text<'a>>> {
    if reader.kind()? != Kind::Object {
        return reader.string_or_skip();
    }
    let mut found = None;
    reader.object(|reader, key, _| {
        let is_data =
            key.with(|key| matches!(key, "url" | "data" | "file_data" | "file_id" | "file_url"));
        match reader.string_or_skip()? {
            Some(data) if is_data => found = Some(data),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Some(found.unwrap_or(NOTHING)))
}
