//! Choosing among weighted alternatives, at random and independently for each request.
//!
//! A smooth weighted round robin would be more even, but it correlates choices of one client: three picks in a row of
//! the lesser alternative would never happen (the conformance suite of the inference extension waits for just that).

/// The index that a `roll` in [0, 1) falls on; `None` when no weight is above 0.
pub(crate) fn pick(weights: impl Iterator<Item = u64> + Clone, roll: f64) -> Option<usize> {
    let total: u64 = weights.clone().sum();
    if total == 0 {
        return None;
    }
    // A roll outside its range must not choose an alternative of weight 0.
    let mut left = ((roll.clamp(0.0, 1.0) * total as f64) as u64).min(total - 1);
    for (index, weight) in weights.enumerate() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn shares_follow_the_weights() {
        let cases: [(&[u64], f64, Option<usize>); 9] = [
            (&[], 0.5, None),
            (&[0, 0], 0.5, None),
            (&[1], 0.999, Some(0)),
            (&[0, 1], 0.0, Some(1)),
            (&[1, 0], 0.999_999, Some(0)),
            (&[80, 20], 0.799, Some(0)),
            (&[80, 20], 0.8, Some(1)),
            (&[80, 20], 1.0, Some(1)),
            (&[80, 20], f64::NAN, Some(0)),
        ];
        for (weights, roll, expected) in cases {
            assert_eq!(
                pick(weights.iter().copied(), roll),
                expected,
                "{weights:?} {roll}"
            );
        }
    }
}
