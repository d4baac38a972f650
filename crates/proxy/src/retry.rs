//! The retry budget of a pool: a token bucket filled by traffic.
//!
//! Every request pays in `ratio` tokens and every retry takes one out, so that in the long run retries are at most
//! `ratio` of the traffic. A full bucket holds [`RESERVE`] tokens, with which it also starts, so that a quiet pool can
//! retry at once and a server that dies under steady load is survived. The scheme is Finagle's `RetryBudget`.

/// Tokens of a full bucket.
const RESERVE: f64 = 100.0;

/// The bucket of one pool on one worker.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    ratio: f64,
    tokens: f64,
}

impl RetryBudget {
    pub(crate) fn new(ratio: f64) -> Self {
        Self {
            ratio: ratio.max(0.0),
            tokens: if ratio > 0.0 { RESERVE } else { 0.0 },
        }
    }

    /// A request came.
    pub(crate) fn deposit(&mut self) {
        self.tokens = (self.tokens + self.ratio).min(RESERVE);
    }

    /// Takes a retry out, if there is one.
    pub(crate) fn withdraw(&mut self) -> bool {
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_traffic_once_the_reserve_is_gone() {
        let mut budget = RetryBudget::new(0.2);
        let reserve = (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(reserve, 100);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit();
            retries += usize::from(budget.withdraw());
        }
        assert!((199..=200).contains(&retries), "{retries}");
    }

    #[test]
    fn a_ratio_of_zero_never_retries() {
        let mut budget = RetryBudget::new(0.0);
        budget.deposit();
        assert!(!budget.withdraw());
    }
}
