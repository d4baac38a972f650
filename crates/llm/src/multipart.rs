//! Multipart forms (RFC 7578), as the audio dialects use them, read in place.
//!
//! Fields may come in any order, so the file is often in front of the model: it is stepped over by a search for the
//! boundary and never copied.

use memchr::memmem::Finder;

use crate::prompt::{Media, Payload, Segment};
use crate::request::{ModelField, RequestView, number, reserved, truthy};
use crate::{Dialect, RequestError};

type Result<T> = std::result::Result<T, RequestError>;

/// Longest head of one part.
const MAX_HEAD: usize = 16 * 1024;

/// Reads a form as a request of `dialect`.
pub(crate) fn read<'a>(
    dialect: Dialect,
    content_type: Option<&str>,
    body: &'a [u8],
) -> Result<RequestView<'a>> {
    let Some(boundary) = content_type.and_then(boundary) else {
        return Err(RequestError::NotMultipart {
            at: 0,
            what: "the content type names no boundary",
        });
    };
    let mut view = RequestView::empty(dialect);
    each_part(&boundary, body, |part| take(&mut view, &part))?;
    Ok(view)
}

/// One part of a form.
struct Part<'a> {
    name: String,
    is_file: bool,
    value: &'a [u8],
    at: usize,
}

fn take<'a>(view: &mut RequestView<'a>, part: &Part<'a>) -> Result<()> {
    if part.is_file || part.name == "file" {
        view.prompt
            .turns
            .push(Segment::Media(Media::Audio, Payload::Bytes(part.value)));
        return Ok(());
    }
    let text = std::str::from_utf8(part.value);
    match (part.name.as_str(), text) {
        ("model", _) if view.model.is_some() => {
            return Err(RequestError::ModelTwice { at: part.at });
        }
        ("model", Err(_)) => return Err(RequestError::ModelNotAString { at: part.at }),
        ("model", Ok(name)) => {
            view.model = Some(ModelField {
                name: name.into(),
                span: part.at..part.at + part.value.len(),
            });
        }
        ("stream", Ok(value)) => view.stream = truthy(value),
        ("stream_include_usage", Ok(value)) => view.include_usage = truthy(value),
        ("max_completion_tokens", Ok(value)) => view.max_tokens = number(value),
        (name, _) => {
            if let Some(field) = reserved(name) {
                view.reserved_field.get_or_insert(field);
            }
        }
    }
    Ok(())
}

/// The `boundary` parameter of a `multipart/form-data` content type.
fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(parameters, "boundary")
        .filter(|boundary| !boundary.is_empty() && boundary.len() <= 200)
}

/// The value of one parameter of a header, without its quotes.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let (value, left) = parameter_value(after);
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = left;
    }
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// Calls `take` for each part between the boundaries.
fn each_part<'a>(
    boundary: &str,
    body: &'a [u8],
    mut take: impl FnMut(Part<'a>) -> Result<()>,
) -> Result<()> {
    let fail = |at, what| Err(RequestError::NotMultipart { at, what });
    let delimiter = format!("\r\n--{boundary}");
    let finder = Finder::new(&delimiter);
    let opening = delimiter.as_bytes().get(2..).unwrap_or_default();
    let mut at = if body.starts_with(opening) {
        opening.len()
    } else if let Some(preamble) = finder.find(body) {
        preamble + delimiter.len()
    } else {
        return fail(0, "no boundary found");
    };
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(());
        }
        let Some(head_start) = line_end(rest) else {
            return fail(at, "expected a line end after the boundary");
        };
        at += head_start;
        let head_and_value = body.get(at..).unwrap_or_default();
        let Some((head, value_start)) = head(head_and_value) else {
            return fail(at, "a part has no end of its head");
        };
        at += value_start;
        let rest = body.get(at..).unwrap_or_default();
        let Some(length) = finder.find(rest) else {
            return fail(at, "a part has no closing boundary");
        };
        let value = rest.get(..length).unwrap_or_default();
        if let Some(part) = named(head, value, at) {
            take(part)?;
        }
        at += length + delimiter.len();
    }
}

/// Bytes up to and including the line end that follows a boundary, which only white space may precede.
fn line_end(after: &[u8]) -> Option<usize> {
    let blanks = after
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    after
        .get(blanks..)?
        .starts_with(b"\r\n")
        .then_some(blanks + 2)
}

/// A part's head, and where its value starts.
fn head(part: &[u8]) -> Option<(&[u8], usize)> {
    if part.starts_with(b"\r\n") {
        return Some((b"", 2));
    }
    let window = part.get(..part.len().min(MAX_HEAD))?;
    let length = memchr::memmem::find(window, b"\r\n\r\n")?;
    Some((part.get(..length)?, length + 4))
}

/// The part with the name that its `Content-Disposition` gives; `None` without one.
fn named<'a>(head: &[u8], value: &'a [u8], at: usize) -> Option<Part<'a>> {
    let head = String::from_utf8_lossy(head);
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    })?;
    let (_, parameters) = disposition.split_once(';')?;
    let is_file = parameter(parameters, "filename")
        .or_else(|| parameter(parameters, "filename*"))
        .is_some();
    Some(Part {
        name: parameter(parameters, "name")?,
        is_file,
        value,
        at,
    })
}

#[cfg(test)]
mod tests;
