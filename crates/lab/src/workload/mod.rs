//! Workloads: traces and generators.
//!
//! A workload is a stream of [`Job`](crate::Job)s in order of time. It decides everything that does not depend on who
//! serves: which prompt, how long the answer, when. The same name, load and seed give the same jobs, bit for bit; in
//! a closed loop the same sessions, at times that follow the answers.
//!
//! [`build`] makes one by name; [`catalogue`] lists the names with the source of their numbers. Traces are not part
//! of this repository: the caller says in which folder they are. Any file of the two formats can be replayed under
//! the names `mooncake:FILE` and `azure:FILE`.

mod arrivals;
mod catalogue;
mod entries;
mod error;
mod lookalike;
mod makers;
mod open;
mod prompt;
pub(crate) mod queue;
mod random;
mod request;
mod rounds;
mod sessions;
pub mod trace;

pub use catalogue::{Entry, Options, build, catalogue, find};
pub use error::{Fault, MOST_TOKENS, WorkloadError};
pub use prompt::Prompt;

#[cfg(test)]
mod tests;
