//! The suite: which loads are run, in which order, over which processes.
//!
//! Each scenario is run in rounds. A round is one window through the floor and one through the
//! gateway, directly one after the other, and the order changes from round to round, so that a
//! machine that gets slower or faster favours neither. Scenarios whose question is "how much time is
//! added" begin each round with a window straight to a mock server.
//!
//! With the gate on, a scenario whose median is over a gate is run once more before it is judged,
//! as the first run may have met a busy machine. Both runs are in the raw figures.

mod judge;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tokio::time::sleep;

use crate::Error;
use crate::child::{Child, expand, free_ports, sibling};
use crate::load::{self, Figures, Load};
use crate::machine::{Machine, Placement};
use crate::process::{self, Memory};
pub use judge::{Goal, Row, Unit};

/// The arguments of `pointsman`.
pub const POINTSMAN_ARGS: &str = "serve {backends} --listen {listen} --admin {admin}";

const SERVERS: usize = 4;
/// A child must answer within this time of its start.
const READY: Duration = Duration::from_secs(20);
/// Between readiness and the reading of idle memory.
const SETTLE: Duration = Duration::from_secs(1);
/// Floor and mock end by themselves after so many seconds.
const STOP_AFTER: &str = "1800";

/// A load whose cost is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// 1 KB requests, closed loop over 32 connections.
    Small,
    /// 64 KB requests, closed loop over 32 connections.
    Large,
    /// Streams of 100 chunks of 0.2 KB, one each 10 ms, 40 new streams a second.
    Stream,
    /// 1 KB requests, open loop at 500 a second.
    Open,
}

impl Scenario {
    /// The load of one window, through `port`.
    #[must_use]
    pub fn load(self, port: u16, window: Duration) -> Load {
        let base = Load {
            port,
            window,
            ..Load::default()
        };
        match self {
            Self::Small => base,
            Self::Large => Load {
                body: 64 * 1024,
                pool: 64,
                groups: 8,
                ..base
            },
            // The warm-up is longer than a stream: then as many end as begin.
            Self::Stream => Load {
                stream: true,
                rate: Some(40.0),
                connections: 96,
                warmup: Duration::from_millis(1200),
                ..base
            },
            Self::Open => Load {
                rate: Some(500.0),
                ..base
            },
        }
    }

    fn needs_direct(self) -> bool {
        matches!(self, Self::Stream | Self::Open)
    }
}

/// How a suite is to be run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateway's binary.
    pub gateway: PathBuf,
    /// Its arguments, a template for [`expand`].
    pub gateway_args: String,
    /// Worker threads of gateway (`--threads N` is added) and floor.
    pub threads: Option<NonZeroUsize>,
    /// Cores; `None` pins nothing.
    pub placement: Option<Placement>,
    /// Scenarios, in order.
    pub scenarios: Vec<Scenario>,
    /// Rounds of each scenario.
    pub rounds: usize,
    /// Window of each run.
    pub window: Duration,
    /// Repeat a scenario that is over a gate once.
    pub repeat: bool,
}

/// One round: a window through each.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Straight to one mock server, where the scenario asks how much time is added.
    pub direct: Option<Figures>,
    /// Through the floor.
    pub floor: Figures,
    /// Through the gateway.
    pub gateway: Figures,
}

/// All rounds of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What was run.
    pub scenario: Scenario,
    /// Its rounds, in order.
    pub rounds: Vec<Round>,
    /// Most memory of the floor in these rounds, MiB.
    pub floor_peak: f64,
    /// Most memory of the gateway in these rounds, MiB.
    pub gateway_peak: f64,
}

/// Everything that a suite found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it ran.
    pub machine: Machine,
    /// Whether floor and gateway had one core.
    pub pinned: bool,
    /// Worker threads of both, where given.
    pub threads: Option<NonZeroUsize>,
    /// Rounds of each scenario.
    pub rounds: usize,
    /// Seconds of a window.
    pub window: f64,
    /// Every measure, judged.
    pub rows: Vec<Row>,
    /// Every run, those that were repeated too.
    pub runs: Vec<Run>,
}

impl Outcome {
    /// True when a measure is over its gate or had failed requests.
    #[must_use]
    pub fn gate_failed(&self) -> bool {
        self.rows.iter().any(Row::gate_failed)
    }
}

/// The running processes and their ports.
struct World {
    // In the order in which they are stopped: the proxies before what they call.
    gateway: Child,
    floor: Child,
    mock: Child,
    gateway_port: u16,
    floor_port: u16,
    direct_port: u16,
    _logs: tempfile::TempDir,
}

/// Starts everything, runs every scenario, and stops everything.
///
/// # Errors
/// When a process does not start, ends early, or cannot be read. Failed requests are counted and
/// make their measure fail.
pub async fn run(settings: &Settings) -> Result<Outcome, Error> {
    let machine = Machine::look();
    let mut world = World::start(settings).await?;
    sleep(SETTLE).await;
    let mut rows = vec![judge::idle(
        world.floor_memory()?.resident,
        world.gateway_memory()?.resident,
    )];
    let mut runs = Vec::new();
    for &scenario in &settings.scenarios {
        let first = world.rounds(scenario, settings).await?;
        let mut judged = judge::rows(&first, false);
        runs.push(first);
        if settings.repeat && judged.iter().any(Row::gate_failed) {
            eprintln!("{scenario:?} is over its gate: once more");
            let second = world.rounds(scenario, settings).await?;
            judged = judge::rows(&second, true);
            runs.push(second);
        }
        rows.extend(judged);
    }
    Ok(Outcome {
        machine,
        pinned: settings.placement.is_some(),
        threads: settings.threads,
        rounds: settings.rounds,
        window: settings.window.as_secs_f64(),
        rows,
        runs,
    })
}

impl World {
    async fn start(settings: &Settings) -> Result<Self, Error> {
        let logs = tempfile::tempdir().map_err(Error::io("a folder for logs"))?;
        let ports = free_ports(SERVERS + 3)?;
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let (servers, own) = ports.split_at(SERVERS);
        let servers: Vec<String> = servers.iter().map(address).collect();
        let own: Vec<String> = own.iter().map(address).collect();
        let start = |name, program: &PathBuf, args: &[String], cores| {
            Child::start(name, program, args, cores, logs.path())
        };
        let proxy_core = settings.placement.as_ref().map(|p| p.proxy.as_str());
        let other_cores = settings.placement.as_ref().map(|p| p.others.as_str());

        let mock = start("mock", &sibling("mock")?, &mock_args(&servers), other_cores)?;
        let floor = start(
            "floor",
            &sibling("floor")?,
            &floor_args(settings, &own[0], &servers),
            proxy_core,
        )?;
        let gateway = start(
            "gateway",
            &settings.gateway,
            &gateway_args(settings, &own[1..], &servers),
            proxy_core,
        )?;
        let mut world = Self {
            gateway,
            floor,
            mock,
            gateway_port: ports[SERVERS + 1],
            floor_port: ports[SERVERS],
            direct_port: ports[0],
            _logs: logs,
        };
        world.mock.ready(world.direct_port, READY).await?;
        world.floor.ready(world.floor_port, READY).await?;
        world.gateway.ready(world.gateway_port, READY).await?;
        eprintln!(
            "mock, floor and gateway answer; pids {} {} {}",
            world.mock.pid(),
            world.floor.pid(),
            world.gateway.pid()
        );
        Ok(world)
    }

    fn floor_memory(&self) -> Result<Memory, Error> {
        process::memory(self.floor.pid())
    }

    fn gateway_memory(&self) -> Result<Memory, Error> {
        process::memory(self.gateway.pid())
    }

    async fn rounds(&mut self, scenario: Scenario, settings: &Settings) -> Result<Run, Error> {
        process::reset_peak(self.floor.pid())?;
        process::reset_peak(self.gateway.pid())?;
        let mut rounds = Vec::with_capacity(settings.rounds);
        for index in 0..settings.rounds {
            let round = self
                .round(scenario, settings.window, index % 2 == 0)
                .await?;
            eprintln!(
                "{scenario:?} {}/{}: {}",
                index + 1,
                settings.rounds,
                judge::progress(scenario, &round)
            );
            rounds.push(round);
        }
        Ok(Run {
            scenario,
            rounds,
            floor_peak: self.floor_memory()?.peak,
            gateway_peak: self.gateway_memory()?.peak,
        })
    }

    async fn round(
        &mut self,
        scenario: Scenario,
        window: Duration,
        floor_first: bool,
    ) -> Result<Round, Error> {
        let direct = if scenario.needs_direct() {
            Some(load::run(&scenario.load(self.direct_port, window), &[]).await?)
        } else {
            None
        };
        let through_floor = scenario.load(self.floor_port, window);
        let through_gateway = scenario.load(self.gateway_port, window);
        let (floor_pid, gateway_pid) = ([self.floor.pid()], [self.gateway.pid()]);
        let (floor, gateway) = if floor_first {
            let floor = load::run(&through_floor, &floor_pid).await?;
            (floor, load::run(&through_gateway, &gateway_pid).await?)
        } else {
            let gateway = load::run(&through_gateway, &gateway_pid).await?;
            (load::run(&through_floor, &floor_pid).await?, gateway)
        };
        self.gateway.check_alive()?;
        self.floor.check_alive()?;
        self.mock.check_alive()?;
        Ok(Round {
            direct,
            floor,
            gateway,
        })
    }
}

fn mock_args(servers: &[String]) -> Vec<String> {
    let options = [
        "--chunks",
        "100",
        "--chunk-delay-us",
        "10000",
        "--stop-after",
        STOP_AFTER,
    ];
    servers
        .iter()
        .cloned()
        .chain(options.map(str::to_owned))
        .collect()
}

fn floor_args(settings: &Settings, listen: &str, servers: &[String]) -> Vec<String> {
    let mut args = vec!["--stop-after".to_owned(), STOP_AFTER.to_owned()];
    args.extend(threads_args(settings));
    args.push(listen.to_owned());
    args.extend_from_slice(servers);
    args
}

fn gateway_args(settings: &Settings, own: &[String], servers: &[String]) -> Vec<String> {
    let urls: Vec<String> = servers.iter().map(|s| format!("http://{s}")).collect();
    let mut args = expand(&settings.gateway_args, &own[0], &own[1], &urls);
    args.extend(threads_args(settings));
    args
}

fn threads_args(settings: &Settings) -> Vec<String> {
    settings
        .threads
        .map_or_else(Vec::new, |n| vec!["--threads".to_owned(), n.to_string()])
}
