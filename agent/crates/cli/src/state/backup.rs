//! `portolan state backup`: a new file each time, and a limited number of them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::State;
use crate::print;
use crate::target::Connection;

/// Names of backups, with the time between.
const BEGIN: &str = "portolan-state-";
const END: &str = ".json";

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The directory, which has to exist.
    directory: PathBuf,
    /// Keep the newest so many backups there, and remove the others [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(arguments: &BackupArgs) -> anyhow::Result<()> {
    let BackupArgs { directory, keep, connection } = arguments;
    let state = State::of(connection)?;
    let path = write(directory, &state)?;
    print(&format!("written to {}\n", path.display()))?;
    if let Some(keep) = keep {
        for old in outdated(names(directory)?, *keep as usize) {
            let old = directory.join(old);
            std::fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
            print(&format!("removed {}\n", old.display()))?;
        }
    }
    Ok(())
}

/// Writes a whole file or none, which only its owner reads.
fn write(directory: &Path, state: &State) -> anyhow::Result<PathBuf> {
    // Without colons, which some file systems refuse.
    let time = state.exported.to_string().replace(':', "");
    let path = directory.join(format!("{BEGIN}{time}{END}"));
    let what = || format!("writing {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(what)?;
    file.write_all(state.text()?.as_bytes()).with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist_noclobber(&path).with_context(what)?;
    File::open(directory).and_then(|directory| directory.sync_all()).with_context(what)?;
    Ok(path)
}

/// The files of a directory that are backups.
fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let shown = || format!("listing {}", directory.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(shown)? {
        let name = entry.with_context(shown)?.file_name().to_string_lossy().into_owned();
        if is_backup(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether we have written it: `portolan-state-2026-11-30T043500.123456Z.json`.
fn is_backup(name: &str) -> bool {
    let time = name.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    time.is_some_and(|time| {
        time.ends_with('Z') && time.chars().all(|c| c.is_ascii_digit() || "-T.Z".contains(c))
    })
}

/// All but the newest. Names sort as their times do, down to the second.
fn outdated(mut names: Vec<String>, keep: usize) -> Vec<String> {
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(keep));
    names
}

#[cfg(test)]
mod tests {
    use api_types::Timestamp;

    use super::super::VERSION;
    use super::*;

    fn state(seconds: f64) -> State {
        State {
            version: VERSION,
            exported: Timestamp::from_seconds(seconds),
            boot: String::new(),
            services: Vec::new(),
            reservations: Vec::new(),
        }
    }

    #[test]
    fn the_newest_stay_and_files_of_others_are_left_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for other in ["portolan-state-mine.json", "notes.json"] {
            std::fs::write(directory.path().join(other), "").expect("written");
        }
        let written: Vec<PathBuf> = [1.8e9, 1.8e9 + 1.0, 1.8e9 + 86400.0]
            .into_iter()
            .map(|seconds| write(directory.path(), &state(seconds)).expect("written"))
            .collect();
        let old = outdated(names(directory.path()).expect("listed"), 1);
        let name =
            |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        assert_eq!(
            old.iter().cloned().map(Some).collect::<Vec<_>>(),
            [name(&written[0]), name(&written[1])]
        );
        assert!(outdated(old, 2).is_empty());
        let read = State::read(&written[2]).expect("ours");
        assert_eq!(read, state(1.8e9 + 86400.0));
    }

    #[test]
    fn a_backup_overwrites_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write(directory.path(), &state(1.8e9)).expect("written");
        let why = format!("{:#}", write(directory.path(), &state(1.8e9)).expect_err("it is there"));
        assert!(why.contains("File exists"), "{why}");
    }
}
