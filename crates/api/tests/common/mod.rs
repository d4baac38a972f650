//! Tables of objects that break one rule each.

use api::{Object, decode_yaml, validate};

/// Decodes `spec` (or top-level fields, when it does not begin with `spec`) as an object of this kind.
fn object(api_version: &str, kind: &str, body: &str) -> Object {
    let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n{body}\n");
    decode_yaml(&text)
        .remove(0)
        .result
        .unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// Each body must break exactly one rule, at this field, with this in the message. An empty field means: valid.
pub(crate) fn check_table(api_version: &str, kind: &str, table: &[(&str, &str, &str)]) {
    for (body, field, part) in table {
        let issues = validate(&object(api_version, kind, body));
        if field.is_empty() {
            assert_eq!(issues, [], "{body}");
            continue;
        }
        let [issue] = issues.as_slice() else {
            panic!("{body}\n{issues:#?}")
        };
        assert_eq!(issue.path, *field, "{body}\n{issue}");
        assert!(issue.to_string().contains(part), "{body}\n{issue}");
    }
}
