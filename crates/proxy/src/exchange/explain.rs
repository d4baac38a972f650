//! `x-pointsman-endpoint` and `x-pointsman-decision`: why a request went where it went, for those who asked and may
//! know.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::Exchange;

const ENDPOINT: HeaderName = HeaderName::from_static("x-pointsman-endpoint");
const DECISION: HeaderName = HeaderName::from_static("x-pointsman-decision");

/// Longest decision put in a header, in bytes; many clients stop at 8 KiB for all headers together.
const LONGEST: usize = 4096;

/// Adds the headers if the request asked for them.
pub(crate) fn add(exchange: &Exchange, headers: &mut HeaderMap) {
    if !exchange.explain {
        return;
    }
    if let Some(value) = exchange
        .endpoint
        .as_ref()
        .and_then(|endpoint| HeaderValue::try_from(endpoint.name()).ok())
    {
        headers.insert(ENDPOINT, value);
    }
    let decision = exchange.lease.as_ref().and_then(fleet::Lease::explanation);
    let Some(mut json) = decision.and_then(|decision| serde_json::to_value(decision).ok()) else {
        return;
    };
    shorten(&mut json);
    if let Ok(value) = HeaderValue::try_from(ascii(&json.to_string())) {
        headers.insert(DECISION, value);
    }
}

/// Leaves out the last candidates until the rest fits.
fn shorten(json: &mut serde_json::Value) {
    while json.to_string().len() > LONGEST {
        let Some(longest) = longest_list(json) else {
            *json = serde_json::json!({"truncated": true});
            return;
        };
        let half = longest.len() / 2;
        longest.truncate(half);
        json["truncated"] = true.into();
    }
}

/// The longest list that is not empty, looking into objects.
fn longest_list(json: &mut serde_json::Value) -> Option<&mut Vec<serde_json::Value>> {
    match json {
        serde_json::Value::Array(list) => (!list.is_empty()).then_some(list),
        serde_json::Value::Object(fields) => fields
            .values_mut()
            .filter_map(longest_list)
            .max_by_key(|list| list.len()),
        _ => None,
    }
}

/// Escapes what is not ASCII: headers have no other letters that everybody reads alike.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_decision_loses_its_last_candidates() {
        let names: Vec<String> = (0..500).map(|n| format!("endpoint-{n}")).collect();
        let mut json = serde_json::json!({"winner": 3, "explanation": {"candidates": names}});
        shorten(&mut json);
        assert!(json.to_string().len() <= LONGEST);
        assert_eq!(json["explanation"]["candidates"][0], "endpoint-0");
        assert_eq!(json["truncated"], true);
        let mut text = serde_json::json!({"reason": "x".repeat(5000)});
        shorten(&mut text);
        assert_eq!(text, serde_json::json!({"truncated": true}));
    }

    #[test]
    fn other_letters_are_escaped_as_json_does() {
        let escaped = ascii("{\"a\":\"é😀\"}");
        assert!(escaped.is_ascii());
        let read: serde_json::Value = serde_json::from_str(&escaped).expect("JSON");
        assert_eq!(read["a"], "é😀");
    }
}
