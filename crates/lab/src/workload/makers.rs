//! How the entries of the catalogue are made: the numbers behind the names.

use super::arrivals::Pace;
use super::lookalike::{self, Lookalike};
use super::open::{Contents, Documents, Drift, Independent, OpenLoop, Tenants};
use super::random::{Tokens, Zipf};
use super::request::Span;
use super::rounds::{self, Rounds};
use super::sessions::{self, Sessions, Think};
use crate::Workload;

const CHAT_IN: Tokens =
    Tokens::Quantiles(&[(0.0, 16), (0.5, 109), (0.9, 714), (0.99, 987), (1.0, 1024)]);
// Cut at 1024 its p50/p90/p99 are 142/557/946 and its mean 223.
const CHAT_OUT: Tokens = Tokens::LogNormal {
    median: 160.0,
    sigma: 1.3,
    range: (4, 1024),
};
/// Assistants' requests of middling length: mean 1530 in, 255 out.
const MIDDLE_IN: Tokens = Tokens::LogNormal {
    median: 1200.0,
    sigma: 0.7,
    range: (32, 12_000),
};
const MIDDLE_OUT: Tokens = Tokens::LogNormal {
    median: 200.0,
    sigma: 0.7,
    range: (4, 2_000),
};

fn plain(seed: u64, prompt: Tokens, output: Tokens) -> Independent {
    Independent {
        seed,
        system: 0,
        prompt,
        output,
        max_output: None,
        tenants: 10,
        adapters: None,
        classes: &[(1.0, 0)],
    }
}

fn poisson<C: Contents + 'static>(
    load: f64,
    contents: C,
    seed: u64,
    span: Span,
) -> Box<dyn Workload> {
    Box::new(OpenLoop::new(Pace::Poisson(load), contents, seed, span))
}

fn short_chats(seed: u64) -> Independent {
    Independent {
        max_output: Some(1024),
        ..plain(seed, CHAT_IN, CHAT_OUT)
    }
}

pub(super) fn sharegpt(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    poisson(load, short_chats(seed), seed, span)
}

/// 100 to 1000 a second at load 1, in ten steps.
pub(super) fn sharegpt_ramp(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let pace = Pace::Stairs {
        rate: 100.0 * load,
        steps: 10,
        length: span.end / 10.0,
    };
    Box::new(OpenLoop::new(pace, short_chats(seed), seed, span))
}

pub(super) fn lora(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let weights = [0.12, 0.06, 0.02]
        .into_iter()
        .flat_map(|weight| [weight; 5]);
    let contents = Independent {
        adapters: Some(Zipf::weighted(weights)),
        ..short_chats(seed)
    };
    poisson(load, contents, seed, span)
}

pub(super) fn lora_zipf(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let contents = Independent {
        adapters: Some(Zipf::new(64, 1.0)),
        ..short_chats(seed)
    };
    poisson(load, contents, seed, span)
}

pub(super) fn mixed_lengths(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    const SHORT: Tokens = Tokens::LogNormal {
        median: 200.0,
        sigma: 0.8,
        range: (16, 2_000),
    };
    const LONG: Tokens = Tokens::LogNormal {
        median: 4000.0,
        sigma: 0.6,
        range: (1_000, 24_000),
    };
    let contents = plain(seed, Tokens::Either(0.7, &SHORT, &LONG), MIDDLE_OUT);
    poisson(load, contents, seed, span)
}

pub(super) fn classes(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let contents = Independent {
        classes: &[(0.2, 1), (0.5, 0), (0.3, -1)],
        ..plain(seed, MIDDLE_IN, MIDDLE_OUT)
    };
    poisson(load, contents, seed, span)
}

pub(super) fn burst(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let pace = Pace::Square {
        rate: load,
        peak: 4.0,
        duty: 0.25,
        period: 60.0,
    };
    let contents = Independent {
        system: 500,
        ..plain(seed, MIDDLE_IN, MIDDLE_OUT)
    };
    Box::new(OpenLoop::new(pace, contents, seed, span))
}

pub(super) fn azure_code_like(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let pace = Pace::Bursty {
        rate: load,
        cv: 13.0,
    };
    let input = Tokens::Quantiles(&[
        (0.0, 100),
        (0.5, 1469),
        (0.9, 5188),
        (0.99, 7436),
        (1.0, 7500),
    ]);
    let output = Tokens::LogNormal {
        median: 13.0,
        sigma: 1.24,
        range: (1, 1_000),
    };
    Box::new(OpenLoop::new(pace, plain(seed, input, output), seed, span))
}

pub(super) fn reasoning(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    // Mean 1000 and deviation 800.
    let input = Tokens::LogNormal {
        median: 781.0,
        sigma: 0.703,
        range: (32, 8_000),
    };
    let output = Tokens::Exponential {
        mean: 2000.0,
        range: (16, 16_000),
    };
    poisson(load, plain(seed, input, output), seed, span)
}

fn tenants(seed: u64) -> Tenants {
    let question = Tokens::Exponential {
        mean: 450.0,
        range: (16, 4_000),
    };
    let answer = Tokens::LogNormal {
        median: 160.0,
        sigma: 0.7,
        range: (8, 1_500),
    };
    Tenants::new(seed, 200, 1.1, Tokens::Uniform(4_000, 8_000)).sizes(question, answer)
}

/// One tenant asks half of everything, the next a quarter of what is left, seven others the rest in equal parts.
pub(super) fn unequal_tenants(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shares = [0.5, 0.125].into_iter().chain([0.375 / 7.0; 7]);
    let contents = Tenants::new(seed, 9, 1.0, Tokens::Uniform(2_000, 4_000))
        .popularity(Zipf::weighted(shares))
        .sizes(
            Tokens::LogNormal {
                median: 900.0,
                sigma: 0.8,
                range: (32, 8_000),
            },
            MIDDLE_OUT,
        );
    poisson(load, contents, seed, span)
}

pub(super) fn zipf(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    poisson(load, tenants(seed), seed, span)
}

pub(super) fn zipf_drift(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let drift = Drift {
        at: (span.warmup + span.end) / 2.0,
        share: 0.3,
    };
    poisson(load, tenants(seed).drift(drift), seed, span)
}

pub(super) fn rag(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    const FEW: Tokens = Tokens::Uniform(1, 3);
    const MANY: Tokens = Tokens::Uniform(6, 12);
    let contents = Documents {
        seed,
        system: 500,
        corpus: Zipf::new(2_000, 0.9),
        document: Tokens::LogNormal {
            median: 2500.0,
            sigma: 0.4,
            range: (500, 4_000),
        },
        count: Tokens::Either(0.5, &FEW, &MANY),
        question: Tokens::LogNormal {
            median: 80.0,
            sigma: 0.6,
            range: (8, 500),
        },
        output: Tokens::LogNormal {
            median: 420.0,
            sigma: 0.6,
            range: (16, 2_000),
        },
        tenants: 20,
    };
    poisson(load, contents, seed, span)
}

const B2B: rounds::Shape = rounds::Shape {
    groups: 150,
    prompts: 5,
    system: 6_000,
    question: 1_200,
    output: 1_000,
    warmup_rate: 15.0,
};

pub(super) fn b2b(load: f64, rounds: u64, seed: u64, span: Span) -> Box<dyn Workload> {
    Box::new(Rounds::new(B2B, load, rounds, seed, span.end))
}

pub(super) fn b2b_private(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = rounds::Shape {
        system: 1_000,
        question: 6_200,
        warmup_rate: 5.0,
        ..B2B
    };
    Box::new(Rounds::new(shape, load, 1, seed, span.end))
}

pub(super) fn agentic(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = sessions::Shape {
        tenants: 20,
        system: Tokens::Uniform(6_000, 10_000),
        first: Tokens::LogNormal {
            median: 1500.0,
            sigma: 0.6,
            range: (200, 6_000),
        },
        growth: Tokens::LogNormal {
            median: 900.0,
            sigma: 1.0,
            range: (50, 8_000),
        },
        output: Tokens::LogNormal {
            median: 200.0,
            sigma: 0.8,
            range: (20, 2_000),
        },
        max_output: Some(4_096),
        turns: Tokens::Uniform(6, 18),
        think: Think {
            mean: 10.0,
            deviation: 10.0,
        },
        longest: 40_960,
    };
    Box::new(Sessions::new(shape, load, seed, span))
}

pub(super) fn chat(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = sessions::Shape {
        tenants: 10,
        system: Tokens::Fixed(1_000),
        first: Tokens::Normal {
            mean: 3000.0,
            deviation: 2500.0,
            range: (50, 12_000),
        },
        growth: Tokens::LogNormal {
            median: 150.0,
            sigma: 1.0,
            range: (8, 4_000),
        },
        output: Tokens::Normal {
            mean: 300.0,
            deviation: 150.0,
            range: (16, 1_000),
        },
        max_output: None,
        turns: Tokens::Fixed(4),
        think: Think {
            mean: 45.0,
            deviation: 40.0,
        },
        longest: 32_768,
    };
    Box::new(Sessions::new(shape, load, seed, span))
}

pub(super) fn mooncake_like(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = lookalike::Shape {
        rate: 3.40,
        depths: &[
            7373.0, 2265.0, 949.0, 484.0, 284.0, 167.0, 114.0, 88.0, 63.0, 49.0, 33.0,
        ],
        further: 0.83,
        common: 512,
        agents: None,
        first: Tokens::LogNormal {
            median: 5000.0,
            sigma: 1.2,
            range: (300, 120_000),
        },
        growth: Tokens::LogNormal {
            median: 497.0,
            sigma: 1.8,
            range: (16, 60_000),
        },
        output: Tokens::LogNormal {
            median: 300.0,
            sigma: 0.6,
            range: (1, 2_000),
        },
        gap: (132.0, 0.98),
        longest: 131_072,
        lead: 1_800.0,
    };
    Box::new(Lookalike::new(shape, load, seed, span))
}

pub(super) fn toolagent_like(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = lookalike::Shape {
        rate: 6.56,
        depths: &[1.0],
        further: 0.45,
        common: 0,
        agents: Some((
            60,
            1.0,
            Tokens::LogNormal {
                median: 2100.0,
                sigma: 0.6,
                range: (300, 12_000),
            },
        )),
        first: Tokens::LogNormal {
            median: 2800.0,
            sigma: 1.15,
            range: (64, 100_000),
        },
        growth: Tokens::LogNormal {
            median: 830.0,
            sigma: 1.2,
            range: (16, 40_000),
        },
        output: Tokens::LogNormal {
            median: 85.0,
            sigma: 1.35,
            range: (1, 2_000),
        },
        gap: (30.0, 0.9),
        longest: 131_072,
        lead: 600.0,
    };
    Box::new(Lookalike::new(shape, load, seed, span))
}
