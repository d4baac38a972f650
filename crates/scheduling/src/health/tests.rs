use super::*;

const CONFIG: fn() -> HealthConfig = HealthConfig::default;

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

#[test]
fn failures_in_a_row_take_it_down_and_success_brings_it_back() {
    use FailureKind::{Connect, Draining500, InBand, Reset, ServerError, Timeout};
    let table: [(&[FailureKind], Health); 7] = [
        (&[], Health::Up),
        (&[InBand, InBand, InBand, InBand], Health::Up),
        (&[Draining500], Health::Up),
        (&[ServerError, Reset], Health::Suspect),
        (&[Connect], Health::Suspect),
        (&[Connect, Connect], Health::Down),
        (&[ServerError, Timeout, Reset], Health::Down),
    ];
    for (kinds, health) in table {
        let mut monitor = Monitor::default();
        for &kind in kinds {
            monitor.failed(at(0), kind, &CONFIG());
        }
        assert_eq!(monitor.health(), health, "{kinds:?}");
        monitor.succeeded();
        assert_eq!(monitor.health(), Health::Up);
    }
}

#[test]
fn back_off_doubles_with_each_failed_trial_only() {
    let mut monitor = Monitor::default();
    for _ in 0..50 {
        monitor.failed(at(0), FailureKind::Reset, &CONFIG());
    }
    let mut now = 0;
    for wait in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        assert!(!monitor.admits(at(now + wait - 1)), "{wait}");
        now += wait;
        assert!(monitor.admits(at(now)), "{wait}");
        monitor.dispatched(at(now));
        assert!(!monitor.admits(at(now)), "one trial at a time");
        monitor.failed(at(now), FailureKind::Reset, &CONFIG());
    }
}

#[test]
fn dead_takes_refused_connections_and_failed_probes_and_ends_with_a_probe() {
    let mut monitor = Monitor::default();
    monitor.failed(at(0), FailureKind::Connect, &CONFIG());
    monitor.failed(at(0), FailureKind::Connect, &CONFIG());
    assert_eq!(monitor.health(), Health::Down);
    monitor.probed(at(1), Probe::Failed, &CONFIG());
    assert_eq!(monitor.health(), Health::Dead);
    assert!(!monitor.admits(at(3_600_000)));
    monitor.probed(at(2), Probe::Passed, &CONFIG());
    assert_eq!(monitor.health(), Health::Up);
}

#[test]
fn probes_alone_take_it_down_and_bring_it_back() {
    let mut monitor = Monitor::default();
    monitor.probed(at(0), Probe::Failed, &CONFIG());
    assert_eq!(monitor.health(), Health::Suspect);
    monitor.probed(at(0), Probe::Failed, &CONFIG());
    assert_eq!(monitor.health(), Health::Down);
    monitor.probed(at(1), Probe::Passed, &CONFIG());
    assert_eq!(monitor.health(), Health::Up);
}

#[test]
fn a_passing_probe_does_not_excuse_failing_requests() {
    let mut monitor = Monitor::default();
    for _ in 0..3 {
        monitor.failed(at(0), FailureKind::ServerError, &CONFIG());
    }
    monitor.probed(at(500), Probe::Passed, &CONFIG());
    assert_eq!(monitor.health(), Health::Down, "the back-off is not over");
    monitor.probed(at(1500), Probe::Passed, &CONFIG());
    assert_eq!(monitor.health(), Health::Suspect);
    monitor.failed(at(1501), FailureKind::ServerError, &CONFIG());
    assert_eq!(monitor.health(), Health::Down);
}

#[test]
fn a_draining_500_drains_for_a_while() {
    let mut monitor = Monitor::default();
    monitor.failed(at(0), FailureKind::Draining500, &CONFIG());
    assert!(monitor.draining(at(29_999)) && !monitor.draining(at(30_000)));
    assert_eq!(monitor.wake_at(at(5)), Some(at(30_000)));
}

#[test]
fn probes_that_are_refused_make_it_dead_without_a_single_request() {
    let mut monitor = Monitor::default();
    monitor.probed(at(0), Probe::Refused, &CONFIG());
    assert_eq!(monitor.health(), Health::Suspect, "once may be chance");
    monitor.probed(at(500), Probe::Refused, &CONFIG());
    assert_eq!(monitor.health(), Health::Dead);
    assert!(
        !monitor.admits(at(60_000)),
        "no request is spent on a trial"
    );
    monitor.probed(at(60_000), Probe::Passed, &CONFIG());
    assert_eq!(monitor.health(), Health::Up);
}
