//! A host of the decision core in fifty lines: two servers, a conversation, a failure, a retry.

use std::time::Duration;

use scheduling::{Config, Decision, EndpointProfile, Event, FailureKind, Pool, Request, Time};

const NAMES: [&str; 2] = ["gpu1", "gpu2"];

fn main() {
    let mut pool = Pool::new(Config::default(), 42);
    let mut now = Time::ZERO;
    for _ in NAMES {
        pool.join(now, EndpointProfile::default());
    }
    // Two turns of a conversation: the second prompt begins with the first. A host hashes the prompt in blocks of 64
    // tokens, each hash covering all blocks before it.
    for blocks in [50, 60] {
        let request = Request {
            prompt_tokens: blocks * 64,
            prefix: (1..=u64::from(blocks)).collect(),
            streams: true,
            explain: true,
            ..Request::default()
        };
        pool.arrive(now, request);
        while let Some(decision) = pool.next(now) {
            follow(&mut pool, now, decision);
        }
        // With requests waiting, a host would sleep until `pool.wake_at()` or the next event.
        now = now + Duration::from_secs(1);
    }
    println!("{:#?}", pool.stats());
}

fn follow(pool: &mut Pool, now: Time, decision: Decision) {
    let (ticket, endpoints, explanation, hit_tokens) = match decision {
        #[rustfmt::skip]
        Decision::Dispatch { ticket, endpoints, explanation, hit_tokens, .. } => (ticket, endpoints, explanation, hit_tokens),
        Decision::Reject { reason, .. } => return println!("refused: {}", reason.code()),
        // Only with `FlowControl::evict_running`: here a host would end the request's answer.
        Decision::Evict { ticket, reason, .. } => {
            return println!("end {ticket:?}: {}", reason.code());
        }
    };
    let (endpoint, name) = (endpoints[0], NAMES[endpoints[0].index()]);
    println!("to {name}, {hit_tokens} tokens cached");
    println!("  because: {}", explanation.expect("it asked").reason);
    if hit_tokens > 0 && endpoints.len() > 1 {
        // The server is lost before the first byte: the first fallback takes over, and the charge with it.
        let kind = FailureKind::Connect;
        #[rustfmt::skip]
        pool.observe(now, Event::Failed { ticket, endpoint, kind });
        let to = endpoints[1];
        pool.observe(now, Event::Moved { ticket, to });
        println!("  lost; retried on {}", NAMES[to.index()]);
    }
    let later = now + Duration::from_millis(300);
    pool.observe(later, Event::FirstToken { ticket });
    let (usage, ok) = (None, true);
    pool.observe(later, Event::Finished { ticket, usage, ok });
}
