//! `lab replay`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::{ReplayArgs, flat, print, show, threads, write_report};
use crate::compare::{CellResult, compare};
use crate::replay::{self, PoolReplay, RECORDED, REPLAY, Replay};
use crate::report;

/// Compares the decisions, then tries the requests on other policies. Fails when a decision differs.
pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let open = || {
        File::open(&args.file)
            .map(BufReader::new)
            .with_context(|| args.file.display().to_string())
    };
    let again = replay::verify(open()?).with_context(|| args.file.display().to_string())?;
    print(&told(&again))?;
    anyhow::ensure!(again.same(), "the decisions are not the recorded ones");
    if args.verify {
        return Ok(());
    }
    let traffic = replay::traffic(open()?, args.pool.as_deref())?;
    let mut plan = args.conditions.plan(
        vec![REPLAY.to_owned()],
        args.loads.clone(),
        flat(&args.seeds),
    );
    plan.policies.clone_from(&args.policies);
    plan.warmup = plan.warmup.or(Some(0.0));
    let mut results = compare(&plan, &traffic, threads(None), &show(&Mutex::new(0)))?;
    for &load in args.loads.iter().filter(|it| **it == 1.0) {
        let mut cell = CellResult::of(&traffic.outcome, plan.slo, false);
        cell.summary.load = load;
        results.cells.push(cell);
        let about = "what the gateway itself saw when it recorded".to_owned();
        results.manifest.policies.push((RECORDED.to_owned(), about));
    }
    print(&report::text(&results))?;
    if let Some(folder) = &args.out {
        results.write(folder)?;
        write_report(&results, &folder.join("report.html"))?;
    }
    Ok(())
}

fn told(again: &Replay) -> String {
    let mut text = String::new();
    for pool in &again.pools {
        let _ = writeln!(text, "{}", of_pool(pool));
    }
    let _ = write!(text, "{} lines", again.lines);
    if again.full {
        text.push_str("; the recorder ran into its bound, so the end is missing");
    }
    if again.cut {
        text.push_str("; the last line is cut off and was left out");
    }
    text.push('\n');
    text
}

fn of_pool(pool: &PoolReplay) -> String {
    let mut text = format!(
        "pool {}: policy {}, {} requests",
        pool.name, pool.policy, pool.requests
    );
    let _ = match (&pool.skipped, &pool.difference) {
        (Some(why), _) => write!(text, "; not run again: {why}"),
        (None, None) => write!(text, ", {} decisions, all the same", pool.same),
        (None, Some(it)) => write!(
            text,
            ", {} decisions the same, then line {} differs\n  recorded: {}\n  now:      {}",
            pool.same, it.line, it.recorded, it.now
        ),
    };
    text
}
