//! YAML text to JSON values that remember where they stood.
//!
//! Events of the parser are folded into a value without recursion, and every node's path gets the position of its key
//! (or of itself in a list), so that a complaint about `spec.rules[0].name` can name its line. Scalars follow the YAML
//! 1.2 core schema. Three things are bounded, because text may be hostile: depth, what aliases expand to, and progress
//! after an error.
//!
//! A null in a mapping is dropped: Kubernetes reads `field: null` as a field left out.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag, options};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 128;
/// How many nodes all aliases of a document may add.
const MAX_ALIASED_NODES: usize = 100_000;

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// Where the nodes of a document stand, by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(HashMap<String, Position>);

impl Marks {
    /// The position of the node at `path`, or of the nearest node around it.
    pub(crate) fn find(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.0.get(path) {
                return Some(*position);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    /// The marks beneath `prefix`, with paths that start there.
    pub(crate) fn beneath(&self, prefix: &str) -> Self {
        let shorten = |path: &str| {
            let rest = path.strip_prefix(prefix)?;
            match rest.as_bytes().first() {
                None => Some(String::new()),
                Some(b'.') => Some(rest[1..].to_owned()),
                Some(b'[') => Some(rest.to_owned()),
                Some(_) => None,
            }
        };
        Self(
            self.0
                .iter()
                .filter_map(|(path, at)| Some((shorten(path)?, *at)))
                .collect(),
        )
    }
}

/// One document of a text: the line of its first node, and its value or what is wrong with it.
pub(crate) struct Parsed {
    pub(crate) line: usize,
    pub(crate) result: Result<(Value, Marks), SyntaxError>,
}

/// Text that is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) position: Position,
    pub(crate) message: String,
}

impl SyntaxError {
    fn new(at: &Marker, message: impl Into<String>) -> Self {
        Self {
            position: at.into(),
            message: message.into(),
        }
    }
}

/// The path of a field of the object at `parent`.
pub(crate) fn field_path(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

/// Reads every document of `text`. A broken document is followed by those after the next `---`.
pub(crate) fn parse(text: &str) -> Vec<Parsed> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str_with_options(text, options! { emit_comments: false });
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    let mut last_error = None;
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(SyntaxError::new(error.marker(), error.info())),
        };
        match step {
            Ok(None) => {}
            Ok(Some(document)) => documents.push(document),
            Err(error) => {
                let position = (error.position.line, error.position.column);
                let line = builder.first_line.unwrap_or(error.position.line);
                documents.push(Parsed {
                    line,
                    result: Err(error),
                });
                builder = Builder::default();
                let stuck = last_error.is_some_and(|last| position <= last);
                last_error = Some(position);
                if stuck || !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    documents
}

/// Folds events into one value at a time.
#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    root: Option<Value>,
    marks: Marks,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    first_line: Option<usize>,
}

/// A collection that is still open.
struct Frame {
    path: String,
    anchor: usize,
    node: Open,
}

enum Open {
    List(Vec<Value>),
    Fields {
        fields: Map<String, Value>,
        key: Option<String>,
        merges: Vec<Value>,
    },
}

impl Builder {
    /// Takes one event; gives a document when it was the last of one.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Parsed>, SyntaxError> {
        let at = &span.start;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.wants_key() {
                    self.key(&text, at)?;
                } else {
                    self.mark(at);
                    self.finish(scalar(&text, style, tag.as_ref()), anchor);
                }
            }
            Event::SequenceStart(_, anchor, _) => self.open(Open::List(Vec::new()), anchor, at)?,
            Event::MappingStart(_, anchor, _) => {
                let fields = Open::Fields {
                    fields: Map::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(fields, anchor, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at)?,
            Event::Alias(id) => self.alias(id, at)?,
            Event::DocumentEnd => return Ok(self.document()),
            _ => {}
        }
        Ok(None)
    }

    fn document(&mut self) -> Option<Parsed> {
        let done = std::mem::take(self);
        let value = done.root.filter(|value| !value.is_null())?;
        Some(Parsed {
            line: done.first_line.unwrap_or(1),
            result: Ok((value, done.marks)),
        })
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame {
                node: Open::Fields { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, text: &str, at: &Marker) -> Result<(), SyntaxError> {
        let Some(Frame {
            path,
            node: Open::Fields { fields, key, .. },
            ..
        }) = self.stack.last_mut()
        else {
            return Ok(());
        };
        if fields.contains_key(text) {
            return Err(SyntaxError::new(
                at,
                format!("the field {text:?} is given twice; keep one"),
            ));
        }
        self.marks.0.insert(field_path(path, text), at.into());
        *key = Some(text.to_owned());
        Ok(())
    }

    /// The path of the node that begins now.
    fn path(&self) -> String {
        match self.stack.last() {
            None => String::new(),
            Some(Frame {
                path,
                node: Open::List(items),
                ..
            }) => format!("{path}[{}]", items.len()),
            Some(Frame {
                path,
                node: Open::Fields { key, .. },
                ..
            }) => field_path(path, key.as_deref().unwrap_or_default()),
        }
    }

    /// Remembers where a node stands, unless its key has said so.
    fn mark(&mut self, at: &Marker) {
        self.first_line.get_or_insert(at.line().max(1));
        let path = self.path();
        self.marks.0.entry(path).or_insert_with(|| at.into());
    }

    fn open(&mut self, node: Open, anchor: usize, at: &Marker) -> Result<(), SyntaxError> {
        if self.wants_key() {
            return Err(SyntaxError::new(
                at,
                "a field name must be a plain text, not a list or an object",
            ));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(SyntaxError::new(
                at,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.mark(at);
        let path = self.path();
        self.stack.push(Frame { path, anchor, node });
        Ok(())
    }

    fn close(&mut self, at: &Marker) -> Result<(), SyntaxError> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let value = match frame.node {
            Open::List(items) => Value::Array(items),
            Open::Fields {
                mut fields, merges, ..
            } => {
                merge(&mut fields, merges).ok_or_else(|| {
                    SyntaxError::new(at, "'<<' takes an object or a list of objects")
                })?;
                Value::Object(fields)
            }
        };
        self.finish(value, frame.anchor);
        Ok(())
    }

    fn alias(&mut self, id: usize, at: &Marker) -> Result<(), SyntaxError> {
        let value = self.anchors.get(&id).cloned();
        let value = value
            .ok_or_else(|| SyntaxError::new(at, "the alias refers to a node around itself"))?;
        if self.wants_key() {
            return match value {
                Value::String(text) => self.key(&text, at),
                _ => Err(SyntaxError::new(at, "a field name must be a plain text")),
            };
        }
        self.aliased += count_nodes(&value);
        if self.aliased > MAX_ALIASED_NODES {
            return Err(SyntaxError::new(at, "the aliases expand to too much"));
        }
        self.mark(at);
        self.finish(value, 0);
        Ok(())
    }

    /// Hands a finished node to the collection around it.
    fn finish(&mut self, value: Value, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.stack.last_mut().map(|frame| &mut frame.node) {
            None => self.root = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Fields {
                fields,
                key,
                merges,
            }) => match key.take() {
                Some(key) if key == "<<" => merges.push(value),
                Some(key) if !value.is_null() => {
                    fields.insert(key, value);
                }
                _ => {}
            },
        }
    }
}

/// Fills fields that are not there from merged objects, the first of which wins.
fn merge(fields: &mut Map<String, Value>, merges: Vec<Value>) -> Option<()> {
    for value in merges {
        match value {
            Value::Object(more) => {
                for (key, value) in more {
                    fields.entry(key).or_insert(value);
                }
            }
            Value::Array(items) => merge(fields, items)?,
            _ => return None,
        }
    }
    Some(())
}

fn count_nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count_nodes).sum(),
        Value::Object(fields) => fields.values().map(count_nodes).sum(),
        _ => 0,
    }
}

/// A scalar by the core schema: what is quoted or tagged `!!str` is text, the rest is what it looks like.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
    if style != ScalarStyle::Plain || is_text {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    let shaped = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if shaped {
        text.parse::<f64>().ok().and_then(Number::from_f64)
    } else {
        None
    }
}
