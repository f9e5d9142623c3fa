//! The known name that is most similar to a misspelt one.

/// The most similar candidate, if it is similar enough.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let (distance, candidate) =
        candidates.map(|candidate| (distance(name, candidate), candidate)).min()?;
    // At most a third of the letters may differ.
    (distance * 3 <= name.chars().count()).then(|| candidate.to_owned())
}

/// The end of a sentence that names the nearest candidate.
pub(super) fn suggestion(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// Edit distance of `a` and `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // One row of the table: distances from the letters of `a` so far to each prefix of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, other) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        let check = |a, b, expected| assert_eq!(distance(a, b), expected, "{a} {b}");
        check("", "", 0);
        check("", "abc", 3);
        check("abc", "", 3);
        check("kitten", "sitting", 3);
        check("pin", "pins", 1);
        check("listen_adress", "listen_address", 1);
    }

    #[test]
    fn a_far_name_suggests_nothing() {
        assert_eq!(nearest("colour", ["pin", "log.level"].into_iter()), None);
        assert_eq!(
            nearest("log.levle", ["pin", "log.level"].into_iter()).as_deref(),
            Some("log.level")
        );
    }
}
