//! One model server engine in steps: token budget, KV blocks, prefix cache, preemption, LoRA slots.
//!
//! The engine follows the scheduler of vLLM V1. Each step has a budget of tokens. Running sequences are served
//! first, in order of admission: one token for a sequence that decodes, as much of the prompt as fits for one that
//! still prefills (chunked prefill). What is left of the budget admits waiting sequences, first come, first served.
//! Keys and values live in blocks of 16 tokens; a full block is named by a hash chained over everything before it,
//! and a freed block stays findable under its name until another sequence needs the room.
//!
//! The crate is pure: no clock, no runtime, no IO. The host drives it:
//!
//! ```
//! use simulator::{Engine, EngineConfig, Sequence, profiles};
//!
//! let mut engine = Engine::new(EngineConfig::for_model(&profiles::QWEN3_32B_TP2_H100), 1);
//! let mut outputs = Vec::new();
//! let mut now = 0.0;
//! engine.submit(now, Sequence { prompt_tokens: 100, output_tokens: 3, ..Sequence::new(7) }).unwrap();
//! while let Some(plan) = engine.step(now) {
//!     now += plan.duration;
//!     engine.finish_step(now, &mut outputs);
//! }
//! assert_eq!(outputs.len(), 4); // three tokens and the end
//! ```
//!
//! Time is `f64` seconds on any scale that the host likes, as long as it does not run backwards. Randomness is the
//! seed given to [`Engine::new`]: equal calls give equal results, bit for bit.

mod adapters;
mod blocks;
mod config;
mod engine;
mod hash;
mod names;
pub mod profiles;
mod sequence;
mod stats;

pub use blocks::CacheEvent;
pub use config::{EngineConfig, LoraConfig, QueuePolicy, Semantics};
pub use engine::{Engine, StepPlan};
pub use hash::{BlockHash, extend_chain};
pub use profiles::{Model, Profile};
pub use sequence::{AdapterId, FinishReason, Output, OutputKind, Refused, Sequence};
pub use stats::Stats;

#[cfg(test)]
mod tests;
