use super::*;
use crate::config::Config;

fn facts() -> Facts {
    Facts {
        endpoint: EndpointId {
            index: 0,
            generation: 0,
        },
        open: true,
        coefficients: Coefficients::default(),
        max_batched_tokens: 8192.0,
        max_seqs: 256.0,
        hit_tokens: 0.0,
        shared_tokens: 0.0,
        in_flight: 0,
        sequences: 0.0,
        decodes: 0.0,
        context_tokens: 0.0,
        pending_tokens: 0.0,
        pending_seconds: 0.0,
        silent_seconds: 0.0,
        others_seconds: 0.0,
        kv_used: 0.0,
        kv_capacity: 400_000.0,
        waiting: 0.0,
        adapter: AdapterState::Free,
        adapter_seconds: 0.0,
        health_seconds: 0.0,
        last_dispatch: 0,
        last_cold: 0,
        cold_level: 0.0,
    }
}

fn cost(facts: Facts) -> Terms {
    let request = Request::default();
    let situation = Situation {
        now: Time::ZERO,
        request: &request,
        prompt_tokens: 4000.0,
        output_tokens: 200.0,
        theta: 2.0,
        expected_reuse: 1.0,
        prices: Prices::default(),
        salt: 1,
        candidates: &[],
    };
    situation.terms(&facts)
}

#[test]
fn an_idle_endpoint_costs_its_prefill_and_little_else() {
    let terms = cost(facts());
    let expected = 4000.0 * (22e-6 + 0.33e-9 * 2000.0);
    assert!((terms.prefill - expected).abs() < 1e-12);
    assert_eq!(
        (terms.pending, terms.others, terms.slots, terms.adapter),
        (0.0, 0.0, 0.0, 0.0)
    );
    assert!(
        (terms.ttft() - expected - 1e-3).abs() < 1e-9,
        "one step's fixed cost"
    );
    assert_eq!(terms.recompute, 2.0 * terms.prefill);
    let named: f64 = terms.named().iter().map(|(_, value)| value).sum();
    assert!(
        (named - terms.total()).abs() < 1e-12,
        "what is explained is what is decided on"
    );
}

#[test]
fn each_fact_moves_its_own_term() {
    let base = cost(facts());
    type Row = (&'static str, fn(&mut Facts), fn(&Terms) -> f64, bool);
    let table: [Row; 9] = [
        ("hit", |it| it.hit_tokens = 3000.0, |it| it.prefill, false),
        (
            "pending",
            |it| it.pending_seconds = 1.0,
            |it| it.pending,
            true,
        ),
        ("others", |it| it.others_seconds = 1.0, |it| it.others, true),
        (
            "decodes",
            |it| it.decodes = 50.0,
            |it| it.interference,
            true,
        ),
        ("sequences", |it| it.sequences = 50.0, |it| it.decode, true),
        ("full batch", |it| it.sequences = 256.0, |it| it.slots, true),
        (
            "adapter",
            |it| it.adapter_seconds = 1.0,
            |it| it.adapter,
            true,
        ),
        ("kv", |it| it.kv_used = 390_000.0, |it| it.space, true),
        ("health", |it| it.health_seconds = 1.0, |it| it.health, true),
    ];
    for (name, change, term, dearer) in table {
        let mut changed = facts();
        change(&mut changed);
        let terms = cost(changed);
        assert_eq!(term(&terms) > term(&base), dearer, "{name}");
        assert_eq!(terms.total() > base.total(), dearer, "{name}");
    }
}

#[test]
fn sharing_takes_no_space_and_a_whole_hit_still_computes_a_token() {
    let shared = cost(Facts {
        shared_tokens: 4000.0,
        hit_tokens: 4000.0,
        kv_used: 390_000.0,
        ..facts()
    });
    assert_eq!(shared.space, 0.0);
    assert!(shared.prefill > 0.0 && shared.prefill < 1e-4);
}

#[test]
fn theta_rises_only_with_what_nobody_has_any_more() {
    let prices = Prices::default();
    let mut learned = Learned::new(&Config::default());
    let sizes = Dispatched {
        prompt: 1000.0,
        hit: 0.0,
        best_hit: 800.0,
        known: 800.0,
        seconds: 0.02,
    };
    learned.dispatched(Time::ZERO, sizes);
    assert_eq!(
        learned.theta(&prices),
        0.0,
        "a deliberate second copy costs nothing"
    );
    learned.dispatched(
        Time::ZERO,
        Dispatched {
            best_hit: 0.0,
            ..sizes
        },
    );
    assert!((learned.theta(&prices) - 16.0 * 0.4).abs() < 1e-9);
    for second in 0..600 {
        learned.dispatched(
            Time::from_secs_f64(f64::from(second)),
            Dispatched {
                known: 0.0,
                ..sizes
            },
        );
    }
    assert!(learned.theta(&prices) < 0.01, "and falls again");
}

#[test]
fn nonsense_from_engines_stays_in_bounds() {
    let mut learned = Learned::new(&Config::default());
    for _ in 0..1000 {
        learned.counted(1, u32::MAX);
        learned.finished(u32::MAX);
    }
    assert!(learned.scale() <= 4.0 && learned.output(Some(100)) <= 100.0);
    learned.counted(0, 5);
    learned.counted(5, 0);
    for _ in 0..1000 {
        learned.counted(1000, 1200);
    }
    assert!((learned.scale() - 1.2).abs() < 0.01);
}
