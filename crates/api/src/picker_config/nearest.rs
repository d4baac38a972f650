//! The name that somebody may have meant.

/// Names further away than this, in edits for each three letters, are not what was meant.
const LETTERS_PER_EDIT: usize = 3;

/// `; did you mean X?`, or nothing.
pub(super) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|it| (distance(name, it), it)).min();
    let near = nearest.filter(|(edits, _)| *edits <= (name.len() / LETTERS_PER_EDIT).max(1));
    near.map_or_else(String::new, |(_, it)| format!("; did you mean {it}?"))
}

/// Insertions, deletions and replacements of bytes from one to the other (Levenshtein 1966). Names are short; what is
/// longer than any is cut.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (a, b) = (&a[..a.len().min(LONGEST)], &b[..b.len().min(LONGEST)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("kitten", "sitting", 3),
            ("queue", "queue", 0),
            ("quue-scorer", "queue-scorer", 1),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
        assert_eq!(hint("xyz", ["queue-scorer"].into_iter()), "");
    }
}
