//! Policies of the literature, each as its authors ship it, and some once tuned.
//!
//! Each is written from its published formula, over one gateway ([`rule::Gateway`]) that keeps what a gateway can know:
//! its own dispatches, first tokens and ends, an approximate prefix index with the documented block and capacity, and
//! the metrics pages with their age. No policy sees output lengths or anything inside an engine. Constants stand in
//! [`manifest`] with their sources.
//!
//! What a policy cannot have here, because a gateway is told nothing of it, is approximated: Dynamo, Mooncake, LMetric
//! and LPWL follow the engines' KV events at home, and here an index of the KV cache's size, least recently used, into
//! which a prompt goes when it is sent and an answer when it ends.

mod aibrix;
mod chwbl;
mod dynamo;
mod fleet;
mod flow_control;
mod gaie;
mod index;
mod llmd;
mod manifest;
mod mooncake;
mod preble;
mod predicted;
mod rule;
mod simple;
mod smg;
#[cfg(test)]
mod tests;
mod work;

use simulator::EngineConfig;

use self::index::{Aging, Room, Spec};
use self::manifest as m;
use self::rule::{Gateway, Push, Rule};
use crate::{BLOCK_TOKENS, Dispatcher};

pub use manifest::{Constant, manifest};

const NAMES: [&str; 35] = [
    "random",
    "round-robin",
    "least-request",
    "p2c",
    "p2c-stale",
    "jsq-scraped",
    "gaie",
    "gaie-1-1-1",
    "gaie-no-hit-lru",
    "gaie-lora",
    "gaie-flow-control",
    "gaie-tuned",
    "llm-d-sticky",
    "llm-d-sticky-tuned",
    "predicted-latency",
    "predicted-latency-greedy",
    "smg-cache-aware",
    "smg-cache-aware-cli",
    "smg-cache-aware-tuned",
    "smg-least-load",
    "smg-least-load-tuned",
    "dynamo",
    "dynamo-t0.5",
    "dynamo-lmetric",
    "dynamo-tuned",
    "aibrix-prefix-cache",
    "aibrix-prefix-cache-main",
    "aibrix-preble",
    "chwbl",
    "chwbl-tuned",
    "preble-e2",
    "mooncake",
    "mooncake-tuned",
    "lmetric",
    "lpwl",
];

/// The names of all policies, in the order of reports.
#[must_use]
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// A fresh dispatcher of the policy for these engines; `None` for an unknown name. Equal seeds decide equally.
///
/// `NAME@VALUE` is a policy with another value of the one constant that matters most to it, for sweeps: the prefix weight
/// of `gaie-tuned`, the seconds of `llm-d-sticky-tuned`, the difference in requests of `smg-cache-aware-tuned`, the
/// prefill scale of `dynamo-tuned`, the load factor of `chwbl-tuned`.
#[must_use]
pub fn build(name: &str, engines: &[EngineConfig], seed: u64) -> Option<Box<dyn Dispatcher>> {
    let swept = match name.split_once('@') {
        Some((name, value)) => Some((name, value.parse().ok()?)),
        None => tuned(name).map(|value| (name, value)),
    };
    if let Some((name, value)) = swept {
        let (index, rule) = swept_rule(name, value, engines).filter(|_| value.is_finite())?;
        let gateway = Gateway::new(engines, index, rule, seed);
        return Some(Box::new(Push::new(gateway)));
    }
    let (index, rule) = simple_rule(name)
        .or_else(|| gaie_rule(name, engines))
        .or_else(|| llmd_rule(name))
        .or_else(|| smg_rule(name, engines))
        .or_else(|| dynamo_rule(name, engines))
        .or_else(|| cached_rule(name, engines))?;
    let gateway = Gateway::new(engines, index, rule, seed);
    Some(match name {
        "gaie-flow-control" => Box::new(flow_control::FlowControl::new(gateway)),
        _ => Box::new(Push::new(gateway)),
    })
}

type Plan = (Option<Spec>, Box<dyn Rule>);

fn simple_rule(name: &str) -> Option<Plan> {
    use simple::{Count, Fewest, Random, RoundRobin, TwoChoices};
    let rule: Box<dyn Rule> = match name {
        "random" => Box::new(Random),
        "round-robin" => Box::new(RoundRobin::default()),
        "least-request" => Box::new(Fewest(Count::Local)),
        "p2c" => Box::new(TwoChoices(Count::Local)),
        "p2c-stale" => Box::new(TwoChoices(Count::Scraped)),
        "jsq-scraped" => Box::new(Fewest(Count::Scraped)),
        _ => return None,
    };
    Some((None, rule))
}

/// What a sweep chose, of policies that were swept.
fn tuned(name: &str) -> Option<f64> {
    Some(match name {
        "gaie-tuned" => m::GAIE_TUNED_PREFIX_WEIGHT,
        "llm-d-sticky-tuned" => m::LLMD_TUNED_PENALTY_SECONDS,
        "smg-cache-aware-tuned" => m::SMG_TUNED_BALANCE_ABS,
        "dynamo-tuned" => m::DYNAMO_TUNED_PREFILL_SCALE,
        "chwbl-tuned" => m::CHWBL_TUNED_LOAD_FACTOR,
        _ => return None,
    })
}

fn swept_rule(name: &str, value: f64, engines: &[EngineConfig]) -> Option<Plan> {
    let own = |block| Some(cache_index(block, false));
    let plan: Plan = match name {
        "gaie-tuned" => {
            let weights = gaie::Weights {
                prefix: value,
                queue: m::GAIE_QUEUE_WEIGHT,
                kv: m::GAIE_KV_WEIGHT,
                no_hit_lru: m::GAIE_NO_HIT_LRU_WEIGHT,
                lora: 0.0,
            };
            let rule = gaie::Gaie::new(weights, engines.len(), true);
            (own(m::GAIE_BLOCK_TOKENS), Box::new(rule))
        }
        "llm-d-sticky-tuned" => (
            own(m::GAIE_BLOCK_TOKENS),
            Box::new(llmd::Sticky {
                peak: llmd::Peak::Own,
                penalty_seconds: value,
            }),
        ),
        "smg-cache-aware-tuned" => {
            let rule = smg::CacheAware::new(
                m::SMG_TUNED_THRESHOLD,
                value,
                m::SMG_TUNED_BALANCE_REL,
                engines.len(),
            );
            (own(m::SMG_BLOCK_TOKENS), Box::new(rule))
        }
        "dynamo-tuned" => {
            let settings = dynamo::Settings {
                overlap_credit: m::DYNAMO_OVERLAP_CREDIT,
                prefill_scale: value,
                temperature: m::DYNAMO_TEMPERATURE,
                combine: dynamo::Combine::Sum,
            };
            let rule = dynamo::Dynamo::new(settings, engines.len());
            (
                Some(cache_index(m::DYNAMO_BLOCK_TOKENS, true)),
                Box::new(rule),
            )
        }
        "chwbl-tuned" => (None, Box::new(chwbl::Chwbl::new(value, engines.len()))),
        _ => return None,
    };
    Some(plan)
}

fn gaie_rule(name: &str, engines: &[EngineConfig]) -> Option<Plan> {
    let shipped = gaie::Weights {
        prefix: m::GAIE_PREFIX_WEIGHT,
        queue: m::GAIE_QUEUE_WEIGHT,
        kv: m::GAIE_KV_WEIGHT,
        no_hit_lru: 0.0,
        lora: 0.0,
    };
    let with_lru = gaie::Weights {
        no_hit_lru: m::GAIE_NO_HIT_LRU_WEIGHT,
        ..shipped
    };
    let weights = match name {
        "gaie" | "gaie-flow-control" => shipped,
        "gaie-1-1-1" => gaie::Weights {
            prefix: m::GAIE_EQUAL_WEIGHT,
            queue: m::GAIE_EQUAL_WEIGHT,
            kv: m::GAIE_EQUAL_WEIGHT,
            ..shipped
        },
        "gaie-no-hit-lru" => with_lru,
        "gaie-lora" => gaie::Weights {
            lora: m::GAIE_LORA_WEIGHT,
            ..shipped
        },
        _ => return None,
    };
    let refuses = name != "gaie-flow-control";
    let rule = gaie::Gaie::new(weights, engines.len(), refuses);
    Some((Some(gaie_index()), Box::new(rule)))
}

fn llmd_rule(name: &str) -> Option<Plan> {
    use llmd::{Peak, Sticky};
    let own = cache_index(m::GAIE_BLOCK_TOKENS, false);
    let (index, rule): (Spec, Box<dyn Rule>) = match name {
        "llm-d-sticky" => (
            gaie_index(),
            Box::new(Sticky {
                peak: Peak::Published,
                penalty_seconds: m::LLMD_PENALTY_SECONDS,
            }),
        ),
        "predicted-latency" => (gaie_index(), Box::new(predicted::Predicted)),
        "predicted-latency-greedy" => (own, Box::new(predicted::Greedy)),
        _ => return None,
    };
    Some((Some(index), rule))
}

fn smg_rule(name: &str, engines: &[EngineConfig]) -> Option<Plan> {
    use smg::{CacheAware, LeastLoad};
    let aware = |threshold, abs, rel| -> Option<Plan> {
        let entries = m::SMG_TREE_CHARACTERS / m::SMG_CHARACTERS_A_TOKEN / m::SMG_BLOCK_TOKENS;
        let rule = CacheAware::new(threshold, abs, rel, engines.len());
        let index = sized_index(m::SMG_BLOCK_TOKENS, entries);
        Some((Some(index), Box::new(rule)))
    };
    match name {
        "smg-cache-aware" => aware(m::SMG_THRESHOLD, m::SMG_BALANCE_ABS, m::SMG_BALANCE_REL),
        "smg-cache-aware-cli" => aware(
            m::SMG_CLI_THRESHOLD,
            m::SMG_CLI_BALANCE_ABS,
            m::SMG_CLI_BALANCE_REL,
        ),
        "smg-least-load" => {
            let throughput = vec![m::SMG_THROUGHPUT; engines.len()];
            let rule = LeastLoad::new(m::SMG_POLL_SECONDS, throughput);
            Some((None, Box::new(rule)))
        }
        "smg-least-load-tuned" => {
            let speed = |engine: &EngineConfig| 1.0 / engine.profile.a;
            let throughput = engines.iter().map(speed).collect();
            let rule = LeastLoad::new(m::SMG_TUNED_POLL_SECONDS, throughput);
            Some((None, Box::new(rule)))
        }
        _ => None,
    }
}

fn dynamo_rule(name: &str, engines: &[EngineConfig]) -> Option<Plan> {
    use dynamo::{Combine, Dynamo, Settings};
    let shipped = Settings {
        overlap_credit: m::DYNAMO_OVERLAP_CREDIT,
        prefill_scale: m::DYNAMO_PREFILL_SCALE,
        temperature: m::DYNAMO_TEMPERATURE,
        combine: Combine::Sum,
    };
    let settings = match name {
        "dynamo" => shipped,
        "dynamo-t0.5" => Settings {
            temperature: m::DYNAMO_WARM_TEMPERATURE,
            ..shipped
        },
        "dynamo-lmetric" => Settings {
            combine: Combine::Product,
            ..shipped
        },
        _ => return None,
    };
    let index = cache_index(m::DYNAMO_BLOCK_TOKENS, true);
    Some((Some(index), Box::new(Dynamo::new(settings, engines.len()))))
}

fn cached_rule(name: &str, engines: &[EngineConfig]) -> Option<Plan> {
    use aibrix::{Gate, PrefixCache};
    let aibrix = sized_index(m::AIBRIX_BLOCK_TOKENS, m::AIBRIX_BLOCKS);
    let plan: (Option<Spec>, Box<dyn Rule>) = match name {
        "aibrix-prefix-cache" => (
            Some(aibrix),
            Box::new(PrefixCache {
                gate: Gate::Difference(m::AIBRIX_DIFFERENCE),
                deviations: m::AIBRIX_DEVIATIONS,
            }),
        ),
        "aibrix-prefix-cache-main" => (
            Some(aibrix),
            Box::new(PrefixCache {
                gate: Gate::Ratio(m::AIBRIX_RATIO),
                deviations: m::AIBRIX_MAIN_DEVIATIONS,
            }),
        ),
        "aibrix-preble" => (Some(aibrix), Box::new(preble::Port::new(engines.len()))),
        "chwbl" => (
            None,
            Box::new(chwbl::Chwbl::new(m::CHWBL_LOAD_FACTOR, engines.len())),
        ),
        "preble-e2" => (
            Some(cache_index(m::PREBLE_BLOCK_TOKENS, false)),
            Box::new(preble::E2::new(engines.len())),
        ),
        "mooncake" | "mooncake-tuned" => (
            Some(cache_index(m::MOONCAKE_BLOCK_TOKENS, true)),
            Box::new(mooncake::Conductor {
                refuses: name == "mooncake",
            }),
        ),
        "lmetric" => (
            Some(cache_index(m::LMETRIC_BLOCK_TOKENS, true)),
            Box::new(work::LMetric),
        ),
        "lpwl" => (
            Some(cache_index(m::LPWL_BLOCK_TOKENS, true)),
            Box::new(work::Lpwl),
        ),
        _ => return None,
    };
    Some(plan)
}

/// The index as GAIE and llm-d ship it: auto-tuned to one entry for each engine block though its blocks are four times
/// as long, heads first out.
fn gaie_index() -> Spec {
    Spec {
        stride: stride(m::GAIE_BLOCK_TOKENS),
        most_tokens: m::GAIE_MOST_TOKENS as u32,
        room: Room::EngineBlocks,
        aging: Aging::Head,
        answers: false,
    }
}

/// An index of the size of the engine's KV cache.
fn cache_index(block_tokens: f64, answers: bool) -> Spec {
    Spec {
        stride: stride(block_tokens),
        most_tokens: u32::MAX,
        room: Room::Cache,
        aging: Aging::Tail,
        answers,
    }
}

/// An index of a fixed size.
fn sized_index(block_tokens: f64, entries: f64) -> Spec {
    Spec {
        room: Room::Entries(entries as usize),
        ..cache_index(block_tokens, false)
    }
}

fn stride(block_tokens: f64) -> usize {
    block_tokens as usize / BLOCK_TOKENS as usize
}
