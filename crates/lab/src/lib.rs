//! Fleets in virtual time: workloads, policies side by side, bounds, a report.

pub mod bound;
pub mod cli;
pub mod compare;
mod dispatcher;
mod error;
pub mod fleet;
mod job;
mod outcome;
pub mod policies;
pub mod product;
pub mod report;
mod run;
pub mod stats;
pub mod workload;

pub use dispatcher::{Dispatcher, Placed, Told};
pub use error::LabError;
pub use job::{BLOCK_TOKENS, Job, Workload};
pub use outcome::{End, JobOutcome, RunOutcome, Sample};
pub use run::{RunConfig, Scrape, run};
