//! The traffic: who asks for what, when. Drawn from a seed, so that both policies meet the same requests at the same
//! moments.
//!
//! Arrivals are open loop: each kind is a Poisson process that does not care how the servers are doing, as the users
//! of a real service do not. Prompts are made of short words, each about one token.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// Tenants with agents; each has a long system prompt of its own.
pub(crate) const TENANTS: u32 = 24;
/// Batch requests in the burst near the end, for each second of the run.
const BURST: f64 = 34.0;
/// Requests a second, by kind.
pub(crate) const CHAT_RATE: f64 = 14.0;
pub(crate) const AGENT_RATE: f64 = 40.0;
pub(crate) const TOOL_RATE: f64 = 8.0;
pub(crate) const BATCH_RATE: f64 = 4.0;

/// When the burst begins and how long it takes, as shares of the run.
const BURST_AT: f64 = 0.75;
const BURST_TAKES: f64 = 0.14;

/// How much a request matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// People wait for it.
    Critical,
    /// The usual.
    Standard,
    /// May be refused when everything is busy.
    Sheddable,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// When, from the start of the run.
    pub(crate) at: Duration,
    /// Its class, which the gateway learns from the InferenceModel and not from us.
    pub(crate) class: Class,
    /// Who asks, for people.
    pub(crate) who: String,
    /// The model asked for.
    pub(crate) model: &'static str,
    /// The beginning that it shares with others of the same number.
    pub(crate) prefix: Option<Prefix>,
    /// Arrives while or after the burst comes in.
    pub(crate) in_burst: bool,
    /// The body of the request.
    pub(crate) body: Bytes,
}

/// A shared beginning of prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prefix {
    /// Which.
    pub(crate) id: u32,
    /// How much of this prompt it is, 0 to 1.
    pub(crate) share: f64,
}

/// The requests of a run of `seconds`, in order of arrival.
pub(crate) fn arrivals(seed: u64, seconds: f64) -> Vec<Arrival> {
    let mut rng = StdRng::seed_from_u64(seed);
    let writer = Writer::new(&mut rng);
    let burst = BURST_AT * seconds;
    let mut all = Vec::new();
    let mut kind = |rate: f64, make: fn(&Writer, &mut StdRng) -> Arrival| {
        let mut at = gap(&mut rng, rate);
        while at < seconds {
            all.push(Arrival {
                at: Duration::from_secs_f64(at),
                in_burst: at >= burst,
                ..make(&writer, &mut rng)
            });
            at += gap(&mut rng, rate);
        }
    };
    kind(CHAT_RATE, Writer::chat);
    kind(AGENT_RATE, Writer::agent);
    kind(TOOL_RATE, Writer::tool);
    kind(BATCH_RATE, Writer::batch);
    let many = burst_size(seconds);
    for nth in 0..many {
        let at = burst + BURST_TAKES * seconds * f64::from(nth) / f64::from(many);
        all.push(Arrival {
            at: Duration::from_secs_f64(at),
            in_burst: true,
            ..writer.batch(&mut rng)
        });
    }
    all.sort_by_key(|arrival| arrival.at);
    all
}

/// Batch requests in the burst.
pub(crate) fn burst_size(seconds: f64) -> u32 {
    (BURST * seconds) as u32
}

/// Seconds to the next arrival of a Poisson process.
fn gap(rng: &mut StdRng, rate: f64) -> f64 {
    -(1.0 - rng.random::<f64>()).ln() / rate
}

/// Writes prompts.
struct Writer {
    systems: Vec<String>,
    chat: String,
    tools: [String; 2],
}

const CHAT_PREFIX: u32 = TENANTS;
const TOOL_PREFIX: u32 = TENANTS + 1;
/// Adapters that are asked for by their public names.
const TOOLS: [&str; 2] = ["sql", "legal"];

/// Each is one token with the space before it.
const WORDS: [&str; 32] = [
    "rail", "point", "train", "track", "yard", "night", "cargo", "board", "clock", "lever",
    "wheel", "steam", "coal", "guard", "north", "south", "east", "west", "early", "late", "red",
    "green", "slow", "fast", "stop", "go", "left", "right", "gauge", "frog", "blade", "crew",
];

impl Writer {
    fn new(rng: &mut StdRng) -> Self {
        let systems = (0..TENANTS).map(|_| words_between(rng, 2600, 3100));
        Self {
            systems: systems.collect(),
            chat: words(rng, 120),
            tools: [words(rng, 300), words(rng, 300)],
        }
    }

    fn chat(&self, rng: &mut StdRng) -> Arrival {
        let question = words_between(rng, 100, 400);
        let who = format!("chat/user-{:02}", rng.random_range(0..100));
        let system = Some((CHAT_PREFIX, self.chat.as_str()));
        request((Class::Critical, "chat", who), system, &question, 28)
    }

    /// Some tenants are busier than others.
    fn agent(&self, rng: &mut StdRng) -> Arrival {
        let tenant = (f64::from(TENANTS) * rng.random::<f64>().powf(1.3)) as u32;
        let question = words_between(rng, 60, 240);
        let who = format!("agents/tenant-{tenant:02}");
        let system = Some((tenant, self.systems[tenant as usize].as_str()));
        request((Class::Standard, "agents", who), system, &question, 32)
    }

    fn tool(&self, rng: &mut StdRng) -> Arrival {
        let which = rng.random_range(0..TOOLS.len());
        let question = words_between(rng, 80, 300);
        let (model, who) = (TOOLS[which], format!("tools/{}", TOOLS[which]));
        let system = Some((TOOL_PREFIX + which as u32, self.tools[which].as_str()));
        request((Class::Standard, model, who), system, &question, 32)
    }

    fn batch(&self, rng: &mut StdRng) -> Arrival {
        let question = words_between(rng, 1200, 1800);
        request(
            (Class::Sheddable, "batch", "batch".to_owned()),
            None,
            &question,
            16,
        )
    }
}

fn words_between(rng: &mut StdRng, least: usize, most: usize) -> String {
    let count = rng.random_range(least..most);
    words(rng, count)
}

fn words(rng: &mut StdRng, count: usize) -> String {
    let mut text = String::with_capacity(count * 6);
    for nth in 0..count {
        if nth > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[rng.random_range(0..WORDS.len())]);
    }
    text
}

/// A streamed chat completion: a class, a model and who asks; the shared beginning and its number; the rest.
fn request(
    (class, model, who): (Class, &'static str, String),
    prefix: Option<(u32, &str)>,
    question: &str,
    max_tokens: u32,
) -> Arrival {
    let mut messages = Vec::new();
    if let Some((_, system)) = prefix {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": question}));
    let body = json!({
        "model": model, "messages": messages, "max_tokens": max_tokens, "stream": true,
        "stream_options": {"include_usage": true},
    });
    let prefix = prefix.map(|(id, system)| {
        let (shared, own) = (system.len() as f64, question.len() as f64);
        Prefix {
            id,
            share: shared / (shared + own),
        }
    });
    let body = Bytes::from(body.to_string());
    Arrival {
        at: Duration::ZERO,
        class,
        who,
        model,
        prefix,
        in_burst: false,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: &[Arrival]) -> Vec<(Duration, Bytes)> {
        arrivals.iter().map(|a| (a.at, a.body.clone())).collect()
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(times(&arrivals(7, 1.0)), times(&arrivals(7, 1.0)));
        assert_ne!(times(&arrivals(7, 1.0)), times(&arrivals(8, 1.0)));
    }

    #[test]
    fn arrivals_are_in_order_and_at_the_rates_announced() {
        let seconds = 20.0;
        let all = arrivals(1, seconds);
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(all.iter().all(|a| a.at.as_secs_f64() < seconds));
        let count = |model: &str| all.iter().filter(|a| a.model == model).count() as f64;
        // Poisson: four standard deviations.
        for (model, expected) in [
            ("chat", CHAT_RATE * seconds),
            ("agents", AGENT_RATE * seconds),
        ] {
            assert!(
                (count(model) - expected).abs() < 4.0 * expected.sqrt(),
                "{model}: {}",
                count(model)
            );
        }
        let batch = BATCH_RATE * seconds + f64::from(burst_size(seconds));
        assert!((count("batch") - batch).abs() < 4.0 * batch.sqrt());
    }

    #[test]
    fn a_tenant_begins_all_its_prompts_alike() {
        let all = arrivals(3, 4.0);
        let busiest: Vec<_> = all.iter().filter(|a| a.who == "agents/tenant-00").collect();
        assert!(busiest.len() > 1);
        let length = (busiest[0].body.len() as f64 * 0.8) as usize;
        // serde_json orders keys, so the messages come before the model and after max_tokens, which are all alike.
        assert!(
            busiest
                .iter()
                .all(|a| a.body[..length] == busiest[0].body[..length])
        );
        assert!(busiest.iter().all(|a| {
            a.prefix
                .is_some_and(|p| p.id == 0 && p.share > 0.85 && p.share < 1.0)
        }));
    }

    #[test]
    fn the_burst_is_marked() {
        let all = arrivals(3, 4.0);
        assert!(
            all.iter()
                .all(|a| a.in_burst == (a.at.as_secs_f64() >= BURST_AT * 4.0 - 1e-6))
        );
        assert!(
            all.iter()
                .filter(|a| a.in_burst && a.class == Class::Sheddable)
                .count()
                >= burst_size(4.0) as usize
        );
    }
}
