//! The catalogue: names, numbers, and where the numbers come from.
//!
//! "Chosen" in a source marks what no publication gives.

use super::arrivals::Pace;
use super::catalogue::Entry;
use super::lookalike::{self, Lookalike};
use super::open::{Documents, Drift, Independent, OpenLoop, Tenants};
use super::random::{Tokens, Zipf};
use super::request::Span;
use super::rounds::{self, Rounds};
use super::sessions::{self, Sessions, Think};
use super::trace::Format;
use crate::Workload;

/// How an entry comes about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// From load, seed and span.
    Made(fn(f64, u64, Span) -> Box<dyn Workload>),
    /// From a file, under one of these names.
    Trace {
        format: Format,
        files: &'static [&'static str],
        origin: &'static str,
    },
}

const Q32: &str = "qwen3-32b-tp2-h100";
const L8: &str = "llama-3.1-8b-h100";
const L8_A100: &str = "llama-3-8b-a100";

const MOONCAKE: &str = "https://github.com/kvcache-ai/Mooncake, FAST25-release/traces";
const AZURE: &str = "https://github.com/Azure/AzurePublicDataset, data";

/// What entries have in common.
const USUAL: Entry = Entry {
    name: "",
    description: "",
    source: "",
    unit: "requests/s",
    loads: &[],
    engines: 10,
    profile: Q32,
    others: &[],
    longest: 40_960,
    duration: Some(600.0),
    warmup: 120.0,
    adapter_slots: None,
    kind: Kind::Made(sharegpt),
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "sharegpt",
        description: "Short chats without anything shared; nothing to exploit but even load.",
        source: "quantiles of the ShareGPT sample of the Gateway API inference extension's benchmarks \
                 (in 109/714/987, out 144/564/948 at p50/p90/p99, cut at 1024); Poisson",
        loads: &[100.0, 200.0, 400.0],
        engines: 8,
        profile: L8,
        longest: 2_048,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(sharegpt),
        ..USUAL
    },
    Entry {
        name: "mooncake",
        description: "Mooncake's conversation trace: long, very uneven prompts, a third of the blocks seen before.",
        source: "Mooncake, arXiv 2407.00079, conversation trace; timestamps, rounded to 3 s, spread by seed; the seed \
                 chooses the window",
        unit: "times the trace",
        loads: &[2.0, 2.4],
        longest: 131_072,
        kind: Kind::Trace {
            format: Format::Mooncake,
            files: &["mooncake_conversation.jsonl", "conversation_trace.jsonl"],
            origin: MOONCAKE,
        },
        ..USUAL
    },
    Entry {
        name: "mooncake-toolagent",
        description: "Mooncake's tool and agent trace: shorter prompts, more of them seen before.",
        source: "Mooncake, arXiv 2407.00079, toolagent trace; timestamps as for mooncake",
        unit: "times the trace",
        loads: &[2.0, 3.0],
        longest: 131_072,
        kind: Kind::Trace {
            format: Format::Mooncake,
            files: &["mooncake_toolagent.jsonl", "toolagent_trace.jsonl"],
            origin: MOONCAKE,
        },
        ..USUAL
    },
    Entry {
        name: "mooncake-like",
        description: "Made to look like Mooncake's conversation trace, for where the trace is not at hand.",
        source: "depths of conversations, gaps, growth and lengths fitted to Mooncake's conversation trace",
        unit: "times the trace",
        loads: &[2.0, 2.4],
        longest: 131_072,
        kind: Kind::Made(mooncake_like),
        ..USUAL
    },
    Entry {
        name: "toolagent-like",
        description: "Made to look like Mooncake's tool and agent trace. Kept aside while policies are tuned.",
        source: "rate, mean lengths (8596 in, 182 out) and reuse (59 %) of Mooncake's toolagent trace; agents, depths \
                 and gaps chosen to meet them",
        unit: "times the trace",
        loads: &[2.0, 3.0],
        longest: 131_072,
        kind: Kind::Made(toolagent_like),
        ..USUAL
    },
    Entry {
        name: "b2b",
        description: "150 groups of 5 prompts share 6000 tokens; a warm-up round, its backlog carried over, then one \
                      round. Scarce KV and much decoding.",
        source: "llm-d KV cache manager, benchmarking/73-capacity: 6000 shared + 1200 in, 1000 out, warm-up at 15 QPS",
        loads: &[9.0, 12.0, 14.0],
        engines: 8,
        longest: 8_200,
        duration: None,
        warmup: 0.0,
        kind: Kind::Made(|load, seed, span| b2b(load, 1, seed, span)),
        ..USUAL
    },
    Entry {
        name: "b2b-long",
        description: "The same with four rounds after the warm-up.",
        source: "as b2b; number of rounds chosen",
        loads: &[10.0],
        engines: 8,
        longest: 8_200,
        duration: None,
        warmup: 0.0,
        kind: Kind::Made(|load, seed, span| b2b(load, 4, seed, span)),
        ..USUAL
    },
    Entry {
        name: "b2b-private",
        description: "Groups that share 1000 tokens and ask 6200 of their own: little to save.",
        source: "llm-d KV cache manager, scenario D: 1000 shared + 6200 in; groups, output and warm-up as b2b, at 5 QPS",
        loads: &[3.0, 5.0],
        engines: 8,
        longest: 8_200,
        duration: None,
        warmup: 0.0,
        kind: Kind::Made(b2b_private),
        ..USUAL
    },
    Entry {
        name: "zipf",
        description: "200 tenants with a prompt of 4000 to 8000 tokens each, some far busier than others.",
        source: "tenants and exponent 1.1 as is usual for hot prefixes; lengths chosen (question 450 exponential, \
                 answer 200)",
        loads: &[60.0, 90.0],
        longest: 16_384,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(zipf),
        ..USUAL
    },
    Entry {
        name: "zipf-drift",
        description: "The same; in the middle of the run an unknown tenant takes 30 % of all requests.",
        source: "as zipf; share of the new tenant chosen",
        loads: &[60.0, 90.0],
        longest: 16_384,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(zipf_drift),
        ..USUAL
    },
    Entry {
        name: "agentic",
        description: "Agents of 20 tenants in a closed loop: about 12 turns, a context that grows to 30k tokens, 10 s \
                      of tools between turns. Scarce KV.",
        source: "shape after agentic replays (LPWL's, llm-d's GLM-5.1 coder); numbers chosen so that contexts under way \
                 exceed the caches of 10 engines",
        unit: "sessions/s",
        loads: &[0.8, 1.0],
        duration: Some(900.0),
        warmup: 300.0,
        kind: Kind::Made(agentic),
        ..USUAL
    },
    Entry {
        name: "chat",
        description: "Chats of 4 turns in a closed loop with 45 s of thought.",
        source: "inference-perf, interactive-chat: 4000 (2500) in with a system prompt of 1000, 300 (150) out, think \
                 45 (40) s; growth chosen",
        unit: "sessions/s",
        loads: &[4.0, 8.0],
        longest: 32_768,
        duration: Some(900.0),
        warmup: 300.0,
        kind: Kind::Made(chat),
        ..USUAL
    },
    Entry {
        name: "reasoning",
        description: "Short questions, long thought: bound by decoding.",
        source: "inference-perf, reasoning: 1000 (800) in, exponential out, here of mean 2000",
        loads: &[7.0],
        engines: 8,
        longest: 24_576,
        kind: Kind::Made(reasoning),
        ..USUAL
    },
    Entry {
        name: "rag",
        description: "Questions about few or many documents of a corpus with favourites; long prompts, some reuse.",
        source: "inference-perf, batch RAG: about 15k in, bimodal, 500 out; corpus and popularity chosen",
        loads: &[5.0, 8.0],
        longest: 65_536,
        kind: Kind::Made(rag),
        ..USUAL
    },
    Entry {
        name: "azure-code",
        description: "Azure's code completion of 2023: long in, short out, in violent bursts.",
        source: "Azure public dataset, LLM inference 2023, code; gaps of CV 13",
        unit: "times the trace",
        loads: &[1.0, 2.0],
        engines: 4,
        longest: 16_384,
        kind: Kind::Trace {
            format: Format::Azure,
            files: &["azure_code_2023.csv", "AzureLLMInferenceTrace_code.csv"],
            origin: AZURE,
        },
        ..USUAL
    },
    Entry {
        name: "azure-conversation",
        description: "Azure's conversations of 2023.",
        source: "Azure public dataset, LLM inference 2023, conv",
        unit: "times the trace",
        loads: &[4.0, 8.0],
        engines: 8,
        longest: 32_768,
        kind: Kind::Trace {
            format: Format::Azure,
            files: &["azure_conv_2023.csv", "AzureLLMInferenceTrace_conv.csv"],
            origin: AZURE,
        },
        ..USUAL
    },
    Entry {
        name: "azure-code-like",
        description: "Made to look like Azure's code completion, for where the trace is not at hand.",
        source: "quantiles of the trace (in 1469/5188/7436 at p50/p90/p99; out median 13, mean 28), Gamma gaps of CV 13",
        loads: &[2.6, 5.1],
        engines: 4,
        longest: 16_384,
        kind: Kind::Made(azure_code_like),
        ..USUAL
    },
    Entry {
        name: "burst",
        description: "A square wave: for the last 15 s of each minute four times the rate of the rest.",
        source: "chosen",
        loads: &[24.0, 30.0],
        engines: 8,
        longest: 16_384,
        kind: Kind::Made(burst),
        ..USUAL
    },
    Entry {
        name: "lora",
        description: "15 adapters of three popularities on engines that hold 3 at once.",
        source: "Gateway API inference extension, multi-LoRA regression: 5 adapters of 12 %, 5 of 6 %, 5 of 2 %, \
                 max-lora 3, 20 to 200 QPS; lengths as sharegpt",
        loads: &[20.0, 100.0, 200.0],
        profile: L8,
        longest: 2_048,
        duration: Some(300.0),
        warmup: 60.0,
        adapter_slots: Some(3),
        kind: Kind::Made(lora),
        ..USUAL
    },
    Entry {
        name: "lora-zipf",
        description: "64 adapters, some far busier than others, on engines that hold 8 at once.",
        source: "adapters by popularity as in S-LoRA, arXiv 2311.03285; numbers chosen; lengths as sharegpt",
        loads: &[100.0, 200.0],
        profile: L8,
        longest: 2_048,
        duration: Some(300.0),
        warmup: 60.0,
        adapter_slots: Some(8),
        kind: Kind::Made(lora_zipf),
        ..USUAL
    },
    Entry {
        name: "mixed-lengths",
        description: "Short chats and long prompts together, for a fleet of fast and slow engines.",
        source: "after Melange, arXiv 2404.14527: short requests suit small GPUs, long ones large; lengths chosen",
        loads: &[60.0, 90.0],
        engines: 4,
        profile: L8,
        others: &[(L8_A100, 4)],
        longest: 32_768,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(mixed_lengths),
        ..USUAL
    },
    Entry {
        name: "classes",
        description: "20 % critical, 50 % standard, 30 % sheddable; the highest load is about twice what 8 engines can.",
        source: "chosen",
        loads: &[30.0, 60.0, 120.0],
        engines: 8,
        longest: 16_384,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(classes),
        ..USUAL
    },
];

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

fn poisson<C: super::open::Contents + 'static>(
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

fn sharegpt(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    poisson(load, short_chats(seed), seed, span)
}

fn lora(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let weights = [0.12, 0.06, 0.02]
        .into_iter()
        .flat_map(|weight| [weight; 5]);
    let contents = Independent {
        adapters: Some(Zipf::weighted(weights)),
        ..short_chats(seed)
    };
    poisson(load, contents, seed, span)
}

fn lora_zipf(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let contents = Independent {
        adapters: Some(Zipf::new(64, 1.0)),
        ..short_chats(seed)
    };
    poisson(load, contents, seed, span)
}

fn mixed_lengths(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn classes(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let contents = Independent {
        classes: &[(0.2, 1), (0.5, 0), (0.3, -1)],
        ..plain(seed, MIDDLE_IN, MIDDLE_OUT)
    };
    poisson(load, contents, seed, span)
}

fn burst(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn azure_code_like(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn reasoning(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn zipf(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    poisson(load, tenants(seed), seed, span)
}

fn zipf_drift(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let drift = Drift {
        at: (span.warmup + span.end) / 2.0,
        share: 0.3,
    };
    poisson(load, tenants(seed).drift(drift), seed, span)
}

fn rag(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn b2b(load: f64, rounds: u64, seed: u64, span: Span) -> Box<dyn Workload> {
    Box::new(Rounds::new(B2B, load, rounds, seed, span.end))
}

fn b2b_private(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = rounds::Shape {
        system: 1_000,
        question: 6_200,
        warmup_rate: 5.0,
        ..B2B
    };
    Box::new(Rounds::new(shape, load, 1, seed, span.end))
}

fn agentic(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn chat(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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

fn mooncake_like(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
    let shape = lookalike::Shape {
        rate: 3.40,
        depths: &[
            7373.0, 2265.0, 949.0, 484.0, 284.0, 167.0, 114.0, 88.0, 63.0, 49.0, 33.0,
        ],
        further: 0.83,
        common: 512,
        agents: None,
        first: Tokens::LogNormal {
            median: 5800.0,
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

fn toolagent_like(load: f64, seed: u64, span: Span) -> Box<dyn Workload> {
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
            median: 2600.0,
            sigma: 1.1,
            range: (64, 100_000),
        },
        growth: Tokens::LogNormal {
            median: 830.0,
            sigma: 1.2,
            range: (16, 40_000),
        },
        output: Tokens::LogNormal {
            median: 78.0,
            sigma: 1.3,
            range: (1, 2_000),
        },
        gap: (30.0, 0.9),
        longest: 131_072,
        lead: 600.0,
    };
    Box::new(Lookalike::new(shape, load, seed, span))
}
