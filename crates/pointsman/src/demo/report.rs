//! The numbers of a run, two of them side by side, and what they say. Whatever is worse is called worse.

use std::collections::HashSet;
use std::time::Duration;

use super::client::{Answered, Outcome};
use super::traffic::{Arrival, Class};
use super::view::{millis, tokens};
use super::world::Totals;

/// The numbers of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Summary {
    /// Times to the first token, by class, sorted.
    critical: Vec<Duration>,
    standard: Vec<Duration>,
    batch: Vec<Duration>,
    /// Critical and standard together: both runs answer the same ones.
    people: Vec<Duration>,
    /// Critical, arrived since the burst began.
    critical_in_burst: Vec<Duration>,
    /// Batch requests refused.
    shed: usize,
    prompt_tokens: u64,
    cached_tokens: u64,
    /// Of the computed ones, those that some server had computed before.
    again: u64,
    adapter_loads: u64,
}

impl Summary {
    /// Adds a run up. `served` are the servers' own counts.
    ///
    /// # Errors
    /// When a request is not accounted for: it failed, was refused though its class may not be, or servers and client
    /// do not agree.
    pub(crate) fn new(run: &[(Arrival, Outcome)], served: Totals) -> anyhow::Result<Self> {
        let mut summary = Self {
            adapter_loads: served.adapter_loads,
            ..Self::default()
        };
        let mut known = HashSet::new();
        let mut failures = Vec::new();
        for (arrival, outcome) in run {
            match outcome {
                Outcome::Answered(answered) => summary.add(arrival, answered, &mut known),
                Outcome::Shed { code, .. }
                    if arrival.class == Class::Sheddable && code == "sheddable_saturated" =>
                {
                    summary.shed += 1;
                }
                Outcome::Shed { code, .. } => {
                    failures.push(format!("{}: refused with 429, {code}", arrival.who));
                }
                Outcome::Failed(error) => failures.push(format!("{}: {error}", arrival.who)),
            }
        }
        if let Some(first) = failures.first() {
            anyhow::bail!(
                "{} of {} requests failed, the first: {first}",
                failures.len(),
                run.len()
            );
        }
        let answered = (run.len() - summary.shed) as u64;
        anyhow::ensure!(
            served.finished == answered,
            "{answered} answers came back, the servers gave {}",
            served.finished
        );
        let lists = [
            &mut summary.critical,
            &mut summary.standard,
            &mut summary.batch,
            &mut summary.people,
            &mut summary.critical_in_burst,
        ];
        lists.into_iter().for_each(|list| list.sort_unstable());
        Ok(summary)
    }

    fn add(&mut self, arrival: &Arrival, answered: &Answered, known: &mut HashSet<(u32, String)>) {
        let ttft = answered.ttft;
        match arrival.class {
            Class::Critical => self.critical.push(ttft),
            Class::Standard => self.standard.push(ttft),
            Class::Sheddable => self.batch.push(ttft),
        }
        if arrival.class != Class::Sheddable {
            self.people.push(ttft);
        }
        if arrival.class == Class::Critical && arrival.in_burst {
            self.critical_in_burst.push(ttft);
        }
        let cached = answered.cached_tokens.min(answered.prompt_tokens);
        self.prompt_tokens += answered.prompt_tokens;
        self.cached_tokens += cached;
        // The first of a prefix has to compute it; whatever the others compute of it is work done again.
        if let Some(prefix) = arrival.prefix {
            let served = answered
                .decision
                .model
                .clone()
                .unwrap_or_else(|| arrival.model.to_owned());
            if !known.insert((prefix.id, served)) {
                let shared = (prefix.share * answered.prompt_tokens as f64) as u64;
                self.again += shared.saturating_sub(cached);
            }
        }
    }

    fn computed(&self) -> u64 {
        self.prompt_tokens - self.cached_tokens
    }

    fn hit_ratio(&self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
    }
}

/// The value below which a share `q` of the sorted values lies (nearest rank).
fn quantile(sorted: &[Duration], q: f64) -> Option<Duration> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// How a row compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Better,
    Same,
    Worse,
    /// Not a matter of better or worse.
    Fact,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) note: String,
    pub(crate) verdict: Verdict,
}

/// Ratios nearer to one than this are noise.
const NOISE: f64 = 1.05;

/// `3.1× sooner`, or `1.4× later`: a quantity of which less is better.
fn compare(before: f64, after: f64, less: &str, more: &str) -> (String, Verdict) {
    if before <= 0.0 && after <= 0.0 {
        return ("same".to_owned(), Verdict::Same);
    }
    if before <= 0.0 || after <= 0.0 {
        let better = after <= 0.0;
        return (
            if better { "none left" } else { "new" }.to_owned(),
            if better {
                Verdict::Better
            } else {
                Verdict::Worse
            },
        );
    }
    let ratio = before / after;
    if ratio >= NOISE {
        (format!("{} {less}", times(ratio)), Verdict::Better)
    } else if ratio <= 1.0 / NOISE {
        (format!("{} {more}", times(1.0 / ratio)), Verdict::Worse)
    } else {
        ("same".to_owned(), Verdict::Same)
    }
}

fn times(ratio: f64) -> String {
    if ratio < 9.95 {
        format!("{ratio:.1}×")
    } else {
        format!("{ratio:.0}×")
    }
}

fn ttft_row(name: &'static str, before: &[Duration], after: &[Duration], q: f64) -> Row {
    let text = |value: Option<Duration>| value.map_or_else(|| "-".to_owned(), millis);
    let (a, b) = (quantile(before, q), quantile(after, q));
    let (note, verdict) = match (a, b) {
        (Some(a), Some(b)) => compare(a.as_secs_f64(), b.as_secs_f64(), "sooner", "later"),
        _ => (String::new(), Verdict::Fact),
    };
    Row {
        name,
        before: text(a),
        after: text(b),
        note,
        verdict,
    }
}

fn count_row(name: &'static str, before: u64, after: u64) -> Row {
    let (note, verdict) = compare(before as f64, after as f64, "less", "more");
    Row {
        name,
        before: tokens(before),
        after: tokens(after),
        note,
        verdict,
    }
}

/// Times to the first token that the table shows: what it is, whose, and which quantile.
type Times = (&'static str, fn(&Summary) -> &[Duration], f64);
const TIMES: [Times; 8] = [
    ("first token, chat and agents   p50", |s| &s.people, 0.5),
    ("                               p90", |s| &s.people, 0.9),
    ("  Critical: chat               p50", |s| &s.critical, 0.5),
    ("                               p90", |s| &s.critical, 0.9),
    (
        "    during the burst           p90",
        |s| &s.critical_in_burst,
        0.9,
    ),
    ("  Standard: agents, tools      p50", |s| &s.standard, 0.5),
    ("                               p90", |s| &s.standard, 0.9),
    ("  Sheddable: batch, if served  p50", |s| &s.batch, 0.5),
];

/// Round robin against Pointsman.
pub(crate) fn rows(before: &Summary, after: &Summary) -> Vec<Row> {
    let row = |name, tell: fn(&Summary) -> String, (note, verdict)| Row {
        name,
        before: tell(before),
        after: tell(after),
        note,
        verdict,
    };
    let misses = compare(
        1.0 - before.hit_ratio(),
        1.0 - after.hit_ratio(),
        "fewer misses",
        "more misses",
    );
    let mut rows: Vec<Row> = TIMES
        .iter()
        .map(|(name, times, q)| ttft_row(name, times(before), times(after), *q))
        .collect();
    rows.extend([
        row(
            "  batch served / told to retry",
            |s| format!("{} / {}", s.batch.len(), s.shed),
            (String::new(), Verdict::Fact),
        ),
        row(
            "prompt tokens found in caches",
            |s| format!("{:.0} %", s.hit_ratio() * 100.0),
            misses,
        ),
        count_row(
            "prompt tokens computed",
            before.computed(),
            after.computed(),
        ),
        count_row("  of which work done twice", before.again, after.again),
        count_row("adapter loads", before.adapter_loads, after.adapter_loads),
    ]);
    rows
}

/// One sentence, computed from the numbers, and a second one if there is a price.
pub(crate) fn conclusion(before: &Summary, after: &Summary) -> String {
    let p90 = |times: &[Duration]| quantile(times, 0.9).unwrap_or_default().as_secs_f64();
    let times = |list: fn(&Summary) -> &[Duration]| {
        compare(p90(list(before)), p90(list(after)), "sooner", "later")
    };
    let counts = |count: fn(&Summary) -> u64| {
        compare(count(before) as f64, count(after) as f64, "less", "more")
    };
    let (people, burst) = (times(|s| &s.people), times(|s| &s.critical_in_burst));
    let (computed, loads) = (counts(Summary::computed), counts(|s| s.adapter_loads));
    let loaded = format!(
        "{} adapter loads instead of {}",
        after.adapter_loads, before.adapter_loads
    );
    let facts = [
        (people.1, format!("first tokens {} (p90)", people.0)),
        (
            burst.1,
            format!("critical ones {} during the burst", burst.0),
        ),
        (computed.1, format!("{} prefill", computed.0)),
        (loads.1, loaded),
    ];
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (verdict, fact) in facts {
        match verdict {
            Verdict::Better => good.push(fact),
            Verdict::Worse => bad.push(fact),
            Verdict::Same | Verdict::Fact => {}
        }
    }
    if after.shed > before.shed {
        bad.push(format!(
            "{} of {} batch requests were told to retry later, instead of {}",
            after.shed,
            after.shed + after.batch.len(),
            before.shed
        ));
    }
    let mut text = if good.is_empty() {
        "Nothing was better this time.".to_owned()
    } else {
        format!("Same servers, same requests: {}.", sentence(&good))
    };
    if !bad.is_empty() {
        text.push_str(&format!(" The price: {}.", sentence(&bad)));
    }
    text
}

fn sentence(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::Prefix;
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn arrival(class: Class, in_burst: bool) -> Arrival {
        let prefix = (class == Class::Standard).then_some(Prefix { id: 1, share: 0.9 });
        Arrival {
            at: ms(0),
            class,
            who: "x".into(),
            model: "m",
            prefix,
            in_burst,
            body: bytes::Bytes::new(),
        }
    }

    fn answer(ttft: u64, prompt_tokens: u64, cached_tokens: u64) -> Outcome {
        Outcome::Answered(Box::new(Answered {
            ttft: ms(ttft),
            prompt_tokens,
            cached_tokens,
            ..Answered::default()
        }))
    }

    fn shed(code: &str) -> Outcome {
        Outcome::Shed {
            code: code.into(),
            retry_after: 1,
        }
    }

    fn totals(finished: u64) -> Totals {
        Totals {
            finished,
            adapter_loads: 3,
        }
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values: Vec<_> = (1..=10).map(ms).collect();
        for (q, expected) in [
            (0.0, 1),
            (0.1, 1),
            (0.5, 5),
            (0.51, 6),
            (0.9, 9),
            (0.91, 10),
            (1.0, 10),
        ] {
            assert_eq!(quantile(&values, q), Some(ms(expected)), "{q}");
        }
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[ms(3)], 0.9), Some(ms(3)));
    }

    #[test]
    fn a_run_is_added_up() {
        let run = vec![
            (arrival(Class::Critical, true), answer(30, 100, 0)),
            (arrival(Class::Critical, false), answer(10, 100, 0)),
            (arrival(Class::Standard, false), answer(70, 1000, 0)),
            (arrival(Class::Standard, false), answer(70, 1000, 100)),
            (arrival(Class::Standard, false), answer(20, 1000, 900)),
            (
                arrival(Class::Sheddable, false),
                shed("sheddable_saturated"),
            ),
        ];
        let summary = Summary::new(&run, totals(5)).unwrap();
        assert_eq!(summary.critical, [ms(10), ms(30)]);
        assert_eq!(
            (
                summary.critical_in_burst.len(),
                summary.people.len(),
                summary.shed
            ),
            (1, 5, 1)
        );
        assert_eq!((summary.computed(), summary.again), (2200, 800));
        assert!((summary.hit_ratio() - 1000.0 / 3200.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_accounted_for_fails() {
        let bad = [
            (
                arrival(Class::Critical, false),
                Outcome::Failed("reset".into()),
            ),
            (arrival(Class::Critical, false), shed("sheddable_saturated")),
            (arrival(Class::Sheddable, false), shed("queue_full")),
            (arrival(Class::Critical, false), answer(1, 1, 0)),
        ];
        for one in bad {
            let run = [one];
            assert!(Summary::new(&run, totals(7)).is_err(), "{run:?}");
        }
    }

    fn summary(people: u64, again: u64, shed: usize) -> Summary {
        let times = vec![ms(people)];
        Summary {
            people: times.clone(),
            critical: times.clone(),
            critical_in_burst: times.clone(),
            standard: times.clone(),
            batch: times,
            shed,
            prompt_tokens: 1000 + again,
            cached_tokens: 500,
            again,
            adapter_loads: 4,
        }
    }

    #[test]
    fn what_is_worse_is_called_worse() {
        let (slow, fast) = (summary(400, 9000, 0), summary(40, 100, 7));
        let said = conclusion(&slow, &fast);
        assert!(
            said.starts_with("Same servers, same requests: first tokens 10× sooner (p90), critical ones 10× sooner"),
            "{said}"
        );
        assert!(
            said.contains(
                "The price: 7 of 8 batch requests were told to retry later, instead of 0."
            ),
            "{said}"
        );
        let said = conclusion(&fast, &slow);
        assert!(
            said.starts_with("Nothing was better")
                && said.contains("10× later")
                && said.contains("more prefill"),
            "{said}"
        );
        assert!(
            rows(&fast, &slow)
                .iter()
                .filter(|row| row.verdict == Verdict::Worse)
                .count()
                >= 8
        );
        assert_eq!(conclusion(&fast, &fast), "Nothing was better this time.");
    }

    #[test]
    fn ratios_near_one_are_no_news() {
        assert_eq!(
            compare(100.0, 97.0, "sooner", "later"),
            ("same".into(), Verdict::Same)
        );
        assert_eq!(
            compare(97.0, 100.0, "sooner", "later"),
            ("same".into(), Verdict::Same)
        );
        assert_eq!(
            compare(0.0, 0.0, "less", "more"),
            ("same".into(), Verdict::Same)
        );
        assert_eq!(compare(0.0, 1.0, "less", "more").1, Verdict::Worse);
        assert_eq!(compare(1.0, 0.0, "less", "more").1, Verdict::Better);
        assert_eq!(
            compare(30.0, 10.0, "less", "more"),
            ("3.0× less".into(), Verdict::Better)
        );
    }
}
