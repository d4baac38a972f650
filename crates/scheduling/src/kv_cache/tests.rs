use super::*;

const TTL: Duration = Duration::from_secs(5);

#[test]
fn the_price_is_nothing_when_empty_and_steep_when_full() {
    let price = |used: f64| space_price(1000.0, used, 100_000.0, 10.0);
    assert!(price(0.0) < 1e-8);
    assert!(price(50_000.0) < 0.01);
    assert!(price(99_000.0) > 0.09);
    assert!(
        price(500_000.0) <= 0.1 * 1.2_f64.powi(4) + 1e-9,
        "bounded past full"
    );
    assert_eq!(
        space_price(0.0, 99_000.0, 100_000.0, 10.0),
        0.0,
        "sharing is free"
    );
    assert!(space_price(10.0, 0.0, 0.0, 1.0).is_finite());
}

#[test]
fn the_engines_figure_corrects_upwards_only() {
    let mut space = Space {
        tails: 10_000,
        ..Space::default()
    };
    space.mark(20_000);
    let table = [
        (None, 30_000),
        (Some(0.1), 30_000),
        (Some(f64::NAN), 30_000),
        (Some(0.5), 50_000),
        (Some(7.0), 100_000),
    ];
    for (usage, used) in table {
        space.scrape(Time::ZERO, usage, 100_000, 20_000);
        assert_eq!(space.used(20_000, Time::ZERO, TTL), used, "{usage:?}");
    }
    assert_eq!(
        space.used(20_000, Time::ZERO + TTL, TTL),
        30_000,
        "an old scrape is not believed"
    );
}
