//! The lab on the command line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

mod bounds;
mod goals;
mod replay;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use parking_lot::Mutex;

use crate::bound::Capacities;
use crate::compare::{
    BOUNDS, Builtin, Catalog as _, Cell, CellResult, Manifest, Plan, Progress, Results,
    SHARE_AT_ONCE, compare, put, write_jobs,
};
use crate::fleet::{Adjustment, Belief};
use crate::goals::Outcome;
use crate::stats::Slo;
use crate::{Weather, calibrate, report, workload};

/// Fleets in virtual time: policies side by side, bounds, reports.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Run one policy on one workload once, and keep every job.
    Run(RunArgs),
    /// Run policies on workloads at loads with seeds, and write results and a report.
    Compare(CompareArgs),
    /// What no placement beats, or hardly: a pooled server, shared caches, a capacity program, foresight.
    Bound(BoundArgs),
    /// Check simulated engines against published measurements.
    Calibrate(CalibrateArgs),
    /// Measure and judge all goals of placement; prints the table.
    Goals(GoalsArgs),
    /// Run a recording of a gateway again: are the decisions the same, and what would other policies have done?
    Replay(ReplayArgs),
    /// Write the report page from results.
    Report(ReportArgs),
    /// List policies and workloads.
    List,
}

/// Switches of the simulation.
#[derive(Debug, Args)]
pub struct Conditions {
    /// Engines, as MODEL*COUNT joined by '+'; each workload's own if not given.
    #[arg(long)]
    fleet: Option<String>,
    /// Settings of all engines as KEY=VALUE, joined by commas (a=42.5e-6,older=1); a wrong key lists them all.
    #[arg(long, value_delimiter = ',', value_parser = Adjustment::parse)]
    set: Vec<Adjustment>,
    /// Folder with trace files.
    #[arg(long, env = "POINTSMAN_TRACES")]
    traces: Option<PathBuf>,
    /// Network delay each way, ms.
    #[arg(long, default_value_t = 0.5)]
    network_ms: f64,
    /// Time between two scrapes, ms; 0 turns scraping off.
    #[arg(long, default_value_t = 50.0)]
    scrape_ms: f64,
    /// Age of a scrape when it is seen, ms.
    #[arg(long, default_value_t = 1.0)]
    scrape_delay_ms: f64,
    /// Sigma of the lognormal noise on step times.
    #[arg(long, default_value_t = 0.02)]
    noise: f64,
    /// Gateways, each with a scheduler of its own.
    #[arg(long, default_value_t = 1)]
    gateways: usize,
    /// Time between two messages in which a gateway tells the others what it did, ms; 0: gateways do not know of each
    /// other.
    #[arg(long, default_value_t = 0.0)]
    share_ms: f64,
    /// What a gateway tells at once: prefill that takes longer than this, ms.
    #[arg(long, default_value_t = SHARE_AT_ONCE * 1e3)]
    share_at_once_ms: f64,
    /// Seconds of arrivals; each workload's own if not given.
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds left out at the start; each workload's own if not given.
    #[arg(long)]
    warmup: Option<f64>,
    /// Seconds at most to wait for answers at the end.
    #[arg(long, default_value_t = 600.0)]
    drain: f64,
    /// By how much policies are mistaken about step times: a factor (1.3), factors by constant (a=1.3,q=.7), or 0 for the
    /// product's pool knowing nothing.
    #[arg(long, default_value = "1", value_parser = Belief::parse)]
    knowledge: Belief,
    /// What goes wrong: a preset of `lab list`, or switches as loss=3@200,join=3@300,freeze@100-200,jitter=.5.
    #[arg(long, default_value = "")]
    weather: String,
    /// Objective for the time to first token, s.
    #[arg(long, default_value_t = 2.0)]
    slo_ttft: f64,
    /// Objective for the time per output token, s.
    #[arg(long, default_value_t = 0.1)]
    slo_tpot: f64,
}

/// One run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The workload.
    workload: String,
    /// The policy.
    #[arg(long, default_value = "pointsman")]
    policy: String,
    /// The load; the workload's first if not given.
    #[arg(long)]
    load: Option<f64>,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for results.json, summary.csv and jobs.csv.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    conditions: Conditions,
}

/// A comparison.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Workloads, joined by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    workloads: Vec<String>,
    /// Policies, joined by commas; all if not given. NAME@VALUE sets what was tuned of a published one,
    /// pointsman@PATH=VALUE+PATH=VALUE settings of the product's pool (pointsman@prices.mu=0).
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// Loads, joined by commas; each workload's own if not given.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<f64>,
    /// Loads as shares of the bound's capacity, joined by commas, instead of --loads; takes a search for each workload.
    #[arg(long, value_delimiter = ',', conflicts_with = "loads")]
    shares: Vec<f64>,
    /// File that keeps capacities that were found.
    #[arg(long, requires = "shares")]
    capacities: Option<PathBuf>,
    /// Seeds, joined by commas; ranges as 1-5.
    #[arg(long, value_delimiter = ',', default_value = "1-5", value_parser = seeds)]
    seeds: Vec<Seeds>,
    /// Leave the pooled bound out.
    #[arg(long)]
    no_bound: bool,
    /// Threads; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Folder for results.json, summary.csv and report.html.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    conditions: Conditions,
}

/// The bound.
#[derive(Debug, Args)]
pub struct BoundArgs {
    /// The workload.
    workload: String,
    /// Loads, joined by commas; the workload's own if not given.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<f64>,
    /// Seeds, joined by commas; ranges as 1-5.
    #[arg(long, value_delimiter = ',', default_value = "1-5", value_parser = seeds)]
    seeds: Vec<Seeds>,
    /// Also seek the load up to which the bound's p90 stays within --slo-ttft.
    #[arg(long)]
    capacity: bool,
    /// Also place the first so many jobs by trying all engines with knowledge of the future (bound D); slow.
    #[arg(long, value_name = "JOBS")]
    rollout: Option<usize>,
    /// Folder for results.json and summary.csv.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    conditions: Conditions,
}

/// The calibration.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Leave out what takes whole fleets: seconds instead of minutes.
    #[arg(long)]
    quick: bool,
}

/// The goals.
#[derive(Debug, Args)]
pub struct GoalsArgs {
    /// Fewer cells, policies and seeds: minutes instead of half an hour.
    #[arg(long)]
    small: bool,
    /// Exit with 1 when a goal that noise does not touch is missed by far.
    #[arg(long)]
    gate: bool,
    /// Folder with trace files; without, look-alikes take their place.
    #[arg(long, env = "POINTSMAN_TRACES")]
    traces: Option<PathBuf>,
    /// Threads; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Folder for goals.json, goals.csv, goals.md, results.json, summary.csv and report.html.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A recording.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// What `serve --record` wrote.
    file: PathBuf,
    /// Only compare the decisions.
    #[arg(long)]
    verify: bool,
    /// The pool whose requests are tried on other policies; the one with the most if not given.
    #[arg(long)]
    pool: Option<String>,
    /// Policies, joined by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "pointsman,pool-round-robin,pool-least-request,gaie-no-hit-lru,lmetric"
    )]
    policies: Vec<String>,
    /// Paces, by the recorded one.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    loads: Vec<f64>,
    /// Seeds, joined by commas; ranges as 1-5.
    #[arg(long, value_delimiter = ',', default_value = "1-3", value_parser = seeds)]
    seeds: Vec<Seeds>,
    /// Folder for results.json, summary.csv and report.html.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    conditions: Conditions,
}

/// The report.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder that `compare` or `goals` wrote.
    folder: PathBuf,
    /// Also write the figure of all cells to this SVG file.
    #[arg(long, value_name = "SVG")]
    overview: Option<PathBuf>,
    /// Also write a figure of the time to first token over the load to this SVG file.
    #[arg(long, value_name = "SVG")]
    over_load: Option<PathBuf>,
    /// The page; report.html in the folder if not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Seeds from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seeds(Vec<u64>);

fn seeds(text: &str) -> Result<Seeds, SeedsError> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| SeedsError);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last || last - first >= 1000 {
        return Err(SeedsError);
    }
    Ok(Seeds((first..=last).collect()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a number, or FIRST-LAST with at most 1000 numbers")]
struct SeedsError;

impl Conditions {
    fn plan(&self, workloads: Vec<String>, loads: Vec<f64>, seeds: Vec<u64>) -> Plan {
        Plan {
            fleet: self.fleet.clone(),
            set: self.set.clone(),
            workloads,
            loads,
            seeds,
            network_delay: self.network_ms * 1e-3,
            scrape_period: self.scrape_ms * 1e-3,
            scrape_delay: self.scrape_delay_ms * 1e-3,
            step_noise: self.noise,
            gateways: self.gateways,
            share_period: self.share_ms * 1e-3,
            share_at_once: self.share_at_once_ms * 1e-3,
            horizon: self.seconds,
            warmup: self.warmup,
            drain: self.drain,
            knowledge: self.knowledge,
            weather: self.weather.clone(),
            slo: Slo {
                ttft: self.slo_ttft,
                tpot: self.slo_tpot,
            },
            ..Plan::default()
        }
    }

    fn catalog(&self) -> Builtin {
        Builtin {
            traces: self.traces.clone(),
        }
    }
}

fn flat(seeds: &[Seeds]) -> Vec<u64> {
    let mut all: Vec<u64> = seeds.iter().flat_map(|it| it.0.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Does what the command says. Results go to standard output and to files, progress to standard error.
///
/// # Errors
/// Unknown names, values out of range, files that do not read or write.
pub fn main(command: LabCommand) -> anyhow::Result<()> {
    match command {
        LabCommand::Run(args) => run(&args),
        LabCommand::Compare(args) => compare_all(args),
        LabCommand::Bound(args) => bounds(&args),
        LabCommand::Calibrate(args) => calibrate(&args),
        LabCommand::Goals(args) => goals::run(&args),
        LabCommand::Replay(args) => replay::run(&args),
        LabCommand::Report(args) => {
            let path = args.out.unwrap_or_else(|| args.folder.join("report.html"));
            let results = Results::read(&args.folder)?;
            if let Some(path) = args.overview {
                put(&path, report::overview(&results).as_bytes())?;
            }
            if let Some(path) = args.over_load {
                put(&path, report::over_load_figure(&results).as_bytes())?;
            }
            if args.folder.join("goals.json").is_file() {
                let outcome = Outcome::read(&args.folder)?;
                return Ok(put(&path, report::goals_page(&outcome).as_bytes())?);
            }
            write_report(&results, &path)
        }
        LabCommand::List => list(),
    }
}

fn run(args: &RunArgs) -> anyhow::Result<()> {
    let catalog = args.conditions.catalog();
    let load = match args.load {
        Some(load) => load,
        None => *catalog
            .setting(&args.workload, None)?
            .loads
            .first()
            .context("the workload has no load of its own: give --load")?,
    };
    let workloads = vec![args.workload.clone()];
    let mut plan = args.conditions.plan(workloads, vec![load], vec![args.seed]);
    plan.policies = vec![args.policy.clone()];
    plan.bound = false;
    let cell = Cell {
        policy: args.policy.clone(),
        workload: args.workload.clone(),
        load,
        seed: args.seed,
    };
    let began = Instant::now();
    let outcome = plan.run(&catalog, &cell)?;
    let results = Results {
        manifest: Manifest::of(&plan, &catalog, began.elapsed().as_secs_f64())?,
        cells: vec![CellResult::of(&outcome, plan.slo, true)],
    };
    print(&report::text(&results))?;
    let summary = &results.cells[0].summary;
    print(&format!(
        "\n{} jobs, {} shed, {} unfinished, {} preemptions; {:.0} virtual seconds at {:.0} times real time\n",
        summary.jobs,
        summary.shed,
        summary.unfinished,
        summary.preemptions,
        outcome.virtual_seconds,
        summary.speed
    ))?;
    if let Some(folder) = &args.out {
        results.write(folder)?;
        write_jobs(&outcome.jobs, &folder.join("jobs.csv"))?;
    }
    Ok(())
}

fn compare_all(args: CompareArgs) -> anyhow::Result<()> {
    let mut plan = args
        .conditions
        .plan(args.workloads, args.loads, flat(&args.seeds));
    plan.bound = !args.no_bound;
    plan.policies = args.policies;
    if plan.policies.is_empty() {
        plan.policies = Builtin::policies().map(str::to_owned).collect();
    }
    if !args.shares.is_empty() {
        let catalog = args.conditions.catalog();
        plan.places = places(&plan, &catalog, args.capacities, &args.shares)?;
    }
    let results = compare(
        &plan,
        &args.conditions.catalog(),
        threads(args.threads),
        &show(&Mutex::new(0)),
    )?;
    results.write(&args.out)?;
    write_report(&results, &args.out.join("report.html"))?;
    print(&report::text(&results))
}

fn bounds(args: &BoundArgs) -> anyhow::Result<()> {
    let workloads = vec![args.workload.clone()];
    let mut plan = args
        .conditions
        .plan(workloads, args.loads.clone(), flat(&args.seeds));
    plan.bound = true;
    let catalog = args.conditions.catalog();
    let results = compare(&plan, &catalog, threads(None), &show(&Mutex::new(0)))?;
    print(&report::text(&results))?;
    if let Some(folder) = &args.out {
        results.write(folder)?;
    }
    bounds::rest(args, &plan, &catalog)
}

/// Each workload at each share of what the bound can carry.
fn places(
    plan: &Plan,
    catalog: &Builtin,
    file: Option<PathBuf>,
    shares: &[f64],
) -> anyhow::Result<Vec<(String, f64)>> {
    let capacities = Capacities::new(file)?;
    let mut places = Vec::new();
    for workload in &plan.workloads {
        for &share in shares {
            let load = capacities.load(plan, catalog, workload, share)?;
            places.push((workload.clone(), load));
        }
    }
    Ok(places)
}

/// As many threads as asked for, else as there are cores.
fn threads(asked: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or_else(cores).max(1)
}

/// A line on standard error that tells how far a comparison is; `width` is that of the last one.
fn show(width: &Mutex<usize>) -> impl Fn(Progress<'_>) + Sync {
    move |it: Progress<'_>| {
        let left = it.seconds / it.done as f64 * (it.total - it.done) as f64;
        let cell = it.cell;
        let line = format!(
            "[{}/{}] {:.0} s, about {left:.0} s left: {} {} at {} seed {}",
            it.done, it.total, it.seconds, cell.policy, cell.workload, cell.load, cell.seed
        );
        let mut width = width.lock();
        let end = if it.done == it.total { "\n" } else { "" };
        // A terminal that is gone must not end the comparison.
        let mut err = std::io::stderr().lock();
        if !std::io::IsTerminal::is_terminal(&err) {
            return;
        }
        let _ = write!(err, "\r{line:<0$}{end}", *width).and_then(|()| err.flush());
        *width = line.len();
    }
}

/// Fails when a gate does not hold.
fn calibrate(args: &CalibrateArgs) -> anyhow::Result<()> {
    let gates = calibrate::calibrate(args.quick);
    print(&calibrate::table(&gates))?;
    let failed = gates.iter().filter(|it| !it.pass).count();
    anyhow::ensure!(failed == 0, "{failed} of {} gates do not hold", gates.len());
    Ok(())
}

fn list() -> anyhow::Result<()> {
    let mut text = String::from("policies:\n");
    for name in Builtin::policies() {
        let _ = writeln!(text, "  {name}");
    }
    text.push_str("bounds (always beside the policies):\n");
    for (name, _) in BOUNDS {
        let _ = writeln!(text, "  {name}");
    }
    text.push_str("workloads:\n");
    for entry in workload::catalogue() {
        let _ = writeln!(
            text,
            "  {:<24} {} (load: {}, {:?})",
            entry.name, entry.description, entry.unit, entry.loads
        );
    }
    text.push_str("weather (--weather):\n");
    for (name, switches, about) in Weather::PRESETS {
        let _ = writeln!(text, "  {name:<24} {about} ({switches})");
    }
    print(&text)
}

fn write_report(results: &Results, path: &Path) -> anyhow::Result<()> {
    Ok(put(path, report::page(results).as_bytes())?)
}

/// Prints; a reader that has left early (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: LabCommand,
    }

    #[test]
    fn the_command_line_makes_a_plan() {
        let line = "lab compare --workloads b2b,zipf --policies pointsman,lpwl --loads 9,12.5 --seeds 1-3,7 \
                    --network-ms 5 --scrape-ms 1000 --gateways 4 --share-ms 50 --set a=42.5e-6,older=1 --out x";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let LabCommand::Compare(args) = cli.command else {
            panic!("not a comparison");
        };
        let plan = args
            .conditions
            .plan(args.workloads, args.loads, flat(&args.seeds));
        assert_eq!(plan.seeds, [1, 2, 3, 7]);
        assert_eq!(plan.loads, [9.0, 12.5]);
        assert_eq!((plan.network_delay, plan.scrape_period), (0.005, 1.0));
        assert_eq!((plan.gateways, plan.share_period), (4, 0.05));
        assert!((plan.share_at_once - SHARE_AT_ONCE).abs() < 1e-12);
        assert_eq!(plan.set.len(), 2);
        let setting = plan.setting(&Builtin::default(), "b2b").unwrap();
        assert_eq!(setting.engines[0].profile.a, 42.5e-6);
    }

    #[test]
    fn nonsense_on_the_command_line_is_refused() {
        for line in [
            "lab compare --out x",
            "lab compare --workloads b2b",
            "lab compare --workloads b2b --out x --seeds 3-1",
            "lab compare --workloads b2b --out x --seeds x",
            "lab compare --workloads b2b --out x --set a=-1",
            "lab compare --workloads b2b --out x --loads many",
            "lab run",
        ] {
            assert!(
                Cli::try_parse_from(line.split_whitespace()).is_err(),
                "{line}"
            );
        }
        assert!(seeds("1-100000").is_err());
    }
}
