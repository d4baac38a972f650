//! Comparisons of toys.

use parking_lot::Mutex;
use simulator::EngineConfig;

use super::*;
use crate::Workload;
use crate::run::tests::Toy;

pub(crate) struct Toys;

impl Catalog for Toys {
    fn setting(&self, workload: &str, fleet: Option<&str>) -> Result<Setting, LabError> {
        Builtin::default().setting(workload, fleet)
    }
    fn policy(
        &self,
        name: &str,
        engines: &[EngineConfig],
        knowledge: Knowledge,
        seed: u64,
    ) -> Result<Box<dyn Dispatcher>, LabError> {
        Builtin::default().policy(name, engines, knowledge, seed)
    }
    fn workload(
        &self,
        _name: &str,
        load: f64,
        seed: u64,
        _span: (Option<f64>, Option<f64>),
    ) -> Result<Box<dyn Workload>, LabError> {
        Ok(Box::new(Toy::new(load, 10, 200, seed)))
    }
}

pub(crate) fn small() -> Plan {
    Plan {
        fleet: Some("llama-3.1-8b-h100*2".to_owned()),
        policies: vec!["pointsman".to_owned(), "pool-round-robin".to_owned()],
        workloads: vec!["toy".to_owned()],
        loads: vec![5.0, 10.0],
        seeds: vec![1, 2],
        horizon: Some(8.0),
        warmup: Some(1.0),
        ..Plan::default()
    }
}

pub(crate) fn toys(plan: &Plan, threads: usize) -> Result<Results, LabError> {
    compare(plan, &Toys, threads, &|_| {})
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let of = |threads| {
        let mut results = toys(&small(), threads).unwrap();
        results.manifest.real_seconds = 0.0;
        for cell in &mut results.cells {
            cell.summary.speed = 0.0;
        }
        results
    };
    let (one, three) = (of(1), of(3));
    assert_eq!(one, three);
    assert_eq!(one.cells.len(), 2 * 4 * 2);
    let names: Vec<_> = small()
        .cells(&Toys)
        .unwrap()
        .into_iter()
        .map(|it| it.policy)
        .collect();
    let got: Vec<_> = one
        .cells
        .iter()
        .map(|it| it.summary.policy.clone())
        .collect();
    assert_eq!(names, got);
}

#[test]
fn progress_counts_every_cell_once() {
    let seen = Mutex::new(Vec::new());
    compare(&small(), &Toys, 2, &|progress| {
        seen.lock().push(progress.done);
    })
    .unwrap();
    let mut seen = seen.into_inner();
    seen.sort_unstable();
    assert_eq!(seen, (1..=16).collect::<Vec<_>>());
}

#[test]
fn results_survive_the_disk() {
    let results = toys(&small(), 1).unwrap();
    let folder = std::env::temp_dir().join(format!("pointsman-lab-{}", std::process::id()));
    results.write(&folder).unwrap();
    let back = Results::read(&folder).unwrap();
    let csv = std::fs::read_to_string(folder.join("summary.csv")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(back.manifest.plan, results.manifest.plan);
    assert_eq!(crate::report::text(&back), crate::report::text(&results));
    assert_eq!(csv.lines().count(), 17);
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.iter().all(|count| *count == columns[0]));
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let cases: [fn(&mut Plan); 8] = [
        |plan| plan.fleet = Some("none".to_owned()),
        |plan| plan.policies = vec!["none".to_owned()],
        |plan| plan.seeds.clear(),
        |plan| plan.loads = vec![-1.0],
        |plan| plan.loads = vec![f64::NAN],
        |plan| plan.horizon = Some(0.5),
        |plan| plan.network_delay = -1.0,
        |plan| plan.drain = f64::INFINITY,
    ];
    for (at, spoil) in cases.iter().enumerate() {
        let mut plan = small();
        spoil(&mut plan);
        assert!(toys(&plan, 2).is_err(), "case {at}");
    }
}
