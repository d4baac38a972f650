//! Memory of the prefix index, measured at the allocator: what it says it takes, what a block takes, and that a smaller
//! bound gives it back.

mod common;

use allocation_counter::measure;
use common::{complete, prompt, secs, send};
use scheduling::{Config, EndpointProfile, Pool, Request, Time};

const ENDPOINTS: usize = 8;
/// What else a pool of this size has: endpoints, queue, buffers.
const BESIDES: u64 = 64 << 10;

fn pool(index_blocks: usize) -> Pool {
    let config = Config {
        index_blocks,
        ..Config::default()
    };
    let mut pool = Pool::new(config, 7);
    for _ in 0..ENDPOINTS {
        let profile = EndpointProfile {
            kv_capacity_tokens: Some(4_000_000),
            ..EndpointProfile::default()
        };
        pool.join(Time::ZERO, profile);
    }
    pool
}

/// Plays prompts one after the other.
fn play(pool: &mut Pool, prompts: impl Iterator<Item = Request>) {
    for (at, request) in prompts.enumerate() {
        let now = secs(at as f64);
        let (ticket, _) = send(pool, now, request);
        complete(pool, now, ticket);
    }
}

/// Bytes at the allocator after `prompts`, by the index's own account, and blocks.
fn bytes(bound: usize, prompts: impl Iterator<Item = Request>) -> (u64, u64, u64) {
    let mut kept = None;
    let info = measure(|| {
        let mut pool = pool(bound);
        play(&mut pool, prompts);
        kept = Some(pool);
    });
    let stats = kept.as_ref().expect("just made").stats();
    let measured = info.bytes_current as u64;
    (
        measured,
        stats.index_bytes as u64,
        stats.index_blocks as u64,
    )
}

#[test]
fn a_block_takes_as_much_as_is_said() {
    // A name, prompts, and the most bytes a block may take in them.
    type Prompts = Box<dyn Iterator<Item = Request>>;
    let cases: [(&str, Prompts, f64); 4] = [
        // 128k tokens each, all different.
        (
            "long",
            Box::new((0..100).map(|at| prompt(at, 2000, 0, 0))),
            9.0,
        ),
        // Conversations: each turn adds 10 blocks to one of 200.
        (
            "turns",
            Box::new((0..4000).map(|at| prompt(at % 200, 10 + at as usize / 200 * 10, 0, 0))),
            30.0,
        ),
        // 1k tokens, half of them one of 20 system prompts.
        (
            "short",
            Box::new((0..8000).map(|at| prompt(at % 20, 8, at, 8))),
            45.0,
        ),
        // One prompt that forks at each block.
        (
            "forks",
            Box::new((0..2000).map(|at| prompt(1, at as usize % 200, at, 10))),
            40.0,
        ),
    ];
    for (name, prompts, most) in cases {
        let (measured, said, blocks) = bytes(1 << 20, prompts);
        let block = measured as f64 / blocks as f64;
        println!(
            "{name}: {blocks} blocks, {block:.1} bytes each, {measured} measured, {said} said"
        );
        assert!(block < most, "{name}: {block} bytes a block");
        assert!(
            measured < said * 19 / 10 + BESIDES,
            "{name}: {measured} measured, {said} said"
        );
        assert!(said < measured, "{name}: {measured} measured, {said} said");
    }
}

#[test]
fn the_bound_bounds_memory_whatever_the_prompts() {
    for own in [2, 10, 100] {
        let bound = 1 << 14;
        let (measured, said, blocks) = bytes(bound, (0..6000).map(|at| prompt(at % 9, 3, at, own)));
        assert!(blocks <= bound as u64);
        assert!(said <= 16 * bound as u64, "{own}: {said} said");
        assert!(
            measured < 2 * 16 * bound as u64 + BESIDES,
            "{own}: {measured}"
        );
    }
}

#[test]
fn a_smaller_bound_gives_memory_back_and_keeps_what_is_hot() {
    let mut pool = pool(1 << 20);
    let all = (0..6000).map(|at| prompt(at, 20, at, 5));
    let hot = |at: u64| prompt(1_000_000 + at % 10, 40, 0, 0);
    let mixed = all.enumerate().flat_map(|(at, it)| [it, hot(at as u64)]);
    let info = measure(|| play(&mut pool, mixed));
    let before = info.bytes_current;
    let info = measure(|| pool.set_index_blocks(1 << 13));
    let freed = -info.bytes_current;
    assert!(freed * 10 > before * 8, "{freed} of {before} bytes");
    assert!(pool.stats().index_blocks <= 1 << 13);
    for at in 0..10 {
        pool.arrive(secs(9000.0), hot(at));
        let Some(scheduling::Decision::Dispatch { hit_tokens, .. }) = pool.next(secs(9000.0))
        else {
            panic!("not dispatched");
        };
        assert_eq!(hit_tokens, 40 * 64);
    }
}
