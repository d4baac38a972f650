//! What one event or document of an answer says.
//!
//! The dialects use different words for the same few things and do not contradict each other, so one reader serves
//! them all, also a server that answers in a dialect that nobody asked for.

use memchr::memmem;

use super::{InBandError, Usage};
use crate::RequestError;
use crate::json::{Kind, Reader, Text};
use crate::request::number;

type Result<T> = std::result::Result<T, RequestError>;

/// Token counts, as far as they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    prompt: Option<u32>,
    completion: Option<u32>,
    cached: Option<u32>,
    /// Anthropic counts cached tokens (read and written) beside the others instead of among them.
    beside: Option<u32>,
}

impl Counts {
    /// Later counts replace earlier ones, one by one: Anthropic's come in two events.
    pub(crate) fn merge(&mut self, later: &Self) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
        self.beside = later.beside.or(self.beside);
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        if self.prompt.is_none() && self.completion.is_none() {
            return None;
        }
        Some(Usage {
            prompt_tokens: self
                .prompt
                .unwrap_or(0)
                .saturating_add(self.beside.unwrap_or(0)),
            completion_tokens: self.completion.unwrap_or(0),
            cached_tokens: self.cached,
        })
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if reader.kind()? != Kind::Object {
            return reader.skip().map(drop);
        }
        reader.object(|reader, key, _| {
            let value = match reader.kind()? {
                Kind::Object => return self.details(reader, key),
                Kind::Number => number(reader.skip()?),
                _ => return reader.skip().map(drop),
            };
            key.with(|key| self.count(key, value));
            Ok(())
        })
    }

    fn count(&mut self, key: &str, value: Option<u32>) {
        match key {
            "prompt_tokens" | "input_tokens" | "tokens_evaluated" => self.prompt = value,
            "completion_tokens" | "output_tokens" | "tokens_predicted" => self.completion = value,
            "cached_tokens" => self.cached = value,
            "cache_read_input_tokens" => {
                self.cached = value;
                self.beside = Some(self.beside.unwrap_or(0).saturating_add(value.unwrap_or(0)));
            }
            "cache_creation_input_tokens" => {
                self.beside = Some(self.beside.unwrap_or(0).saturating_add(value.unwrap_or(0)));
            }
            _ => {}
        }
    }

    fn details(&mut self, reader: &mut Reader<'_>, key: Text<'_>) -> Result<()> {
        if !key.with(|key| matches!(key, "prompt_tokens_details" | "input_tokens_details")) {
            return reader.skip().map(drop);
        }
        reader.object(|reader, key, _| {
            let value = reader.skip()?;
            if key.with(|key| key == "cached_tokens") {
                self.cached = number(value).or(self.cached);
            }
            Ok(())
        })
    }
}

/// What one event or document says.
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    /// Pieces of content, one per choice that has some.
    pub(crate) content: u32,
    pub(crate) counts: Counts,
    pub(crate) finish_reason: Option<Text<'a>>,
    pub(crate) id: Option<Text<'a>>,
    pub(crate) error: Option<InBandError>,
    /// Nothing may follow in this dialect.
    pub(crate) ends: bool,
    kind: Option<Text<'a>>,
    code: Option<Text<'a>>,
    status: Option<Text<'a>>,
}

impl<'a> Facts<'a> {
    /// Reads the data of one event; `None` if it is not a JSON object.
    pub(crate) fn of_event(data: &'a [u8]) -> Option<Self> {
        let mut facts = Self::read(data)?;
        facts.settle_kind();
        Some(facts)
    }

    /// Reads a whole JSON answer; `None` if it is not one.
    pub(crate) fn of_document(body: &'a [u8]) -> Option<Self> {
        let mut facts = Self::read(body)?;
        if facts.finish_reason.is_none() {
            facts.finish_reason = facts.final_status();
        }
        Some(facts)
    }

    /// Looks for what it can in the two ends of something long. The patterns hold bare quotes, so they cannot match
    /// inside a JSON string; deeper keys of the same name are told apart by what follows.
    pub(crate) fn of_ends(head: &'a [u8], tail: &'a [u8]) -> Self {
        let mut facts = Self::default();
        if let Some(mut reader) = after_last(tail, b"\"usage\"") {
            let mut counts = Counts::default();
            if counts.read(&mut reader).is_ok() {
                facts.counts = counts;
            }
        }
        facts.finish_reason = [&b"\"finish_reason\""[..], b"\"stop_reason\""]
            .into_iter()
            .find_map(|key| after_last(tail, key)?.string().ok());
        let start = head.get(..head.len().min(512)).unwrap_or_default();
        let end = tail
            .get(tail.len().saturating_sub(256)..)
            .unwrap_or_default();
        facts.id =
            memmem::find(start, b"\"id\"").and_then(|at| value_at(head, at + 4)?.string().ok());
        for (mark, reason) in [
            ("\"response.completed\"", "completed"),
            ("\"response.incomplete\"", "incomplete"),
        ] {
            if memmem::find(start, mark.as_bytes())
                .or_else(|| memmem::find(end, mark.as_bytes()))
                .is_some()
            {
                facts.ends = true;
                facts.finish_reason = Some(Text::plain(reason));
            }
        }
        facts
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut facts = Self::default();
        let mut reader = Reader::new(bytes).ok()?;
        if reader.kind().ok()? != Kind::Object {
            return None;
        }
        facts.object(&mut reader).ok()?;
        reader.end().ok()?;
        Some(facts)
    }

    /// The event itself, and the `message` or `response` inside of it.
    fn object(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        reader.object(|reader, key, _| key.with(|key| self.member(reader, key)))
    }

    /// By kind first: most members of a chunk are numbers, nulls and strings of no interest.
    fn member(&mut self, reader: &mut Reader<'a>, key: &str) -> Result<()> {
        match reader.kind()? {
            Kind::String => {
                let text = reader.string()?;
                self.string_member(key, text);
            }
            Kind::Object => return self.object_member(reader, key),
            Kind::Array if key == "choices" => return reader.array(|reader| self.choice(reader)),
            Kind::Word if key == "stop" => self.ends |= reader.skip()? == "true",
            Kind::Number if key.starts_with("tokens_") => {
                self.counts.count(key, number(reader.skip()?));
            }
            _ => drop(reader.skip()?),
        }
        Ok(())
    }

    fn string_member(&mut self, key: &str, text: Text<'a>) {
        match key {
            "id" => self.id = Some(text),
            "type" => self.kind = Some(text),
            "delta" | "text" | "content" => self.content += u32::from(!text.is_empty()),
            "finish_reason" | "stop_reason" => self.finish_reason = Some(text),
            "status" => self.status = Some(text),
            "code" => self.code = Some(text),
            "error" => self.error = Some(in_band(None, None)),
            _ => {}
        }
    }

    fn object_member(&mut self, reader: &mut Reader<'a>, key: &str) -> Result<()> {
        match key {
            "usage" | "meta_info" => self.usage(reader),
            "message" | "response" => self.object(reader),
            "delta" => self.delta(reader),
            "error" => self.error(reader),
            "incomplete_details" => self.reason_inside(reader, "reason"),
            _ => reader.skip().map(drop),
        }
    }

    fn choice(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        if reader.kind()? != Kind::Object {
            return reader.skip().map(drop);
        }
        reader.object(|reader, key, _| {
            match (key.with(choice_key), reader.kind()?) {
                (ChoiceKey::Text, Kind::String) => {
                    self.content += u32::from(!reader.string()?.is_empty());
                }
                (ChoiceKey::Delta, Kind::Object) => self.delta(reader)?,
                (ChoiceKey::Finish, Kind::String) => self.finish_reason = Some(reader.string()?),
                _ => drop(reader.skip()?),
            }
            Ok(())
        })
    }

    /// A delta counts as content if anything but its role, type, ids and stop says something.
    fn delta(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        let mut any = false;
        reader.object(|reader, key, _| {
            let value = reader.skip()?;
            match key.with(delta_key) {
                DeltaKey::Content => any |= !matches!(value, "null" | "\"\"" | "[]" | "{}"),
                DeltaKey::Stop => {
                    let reason =
                        Reader::new(value.as_bytes()).and_then(|mut reader| reader.string());
                    self.finish_reason = reason.ok().or(self.finish_reason);
                }
                DeltaKey::Skip => {}
            }
            Ok(())
        })?;
        self.content += u32::from(any);
        Ok(())
    }

    /// `usage`, or SGLang's `meta_info`, which holds the same counts and the reason.
    fn usage(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        let start = reader.at();
        let mut counts = Counts::default();
        counts.read(reader)?;
        self.counts.merge(&counts);
        let raw = reader.since(start);
        if raw.contains("\"finish_reason\"") {
            self.finish_of_meta(raw)?;
        }
        Ok(())
    }

    fn finish_of_meta(&mut self, raw: &'a str) -> Result<()> {
        Reader::new(raw.as_bytes())?.object(|reader, key, _| {
            match (key.with(choice_key), reader.kind()?) {
                (ChoiceKey::Finish, Kind::Object) => self.reason_inside(reader, "type"),
                (ChoiceKey::Finish, Kind::String) => {
                    self.finish_reason = Some(reader.string()?);
                    Ok(())
                }
                _ => reader.skip().map(drop),
            }
        })
    }

    fn reason_inside(&mut self, reader: &mut Reader<'a>, member: &str) -> Result<()> {
        reader.object(|reader, key, _| {
            let value = reader.string_or_skip()?;
            if key.with(|key| key == member) {
                self.finish_reason = value.or(self.finish_reason);
            }
            Ok(())
        })
    }

    fn error(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        let (mut kind, mut code, mut status) = (None, None, None);
        reader.object(|reader, key, _| {
            let value = reader.kind()?;
            key.with(|key| match (key, value) {
                ("type", Kind::String) => reader.string().map(|text| kind = Some(text)),
                ("code", Kind::String) => reader.string().map(|text| code = Some(text)),
                ("code", Kind::Number) => reader.skip().map(|raw| status = number(raw)),
                _ => reader.skip().map(drop),
            })
        })?;
        self.error = Some(in_band(kind.or(code), status));
        Ok(())
    }

    /// Applies the event's type, which may stand at its end.
    fn settle_kind(&mut self) {
        let Some(kind) = self.kind else { return };
        let ends = kind.with(|kind| {
            matches!(
                kind,
                "response.completed"
                    | "response.incomplete"
                    | "response.failed"
                    | "response.cancelled"
                    | "message_stop"
                    | "error"
                    | "transcript.text.done"
            )
        });
        self.ends |= ends;
        if !kind.with(|kind| kind.ends_with("delta")) {
            self.content = 0;
        }
        if ends && self.finish_reason.is_none() {
            self.finish_reason = self.final_status();
        }
        if self.error.is_none() && kind.with(|kind| matches!(kind, "error" | "response.failed")) {
            self.error = Some(in_band(self.code, None));
        }
    }

    /// The status of a response that will not change any more.
    fn final_status(&self) -> Option<Text<'a>> {
        let is_final =
            |status: &str| matches!(status, "completed" | "incomplete" | "failed" | "cancelled");
        self.status.filter(|status| status.with(is_final))
    }
}

fn in_band(code: Option<Text<'_>>, status: Option<u32>) -> InBandError {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    let code = code.map_or_else(
        || "error".to_owned(),
        |code| code.to_cow().chars().filter(plain).take(64).collect(),
    );
    let status = status
        .and_then(|status| u16::try_from(status).ok())
        .filter(|status| (400..600).contains(status));
    InBandError { code, status }
}

enum ChoiceKey {
    Text,
    Delta,
    Finish,
    Skip,
}

fn choice_key(key: &str) -> ChoiceKey {
    match key {
        "text" => ChoiceKey::Text,
        "delta" => ChoiceKey::Delta,
        "finish_reason" => ChoiceKey::Finish,
        _ => ChoiceKey::Skip,
    }
}

enum DeltaKey {
    Content,
    Stop,
    Skip,
}

fn delta_key(key: &str) -> DeltaKey {
    match key {
        "role" | "type" | "stop_sequence" | "id" | "index" => DeltaKey::Skip,
        "stop_reason" => DeltaKey::Stop,
        _ => DeltaKey::Content,
    }
}

/// A reader in front of the value of the last member with this key.
fn after_last<'a>(bytes: &'a [u8], key: &[u8]) -> Option<Reader<'a>> {
    value_at(bytes, memmem::rfind(bytes, key)? + key.len())
}

/// A reader in front of the value behind a key that ends at `at`. Bytes that are cut off inside a character end there.
fn value_at(bytes: &[u8], at: usize) -> Option<Reader<'_>> {
    let after = bytes.get(at..)?.trim_ascii_start().strip_prefix(b":")?;
    let valid = match std::str::from_utf8(after) {
        Ok(text) => text.len(),
        Err(error) => error.valid_up_to(),
    };
    Reader::new(after.get(..valid)?).ok()
}
