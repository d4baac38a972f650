//! Fields that nobody reads.
//!
//! An object is written again and compared with what was given: what is missing was not understood. Fields that are
//! empty are left out on writing, so empty values are not complained about.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::validate::FieldIssue;
use crate::yaml::field_path;

/// Notes fields of `value` that `object` did not take. `metadata` and `status` belong to the API server.
pub(super) fn note_unknown_fields(
    value: &Value,
    object: &impl Serialize,
    warnings: &mut Vec<FieldIssue>,
) {
    let (Ok(Value::Object(known)), Value::Object(fields)) = (serde_json::to_value(object), value)
    else {
        return;
    };
    for (field, value) in fields
        .iter()
        .filter(|(field, _)| !matches!(field.as_str(), "kind" | "metadata" | "status"))
    {
        compare(field, value, known.get(field), warnings);
    }
}

fn compare(path: &str, given: &Value, known: Option<&Value>, warnings: &mut Vec<FieldIssue>) {
    match (given, known) {
        (Value::Object(fields), Some(Value::Object(known))) => {
            compare_fields(path, fields, known, warnings);
        }
        (Value::Array(items), Some(Value::Array(known))) => {
            for (index, item) in items.iter().enumerate() {
                compare(
                    &format!("{path}[{index}]"),
                    item,
                    known.get(index),
                    warnings,
                );
            }
        }
        (value, None) if !is_empty(value) => warnings.push(FieldIssue::new(
            path,
            "no such field; it is ignored (look for a typing error)",
        )),
        _ => {}
    }
}

fn compare_fields(
    path: &str,
    fields: &Map<String, Value>,
    known: &Map<String, Value>,
    warnings: &mut Vec<FieldIssue>,
) {
    for (field, value) in fields {
        compare(&field_path(path, field), value, known.get(field), warnings);
    }
}

/// Whether a value is one that we leave out when writing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
        _ => false,
    }
}
