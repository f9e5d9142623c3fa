//! The file of a balancer's configuration: replaced as a whole, restored as a whole.
//!
//! Beside `FILE` lie, while and after it is deployed, `.FILE.portolan-new` (the candidate),
//! `.FILE.portolan-backup` (the last version that was confirmed) and, from before the swap until the
//! deployment is confirmed or rolled back, `.FILE.portolan-unconfirmed`. Each is written and synced
//! under another name and then renamed, so a crash at any point leaves `FILE` as it was or as it was
//! validated; and what is unconfirmed is known to the next run, which never makes it the backup.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// A file that is deployed to. Locked against other deployments into its directory.
pub(super) struct Place {
    /// The file itself, symbolic links resolved.
    pub file: PathBuf,
    directory: File,
    candidate: PathBuf,
    backup: PathBuf,
    unconfirmed: PathBuf,
}

/// What `unconfirmed` says if the file was not there before.
const NOTHING: &str = "there was no file before";

// === impl Place ===

impl Place {
    /// Opens and locks the place of `path`, which need not exist.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = match fs::canonicalize(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().context("--to names no file")?;
                let parent = match path.parent() {
                    Some(parent) if parent != Path::new("") => parent,
                    _ => Path::new("."),
                };
                let parent = fs::canonicalize(parent)
                    .with_context(|| format!("the directory {}", parent.display()))?;
                parent.join(name)
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if fs::symlink_metadata(&file).is_ok_and(|meta| !meta.is_file()) {
            bail!("{} is not a regular file", file.display());
        }
        let parent = file.parent().context("--to names no file")?.to_owned();
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.context("the name of the file is not UTF-8")?;
        let directory =
            File::open(&parent).with_context(|| format!("opening {}", parent.display()))?;
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another deployment into {} is running; wait for its end", parent.display());
        }
        let beside = |what: &str| parent.join(format!(".{name}.portolan-{what}"));
        let (candidate, backup) = (beside("new"), beside("backup"));
        let unconfirmed = beside("unconfirmed");
        Ok(Self { file, directory, candidate, backup, unconfirmed })
    }

    /// Where the new version lies before it is swapped in.
    pub(super) fn candidate(&self) -> &Path {
        &self.candidate
    }

    /// Where the version before lies.
    pub(super) fn backup(&self) -> &Path {
        &self.backup
    }

    /// Whether an earlier deployment was neither confirmed nor rolled back.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.exists()
    }

    /// Writes the new version beside the file.
    pub(super) fn write_candidate(&self, text: &str) -> anyhow::Result<()> {
        self.write(&self.candidate, text)
    }

    /// Forgets the candidate.
    pub(super) fn discard(&self) -> anyhow::Result<()> {
        remove(&self.candidate)
    }

    /// Keeps the present version, unless that was never confirmed, and marks what follows as
    /// unconfirmed.
    pub(super) fn back_up(&self) -> anyhow::Result<()> {
        if self.is_unconfirmed() {
            return Ok(());
        }
        let mark = match fs::read_to_string(&self.file) {
            Ok(present) => {
                self.replace(&self.backup, &present)?;
                "the version before is the backup"
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => NOTHING,
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", self.file.display()));
            }
        };
        self.replace(&self.unconfirmed, mark)
    }

    /// Makes the candidate the file.
    pub(super) fn swap(&self) -> anyhow::Result<()> {
        fs::rename(&self.candidate, &self.file)
            .with_context(|| format!("renaming to {}", self.file.display()))?;
        self.sync()
    }

    /// The text of the backup.
    pub(super) fn backed_up(&self) -> anyhow::Result<Option<String>> {
        if fs::read_to_string(&self.unconfirmed).is_ok_and(|mark| mark == NOTHING) {
            return Ok(None);
        }
        let text = fs::read_to_string(&self.backup)
            .with_context(|| format!("no backup to return to at {}", self.backup.display()))?;
        Ok(Some(text))
    }

    /// Makes the backup the file again; removes the file if there was none.
    pub(super) fn restore(&self) -> anyhow::Result<()> {
        match self.backed_up()? {
            Some(text) => {
                self.write_candidate(&text)?;
                self.swap()
            }
            None => remove(&self.file),
        }
    }

    /// The file as it is now is the one to keep.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        remove(&self.unconfirmed)?;
        self.sync()
    }

    fn replace(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push("~");
        let beside = PathBuf::from(beside);
        self.write(&beside, text)?;
        fs::rename(&beside, path).with_context(|| format!("renaming to {}", path.display()))?;
        self.sync()
    }

    /// Writes and syncs a file that has the owner and the mode of the deployed one.
    fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let written = || -> io::Result<()> {
            // A new file, whatever lies there.
            let _ = fs::remove_file(path);
            let mut to = File::create_new(path)?;
            match fs::metadata(&self.file) {
                Ok(like) => {
                    let own = to.metadata()?;
                    if (like.uid(), like.gid()) != (own.uid(), own.gid()) {
                        std::os::unix::fs::fchown(&to, Some(like.uid()), Some(like.gid()))?;
                    }
                    to.set_permissions(like.permissions())?;
                }
                Err(_) => to.set_permissions(fs::Permissions::from_mode(0o644))?,
            }
            to.write_all(text.as_bytes())?;
            to.sync_all()
        };
        written().with_context(|| format!("writing {}", path.display()))
    }

    fn sync(&self) -> anyhow::Result<()> {
        self.directory.sync_all().context("syncing the directory")
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a deployment, in order.
    const STEPS: [fn(&Place) -> anyhow::Result<()>; 5] = [
        |place| place.write_candidate("new"),
        Place::back_up,
        Place::swap,
        Place::restore,
        Place::confirm,
    ];

    fn text(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn an_end_after_any_step_leaves_a_whole_file_and_the_way_back() {
        for last in 0..=STEPS.len() {
            for before in [Some("old"), None] {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let file = directory.path().join("api.conf");
                if let Some(before) = before {
                    fs::write(&file, before).expect("writing");
                }
                {
                    let place = Place::open(&file).expect("opened");
                    for step in &STEPS[..last] {
                        step(&place).expect("done");
                    }
                }
                let now = text(&file);
                let expected = if last == 3 { Some("new") } else { before };
                assert_eq!(now.as_deref(), expected, "after {last} steps, before {before:?}");
                // The next run: another version, which does not hold.
                let place = Place::open(&file).expect("unlocked by the end");
                assert_eq!(place.is_unconfirmed(), (2..5).contains(&last), "{last}");
                place.write_candidate("newer").expect("written");
                place.back_up().expect("kept");
                place.swap().expect("swapped");
                assert_eq!(text(&file).as_deref(), Some("newer"));
                place.restore().expect("restored");
                assert_eq!(text(&file).as_deref(), before, "after {last} steps and a rollback");
            }
        }
    }

    #[test]
    fn two_deployments_exclude_each_other_and_modes_stay() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("api.conf");
        fs::write(&file, "old").expect("writing");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("chmod");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let place = Place::open(&link).expect("opened");
        let why = Place::open(&file).err().expect("locked").to_string();
        assert!(why.contains("another deployment into"), "{why}");
        place.write_candidate("new").expect("written");
        place.swap().expect("swapped");
        assert_eq!(text(&link).as_deref(), Some("new"));
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}
