//! The table of goals: for terminals, as Markdown, as CSV.

use std::fmt::Write as _;

use super::Outcome;
use super::verdict::{Limit, Published, Unit, Verdict};
use crate::stats::Interval;

/// A number in its unit.
fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Times if value.abs() >= 100.0 => format!("{value:.0}x"),
        Unit::Times => format!("{value:.2}x"),
        Unit::Share => format!("{:+.1} %", value * 100.0),
        Unit::Micros => format!("{value:.0} µs"),
        Unit::Count => format!("{value:.0}"),
    }
}

/// `median [low, high]`.
pub(crate) fn interval(it: Interval, unit: Unit) -> String {
    if it.high > it.low {
        format!(
            "{} [{}, {}]",
            number(it.median, unit),
            number(it.low, unit),
            number(it.high, unit)
        )
    } else {
        number(it.median, unit)
    }
}

/// A ratio with its interval.
pub(crate) fn times(it: Interval) -> String {
    interval(it, Unit::Times)
}

/// `<= 1.10x`.
pub(crate) fn limit(it: &Verdict) -> String {
    match it.limit {
        Limit::AtMost(most) => format!("<= {}", number(most, it.unit)),
        Limit::AtLeast(least) => format!(">= {}", number(least, it.unit)),
    }
}

/// What was measured, or that nothing was.
pub(crate) fn measured(it: &Verdict) -> String {
    it.measured
        .map_or_else(|| "-".to_owned(), |got| interval(got, it.unit))
}

/// The best published policy's value and its name.
pub(crate) fn beside(it: &Verdict) -> String {
    let of = |best: &Published| format!("{} {}", interval(best.value, it.unit), best.policy);
    it.published.as_ref().map_or_else(|| "-".to_owned(), of)
}

/// What kind of run it was, in a sentence.
pub(crate) fn preamble(outcome: &Outcome) -> String {
    let seeds = outcome.results.manifest.plan.seeds.len();
    let traces = if outcome.traces {
        "Mooncake's trace itself"
    } else {
        "no trace files were found (--traces DIR): cells named mooncake-like run a look-alike of Mooncake's trace"
    };
    let size = if outcome.small {
        "short run"
    } else {
        "whole run"
    };
    format!(
        "{size}: {seeds} seeds, {} simulated runs, {:.0} s; {traces}. Median and interval over seeds ({} %).",
        outcome.runs.len(),
        outcome.seconds,
        coverage(seeds)
    )
}

/// What the range of so many values covers, in percent.
fn coverage(seeds: usize) -> f64 {
    let share = Interval::of((0..seeds).map(|it| it as f64)).coverage;
    (share * 1000.0).round() / 10.0
}

/// All goals and claims, with the remarks below.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let mut text = preamble(outcome);
    text.push('\n');
    rows(&mut text, "goals", &outcome.verdicts);
    rows(
        &mut text,
        "claims of the announcement, against round robin",
        &outcome.claims,
    );
    robustness(&mut text, outcome);
    text
}

fn rows(text: &mut String, title: &str, verdicts: &[Verdict]) {
    let wide = verdicts.iter().map(|it| it.goal.chars().count()).max();
    let wide = wide.unwrap_or(0).max(4);
    let _ = writeln!(
        text,
        "\n{title}\n{:<4} {:<wide$} {:>10} {:>26} {:<12} best published",
        "", "goal", "limit", "measured", "verdict"
    );
    for it in verdicts {
        let _ = writeln!(
            text,
            "{:<4} {:<wide$} {:>10} {:>26} {:<12} {}",
            it.id,
            it.goal,
            limit(it),
            measured(it),
            it.word(),
            beside(it)
        );
    }
    text.push_str("remarks\n");
    for it in verdicts.iter().filter(|it| !it.note.is_empty()) {
        let _ = writeln!(text, "  {} {}: {}", it.id, it.goal, it.note);
    }
}

fn robustness(text: &mut String, outcome: &Outcome) {
    if outcome.robustness.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\nrobustness: p90 TTFT by the usual one, and by the best published under the same\n{:<20} {:<28} {:>26} {:>26}",
        "", "cell", "change", "/ best published"
    );
    for it in &outcome.robustness {
        let _ = writeln!(
            text,
            "{:<20} {:<28} {:>26} {:>26} {}",
            it.condition,
            it.place.name(),
            interval(it.change, Unit::Times),
            interval(it.to_best, Unit::Times),
            it.best
        );
    }
}

/// The same for documents.
pub(super) fn markdown(outcome: &Outcome) -> String {
    let mut text = format!("{}\n", preamble(outcome));
    for (title, verdicts) in [("Goal", &outcome.verdicts), ("Claim", &outcome.claims)] {
        let _ = writeln!(
            text,
            "\n| | {title} | Limit | Measured | Best published | |\n|---|---|---|---|---|---|"
        );
        for it in verdicts {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                it.id,
                it.goal,
                limit(it),
                measured(it),
                beside(it),
                it.word()
            );
        }
    }
    text
}

/// A line for each goal and claim.
pub(super) fn csv(outcome: &Outcome) -> String {
    let mut text = String::from(
        "id,goal,limit,unit,median,low,high,seeds,published,published_median,verdict\n",
    );
    for it in outcome.verdicts.iter().chain(&outcome.claims) {
        let bound = match it.limit {
            Limit::AtMost(value) | Limit::AtLeast(value) => value,
        };
        let got = it.measured.unwrap_or_default();
        let (name, value) = it.published.as_ref().map_or(("", String::new()), |best| {
            (best.policy.as_str(), best.value.median.to_string())
        });
        let _ = writeln!(
            text,
            "{},\"{}\",{bound},{:?},{},{},{},{},{name},{value},{}",
            it.id,
            it.goal,
            it.unit,
            got.median,
            got.low,
            got.high,
            got.count,
            it.word()
        );
    }
    text
}
