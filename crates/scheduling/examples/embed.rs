//! A host of the decision core in a few lines: two servers, a conversation, a failure, a retry.

use scheduling::{
    Config, Decision, EndpointProfile, Event, FailureKind, Pool, Request, Time, Usage,
};

fn main() {
    let mut pool = Pool::new(Config::default(), 42);
    let mut now = Time::ZERO;
    let names = ["gpu1", "gpu2"];
    for _ in names {
        pool.join(now, EndpointProfile::default());
    }

    // Two turns of a conversation: the second prompt begins with the first. A host hashes the prompt in blocks, each
    // hash covering all blocks before it.
    let turns: [Vec<u64>; 2] = [(1..=50).collect(), (1..=60).collect()];
    for prefix in turns {
        let request = Request {
            prompt_tokens: prefix.len() as u32 * 64,
            prefix: prefix.into(),
            streams: true,
            explain: true,
            ..Request::default()
        };
        pool.arrive(now, request);
        while let Some(decision) = pool.next(now) {
            match decision {
                Decision::Dispatch {
                    ticket,
                    endpoints,
                    explanation,
                    hit_tokens,
                    ..
                } => {
                    let name = |at: usize| names[endpoints[at].index()];
                    println!("to {}, {hit_tokens} tokens cached", name(0));
                    if let Some(explanation) = explanation {
                        println!("  because: {}", explanation.reason);
                    }
                    // The server is lost before the first byte: the first fallback takes over, the charge with it.
                    if hit_tokens > 0 && endpoints.len() > 1 {
                        let (from, to) = (endpoints[0], endpoints[1]);
                        pool.observe(
                            now,
                            Event::Failed {
                                ticket,
                                endpoint: from,
                                kind: FailureKind::Connect,
                            },
                        );
                        pool.observe(now, Event::Moved { ticket, to });
                        println!("  lost; retried on {}", name(1));
                    }
                    now = now + std::time::Duration::from_millis(300);
                    pool.observe(now, Event::FirstToken { ticket });
                    let usage = Usage {
                        prompt_tokens: 3200,
                        completion_tokens: 20,
                        cached_tokens: None,
                    };
                    pool.observe(
                        now,
                        Event::Finished {
                            ticket,
                            usage: Some(usage),
                            ok: true,
                        },
                    );
                }
                Decision::Reject {
                    reason,
                    retry_after,
                    ..
                } => {
                    println!("refused: {}, come back in {retry_after:?}", reason.code());
                }
                // Only with `FlowControl::evict_running`: here a host would end the request's answer.
                Decision::Evict { ticket, reason, .. } => println!("end {ticket:?}: {}", reason.code()),
            }
        }
        // With requests waiting, a host would sleep until `pool.wake_at()` or the next event.
    }
    println!("{:#?}", pool.stats());
}
