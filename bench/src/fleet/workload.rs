//! What is asked of the servers, and when: drawn from a seed, so that every policy meets the same requests.
//!
//! Arrivals are a Poisson process (exponential gaps) and an open loop: a request is due when it is due, whether or
//! not the earlier ones have been answered. Text is made of random words of four letters, which cost about one token
//! each, so lengths are given in words. Two texts drawn apart share no prefix that is worth a block.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp1, StandardNormal, StandardUniform};

/// The base model's name.
pub const MODEL: &str = "base";

/// One request and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// When it is due, from the start of the run.
    pub due: Duration,
    /// The model or adapter that it names.
    pub model: String,
    /// The JSON of `messages`.
    pub messages: String,
    /// Tokens of the answer; the length is forced.
    pub output_tokens: u32,
}

impl Request {
    /// The body of a streamed chat completion with usage at its end.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let Self {
            model,
            messages,
            output_tokens,
            ..
        } = self;
        Bytes::from(format!(
            "{{\"model\":\"{model}\",\"messages\":{messages},\"max_tokens\":{output_tokens},\"ignore_eos\":true,\
             \"stream\":true,\"stream_options\":{{\"include_usage\":true}}}}"
        ))
    }

    /// The body that asks a server for the prompt's tokens.
    #[must_use]
    pub fn tokenize_body(&self) -> Bytes {
        let Self {
            model, messages, ..
        } = self;
        Bytes::from(format!("{{\"model\":\"{model}\",\"messages\":{messages}}}"))
    }
}

/// The dice of one seed.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The same seed gives the same requests.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// `count` random words with a space between them.
    #[must_use]
    pub fn words(&mut self, count: usize) -> String {
        let mut text = String::with_capacity(count * 5);
        for i in 0..count {
            if i > 0 {
                text.push(' ');
            }
            let mut bits = self.0.next_u32();
            for _ in 0..4 {
                text.push(char::from(b'a' + (bits % 26) as u8));
                bits /= 26;
            }
        }
        text
    }

    /// Times of `count` arrivals, `rate` a second on average.
    #[must_use]
    pub fn arrivals(&mut self, count: usize, rate: f64) -> Vec<Duration> {
        let mut at = 0.0;
        let mut next = || {
            let gap: f64 = Exp1.sample(&mut self.0);
            at += gap / rate;
            Duration::from_secs_f64(at)
        };
        (0..count).map(|_| next()).collect()
    }

    /// A length around `median`, lognormal with `sigma`, clipped to `range`.
    #[must_use]
    pub fn length(&mut self, median: f64, sigma: f64, range: (u32, u32)) -> u32 {
        let normal: f64 = StandardNormal.sample(&mut self.0);
        let length = median * (sigma * normal).exp();
        length.clamp(f64::from(range.0), f64::from(range.1)) as u32
    }

    /// A rank below `count`; rank `i` has weight `1 / (i + 1)^exponent` (Zipf's law).
    #[must_use]
    pub fn zipf(&mut self, count: usize, exponent: f64) -> usize {
        let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
        let total: f64 = (0..count).map(weight).sum();
        let share: f64 = StandardUniform.sample(&mut self.0);
        let mut left = share * total;
        for rank in 0..count {
            left -= weight(rank);
            if left < 0.0 {
                return rank;
            }
        }
        count.saturating_sub(1)
    }
}

/// The JSON of a chat: a system prompt if there is one, and a question. Words need no escapes.
#[must_use]
pub fn messages(system: Option<&str>, question: &str) -> String {
    let mut json = String::with_capacity(system.map_or(0, str::len) + question.len() + 80);
    json.push('[');
    if let Some(system) = system {
        // Writing to a String cannot fail.
        let _ = write!(json, "{{\"role\":\"system\",\"content\":\"{system}\"}},");
    }
    let _ = write!(json, "{{\"role\":\"user\",\"content\":\"{question}\"}}]");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_requests() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (
                dice.words(5),
                dice.arrivals(3, 10.0),
                dice.length(100.0, 1.0, (1, 500)),
                dice.zipf(8, 1.0),
            )
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7).0, draw(8).0);
    }

    #[test]
    fn arrivals_have_their_rate() {
        let last = Dice::new(1).arrivals(20_000, 50.0)[19_999];
        assert!((390.0..410.0).contains(&last.as_secs_f64()), "{last:?}");
    }

    #[test]
    fn lengths_have_their_median_and_range() {
        let mut dice = Dice::new(2);
        let mut lengths: Vec<u32> = (0..10_001)
            .map(|_| dice.length(100.0, 1.2, (4, 2000)))
            .collect();
        lengths.sort_unstable();
        assert!((95..=105).contains(&lengths[5000]), "{}", lengths[5000]);
        assert!(lengths[0] >= 4 && lengths[10_000] <= 2000 && lengths[9_000] > 350);
    }

    #[test]
    fn ranks_follow_zipf() {
        let mut dice = Dice::new(3);
        let mut counts = [0.0; 4];
        for _ in 0..40_000 {
            counts[dice.zipf(4, 1.0)] += 1.0;
        }
        // 1 : 1/2 : 1/3 : 1/4, of 25/12 in all.
        for (rank, count) in counts.into_iter().enumerate() {
            let share = 12.0 / 25.0 / (rank as f64 + 1.0);
            assert!((count / 40_000.0 - share).abs() < 0.01, "{rank}: {count}");
        }
    }

    #[test]
    fn bodies_are_json() {
        let request = Request {
            due: Duration::ZERO,
            model: MODEL.into(),
            messages: messages(Some("be good"), "why"),
            output_tokens: 3,
        };
        let body: serde_json::Value = serde_json::from_slice(&request.body()).unwrap();
        assert_eq!(body["messages"][1]["content"], "why");
        assert_eq!(body["stream_options"]["include_usage"], true);
        let body: serde_json::Value = serde_json::from_slice(&request.tokenize_body()).unwrap();
        assert_eq!(body["messages"][0]["role"], "system");
        assert_eq!(messages(None, "x").matches("role").count(), 1);
    }
}
