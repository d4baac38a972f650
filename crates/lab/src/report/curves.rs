//! p90 of the time to the first token over the load, a chart for each workload, as one figure for documents.

use std::fmt::Write as _;

use super::dots::ALONE;
use super::svg::{Chart, HEIGHT, Look, WIDTH, escape, stroke};

/// Charts side by side.
const COLUMNS: usize = 2;
/// A line of the legend, and how many of its entries stand in one.
const LINE: f64 = 20.0;
const ENTRIES: usize = 4;

/// The figure of `charts`, and what its lines are.
pub(super) fn figure(charts: &[Chart], legend: &[(String, Look)]) -> String {
    let rows = charts.len().div_ceil(COLUMNS);
    let lines = legend.len().div_ceil(ENTRIES);
    let (width, top) = (WIDTH * COLUMNS as f64, LINE * (lines as f64 + 0.5));
    let height = top + HEIGHT * rows as f64;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"time to \
         first token over load\">{ALONE}<rect width=\"{width}\" height=\"{height}\"/>"
    );
    for (place, (name, look)) in legend.iter().enumerate() {
        let x = 12.0 + (place % ENTRIES) as f64 * (width - 24.0) / ENTRIES as f64;
        let y = LINE * ((place / ENTRIES) as f64 + 0.7);
        let _ = write!(
            out,
            "<path fill=\"none\" {} d=\"M{x:.1} {y:.1}h26\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            stroke(*look),
            x + 32.0,
            y + 4.0,
            escape(name)
        );
    }
    for (place, chart) in charts.iter().enumerate() {
        let x = (place % COLUMNS) as f64 * WIDTH;
        let y = top + (place / COLUMNS) as f64 * HEIGHT;
        let _ = write!(
            out,
            "<g transform=\"translate({x:.1} {y:.1})\">{}</g>",
            chart.inner()
        );
    }
    out.push_str("</svg>\n");
    out
}
