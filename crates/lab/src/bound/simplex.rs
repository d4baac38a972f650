//! A small dense simplex: the most of `c x` with `A x <= b`, `x >= 0`, where `b >= 0`.
//!
//! With `b >= 0` nothing is a solution, so there is one phase only. Bland's rule (Mathematics of Operations Research
//! 2(2), 1977) cannot cycle. Sizes here are some dozens of rows and columns.

/// What counts as nothing after rows were scaled to a largest coefficient of one.
const TINY: f64 = 1e-9;
/// Pivots until it gives up: far more than problems of this size take.
const MOST_PIVOTS: usize = 100_000;

/// The solution, and which rows are tight in it. `None`: there is no largest value, or the numbers make no sense.
pub(super) struct Solution {
    pub(super) value: f64,
    pub(super) x: Vec<f64>,
    /// What one more unit of each row's right side is worth, rows scaled.
    pub(super) worth: Vec<f64>,
}

/// Solves; `rows` are `(coefficients, right side)`.
pub(super) fn maximise(objective: &[f64], rows: &[(Vec<f64>, f64)]) -> Option<Solution> {
    let (columns, count) = (objective.len(), rows.len());
    let width = columns + count + 1;
    let mut table: Vec<Vec<f64>> = Vec::with_capacity(count + 1);
    for (number, (row, right)) in rows.iter().enumerate() {
        let scale = row.iter().fold(0.0_f64, |most, it| most.max(it.abs()));
        if *right < 0.0 || !scale.is_finite() {
            return None;
        }
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let mut line = vec![0.0; width];
        for (place, value) in line.iter_mut().zip(row) {
            *place = value / scale;
        }
        line[columns + number] = 1.0;
        line[width - 1] = right / scale;
        table.push(line);
    }
    let mut goal = vec![0.0; width];
    for (place, value) in goal.iter_mut().zip(objective) {
        *place = -value;
    }
    table.push(goal);
    let mut basis: Vec<usize> = (columns..columns + count).collect();
    for _ in 0..MOST_PIVOTS {
        let Some(enter) = table[count][..width - 1].iter().position(|it| *it < -TINY) else {
            return Some(read(&table, &basis, columns));
        };
        let leave = leaving(&table, &basis, enter)?;
        pivot(&mut table, leave, enter);
        basis[leave] = enter;
    }
    None
}

/// The row that limits a column first; of equals the one of the least variable.
fn leaving(table: &[Vec<f64>], basis: &[usize], column: usize) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (row, line) in table[..basis.len()].iter().enumerate() {
        if line[column] <= TINY {
            continue;
        }
        let ratio = line[line.len() - 1] / line[column];
        let better = match best {
            None => true,
            Some((other, least)) => {
                ratio < least - 1e-15 || (ratio <= least + 1e-15 && basis[row] < basis[other])
            }
        };
        if better {
            best = Some((row, ratio));
        }
    }
    best.map(|(row, _)| row)
}

fn pivot(table: &mut [Vec<f64>], row: usize, column: usize) {
    let factor = table[row][column];
    table[row].iter_mut().for_each(|it| *it /= factor);
    let line = table[row].clone();
    for (number, other) in table.iter_mut().enumerate() {
        let factor = other[column];
        if number != row && factor != 0.0 {
            for (place, value) in other.iter_mut().zip(&line) {
                *place -= factor * value;
            }
        }
    }
}

fn read(table: &[Vec<f64>], basis: &[usize], columns: usize) -> Solution {
    let last = table[0].len() - 1;
    let mut x = vec![0.0; columns];
    for (line, variable) in table.iter().zip(basis) {
        if *variable < columns {
            x[*variable] = line[last];
        }
    }
    let goal = &table[basis.len()];
    Solution {
        value: goal[last],
        x,
        worth: goal[columns..last].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_problems_have_their_solutions() {
        // Most of 3x + 5y with x <= 4, 2y <= 12, 3x + 2y <= 18: 36 at (2, 6).
        let rows = [
            (vec![1.0, 0.0], 4.0),
            (vec![0.0, 2.0], 12.0),
            (vec![3.0, 2.0], 18.0),
        ];
        let found = maximise(&[3.0, 5.0], &rows).unwrap();
        assert!((found.value - 36.0).abs() < 1e-9);
        assert!((found.x[0] - 2.0).abs() < 1e-9 && (found.x[1] - 6.0).abs() < 1e-9);
        assert!(found.worth[0].abs() < 1e-9 && found.worth[1] > 0.0 && found.worth[2] > 0.0);
        assert!(maximise(&[1.0, 0.0], &[(vec![0.0, 1.0], 1.0)]).is_none());
        assert!(maximise(&[1.0], &[(vec![1.0], -1.0)]).is_none());
        // Beale's problem, on which naive rules cycle: 1/20.
        let rows = [
            (vec![0.25, -60.0, -1.0 / 25.0, 9.0], 0.0),
            (vec![0.5, -90.0, -1.0 / 50.0, 3.0], 0.0),
            (vec![0.0, 0.0, 1.0, 0.0], 1.0),
        ];
        let found = maximise(&[0.75, -150.0, 0.02, -6.0], &rows).unwrap();
        assert!((found.value - 0.05).abs() < 1e-9, "{}", found.value);
    }

    proptest! {
        /// The solution keeps every row, and no random point that keeps them is better.
        #[test]
        fn nothing_feasible_is_better(
            rows in prop::collection::vec((prop::collection::vec(0.0..5.0_f64, 3), 0.5..9.0_f64), 1..6),
            goal in prop::collection::vec(0.1..4.0_f64, 3),
            points in prop::collection::vec(prop::collection::vec(0.0..9.0_f64, 3), 20),
        ) {
            let mut rows = rows;
            rows.push((vec![1.0; 3], 12.0));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            let found = maximise(&goal, &rows).unwrap();
            prop_assert!((dot(&goal, &found.x) - found.value).abs() < 1e-6);
            for (row, right) in &rows {
                prop_assert!(dot(row, &found.x) <= right + 1e-6);
            }
            for point in &points {
                if rows.iter().all(|(row, right)| dot(row, point) <= *right) {
                    prop_assert!(dot(&goal, point) <= found.value + 1e-6);
                }
            }
        }
    }
}
