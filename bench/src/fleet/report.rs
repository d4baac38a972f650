//! The report: a Markdown table to read, and all figures as JSON.

use std::fmt::Write as _;
use std::path::Path;

use crate::Error;
use crate::fleet::judge::{Goal, Row, Unit};
use crate::fleet::{Measured, Outcome, predict};
use crate::spread::Spread;

const NONE: &str = "–";

/// The Markdown report.
#[must_use]
pub fn markdown(outcome: &Outcome) -> String {
    let m = &outcome.machine;
    let mut out = format!(
        "{} x {}, {:.1} GiB, Linux {}, load {}; {}; commit {}\n`{}`\n",
        m.cores, m.processor, m.memory_gib, m.kernel, m.load_average, m.date, m.commit, m.command
    );
    out.push_str("\n| scenario | measure | pointsman | round robin | least request | pointsman / round robin | goal | pass |\n|---|---|---|---|---|---|---|---|\n");
    for measured in &outcome.scenarios {
        for row in &measured.rows {
            out.push_str(&table_line(row, measured.repeated));
        }
    }
    out.push_str(
        "\nMedians over the seeds, with the range in brackets; ratios are paired by seed.\n",
    );
    predictions(outcome, &mut out);
    outcome.scenarios.iter().for_each(|m| remarks(m, &mut out));
    out
}

/// Writes everything to a file as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(outcome: &Outcome, path: &Path) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(outcome)?;
    std::fs::write(path, text + "\n").map_err(Error::file(path))
}

fn table_line(row: &Row, repeated: bool) -> String {
    let repeated = if repeated { " (repeated)" } else { "" };
    let [own, round_robin, least_request] = row.values.map(|v| value(v, row.unit));
    let ratio = row.ratio.map_or(NONE.into(), |r| range(r, 2, "×"));
    let passed = match row.passed {
        None => NONE,
        Some(true) => "yes",
        Some(false) => "no",
    };
    format!(
        "| {}{repeated} | {} | {own} | {round_robin} | {least_request} | {ratio} | {} | {passed} |\n",
        row.scenario.name(),
        row.measure,
        goal(row)
    )
}

fn value(spread: Option<Spread>, unit: Unit) -> String {
    let Some(spread) = spread else {
        return NONE.into();
    };
    match unit {
        Unit::Percent => {
            let percent = |v: f64| v * 100.0;
            let spread = Spread {
                median: percent(spread.median),
                min: percent(spread.min),
                max: percent(spread.max),
            };
            range(spread, 1, " %")
        }
        Unit::Millis => range(spread, 1, " ms"),
        Unit::Plain => range(spread, 2, ""),
    }
}

/// `median unit (min–max)`; a single value stands alone.
fn range(v: Spread, digits: usize, unit: &str) -> String {
    let median = format!("{:.digits$}{unit}", v.median);
    if v.min < v.max {
        format!("{median} ({:.digits$}–{:.digits$})", v.min, v.max)
    } else {
        median
    }
}

fn goal(row: &Row) -> String {
    let limit = |limit: f64| match row.unit {
        Unit::Percent => format!("{:.0} %", limit * 100.0),
        Unit::Millis => format!("{limit} ms"),
        Unit::Plain => limit.to_string(),
    };
    match row.goal {
        None => NONE.into(),
        Some(Goal::AtLeast(least)) => format!("≥ {}", limit(least)),
        Some(Goal::AtMost(most)) => format!("≤ {}", limit(most)),
        Some(Goal::OfRoundRobin(most)) => format!("≤ {most}× round robin"),
    }
}

/// The lab's word beside what was measured.
fn predictions(outcome: &Outcome, out: &mut String) {
    if outcome.scenarios.iter().all(|it| it.predictions.is_empty()) {
        return;
    }
    out.push_str(
        "\n| scenario | policy | predicted TTFT p90 | measured | predicted hits | measured | order as predicted |\n|---|---|---|---|---|---|---|\n",
    );
    for measured in &outcome.scenarios {
        let order = match measured.same_order() {
            None => "no clear order predicted",
            Some(true) => "yes",
            Some(false) => "no",
        };
        for row in predict::beside(&measured.predictions, &measured.figures) {
            let _ = writeln!(
                out,
                "| {} | {} | {:.1} ms | {:.1} ms | {:.1} % | {:.1} % | {order} |",
                measured.scenario.name(),
                row.policy.flag(),
                row.predicted,
                row.measured,
                row.predicted_hits * 100.0,
                row.measured_hits * 100.0
            );
        }
    }
    out.push('\n');
}

/// What a reader should know besides the rows: the bound, and failures.
fn remarks(measured: &Measured, out: &mut String) {
    let name = measured.scenario.name();
    let best = Spread::of(measured.figures.iter().filter_map(|f| f.best_hit_ratio));
    if let Some(best) = best {
        // Writing to a String cannot fail.
        let best = value(Some(best), Unit::Percent);
        let _ = writeln!(out, "{name}: the best possible token hit ratio is {best}.");
    }
    for f in measured.figures.iter().filter(|f| f.errors > 0) {
        let _ = writeln!(
            out,
            "{name}: {} of {} requests failed under {} with seed {}, the first: {}",
            f.errors,
            f.requests,
            f.policy.flag(),
            f.seed,
            f.first_error.as_deref().unwrap_or("unknown")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::scenario::Scenario;

    fn row() -> Row {
        Row {
            scenario: Scenario::SharedPrefix,
            measure: "TTFT p90",
            unit: Unit::Millis,
            values: [Spread::of([30.0, 31.25, 32.0]), Spread::of([100.0]), None],
            ratio: Spread::of([0.3, 0.32]),
            goal: Some(Goal::OfRoundRobin(0.5)),
            passed: Some(true),
        }
    }

    #[test]
    fn a_line_says_all_of_a_row() {
        assert_eq!(
            table_line(&row(), false),
            "| shared-prefix | TTFT p90 | 31.2 ms (30.0–32.0) | 100.0 ms | – | 0.31× (0.30–0.32) | ≤ 0.5× round robin | yes |\n"
        );
        let other = Row {
            unit: Unit::Percent,
            values: [Spread::of([0.925]), None, None],
            ratio: None,
            goal: Some(Goal::AtLeast(0.9)),
            passed: Some(false),
            ..row()
        };
        assert_eq!(
            table_line(&other, true),
            "| shared-prefix (repeated) | TTFT p90 | 92.5 % | – | – | – | ≥ 90 % | no |\n"
        );
    }

    #[test]
    fn goals_have_their_measure_s_unit() {
        let with = |unit, g| {
            goal(&Row {
                unit,
                goal: g,
                ..row()
            })
        };
        assert_eq!(with(Unit::Plain, Some(Goal::AtMost(1.3))), "≤ 1.3");
        assert_eq!(with(Unit::Millis, Some(Goal::AtMost(5.0))), "≤ 5 ms");
        assert_eq!(with(Unit::Plain, None), NONE);
    }
}
