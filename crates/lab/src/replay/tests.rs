//! A toy gateway's recording, run again.

use std::io::Cursor;
use std::time::Duration;

use recording::{Recorder, What};
use scheduling::{
    Config, Decision, EndpointProfile, Event, Load, Pool, Request, Ticket, Time, Usage,
};

use super::*;
use crate::compare::{Plan, compare};

const SERVERS: usize = 3;
const REQUESTS: u32 = 60;

/// A core and its track, as a gateway has them.
struct Host {
    pool: Pool,
    track: recording::Track,
    now: Time,
    sent: Vec<Ticket>,
}

impl Host {
    fn event(&mut self, event: Event<'_>) {
        self.pool.observe(self.now, event);
        self.track.event(self.now, event);
    }

    fn settle(&mut self) {
        loop {
            let decision = self.pool.next(self.now);
            self.track.asked(self.now, decision.as_ref());
            match decision {
                Some(Decision::Dispatch { ticket, .. }) => self.sent.push(ticket),
                // A refusal in the midst of answers: the host tells the core something before it goes on asking.
                Some(Decision::Reject { ticket, .. }) => self.event(Event::Abandoned { ticket }),
                Some(Decision::Evict { .. }) => {}
                None => return,
            }
        }
    }

    fn arrive(&mut self, nth: u32) {
        let tenant = u64::from(nth % 5);
        let request = Request {
            prefix: (0..20)
                .map(|block| (tenant << 32 | block) * 7919 + 1)
                .collect(),
            prompt_tokens: 1300,
            streams: true,
            priority: i32::try_from(nth % 3).unwrap() - 1,
            ..Request::default()
        };
        let ticket = self.pool.arrive(self.now, request.clone());
        let request = Box::new(request);
        self.track.told(self.now, What::Arrive { ticket, request });
        self.settle();
    }

    fn finish(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let ticket = self.sent.remove(0);
        self.event(Event::FirstToken { ticket });
        self.settle();
        self.now = self.now + Duration::from_millis(20);
        let usage = Some(Usage {
            prompt_tokens: 1500,
            completion_tokens: 40,
            cached_tokens: Some(600),
        });
        self.event(Event::Finished {
            ticket,
            usage,
            ok: true,
        });
        self.settle();
    }
}

fn recorded() -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording");
    let recorder = Recorder::create(&path, 1 << 24).unwrap();
    let config = Config {
        prefill_gate_tokens: 256,
        ..Config::default()
    };
    let mut host = Host {
        track: recorder.pool("ns/pool", 5, &config, None),
        pool: Pool::new(config, 5),
        now: Time::from_nanos(77),
        sent: Vec::new(),
    };
    for server in 0..SERVERS {
        let profile = EndpointProfile {
            kv_capacity_tokens: Some(50_000),
            ..EndpointProfile::default()
        };
        let endpoint = host.pool.join(host.now, profile);
        host.track.told(host.now, What::Join { endpoint, profile });
        let load = Load {
            waiting: Some(0),
            running: Some(server as u32),
            kv_usage: Some(0.1 + 0.2 / 3.0),
        };
        host.event(Event::Scraped { endpoint, load });
        host.settle();
    }
    for nth in 0..REQUESTS {
        host.now = host.now + Duration::from_millis(3);
        host.arrive(nth);
        if nth % 3 > 0 {
            host.finish();
        }
    }
    while !host.sent.is_empty() {
        host.finish();
    }
    host.now = host.now + Duration::from_secs(100);
    host.settle();
    drop(host);
    std::fs::read_to_string(&path).unwrap()
}

#[test]
fn the_same_calls_give_the_same_decisions() {
    let text = recorded();
    let again = verify(Cursor::new(&text)).unwrap();
    assert!(again.same() && !again.cut && !again.full, "{again:?}");
    let pool = &again.pools[0];
    assert_eq!(
        (pool.name.as_str(), pool.requests),
        ("ns/pool", u64::from(REQUESTS))
    );
    assert_eq!(pool.same, u64::from(REQUESTS));
    assert!(text.contains("reject"), "nothing was refused: too easy");
}

#[test]
fn a_changed_decision_is_found_by_its_line() {
    let text = recorded();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = lines
        .iter()
        .rposition(|it| it.contains("dispatch"))
        .unwrap();
    let other = ["\"endpoints\":[{\"index\":0", "\"endpoints\":[{\"index\":9"];
    lines[at] = lines[at].replace("\"endpoints\":[{\"index\":1", other[0]);
    lines[at] = lines[at].replace("\"endpoints\":[{\"index\":2", other[0]);
    lines[at] = lines[at].replace(other[0], other[1]);
    let again = verify(Cursor::new(lines.join("\n"))).unwrap();
    let difference = again.pools[0].difference.clone().unwrap();
    assert_eq!(difference.line, at as u64 + 1);
    assert!(
        difference.recorded.contains("to server 9"),
        "{difference:?}"
    );
    // One decision that is missing is found too.
    lines.remove(at);
    assert!(!verify(Cursor::new(lines.join("\n"))).unwrap().same());
}

#[test]
fn requests_become_a_workload_with_the_same_sizes_and_shares() {
    let traffic = traffic(Cursor::new(recorded()), None).unwrap();
    assert_eq!(
        (traffic.jobs.len(), traffic.engines.len()),
        (REQUESTS as usize, SERVERS)
    );
    assert_eq!(traffic.engines[0].kv_blocks, 50_000 / 16);
    let served = |it: &&crate::Job| it.prompt_tokens == 1500 && it.output_tokens == 40;
    assert!(traffic.jobs.iter().filter(served).count() > REQUESTS as usize / 2);
    let (first, same, other) = (&traffic.jobs[0], &traffic.jobs[5], &traffic.jobs[1]);
    let shared = |a: &crate::Job, b: &crate::Job| {
        let pairs = a.blocks.iter().zip(b.blocks.iter());
        pairs.take_while(|(a, b)| a == b).count()
    };
    // A block of 64 estimated tokens is 5 of 16 true ones, and 1,500 tokens hold 18 of those.
    assert_eq!(shared(first, same), 18 * 5);
    assert_eq!(shared(first, other), 0);
    assert!(traffic.jobs.is_sorted_by(|a, b| a.at <= b.at));
    assert_eq!(traffic.jobs[0].at, 0.0);
}

#[test]
fn the_workload_runs_against_other_policies() {
    let traffic = traffic(Cursor::new(recorded()), Some("ns/pool")).unwrap();
    let plan = Plan {
        policies: vec!["pointsman".to_owned(), "round-robin".to_owned()],
        workloads: vec![REPLAY.to_owned()],
        loads: vec![1.0, 2.0],
        seeds: vec![1],
        warmup: Some(0.0),
        ..Plan::default()
    };
    let results = compare(&plan, &traffic, 2, &|_| {}).unwrap();
    assert_eq!(results.cells.len(), 2 * 4);
    let all = |it: &crate::compare::CellResult| it.summary.jobs == u64::from(REQUESTS);
    assert!(results.cells.iter().all(all));
}

#[test]
fn what_is_no_recording_is_said_with_its_line() {
    let opened = recorded().lines().next().unwrap().to_owned();
    for (text, why) in [
        ("nonsense\n".to_owned(), "line 1: "),
        (format!("{opened}\n[0,1,{{}}]\n"), "line 2: "),
        (format!("{opened}\n[3,1,\"tick\"]\n"), "line 2: pool 3"),
    ] {
        let error = verify(Cursor::new(&text)).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
        assert!(traffic(Cursor::new(&text), None).is_err());
    }
    assert!(traffic(Cursor::new(&opened), None).is_err());
    assert!(traffic(Cursor::new(&recorded()), Some("other")).is_err());
    assert!(verify(Cursor::new("")).unwrap().pools.is_empty());
}
