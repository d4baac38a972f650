//! The report: a Markdown table to read, and the raw figures as JSON.

use std::fmt::Write as _;
use std::path::Path;

use crate::Error;
use crate::spread::Spread;
use crate::suite::{Goal, Outcome, Row, Unit};

const NONE: &str = "–";

/// The Markdown report.
#[must_use]
pub fn markdown(outcome: &Outcome) -> String {
    let mut out = head(outcome);
    out.push_str("\n| measure | floor | gateway | ratio (median, min–max) | goal | pass? |\n|---|---|---|---|---|---|\n");
    for row in &outcome.rows {
        out.push_str(&table_line(row));
    }
    for row in outcome.rows.iter().filter(|r| r.errors > 0) {
        let first = row.first_error.as_deref().unwrap_or("unknown");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "\n{}: {} failed requests, the first: {first}",
            row.measure, row.errors
        );
    }
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

fn head(outcome: &Outcome) -> String {
    let m = &outcome.machine;
    let placement = if outcome.pinned {
        "floor and gateway on one core"
    } else {
        "nothing pinned"
    };
    let threads = outcome
        .threads
        .map_or(String::new(), |n| format!(", {n} worker thread(s) each"));
    format!(
        "{} x {}, {:.1} GiB, Linux {}, load {}; {}; commit {}\n`{}`\n{} rounds of {} s; {placement}{threads}\n",
        m.cores,
        m.processor,
        m.memory_gib,
        m.kernel,
        m.load_average,
        m.date,
        m.commit,
        m.command,
        outcome.rounds,
        outcome.window
    )
}

fn table_line(row: &Row) -> String {
    let value = |v: Option<Spread>| v.map_or(NONE.into(), |v| spread(v, row.unit));
    let ratio = row.ratio.map_or(NONE.into(), ratio);
    let repeated = if row.repeated { " (repeated)" } else { "" };
    format!(
        "| {}{repeated} | {} | {} | {ratio} | {} | {} |\n",
        row.measure,
        value(row.floor),
        value(row.gateway),
        goal(row),
        verdict(row)
    )
}

fn spread(v: Spread, unit: Unit) -> String {
    let (name, digits) = match unit {
        Unit::CpuMicros => (" µs", 1),
        Unit::Millis => (" ms", 2),
        Unit::MiB => (" MiB", 1),
        Unit::PerSecond => ("/s", 0),
    };
    range(v, name, digits)
}

fn ratio(v: Spread) -> String {
    range(v, "×", 2)
}

/// `median unit (min–max)`; a single value stands alone.
fn range(v: Spread, unit: &str, digits: usize) -> String {
    let median = format!("{:.digits$}{unit}", v.median);
    if v.min < v.max {
        format!("{median} ({:.digits$}–{:.digits$})", v.min, v.max)
    } else {
        median
    }
}

fn goal(row: &Row) -> String {
    let goal = match (row.goal, row.unit) {
        (None, _) => return NONE.into(),
        (Some(Goal::Ratio(most)), _) => format!("≤ {most}×"),
        (Some(Goal::AtMost(most)), Unit::MiB) => format!("≤ {most} MiB"),
        (Some(Goal::AtMost(most)), Unit::Millis) => format!("≤ {most} ms"),
        (Some(Goal::AtMost(most)), _) => format!("≤ {most}"),
    };
    row.gate
        .map_or(goal.clone(), |gate| format!("{goal}, gate {gate}×"))
}

fn verdict(row: &Row) -> String {
    let gate = if row.gate_failed() && row.gate.is_some() {
        ", over the gate"
    } else {
        ""
    };
    match row.passed() {
        _ if row.errors > 0 => format!("no, {} errors", row.errors),
        None => NONE.into(),
        Some(true) => "yes".into(),
        Some(false) => format!("no{gate}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            measure: "CPU per request, 1 KB",
            unit: Unit::CpuMicros,
            floor: Spread::of([30.0, 32.0, 31.0]),
            gateway: Spread::of([45.0, 46.5, 44.0]),
            ratio: Spread::of([1.5, 1.45, 1.42]),
            goal: Some(Goal::Ratio(1.5)),
            gate: Some(2.5),
            errors: 0,
            first_error: None,
            repeated: false,
        }
    }

    #[test]
    fn a_line_says_all_of_a_row() {
        let line = "| CPU per request, 1 KB | 31.0 µs (30.0–32.0) | 45.0 µs (44.0–46.5) | 1.45× (1.42–1.50) | ≤ 1.5×, gate 2.5× | yes |\n";
        assert_eq!(table_line(&row()), line);
    }

    #[test]
    fn verdicts() {
        let with = |median: f64, errors: u64| Row {
            ratio: Spread::of([median]),
            errors,
            ..row()
        };
        assert_eq!(verdict(&with(1.5, 0)), "yes");
        assert_eq!(verdict(&with(1.6, 0)), "no");
        assert_eq!(verdict(&with(2.6, 0)), "no, over the gate");
        assert_eq!(verdict(&with(1.0, 3)), "no, 3 errors");
        assert_eq!(
            verdict(&Row {
                goal: None,
                gate: None,
                ..row()
            }),
            "–"
        );
    }

    #[test]
    fn what_was_not_obtained_is_a_dash() {
        let empty = Row {
            floor: None,
            gateway: None,
            ratio: None,
            goal: None,
            gate: None,
            ..row()
        };
        assert_eq!(
            table_line(&empty),
            "| CPU per request, 1 KB | – | – | – | – | – |\n"
        );
    }
}
