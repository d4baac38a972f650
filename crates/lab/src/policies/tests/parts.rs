//! The index and the bookkeeping.

use proptest::prelude::*;

use super::{engines, job};
use crate::policies::fleet::Fleet;
use crate::policies::index::{Aging, PrefixIndex, Room, Spec, partition};
use crate::policies::{cache_index, gaie_index};

fn spec(room: usize, aging: Aging) -> Spec {
    Spec {
        room: Room::Entries(room),
        aging,
        ..gaie_index()
    }
}

fn hits(index: &PrefixIndex, job: &crate::Job) -> Vec<u32> {
    let mut hits = Vec::new();
    index.hits(job, &mut hits);
    hits
}

#[test]
fn finds_the_shared_blocks_of_what_was_sent() {
    for aging in [Aging::Head, Aging::Tail] {
        let mut index = PrefixIndex::new(spec(1000, aging), &engines(2));
        let first = job(1, 5, 640, 1000);
        index.insert(1, &first.blocks, first.prompt_tokens);
        assert_eq!(
            hits(&index, &first),
            [0, 960],
            "15 full blocks of 1000 tokens"
        );
        assert_eq!(hits(&index, &job(2, 5, 640, 5000)), [0, 640]);
        assert_eq!(hits(&index, &job(3, 6, 640, 5000)), [0, 0]);
        assert_eq!(hits(&index, &job(4, 5, 640, 63)), [0, 0]);
    }
}

#[test]
fn room_runs_out_at_the_documented_end() {
    // Ten blocks sent, room for six, then looked at.
    for (aging, kept) in [(Aging::Head, 0), (Aging::Tail, 6 * 64)] {
        let mut index = PrefixIndex::new(spec(6, aging), &engines(1));
        let only = job(1, 1, 0, 640);
        index.insert(0, &only.blocks, 640);
        assert_eq!(index.held(0), 6);
        assert_eq!(hits(&index, &only), [kept], "{aging:?}");
    }
}

#[test]
fn an_index_that_ages_heads_counts_past_gaps_of_one_engine() {
    let mut index = PrefixIndex::new(spec(6, Aging::Head), &engines(2));
    let only = job(1, 1, 0, 640);
    index.insert(0, &only.blocks, 640);
    index.insert(1, &only.blocks, 320);
    // Engine 0 lost blocks 0 to 3, engine 1 has 0 to 4: the walk goes on to the end.
    assert_eq!(hits(&index, &only), [6 * 64, 5 * 64]);
}

#[test]
fn capacity_follows_the_cache_or_the_documented_excess() {
    let fleet = engines(1);
    let blocks = fleet[0].kv_blocks as usize;
    assert_eq!(
        PrefixIndex::new(cache_index(64.0, false), &fleet).room(0),
        blocks / 4
    );
    assert_eq!(PrefixIndex::new(gaie_index(), &fleet).room(0), blocks);
}

#[test]
fn a_prompt_shorter_than_its_tokens_say_is_no_harm() {
    let mut index = PrefixIndex::new(gaie_index(), &engines(1));
    let mut odd = job(1, 1, 0, 640);
    odd.blocks = odd.blocks[..5].into();
    index.insert(0, &odd.blocks, odd.prompt_tokens);
    assert_eq!(hits(&index, &odd), [64]);
}

#[test]
fn work_left_shrinks_with_time_and_goes_with_the_first_token() {
    let mut fleet = Fleet::new(&engines(1));
    let (first, second) = (job(1, 1, 0, 8192), job(2, 2, 0, 8192));
    fleet.send(0.0, &first, 0, 0);
    let one = fleet.engines[0].prefill_seconds(0, 8192);
    // llm-d's fit says 0.378 s for this prompt.
    assert!((0.37..0.4).contains(&one), "{one}");
    fleet.send(0.1, &second, 0, 0);
    let left = |fleet: &Fleet, now| fleet.engines[0].work_left(now);
    assert!((left(&fleet, 0.1) - (2.0 * one - 0.1)).abs() < 1e-9);
    assert!(
        (left(&fleet, 9.0) - one).abs() < 1e-9,
        "the second has not begun for sure"
    );
    fleet.first_token(0.6, 1);
    assert_eq!(fleet.engines[0].pending_tokens, 8192);
    assert!((left(&fleet, 0.7) - (one - 0.1)).abs() < 1e-9);
}

proptest! {
    #[test]
    fn what_ages_by_tails_is_always_a_prefix(
        room in 1_usize..40,
        sends in proptest::collection::vec((0_u64..6, 0_u32..20, 1_u32..30), 1..60),
    ) {
        let mut index = PrefixIndex::new(spec(room, Aging::Tail), &engines(1));
        for (id, (prefix, shared, blocks)) in sends.iter().enumerate() {
            let sent = job(id as u64, *prefix, shared * 64, blocks * 64);
            index.insert(0, &sent.blocks, sent.prompt_tokens);
            prop_assert!(index.held(0) <= room);
        }
        for (id, (prefix, shared, blocks)) in sends.iter().enumerate() {
            let sent = job(id as u64, *prefix, shared * 64, blocks * 64);
            // The same prompt cut after each block is found up to there or up to the same place.
            let all = hits(&index, &sent)[0];
            for cut in 1..=*blocks {
                let mut part = sent.clone();
                part.prompt_tokens = cut * 64;
                prop_assert_eq!(hits(&index, &part)[0], all.min(cut * 64));
            }
        }
    }

    #[test]
    fn partition_finds_the_edge(items in 0_usize..200, edge in 0_usize..200) {
        prop_assert_eq!(partition(items, |item| item < edge), edge.min(items));
    }

    #[test]
    fn charges_return_to_zero(
        events in proptest::collection::vec((0_u64..12, 0_u8..4, 0_usize..3, 0_u32..900), 1..120),
    ) {
        let mut fleet = Fleet::new(&engines(3));
        let mut open = std::collections::BTreeSet::new();
        for (step, &(id, kind, engine, tokens)) in events.iter().enumerate() {
            let now = step as f64;
            match kind {
                0 if open.insert(id) => {
                    fleet.send(now, &job(id, id, 0, 900), engine, tokens);
                }
                1 => { fleet.first_token(now, id); }
                2 => fleet.progress(id, tokens),
                3 => { prop_assert_eq!(fleet.finish(now, id).is_some(), open.remove(&id)); }
                _ => {}
            }
            let in_flight: u32 = fleet.engines.iter().map(|view| view.in_flight).sum();
            prop_assert_eq!(in_flight as usize, open.len());
        }
        for id in open {
            fleet.finish(1e3, id);
        }
        for view in &fleet.engines {
            prop_assert_eq!((view.in_flight, view.decoding), (0, 0));
            prop_assert_eq!((view.pending_tokens, view.context_tokens), (0, 0));
            prop_assert!(view.work_left(1e3) == 0.0);
            prop_assert!(view.decode_share() == 0.0);
        }
    }
}
