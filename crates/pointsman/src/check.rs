//! `pointsman check`: what a cluster would say about these objects, without one.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::{CheckArgs, CheckOutput};

/// What was found out.
#[derive(Serialize)]
struct Report {
    problems: Vec<String>,
    warnings: Vec<String>,
    skipped: Vec<String>,
    notes: Vec<String>,
    conditions: Vec<Row>,
}

/// One condition of one object, as `kubectl get -o wide` would lay it out.
#[derive(Serialize)]
struct Row {
    object: String,
    parent: String,
    condition: &'static str,
    status: String,
    reason: &'static str,
    message: String,
    #[serde(skip)]
    problem: bool,
}

/// Prints the report; success when nothing is wrong.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let report = examine(args);
    let mut out = std::io::stdout().lock();
    let written = match args.output {
        CheckOutput::Table => table(&mut out, &report),
        CheckOutput::Json => serde_json::to_writer_pretty(&mut out, &report)
            .map_err(Into::into)
            .and_then(|()| writeln!(out)),
    };
    let sound = report.problems.is_empty() && !report.conditions.iter().any(|row| row.problem);
    if written.is_ok() && sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn examine(args: &CheckArgs) -> Report {
    let loaded = files::Source::new(args.files.clone()).load();
    let compiled = routing::compile(&loaded.objects, &routing::CompileOptions::default());
    Report {
        problems: loaded.problems.iter().map(ToString::to_string).collect(),
        warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
        skipped: loaded.skipped.iter().map(ToString::to_string).collect(),
        notes: crate::config::notes(&compiled),
        conditions: compiled.statuses.iter().flat_map(rows).collect(),
    }
}

fn rows(status: &routing::ObjectStatus) -> impl Iterator<Item = Row> + '_ {
    let parent = match (&status.parent, &status.listener) {
        (Some(parent), _) => {
            let section = parent
                .section
                .as_ref()
                .map(|section| format!(":{section}"))
                .unwrap_or_default();
            format!(
                "{} {}/{}{section}",
                parent.kind, parent.namespace, parent.name
            )
        }
        (None, Some(listener)) => format!("listener {listener}"),
        (None, None) => String::from("-"),
    };
    status.conditions.iter().map(move |condition| Row {
        object: status.object.to_string(),
        parent: parent.clone(),
        condition: condition.type_,
        status: condition.status.to_string(),
        reason: condition.reason,
        message: condition.message.clone(),
        problem: condition.is_problem(),
    })
}

/// The widths of the first five columns.
fn widths(rows: &[Row]) -> [usize; 5] {
    let head = ["OBJECT", "PARENT", "CONDITION", "STATUS", "REASON"].map(str::len);
    rows.iter().fold(head, |w, row| {
        let cells = [
            row.object.len(),
            row.parent.len(),
            row.condition.len(),
            row.status.len(),
            row.reason.len(),
        ];
        std::array::from_fn(|i| w[i].max(cells[i]))
    })
}

fn table(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let [a, b, c, d, e] = widths(&report.conditions);
    if !report.conditions.is_empty() {
        writeln!(
            out,
            "{:a$}  {:b$}  {:c$}  {:d$}  {:e$}  MESSAGE",
            "OBJECT", "PARENT", "CONDITION", "STATUS", "REASON"
        )?;
    }
    for row in &report.conditions {
        let line = format!(
            "{:a$}  {:b$}  {:c$}  {:d$}  {:e$}  {}",
            row.object, row.parent, row.condition, row.status, row.reason, row.message
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    let sections = [
        ("note", &report.notes),
        ("skipped", &report.skipped),
        ("warning", &report.warnings),
        ("error", &report.problems),
    ];
    for (name, lines) in sections {
        for line in lines {
            writeln!(out, "{name}: {line}")?;
        }
    }
    let bad = report.conditions.iter().filter(|row| row.problem).count();
    match (report.problems.len(), bad) {
        (0, 0) => writeln!(out, "ok: {} conditions, none bad", report.conditions.len()),
        (broken, bad) => writeln!(out, "{broken} errors, {bad} bad conditions"),
    }
}
