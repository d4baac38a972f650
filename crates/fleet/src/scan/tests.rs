use proptest::prelude::*;

use super::*;

fn all(page: &str) -> Vec<Sample<'_>> {
    Scanner::new(page.as_bytes(), |_| true).collect()
}

fn text(sample: &Sample<'_>, label: &str) -> Option<String> {
    sample
        .label(label)
        .map(|value| String::from_utf8(value.into_owned()).unwrap())
}

#[test]
fn good_lines() {
    let table: [(&str, &str, f64, Option<f64>); 14] = [
        ("a 1", "a", 1.0, None),
        (
            "vllm:num_requests_waiting{engine=\"0\"} 3.0",
            "vllm:num_requests_waiting",
            3.0,
            None,
        ),
        ("a{} 2", "a", 2.0, None),
        ("a{b=\"}\"} 2", "a", 2.0, None),
        ("a{b=\"\\\"} 9\"} 2", "a", 2.0, None),
        ("a{b=\"x\",} 2", "a", 2.0, None),
        ("a {b=\"x\"} 2", "a", 2.0, None),
        (
            "a\t1e3 1395066363000",
            "a",
            1000.0,
            Some(1_395_066_363_000.0),
        ),
        ("  a   -0.5   12.25  ", "a", -0.5, Some(12.25)),
        ("a +Inf", "a", f64::INFINITY, None),
        ("a -Inf", "a", f64::NEG_INFINITY, None),
        (
            "a_bucket{le=\"1\"} 17 # {trace_id=\"oHg5\"} 0.67",
            "a_bucket",
            17.0,
            None,
        ),
        (
            "a_bucket{le=\"1\"} 17 5.5 # {} 0.67 1.0",
            "a_bucket",
            17.0,
            Some(5.5),
        ),
        ("a 1\r", "a", 1.0, None),
    ];
    for (line, name, value, timestamp) in table {
        let samples = all(line);
        let [sample] = samples.as_slice() else {
            panic!("{line}: {samples:?}")
        };
        assert_eq!(
            (sample.name, sample.value, sample.timestamp),
            (name.as_bytes(), value, timestamp),
            "{line}"
        );
    }
    assert!(all("a NaN")[0].value.is_nan());
}

#[test]
fn bad_lines_are_skipped_and_hide_nothing() {
    let bad = [
        "",
        " ",
        "a",
        "a ",
        "a{",
        "a{}",
        "a{b=\"c} 1",
        "a{b=\"c\"",
        "a{b=\"c\\\"} 1",
        "a one",
        "a 1 two",
        "a{b=\"c\"}",
        "{b=\"c\"} 1",
        "1a 1",
        "# a 1",
        "# HELP a b",
        "<html> 1",
        "a \u{ff11}",
    ];
    for line in bad {
        let page = format!("{line}\nlast 7");
        let samples = all(&page);
        assert_eq!(samples.len(), 1, "{line:?}: {samples:?}");
        assert_eq!(
            (samples[0].name, samples[0].value),
            (b"last".as_slice(), 7.0),
            "{line:?}"
        );
    }
    assert_eq!(all("a 1\n# EOF\nb 2").len(), 1);
}

#[test]
fn labels_are_read_and_unescaped() {
    let samples = all(r#"a{ one = "1" , two="a\\b\"c\nd\x", three="",four="{,}" } 1"#);
    let sample = &samples[0];
    assert_eq!(text(sample, "one").as_deref(), Some("1"));
    assert_eq!(text(sample, "two").as_deref(), Some("a\\b\"c\nd\\x"));
    assert_eq!(text(sample, "three").as_deref(), Some(""));
    assert_eq!(text(sample, "four").as_deref(), Some("{,}"));
    assert_eq!(text(sample, "five"), None);
    for broken in ["a{b} 1", "a{b=1} 1", "a{=\"1\"} 1", "a{,} 1"] {
        assert_eq!(all(broken)[0].labels().count(), 0, "{broken}");
    }
}

#[test]
fn only_wanted_names_are_read() {
    let page = b"a 1\nab 2\nb{c=\"d\"} 3\n";
    let names: Vec<_> = Scanner::new(page, |name| name != b"a")
        .map(|sample| sample.name)
        .collect();
    assert_eq!(names, [b"ab".as_slice(), b"b"]);
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

proptest! {
    #[test]
    fn never_panics(page in proptest::collection::vec(any::<u8>(), 0..400)) {
        for sample in Scanner::new(&page, |_| true) {
            let _ = sample.label("a");
            prop_assert!(sample.labels().count() <= page.len());
        }
    }

    #[test]
    fn never_panics_on_nearly_good_pages(page in "([a-z:]{0,3}(\\{([a-z]{1,2}=\"[a-z\\\\\"}]{0,4}\",?){0,2}\\}?)? [0-9.NaInf+-]{0,4}( #)?\n?){0,8}") {
        for sample in Scanner::new(page.as_bytes(), |_| true) {
            let _ = sample.labels().count();
        }
    }

    #[test]
    fn what_is_written_is_read(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,12}",
        labels in proptest::collection::vec(("[a-z][a-z0-9_]{0,5}", ".{0,12}"), 0..4),
        value in any::<f64>().prop_filter("NaN is not equal to itself", |v| !v.is_nan()),
        timestamp in proptest::option::of(0_u32..),
    ) {
        let written: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
        let at = timestamp.map_or_else(String::new, |t| format!(" {t}"));
        let page = format!("# TYPE x gauge\n{name}{{{}}} {value}{at}\n", written.join(","));
        let samples = all(&page);
        prop_assert_eq!(samples.len(), 1);
        let sample = samples[0];
        prop_assert_eq!(sample.name, name.as_bytes());
        prop_assert_eq!(sample.value, value);
        prop_assert_eq!(sample.timestamp, timestamp.map(f64::from));
        for (n, _) in &labels {
            let first = labels.iter().find(|(m, _)| m == n).map(|(_, v)| v.clone());
            prop_assert_eq!(text(&sample, n), first);
        }
    }
}
