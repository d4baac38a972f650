//! `lab goals`.

use std::io::Write as _;
use std::time::Instant;

use parking_lot::Mutex;

use super::{GoalsArgs, print, threads};
use crate::compare::put;
use crate::goals::{self, Options, Outcome, Step};
use crate::report;

/// Goals that are met with room, or that no noise touches: what `--gate` looks at, with this much more.
const GATES: [&str; 8] = ["A1", "G2b", "G3a", "G4a", "G4b", "G7a", "G7b", "G7c"];
const SLACK: f64 = 0.05;

/// Measures, prints, writes.
pub(super) fn run(args: &GoalsArgs) -> anyhow::Result<()> {
    let options = Options {
        small: args.small,
        traces: args.traces.clone(),
        threads: threads(args.threads),
    };
    let bar = Bar::default();
    let outcome = goals::measure(&options, &|step| bar.show(step));
    bar.end();
    let outcome = outcome?;
    print(&goals::table(&outcome))?;
    if let Some(folder) = &args.out {
        outcome.write(folder)?;
        put(
            &folder.join("report.html"),
            report::goals_page(&outcome).as_bytes(),
        )?;
    }
    if args.gate { gate(&outcome) } else { Ok(()) }
}

fn gate(outcome: &Outcome) -> anyhow::Result<()> {
    let missed = outcome.missed(&GATES, SLACK);
    let names: Vec<String> = missed
        .iter()
        .map(|it| format!("{} {}", it.id, it.goal))
        .collect();
    anyhow::ensure!(names.is_empty(), "missed by far: {}", names.join("; "));
    Ok(())
}

/// A line on standard error: the stage, a bar, and the time. On a terminal it is drawn over and over; otherwise each
/// stage is told once, when it begins.
#[derive(Default)]
struct Bar(Mutex<Drawn>);

#[derive(Default)]
struct Drawn {
    stage: String,
    width: usize,
    at: Option<Instant>,
}

/// Cells of the bar.
const WIDE: usize = 24;

impl Bar {
    fn show(&self, step: Step<'_>) {
        let mut drawn = self.0.lock();
        let begins = drawn.stage != step.stage;
        if begins {
            step.stage.clone_into(&mut drawn.stage);
        }
        // A terminal that is gone must not end the work.
        let mut err = std::io::stderr().lock();
        if !std::io::IsTerminal::is_terminal(&err) {
            if begins {
                let _ = writeln!(
                    err,
                    "{:>5.0} s  {}: {} runs",
                    step.seconds, step.stage, step.total
                );
            }
            return;
        }
        let soon = drawn.at.is_some_and(|at| at.elapsed().as_millis() < 100);
        if soon && step.done < step.total && !begins {
            return;
        }
        drawn.at = Some(Instant::now());
        let full = WIDE * step.done / step.total.max(1);
        let line = format!(
            "{:>5.0} s [{}{}] {:>4}/{:<4} {}",
            step.seconds,
            "=".repeat(full),
            " ".repeat(WIDE - full),
            step.done,
            step.total,
            step.stage
        );
        let _ = write!(err, "\r{line:<0$}", drawn.width).and_then(|()| err.flush());
        drawn.width = line.chars().count();
    }

    fn end(&self) {
        if self.0.lock().width > 0 {
            let _ = writeln!(std::io::stderr().lock());
        }
    }
}
