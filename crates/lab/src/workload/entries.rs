//! The catalogue: names, numbers, and where the numbers come from.
//!
//! "Chosen" in a source marks what no publication gives.

use super::catalogue::Entry;
use super::makers;
use super::request::Span;
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
    kind: Kind::Made(makers::sharegpt),
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
        kind: Kind::Made(makers::sharegpt),
        ..USUAL
    },
    Entry {
        name: "sharegpt-ramp",
        description: "The same in ten steps from 100 to 1000 requests a second, as in the announcement of the Gateway API \
                      inference extension.",
        source: "kubernetes.io blog, 5 June 2025: 10 replicas of Llama-2 on H100, ShareGPT, 100 to 1000 QPS; lengths as \
                 sharegpt; steps of 30 s chosen",
        unit: "times 100 to 1000 requests/s",
        loads: &[1.0],
        profile: L8,
        longest: 2_048,
        duration: Some(300.0),
        warmup: 0.0,
        kind: Kind::Made(makers::sharegpt_ramp),
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
        kind: Kind::Made(makers::mooncake_like),
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
        kind: Kind::Made(makers::toolagent_like),
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
        kind: Kind::Made(|load, seed, span| makers::b2b(load, 1, seed, span)),
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
        kind: Kind::Made(|load, seed, span| makers::b2b(load, 4, seed, span)),
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
        kind: Kind::Made(makers::b2b_private),
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
        kind: Kind::Made(makers::zipf),
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
        kind: Kind::Made(makers::zipf_drift),
        ..USUAL
    },
    Entry {
        name: "tenants",
        description: "Nine tenants, each with a prompt of its own; one asks half of everything.",
        source: "for fairness between flows (Jain's index); numbers chosen; the capacity program says 53 requests/s",
        loads: &[40.0, 64.0],
        engines: 8,
        longest: 16_384,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(makers::unequal_tenants),
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
        kind: Kind::Made(makers::agentic),
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
        kind: Kind::Made(makers::chat),
        ..USUAL
    },
    Entry {
        name: "reasoning",
        description: "Short questions, long thought: bound by decoding.",
        source: "inference-perf, reasoning: 1000 (800) in, exponential out, here of mean 2000",
        loads: &[7.0],
        engines: 8,
        longest: 24_576,
        kind: Kind::Made(makers::reasoning),
        ..USUAL
    },
    Entry {
        name: "rag",
        description: "Questions about few or many documents of a corpus with favourites; long prompts, some reuse.",
        source: "inference-perf, batch RAG: about 15k in, bimodal, 500 out; corpus and popularity chosen",
        loads: &[5.0, 8.0],
        longest: 65_536,
        kind: Kind::Made(makers::rag),
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
        kind: Kind::Made(makers::azure_code_like),
        ..USUAL
    },
    Entry {
        name: "burst",
        description: "A square wave: for the last 15 s of each minute four times the rate of the rest.",
        source: "chosen",
        loads: &[24.0, 30.0],
        engines: 8,
        longest: 16_384,
        kind: Kind::Made(makers::burst),
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
        kind: Kind::Made(makers::lora),
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
        kind: Kind::Made(makers::lora_zipf),
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
        kind: Kind::Made(makers::mixed_lengths),
        ..USUAL
    },
    Entry {
        name: "classes",
        description: "20 % critical, 50 % standard, 30 % sheddable; the highest load is about twice what 8 engines can.",
        source: "chosen; the capacity program says 71 requests/s",
        loads: &[35.0, 70.0, 140.0],
        engines: 8,
        longest: 16_384,
        duration: Some(300.0),
        warmup: 60.0,
        kind: Kind::Made(makers::classes),
        ..USUAL
    },
];
