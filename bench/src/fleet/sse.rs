//! Reads a streamed chat completion: when the first content came, what usage the server reported, whether the end
//! mark was there.
//!
//! Only lines that can matter are parsed as JSON: those up to the first content, and those that carry usage or an
//! error. The rest is looked through, so that a thousand tokens a second cost the load generator little.

use memchr::{memchr, memmem};
use serde::Deserialize;

use crate::Error;

/// The usage object at the end of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: u32,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl Usage {
    /// Prompt tokens that came from the prefix cache; none where the server does not say.
    #[must_use]
    pub fn cached_tokens(&self) -> u32 {
        self.prompt_tokens_details
            .and_then(|d| d.cached_tokens)
            .unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

/// A stream that is being read.
#[derive(Default)]
pub struct Scanner {
    partial: Vec<u8>,
    content: bool,
    done: bool,
    usage: Option<Usage>,
}

impl Scanner {
    /// Takes the next piece of the body; true once content has come.
    ///
    /// # Errors
    /// An event that is not JSON where it must be, or that carries an error.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<bool, Error> {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end);
            piece = &rest[1..];
            if self.partial.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
        }
        self.partial.extend_from_slice(piece);
        Ok(self.content)
    }

    /// The usage of a stream that has ended.
    ///
    /// # Errors
    /// When the end mark, content or usage did not come.
    pub fn finish(self) -> Result<Usage, Error> {
        if !self.done {
            return Err(Error::Closed("a stream"));
        }
        if !self.content {
            return Err(Error::Reply("a stream without content"));
        }
        self.usage.ok_or(Error::Reply("a stream without usage"))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(());
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let told = |key: &[u8]| memmem::find(data, key).is_some();
        if self.content && !told(b"\"usage\":{") && !told(b"\"error\"") {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data)?;
        if let Some(error) = chunk.error {
            return Err(Error::io("an event of a stream")(std::io::Error::other(
                error.to_string(),
            )));
        }
        let filled = |c: &Choice| {
            c.delta
                .content
                .as_ref()
                .is_some_and(|text| !text.is_empty())
        };
        self.content |= chunk.choices.iter().any(filled);
        self.usage = chunk.usage.or(self.usage);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str =
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\
                         \"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn read(text: &str, step: usize) -> Result<(Option<usize>, Usage), Error> {
        let mut scanner = Scanner::default();
        let mut first = None;
        for (i, piece) in text.as_bytes().chunks(step).enumerate() {
            if scanner.feed(piece)? && first.is_none() {
                first = Some(i);
            }
        }
        Ok((first, scanner.finish()?))
    }

    #[test]
    fn content_and_usage_are_found_however_the_stream_is_cut() {
        let text = [ROLE, ": a comment\n", TOKEN, TOKEN, USAGE, DONE].concat();
        let content_by = text.find("\"a\"").unwrap();
        for step in 1..text.len() {
            let (first, usage) = read(&text, step).unwrap();
            assert_eq!((usage.prompt_tokens, usage.cached_tokens()), (9, 8));
            let first = first.unwrap();
            assert!((first + 1) * step > content_by, "{step}: {first}");
        }
    }

    #[test]
    fn the_role_alone_is_no_content() {
        let mut scanner = Scanner::default();
        assert!(!scanner.feed(ROLE.as_bytes()).unwrap());
        assert!(scanner.feed(TOKEN.as_bytes()).unwrap());
    }

    #[test]
    fn a_stream_that_lacks_something_is_an_error() {
        let error = "data: {\"error\":{\"message\":\"out of steam\"}}\n\n";
        for (pieces, says) in [
            (&[TOKEN, USAGE][..], "closed"),
            (&[ROLE, USAGE, DONE], "without content"),
            (&[TOKEN, DONE], "without usage"),
            (&[TOKEN, error, DONE], "out of steam"),
            (&["data: {\n\n", DONE], "json"),
        ] {
            let told = read(&pieces.concat(), 1000).unwrap_err().to_string();
            assert!(told.contains(says), "{told}");
        }
    }
}
