//! The simulated engine against published measurements: gates that it must pass before its comparisons mean anything.
//!
//! A gate is a number that somebody measured or announced, what the simulation says instead, and the range in which that
//! may lie. Single engines take milliseconds; fleets (`quick` leaves them out) some seconds each.

use std::fmt::Write as _;

use simulator::profiles::{
    LLAMA_2_70B_TP4_H100, LLAMA_3_1_8B_H100, LLAMA_3_3_70B_FP8_TP2_H100, LLAMA_3_8B_A100, Model,
    QWEN3_32B_TP2_H100, QWEN3_32B_TP2_H100_RECIPE, Work,
};
use simulator::{Engine, EngineConfig, OutputKind, Profile, Sequence, extend_chain};

use crate::stats::{Slo, Summary};
use crate::{RunConfig, RunOutcome, policies, run, workload};

/// One published number and what the simulation makes of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Gate {
    /// What it is about.
    pub name: String,
    /// What was published, in words.
    pub expected: String,
    /// What the simulation says.
    pub got: f64,
    /// Of what.
    pub unit: &'static str,
    /// Between these it passes.
    pub range: [f64; 2],
    /// Who published it.
    pub source: &'static str,
    /// Whether it passes.
    pub pass: bool,
}

const LLMD_FIT: &str = "llm-d, fit for Qwen3-32B TP2 on H100: 42.5 us*P + 443.2 ps*P^2";
const LLMD_RECIPE: &str = "llm-d, capacity recipe: 15,928 prompt tokens a second";
const LLMD_B2B: &str = "llm-d, \"KV-cache wins you can see\", 150 groups of 5 prompts";
const LLMD_STICKY: &str = "llm-d, \"Sticky until saturated\", shared prefix on 8 pods";
const VIDUR: &str = "microsoft/vidur, data/profiling, layers without attention";
const SPLITWISE: &str = "Splitwise-sim, perf_model.csv, H100, Llama-2-70B TP4, prefill";
const NIM: &str = "NVIDIA NIM, performance of Llama-3.3-70B fp8 TP2 H100, 5000 in, 500 out";

/// Measures every gate; `quick` those of single engines only.
#[must_use]
pub fn calibrate(quick: bool) -> Vec<Gate> {
    let mut gates = prefills();
    gates.extend(vidur());
    gates.extend(splitwise());
    gates.extend(saturation());
    if !quick {
        gates.extend(fleets());
    }
    gates
}

/// The gates as a table.
#[must_use]
pub fn table(gates: &[Gate]) -> String {
    let mut text = String::from("| | Gate | Published | Simulated | Passes within | Source |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for gate in gates {
        let mark = if gate.pass { "ok" } else { "FAILS" };
        let [low, high] = gate.range;
        let _ = writeln!(
            text,
            "| {mark} | {} | {} | {:.4} {} | {low:.4} to {high:.4} | {} |",
            gate.name, gate.expected, gate.got, gate.unit, gate.source
        );
    }
    text
}

fn gate(
    name: impl Into<String>,
    expected: impl Into<String>,
    (got, unit): (f64, &'static str),
    range: [f64; 2],
    source: &'static str,
) -> Gate {
    Gate {
        name: name.into(),
        expected: expected.into(),
        got,
        unit,
        range,
        source,
        pass: got >= range[0] && got <= range[1],
    }
}

/// A gate around a number.
fn near(
    name: impl Into<String>,
    expected: f64,
    tolerance: f64,
    got: (f64, &'static str),
    source: &'static str,
) -> Gate {
    let range = [expected * (1.0 - tolerance), expected * (1.0 + tolerance)];
    gate(name, format!("{expected:.4}"), got, range, source)
}

/// Seconds to the first token of a lone prompt, and of the same once more.
fn twice(model: &Model, tokens: u32) -> [f64; 2] {
    let mut engine = Engine::new(EngineConfig::for_model(model), 1);
    let mut chain = Vec::new();
    extend_chain(&mut chain, (tokens / 16) as usize, 1);
    let mut now = 0.0;
    [1, 2].map(|id| {
        let begun = now;
        let sequence = Sequence {
            prompt: chain.clone().into(),
            prompt_tokens: tokens,
            ..Sequence::new(id)
        };
        let mut outputs = Vec::new();
        if engine.submit(now, sequence).is_ok() {
            while let Some(plan) = engine.step(now) {
                now += plan.duration;
                engine.finish_step(now, &mut outputs);
            }
        }
        now - begun
    })
}

fn prefills() -> Vec<Gate> {
    let fit = 42.5e-6 * 8192.0 + 443.2e-12 * 8192.0 * 8192.0;
    let recipe = 8192.0 / 15_928.0;
    let step = {
        let mut work = Work::default();
        work.decode(1000);
        QWEN3_32B_TP2_H100.profile.step_seconds(&work)
    };
    let [first, second] = twice(&QWEN3_32B_TP2_H100, 10_000);
    vec![
        near(
            "8192 tokens prefilled on Qwen3-32B TP2 H100",
            fit,
            0.05,
            (twice(&QWEN3_32B_TP2_H100, 8192)[0], "s"),
            LLMD_FIT,
        ),
        near(
            "the same by the slower calibration",
            recipe,
            0.02,
            (twice(&QWEN3_32B_TP2_H100_RECIPE, 8192)[0], "s"),
            LLMD_RECIPE,
        ),
        gate(
            "a lone decode step on Qwen3-32B TP2 H100",
            "14 to 15 ms",
            (step * 1e3, "ms"),
            [14.0, 15.0],
            "65.5 GB of weights at 75 % of 6.7 TB/s, and overhead",
        ),
        gate(
            "a prompt of 10,000 tokens, first time to second",
            "4.3 s to 0.6 s on other hardware: 7 times or more",
            (first / second, "times"),
            [7.0, f64::INFINITY],
            LLMD_B2B,
        ),
    ]
}

fn vidur() -> Vec<Gate> {
    let linear = |model: &Model, tokens: u64| {
        let work = Work {
            prefill_tokens: tokens,
            ..Work::default()
        };
        model.profile.step_seconds(&work) * 1e3
    };
    let alone = [
        ("70B TP4 H100", &LLAMA_2_70B_TP4_H100, 14.3),
        ("8B A100", &LLAMA_3_8B_A100, 9.7),
    ];
    let lines = [
        ("70B TP4 H100", &LLAMA_2_70B_TP4_H100, 10.2, 52.3e-3),
        ("8B A100", &LLAMA_3_8B_A100, 8.1, 66.1e-3),
        ("8B H100 (by the 7B's)", &LLAMA_3_1_8B_H100, 2.9, 20.2e-3),
    ];
    let mut gates: Vec<Gate> = alone
        .iter()
        .map(|(name, model, ms)| {
            let name = format!("a token, {name}");
            near(name, *ms, 0.1, (linear(model, 1), "ms"), VIDUR)
        })
        .collect();
    for (name, model, intercept, slope) in lines {
        for tokens in [2048_u32, 4096, 8192] {
            let expected = intercept + slope * f64::from(tokens);
            let got = linear(model, u64::from(tokens));
            let name = format!("{tokens} tokens, {name}");
            gates.push(near(name, expected, 0.1, (got, "ms"), VIDUR));
        }
    }
    gates
}

/// Older kernels than Vidur's: about half as fast. A profile of its own, for prefill only.
const SPLITWISE_70B_TP4: Profile = Profile {
    c0: 5e-3,
    w_base: 12.8e-3,
    a: 104.3e-6,
    q: 250e-12,
    k_v: 0.0306e-6,
    s: 10e-6,
};

fn splitwise() -> Vec<Gate> {
    let points = [
        (512, 60.0),
        (1024, 106.0),
        (2048, 201.0),
        (4096, 464.0),
        (8192, 954.0),
    ];
    let one = |(tokens, ms): (u32, f64)| {
        let mut work = Work::default();
        work.prefill(0, tokens);
        let got = SPLITWISE_70B_TP4.step_seconds(&work) * 1e3;
        let name = format!("{tokens} tokens, 70B TP4 H100 with attention");
        near(name, ms, 0.1, (got, "ms"), SPLITWISE)
    };
    points.into_iter().map(one).collect()
}

/// Mean seconds to the first token and a token, and tokens a second, of one engine that so many clients keep busy.
#[derive(Debug, Clone, Copy)]
struct Busy {
    ttft: f64,
    itl: f64,
    rate: f64,
}

fn keep_busy(model: &Model, clients: u64, prompt: u32, output: u32, rounds: u64) -> Busy {
    let mut engine = Engine::new(EngineConfig::for_model(model), 1);
    let mut sent = Vec::new();
    let submit = |engine: &mut Engine, now: f64, sent: &mut Vec<f64>| {
        let sequence = Sequence {
            prompt_tokens: prompt,
            output_tokens: output,
            ..Sequence::new(sent.len() as u64)
        };
        // It fits and its id is new.
        if engine.submit(now, sequence).is_ok() {
            sent.push(now);
        }
    };
    (0..clients).for_each(|_| submit(&mut engine, 0.0, &mut sent));
    let (mut now, mut outputs) = (0.0, Vec::new());
    let mut first = std::collections::BTreeMap::new();
    let (mut ttft, mut decoding, mut done) = (0.0, 0.0, 0.0);
    let all = clients * rounds;
    while let Some(plan) = engine.step(now) {
        now += plan.duration;
        outputs.clear();
        engine.finish_step(now, &mut outputs);
        for output in &outputs {
            match output.kind {
                OutputKind::FirstToken { .. } => {
                    ttft += now - sent[output.id as usize];
                    first.insert(output.id, now);
                }
                OutputKind::Finished { .. } => {
                    decoding += now - first.remove(&output.id).unwrap_or(now);
                    done += 1.0;
                    if (sent.len() as u64) < all {
                        submit(&mut engine, now, &mut sent);
                    }
                }
                OutputKind::Tokens(_) | OutputKind::Preempted => {}
            }
        }
    }
    Busy {
        ttft: ttft / done,
        itl: decoding / (done * f64::from(output - 1)),
        rate: done * f64::from(output) / now,
    }
}

/// The published curve: little waiting up to 50 clients, then the cache is full and the first token waits for seconds.
fn saturation() -> Vec<Gate> {
    let published = [
        (1_u64, 0.407, 18.6, 52.0),
        (5, 0.547, 21.8, 218.0),
        (25, 0.689, 38.8, 623.0),
        (50, 0.835, 59.7, 814.0),
        (100, 7.996, 92.9, 917.0),
    ];
    let mut gates = Vec::new();
    let mut waits = Vec::new();
    for (clients, _, itl, rate) in published {
        let got = keep_busy(&LLAMA_3_3_70B_FP8_TP2_H100, clients, 5000, 500, 8);
        let name = format!("tokens a second with {clients} clients");
        gates.push(near(name, rate, 0.25, (got.rate, "tokens/s"), NIM));
        let name = format!("time a token with {clients} clients");
        gates.push(near(name, itl, 0.35, (got.itl * 1e3, "ms"), NIM));
        waits.push(got.ttft);
    }
    gates.push(near(
        "first token of a lone client",
        published[0].1,
        0.1,
        (waits[0], "s"),
        NIM,
    ));
    gates.push(gate(
        "first token with 100 clients to 50",
        "7.996 s to 0.835 s: the cache is full",
        (waits[4] / waits[3], "times"),
        [1.5, f64::INFINITY],
        NIM,
    ));
    gates
}

/// The benchmark, of one round or of four.
fn b2b(name: &str, policy: &str, load: f64) -> Option<RunOutcome> {
    let entry = workload::find(name)?;
    let model = &QWEN3_32B_TP2_H100;
    let engines = vec![EngineConfig::for_model(model); entry.engines];
    let options = workload::Options::default();
    let jobs = workload::build(name, load, 1, &options).ok()?;
    let dispatcher = policies::build(policy, &engines, 1)?;
    let config = RunConfig {
        horizon: 3600.0,
        warmup: 0.0,
        ..RunConfig::new(engines, 1)
    };
    Some(run(config, jobs, vec![dispatcher]))
}

/// Prompt tokens a second while an overloaded fleet is busy: of the middle half of all ends.
fn input_rate(outcome: &RunOutcome) -> f64 {
    let mut ends: Vec<(f64, u32)> = outcome
        .jobs
        .iter()
        .map(|it| (it.at + it.e2e, it.prompt_tokens))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let middle = &ends[ends.len() / 4..ends.len() * 3 / 4];
    let (Some(first), Some(last)) = (middle.first(), middle.last()) else {
        return 0.0;
    };
    let tokens: f64 = middle.iter().map(|it| f64::from(it.1)).sum();
    tokens / (last.0 - first.0).max(1e-9)
}

fn fleets() -> Vec<Gate> {
    let names = ["gaie-no-hit-lru", "least-request", "random", "round-robin"];
    let Some(light) = names
        .iter()
        .map(|name| b2b("b2b", name, 9.0))
        .collect::<Option<Vec<_>>>()
    else {
        return Vec::new();
    };
    let Some(heavy) = names
        .iter()
        .map(|name| b2b("b2b-long", name, 16.0))
        .collect::<Option<Vec<_>>>()
    else {
        return Vec::new();
    };
    let p90 = |at: usize| Summary::of(&light[at], Slo::default()).ttft.p90;
    let rate = |at: usize| input_rate(&heavy[at]);
    vec![
        gate(
            "b2b: p90 first token by load alone to prefix-aware",
            "94.9 s to 0.54 s",
            (p90(1) / p90(0), "times"),
            [10.0, f64::INFINITY],
            LLMD_B2B,
        ),
        gate(
            "b2b: p90 first token at random to by load alone",
            "92.6 s to 94.9 s",
            (p90(2) / p90(1), "times"),
            [0.5, 2.0],
            LLMD_B2B,
        ),
        gate(
            "b2b: what round robin gets through to what prefix-aware does",
            "4429 to 8730 tokens/s: about half",
            (rate(3) / rate(0), "times"),
            [0.35, 0.65],
            LLMD_B2B,
        ),
        near(
            "b2b: prompt tokens a second sustained, prefix-aware",
            90_000.0,
            0.15,
            (rate(0), "tokens/s"),
            LLMD_STICKY,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_engines_do_what_was_measured() {
        let gates = calibrate(true);
        assert!(gates.len() > 20);
        assert!(gates.iter().all(|it| it.pass), "{}", table(&gates));
        assert!(table(&gates).lines().count() == gates.len() + 2);
    }

    #[test]
    fn fleets_keep_the_published_order() {
        let gates = fleets();
        assert_eq!(gates.len(), 4);
        assert!(gates.iter().all(|it| it.pass), "{}", table(&gates));
    }

    #[test]
    fn a_gate_fails_outside_its_range() {
        assert!(!near("x", 10.0, 0.1, (11.1, "s"), "y").pass);
        assert!(near("x", 10.0, 0.1, (10.9, "s"), "y").pass);
        assert!(!gate("x", "y", (f64::NAN, "s"), [0.0, 1.0], "z").pass);
        assert!(table(&[near("x", 10.0, 0.1, (12.0, "s"), "y")]).contains("FAILS"));
    }
}
