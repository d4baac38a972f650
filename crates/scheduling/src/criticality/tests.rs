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
        [0, 1],
        "unless the other waited for long"
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
fn one_dispatch_in_eight_is_for_the_aged() {
    let mut turns = Turns::default();
    let mut aged = 0;
    for _ in 0..80 {
        let due = turns.aged_is_due();
        aged += u32::from(due);
        turns.dispatched(due);
    }
    assert_eq!(aged, 10);
}
