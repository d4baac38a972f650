//! The data-plane bench: what a request costs in the gateway, as a ratio to the smallest proxy
//! that could have carried it.
//!
//! Absolute figures of a shared machine scatter by a third from minute to minute, so they say
//! little. The rule here is therefore: run the *floor* (a bare hyper reverse proxy, round robin)
//! and the gateway in short alternation, one second each, against the same mock model servers and
//! under the same load; take the ratio of each pair; report the median of the ratios and their
//! spread. CPU time is read at the two ends of exactly the window whose requests are counted.
//!
//! - [`floor`]: the reference proxy
//! - [`mock`]: model servers that cost next to nothing
//! - [`load`]: the load generator, closed and open loop
//! - [`suite`]: the measures, their rounds, goals and gates
//! - [`picker`]: the same for the endpoint picker, against a trivial one
//! - [`report`]: the Markdown table and the raw figures

pub mod child;
pub mod error;
pub mod fleet;
pub mod floor;
pub mod load;
pub mod machine;
pub mod mock;
pub mod picker;
pub mod process;
pub mod report;
pub mod spread;
pub mod suite;

#[cfg(test)]
mod tests;

pub use error::Error;
