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
