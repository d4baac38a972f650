//! A tokeniser without a vocabulary.
//!
//! Text is cut into pieces: a run of letters and digits with the space before it, at most five bytes of the run at a
//! time, or a single other character. English comes out at about four bytes a token. A piece's id is its hash, so
//! any text can be encoded, equal prefixes give equal ids, and ids of the words that the simulator itself writes can
//! be turned back into text.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;
use serde_json::Value;
use simulator::BlockHash;
use xxhash_rust::xxh3::xxh3_64;

use crate::plan::WORDS;

/// Bytes of a run of letters in one piece.
const LONGEST_RUN: usize = 5;
/// Tokens that an image or audio clip stands for.
const MEDIA_TOKENS: u64 = 64;

/// Cuts text into pieces. Joined together they are the text.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, tail) = rest.split_at(piece_len(rest));
        rest = tail;
        Some(piece)
    })
}

fn piece_len(text: &str) -> usize {
    let run_from = usize::from(text.starts_with(' '));
    let mut end = run_from;
    for c in text[run_from..].chars() {
        if !c.is_alphanumeric() || (end > run_from && end - run_from + c.len_utf8() > LONGEST_RUN) {
            break;
        }
        end += c.len_utf8();
    }
    if end > run_from {
        return end;
    }
    text.chars().next().map_or(0, char::len_utf8)
}

/// The id of a piece.
pub(crate) fn token_id(piece: &str) -> u32 {
    (xxh3_64(piece.as_bytes()) & 0x7fff_ffff) as u32
}

/// Appends the ids of a text.
pub(crate) fn encode(text: &str, ids: &mut Vec<u32>) {
    ids.extend(pieces(text).map(token_id));
}

/// The simulator's own words by their ids, with and without the space before them.
static KNOWN: LazyLock<FxHashMap<u32, &'static str>> = LazyLock::new(|| {
    let both = WORDS.iter().flat_map(|word| [word.trim_start(), word]);
    both.map(|word| (token_id(word), word)).collect()
});

/// The text of an id: exact for the simulator's own words, otherwise some word.
pub(crate) fn decode(id: u32) -> &'static str {
    KNOWN
        .get(&id)
        .copied()
        .unwrap_or(WORDS[id as usize % WORDS.len()])
}

/// Appends a chat in a template like ChatML, ending where the assistant's answer begins.
pub(crate) fn encode_chat(messages: &[Value], tools: Option<&Value>, ids: &mut Vec<u32>) {
    if let Some(tools) = tools {
        encode_turn("system", ids, |ids| encode(&tools.to_string(), ids));
    }
    for message in messages {
        let role = message
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or("user");
        encode_turn(role, ids, |ids| {
            encode_content(message.get("content"), ids);
            if let Some(calls) = message.get("tool_calls") {
                encode(&calls.to_string(), ids);
            }
        });
    }
    open_turn("assistant", ids);
}

/// Appends one closed turn.
pub(crate) fn encode_turn(role: &str, ids: &mut Vec<u32>, content: impl FnOnce(&mut Vec<u32>)) {
    open_turn(role, ids);
    content(ids);
    ids.push(token_id("<|im_end|>"));
    ids.push(token_id("\n"));
}

fn open_turn(role: &str, ids: &mut Vec<u32>) {
    ids.push(token_id("<|im_start|>"));
    encode(role, ids);
    ids.push(token_id("\n"));
}

/// Appends a message's content: a string, or a list of parts.
pub(crate) fn encode_content(content: Option<&Value>, ids: &mut Vec<u32>) {
    match content {
        Some(Value::String(text)) => encode(text, ids),
        Some(Value::Array(parts)) => parts.iter().for_each(|part| encode_part(part, ids)),
        _ => {}
    }
}

fn encode_part(part: &Value, ids: &mut Vec<u32>) {
    match part.get("text") {
        Some(Value::String(text)) => encode(text, ids),
        _ => match part {
            Value::String(text) => encode(text, ids),
            other => {
                let seed = xxh3_64(other.to_string().as_bytes());
                ids.extend((0..MEDIA_TOKENS).map(|i| (seed.wrapping_add(i) & 0x7fff_ffff) as u32));
            }
        },
    }
}

/// The root of block names for a model or adapter and a cache salt.
pub(crate) fn root(model: &str, salt: Option<&str>) -> BlockHash {
    let mut scope = Vec::with_capacity(model.len() + 1 + salt.map_or(0, str::len));
    scope.extend_from_slice(model.as_bytes());
    if let Some(salt) = salt {
        scope.push(0);
        scope.extend_from_slice(salt.as_bytes());
    }
    BlockHash::root(&scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_text() {
        for text in [
            "",
            "hello world",
            "  two  spaces\n\ttab",
            "naïve 日本語のテキスト",
            "a-b_c.d",
            "internationalisation",
            " ",
        ] {
            assert_eq!(pieces(text).collect::<String>(), text);
        }
        assert_eq!(
            pieces("hello, big world-wide").collect::<Vec<_>>(),
            ["hello", ",", " big", " world", "-", "wide"]
        );
        assert_eq!(
            pieces("internationally").collect::<Vec<_>>(),
            ["inter", "natio", "nally"]
        );
    }

    #[test]
    fn english_has_about_four_bytes_a_token() {
        let text = "A pointsman sets the railway points so that each train runs onto the right track, and does \
                    that for requests to large language models as well, looking at what every server is doing.";
        let ratio = text.len() as f64 / pieces(text).count() as f64;
        assert!((3.5..5.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_next_turn_continues_the_answer() {
        let message =
            |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
        let mut first = Vec::new();
        encode_chat(&[message("user", "hello there")], None, &mut first);
        encode("time way people", &mut first);
        let mut second = Vec::new();
        let turns = [
            message("user", "hello there"),
            message("assistant", "time way people"),
            message("user", "and?"),
        ];
        encode_chat(&turns, None, &mut second);
        assert_eq!(second[..first.len()], first[..]);
    }

    #[test]
    fn own_words_come_back() {
        for word in WORDS {
            assert_eq!(decode(token_id(word)), *word);
        }
    }

    #[test]
    fn salt_and_model_part_prefixes() {
        let roots = [
            root("a", None),
            root("b", None),
            root("a", Some("x")),
            root("a", Some("y")),
            root("a", Some("")),
        ];
        for (i, one) in roots.iter().enumerate() {
            assert!(roots[i + 1..].iter().all(|other| other != one));
        }
    }
}
