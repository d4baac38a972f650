//! Changing the model name and nothing else.

use std::ops::Range;

use bytes::Bytes;

/// The body with another model: head, new value, tail. Head and tail share the body's memory.
///
/// `span` is [`crate::ModelField::span`] of the same body.
#[must_use]
pub fn splice_model(body: &Bytes, span: Range<usize>, is_json: bool, new_name: &str) -> [Bytes; 3] {
    let end = span.end.min(body.len());
    let start = span.start.min(end);
    let value = if is_json {
        serde_json::Value::from(new_name).to_string()
    } else {
        new_name.chars().filter(|c| !c.is_control()).collect()
    };
    [body.slice(..start), Bytes::from(value), body.slice(end..)]
}
