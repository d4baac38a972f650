//! What a pick costs: `pointsman epp` against the least that can pick, behind the same Envoy, before the same servers.
//!
//! One Envoy has two listeners, alike but for the picker that they ask. A round is one window through each, one right
//! after the other, in alternating order; a ratio is taken within its round, then the median over the rounds. CPU is that
//! of the picker alone, and of the pair, the picker and Envoy. Time added is against a window straight to a server.

pub mod envoy;
pub mod trivial;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::Error;
use crate::child::{Child, free_ports, sibling};
use crate::load::{self, Figures};
use crate::machine::{Machine, Placement};
use crate::spread::Spread;
use crate::suite::Scenario;
use envoy::Way;

const SERVERS: usize = 4;
const READY: Duration = Duration::from_secs(20);
/// What ends by itself does so after so many seconds.
const STOP_AFTER: &str = "1800";
const MICROS: f64 = 1e6;

/// How it is to be run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `pointsman` binary.
    pub pointsman: PathBuf,
    /// The Envoy binary.
    pub envoy: PathBuf,
    /// Cores: pickers and Envoy on one, the rest on the others.
    pub placement: Option<Placement>,
    /// Rounds of each scenario.
    pub rounds: usize,
    /// Window of each run.
    pub window: Duration,
}

/// One measure over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was sent.
    pub scenario: Scenario,
    /// CPU microseconds of the trivial picker, for each request or chunk.
    pub trivial: Option<Spread>,
    /// The same of `pointsman epp`.
    pub pointsman: Option<Spread>,
    /// The second by the first, within rounds.
    pub ratio: Option<Spread>,
    /// The same of picker and Envoy together.
    pub pair: Option<Spread>,
    /// Milliseconds that Envoy and the trivial picker add at the median and the 99th percentile; streams: to the first byte.
    pub trivial_adds: [Option<Spread>; 2],
    /// The same with `pointsman epp`.
    pub pointsman_adds: [Option<Spread>; 2],
    /// The ratio that is aimed at, and the one over which the gate closes.
    pub goal: Option<(f64, f64)>,
    /// Requests that failed.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
}

impl Row {
    /// Over the gate, or something failed.
    #[must_use]
    pub fn gate_failed(&self) -> bool {
        let over = match (self.goal, self.ratio) {
            (Some((_, gate)), Some(ratio)) => ratio.median > gate,
            (Some(_), None) => true,
            (None, _) => false,
        };
        over || self.errors > 0
    }
}

/// Goals and gates for the picker's own CPU. The gates are looser, for what a busy machine explains.
fn goal(scenario: Scenario) -> Option<(f64, f64)> {
    match scenario {
        Scenario::Small => Some((1.3, 1.8)),
        Scenario::Large => Some((1.5, 2.0)),
        Scenario::Stream => Some((1.3, 1.8)),
        Scenario::Open => None,
    }
}

/// The processes, in the order in which they are stopped.
struct World {
    envoy: Child,
    pointsman: Child,
    trivial: Child,
    mock: Child,
    ways: [Way; 2],
    direct: u16,
    _folder: tempfile::TempDir,
}

struct Round {
    direct: Figures,
    trivial: Figures,
    pointsman: Figures,
}

/// Runs every scenario.
///
/// # Errors
/// When a process does not start, ends early, or cannot be read.
pub async fn run(settings: &Settings) -> Result<Vec<Row>, Error> {
    let mut world = World::start(settings).await?;
    let mut rows = Vec::new();
    for scenario in [
        Scenario::Small,
        Scenario::Large,
        Scenario::Stream,
        Scenario::Open,
    ] {
        let mut rounds = Vec::with_capacity(settings.rounds);
        for index in 0..settings.rounds {
            rounds.push(
                world
                    .round(scenario, settings.window, index % 2 == 0)
                    .await?,
            );
        }
        let row = judge(scenario, &rounds);
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    Ok(rows)
}

impl World {
    async fn start(settings: &Settings) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("a folder for logs"))?;
        let ports = free_ports(SERVERS + 7)?;
        let (servers, own) = ports.split_at(SERVERS);
        let ways = [0, 2].map(|i| Way {
            listen: own[i],
            picker: own[i + 1],
        });
        let proxy = settings.placement.as_ref().map(|p| p.proxy.as_str());
        let others = settings.placement.as_ref().map(|p| p.others.as_str());
        let start = |name, program: &PathBuf, args: &[String], cores| {
            Child::start(name, program, args, cores, folder.path())
        };
        let addresses: Vec<String> = servers.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).map_err(Error::file(&path))?;
            Ok::<_, Error>(path.display().to_string())
        };

        let paced = [
            "--chunks",
            "100",
            "--chunk-delay-us",
            "10000",
            "--stop-after",
            STOP_AFTER,
        ];
        let mock_args: Vec<String> = (addresses.iter().cloned())
            .chain(paced.map(str::to_owned))
            .collect();
        let mock = start("mock", &sibling("mock")?, &mock_args, others)?;
        let mut trivial_args = vec!["--stop-after".to_owned(), STOP_AFTER.to_owned()];
        trivial_args.push(format!("127.0.0.1:{}", ways[0].picker));
        trivial_args.extend(addresses);
        let trivial = start(
            "trivial-picker",
            &sibling("trivial-picker")?,
            &trivial_args,
            proxy,
        )?;
        let pool = write("pool.yaml", pool(servers))?;
        let epp = epp_args(&pool, ways[1].picker, own[4], own[5]);
        let pointsman = start("pointsman", &settings.pointsman, &epp, proxy)?;
        let conf = write(
            "envoy.json",
            envoy::config(own[6], &ways, servers).to_string(),
        )?;
        let fixed = [
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-l",
            "error",
            "-c",
        ];
        let envoy_args: Vec<String> = fixed.map(str::to_owned).into_iter().chain([conf]).collect();
        let envoy = start("envoy", &settings.envoy, &envoy_args, proxy)?;
        let mut world = Self {
            envoy,
            pointsman,
            trivial,
            mock,
            ways,
            direct: servers[0],
            _folder: folder,
        };
        world.mock.ready(world.direct, READY).await?;
        for way in ways {
            world.envoy.ready(way.listen, READY).await?;
        }
        Ok(world)
    }

    async fn round(
        &mut self,
        scenario: Scenario,
        window: Duration,
        trivial_first: bool,
    ) -> Result<Round, Error> {
        let pids = |picker: &Child| [picker.pid(), self.envoy.pid()];
        let (of_trivial, of_pointsman) = (pids(&self.trivial), pids(&self.pointsman));
        let direct = load::run(&scenario.load(self.direct, window), &[]).await?;
        let [first, second] = self.ways.map(|way| scenario.load(way.listen, window));
        let (trivial, pointsman) = if trivial_first {
            let trivial = load::run(&first, &of_trivial).await?;
            (trivial, load::run(&second, &of_pointsman).await?)
        } else {
            let pointsman = load::run(&second, &of_pointsman).await?;
            (load::run(&first, &of_trivial).await?, pointsman)
        };
        for child in [
            &mut self.envoy,
            &mut self.pointsman,
            &mut self.trivial,
            &mut self.mock,
        ] {
            child.check_alive()?;
        }
        Ok(Round {
            direct,
            trivial,
            pointsman,
        })
    }
}

fn epp_args(pool: &str, grpc: u16, health: u16, metrics: u16) -> Vec<String> {
    let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
    vec![
        "epp".to_owned(),
        flag("file", &pool),
        flag("grpc-port", &grpc),
        flag("grpc-health-port", &health),
        flag("metrics-port", &metrics),
        flag("threads", &1),
        flag("secure-serving", &false),
    ]
}

/// The pool as files describe it.
fn pool(servers: &[u16]) -> String {
    let mut text = String::from(
        "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: mock, namespace: default}\n\
         spec:\n  selector: {matchLabels: {app: mock}}\n  targetPorts: [{number: 8000}]\n  \
         endpointPickerRef: {name: picker, port: {number: 9002}}\n",
    );
    for port in servers {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: mock-{port}, namespace: default, labels: {{app: mock}}}}\naddressType: IPv4\n\
             ports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        );
    }
    text
}

/// CPU microseconds for each request, or each event of streams: of the picker, and of picker and Envoy.
fn cost(scenario: Scenario, figures: &Figures) -> [f64; 2] {
    let count = match scenario {
        Scenario::Stream => figures.events,
        _ => figures.ok,
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
    let each = MICROS / count as f64;
    let picker = figures.cpu.first().copied().unwrap_or(f64::NAN);
    let pair = figures.cpu.iter().sum::<f64>();
    [picker * each, pair * each]
}

/// Milliseconds that are added at the median and the 99th percentile.
fn added(scenario: Scenario, figures: &Figures, direct: &Figures) -> [f64; 2] {
    let times = |figures: &Figures| match scenario {
        Scenario::Stream => [figures.first_byte_p50, figures.first_byte_p99],
        _ => [figures.p50, figures.p99],
    };
    let (through, straight) = (times(figures), times(direct));
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a window")]
    [0, 1].map(|i| (through[i] as f64 - straight[i] as f64) / 1e3)
}

fn judge(scenario: Scenario, rounds: &[Round]) -> Row {
    let of = |value: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
    let adds = |which: fn(&Round) -> &Figures| {
        // In a closed loop the time of a request says how many others there are, not what is added.
        let open = matches!(scenario, Scenario::Open | Scenario::Stream);
        [0, 1].map(|i| {
            open.then(|| of(&|round| added(scenario, which(round), &round.direct)[i]))
                .flatten()
        })
    };
    let all = || {
        rounds
            .iter()
            .flat_map(|r| [&r.direct, &r.trivial, &r.pointsman])
    };
    let ratio = |i: usize| of(&|r| cost(scenario, &r.pointsman)[i] / cost(scenario, &r.trivial)[i]);
    Row {
        scenario,
        trivial: of(&|round| cost(scenario, &round.trivial)[0]),
        pointsman: of(&|round| cost(scenario, &round.pointsman)[0]),
        ratio: ratio(0),
        pair: ratio(1),
        trivial_adds: adds(|round| &round.trivial),
        pointsman_adds: adds(|round| &round.pointsman),
        goal: goal(scenario),
        errors: all().map(|figures| figures.errors).sum(),
        first_error: all().find_map(|figures| figures.first_error.clone()),
    }
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |s| format!("{:.2} ({:.2} to {:.2})", s.median, s.min, s.max),
    )
}

fn line(row: &Row) -> String {
    let what = match row.scenario {
        Scenario::Small => "1 KB, CPU us/request",
        Scenario::Large => "64 KB, CPU us/request",
        Scenario::Stream => "SSE of 100, CPU us/chunk, first byte",
        Scenario::Open => "1 KB at 500/s, CPU us/request",
    };
    let goal = row
        .goal
        .map_or_else(|| "-".to_owned(), |(goal, gate)| format!("{goal} ({gate})"));
    let [a, b] = row.trivial_adds.map(cell);
    let [c, d] = row.pointsman_adds.map(cell);
    let (trivial, pointsman) = (cell(row.trivial), cell(row.pointsman));
    let (ratio, pair) = (cell(row.ratio), cell(row.pair));
    let mut text = format!(
        "| {what} | {trivial} | {pointsman} | {ratio} | {goal} | {pair} | {a} / {b} | {c} / {d} |"
    );
    if row.errors > 0 {
        let first = row.first_error.as_deref().unwrap_or("");
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n\n{} requests failed, the first: {first}",
            row.errors
        );
    }
    text
}

/// The table.
#[must_use]
pub fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {} cores, load {}, {}, {}\n\n\
         | | trivial picker | pointsman epp | ratio | goal (gate) | ratio with Envoy | trivial adds, ms, p50 / p99 | pointsman adds, ms, p50 / p99 |\n\
         |---|---|---|---|---|---|---|---|\n",
        machine.processor, machine.cores, machine.load_average, machine.date, machine.commit
    );
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ok: u64, cpu: [f64; 2]) -> Figures {
        Figures {
            ok,
            events: ok * 10,
            cpu: cpu.to_vec(),
            p50: 1500,
            ..Figures::default()
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds_and_judged_by_their_median() {
        let rounds = [(0.1, 0.12), (0.2, 0.24), (0.1, 0.3)].map(|(trivial, pointsman)| Round {
            direct: Figures::default(),
            trivial: figures(1000, [trivial, 0.1]),
            pointsman: figures(1000, [pointsman, 0.1]),
        });
        let row = judge(Scenario::Small, &rounds);
        assert!((row.ratio.unwrap().median - 1.2).abs() < 1e-9);
        assert!((row.trivial.unwrap().median - 100.0).abs() < 1e-9);
        assert!(!row.gate_failed());
        assert_eq!(row.trivial_adds, [None, None]);
        let open = judge(Scenario::Open, &rounds);
        assert!((open.pointsman_adds[0].unwrap().median - 1.5).abs() < 1e-9);
        let chunks = judge(Scenario::Stream, &rounds);
        assert!((chunks.trivial.unwrap().median - 10.0).abs() < 1e-9);
    }

    #[test]
    fn failures_and_nothing_at_all_close_the_gate() {
        let round = |ok, errors| Round {
            direct: Figures::default(),
            trivial: figures(1000, [0.1, 0.1]),
            pointsman: Figures {
                errors,
                ..figures(ok, [0.1, 0.1])
            },
        };
        assert!(judge(Scenario::Small, &[round(1000, 1)]).gate_failed());
        assert!(judge(Scenario::Small, &[round(0, 0)]).gate_failed());
        assert!(judge(Scenario::Small, &[round(400, 0)]).gate_failed());
        assert!(!judge(Scenario::Small, &[round(1000, 0)]).gate_failed());
    }

    #[test]
    fn the_pool_is_one_that_files_describe() {
        assert_eq!(pool(&[1, 2]).matches("---\n").count(), 2);
        let conf = envoy::config(
            1,
            &[Way {
                listen: 2,
                picker: 3,
            }],
            &[4],
        );
        assert_eq!(
            conf["static_resources"]["clusters"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
}
