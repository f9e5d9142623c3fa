//! The state file: replaced atomically, so that a crash leaves the old text or the new one; never
//! overwritten while it cannot be read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::file;
use loader::private;
use model::state::State;

/// The file in the state directory.
const NAME: &str = "state.json";
/// The new text while it is written; remains of a crash are discarded.
const NEW: &str = "state.json.new";
/// An unreadable file, kept for the operator to fix.
const BROKEN: &str = "state.json.broken";
/// Locked by the agent that may write.
const LOCK: &str = "lock";
/// Far more than the highest allowed number of entries takes.
const MOST_BYTES: u64 = 16 << 20;

/// The state directory.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    boot: String,
    /// Held while this agent may write.
    lock: Option<File>,
    /// Why nothing can be written, and how to fix it.
    closed: Option<String>,
}

/// A point between two steps of replacing the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Write,
    SyncFile,
    Rename,
    SyncDirectory,
    Done,
}

impl StateFile {
    /// Opens a state directory and reads its file. If it cannot be written the reason is in
    /// [`StateFile::closed`], and the agent runs nevertheless. Warnings are for the log.
    pub fn open(directory: &Path) -> (Self, State, Vec<String>) {
        let mut state_file =
            Self { directory: directory.to_owned(), boot: boot_id(), lock: None, closed: None };
        let mut warnings = Vec::new();
        // Nothing was saved yet: the directory is made by the first save.
        let missing =
            fs::metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let state = if missing {
            Ok(State::default())
        } else {
            state_file.prepare().and_then(|()| state_file.read(&mut warnings))
        };
        let state = state.unwrap_or_else(|closed| {
            warnings.push(closed.clone());
            state_file.closed = Some(closed);
            State::default()
        });
        (state_file, state, warnings)
    }

    /// Why nothing can be written.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// Makes `state` what the next start will find.
    pub fn save(&mut self, state: &State) -> Result<(), String> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        if self.lock.is_none() {
            self.prepare()?;
        }
        let text = file::write(state, &self.boot);
        self.replace(text.as_bytes(), |_| {}).map_err(|error| {
            format!(
                "cannot write {}: {error}; nothing was changed",
                self.directory.join(NAME).display()
            )
        })
    }

    /// Creates the directory and locks it against other agents.
    fn prepare(&mut self) -> Result<(), String> {
        let directory = self.directory.display().to_string();
        let refuse = |error: &dyn std::error::Error| {
            format!(
                "the state directory {directory} cannot be used: {error}; reservations and registered services are neither saved nor changed; make it writable for the agent, or set --state-directory"
            )
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.directory)
            .map_err(|error| refuse(&error))?;
        private::check(&self.directory).map_err(|exposed| refuse(&exposed))?;
        let lock = private::lock(&self.directory.join(LOCK)).map_err(|error| refuse(&error))?;
        let lock = lock.ok_or_else(|| format!(
            "another agent uses the state directory {directory}; this one neither saves nor changes reservations and registered services; set --state-directory to a directory of its own"
        ))?;
        self.lock = Some(lock);
        Ok(())
    }

    /// The content of the file; empty without a file.
    fn read(&self, warnings: &mut Vec<String>) -> Result<State, String> {
        let path = self.directory.join(NAME);
        let aside = self.directory.join(BROKEN);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // An earlier start has moved the file aside, and it is still there.
                return match read_text(&aside) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
                    _ => Err(moved_aside(&path, &aside, "it could not be read")),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.move_aside(&path, &aside, &error.to_string()));
            }
            Err(error) => {
                return Err(format!(
                    "cannot read {}: {error}; reservations and registered services are neither known nor changed; make it readable for the agent and restart it",
                    path.display()
                ));
            }
        };
        match file::read(&text, &self.boot) {
            Ok(file::Read { state, outdated }) => {
                if outdated > 0 {
                    warnings.push(format!(
                        "{outdated} reservations were for network namespaces that ended with the last boot; they are dropped"
                    ));
                }
                Ok(state)
            }
            Err(broken) => Err(self.move_aside(&path, &aside, &broken.to_string())),
        }
    }

    /// Moves a file that cannot be read out of the way, under a name that is not in use.
    fn move_aside(&self, path: &Path, aside: &Path, why: &str) -> String {
        if let Err(error) = fs::rename(aside, numbered(aside))
            && error.kind() != io::ErrorKind::NotFound
        {
            return format!("{}: {why}; and it cannot be moved aside: {error}", path.display());
        }
        match fs::rename(path, aside).and_then(|()| sync_directory(&self.directory)) {
            Ok(()) => moved_aside(path, aside, why),
            Err(error) => format!(
                "{}: {why}; and it cannot be moved aside: {error}; no change is saved while it exists",
                path.display()
            ),
        }
    }

    /// Writes beside, syncs, renames, syncs, so that the name always refers to a complete text.
    /// `before` is called before each step, so that tests can crash there.
    fn replace(&self, bytes: &[u8], mut before: impl FnMut(Step)) -> io::Result<()> {
        let new = self.directory.join(NEW);
        before(Step::Create);
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o640).open(&new)?;
        before(Step::Write);
        let written = file.write_all(bytes).and_then(|()| {
            before(Step::SyncFile);
            file.sync_all()
        });
        let renamed = written.and_then(|()| {
            before(Step::Rename);
            fs::rename(&new, self.directory.join(NAME))
        });
        if let Err(error) = renamed {
            // Mostly a full disk: free the space.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        before(Step::SyncDirectory);
        let synced = sync_directory(&self.directory);
        before(Step::Done);
        synced
    }
}

fn moved_aside(path: &Path, aside: &Path, why: &str) -> String {
    format!(
        "{}: {why}; it was moved to {}, and the agent has no reservations or registered services and refuses changes until you fix it and move it back, or delete it, and restart the agent",
        path.display(),
        aside.display()
    )
}

/// `state.json.broken.1`, or the next number that is free.
fn numbered(aside: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = aside.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    (1..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(u32::MAX))
}

fn read_text(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let file = File::open(path)?;
    if file.metadata()?.len() > MOST_BYTES {
        let text = format!("it is larger than {MOST_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// A rename is on disk once its directory is synced.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A name for the time since the last boot.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;
    use model::registry::{Lease, Registration};
    use model::reservations::{Origin, Reservation};

    fn state(reservations: &[&str], services: &[(&str, &str)]) -> State {
        let mut state = State::default();
        for text in reservations {
            let one = Reservation::from_config(text).expect("valid");
            let one = Reservation { origin: Origin::State, ..one };
            state.reservations.reserve(one, 0).expect("no contradiction");
        }
        for (name, address) in services {
            let service = name.parse().expect("a name");
            let endpoints = vec![address.parse().expect("an endpoint")];
            state
                .registry
                .register(Registration::new(service, endpoints), 0)
                .expect("no contradiction");
        }
        state
    }

    fn open(directory: &Path) -> (StateFile, State) {
        let (state_file, state, warnings) = StateFile::open(directory);
        assert_eq!((state_file.closed(), warnings), (None, Vec::new()));
        (state_file, state)
    }

    fn old_and_new() -> (State, State) {
        let old = state(&["5432 postgres enforce"], &[]);
        let mut new = state(
            &["5432 postgres", "8125/udp shop/statsd env=prod until=2036-12-01"],
            &[("billing", "10.1.2.3:443")],
        );
        let endpoints =
            ["10.1.2.4:80", "[fd00::4]:80"].map(|one| one.parse().expect("an endpoint"));
        let checked = Registration {
            check: Some("http=/healthz".parse().expect("a check")),
            lease: Some(Lease::new(90, &endpoints, 1_900_000_000)),
            ..Registration::new("shop/api".parse().expect("a name"), endpoints.to_vec())
        };
        new.registry.register(checked, 0).expect("no contradiction");
        new.registry.renew(&"shop/api".parse().expect("a name"), &endpoints[1], 1_900_000_060);
        (old, new)
    }

    #[test]
    fn what_was_saved_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, new) = old_and_new();
        let (mut state_file, before) = open(&directory.path().join("deep/er"));
        assert_eq!(before, State::default());
        state_file.save(&new).expect("saved");
        drop(state_file);
        assert_eq!(open(&directory.path().join("deep/er")).1, new);
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_text_or_the_new_one() {
        let steps = [
            Step::Create,
            Step::Write,
            Step::SyncFile,
            Step::Rename,
            Step::SyncDirectory,
            Step::Done,
        ];
        let (old, new) = old_and_new();
        for crash in steps {
            let directory = tempfile::tempdir().expect("a directory");
            let (mut state_file, _) = open(directory.path());
            state_file.save(&old).expect("saved");
            let text = file::write(&new, &state_file.boot);
            let crashed = catch_unwind(AssertUnwindSafe(|| {
                state_file.replace(text.as_bytes(), |step| {
                    // Unwinding runs nothing of ours, as a crash would not.
                    assert!(step != crash, "the crash of this test");
                })
            }));
            assert!(crashed.is_err(), "{crash:?}");
            drop(state_file);
            let (mut state_file, found) = open(directory.path());
            let renamed = matches!(crash, Step::SyncDirectory | Step::Done);
            assert_eq!(found, if renamed { new.clone() } else { old.clone() }, "{crash:?}");
            state_file.save(&new).expect("the next one succeeds");
            drop(state_file);
            assert_eq!(open(directory.path()).1, new);
        }
    }

    #[test]
    fn a_crash_at_any_byte_leaves_the_old_text() {
        let (old, new) = old_and_new();
        let directory = tempfile::tempdir().expect("a directory");
        let (mut state_file, _) = open(directory.path());
        state_file.save(&old).expect("saved");
        let text = file::write(&new, &state_file.boot);
        drop(state_file);
        for bytes in 0..=text.len() {
            let cut = text.as_bytes().get(..bytes).expect("within");
            fs::write(directory.path().join(NEW), cut).expect("written");
            assert_eq!(open(directory.path()).1, old, "{bytes}");
        }
    }

    #[test]
    fn a_broken_file_is_kept_and_nothing_is_written_over_it() {
        let (old, new) = old_and_new();
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        open(directory.path()).0.save(&old).expect("saved");
        let whole = fs::read_to_string(at(NAME)).expect("there");
        let cut = whole.get(..whole.len() / 2).expect("within");
        fs::write(at(NAME), cut).expect("written");
        // Every start reports it until it is fixed.
        for _ in 0..3 {
            let (mut state_file, state, warnings) = StateFile::open(directory.path());
            assert_eq!(state, State::default());
            let why = state_file.closed().expect("closed").to_owned();
            assert_eq!(warnings, std::slice::from_ref(&why));
            assert!(why.contains("state.json.broken") && why.contains("fix it"), "{why}");
            assert_eq!(state_file.save(&new), Err(why));
            assert_eq!(fs::read_to_string(at(BROKEN)).expect("kept"), cut);
            assert!(!at(NAME).exists());
        }
        // Fixed and moved back.
        fs::rename(at(BROKEN), at(NAME)).expect("moved");
        fs::write(at(NAME), &whole).expect("fixed");
        assert_eq!(open(directory.path()).1, old);
        // Broken twice: the first one is not lost either.
        fs::write(at(BROKEN), "first").expect("written");
        fs::write(at(NAME), [0xff, 0xfe]).expect("written");
        assert!(StateFile::open(directory.path()).0.closed().is_some());
        assert_eq!(fs::read_to_string(at("state.json.broken.1")).expect("kept"), "first");
        assert_eq!(fs::read(at(BROKEN)).expect("kept"), [0xff, 0xfe]);
        // Deleted: begin anew.
        fs::remove_file(at(BROKEN)).expect("deleted");
        assert_eq!(open(directory.path()).1, State::default());
    }

    #[test]
    fn an_unusable_directory_and_a_second_agent_are_reported() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        let (mut state_file, _, warnings) = StateFile::open(&file.join("state"));
        assert!(warnings.iter().all(|why| why.contains("set --state-directory")));
        assert!(state_file.save(&State::default()).is_err());
        let (first, _) = open(directory.path());
        let (second, _, _) = StateFile::open(directory.path());
        assert!(second.closed().is_some_and(|why| why.starts_with("another agent uses")));
        drop(first);
        open(directory.path());
    }

    #[test]
    fn a_disk_that_refuses_leaves_everything_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, new) = old_and_new();
        let (mut state_file, _) = open(directory.path());
        state_file.save(&old).expect("saved");
        // A directory in the way of the new file: it cannot be opened for writing.
        fs::create_dir(directory.path().join(NEW)).expect("made");
        let refused = state_file.save(&new).expect_err("refused");
        assert!(refused.contains("nothing was changed"), "{refused}");
        drop(state_file);
        assert_eq!(open(directory.path()).1, old);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_lost(text in "\\PC{0,200}|[\\[\\]{}\":,a-z0-9 ]{0,200}") {
            let directory = tempfile::tempdir().expect("a directory");
            fs::write(directory.path().join(NAME), &text).expect("written");
            let (state_file, _, _) = StateFile::open(directory.path());
            let kept = directory.path().join(if state_file.closed().is_some() { BROKEN } else { NAME });
            prop_assert_eq!(fs::read_to_string(kept).expect("kept"), text);
        }
    }
}
