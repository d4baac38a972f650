use super::*;
use proptest::prelude::*;

/// Chained hashes of a prompt spelled as small numbers.
fn chain(words: &[u32]) -> Vec<u64> {
    let mut hash = 0x9e37_79b9_u64;
    words
        .iter()
        .map(|&word| {
            hash = (hash ^ u64::from(word))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
            hash
        })
        .collect()
}

fn range(from: u32, to: u32) -> Vec<u32> {
    (from..to).collect()
}

fn cached(index: &Index, prefix: &[u64]) -> (Vec<u32>, u32) {
    let mut hits = Hits::default();
    index.walk(prefix, 3, &mut hits);
    (hits.cached, hits.known)
}

#[test]
fn longest_hit_of_all_endpoints_in_one_walk() {
    let mut index = Index::new(10_000);
    let long = chain(&range(0, 100));
    index.pin(0, &long);
    index.pin(1, &long[..40]);
    let mut fork = range(0, 70);
    fork.extend(range(500, 520));
    let fork = chain(&fork);
    index.pin(2, &fork);

    assert_eq!(cached(&index, &long), (vec![100, 40, 70], 100));
    assert_eq!(cached(&index, &fork), (vec![70, 40, 90], 90));
    assert_eq!(cached(&index, &long[..55]), (vec![55, 40, 55], 55));
    assert_eq!(cached(&index, &chain(&[7])), (vec![0, 0, 0], 0));
    assert_eq!(index.blocks(), 120);
}

#[test]
fn in_use_is_told_from_idle_and_counted_once() {
    let mut index = Index::new(10_000);
    let prompt = chain(&range(0, 50));
    let first = index.pin(0, &prompt);
    let second = index.pin(0, &prompt[..30]);
    assert_eq!(index.pinned_blocks(0), 50);
    index.unpin(0, &prompt, first, u32::MAX);
    assert_eq!(index.pinned_blocks(0), 30);
    let mut hits = Hits::default();
    index.walk(&prompt, 1, &mut hits);
    assert_eq!((hits.cached[0], hits.pinned[0]), (50, 30));
    index.unpin(0, &prompt[..30], second, u32::MAX);
    assert_eq!((index.pinned_blocks(0), index.cached_blocks(0)), (0, 50));
}

#[test]
fn a_full_endpoint_forgets_the_end_of_the_least_recent_prompt_first() {
    let mut index = Index::new(10_000);
    let (old, new) = (chain(&range(0, 60)), chain(&range(1000, 1060)));
    for prompt in [&old, &new] {
        let pin = index.pin(0, prompt);
        index.unpin(0, prompt, pin, u32::MAX);
    }
    index.fit(0, 100);
    assert_eq!(
        cached(&index, &old),
        (vec![40, 0, 0], 60),
        "its end is gone, and remembered as a ghost"
    );
    assert_eq!(cached(&index, &new).0[0], 60);
    index.fit(0, 0);
    assert_eq!(
        (cached(&index, &old).0[0], cached(&index, &new).0[0]),
        (0, 0)
    );
    assert_eq!(index.cached_blocks(0), 0);
}

#[test]
fn what_is_in_use_is_not_evicted() {
    let mut index = Index::new(10_000);
    let prompt = chain(&range(0, 60));
    let pin = index.pin(0, &prompt);
    index.fit(0, 0);
    assert_eq!(cached(&index, &prompt).0[0], 60);
    index.unpin(0, &prompt, pin, u32::MAX);
    index.fit(0, 0);
    assert_eq!(cached(&index, &prompt).0[0], 0);
}

#[test]
fn a_prompt_that_never_ran_is_taken_back() {
    let mut index = Index::new(10_000);
    let prompt = chain(&range(0, 60));
    let pin = index.pin(0, &prompt[..20]);
    index.unpin(0, &prompt[..20], pin, u32::MAX);
    let pin = index.pin(0, &prompt);
    index.unpin(0, &prompt, pin, 20);
    assert_eq!(cached(&index, &prompt).0[0], 20);
}

#[test]
fn a_false_hit_forgets_everything_as_old() {
    let mut index = Index::new(10_000);
    let prompts: Vec<Vec<u64>> = (0..3)
        .map(|at| chain(&range(at * 1000, at * 1000 + 20)))
        .collect();
    for prompt in &prompts {
        let pin = index.pin(0, prompt);
        index.unpin(0, prompt, pin, u32::MAX);
    }
    let pin = index.pin(0, &prompts[1]);
    let found = pin.found.expect("an idle copy was found");
    index.unpin(0, &prompts[1], pin, u32::MAX);
    index.forget_older(0, found);
    let hits: Vec<u32> = prompts
        .iter()
        .map(|prompt| cached(&index, prompt).0[0])
        .collect();
    assert_eq!(hits, [0, 20, 20]);
}

#[test]
fn the_bound_holds_and_pinned_blocks_survive_it() {
    let mut index = Index::new(100);
    let kept = chain(&range(0, 60));
    index.pin(0, &kept);
    for at in 1..50 {
        let prompt = chain(&range(at * 1000, at * 1000 + 30));
        let pin = index.pin(1, &prompt);
        assert_eq!(pin.blocks, 30);
        index.unpin(1, &prompt, pin, u32::MAX);
        assert!(index.blocks() <= 100, "{}", index.blocks());
    }
    assert_eq!(cached(&index, &kept).0[0], 60);
    let long = chain(&range(90_000, 90_100));
    assert_eq!(
        index.pin(1, &long).blocks,
        40,
        "no more than there is room for"
    );
}

#[test]
fn a_smaller_bound_keeps_what_is_hot_and_gives_memory_back() {
    let mut index = Index::new(20_000);
    let prompts: Vec<Vec<u64>> = (0..200)
        .map(|at| chain(&range(at * 1000, at * 1000 + 80)))
        .collect();
    let mut running = None;
    for (at, prompt) in prompts.iter().enumerate() {
        let pin = index.pin(at % 3, prompt);
        match at {
            7 => running = Some(pin),
            _ => index.unpin(at % 3, prompt, pin, u32::MAX),
        }
        // The first five are used again and again.
        let hot = &prompts[at % 5];
        let pin = index.pin(at % 5 % 3, hot);
        index.unpin(at % 5 % 3, hot, pin, u32::MAX);
    }
    let (runs, bytes) = (index.runs.len(), index.bytes());
    index.set_bound(1000);
    assert!(index.blocks() <= 1000 && index.blocks() > 800);
    assert!(index.bytes() * 15 < bytes && index.runs.len() * 15 < runs);
    for at in (0..5).chain([7]) {
        assert_eq!(cached(&index, &prompts[at]).0[at % 3], 80, "prompt {at}");
    }
    assert_eq!(cached(&index, &prompts[100]), (vec![0; 3], 0));
    // It works on as before.
    index.unpin(1, &prompts[7], running.unwrap(), u32::MAX);
    index.pin(2, &prompts[100]);
    assert_eq!(cached(&index, &prompts[100]).0, [0, 0, 80]);
    assert_eq!(index.pinned_blocks(1), 0);
}

#[test]
fn many_short_runs_are_bounded_by_their_bytes() {
    let mut index = Index::new(1000);
    for at in 0..1000 {
        let prompt = chain(&range(at * 10, at * 10 + 2));
        let pin = index.pin(0, &prompt);
        index.unpin(0, &prompt, pin, u32::MAX);
        assert!(index.bytes() <= 16_000);
    }
    assert!(index.blocks() > 100);
}

#[test]
fn an_endpoint_that_leaves_takes_its_copies_along() {
    let mut index = Index::new(1000);
    let prompt = chain(&range(0, 60));
    index.pin(0, &prompt);
    let pin = index.pin(1, &prompt);
    index.leave(0);
    assert_eq!(cached(&index, &prompt).0, [0, 60, 0]);
    index.unpin(1, &prompt, pin, u32::MAX);
    assert_eq!((index.pinned_blocks(0), index.pinned_blocks(1)), (0, 0));
    index.pin(0, &prompt[..10]);
    assert_eq!(
        cached(&index, &prompt).0,
        [10, 60, 0],
        "the next one with the index starts empty"
    );
}

/// A prompt out of a small tree of possible ones.
fn prompt() -> impl Strategy<Value = Vec<u64>> {
    (0..3_u32, 1..30_u32, 0..4_u32, 0..20_u32).prop_map(|(root, stem, fork, tail)| {
        let mut words: Vec<u32> = (0..stem).map(|at| root * 10_000 + at).collect();
        words.extend((0..tail).map(|at| 1_000_000 + fork * 1000 + at));
        chain(&words)
    })
}

proptest! {
    /// Against the plain model (a set of hashes per endpoint), while nothing is evicted.
    #[test]
    fn agrees_with_sets_of_hashes(calls in prop::collection::vec((prompt(), 0..3_usize, any::<bool>()), 1..60)) {
        let mut index = Index::new(1_000_000);
        let mut sets = vec![std::collections::HashSet::new(); 3];
        let mut open = Vec::new();
        for (prefix, endpoint, release) in calls {
            let (hits, _) = cached(&index, &prefix);
            for (endpoint, set) in sets.iter().enumerate() {
                let expected = prefix.iter().take_while(|hash| set.contains(*hash)).count();
                prop_assert_eq!(hits[endpoint] as usize, expected);
            }
            let pin = index.pin(endpoint, &prefix);
            sets[endpoint].extend(prefix.iter().copied());
            open.push((endpoint, prefix, pin));
            if release {
                let (endpoint, prefix, pin) = open.swap_remove(0);
                index.unpin(endpoint, &prefix, pin, u32::MAX);
            }
        }
        for (endpoint, prefix, pin) in open {
            index.unpin(endpoint, &prefix, pin, u32::MAX);
        }
        for (endpoint, set) in sets.iter().enumerate() {
            prop_assert_eq!(index.pinned_blocks(endpoint), 0);
            prop_assert_eq!(index.cached_blocks(endpoint), set.len());
        }
    }

    /// Under pressure: bounds hold, and nothing stays in use.
    #[test]
    fn bounds_hold(calls in prop::collection::vec((prompt(), 0..3_usize, 0..4_u8), 1..80), bound in 20..80_usize) {
        press(calls, bound)?;
    }

    /// The same with hashes that are not chained, as a collision would make them: less is found, nothing leaks.
    #[test]
    fn broken_chains_leak_nothing(
        calls in prop::collection::vec((prop::collection::vec(0..12_u64, 1..20), 0..3_usize, 0..4_u8), 1..80),
        bound in 5..80_usize,
    ) {
        press(calls, bound)?;
    }
}

fn press(calls: Vec<(Vec<u64>, usize, u8)>, bound: usize) -> Result<(), TestCaseError> {
    let mut index = Index::new(bound);
    let mut open: Vec<(usize, Vec<u64>, Pin)> = Vec::new();
    for (prefix, endpoint, what) in calls {
        let pin = index.pin(endpoint, &prefix);
        open.push((endpoint, prefix, pin));
        if what > 0 {
            let (endpoint, prefix, pin) = open.remove(0);
            index.unpin(endpoint, &prefix, pin, if what == 2 { 0 } else { u32::MAX });
        }
        if what == 3 {
            index.leave(endpoint);
            open.retain(|(at, ..)| *at != endpoint);
        }
        index.fit(endpoint, 10);
        if endpoint == 2 {
            index.set_bound(bound / 3);
            index.set_bound(bound);
        }
        let copies: usize = index.holders.iter().map(|it| it.copies.len()).sum();
        prop_assert_eq!(index.copies, copies);
        prop_assert!(index.blocks() <= bound);
        prop_assert!(index.holders[endpoint].idle_blocks <= 10);
    }
    for (endpoint, prefix, pin) in open {
        index.unpin(endpoint, &prefix, pin, u32::MAX);
    }
    for endpoint in 0..3 {
        prop_assert_eq!(index.pinned_blocks(endpoint), 0);
    }
    prop_assert!(index.runs.iter().all(|run| run.refs == 0));
    Ok(())
}
