//! What a decision costs: microseconds of `arrive` and `next`, p50 and p99, by size of the pool and of the prompt.
//!
//! `cargo run --release -p scheduling --example decide_cost`
//!
//! Half of the prompts continue one of two hundred conversations, half are new. Hashing is the host's and not counted.

use std::time::{Duration, Instant};

use scheduling::{Config, Decision, EndpointProfile, Event, Pool, Request, Ticket, Time};

const DECISIONS: usize = 2000;

fn main() {
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "endpoints", "tokens", "p50 us", "p99 us", "max us", "index MiB"
    );
    for endpoints in [10, 100, 1000] {
        for tokens in [1_000, 32_000, 128_000] {
            measure(endpoints, tokens);
        }
    }
}

fn measure(endpoints: usize, tokens: usize) {
    let config = Config {
        prefill_gate_tokens: u32::MAX,
        ..Config::default()
    };
    let mut pool = Pool::new(config, 1);
    for _ in 0..endpoints {
        pool.join(
            Time::ZERO,
            EndpointProfile {
                kv_capacity_tokens: Some(1_000_000),
                ..EndpointProfile::default()
            },
        );
    }
    let mut flights: Vec<Ticket> = Vec::new();
    let mut spent: Vec<Duration> = Vec::new();
    for at in 0..DECISIONS + 500 {
        let now = Time::from_nanos(at as u64 * 1_000_000);
        let prefix = prompt(at as u64, tokens / 64);
        let request = Request {
            prompt_tokens: tokens as u32,
            prefix: prefix.into(),
            streams: true,
            ..Request::default()
        };
        let start = Instant::now();
        pool.arrive(now, request);
        let decision = pool.next(now);
        if at >= 500 {
            spent.push(start.elapsed());
        }
        if let Some(Decision::Dispatch { ticket, .. }) = decision {
            pool.observe(now, Event::FirstToken { ticket });
            flights.push(ticket);
        }
        // A few requests in flight on each endpoint.
        if flights.len() > endpoints * 4 {
            let ticket = flights.remove(0);
            pool.observe(
                now,
                Event::Finished {
                    ticket,
                    usage: None,
                    ok: true,
                },
            );
        }
    }
    spent.sort();
    let micros =
        |share: f64| spent[((spent.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let mib = pool.stats().index_bytes as f64 / (1 << 20) as f64;
    println!(
        "{endpoints:>9} {tokens:>9} {:>9.1} {:>9.1} {:>9.1} {mib:>12.1}",
        micros(0.5),
        micros(0.99),
        micros(1.0)
    );
}

/// Chained hashes: every second prompt shares most of its blocks with one of two hundred others.
fn prompt(number: u64, blocks: usize) -> Vec<u64> {
    let text = if number.is_multiple_of(2) {
        number.wrapping_mul(0x2545_f491_4f6c_dd1d) % 200
    } else {
        1000 + number
    };
    let fork = blocks * 9 / 10;
    let mut hash = text.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..blocks)
        .map(|at| {
            hash = (hash ^ if at == fork { number } else { 0 })
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                .rotate_left(27);
            hash
        })
        .collect()
}
