//! The wire formats of model servers, as a gateway needs them.
//!
//! Everything here is a pure function or a small state machine over bytes that somebody else owns: no IO, no clock, no
//! body kept, no allocation per field of a request.
//!
//! * [`route`] says what a path means: an inference call of some [`Dialect`], a model list, a thing that lives inside
//!   one server, an administrative route, or none of these.
//! * [`read`] looks at a request body in place ([`RequestView`]); [`splice_model`] changes the model name and nothing
//!   else.
//! * [`Prompt::chain`] turns a prompt into hashes that name its prefixes, so that a scheduler can tell which server
//!   holds them in its cache.
//! * [`ResponseScanner`] watches an answer pass: first token, usage, how it ended.
//! * [`ErrorBody`] says no in the caller's own dialect.
//! * [`parse_models`] and [`merge_models`] handle `GET /v1/models`.
//!
//! ```
//! use llm::{ChainSeed, Dialect, Route};
//!
//! let body = bytes::Bytes::from_static(br#"{"model":"chat","messages":[{"role":"user","content":"Hello"}],"top_p":1.0}"#);
//! assert_eq!(llm::route(&http::Method::POST, "/v1/chat/completions"), Route::Inference(Dialect::ChatCompletions));
//!
//! let view = llm::read(Dialect::ChatCompletions, Some("application/json"), &body)?;
//! let model = view.model.expect("a chat names its model");
//! assert_eq!(model.name, "chat");
//!
//! let chain = view.prompt.chain(&ChainSeed { model: "llama-v2", cache_salt: view.cache_salt.as_deref() });
//! assert_eq!(chain.prompt_tokens, 3);
//!
//! let parts = llm::splice_model(&body, model.span, true, "llama-v2");
//! assert_eq!(parts.concat(), br#"{"model":"llama-v2","messages":[{"role":"user","content":"Hello"}],"top_p":1.0}"#);
//! # Ok::<(), llm::RequestError>(())
//! ```

mod answer;
mod chain;
mod error;
mod json;
mod models;
mod multipart;
mod path;
mod prompt;
mod request;
mod scan;
mod splice;

pub use answer::{ErrorBody, Style, style_of};
pub use chain::{BLOCK_BYTES, ChainSeed, PrefixChain};
pub use error::RequestError;
pub use models::{ModelInfo, merge_models, parse_models};
pub use path::{Dialect, Route, StateKind, route};
pub use prompt::Prompt;
pub use request::{ModelField, RequestView, read};
pub use scan::{InBandError, Outcome, ResponseScanner, Signals, Usage};
pub use splice::splice_model;
