use super::*;

const A: AdapterKey = AdapterKey(1);
const B: AdapterKey = AdapterKey(2);
const C: AdapterKey = AdapterKey(3);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn wait(slots: &Slots, adapter: AdapterKey, now: u64) -> f64 {
    slots.wait(Some(adapter), at(now), 1.0, 8.0)
}

#[test]
fn resident_loading_absent_and_no_slot() {
    let mut slots = Slots::default();
    slots.report(at(0), &[A], &[B], Some(2));
    assert_eq!(wait(&slots, A, 0), 0.0);
    assert_eq!(wait(&slots, B, 400), 0.6);
    assert_eq!(
        wait(&slots, B, 5000),
        0.1,
        "a load that takes too long is not done"
    );
    assert_eq!(wait(&slots, C, 0), 1.0, "an idle adapter makes room");
    slots.push(A, at(0));
    slots.push(B, at(0));
    assert_eq!(wait(&slots, C, 0), 1.0 + 4.0, "one of two users must end");
    assert_eq!(slots.wait(None, at(0), 1.0, 8.0), 0.0);
}

#[test]
fn a_dispatch_counts_at_once_and_a_failed_one_is_taken_back() {
    let mut slots = Slots::default();
    slots.push(A, at(0));
    assert_eq!(wait(&slots, A, 500), 0.5);
    slots.confirm(A);
    assert_eq!(wait(&slots, A, 500), 0.0);
    slots.release(A, true);
    assert_eq!(wait(&slots, A, 500), 0.0, "stays in its slot");
    slots.push(B, at(0));
    slots.release(B, false);
    assert_eq!(wait(&slots, B, 500), 1.0, "was never loaded");
}

#[test]
fn the_least_recently_used_adapter_goes_first() {
    let mut slots = Slots::default();
    slots.set_max(Some(2));
    for adapter in [A, B, C] {
        slots.push(adapter, at(0));
        slots.confirm(adapter);
        slots.release(adapter, true);
    }
    assert_eq!(
        [A, B, C].map(|adapter| wait(&slots, adapter, 0)),
        [1.0, 0.0, 0.0]
    );
    slots.report(at(1), &[A], &[], Some(2));
    assert_eq!(
        [A, B, C].map(|adapter| wait(&slots, adapter, 1)),
        [0.0, 1.0, 0.0]
    );
    assert_eq!(slots.resident(), 2);
}
