//! Fleets in virtual time: workloads, policies side by side, bounds, a report.

mod dispatcher;
mod job;
mod outcome;

pub use dispatcher::{Dispatcher, Placed, Told};
pub use job::{BLOCK_TOKENS, Job, Workload};
pub use outcome::{End, JobOutcome, RunOutcome, Sample};
