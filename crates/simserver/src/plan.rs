//! What a request will say, drawn before it starts.
//!
//! The words come from a generator seeded with the server's seed, the request's own `seed` and the prompt, so the
//! same request gets the same answer. Each word is exactly one token, and the tokeniser cuts the joined text at the
//! same places: a follow-up turn that quotes the answer finds its blocks in the prefix cache.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use serde_json::{Map, Value};

use crate::tokens::{pieces, token_id};

/// The words of all answers. Each fits one token with the space before it.
#[rustfmt::skip]
pub(crate) const WORDS: &[&str] = &[
    " time", " year", " way", " day", " man", " thing", " life", " child", " world", " hand", " part", " place",
    " case", " week", " work", " fact", " group", " point", " train", " track", " rail", " home", " water", " room",
    " area", " money", " story", " month", " lot", " right", " study", " book", " eye", " job", " word", " side",
    " kind", " head", " house", " page", " power", " hour", " game", " line", " end", " city", " law", " name",
    " idea", " body", " back", " face", " level", " door", " road", " art", " war", " party", " team", " air",
    " force", " wall", " sun", " moon", " tree", " stone", " river", " sea", " wind", " rain", " snow", " fire",
    " good", " new", " first", " last", " long", " great", " own", " old", " big", " high", " small", " large",
    " next", " early", " young", " few", " same", " able", " be", " have", " do", " say", " get", " make", " go",
    " know", " take", " see", " come", " think", " look", " want", " give", " use", " find", " tell", " ask",
    " seem", " feel", " try", " leave", " call", " to", " of", " in", " for", " on", " with", " at", " by",
    " from", " up", " about", " into", " over", " after", " the", " and", " a", " that", " it", " not", " he",
    " as", " you", " this", " but", " his", " they", " her", " she", " or", " an", " will", " my", " one", " all",
];

/// How a request ends when nothing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
}

/// What shapes an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sampling {
    pub(crate) max_tokens: Option<u32>,
    pub(crate) min_tokens: u32,
    pub(crate) ignore_eos: bool,
    pub(crate) stop: Vec<String>,
    pub(crate) seed: u64,
    /// Answer with a value of this JSON schema instead of words.
    pub(crate) schema: Option<Value>,
}

/// An answer and where its tokens end.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) text: String,
    /// Byte offset of each token's end in the text that was generated.
    ends: Vec<u32>,
    pub(crate) finish: Finish,
    /// The stop string that ended it, not part of `text`.
    pub(crate) stopped_by: Option<String>,
}

impl Plan {
    /// An answer without tokens, for pooling requests.
    pub(crate) fn empty() -> Self {
        Self {
            text: String::new(),
            ends: Vec::new(),
            finish: Finish::Stop,
            stopped_by: None,
        }
    }

    /// Draws an answer of at most `room` tokens.
    pub(crate) fn draw(sampling: &Sampling, room: u32, mean: u32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ sampling.seed.rotate_left(32));
        let limit = sampling.max_tokens.unwrap_or(room).min(room);
        let mut plan = match &sampling.schema {
            Some(schema) => Self::of_text(&sample_schema(schema, &mut rng, 0).to_string()),
            None => {
                let natural = natural_length(sampling, limit, mean, &mut rng);
                Self::of_words(natural, &mut rng)
            }
        };
        let forced = sampling.ignore_eos && sampling.schema.is_none();
        if forced || plan.len() > limit {
            plan.truncate(limit);
            plan.finish = Finish::Length;
        }
        plan.stop_at(&sampling.stop, sampling.min_tokens);
        plan
    }

    fn of_words(count: u32, rng: &mut impl Rng) -> Self {
        let mut plan = Self::empty();
        for _ in 0..count {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            plan.text.push_str(if plan.ends.is_empty() {
                word.trim_start()
            } else {
                word
            });
            plan.ends.push(plan.text.len() as u32);
        }
        plan
    }

    fn of_text(text: &str) -> Self {
        let mut plan = Self::empty();
        for piece in pieces(text) {
            plan.text.push_str(piece);
            plan.ends.push(plan.text.len() as u32);
        }
        plan
    }

    fn truncate(&mut self, tokens: u32) {
        self.ends.truncate(tokens as usize);
        self.text
            .truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    /// Ends the answer at the first stop string that is complete after `min_tokens`.
    fn stop_at(&mut self, stops: &[String], min_tokens: u32) {
        let from = min_tokens
            .checked_sub(1)
            .and_then(|i| self.ends.get(i as usize))
            .map_or(0, |end| *end as usize);
        let found = stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| {
                let start = from.saturating_sub(stop.len() - 1);
                let start = (0..=start)
                    .rev()
                    .find(|at| self.text.is_char_boundary(*at))?;
                self.text[start..]
                    .find(stop.as_str())
                    .map(|at| (start + at, stop))
            });
        let Some((at, stop)) = found.min_by_key(|(at, _)| *at) else {
            return;
        };
        let end = at + stop.len();
        let tokens = self
            .ends
            .partition_point(|token_end| (*token_end as usize) < end)
            + 1;
        self.stopped_by = Some(stop.clone());
        self.ends.truncate(tokens);
        self.text.truncate(at);
        self.finish = Finish::Stop;
    }

    /// Tokens of the answer.
    pub(crate) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The text of tokens `from..to`.
    pub(crate) fn slice(&self, from: u32, to: u32) -> &str {
        let end_of = |tokens: u32| {
            let end = tokens
                .checked_sub(1)
                .and_then(|i| self.ends.get(i as usize))
                .map_or(0, |end| *end as usize);
            end.min(self.text.len())
        };
        &self.text[end_of(from)..end_of(to)]
    }

    /// The token ids of the answer. (What a stop string cut off counts as empty.)
    pub(crate) fn token_ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).map(|i| token_id(self.slice(i, i + 1)))
    }
}

/// How long an answer would be without `max_tokens`: lognormal around the mean, as chat traces show.
fn natural_length(sampling: &Sampling, limit: u32, mean: u32, rng: &mut impl Rng) -> u32 {
    const SIGMA: f64 = 0.7;
    if sampling.ignore_eos {
        return limit;
    }
    let mu = f64::from(mean.max(1)).ln() - SIGMA * SIGMA / 2.0;
    let drawn = LogNormal::new(mu, SIGMA).map_or(f64::from(mean), |law| law.sample(rng));
    (drawn as u32).max(sampling.min_tokens).max(1)
}

/// A small value that fits a JSON schema's usual keywords.
pub(crate) fn sample_schema(schema: &Value, rng: &mut impl Rng, depth: u32) -> Value {
    if let Some(Value::Array(choices)) = schema.get("enum")
        && !choices.is_empty()
    {
        return choices[rng.random_range(0..choices.len())].clone();
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("string"),
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    let number = |rng: &mut dyn FnMut() -> u32| {
        let least = schema.get("minimum").and_then(Value::as_i64).unwrap_or(0);
        Value::from(least.saturating_add(i64::from(rng())))
    };
    match kind {
        "object" if depth < 8 => sample_object(schema, rng, depth),
        "object" => Value::Object(Map::new()),
        "array" if depth < 8 => {
            let item = schema
                .get("items")
                .map(|items| sample_schema(items, rng, depth + 1));
            Value::Array(item.into_iter().collect())
        }
        "array" => Value::Array(Vec::new()),
        "integer" | "number" => number(&mut || rng.random_range(0..10)),
        "boolean" => Value::Bool(rng.random()),
        "null" => Value::Null,
        _ => Value::from(WORDS[rng.random_range(0..WORDS.len())].trim_start()),
    }
}

fn sample_object(schema: &Value, rng: &mut impl Rng, depth: u32) -> Value {
    let mut object = Map::new();
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            object.insert(name.clone(), sample_schema(property, rng, depth + 1));
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling) -> Plan {
        Plan::draw(&sampling, 1000, 50, 9)
    }

    #[test]
    fn words_are_single_tokens() {
        let plan = draw(Sampling {
            max_tokens: Some(200),
            ignore_eos: true,
            ..Sampling::default()
        });
        assert_eq!((plan.len(), plan.finish), (200, Finish::Length));
        let cut: Vec<u32> = pieces(&plan.text).map(token_id).collect();
        assert_eq!(cut, plan.token_ids().collect::<Vec<_>>());
    }

    #[test]
    fn seeds_decide() {
        let text = |seed| {
            draw(Sampling {
                seed,
                ..Sampling::default()
            })
            .text
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn natural_ends_stop_and_limits_cut() {
        let free = draw(Sampling::default());
        assert_eq!(free.finish, Finish::Stop);
        let cut = draw(Sampling {
            max_tokens: Some(2),
            ..Sampling::default()
        });
        assert_eq!((cut.len(), cut.finish), (2, Finish::Length));
        assert!(free.text.starts_with(&cut.text));
        let least = draw(Sampling {
            min_tokens: 900,
            ..Sampling::default()
        });
        assert!(least.len() >= 900);
    }

    #[test]
    fn stop_strings_cut_the_text_before_them() {
        let whole = draw(Sampling {
            max_tokens: Some(50),
            ignore_eos: true,
            ..Sampling::default()
        });
        let third = whole.slice(2, 3).to_owned();
        let at = whole.text.find(&third).unwrap();
        let plan = draw(Sampling {
            max_tokens: Some(50),
            ignore_eos: true,
            stop: vec!["never".into(), third.clone()],
            ..Sampling::default()
        });
        assert_eq!(plan.text, whole.text[..at]);
        assert_eq!(
            (plan.finish, plan.stopped_by.as_deref()),
            (Finish::Stop, Some(third.as_str()))
        );
        assert_eq!(
            (0..plan.len())
                .map(|i| plan.slice(i, i + 1))
                .collect::<String>(),
            plan.text
        );
    }

    #[test]
    fn schemas_are_met() {
        let schema = serde_json::json!({"type": "object", "properties": {
            "city": {"type": "string", "enum": ["Oslo", "Rome"]}, "n": {"type": "integer", "minimum": 5},
            "ok": {"type": "boolean"}, "list": {"type": "array", "items": {"type": "number"}}}});
        let plan = draw(Sampling {
            schema: Some(schema),
            ..Sampling::default()
        });
        let value: Value = serde_json::from_str(&plan.text).unwrap();
        assert!(["Oslo", "Rome"].contains(&value["city"].as_str().unwrap()));
        assert!(
            value["n"].as_i64().unwrap() >= 5
                && value["ok"].is_boolean()
                && value["list"][0].is_number()
        );
    }
}
