//! Header changes.

use http::StatusCode;

use super::*;
use crate::client::{apply_to_answer, apply_to_request};
use crate::proto::core::header_value_option::HeaderAppendAction as Action;

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "a.test"),
        ("x-a", "1"),
        ("x-b", "2"),
        ("content-length", "5"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    headers
}

/// The headers of a request after a change, and how many changes were not made.
fn changed(mutation: &HeaderMutation) -> (String, u64) {
    let mut headers = headers();
    let changes = apply_to_request([mutation], &mut headers);
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    (lines.join(" "), changes.ignored)
}

fn option(name: &str, value: &str, action: Action, append: Option<bool>) -> HeaderMutation {
    let mut option = set(name, value);
    option.append_action = action as i32;
    option.append = append;
    HeaderMutation {
        set_headers: vec![option],
        remove_headers: Vec::new(),
    }
}

#[test]
fn an_unset_action_overwrites_and_the_others_do_as_they_say() {
    use Action::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd};
    let rest = "content-length=5 host=a.test";
    let table = [
        (
            option("x-a", "9", AppendIfExistsOrAdd, None),
            format!("{rest} x-a=9 x-b=2"),
        ),
        (
            option("x-a", "9", AppendIfExistsOrAdd, Some(true)),
            format!("{rest} x-a=1 x-a=9 x-b=2"),
        ),
        (
            option("x-a", "9", AppendIfExistsOrAdd, Some(false)),
            format!("{rest} x-a=9 x-b=2"),
        ),
        (
            option("x-a", "9", AddIfAbsent, None),
            format!("{rest} x-a=1 x-b=2"),
        ),
        (
            option("x-c", "9", AddIfAbsent, None),
            format!("{rest} x-a=1 x-b=2 x-c=9"),
        ),
        (
            option("x-a", "9", OverwriteIfExistsOrAdd, None),
            format!("{rest} x-a=9 x-b=2"),
        ),
        (
            option("x-c", "9", OverwriteIfExists, None),
            format!("{rest} x-a=1 x-b=2"),
        ),
        (
            option("X-A", "9", OverwriteIfExists, None),
            format!("{rest} x-a=9 x-b=2"),
        ),
        (
            option("x-a", "", OverwriteIfExistsOrAdd, None),
            format!("{rest} x-a=1 x-b=2"),
        ),
    ];
    for (mutation, expected) in table {
        assert_eq!(changed(&mutation), (expected, 0), "{mutation:?}");
    }
}

#[test]
fn removals_come_first() {
    let mutation = HeaderMutation {
        set_headers: vec![set("x-a", "9")],
        remove_headers: vec!["X-A".to_owned(), "x-b".to_owned()],
    };
    assert_eq!(changed(&mutation).0, "content-length=5 host=a.test x-a=9");
}

#[test]
fn what_is_not_a_pickers_business_is_counted_and_left() {
    for (name, value, ignored) in [
        ("host", "b.test", 1),
        ("host", "a.test", 0),
        (":method", "GET", 1),
        (":authority", "b.test", 1),
        (":status", "200", 1),
        ("connection", "close", 1),
        ("transfer-encoding", "chunked", 1),
        ("te", "trailers", 1),
        ("x-request-id", "other", 1),
        ("bad name", "x", 1),
        ("x-a", "line\nbreak", 1),
        (":path", "no-slash", 1),
        ("content-length", "7", 0),
        (DESTINATION, SERVER, 0),
    ] {
        let before = changed(&HeaderMutation::default()).0;
        let mutation = mutation(&[(name, value)]);
        assert_eq!(changed(&mutation), (before, ignored), "{name}");
    }
    let removal = |name: &str| HeaderMutation {
        set_headers: Vec::new(),
        remove_headers: vec![name.to_owned()],
    };
    for (name, ignored) in [
        ("host", 1),
        (":path", 1),
        ("content-length", 0),
        ("x-none", 0),
    ] {
        assert_eq!(changed(&removal(name)).1, ignored, "{name}");
    }
}

#[test]
fn path_and_status_may_change() {
    let changes = apply_to_request([&mutation(&[(":path", "/other?x=1")])], &mut headers());
    assert_eq!(changes.path.unwrap(), "/other?x=1");
    let changes = apply_to_answer([&mutation(&[(":status", "418")])], &mut headers());
    assert_eq!(changes.status, StatusCode::from_u16(418).ok());
    for bad in ["100", "99", "600", "x"] {
        let changes = apply_to_answer([&mutation(&[(":status", bad)])], &mut headers());
        assert_eq!((changes.status, changes.ignored), (None, 1), "{bad}");
    }
}
