//! A goal, what was measured for it, and whether it is met.

use serde::{Deserialize, Serialize};

use crate::stats::Interval;

/// What a measured value must keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Smaller is better.
    AtMost(f64),
    /// Larger is better.
    AtLeast(f64),
}

impl Limit {
    /// Whether a value keeps it.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    /// The same with room: a gate that noise does not close. `slack` is a share of the limit.
    #[must_use]
    pub fn loosened(self, slack: f64) -> Self {
        match self {
            Self::AtMost(most) => Self::AtMost(most * (1.0 + slack)),
            Self::AtLeast(least) => Self::AtLeast(least * (1.0 - slack)),
        }
    }
}

/// In what a value is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A ratio.
    Times,
    /// A change, as a share.
    Share,
    /// Microseconds.
    Micros,
    /// A number.
    Count,
}

/// What the best published policy reaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Its name.
    pub policy: String,
    /// The same measure of it.
    pub value: Interval,
}

/// One goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its number: `G1a`.
    pub id: String,
    /// What it says.
    pub goal: String,
    /// What must hold.
    pub limit: Limit,
    /// In what.
    pub unit: Unit,
    /// What was measured; none when it could not be.
    pub measured: Option<Interval>,
    /// The best published policy at the same.
    pub published: Option<Published>,
    /// Which cell decides, what else there is to know, or why it was not measured.
    pub note: String,
}

impl Verdict {
    /// A goal without a measurement yet.
    #[must_use]
    pub fn new(id: &str, goal: &str, limit: Limit, unit: Unit) -> Self {
        Self {
            id: id.to_owned(),
            goal: goal.to_owned(),
            limit,
            unit,
            measured: None,
            published: None,
            note: String::new(),
        }
    }

    /// Whether the median keeps the limit; `None` when nothing was measured.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.measured.map(|it| self.limit.holds(it.median))
    }

    /// Whether the whole interval is on the median's side of the limit.
    #[must_use]
    pub fn sure(&self) -> bool {
        self.measured.is_some_and(|it| {
            let holds = |value| self.limit.holds(value);
            holds(it.low) == holds(it.median) && holds(it.high) == holds(it.median)
        })
    }

    /// `met`, `not met` or `not measured`, with a question mark when the interval crosses the limit.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.met(), self.sure()) {
            (None, _) => "not measured",
            (Some(true), true) => "met",
            (Some(true), false) => "met?",
            (Some(false), true) => "not met",
            (Some(false), false) => "not met?",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(low: f64, median: f64, high: f64) -> Verdict {
        let mut verdict = Verdict::new("G0", "none", Limit::AtMost(1.0), Unit::Times);
        verdict.measured = Some(Interval {
            median,
            low,
            high,
            coverage: 0.95,
            count: 6,
        });
        verdict
    }

    #[test]
    fn the_word_says_how_sure_it_is() {
        let none = Verdict::new("G0", "none", Limit::AtMost(1.0), Unit::Times);
        assert_eq!(none.word(), "not measured");
        for (values, word) in [
            ((0.8, 0.9, 1.0), "met"),
            ((0.8, 0.9, 1.1), "met?"),
            ((0.9, 1.1, 1.2), "not met?"),
            ((1.1, 1.2, 1.3), "not met"),
        ] {
            assert_eq!(with(values.0, values.1, values.2).word(), word);
        }
    }

    #[test]
    fn slack_goes_to_the_easy_side() {
        assert!(Limit::AtMost(1.0).loosened(0.25).holds(1.2));
        assert!(!Limit::AtMost(1.0).holds(1.2));
        assert!(Limit::AtLeast(1.0).loosened(0.25).holds(0.8));
        assert!(!Limit::AtLeast(1.0).holds(0.8));
    }
}
