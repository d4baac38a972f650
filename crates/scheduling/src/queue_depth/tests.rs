use super::*;

const TTL: Duration = Duration::from_secs(5);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn gate() -> Gate {
    Gate::new(&Config::default(), 8, Rank::Top)
}

fn load(waiting: u32, running: u32) -> Load {
    Load {
        waiting: Some(waiting),
        running: Some(running),
        kv_usage: None,
    }
}

#[test]
fn an_endpoint_closes_for_each_reason() {
    let mut nothing_known = Depth::default();
    nothing_known.scrape(at(0), Load::default());
    assert!(
        nothing_known.open(at(0), gate()),
        "missing metrics close nothing"
    );

    for (waiting, open) in [(0, true), (5, true), (6, false), (u32::MAX, false)] {
        let mut depth = Depth::default();
        depth.scrape(at(0), load(waiting, 0));
        assert_eq!(depth.open(at(0), gate()), open, "{waiting} waiting");
        assert!(
            depth.open(at(5000), gate()),
            "an old scrape is not believed"
        );
    }
    for (pending_tokens, open) in [(0, true), (8192, true), (8193, false)] {
        let depth = Depth {
            pending_tokens,
            ..Depth::default()
        };
        assert_eq!(depth.open(at(0), gate()), open, "{pending_tokens} pending");
    }
    for (sequences, open) in [(7, true), (8, false)] {
        let depth = Depth {
            sequences,
            ..Depth::default()
        };
        assert_eq!(depth.open(at(0), gate()), open, "{sequences} in flight");
    }
    let mut depth = Depth::default();
    depth.scrape(at(0), load(0, 8));
    assert!(!depth.open(at(0), gate()), "others fill the batch");
}

#[test]
fn what_is_pushed_onto_a_queue_waits_too() {
    let mut depth = Depth::default();
    depth.scrape(at(0), load(4, 2));
    depth.push(true);
    assert_eq!(depth.waiting(at(1), TTL), 5);
    depth.push(true);
    assert!(!depth.open(at(1), gate()));
    depth.start();
    assert_eq!(depth.waiting(at(2), TTL), 5);

    let mut depth = Depth::default();
    depth.scrape(at(0), load(0, 2));
    (0..7).for_each(|_| depth.push(true));
    assert_eq!(
        depth.waiting(at(1), TTL),
        0,
        "an engine without a queue takes what we push"
    );
}

#[test]
fn only_what_is_not_ours_is_the_work_of_others() {
    let mut depth = Depth::default();
    (0..3).for_each(|_| depth.push(true));
    depth.scrape(at(0), load(1, 2));
    assert_eq!(depth.others(at(0), TTL), Others::default());
    depth.scrape(at(1), load(4, 3));
    assert_eq!(
        depth.others(at(1), TTL),
        Others {
            waiting: 4,
            running: 0
        }
    );
    depth.scrape(at(2), load(1, 6));
    assert_eq!(
        depth.others(at(2), TTL),
        Others {
            waiting: 1,
            running: 3
        }
    );
    depth.in_flight = 0;
    depth.scrape(at(3), load(0, 3));
    assert_eq!(
        depth.others(at(3), TTL),
        Others::default(),
        "they ended between the two scrapes"
    );
    depth.scrape(at(4), load(0, 3));
    assert_eq!(
        depth.others(at(4), TTL),
        Others {
            waiting: 0,
            running: 3
        }
    );
}
