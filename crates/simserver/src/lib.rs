//! Serves a simulated engine over vLLM's HTTP API in real time.
//!
//! The server looks like `vllm serve` to clients, gateways and dashboards: the same routes, answers, errors, metric
//! names and endings, with an engine behind it that batches, caches prefixes, preempts and loads adapters as vLLM's
//! does, only that no model runs: answers are words drawn from a seed. It needs no GPU and starts at once.
//!
//! A request's text is drawn before it starts, because nothing in it depends on time. The engine (crate `simulator`)
//! then decides *when* each token comes. One task drives the engine: plan a step, let its duration pass, book it. A
//! request only watches a counter of its tokens, so a slow client holds up nobody.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let sim = simserver::spawn(simserver::SimOptions { model: "tiny".into(), ..Default::default() }).await?;
//! println!("http://{}/v1/models", sim.address());
//! sim.stop().await;
//! # Ok(()) }
//! ```

mod answers;
mod args;
mod error;
mod faults;
mod generation;
mod host;
mod metrics;
mod options;
mod plan;
mod request;
mod routes;
mod server;
mod state;
mod streams;
mod tokens;

pub use args::SimArgs;
pub use faults::{FailureKind, Faults, MetricsMode};
pub use options::{LoraModule, SimOptions};
pub use server::{SimHandle, run, spawn};
pub use simulator::Stats;
