//! Reads a Prometheus page: text format 0.0.4 and OpenMetrics 1.0.
//!
//! A page of an engine has hundreds of samples of which a handful is wanted, and it is read many times a second. So the
//! name of a line is looked at first, and only a wanted line is read further. Nothing is copied: a sample borrows from
//! the page, and labels are read when they are asked for. A line that makes no sense is skipped; it never hides the
//! next one.

use std::borrow::Cow;

use memchr::memchr;

/// One sample of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'p> {
    /// The metric's name, colons included.
    pub name: &'p [u8],
    /// The value; NaN and infinities are values.
    pub value: f64,
    /// The timestamp as written, if there is one.
    pub timestamp: Option<f64>,
    labels: &'p [u8],
}

impl<'p> Sample<'p> {
    /// A label's value, unescaped.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<Cow<'p, [u8]>> {
        self.labels()
            .find(|(n, _)| *n == name.as_bytes())
            .map(|(_, value)| unescape(value))
    }

    /// All labels in order: names, and values as they are escaped on the page.
    pub fn labels(&self) -> impl Iterator<Item = (&'p [u8], &'p [u8])> {
        let mut rest = self.labels;
        std::iter::from_fn(move || {
            let (name, value, after) = label(rest)?;
            rest = after;
            Some((name, value))
        })
    }
}

/// The wanted samples of a page, in order.
#[derive(Debug)]
pub struct Scanner<'p, W> {
    rest: &'p [u8],
    wanted: W,
}

impl<'p, W: FnMut(&[u8]) -> bool> Scanner<'p, W> {
    /// Reads `page`, but only samples whose name is `wanted`.
    pub fn new(page: &'p [u8], wanted: W) -> Self {
        Self { rest: page, wanted }
    }
}

impl<'p, W: FnMut(&[u8]) -> bool> Iterator for Scanner<'p, W> {
    type Item = Sample<'p>;

    fn next(&mut self) -> Option<Sample<'p>> {
        while !self.rest.is_empty() {
            let end = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let line = self.rest[..end].trim_ascii();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if line == b"# EOF" {
                self.rest = &[];
            } else if let Some(sample) = sample(line, &mut self.wanted) {
                return Some(sample);
            }
        }
        None
    }
}

/// Reads a line: `name[{labels}] value [timestamp] [# exemplar]`.
fn sample<'p>(line: &'p [u8], wanted: &mut impl FnMut(&[u8]) -> bool) -> Option<Sample<'p>> {
    let name_end = line.iter().position(|b| matches!(b, b'{' | b' ' | b'\t'))?;
    let (name, rest) = line.split_at(name_end);
    if !name
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b':'))
        || !wanted(name)
    {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let (labels, rest) = match rest.strip_prefix(b"{") {
        Some(rest) => {
            let end = labels_end(rest)?;
            (&rest[..end], &rest[end + 1..])
        }
        None => (&rest[..0], rest),
    };
    let mut words = rest
        .split(|b| matches!(b, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    let value = number(words.next()?)?;
    let timestamp = words
        .next()
        .filter(|word| !word.starts_with(b"#"))
        .map(number);
    // Something in the timestamp's place that is none: the line is not what it seems.
    let timestamp = match timestamp {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Sample {
        name,
        value,
        timestamp,
        labels,
    })
}

fn number(word: &[u8]) -> Option<f64> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// Where the label set's closing brace is: the first one outside quotes.
fn labels_end(text: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.iter().position(|&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' => return !quoted,
            _ => {}
        }
        false
    })
}

/// Reads `name="value"` and the comma after it.
fn label(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let equals = memchr(b'=', text)?;
    let name = text[..equals].trim_ascii();
    let value = text[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = value.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    let after = value[end + 1..].trim_ascii_start();
    let after = after.strip_prefix(b",").unwrap_or(after);
    (!name.is_empty()).then_some((name, &value[..end], after))
}

/// `\\`, `\"` and `\n`; any other backslash stands for itself.
fn unescape(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let replaced = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'\\')) => Some(b'\\'),
            (b'\\', Some(b'"')) => Some(b'"'),
            _ => None,
        };
        if replaced.is_some() {
            bytes.next();
        }
        out.push(replaced.unwrap_or(byte));
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
