//! Fleets in virtual time: workloads, policies side by side, bounds, a report.
//!
//! [`run`] is one fleet of simulated engines behind gateways in virtual time: a [`Workload`] asks, a [`Dispatcher`] in
//! each gateway places, a [`RunOutcome`] has what came of every job. [`product::Product`] is the dispatcher that drives
//! the product's own pool, [`policies`] are those of the literature, [`bound`] is what none of them can beat.
//! [`compare`] runs them side by side over loads and seeds, [`stats`] reduces runs to numbers with intervals, and
//! [`report`] makes a page of them. [`cli`] is all that on the command line.
//!
//! A policy sees what a gateway sees, with the network's delay, and nothing of the engines' insides or of how long an
//! answer will be. Equal seeds give equal outcomes, bit for bit, whatever the number of threads.

pub mod bound;
pub mod calibrate;
pub mod cli;
pub mod compare;
mod dispatcher;
mod error;
pub mod fleet;
pub mod goals;
mod job;
mod outcome;
mod parallel;
pub mod policies;
pub mod product;
pub mod replay;
pub mod report;
mod run;
pub mod stats;
pub mod workload;

pub use dispatcher::{Dispatcher, Placed, Told};
pub use error::LabError;
pub use job::{BLOCK_TOKENS, Job, Workload};
pub use outcome::{End, JobOutcome, RunOutcome, Sample};
pub use run::weather::{ChangeKind, EngineChange, PageFault, PageWeather, Weather};
pub use run::{RunConfig, Scrape, Sharing, run};
