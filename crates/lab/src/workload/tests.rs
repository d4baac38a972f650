use rustc_hash::{FxHashMap, FxHashSet};
use simulator::BlockHash;

use super::*;
use crate::{BLOCK_TOKENS, Job, Workload};

fn made(name: &str, load: f64, seed: u64) -> Box<dyn Workload> {
    build(name, load, seed, &Options::default()).unwrap()
}

/// For so many seconds.
fn short(name: &str, load: f64, seed: u64, seconds: f64) -> Box<dyn Workload> {
    let options = Options {
        duration: Some(seconds),
        ..Options::default()
    };
    build(name, load, seed, &options).unwrap()
}

fn jobs(workload: &mut dyn Workload, limit: usize) -> Vec<Job> {
    std::iter::from_fn(|| workload.next()).take(limit).collect()
}

/// Plays a closed loop with answers that take `service` seconds; the jobs in order of time.
fn play(workload: &mut dyn Workload, service: f64) -> Vec<Job> {
    let mut all = Vec::new();
    let mut due = queue::TimeQueue::new();
    let mut first = workload.next();
    loop {
        let first_at = first.as_ref().map(|job| job.at);
        let job = match (first_at, due.first_at()) {
            (Some(at), Some(other)) if other < at => due.pop().unwrap().1,
            (Some(_), _) => std::mem::replace(&mut first, workload.next()).unwrap(),
            (None, Some(_)) => due.pop().unwrap().1,
            (None, None) => return all,
        };
        if let Some(next) = workload.finished(&job, job.at + service) {
            assert!(
                next.at >= job.at + service,
                "it answers before it was answered"
            );
            due.push(next.at, next);
        }
        all.push(job);
    }
}

fn prompt_blocks(job: &Job) -> &[BlockHash] {
    &job.blocks[..(job.prompt_tokens / BLOCK_TOKENS) as usize]
}

fn common(a: &[BlockHash], b: &[BlockHash]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Share of the prompts' blocks that a cache without limit would have.
fn reuse(jobs: &[Job]) -> f64 {
    let mut seen = FxHashSet::default();
    let (mut hits, mut all) = (0, 0);
    for job in jobs {
        let blocks = prompt_blocks(job);
        hits += blocks
            .iter()
            .take_while(|block| seen.contains(*block))
            .count();
        all += blocks.len();
        // As in the published figures, which know prompts only.
        seen.extend(blocks.iter().copied());
    }
    hits as f64 / all as f64
}

fn mean(jobs: &[Job], of: impl Fn(&Job) -> u32) -> f64 {
    jobs.iter().map(|job| f64::from(of(job))).sum::<f64>() / jobs.len() as f64
}

fn quantile(jobs: &[Job], share: f64, of: impl Fn(&Job) -> u32) -> u32 {
    let mut values: Vec<u32> = jobs.iter().map(of).collect();
    values.sort_unstable();
    values[(share * (values.len() - 1) as f64) as usize]
}

fn near(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!(
        (got / want - 1.0).abs() <= tolerance,
        "{what}: {got}, not {want}"
    );
}

fn same(a: &Job, b: &Job) -> bool {
    a.id == b.id
        && a.at.to_bits() == b.at.to_bits()
        && a.blocks == b.blocks
        && (a.prompt_tokens, a.output_tokens) == (b.prompt_tokens, b.output_tokens)
        && (a.adapter, a.priority, a.flow) == (b.adapter, b.priority, b.flow)
}

#[test]
fn every_entry_keeps_the_rules_and_follows_from_its_seed() {
    for entry in catalogue().iter().filter(|entry| !entry.needs_trace()) {
        let load = entry.loads[0];
        let these = jobs(&mut *made(entry.name, load, 3), 100);
        let again = jobs(&mut *made(entry.name, load, 3), 100);
        let others = jobs(&mut *made(entry.name, load, 4), 100);
        assert_eq!(these.len(), 100, "{}", entry.name);
        assert!(
            these.iter().zip(&again).all(|(a, b)| same(a, b)),
            "{}",
            entry.name
        );
        assert!(
            !these.iter().zip(&others).any(|(a, b)| same(a, b)),
            "{}",
            entry.name
        );
        for (number, job) in these.iter().enumerate() {
            assert_eq!(job.id, number as u64, "{}", entry.name);
            assert!(
                job.prompt_tokens >= 1 && job.output_tokens >= 1,
                "{}",
                entry.name
            );
            assert!(
                job.prompt_tokens + job.output_tokens <= entry.longest,
                "{}: {} + {}",
                entry.name,
                job.prompt_tokens,
                job.output_tokens
            );
            assert!(job.blocks.len() >= (job.prompt_tokens / BLOCK_TOKENS) as usize);
            assert!(
                job.blocks.len()
                    <= ((job.prompt_tokens + job.output_tokens) / BLOCK_TOKENS) as usize
            );
        }
        assert!(
            these.windows(2).all(|pair| pair[0].at <= pair[1].at),
            "{}",
            entry.name
        );
        assert!(these[0].at >= 0.0);
    }
}

#[test]
fn entries_name_profiles_that_exist() {
    let mut names = FxHashSet::default();
    for entry in catalogue() {
        assert!(names.insert(entry.name), "{} twice", entry.name);
        let all = entry.others.iter().map(|(profile, _)| *profile);
        for profile in all.chain([entry.profile]) {
            assert!(simulator::profiles::by_name(profile).is_some(), "{profile}");
        }
        assert!(!entry.loads.is_empty() && !entry.source.is_empty() && entry.engines > 0);
        assert_eq!(find(entry.name).unwrap().name, entry.name);
    }
}

#[test]
fn open_loops_arrive_at_the_load() {
    for (name, seconds) in [
        ("sharegpt", 600.0),
        ("lora", 600.0),
        ("classes", 240.0),
        ("burst", 240.0),
        ("zipf", 120.0),
    ] {
        let mut workload = short(name, 10.0, 1, seconds);
        let count = std::iter::from_fn(|| workload.next()).count();
        near(count as f64 / seconds, 10.0, 0.08, name);
    }
}

#[test]
fn tenants_ask_unequally() {
    let all = jobs(&mut *short("tenants", 40.0, 1, 120.0), usize::MAX);
    let of = |flow: u64| all.iter().filter(|job| job.flow == flow).count() as f64;
    near(of(0) / all.len() as f64, 0.5, 0.05, "the busiest");
    near(of(1) / all.len() as f64, 0.125, 0.15, "the next");
    let others = (2..9).map(of).sum::<f64>();
    near(others / all.len() as f64, 0.375, 0.05, "the others");
    assert_eq!(of(9), 0.0);
}

#[test]
fn the_ramp_climbs_from_100_to_1000() {
    let all = jobs(&mut *short("sharegpt-ramp", 1.0, 1, 20.0), usize::MAX);
    let count = |from: f64| {
        all.iter()
            .filter(|it| it.at >= from && it.at < from + 2.0)
            .count()
    };
    near(count(0.0) as f64 / 2.0, 100.0, 0.2, "first step");
    near(count(18.0) as f64 / 2.0, 1000.0, 0.1, "last step");
}

#[test]
fn contents_do_not_depend_on_the_load() {
    let slow = jobs(&mut *made("zipf", 10.0, 5), 50);
    let fast = jobs(&mut *made("zipf", 80.0, 5), 50);
    assert!(
        slow.iter()
            .zip(&fast)
            .all(|(a, b)| a.blocks == b.blocks && a.at > b.at)
    );
}

#[test]
fn a_shorter_run_keeps_the_share_of_its_warmup() {
    let options = Options {
        duration: Some(30.0),
        ..Options::default()
    };
    let all = jobs(
        &mut *build("sharegpt", 50.0, 1, &options).unwrap(),
        usize::MAX,
    );
    assert!(
        all.iter()
            .all(|job| job.at < 30.0 && job.warmup == (job.at < 6.0))
    );
    let options = Options {
        warmup: Some(1.0),
        ..options
    };
    let all = jobs(
        &mut *build("sharegpt", 50.0, 1, &options).unwrap(),
        usize::MAX,
    );
    assert!(all.iter().all(|job| job.warmup == (job.at < 1.0)));
}

#[test]
fn published_lengths_come_out() {
    let chats = jobs(&mut *made("sharegpt", 100.0, 1), 20_000);
    near(
        mean(&chats, |job| job.prompt_tokens),
        251.5,
        0.08,
        "chat in",
    );
    near(
        mean(&chats, |job| job.output_tokens),
        225.3,
        0.05,
        "chat out",
    );
    for (share, input, output) in [
        (0.5, 109.0, 144.0),
        (0.9, 714.0, 564.0),
        (0.99, 987.0, 948.0),
    ] {
        let got = quantile(&chats, share, |job| job.prompt_tokens);
        near(f64::from(got), input, 0.05, "chat in");
        let got = quantile(&chats, share, |job| job.output_tokens);
        near(f64::from(got), output, 0.05, "chat out");
    }
    let code = jobs(&mut *short("azure-code-like", 5.0, 1, 4000.0), 4_000);
    near(
        mean(&code, |job| job.prompt_tokens),
        2048.0,
        0.05,
        "code in",
    );
    near(mean(&code, |job| job.output_tokens), 27.9, 0.08, "code out");
    let thoughts = jobs(&mut *made("reasoning", 30.0, 1), 4_000);
    near(
        mean(&thoughts, |job| job.prompt_tokens),
        1000.0,
        0.05,
        "reasoning in",
    );
    near(
        mean(&thoughts, |job| job.output_tokens),
        2000.0,
        0.05,
        "reasoning out",
    );
    let questions = jobs(&mut *made("rag", 5.0, 1), 300);
    near(
        mean(&questions, |job| job.prompt_tokens),
        14_500.0,
        0.08,
        "rag in",
    );
    near(
        mean(&questions, |job| job.output_tokens),
        500.0,
        0.08,
        "rag out",
    );
}

#[test]
fn lookalikes_have_the_lengths_and_the_reuse_of_their_traces() {
    let all = jobs(&mut *short("mooncake-like", 1.0, 1, 400.0), usize::MAX);
    near(all.len() as f64 / 400.0, 3.40, 0.10, "rate");
    near(mean(&all, |job| job.prompt_tokens), 12_035.0, 0.12, "in");
    near(mean(&all, |job| job.output_tokens), 343.0, 0.10, "out");
    // 0.37 in the whole hour of the trace, 0.21 to 0.26 in windows as short as this.
    near(reuse(&all), 0.24, 0.20, "reuse");
    let all = jobs(&mut *short("toolagent-like", 1.0, 1, 400.0), usize::MAX);
    near(all.len() as f64 / 400.0, 6.56, 0.10, "rate");
    near(mean(&all, |job| job.prompt_tokens), 8_596.0, 0.12, "in");
    near(mean(&all, |job| job.output_tokens), 182.0, 0.10, "out");
    near(reuse(&all), 0.59, 0.15, "reuse");
}

#[test]
fn a_speed_up_moves_times_and_nothing_else() {
    let slow = jobs(&mut *short("mooncake-like", 1.0, 2, 400.0), 100);
    let fast = jobs(&mut *short("mooncake-like", 2.0, 2, 400.0), 100);
    for (a, b) in slow.iter().zip(&fast) {
        assert_eq!(a.blocks, b.blocks);
        assert!((a.at / 2.0 - b.at).abs() < 1e-9);
    }
}

#[test]
fn groups_share_their_prompt_and_only_that() {
    let all = jobs(&mut *made("b2b", 10.0, 1), usize::MAX);
    assert_eq!(all.len(), 2 * 750);
    assert_eq!(all.iter().filter(|job| job.warmup).count(), 750);
    assert!(all[..750].iter().all(|job| job.warmup));
    near(750.0 / all[749].at, 15.0, 0.15, "warm-up rate");
    near(750.0 / (all[1499].at - all[749].at), 10.0, 0.15, "rate");
    for round in all.chunks(750) {
        let mut sizes: FxHashMap<u64, u32> = FxHashMap::default();
        round
            .iter()
            .for_each(|job| *sizes.entry(job.flow).or_default() += 1);
        assert_eq!(sizes.len(), 150);
        assert!(sizes.values().all(|size| *size == 5));
    }
    let reference = &all[0];
    for job in &all[1..] {
        assert_eq!((job.prompt_tokens, job.output_tokens), (7_200, 1_000));
        let expected = if job.flow == reference.flow {
            6_000 / 16
        } else {
            0
        };
        assert_eq!(common(&job.blocks, &reference.blocks), expected);
    }
}

#[test]
fn popular_tenants_are_popular_and_a_new_one_appears() {
    let share = |jobs: &[Job], flow| {
        jobs.iter().filter(|job| job.flow == flow).count() as f64 / jobs.len() as f64
    };
    let all = jobs(&mut *short("zipf", 60.0, 1, 20.0), usize::MAX);
    let harmonic: f64 = (1..=200).map(|rank| f64::from(rank).powf(-1.1)).sum();
    near(share(&all, 0), 1.0 / harmonic, 0.20, "the first tenant");
    near(
        share(&all, 9),
        10_f64.powf(-1.1) / harmonic,
        0.5,
        "the tenth tenant",
    );
    let all = jobs(&mut *short("zipf-drift", 60.0, 1, 20.0), usize::MAX);
    let (before, after): (Vec<Job>, Vec<Job>) = all.into_iter().partition(|job| job.at < 12.0);
    assert_eq!(share(&before, 200), 0.0);
    near(share(&after, 200), 0.3, 0.20, "the new tenant");
}

#[test]
fn adapters_and_classes_come_in_their_shares() {
    let all = jobs(&mut *made("lora", 100.0, 1), usize::MAX);
    let share = |adapter| {
        all.iter()
            .filter(|job| job.adapter == Some(adapter))
            .count() as f64
            / all.len() as f64
    };
    for (adapter, expected) in [
        (0, 0.12),
        (4, 0.12),
        (5, 0.06),
        (9, 0.06),
        (10, 0.02),
        (14, 0.02),
    ] {
        near(share(adapter), expected, 0.15, "an adapter");
    }
    assert!(
        all.iter()
            .all(|job| job.adapter.is_some_and(|adapter| adapter < 15))
    );
    let all = jobs(&mut *short("classes", 60.0, 1, 60.0), usize::MAX);
    for (priority, expected) in [(1, 0.2), (0, 0.5), (-1, 0.3)] {
        let count = all.iter().filter(|job| job.priority == priority).count();
        near(count as f64 / all.len() as f64, expected, 0.10, "a class");
    }
}

#[test]
fn a_turn_contains_the_one_before_and_its_answer() {
    for name in ["agentic", "chat"] {
        let all = play(&mut *short(name, 0.1, 1, 900.0), 5.0);
        let mut last: FxHashMap<u64, &Job> = FxHashMap::default();
        let mut turns: FxHashMap<u64, u32> = FxHashMap::default();
        for job in &all {
            let session = job.session.unwrap();
            *turns.entry(session).or_default() += 1;
            if let Some(before) = last.insert(session, job) {
                assert!(job.prompt_tokens > before.prompt_tokens + before.output_tokens);
                // All full blocks of the earlier turn, its answer included.
                assert_eq!(common(&job.blocks, &before.blocks), before.blocks.len());
                assert!(job.at > before.at + 5.0);
                assert_eq!(
                    (job.flow, job.first_message),
                    (before.flow, before.first_message)
                );
            }
        }
        // Sessions that began early enough have had all their turns.
        let mean = turns.values().map(|turns| f64::from(*turns)).sum::<f64>() / turns.len() as f64;
        let expected = if name == "chat" { 4.0 } else { 12.0 };
        near(mean, expected, 0.2, name);
    }
}

#[test]
fn sessions_say_the_same_whoever_answers() {
    let told = |service| {
        let mut said: FxHashMap<u64, Vec<_>> = FxHashMap::default();
        for job in play(&mut *short("agentic", 0.1, 9, 400.0), service) {
            said.entry(job.session.unwrap())
                .or_default()
                .push((job.blocks, job.output_tokens));
        }
        said
    };
    let (quick, slow) = (told(1.0), told(20.0));
    assert_eq!(quick.len(), slow.len());
    for (session, turns) in &slow {
        let more = &quick[session];
        assert!(more.len() >= turns.len());
        assert!(turns.iter().zip(more).all(|(a, b)| a == b));
    }
}

#[test]
fn an_end_that_was_told_already_is_no_news() {
    let mut workload = made("agentic", 1.0, 1);
    let first = workload.next().unwrap();
    let second = workload.finished(&first, first.at + 1.0).unwrap();
    assert!(workload.finished(&first, first.at + 2.0).is_none());
    let stranger = Job {
        session: Some(1 << 40),
        ..second.clone()
    };
    assert!(workload.finished(&stranger, 5.0).is_none());
    assert!(workload.finished(&second, second.at + 1.0).is_some());
}

#[test]
fn what_makes_no_sense_is_told() {
    let none = Options::default();
    let told = |name: &str, load, options: &Options<'_>| {
        build(name, load, 1, options).err().unwrap().to_string()
    };
    assert!(told("nonsense", 1.0, &none).contains("there are sharegpt, sharegpt-ramp, mooncake"));
    for load in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(told("sharegpt", load, &none).contains("the load must be above 0"));
    }
    for duration in [0.0, -5.0, f64::NAN, f64::INFINITY] {
        let options = Options {
            duration: Some(duration),
            ..none
        };
        assert!(told("sharegpt", 1.0, &options).contains("the duration must be"));
    }
    let options = Options {
        duration: Some(10.0),
        warmup: Some(11.0),
        ..none
    };
    assert!(told("sharegpt", 1.0, &options).contains("the warm-up must be"));
    let folder = std::path::Path::new("/nowhere/traces");
    let options = Options {
        traces_dir: Some(folder),
        ..none
    };
    let message = told("mooncake", 2.0, &options);
    assert!(
        message.contains("/nowhere/traces/mooncake_conversation.jsonl"),
        "{message}"
    );
    assert!(told("azure-code", 1.0, &none).contains("azure_code_2023.csv"));
    assert!(told("mooncake:x.jsonl", 1.0, &options).contains("/nowhere/traces/x.jsonl"));
}
