//! What was announced of inference gateways, against round robin: chats as in ShareGPT from 100 to 1,000 a second on
//! four H100.
//!
//! The announcement gives no method: the fleet is four H100 with a model of 8B parameters here. *Per-token latency* is an
//! answer's whole time by its tokens. *The knee* is where round robin's p90 of that is twice what it is at the least
//! load. Utilisation is the busy share of the engines.

use std::collections::BTreeMap;

use crate::LabError;
use crate::goals::cells::{OURS, Scope};
use crate::goals::desk::{Condition, Desk, Place, ratio};
use crate::goals::verdict::{Limit, Unit, Verdict};
use crate::stats::{Interval, Summary};

const ROUND_ROBIN: &str = "round-robin";
const FLEET: &str = "llama-3.1-8b-h100*4";

pub(super) fn claims(desk: &mut Desk<'_>, scope: &Scope) -> Result<Vec<Verdict>, LabError> {
    let condition = scope.condition("ramp", |plan| {
        plan.fleet = Some(FLEET.to_owned());
        plan.horizon = Some(45.0);
        plan.warmup = Some(15.0);
    });
    let step = if scope.small { 450 } else { 150 };
    let ramp = (100..=1000).step_by(step).map(f64::from);
    let places: Vec<Place> = ramp
        .map(|load| Place::new("sharegpt", load, &format!("{load} QPS")))
        .collect();
    desk.run(
        "ramp",
        &condition,
        &[OURS, ROUND_ROBIN],
        &places,
        &scope.seeds,
    )?;
    let ramp = Ramp {
        desk,
        condition: &condition,
        places: &places,
    };
    Ok(ramp.verdicts())
}

struct Ramp<'a, 'd> {
    desk: &'a Desk<'d>,
    condition: &'a Condition,
    places: &'a [Place],
}

type Value = fn(&Summary) -> f64;

impl Ramp<'_, '_> {
    fn values(&self, policy: &str, place: &Place, value: Value) -> BTreeMap<u64, f64> {
        self.desk.values(self.condition, policy, place, value)
    }

    fn ratio(&self, place: &Place, value: Value) -> Option<Interval> {
        ratio(
            &self.values(OURS, place, value),
            &self.values(ROUND_ROBIN, place, value),
        )
    }

    /// The places from which on round robin's per-token latency is twice that of the first.
    fn above_the_knee(&self) -> &[Place] {
        let of = |place: &Place| {
            let values = self.values(ROUND_ROBIN, place, |it| it.per_token.p90);
            Interval::of(values.into_values()).median
        };
        let Some(first) = self.places.first().map(of) else {
            return &[];
        };
        let knee = self.places.iter().position(|it| of(it) > 2.0 * first);
        &self.places[knee.unwrap_or(self.places.len())..]
    }

    /// The place with the least, or greatest, median ratio.
    fn extreme(&self, places: &[Place], value: Value, least: bool) -> Option<(Interval, String)> {
        let all = places
            .iter()
            .filter_map(|it| Some((self.ratio(it, value)?, it.name())));
        let order =
            |a: &(Interval, String), b: &(Interval, String)| a.0.median.total_cmp(&b.0.median);
        if least {
            all.min_by(order)
        } else {
            all.max_by(order)
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let above = self.above_the_knee();
        let knee = above
            .first()
            .map_or("the knee is not reached".to_owned(), |it| {
                format!("the knee is at {}", it.said)
            });
        let verdict = |id: &str, goal: &str, limit, places: &[Place], value: Value, least| {
            let mut verdict = Verdict::new(id, goal, limit, Unit::Times);
            match self.extreme(places, value, least) {
                Some((interval, place)) => {
                    verdict.measured = Some(interval);
                    verdict.note = format!("worst at {place}; {knee}");
                }
                None => verdict.note.clone_from(&knee),
            }
            verdict
        };
        let variance: Value = |it| it.utilisation_variance.max(1e-9);
        vec![
            verdict(
                "A1",
                "throughput / round robin, 100 to 1,000 QPS",
                Limit::AtLeast(0.98),
                self.places,
                |it| it.throughput,
                true,
            ),
            verdict(
                "A2",
                "p90 per-token latency above the knee / round robin",
                Limit::AtMost(0.70),
                above,
                |it| it.per_token.p90,
                false,
            ),
            verdict(
                "A3",
                "utilisation / round robin",
                Limit::AtLeast(1.15),
                self.places,
                |it| it.utilisation,
                true,
            ),
            verdict(
                "A4",
                "variance of utilisation over servers / round robin",
                Limit::AtMost(1.0),
                self.places,
                variance,
                false,
            ),
        ]
    }
}
