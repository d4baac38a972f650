//! Runs of toys, kept and judged.

use super::desk::{p90, ratio};
use super::*;
use crate::compare::tests::{Toys, small};
use crate::stats::Interval;

fn condition(name: &'static str, noise: f64) -> Condition {
    let mut plan = small();
    plan.step_noise = noise;
    Condition { name, plan }
}

const FIELD: [&str; 2] = ["round-robin", "least-request"];

#[test]
fn the_desk_keeps_runs_apart_by_all_that_matters() {
    let mut desk = Desk::new(&Toys, 2, &|_| {});
    let (usual, noisy) = (condition("usual", 0.02), condition("noisy", 0.3));
    let places = [Place::new("toy", 5.0, "5"), Place::new("toy", 10.0, "10")];
    let all = [OURS, BOUND, FIELD[0], FIELD[1]];
    desk.run("first", &usual, &all, &places, &[1]).unwrap();
    desk.run("then", &usual, &[OURS, FIELD[0]], &places, &[1, 2, 3])
        .unwrap();
    desk.run("noisy", &noisy, &[OURS], &places[..1], &[1])
        .unwrap();
    // Five rows with one seed, two more of two policies, at two loads; and the noisy one.
    assert_eq!(desk.kept().len(), 2 * (5 + 2 * 2) + 1);
    let seeds = |policy: &str| desk.values(&usual, policy, &places[0], p90).len();
    assert_eq!((seeds(OURS), seeds(BOUND), seeds(FIELD[1])), (3, 1, 1));
    // The bound is the lesser of its orders.
    let of = |policy: &str| desk.values(&usual, policy, &places[1], p90)[&1];
    assert_eq!(of(BOUND), of("bound-fcfs").min(of("bound-sjf")));
    // One who left the race is not the best of those who ran on.
    assert_eq!(desk.best(&usual, &FIELD, &places[0]), Some(FIELD[0]));
    assert_eq!(desk.best(&noisy, &FIELD, &places[0]), None);
    let both = ratio(
        &desk.values(&noisy, OURS, &places[0], p90),
        &desk.values(&usual, OURS, &places[0], p90),
    );
    assert_eq!(both.unwrap().count, 1);
}

#[test]
fn progress_tells_each_stage_to_its_end() {
    let steps = parking_lot::Mutex::new(Vec::new());
    let tell = |step: Step<'_>| {
        let it = (step.stage.to_owned(), step.done, step.total);
        steps.lock().push(it);
    };
    let mut desk = Desk::new(&Toys, 1, &tell);
    let places = [Place::new("toy", 5.0, "5")];
    let usual = condition("usual", 0.0);
    for stage in ["one", "again"] {
        desk.run(stage, &usual, &[OURS], &places, &[1, 2]).unwrap();
    }
    // What is there already is not run again.
    let told = steps.into_inner();
    assert_eq!(told, [("one".to_owned(), 1, 2), ("one".to_owned(), 2, 2)]);
}

fn outcome() -> Outcome {
    let mut plan = small();
    plan.seeds = vec![1];
    let results = crate::compare::compare(&plan, &Toys, 1, &|_| {}).unwrap();
    let value = |median: f64| Interval {
        median,
        low: median * 0.9,
        high: median * 1.1,
        coverage: 0.97,
        count: 6,
    };
    let mut met = Verdict::new("G1a", "a < b", Limit::AtMost(1.1), Unit::Times);
    met.measured = Some(value(0.9));
    met.published = Some(Published {
        policy: "lmetric".to_owned(),
        value: value(1.4),
    });
    let mut missed = Verdict::new("G4", "late", Limit::AtMost(0.05), Unit::Share);
    missed.measured = Some(value(0.2));
    missed.note = "worst at zipf".to_owned();
    let unknown = Verdict::new("G9", "unknown", Limit::AtLeast(0.9), Unit::Times);
    Outcome {
        small: true,
        traces: false,
        verdicts: vec![met, missed, unknown],
        claims: Vec::new(),
        robustness: vec![Robust {
            condition: "network 5 ms".to_owned(),
            place: Place::new("toy", 5.0, "5"),
            change: value(1.2),
            to_best: value(0.8),
            best: "lpwl".to_owned(),
        }],
        results,
        runs: Vec::new(),
        seconds: 12.0,
    }
}

#[test]
fn the_table_says_what_was_met_and_what_not() {
    let outcome = outcome();
    let table = table(&outcome);
    for words in [
        "a look-alike",
        "0.90x [0.81x, 0.99x] met",
        "1.40x [1.26x, 1.54x] lmetric",
        "+20.0 % [+18.0 %, +22.0 %] not met",
        "not measured",
        "worst at zipf",
        "network 5 ms",
    ] {
        assert!(table.contains(words), "{words}:\n{table}");
    }
    let csv = text::csv(&outcome);
    assert_eq!(csv.lines().count(), 4);
    let columns = |line: &str| line.split(',').count();
    assert!(
        csv.lines()
            .all(|line| columns(line) == columns(csv.lines().next().unwrap()))
    );
    assert!(text::markdown(&outcome).contains("| G1a | a < b | <= 1.10x |"));
    let page = crate::report::goals_page(&outcome);
    assert!(page.contains("a &lt; b") && page.contains("class=\"missed\""));
}

#[test]
fn gates_have_room_and_do_not_judge_what_was_not_measured() {
    let outcome = outcome();
    let names = |slack| -> Vec<String> {
        let missed = outcome.missed(&["G1a", "G4", "G9"], slack);
        missed.iter().map(|it| it.id.clone()).collect()
    };
    assert_eq!(names(0.05), ["G4"]);
    assert!(names(4.0).is_empty());
    assert!(outcome.missed(&["G1a"], 0.0).is_empty());
}

#[test]
fn files_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = outcome();
    outcome.write(folder.path()).unwrap();
    assert_eq!(Outcome::read(folder.path()).unwrap(), outcome);
    for file in ["goals.csv", "goals.md", "results.json", "summary.csv"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    assert!(Outcome::read(&folder.path().join("none")).is_err());
}
