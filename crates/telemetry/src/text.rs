//! The text exposition format 0.0.4, made out of OpenMetrics 1.0.
//!
//! The two differ in little: OpenMetrics names a counter's family without `_total` in HELP and TYPE lines, has UNIT
//! lines, exemplars after ` # `, and ends with `# EOF`. In 0.0.4 the family of a counter has the name of its samples.

/// Translates a page.
pub(crate) fn from_openmetrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + 1024);
    let mut help: Option<&str> = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().and_then(|h| h.split_once(' ')) {
                push(&mut out, &["# HELP ", name, suffix, " ", words, "\n"]);
            }
            push(&mut out, &["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            push(&mut out, &[without_exemplar(line), "\n"]);
        }
    }
    out
}

fn push(out: &mut String, pieces: &[&str]) {
    pieces.iter().for_each(|piece| out.push_str(piece));
}

/// Cuts an exemplar off. A label value may hold ` # {` too, so only what follows the label set is searched.
fn without_exemplar(line: &str) -> &str {
    let labels_end = labels_end(line.as_bytes());
    match line.get(labels_end..).and_then(|rest| rest.find(" # ")) {
        Some(at) => &line[..labels_end + at],
        None => line,
    }
}

/// Where the label set ends: behind its closing brace, which is the first one outside quotes.
fn labels_end(line: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return at + 1,
            b' ' if !quoted => return at,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_get_their_suffix_in_the_type_line_and_the_end_mark_goes() {
        let page = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b Other.\n# TYPE b gauge\n# UNIT b seconds\n\
                    b{x=\"1 # {\"} 2 # {trace_id=\"q\"} 2.0\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b Other.\n# TYPE b gauge\n\
                    b{x=\"1 # {\"} 2\n";
        assert_eq!(from_openmetrics(page), text);
    }

    #[test]
    fn escapes_and_braces_in_labels_stay() {
        let line = r#"a{x="\"} # {",y="\\"} 1"#;
        assert_eq!(without_exemplar(line), line);
        assert_eq!(without_exemplar(&format!("{line} # {{t=\"1\"}} 1")), line);
    }
}
