//! Recordings of a gateway, run again.
//!
//! A recording ([`recording`]) holds every call that a gateway made into its decision cores. Two things can be done
//! with it:
//!
//! - [`verify`] makes the same calls to fresh cores and compares what comes out, decision by decision. They must be the
//!   same to the last one: the core reads no clock and throws no dice of its own. A difference is a bug, or another
//!   version of the policy.
//! - [`traffic`] takes the requests out of it: when they came, how long they were, what they shared, and how long their
//!   answers turned out. That is a workload for simulated engines, on which other policies can be tried.

mod traffic;
mod verify;

pub use traffic::{RECORDED, REPLAY, Traffic, traffic};
pub use verify::{Difference, PoolReplay, Replay, verify};

#[cfg(test)]
mod tests;
