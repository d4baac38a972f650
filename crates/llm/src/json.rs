//! A pull reader for JSON that somebody else will read again.
//!
//! The body is forwarded byte for byte, so the gateway needs to know only three things: that the whole document is
//! JSON (RFC 8259, in UTF-8, nested at most [`MAX_DEPTH`] deep), where a few values stand, and what they say. A
//! general deserialiser answers the first question with an error at a line and column, refuses some documents that
//! servers take (lone surrogates, `1e999`) and allocates for every string with an escape. This reader walks the
//! bytes once, hands out slices of them and unescapes only on request.
//!
//! The callers drive it: [`Reader::object`] and [`Reader::array`] call back once per member with the reader in front
//! of the value, and the callback consumes exactly that value, if only with [`Reader::skip`].

use std::borrow::Cow;

use crate::RequestError;

/// Deeper nesting than this is refused. Python's reader, which most servers use, gives up at about a thousand, Rust's
/// serde_json at 128; no tool schema comes near either.
pub(crate) const MAX_DEPTH: usize = 128;

type Result<T> = std::result::Result<T, RequestError>;

/// A JSON string as it stands in the body, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A string that holds no escapes.
    pub(crate) const fn plain(raw: &'a str) -> Self {
        Self {
            raw,
            escaped: false,
        }
    }

    /// True for `""`.
    pub(crate) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The unescaped text; a lone surrogate reads as U+FFFD.
    pub(crate) fn to_cow(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = String::with_capacity(self.raw.len());
        self.pieces(|piece| out.push_str(piece));
        Cow::Owned(out)
    }

    /// The unescaped text, unless it has a lone surrogate and so is no text at all.
    pub(crate) fn to_strict(self) -> Option<Cow<'a, str>> {
        let mut whole = true;
        if self.escaped {
            unescape(self.raw, |piece| whole &= piece.is_some());
        }
        whole.then(|| self.to_cow())
    }

    /// Calls `take` with the unescaped text, piece by piece, without building it.
    pub(crate) fn pieces(&self, mut take: impl FnMut(&str)) {
        if self.escaped {
            unescape(self.raw, |piece| take(piece.unwrap_or("\u{fffd}")));
        } else {
            take(self.raw);
        }
    }

    /// Runs `f` on the unescaped text, which is borrowed where nothing is escaped.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        if self.escaped {
            f(&self.to_cow())
        } else {
            f(self.raw)
        }
    }
}

/// Cuts a checked JSON string into its unescaped pieces; `None` stands for a lone surrogate.
fn unescape(raw: &str, mut take: impl FnMut(Option<&str>)) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        if at > 0 {
            take(rest.get(..at));
        }
        let escape = rest.get(at + 1..).unwrap_or_default();
        let (piece, used) = one_escape(escape.as_bytes());
        let mut buffer = [0; 4];
        take(piece.map(|c| &*c.encode_utf8(&mut buffer)));
        rest = escape.get(used..).unwrap_or_default();
    }
    if !rest.is_empty() {
        take(Some(rest));
    }
}

/// Reads what follows a backslash: the character and the bytes it took.
fn one_escape(after: &[u8]) -> (Option<char>, usize) {
    let simple = match after.first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(after),
        Some(&other) => char::from(other),
        None => return (None, 0),
    };
    (Some(simple), 1)
}

/// Reads `uXXXX`, and the second half of a surrogate pair if one follows.
fn unicode_escape(after: &[u8]) -> (Option<char>, usize) {
    let Some(first) = hex4(after.get(1..5)) else {
        return (None, after.len().min(5));
    };
    if !(0xd800..0xdc00).contains(&first) {
        return (char::from_u32(first), 5);
    }
    let second = match after.get(5..7) {
        Some(b"\\u") => hex4(after.get(7..11)),
        _ => None,
    };
    match second {
        Some(low) if (0xdc00..0xe000).contains(&low) => (
            char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00)),
            11,
        ),
        _ => (None, 5),
    }
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |value, &b| {
        Some(value << 4 | char::from(b).to_digit(16)?)
    })
}

/// What kind of value the reader stands in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Word,
}

/// Reads one document from front to back.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader in front of the first value of `body`.
    pub(crate) fn new(body: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(body).map_err(|e| RequestError::NotJson {
            at: e.valid_up_to(),
            what: "invalid UTF-8",
        })?;
        let mut reader = Self {
            text,
            at: 0,
            depth: 0,
        };
        reader.space();
        Ok(reader)
    }

    /// Offset of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The bytes from an earlier offset up to here.
    pub(crate) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The kind of the next value, by its first byte.
    pub(crate) fn kind(&self) -> Result<Kind> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f' | b'n') => Ok(Kind::Word),
            Some(_) => self.fail("expected a value"),
            None => self.fail("unexpected end"),
        }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.fail("unexpected bytes after the value")
        }
    }

    /// Reads an object: `each(reader, key, offset of the key)` once per member.
    pub(crate) fn object<F>(&mut self, mut each: F) -> Result<()>
    where
        F: FnMut(&mut Self, Text<'a>, usize) -> Result<()>,
    {
        self.enter()?;
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return self.fail("expected a key in double quotes");
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return self.fail("expected a colon");
            }
            self.at += 1;
            self.space();
            each(self, key, key_at)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return self.fail("expected a comma or a closing brace"),
            }
            self.space();
        }
    }

    /// Reads an array: `each(reader)` once per element.
    pub(crate) fn array<F>(&mut self, mut each: F) -> Result<()>
    where
        F: FnMut(&mut Self) -> Result<()>,
    {
        self.enter()?;
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            each(self)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return self.fail("expected a comma or a closing bracket"),
            }
            self.space();
        }
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<Text<'a>> {
        if self.peek() != Some(b'"') {
            return self.fail("expected a string");
        }
        let start = self.at + 1;
        self.at = start;
        let mut escaped = false;
        loop {
            self.at += plain_run(self.rest());
            match self.peek() {
                Some(b'"') => {
                    let raw = self.since(start);
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("control character in a string"),
                None => return self.fail("unexpected end in a string"),
            }
        }
    }

    /// Reads a string; any other value is skipped.
    pub(crate) fn string_or_skip(&mut self) -> Result<Option<Text<'a>>> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        self.skip()?;
        Ok(None)
    }

    /// Steps over one value of any kind, checking it, and returns its bytes.
    pub(crate) fn skip(&mut self) -> Result<&'a str> {
        let start = self.at;
        match self.kind()? {
            Kind::Object => self.object(|reader, _, _| reader.skip().map(drop))?,
            Kind::Array => self.array(|reader| reader.skip().map(drop))?,
            Kind::String => self.string().map(drop)?,
            Kind::Number => self.number()?,
            Kind::Word => self.word()?,
        }
        Ok(self.since(start))
    }

    fn number(&mut self) -> Result<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<()> {
        let count = self
            .rest()
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        self.at += count;
        if count > 0 {
            Ok(())
        } else {
            self.fail("expected a digit")
        }
    }

    fn word(&mut self) -> Result<()> {
        for word in ["true", "false", "null"] {
            if self.rest().starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        self.fail("expected a value")
    }

    /// Checks the escape that starts here.
    fn escape(&mut self) -> Result<()> {
        let rest = self.rest();
        let length = match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if hex4(rest.get(2..6)).is_some() => 6,
            Some(_) => return self.fail("invalid escape in a string"),
            None => return self.fail("unexpected end in a string"),
        };
        self.at += length;
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(RequestError::TooDeep {
                at: self.at,
                limit: MAX_DEPTH,
            });
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fail<T>(&self, what: &'static str) -> Result<T> {
        Err(RequestError::NotJson { at: self.at, what })
    }
}

/// How many bytes stand before the next quote, backslash or control character.
///
/// Most strings of a chunk are short: the first two words are judged one by one. Longer runs go by blocks of 32 bytes,
/// each judged by one branch-free expression, which compilers turn into vector code.
fn plain_run(bytes: &[u8]) -> usize {
    let start = bytes.get(..16).unwrap_or(bytes);
    let mut at = run_of_words(start);
    if at < 16 || start.len() < 16 {
        return at;
    }
    let blocks = bytes.get(16..).unwrap_or_default().chunks_exact(32);
    let clean = blocks.take_while(|block| !block.iter().fold(false, |stop, &b| stop | special(b)));
    at += clean.count() * 32;
    at + run_of_words(bytes.get(at..).unwrap_or_default())
}

/// The same, word by word.
fn run_of_words(bytes: &[u8]) -> usize {
    let mut at = 0;
    for word in bytes.chunks_exact(8) {
        let stops = special_bits(word);
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|&&b| !special(b)).count()
}

fn special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The high bit of each special byte of a little-endian word; bits above the lowest one may be false alarms.
///
/// "Has a byte less than n": Bit Twiddling Hacks, S. E. Anderson.
fn special_bits(word: &[u8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let Ok(word) = word.try_into().map(u64::from_le_bytes) else {
        return 0;
    };
    let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x;
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    (quote | backslash | below(word, 0x20)) & (ONES << 7)
}

#[cfg(test)]
mod tests;
