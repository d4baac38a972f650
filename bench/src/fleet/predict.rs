//! What the lab predicts for a scenario: the same requests at the same times, the same servers and the same policies,
//! in virtual time.
//!
//! The real servers and the lab's run the same engine model, so this does not prove the model. It proves the way: HTTP,
//! tokenizing, scraping, hashing and the gateway's own bookkeeping change nothing about who wins. Servers run `speed`
//! times as fast as an engine would, so virtual seconds are real ones times that.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use lab::compare::{Builtin, Catalog as _};
use lab::product::Knowledge;
use lab::stats::{Slo, Summary};
use lab::{BLOCK_TOKENS, Job, RunConfig, Workload};
use serde::Serialize;
use simulator::{BlockHash, EngineConfig, profiles};

use crate::Error;
use crate::fleet::cell::Figures;
use crate::fleet::scenario::{Policy, Shape};
use crate::fleet::workload::Request;

/// The servers' model.
const MODEL: &str = "llama-3.1-8b-h100";
/// Seconds that a loopback connection and two HTTP stacks take, each way.
const NETWORK: f64 = 0.3e-3;
/// Predictions that differ by less say nothing about who wins.
const CLEAR: f64 = 1.2;

/// What the lab expects of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Predicted {
    /// The policy.
    pub policy: Policy,
    /// The seed of the requests.
    pub seed: u64,
    /// 90th percentile of the time to the first token, real milliseconds.
    pub ttft_p90_ms: f64,
    /// Share of prompt tokens found in caches.
    pub hit_ratio: f64,
}

/// Runs the requests in virtual time. `tokens` are their prompts' tokens.
///
/// # Errors
/// When the lab does not know the policy or the servers' model.
pub fn predict(
    requests: &[Request],
    tokens: &[Vec<u32>],
    shape: &Shape,
    (policy, seed): (Policy, u64),
) -> Result<Predicted, Error> {
    let engines = engines(shape).ok_or(Error::Prediction)?;
    let name = match policy {
        Policy::ExpectedCost => "pointsman",
        Policy::RoundRobin => "pool-round-robin",
        Policy::LeastRequest => "pool-least-request",
    };
    // A gateway before unknown servers knows nothing of their speed.
    let dispatcher = Builtin::default()
        .policy(name, &engines, Knowledge::Nothing, seed)
        .map_err(|_| Error::Prediction)?;
    let last = requests.last().map_or(0.0, |it| it.due.as_secs_f64());
    let config = RunConfig {
        network_delay: NETWORK * shape.speed,
        horizon: last * shape.speed + 1.0,
        warmup: 0.0,
        ..RunConfig::new(engines, seed)
    };
    let jobs = requests.iter().zip(tokens).enumerate();
    let jobs = jobs.map(|(id, (request, tokens))| job(id as u64, request, tokens, shape.speed));
    let workload = Box::new(Fixed(jobs.collect::<Vec<_>>().into_iter()));
    let outcome = lab::run(config, workload, vec![dispatcher]);
    let summary = Summary::of(&outcome, Slo::default());
    Ok(Predicted {
        policy,
        seed,
        ttft_p90_ms: summary.ttft.p90 / shape.speed * 1e3,
        hit_ratio: summary.hit_ratio,
    })
}

fn engines(shape: &Shape) -> Option<Vec<EngineConfig>> {
    let model = profiles::ALL.iter().find(|it| it.name == MODEL)?;
    let mut engine = EngineConfig::for_model(model);
    let mut args = shape.sim_args.iter();
    if args.any(|it| it == "--num-gpu-blocks") {
        engine.kv_blocks = args.next()?.parse().ok()?;
    }
    Some(vec![engine; shape.servers])
}

fn job(id: u64, request: &Request, tokens: &[u32], speed: f64) -> Job {
    let mut chain = DefaultHasher::new();
    let prompt = tokens.chunks_exact(BLOCK_TOKENS as usize).map(|block| {
        block.hash(&mut chain);
        BlockHash(chain.finish())
    });
    let mut blocks: Vec<BlockHash> = prompt.collect();
    let prompt_tokens = tokens.len() as u32;
    // What the answer fills is nobody else's.
    let all = (prompt_tokens + request.output_tokens) / BLOCK_TOKENS;
    id.hash(&mut chain);
    while blocks.len() < all as usize {
        blocks.len().hash(&mut chain);
        blocks.push(BlockHash(chain.finish()));
    }
    Job {
        id,
        at: request.due.as_secs_f64() * speed,
        session: None,
        first_message: blocks.first().map_or(id, |it| it.0),
        blocks: Arc::from(blocks),
        prompt_tokens,
        output_tokens: request.output_tokens,
        max_output_tokens: Some(request.output_tokens),
        adapter: None,
        priority: 0,
        flow: 0,
        warmup: false,
    }
}

struct Fixed(std::vec::IntoIter<Job>);

impl Workload for Fixed {
    fn next(&mut self) -> Option<Job> {
        self.0.next()
    }
}

/// Prediction and measurement of a policy: medians of the 90th percentile over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// The policy.
    pub policy: Policy,
    /// Milliseconds.
    pub predicted: f64,
    /// Milliseconds.
    pub measured: f64,
    /// Shares of prompt tokens found in caches.
    pub predicted_hits: f64,
    /// The same.
    pub measured_hits: f64,
}

/// Each policy's prediction beside what was measured.
#[must_use]
pub fn beside(predictions: &[Predicted], figures: &[Figures]) -> Vec<Beside> {
    let of = |policy: Policy| {
        let ours: Vec<&Predicted> = predictions
            .iter()
            .filter(|it| it.policy == policy)
            .collect();
        let real: Vec<&Figures> = figures.iter().filter(|it| it.policy == policy).collect();
        Some(Beside {
            policy,
            predicted: median(ours.iter().map(|it| it.ttft_p90_ms))?,
            measured: median(real.iter().map(|it| it.ttft_ms[1]))?,
            predicted_hits: median(ours.iter().map(|it| it.hit_ratio))?,
            measured_hits: median(real.iter().map(|it| it.hit_ratio))?,
        })
    };
    Policy::ALL.into_iter().filter_map(of).collect()
}

/// Whether every pair that is predicted to differ clearly does so in the same direction; `None` without such a pair.
#[must_use]
pub fn same_order(rows: &[Beside]) -> Option<bool> {
    let pairs = rows.iter().flat_map(|a| rows.iter().map(move |b| (a, b)));
    let clear = pairs.filter(|(a, b)| a.predicted * CLEAR < b.predicted);
    let holds: Vec<bool> = clear.map(|(a, b)| a.measured < b.measured).collect();
    (!holds.is_empty()).then(|| holds.iter().all(|it| *it))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.filter(|it| it.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::scenario::Scenario;

    fn row(policy: Policy, predicted: f64, measured: f64) -> Beside {
        Beside {
            policy,
            predicted,
            measured,
            predicted_hits: 0.0,
            measured_hits: 0.0,
        }
    }

    #[test]
    fn only_clear_predictions_are_held_against_the_measurement() {
        use Policy::{ExpectedCost, LeastRequest, RoundRobin};
        let rows = |real: [f64; 3]| {
            [
                row(ExpectedCost, 10.0, real[0]),
                row(RoundRobin, 30.0, real[1]),
                row(LeastRequest, 33.0, real[2]),
            ]
        };
        assert_eq!(same_order(&rows([20.0, 50.0, 40.0])), Some(true));
        assert_eq!(same_order(&rows([45.0, 50.0, 40.0])), Some(false));
        assert_eq!(same_order(&rows([0.0; 3])[1..]), None);
    }

    #[test]
    fn the_lab_predicts_that_shared_prefixes_are_worth_following() {
        let scenario = Scenario::SharedPrefix;
        let requests = scenario.requests(1);
        // A word is a token here; equal beginnings stay equal.
        let tokens: Vec<Vec<u32>> = requests
            .iter()
            .map(|it| {
                let words = it.messages.split([' ', '"']);
                let number = |word: &str| {
                    word.bytes()
                        .fold(7_u32, |sum, c| sum.wrapping_mul(31) + u32::from(c))
                };
                words.map(number).collect()
            })
            .collect();
        let run = |policy| predict(&requests, &tokens, &scenario.shape(), (policy, 1)).unwrap();
        let (ours, turns) = (run(Policy::ExpectedCost), run(Policy::RoundRobin));
        assert!(ours.hit_ratio > turns.hit_ratio + 0.2, "{ours:?} {turns:?}");
        assert!(
            ours.ttft_p90_ms < 0.6 * turns.ttft_p90_ms,
            "{ours:?} {turns:?}"
        );
        assert_eq!(ours, run(Policy::ExpectedCost));
    }
}
