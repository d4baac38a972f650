//! `/v1/audio/transcriptions`: a form with a file.
//!
//! The clip is taken as 16 kHz, 16-bit, mono, whatever it is; its length in tenths of seconds is its prompt.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use simulator::BlockHash;
use xxhash_rust::xxh3::xxh3_64;

use super::{Answer, json_answer};
use crate::error::ApiError;
use crate::generation::{Generation, Job};
use crate::plan::Sampling;
use crate::state::State;

const BYTES_A_SECOND: usize = 32_000;
const BYTES_A_TOKEN: usize = BYTES_A_SECOND / 10;
const LONGEST_TOKENS: usize = 1_500;

/// The parts of a form: name and content.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<(String, &'a [u8])> {
    let mark = format!("--{boundary}");
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(start) = position(rest, mark.as_bytes()) {
        let part = &rest[start + mark.len()..];
        let Some(part) = part.strip_prefix(b"\r\n") else {
            break;
        };
        let Some(head_end) = position(part, b"\r\n\r\n") else {
            break;
        };
        let content = &part[head_end + 4..];
        let Some(end) = position(content, format!("\r\n{mark}").as_bytes()) else {
            break;
        };
        if let Some(name) = field_name(&part[..head_end]) {
            found.push((name, &content[..end]));
        }
        rest = &content[end..];
    }
    found
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn field_name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let line = head.lines().find(|line| {
        line.to_ascii_lowercase()
            .starts_with("content-disposition:")
    })?;
    let name = line
        .split(';')
        .find_map(|part| part.trim().strip_prefix("name="))?;
    Some(name.trim_matches('"').to_owned())
}

fn boundary(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.strip_prefix("multipart/form-data")?;
    let boundary = kind
        .split(';')
        .find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"'))
}

pub(super) async fn transcriptions(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Answer {
    let boundary =
        boundary(headers).ok_or_else(|| ApiError::bad_request("expected a multipart form"))?;
    let form = parts(body, boundary);
    let field = |name: &str| {
        form.iter()
            .find(|(known, _)| known == name)
            .map(|(_, content)| *content)
    };
    let file = field("file").ok_or_else(|| ApiError::missing("file"))?;
    let model = field("model")
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| !name.is_empty());
    let model = model.unwrap_or_else(|| state.options.base_names()[0].clone());
    let target = state.resolve(&model)?;
    let sampling = Sampling {
        max_tokens: Some((file.len() / BYTES_A_TOKEN / 4).clamp(1, 448) as u32),
        ..Sampling::default()
    };
    let job = Job {
        model,
        target,
        prompts: vec![clip_tokens(file)],
        n: 1,
        sampling: Some(sampling),
        cache_salt: None,
        priority: 0,
    };
    let mut generation = Generation::start(state, job)?;
    super::generate::wait(&mut generation).await?;
    let seconds = file.len().div_ceil(BYTES_A_SECOND);
    let text = generation.choices[0].text();
    if field("response_format") == Some(b"text") {
        return Ok(super::bytes_answer(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            Bytes::from(text.to_owned()),
        ));
    }
    let value: Value = json!({"text": text, "usage": {"type": "duration", "seconds": seconds}});
    Ok(json_answer(StatusCode::OK, &value))
}

fn clip_tokens(file: &[u8]) -> Vec<u32> {
    let content = BlockHash(xxh3_64(file));
    let count = file.len().div_ceil(BYTES_A_TOKEN).clamp(1, LONGEST_TOKENS);
    (0..count as u32)
        .map(|i| (content.child(&[i]).0 & 0x7fff_ffff) as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_come_apart() {
        let body = b"--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n--xx\r\ncontent-disposition: \
            form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\x00\r\n\x01\r\n--xx--\r\n";
        let parts = parts(body, "xx");
        assert_eq!(
            parts,
            [
                ("model".to_owned(), b"tiny".as_slice()),
                ("file".to_owned(), b"\x00\r\n\x01".as_slice())
            ]
        );
    }

    #[test]
    fn broken_forms_have_no_parts() {
        for body in [
            b"".as_slice(),
            b"--xx",
            b"--xx\r\nname",
            b"--xx--\r\n",
            b"--xx\r\na: b\r\n\r\nno end",
        ] {
            assert!(parts(body, "xx").is_empty());
        }
    }
}
