//! One self-contained HTML page from a comparison's results.
//!
//! For each workload: how the time to the first token, the hit ratio and the time per token go with the load, a table
//! for each load with medians and their intervals over seeds, ratios to the bound and to the best other policy of the
//! cell, and the course of the KV caches over time. At the end the manifest: all settings, seeds, constants and their
//! sources. No script, no font and no picture is loaded from anywhere. Two figures can be had as files of their own:
//! all cells at a glance, and the time to first token over the load.

mod curves;
mod dots;
mod goals;
mod groups;
mod page;
mod svg;

pub use groups::{Group, Row, groups};
pub use page::{goals_page, over_load_figure, overview, page};

use std::fmt::Write as _;

use crate::compare::Results;

/// The tables as plain text, for terminals.
#[must_use]
pub fn text(results: &Results) -> String {
    let mut out = String::new();
    for group in groups(results) {
        let _ = writeln!(out, "\n{} at load {}", group.workload, group.load);
        let _ = writeln!(
            out,
            "{:<28} {:>24} {:>9} {:>9} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6}",
            "policy",
            "ttft p90 s [low, high]",
            "p50",
            "p99",
            "/bound",
            "/best",
            "tpot90",
            "hit",
            "kv",
            "lost"
        );
        for row in &group.rows {
            let ratio = |it: Option<crate::stats::PairedRatio>| {
                it.map_or_else(|| "-".to_owned(), |it| format!("{:.2}", it.ratio))
            };
            let p90 = row.ttft_p90;
            let _ = writeln!(
                out,
                "{:<28} {:>8.3} [{:>6.3}, {:>6.3}] {:>8.3} {:>9.3} {:>8} {:>8} {:>6.0} {:>6.3} {:>6.2} {:>6.0}",
                row.policy,
                p90.median,
                p90.low,
                p90.high,
                row.ttft_p50.median,
                row.ttft_p99.median,
                ratio(row.to_bound),
                ratio(row.to_best),
                row.tpot_p90.median * 1e3,
                row.hit_ratio.median,
                row.kv_usage.median,
                row.lost.median,
            );
        }
    }
    out
}

#[cfg(test)]
mod tests;
