use proptest::prelude::*;

use super::*;

/// Reads a whole document without keeping anything.
fn check(text: &[u8]) -> Result<()> {
    let mut reader = Reader::new(text)?;
    reader.skip()?;
    reader.end()
}

#[test]
fn errors_name_the_byte() {
    let cases: &[(&[u8], usize)] = &[
        (b"", 0),
        (b"   ", 3),
        (b"{", 1),
        (b"{\"a\"", 4),
        (b"{\"a\":", 5),
        (b"{\"a\":1", 6),
        (b"{\"a\":1,}", 7),
        (b"{\"a\" 1}", 5),
        (b"{a:1}", 1),
        (b"{'a':1}", 1),
        (b"[1,]", 3),
        (b"[1 2]", 3),
        (b"[", 1),
        (b"01", 1),
        (b"1.", 2),
        (b".5", 0),
        (b"+1", 0),
        (b"-", 1),
        (b"1e", 2),
        (b"1e+", 3),
        (b"NaN", 0),
        (b"[NaN]", 1),
        (b"[Infinity]", 1),
        (b"[-Infinity]", 2),
        (b"tru", 0),
        (b"nullx", 4),
        (b"{} x", 3),
        (b"{}{}", 2),
        (b"\"abc", 4),
        (b"\"a\nb\"", 2),
        (b"\"a\x00b\"", 2),
        (b"\"a\x1fb\"", 2),
        (b"\"0123456789012345678901234567890123456789\tx\"", 41),
        (b"\"a\\x\"", 2),
        (b"\"a\\", 2),
        (b"\"\\u12g4\"", 1),
        (b"\"\\u12", 1),
        (b"\"\xff\"", 1),
        (b"[\"ok\",\"\xc3\"]", 7),
        (b"\xef\xbb\xbf{}", 0),
        (b"// c\n{}", 0),
    ];
    for (text, at) in cases {
        let error = check(text).expect_err(&String::from_utf8_lossy(text));
        assert_eq!(
            error.at(),
            *at,
            "{} in {}",
            error,
            String::from_utf8_lossy(text)
        );
        assert!(error.message().ends_with(&format!("at byte {at}")));
    }
}

#[test]
fn what_others_would_refuse_is_json_all_the_same() {
    for text in [
        "1e999",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        "-0",
        "1E+2",
        "\"\u{7f}\"",
        "123456789012345678901234567890",
    ] {
        assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
    }
}

#[test]
fn nesting_ends_in_an_error() {
    let nest = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(check(&nest(MAX_DEPTH)), Ok(()));
    assert_eq!(
        check(&nest(MAX_DEPTH + 1)),
        Err(RequestError::TooDeep {
            at: MAX_DEPTH,
            limit: MAX_DEPTH
        })
    );
    assert_eq!(
        check(&vec![b'['; 10_000_000]).map_err(|e| e.code()),
        Err("json_too_deep")
    );
    let objects = br#"{"a":"#.repeat(100_000);
    assert_eq!(check(&objects).map_err(|e| e.code()), Err("json_too_deep"));
}

#[test]
fn escapes_are_undone() {
    let cases = [
        (r#""""#, ""),
        (r#""plain""#, "plain"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""a\u0041b""#, "aAb"),
        (r#""\u00e9\u20AC""#, "\u{e9}\u{20ac}"),
        (r#""\ud83d\ude00!""#, "\u{1f600}!"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ude00""#, "\u{fffd}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
    ];
    for (raw, wanted) in cases {
        let text = Reader::new(raw.as_bytes())
            .and_then(|mut r| r.string())
            .expect(raw);
        assert_eq!(text.to_cow(), wanted, "{raw}");
        assert_eq!(
            text.to_strict().is_some(),
            !wanted.contains('\u{fffd}'),
            "{raw}"
        );
        assert_eq!(
            matches!(text.to_cow(), Cow::Borrowed(_)),
            !raw.contains('\\'),
            "{raw}"
        );
    }
}

proptest! {
    /// Any text near JSON is judged as serde_json judges it.
    #[test]
    fn agrees_with_serde_json(text in r#"([\[\]{}:,"\\ \n0-9eE.+-]|true|null|u00e9|"a":|"b"|\{\}|\[\]){0,40}"#) {
        let theirs: std::result::Result<&serde_json::value::RawValue, _> = serde_json::from_str(&text);
        prop_assert_eq!(check(text.as_bytes()).is_ok(), theirs.is_ok(), "{}", text);
    }

    /// Strings come back as they went in, however long and whatever they hold.
    #[test]
    fn strings_survive(text in any::<String>(), pad in 0..80_usize) {
        let text = format!("{}{text}", "x".repeat(pad));
        let json = serde_json::to_string(&text).expect("a string");
        let read = Reader::new(json.as_bytes()).and_then(|mut r| r.string()).expect("valid");
        prop_assert_eq!(read.to_cow(), text);
    }

    /// A byte changed anywhere never makes the two disagree.
    #[test]
    fn agrees_on_damaged_bodies(at in 0..90_usize, byte in any::<u8>()) {
        let mut body = br#"{"model":"a\u00e9","n":[1,-2.5e3,true,null],"messages":[{"role":"user","content":"h\ni"}]}"#.to_vec();
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        let theirs: std::result::Result<&serde_json::value::RawValue, _> = serde_json::from_slice(&body);
        prop_assert_eq!(check(&body).is_ok(), theirs.is_ok(), "{}", String::from_utf8_lossy(&body));
    }
}
