use super::*;
use crate::id::Ticket;
use crate::request::Request;
use crate::time::Time;
use std::sync::Arc;

fn waiting(number: u64, priority: i32, flow: u64, prefill: f64, arrived: f64) -> Waiting {
    let request = Request {
        priority,
        flow,
        ..Request::default()
    };
    let mut waiting = Waiting::new(
        Ticket(number),
        Arc::new(request),
        Time::from_secs_f64(arrived),
    );
    waiting.least_prefill = prefill;
    waiting.tokens = (prefill * 10_000.0) as u64;
    waiting
}

fn order_with(settings: &FlowControl, rows: &[(i32, u64, f64, f64)]) -> Vec<u64> {
    let mut queue = Queue::default();
    for (number, &(priority, flow, prefill, arrived)) in rows.iter().enumerate() {
        queue.push(
            waiting(number as u64, priority, flow, prefill, arrived),
            settings,
        );
    }
    walk(&queue)
}

fn walk(queue: &Queue) -> Vec<u64> {
    let mut lineup = Lineup::default();
    std::iter::from_fn(|| queue.next(&mut lineup))
        .map(|ticket| ticket.0)
        .collect()
}

fn order(rows: &[(i32, u64, f64, f64)]) -> Vec<u64> {
    order_with(&FlowControl::default(), rows)
}

#[test]
fn class_then_short_work_then_age() {
    assert_eq!(
        order(&[(0, 0, 1.0, 0.0), (1, 0, 9.0, 5.0), (-1, 0, 0.1, 0.0)]),
        [1, 0, 2],
        "class first"
    );
    assert_eq!(
        order(&[(0, 0, 2.0, 0.0), (0, 0, 0.5, 1.0)]),
        [1, 0],
        "short work first"
    );
    assert_eq!(
        order(&[(0, 0, 2.0, 0.0), (0, 0, 0.5, 20.0)]),
        [1, 0],
        "whatever the other waited"
    );
    let aging = FlowControl {
        aging: 0.1,
        ..FlowControl::default()
    };
    assert_eq!(
        order_with(&aging, &[(0, 0, 2.0, 0.0), (0, 0, 0.5, 20.0)]),
        [0, 1],
        "unless waiting is set to count"
    );
    assert_eq!(
        order(&[(0, 0, 1.0, 3.0), (0, 0, 1.0, 3.0)]),
        [0, 1],
        "ties by arrival"
    );
}

#[test]
fn a_flood_of_one_flow_does_not_stand_before_another() {
    let flood: Vec<_> = (0..5)
        .map(|_| (0, 7, 1.0, 0.0))
        .chain([(0, 8, 1.0, 0.0)])
        .collect();
    assert_eq!(order(&flood), [0, 5, 1, 2, 3, 4]);
    let no_flow: Vec<_> = (0..5)
        .map(|_| (0, 0, 1.0, 0.0))
        .chain([(0, 0, 1.0, 0.0)])
        .collect();
    assert_eq!(order(&no_flow), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_youngest_of_the_lowest_class_is_the_least() {
    let mut queue = Queue::default();
    for (number, priority) in [(0, 0), (1, -1), (2, -1), (3, 1)] {
        queue.push(
            waiting(number, priority, 0, 1.0, 0.0),
            &FlowControl::default(),
        );
    }
    assert_eq!(queue.by_priority(), [(1, 1), (0, 1), (-1, 2)]);
    for expected in [(-1, 2), (-1, 1), (0, 0), (1, 3)] {
        let (priority, ticket) = queue.least().expect("not empty");
        assert_eq!((priority, ticket.get()), expected);
        queue.remove(ticket);
    }
    assert!(queue.least().is_none());
}

#[test]
fn everything_goes_with_a_removed_request() {
    let mut queue = Queue::default();
    let request = Request {
        flow: 3,
        ..Request::default()
    };
    queue.push(
        Waiting::new(Ticket(1), Arc::new(request), Time::ZERO),
        &FlowControl::default(),
    );
    queue.set_timer(Ticket(1), Some(Time::from_nanos(7)));
    queue.set_timer(Ticket(1), Some(Time::from_nanos(9)));
    assert_eq!(queue.first_timer(), Some((Time::from_nanos(9), Ticket(1))));
    assert!(queue.remove(Ticket(1)).is_some() && queue.remove(Ticket(1)).is_none());
    assert!(queue.is_empty() && queue.first_timer().is_none() && walk(&queue).is_empty());
    assert_eq!((queue.seconds(), queue.by_priority().len()), (0.0, 0));
}

#[test]
fn one_second_of_prefill_in_eight_is_for_the_aged() {
    let (long, short) = (2.0, 0.25);
    let mut turns = Turns::default();
    let (mut aged, mut others) = (0.0, 0.0);
    for _ in 0..10 * (1 + 56) {
        let due = turns.aged_is_due();
        let (seconds, sum) = if due {
            (long, &mut aged)
        } else {
            (short, &mut others)
        };
        *sum += seconds;
        turns.dispatched(seconds, due);
    }
    assert_eq!((aged, others), (20.0, 140.0));
    // Turns that nobody needed are not saved up.
    (0..100).for_each(|_| turns.dispatched(long, false));
    assert!(turns.aged_is_due());
    turns.dispatched(long, true);
    assert!(!turns.aged_is_due());
}

#[test]
fn memory_of_flows_is_bounded() {
    let settings = FlowControl::default();
    let mut queue = Queue::default();
    queue.push(waiting(0, 0, 1, 1.0, 0.0), &settings);
    for number in 1..5000 {
        queue.push(waiting(number, 0, number + 1, 1.0, 0.0), &settings);
        queue.dispatched(Ticket(number), 20_000);
    }
    let remembered = queue.lane(0).map_or(0, lane::Lane::remembered);
    assert!(remembered < 600, "{remembered}");
    assert_eq!(walk(&queue), [0]);
}

#[test]
fn who_was_away_has_earned_nothing_and_owes_what_it_took() {
    let settings = FlowControl::default();
    let mut queue = Queue::default();
    // Flow 1 takes a lot while flow 2 waits once and goes.
    for number in 0..10 {
        queue.push(waiting(number, 0, 1, 1.0, 0.0), &settings);
    }
    for number in 0..8 {
        queue.dispatched(Ticket(number), 10_000);
    }
    queue.push(waiting(20, 0, 2, 1.0, 5.0), &settings);
    queue.push(waiting(21, 0, 2, 1.0, 5.0), &settings);
    // Level with flow 1, and not eight requests ahead of it.
    assert_eq!(walk(&queue), [8, 20, 9, 21]);
    queue.dispatched(Ticket(20), 90_000);
    queue.dispatched(Ticket(21), 10_000);
    queue.push(waiting(22, 0, 2, 0.1, 6.0), &settings);
    assert_eq!(walk(&queue), [8, 9, 22], "what it took is remembered");
}

#[test]
fn the_pace_of_a_saturated_pool_is_learned() {
    let mut drain = Drain::default();
    assert_eq!(drain.rate(4), 4.0, "the prior");
    let mut now = 0.0;
    drain.saturated(Time::ZERO, true);
    for _ in 0..300 {
        now += 1.0;
        drain.pass(Time::from_secs_f64(now));
        drain.dispatched(0.5);
    }
    assert!((0.5..1.1).contains(&drain.rate(4)), "{}", drain.rate(4));
    // What goes while nothing has to wait says nothing about the pace.
    let rate = drain.rate(4);
    drain.saturated(Time::from_secs_f64(now), false);
    drain.dispatched(1000.0);
    drain.pass(Time::from_secs_f64(now + 1000.0));
    assert_eq!(drain.rate(4), rate);
}

#[test]
fn the_band_for_negative_priorities_is_for_those_that_are_not_listed() {
    let most = |requests| Band {
        max_requests: Some(requests),
        ..Band::default()
    };
    let flow = FlowControl {
        default_band: most(100),
        negative_band: Some(most(7)),
        bands: [(-5, most(3)), (2, Band::default())].into(),
        ..FlowControl::default()
    };
    for (priority, expected) in [
        (0, 100),
        (9, 100),
        (2, 100),
        (-1, 7),
        (i32::MIN, 7),
        (-5, 3),
    ] {
        assert_eq!(flow.rules(priority).max_requests, expected, "{priority}");
    }
}
