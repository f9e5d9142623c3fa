//! Files that were named on the command line: read whole, but not without a limit.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The text of a file of at most `most_bytes`, as `writer`, a command, writes it.
pub(super) fn text(path: &Path, most_bytes: u64, writer: &str) -> anyhow::Result<String> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("reading {shown}"))?;
    let mut text = String::new();
    file.take(most_bytes + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {shown}"))?;
    if text.len() as u64 > most_bytes {
        bail!("{shown} is larger than {} MiB; `{writer}` writes no such file", most_bytes >> 20);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_the_limit_is_refused_without_reading_it_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "x".repeat(1 << 20)).expect("written");
        assert_eq!(text(&path, 1 << 20, "portolan x").expect("read").len(), 1 << 20);
        std::fs::write(&path, "x".repeat((1 << 20) + 1)).expect("written");
        let error = text(&path, 1 << 20, "portolan x").expect_err("too large").to_string();
        assert!(
            error.ends_with("file is larger than 1 MiB; `portolan x` writes no such file"),
            "{error}"
        );
        let error = text(Path::new("/dev/zero"), 1 << 20, "portolan x").expect_err("endless");
        assert!(error.to_string().starts_with("/dev/zero is larger than 1 MiB"), "{error}");
        assert!(text(&folder.path().join("none"), 1, "x").is_err());
    }
}
