//! A decision as the gateway explains it in `x-pointsman-decision`, and the one reason that matters, in words.
//!
//! The gateway sends every term of the cost, in seconds, for every server. The reason that a person wants to hear is
//! where the winner differs: the term by which it beats the average of the others most.

use serde::Deserialize;

/// A decision, as far as it is told here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Decision {
    /// The model that the server was asked for.
    pub(crate) model: Option<String>,
    /// The gateway's own sentence.
    pub(crate) reason: String,
    /// The server chosen.
    pub(crate) winner: String,
    /// How long it waited in the gateway, in milliseconds.
    pub(crate) queued_ms: f64,
    /// All servers.
    pub(crate) candidates: Vec<Candidate>,
}

/// One server in a decision.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Candidate {
    pub(crate) endpoint: String,
    pub(crate) terms: Vec<(String, Option<f64>)>,
    pub(crate) excluded: Option<String>,
    pub(crate) hit_tokens: u32,
    pub(crate) in_flight: u32,
    pub(crate) kv_usage: f64,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Why {
    /// The winner has more of the prompt in its cache: seconds of prefill there and on the worst other.
    Prefix { there: f64, elsewhere: f64 },
    /// The winner has the adapter, or will have it sooner.
    Adapter,
    /// Less work waits there: seconds, there and on the others' average.
    Queue { there: f64, elsewhere: f64 },
    /// More room in its KV cache: use, there and on the fullest other.
    Space { there: f64, elsewhere: f64 },
    /// Fewer requests run there, which would slow each other down.
    Batch { there: u32, elsewhere: u32 },
    /// Nobody had the prompt: a home for those that will follow.
    Cold,
    /// No term to speak of.
    Even,
}

/// Terms by name, where more than one place asks for them.
const PREFILL: &[&str] = &["prefill"];
const QUEUE: &[&str] = &["pending", "others", "slots"];

/// Differences below this are not a reason, in seconds.
const WORTH_TELLING: f64 = 0.5e-3;

impl Candidate {
    fn term(&self, names: &[&str]) -> f64 {
        let of = |(name, seconds): &(String, Option<f64>)| {
            if names.contains(&name.as_str()) {
                seconds.unwrap_or(0.0)
            } else {
                0.0
            }
        };
        self.terms.iter().map(of).sum()
    }
}

impl Decision {
    /// Why the winner won.
    pub(crate) fn why(&self) -> Why {
        if self.reason.starts_with("cold") {
            return Why::Cold;
        }
        let Some(winner) = self.candidates.iter().find(|c| c.endpoint == self.winner) else {
            return Why::Even;
        };
        let others: Vec<_> = self
            .candidates
            .iter()
            .filter(|c| c.endpoint != self.winner && c.excluded.is_none())
            .collect();
        if others.is_empty() {
            return Why::Even;
        }
        let average = |names: &[&str]| {
            others.iter().map(|c| c.term(names)).sum::<f64>() / others.len() as f64
        };
        let worst = |names: &[&str]| others.iter().map(|c| c.term(names)).fold(0.0, f64::max);
        let fullest = others.iter().map(|c| c.kv_usage).fold(0.0, f64::max);
        let busiest = others.iter().map(|c| c.in_flight).max().unwrap_or(0);
        let gain = |names: &[&str]| average(names) - winner.term(names);

        let factors = [
            (
                gain(&["prefill", "recompute"]),
                Why::Prefix {
                    there: winner.term(PREFILL),
                    elsewhere: worst(PREFILL),
                },
            ),
            (gain(&["adapter"]), Why::Adapter),
            (
                gain(QUEUE),
                Why::Queue {
                    there: winner.term(QUEUE),
                    elsewhere: average(QUEUE),
                },
            ),
            (
                gain(&["space"]),
                Why::Space {
                    there: winner.kv_usage,
                    elsewhere: fullest,
                },
            ),
            (
                gain(&["decode", "interference"]),
                Why::Batch {
                    there: winner.in_flight,
                    elsewhere: busiest,
                },
            ),
        ];
        let best = factors
            .into_iter()
            .filter(|(gain, why)| *gain > WORTH_TELLING && holds(why, winner));
        best.max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(Why::Even, |(_, why)| why)
    }
}

/// Whether the fact that would be told goes the same way as the term.
fn holds(why: &Why, winner: &Candidate) -> bool {
    match why {
        Why::Prefix { .. } => winner.hit_tokens > 0,
        Why::Space { there, elsewhere } => there < elsewhere,
        Why::Batch { there, elsewhere } => there < elsewhere,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(reason: &str, winner: &[(&str, f64)], other: &[(&str, f64)]) -> Decision {
        let terms = |terms: &[(&str, f64)]| {
            terms
                .iter()
                .map(|(name, s)| ((*name).to_owned(), Some(*s)))
                .collect()
        };
        let candidate = |endpoint: &str, terms| Candidate {
            endpoint: endpoint.into(),
            terms,
            ..Candidate::default()
        };
        let mut first = candidate("a", terms(winner));
        (first.hit_tokens, first.in_flight, first.kv_usage) = (10, 1, 0.1);
        let mut second = candidate("b", terms(other));
        (second.in_flight, second.kv_usage) = (5, 0.9);
        let excluded = Candidate {
            excluded: Some("down".into()),
            ..candidate("c", terms(&[("adapter", 9.0)]))
        };
        Decision {
            reason: reason.into(),
            winner: "a".into(),
            candidates: vec![first, second, excluded],
            ..Decision::default()
        }
    }

    #[test]
    fn the_largest_gain_is_the_reason() {
        let table = [
            (
                vec![("prefill", 0.004)],
                vec![("prefill", 0.066)],
                Why::Prefix {
                    there: 0.004,
                    elsewhere: 0.066,
                },
            ),
            (
                vec![("prefill", 0.010)],
                vec![("prefill", 0.011), ("adapter", 0.3)],
                Why::Adapter,
            ),
            (
                vec![("pending", 0.001)],
                vec![("pending", 0.050)],
                Why::Queue {
                    there: 0.001,
                    elsewhere: 0.050,
                },
            ),
            (
                vec![("space", 0.001)],
                vec![("space", 0.050)],
                Why::Space {
                    there: 0.1,
                    elsewhere: 0.9,
                },
            ),
            (
                vec![("decode", 0.001)],
                vec![("decode", 0.050)],
                Why::Batch {
                    there: 1,
                    elsewhere: 5,
                },
            ),
            (vec![("decode", 0.001)], vec![("decode", 0.0012)], Why::Even),
        ];
        for (winner, other, expected) in table {
            assert_eq!(
                decision("least expected cost", &winner, &other).why(),
                expected
            );
        }
        assert_eq!(
            decision(
                "cold prompt: ...",
                &[("prefill", 0.01)],
                &[("pending", 1.0)]
            )
            .why(),
            Why::Cold
        );
    }

    #[test]
    fn a_decision_is_read_from_the_header() {
        let json = r#"{"at_ms":1,"winner":"s","reason":"least expected cost","queued_ms":1.5,"model":"m","new":[1],
            "candidates":[{"endpoint":"s","total":null,"terms":[["prefill",0.5],["health",null]],"excluded":null}]}"#;
        let decision: Decision = serde_json::from_str(json).unwrap();
        assert_eq!(decision.candidates[0].term(&["prefill", "health"]), 0.5);
        assert_eq!((decision.why(), decision.queued_ms), (Why::Even, 1.5));
    }
}
