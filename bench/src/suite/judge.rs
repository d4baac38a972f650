//! From raw rounds to judged measures.
//!
//! A cost is judged as a ratio to the floor of the same round, as the two windows of a round met the
//! same machine. Added time is judged against the direct window of the same round, memory by itself.
//! The *goal* is what the gateway aims at; the *gate* is looser, so that a change fails only for
//! what noise cannot explain: single windows scatter by about a tenth, in bad minutes by a third.

use serde::Serialize;

use super::{Round, Run, Scenario};
use crate::load::Figures;
use crate::spread::Spread;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Microseconds of CPU time.
    CpuMicros,
    /// Milliseconds of waiting.
    Millis,
    /// Mebibytes.
    #[serde(rename = "mib")]
    MiB,
    /// Per second.
    PerSecond,
}

/// What a measure should reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// At most this many times the floor, in the median of the rounds.
    Ratio(f64),
    /// At most this value, in the median of the rounds, in the measure's unit.
    AtMost(f64),
}

/// A measure of floor and gateway, judged.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is measured.
    pub measure: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// The floor's values; `None` when no round gave one.
    pub floor: Option<Spread>,
    /// The gateway's values.
    pub gateway: Option<Spread>,
    /// Gateway divided by floor, round by round.
    pub ratio: Option<Spread>,
    /// What to reach; `None` is for information.
    pub goal: Option<Goal>,
    /// The ratio over which the gate closes.
    pub gate: Option<f64>,
    /// Failed requests in its windows.
    pub errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
    /// True for the second run of a scenario that was over a gate.
    pub repeated: bool,
}

impl Row {
    /// Whether the goal is reached; `None` without a goal. Failed requests reach no goal.
    #[must_use]
    pub fn passed(&self) -> Option<bool> {
        let (value, most) = match self.goal? {
            Goal::Ratio(most) => (self.ratio, most),
            Goal::AtMost(most) => (self.gateway, most),
        };
        Some(self.errors == 0 && value.is_some_and(|v| v.median <= most))
    }

    /// True when the measure is over its gate, was not obtained, or had failed requests.
    #[must_use]
    pub fn gate_failed(&self) -> bool {
        let over = |gate| self.ratio.is_none_or(|r| r.median > gate);
        self.errors > 0 || self.gate.is_some_and(over)
    }
}

/// A measure before it is applied to rounds: how to get its value from a window and, where time
/// added is asked for, the direct window beside it.
struct Measure {
    name: &'static str,
    unit: Unit,
    value: fn(&Figures, Option<&Figures>) -> f64,
    compare: bool,
    goal: Option<Goal>,
    gate: Option<f64>,
}

const REQUESTS_PER_SECOND: fn(&Figures, Option<&Figures>) -> f64 = |f, _| f.ok as f64 / f.wall;

fn cpu_per(f: &Figures, count: u64) -> f64 {
    f.cpu
        .first()
        .map_or(f64::NAN, |seconds| seconds * 1e6 / count as f64)
}

fn cpu_per_request(f: &Figures, _: Option<&Figures>) -> f64 {
    cpu_per(f, f.ok)
}

fn cpu_per_event(f: &Figures, _: Option<&Figures>) -> f64 {
    cpu_per(f, f.events)
}

fn added_p50(f: &Figures, direct: Option<&Figures>) -> f64 {
    direct.map_or(f64::NAN, |d| (f.p50 as f64 - d.p50 as f64) / 1000.0)
}

fn added_first_byte(f: &Figures, direct: Option<&Figures>) -> f64 {
    direct.map_or(f64::NAN, |d| {
        (f.first_byte_p50 as f64 - d.first_byte_p50 as f64) / 1000.0
    })
}

/// A cost in CPU time, judged by its ratio.
fn cost(
    name: &'static str,
    value: fn(&Figures, Option<&Figures>) -> f64,
    goal: f64,
    gate: f64,
) -> Measure {
    Measure {
        name,
        unit: Unit::CpuMicros,
        value,
        compare: true,
        goal: Some(Goal::Ratio(goal)),
        gate: Some(gate),
    }
}

/// Added time, judged by itself: a ratio of two small differences would say nothing.
fn added(name: &'static str, value: fn(&Figures, Option<&Figures>) -> f64, most: f64) -> Measure {
    Measure {
        name,
        unit: Unit::Millis,
        value,
        compare: false,
        goal: Some(Goal::AtMost(most)),
        gate: None,
    }
}

fn throughput(name: &'static str) -> Measure {
    Measure {
        name,
        unit: Unit::PerSecond,
        value: REQUESTS_PER_SECOND,
        compare: true,
        goal: None,
        gate: None,
    }
}

fn measures(scenario: Scenario) -> Vec<Measure> {
    match scenario {
        Scenario::Small => vec![
            cost("CPU per request, 1 KB", cpu_per_request, 1.5, 2.5),
            throughput("requests/s, 1 KB, closed loop of 32"),
        ],
        Scenario::Large => vec![
            cost("CPU per request, 64 KB", cpu_per_request, 1.8, 2.5),
            throughput("requests/s, 64 KB, closed loop of 32"),
        ],
        Scenario::Stream => vec![
            cost("CPU per streamed chunk, paced", cpu_per_event, 1.2, 1.5),
            added(
                "added to the first byte, p50, paced streams",
                added_first_byte,
                0.3,
            ),
        ],
        Scenario::Open => vec![added("added p50 at 500/s, 1 KB", added_p50, 0.25)],
    }
}

/// The judged measures of a run.
pub(super) fn rows(run: &Run, repeated: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = measures(run.scenario)
        .iter()
        .map(|m| row(m, run, repeated))
        .collect();
    if run.scenario == Scenario::Large {
        rows.push(memory(
            "peak memory under 32 x 64 KB",
            run.floor_peak,
            run.gateway_peak,
            60.0,
        ));
    }
    rows
}

/// The judged memory after the start.
pub(super) fn idle(floor: f64, gateway: f64) -> Row {
    memory("memory idle", floor, gateway, 25.0)
}

fn memory(measure: &'static str, floor: f64, gateway: f64, most: f64) -> Row {
    Row {
        measure,
        unit: Unit::MiB,
        floor: Spread::of([floor]),
        gateway: Spread::of([gateway]),
        ratio: Spread::of([gateway / floor]),
        goal: Some(Goal::AtMost(most)),
        gate: None,
        errors: 0,
        first_error: None,
        repeated: false,
    }
}

fn row(m: &Measure, run: &Run, repeated: bool) -> Row {
    let floor = |r: &Round| (m.value)(&r.floor, r.direct.as_ref());
    let gateway = |r: &Round| (m.value)(&r.gateway, r.direct.as_ref());
    let over = |f: &dyn Fn(&Round) -> f64| Spread::of(run.rounds.iter().map(f));
    let windows = || {
        run.rounds
            .iter()
            .flat_map(|r| r.direct.iter().chain([&r.floor, &r.gateway]))
    };
    Row {
        measure: m.name,
        unit: m.unit,
        floor: over(&floor),
        gateway: over(&gateway),
        ratio: over(&|r| gateway(r) / floor(r)).filter(|_| m.compare),
        goal: m.goal,
        gate: m.gate,
        errors: windows().map(|f| f.errors).sum(),
        first_error: windows().find_map(|f| f.first_error.clone()),
        repeated,
    }
}

/// A round in a few words, for the progress line: its first measure.
pub(super) fn progress(scenario: Scenario, round: &Round) -> String {
    let errors = round.floor.errors + round.gateway.errors;
    let values: Vec<String> = measures(scenario)
        .iter()
        .take(1)
        .map(|m| {
            let value = |f| (m.value)(f, round.direct.as_ref());
            format!(
                "{} floor {:.2} gateway {:.2}",
                m.name,
                value(&round.floor),
                value(&round.gateway)
            )
        })
        .collect();
    match errors {
        0 => values.join(", "),
        n => format!("{}, {n} ERRORS", values.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ok: u64, cpu: f64) -> Figures {
        Figures {
            ok,
            events: ok,
            wall: 1.0,
            p50: 1000,
            cpu: vec![cpu],
            ..Figures::default()
        }
    }

    fn run(scenario: Scenario, pairs: &[(f64, f64)]) -> Run {
        let round = |&(floor, gateway): &(f64, f64)| Round {
            direct: Some(Figures {
                p50: 800,
                first_byte_p50: 0,
                ..window(1000, 0.0)
            }),
            floor: window(1000, floor),
            gateway: window(1000, gateway),
        };
        Run {
            scenario,
            rounds: pairs.iter().map(round).collect(),
            floor_peak: 10.0,
            gateway_peak: 61.0,
        }
    }

    #[test]
    fn a_cost_is_the_median_of_ratios_of_the_same_round() {
        // The machine halves its speed in the second round: the ratios do not see it.
        let rows = rows(
            &run(
                Scenario::Small,
                &[(0.03, 0.042), (0.06, 0.084), (0.03, 0.042)],
            ),
            false,
        );
        let ratio = rows[0].ratio.unwrap();
        assert!((ratio.min - 1.4).abs() < 1e-9 && (ratio.max - 1.4).abs() < 1e-9);
        assert!((rows[0].floor.unwrap().median - 30.0).abs() < 1e-9);
        assert_eq!(rows[0].passed(), Some(true));
        assert_eq!((rows[1].unit, rows[1].passed()), (Unit::PerSecond, None));
    }

    #[test]
    fn goal_and_gate_are_two_limits() {
        for (gateway, passed, gate_failed) in [
            (0.014, true, false),
            (0.02, false, false),
            (0.026, false, true),
        ] {
            let row = &rows(&run(Scenario::Small, &[(0.01, gateway)]), false)[0];
            assert_eq!(
                (row.passed(), row.gate_failed()),
                (Some(passed), gate_failed),
                "{gateway}"
            );
        }
    }

    #[test]
    fn failed_requests_fail_whatever_they_cost() {
        let mut run = run(Scenario::Open, &[(0.01, 0.01)]);
        assert!(!rows(&run, false)[0].gate_failed());
        run.rounds[0].gateway.errors = 1;
        run.rounds[0].gateway.first_error = Some("status 503".into());
        let row = &rows(&run, false)[0];
        assert_eq!((row.passed(), row.gate_failed()), (Some(false), true));
        assert_eq!(row.first_error.as_deref(), Some("status 503"));
    }

    #[test]
    fn a_window_without_requests_is_no_pass() {
        let mut run = run(Scenario::Small, &[(0.01, 0.01)]);
        run.rounds[0].gateway.ok = 0;
        let row = &rows(&run, false)[0];
        assert_eq!((row.passed(), row.gate_failed()), (Some(false), true));
    }

    #[test]
    fn added_time_is_against_the_direct_window() {
        let row = &rows(&run(Scenario::Open, &[(0.01, 0.01)]), false)[0];
        assert!((row.gateway.unwrap().median - 0.2).abs() < 1e-9);
        assert_eq!((row.ratio, row.passed()), (None, Some(true)));
    }

    #[test]
    fn peak_memory_is_judged_under_the_large_load() {
        let rows = rows(&run(Scenario::Large, &[(0.01, 0.01)]), false);
        let peak = rows.last().unwrap();
        assert_eq!(
            (peak.unit, peak.passed(), peak.gate_failed()),
            (Unit::MiB, Some(false), false)
        );
    }
}
