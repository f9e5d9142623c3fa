//! The known name that is most similar to a misspelt one.

use strsim::levenshtein;

/// The most similar candidate, if it is similar enough.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let (distance, candidate) =
        candidates.map(|candidate| (levenshtein(name, candidate), candidate)).min()?;
    // At most a third of the letters may differ.
    (distance * 3 <= name.chars().count()).then(|| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_name_suggests_nothing() {
        assert_eq!(nearest("colour", ["pin", "log.level"].into_iter()), None);
        assert_eq!(
            nearest("log.levle", ["pin", "log.level"].into_iter()).as_deref(),
            Some("log.level")
        );
    }
}
