//! The scenarios: which servers, which requests, which goals.
//!
//! Loads are chosen against what round robin can sustain: well below it, so that a policy is measured by where it
//! puts requests and not by how it queues them. Where steps are a few milliseconds long, the servers run slower than
//! real time, so that the scheduling noise of a small machine stays small against a step.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::fleet::judge::{Goal, Measure};
use crate::fleet::workload::{Dice, MODEL, Request, messages};

const TENANTS: usize = 24;
/// With 1, the most popular of 24 tenants sends a quarter of all requests.
const TENANT_EXPONENT: f64 = 1.0;
const SYSTEM_WORDS: usize = 3000;
const QUESTION_WORDS: usize = 100;
/// A third of all prefixes, in blocks of 16 tokens: 24 * 3000 / 3 / 16.
const SHARED_BLOCKS: &str = "1500";
const ADAPTERS: usize = 8;
const SERVERS: usize = 4;

/// How the gateway chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Pointsman's own.
    ExpectedCost,
    /// Each server in turn.
    RoundRobin,
    /// Fewest requests in flight.
    LeastRequest,
}

impl Policy {
    /// All, in the order of the table's columns.
    pub const ALL: [Self; 3] = [Self::ExpectedCost, Self::RoundRobin, Self::LeastRequest];

    /// Its name on the gateway's command line.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::ExpectedCost => "expected-cost",
            Self::RoundRobin => "round-robin",
            Self::LeastRequest => "least-request",
        }
    }
}

/// The model servers of a scenario.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many.
    pub servers: usize,
    /// Real seconds are divided by this.
    pub speed: f64,
    /// Further arguments of each.
    pub sim_args: Vec<String>,
}

/// A load and the servers it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
pub enum Scenario {
    /// Tenants with long system prompts; no server can hold all of them.
    #[value(name = "shared-prefix")]
    #[serde(rename = "shared-prefix")]
    SharedPrefix,
    /// Chats of all lengths that share nothing.
    #[value(name = "sharegpt-like")]
    #[serde(rename = "sharegpt-like")]
    ShareGptLike,
    /// Equal requests at once on idle servers.
    #[value(name = "burst")]
    #[serde(rename = "burst")]
    Burst,
    /// More adapters than fit on one server.
    #[value(name = "adapters")]
    #[serde(rename = "adapters")]
    Adapters,
}

impl Scenario {
    /// Its name in the table and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SharedPrefix => "shared-prefix",
            Self::ShareGptLike => "sharegpt-like",
            Self::Burst => "burst",
            Self::Adapters => "adapters",
        }
    }

    /// How many seeds are measured unless told otherwise.
    #[must_use]
    pub fn seeds(self) -> u64 {
        match self {
            Self::ShareGptLike => 5,
            _ => 3,
        }
    }

    /// Whether the best possible hit ratio is of interest.
    #[must_use]
    pub fn shares_prefixes(self) -> bool {
        self == Self::SharedPrefix
    }

    /// Whether the lab predicts it too: adapters have names here that the lab does not know, and a burst has no load.
    #[must_use]
    pub fn predicted(self) -> bool {
        matches!(self, Self::SharedPrefix | Self::ShareGptLike)
    }

    /// Its servers.
    #[must_use]
    pub fn shape(self) -> Shape {
        let strings = |args: &[&str]| args.iter().map(ToString::to_string).collect();
        let (speed, sim_args) = match self {
            Self::SharedPrefix => (1.25, strings(&["--num-gpu-blocks", SHARED_BLOCKS])),
            Self::ShareGptLike | Self::Burst => (0.5, Vec::new()),
            Self::Adapters => {
                let mut args: Vec<String> = strings(&[
                    "--enable-lora",
                    "--max-loras",
                    "2",
                    "--max-cpu-loras",
                    "4",
                    "--lora-modules",
                ]);
                args.extend((0..ADAPTERS).map(|i| format!("{}=/adapters/{i}", adapter(i))));
                (1.0, args)
            }
        };
        Shape {
            servers: SERVERS,
            speed,
            sim_args,
        }
    }

    /// Its requests for a seed, in order of time.
    #[must_use]
    pub fn requests(self, seed: u64) -> Vec<Request> {
        let mut dice = Dice::new(seed);
        match self {
            Self::SharedPrefix => shared_prefix(&mut dice),
            Self::ShareGptLike => sharegpt_like(&mut dice),
            Self::Burst => burst(&mut dice),
            Self::Adapters => adapters(&mut dice),
        }
    }

    /// What is reported of it, and what must hold.
    #[must_use]
    pub fn measures(self) -> Vec<Measure> {
        match self {
            Self::SharedPrefix => vec![
                Measure::HIT,
                Measure::HIT_OF_BEST.goal(Goal::AtLeast(0.9)),
                Measure::WORK_SKEW.goal(Goal::AtMost(1.2)),
                // Who has the prefix of a busy tenant gets more of its cheap hits: 1.1 to 1.5 from seed to seed.
                Measure::SKEW.goal(Goal::AtMost(1.3)),
                Measure::TTFT_P50,
                Measure::TTFT_P90.goal(Goal::OfRoundRobin(0.5)),
                Measure::TTFT_P99,
            ],
            Self::ShareGptLike => vec![
                Measure::TTFT_P50,
                Measure::TTFT_P90.goal(Goal::OfRoundRobin(1.05)),
                Measure::TTFT_P99,
                Measure::SKEW,
            ],
            Self::Burst => vec![
                Measure::FEWEST.goal(Goal::AtLeast(1.0)),
                Measure::SKEW.goal(Goal::AtMost(1.3)),
                Measure::TTFT_P90,
            ],
            Self::Adapters => vec![
                Measure::ADAPTERS,
                Measure::TTFT_P50,
                Measure::TTFT_P90.goal(Goal::OfRoundRobin(1.0)),
                Measure::SKEW,
            ],
        }
    }
}

fn adapter(rank: usize) -> String {
    format!("adapter-{rank}")
}

fn shared_prefix(dice: &mut Dice) -> Vec<Request> {
    let systems: Vec<String> = (0..TENANTS).map(|_| dice.words(SYSTEM_WORDS)).collect();
    let times = dice.arrivals(720, 45.0);
    let mut request = |due| Request {
        due,
        model: MODEL.to_owned(),
        messages: messages(
            Some(&systems[dice.zipf(TENANTS, TENANT_EXPONENT)]),
            &dice.words(QUESTION_WORDS),
        ),
        output_tokens: dice.length(40.0, 0.3, (8, 120)),
    };
    times.into_iter().map(&mut request).collect()
}

fn sharegpt_like(dice: &mut Dice) -> Vec<Request> {
    let times = dice.arrivals(450, 50.0);
    let mut request = |due| {
        let words = dice.length(100.0, 1.2, (4, 2000));
        Request {
            due,
            model: MODEL.to_owned(),
            messages: messages(None, &dice.words(words as usize)),
            output_tokens: dice.length(120.0, 0.9, (2, 300)),
        }
    };
    times.into_iter().map(&mut request).collect()
}

/// Equal in length, not in text: what a prefix cache could gain must not matter here.
fn burst(dice: &mut Dice) -> Vec<Request> {
    let mut request = || Request {
        due: Duration::ZERO,
        model: MODEL.to_owned(),
        messages: messages(None, &dice.words(500)),
        output_tokens: 64,
    };
    (0..64).map(|_| request()).collect()
}

fn adapters(dice: &mut Dice) -> Vec<Request> {
    let times = dice.arrivals(100, 12.0);
    let mut request = |due| {
        let words = dice.length(200.0, 0.5, (16, 1000));
        Request {
            due,
            model: adapter(dice.zipf(ADAPTERS, 1.0)),
            messages: messages(None, &dice.words(words as usize)),
            output_tokens: dice.length(60.0, 0.5, (8, 200)),
        }
    };
    times.into_iter().map(&mut request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::servers::MOST;

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::value_variants() {
            let value = scenario.to_possible_value().unwrap();
            assert_eq!(value.get_name(), scenario.name());
            let json = serde_json::to_string(scenario).unwrap();
            assert_eq!(json, format!("\"{}\"", scenario.name()));
        }
        for policy in Policy::ALL {
            assert_eq!(
                policy.to_possible_value().unwrap().get_name(),
                policy.flag()
            );
        }
    }

    #[test]
    fn requests_come_in_order_and_repeat_with_their_seed() {
        for &scenario in Scenario::value_variants() {
            let requests = scenario.requests(1);
            assert!(requests.is_sorted_by_key(|r| r.due), "{scenario:?}");
            assert!(requests.iter().all(|r| r.output_tokens > 0));
            assert_eq!(requests, scenario.requests(1));
            assert_ne!(requests, scenario.requests(2));
            assert!(scenario.shape().servers <= MOST);
        }
    }

    #[test]
    fn a_burst_is_equal_in_length_only() {
        let requests = Scenario::Burst.requests(1);
        assert_eq!(requests.len(), 64);
        let first = &requests[0];
        for other in &requests[1..] {
            assert_eq!(other.messages.len(), first.messages.len());
            assert_ne!(other.messages, first.messages);
        }
    }

    #[test]
    fn tenants_share_their_system_prompt_only() {
        let requests = Scenario::SharedPrefix.requests(1);
        let system = |r: &Request| {
            r.messages
                .split("\"role\":\"user\"")
                .next()
                .unwrap()
                .to_owned()
        };
        let mut systems: Vec<String> = requests.iter().map(system).collect();
        systems.sort();
        systems.dedup();
        assert_eq!(systems.len(), TENANTS);
    }
}
