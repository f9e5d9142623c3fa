//! The state file: replaced whole and at once, so that a crash at any moment leaves the old
//! text or the new one; never overwritten if it cannot be read.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::file;
use model::book::Book;

/// The file in the state directory.
const NAME: &str = "state.json";
/// What is being written; whatever an earlier crash left there is of no value.
const NEW: &str = "state.json.new";
/// A file that could not be read, kept for whoever mends it.
const ASIDE: &str = "state.json.broken";
/// Held by the agent that may write.
const LOCK: &str = "lock";
/// Far more than as many entries as there may be take up.
const MOST_BYTES: u64 = 16 << 20;

/// The state directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    boot: String,
    /// Held as long as we may write.
    lock: Option<File>,
    /// Why nothing can be written, with the mend.
    closed: Option<String>,
}

/// A moment between two steps of replacing the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Write,
    SyncFile,
    Rename,
    SyncDirectory,
    Done,
}

impl Store {
    /// Opens a state directory and reads its file. What keeps it from being written is said in
    /// [`Store::closed`], and is no reason for the agent not to run. Warnings are for the log.
    pub fn open(directory: &Path) -> (Self, Book, Vec<String>) {
        let mut store =
            Self { directory: directory.to_owned(), boot: boot_id(), lock: None, closed: None };
        let mut warnings = Vec::new();
        // Nothing was ever written down: then nothing is made, either, before something is.
        let missing =
            fs::metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let book = if missing {
            Ok(Book::default())
        } else {
            store.prepare().and_then(|()| store.read(&mut warnings))
        };
        let book = book.unwrap_or_else(|closed| {
            warnings.push(closed.clone());
            store.closed = Some(closed);
            Book::default()
        });
        (store, book, warnings)
    }

    /// Why nothing can be written.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// Makes `book` what the next start will find.
    pub fn save(&mut self, book: &Book) -> Result<(), String> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        if self.lock.is_none() {
            self.prepare()?;
        }
        let text = file::write(book, &self.boot);
        self.replace(text.as_bytes(), |_| {}).map_err(|error| {
            format!(
                "cannot write {}: {error}; nothing was changed",
                self.directory.join(NAME).display()
            )
        })
    }

    /// A directory of ours alone, that nobody else writes to.
    fn prepare(&mut self) -> Result<(), String> {
        let directory = self.directory.display().to_string();
        let refuse = |error: io::Error| {
            format!(
                "the state directory {directory} cannot be used: {error}; reservations and registered services are neither kept nor changed; make it writable for the agent, or choose another with --state-directory"
            )
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.directory)
            .map_err(refuse)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.directory.join(LOCK))
            .map_err(refuse)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => refuse(error),
            TryLockError::WouldBlock => format!(
                "another agent uses the state directory {directory}; this one keeps and changes no reservations and no registered services; give it a directory of its own with --state-directory"
            ),
        })?;
        self.lock = Some(lock);
        Ok(())
    }

    /// What the file says; without a file, nothing.
    fn read(&self, warnings: &mut Vec<String>) -> Result<Book, String> {
        let path = self.directory.join(NAME);
        let aside = self.directory.join(ASIDE);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Kept aside by an earlier start, and nobody has looked after it since.
                return match read_text(&aside) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
                    _ => Err(kept_aside(&path, &aside, "it could not be read")),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.keep_aside(&path, &aside, &error.to_string()));
            }
            Err(error) => {
                return Err(format!(
                    "cannot read {}: {error}; reservations and registered services are neither known nor changed; make it readable for the agent and start it again",
                    path.display()
                ));
            }
        };
        match file::read(&text, &self.boot) {
            Ok(file::Read { book, outdated }) => {
                if outdated > 0 {
                    warnings.push(format!(
                        "{outdated} reservations were for network namespaces that ended with the last boot; they are dropped"
                    ));
                }
                Ok(book)
            }
            Err(broken) => Err(self.keep_aside(&path, &aside, &broken.to_string())),
        }
    }

    /// Moves a file that cannot be read out of the way, under a name that is not in use.
    fn keep_aside(&self, path: &Path, aside: &Path, why: &str) -> String {
        if let Err(error) = fs::rename(aside, numbered(aside))
            && error.kind() != io::ErrorKind::NotFound
        {
            return format!("{}: {why}; and it cannot be moved aside: {error}", path.display());
        }
        match fs::rename(path, aside).and_then(|()| sync_directory(&self.directory)) {
            Ok(()) => kept_aside(path, aside, why),
            Err(error) => format!(
                "{}: {why}; and it cannot be moved aside: {error}; nothing is changed as long as it lies there",
                path.display()
            ),
        }
    }

    /// Writes beside, syncs, renames, syncs: at every moment the name leads to a whole text.
    /// `before` is told of each step, so that tests can crash there.
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
            // A full disk, mostly: do not make it fuller.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        before(Step::SyncDirectory);
        let synced = sync_directory(&self.directory);
        before(Step::Done);
        synced
    }
}

fn kept_aside(path: &Path, aside: &Path, why: &str) -> String {
    format!(
        "{}: {why}; it is kept as {}, and no reservation or registered service is known or changed until you mend it and move it back, or delete it, and start the agent again",
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

/// A rename is on disk only once its directory is.
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
    use model::registry::Registration;
    use model::reservations::{Origin, Reservation};

    fn book(reservations: &[&str], services: &[(&str, &str)]) -> Book {
        let mut book = Book::default();
        for text in reservations {
            let one = Reservation::from_config(text).expect("valid");
            let one = Reservation { origin: Origin::State, ..one };
            book.reservations.reserve(one, 0).expect("no contradiction");
        }
        for (name, address) in services {
            let service = name.parse().expect("a name");
            let endpoints = vec![address.parse().expect("a place")];
            book.registry.register(Registration { service, endpoints }).expect("no contradiction");
        }
        book
    }

    fn open(directory: &Path) -> (Store, Book) {
        let (store, book, warnings) = Store::open(directory);
        assert_eq!((store.closed(), warnings), (None, Vec::new()));
        (store, book)
    }

    fn old_and_new() -> (Book, Book) {
        let old = book(&["5432 postgres enforce"], &[]);
        let new = book(
            &["5432 postgres", "8125/udp shop/statsd env=prod until=2036-12-01"],
            &[("billing", "10.1.2.3:443")],
        );
        (old, new)
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, new) = old_and_new();
        let (mut store, before) = open(&directory.path().join("deep/er"));
        assert_eq!(before, Book::default());
        store.save(&new).expect("saved");
        drop(store);
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
            let (mut store, _) = open(directory.path());
            store.save(&old).expect("saved");
            let text = file::write(&new, &store.boot);
            let crashed = catch_unwind(AssertUnwindSafe(|| {
                store.replace(text.as_bytes(), |step| {
                    // Unwinding runs nothing of ours, as a crash would not.
                    assert!(step != crash, "the crash of this test");
                })
            }));
            assert!(crashed.is_err(), "{crash:?}");
            drop(store);
            let (mut store, found) = open(directory.path());
            let renamed = matches!(crash, Step::SyncDirectory | Step::Done);
            assert_eq!(found, if renamed { new.clone() } else { old.clone() }, "{crash:?}");
            store.save(&new).expect("the next one succeeds");
            drop(store);
            assert_eq!(open(directory.path()).1, new);
        }
    }

    #[test]
    fn a_crash_at_any_byte_leaves_the_old_text() {
        let (old, new) = old_and_new();
        let directory = tempfile::tempdir().expect("a directory");
        let (mut store, _) = open(directory.path());
        store.save(&old).expect("saved");
        let text = file::write(&new, &store.boot);
        drop(store);
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
        // However often it is started: until somebody has mended it, it says so.
        for _ in 0..3 {
            let (mut store, book, warnings) = Store::open(directory.path());
            assert_eq!(book, Book::default());
            let why = store.closed().expect("closed").to_owned();
            assert_eq!(warnings, std::slice::from_ref(&why));
            assert!(why.contains("state.json.broken") && why.contains("mend it"), "{why}");
            assert_eq!(store.save(&new), Err(why));
            assert_eq!(fs::read_to_string(at(ASIDE)).expect("kept"), cut);
            assert!(!at(NAME).exists());
        }
        // Mended and moved back.
        fs::rename(at(ASIDE), at(NAME)).expect("moved");
        fs::write(at(NAME), &whole).expect("mended");
        assert_eq!(open(directory.path()).1, old);
        // Broken twice: the first one is not lost either.
        fs::write(at(ASIDE), "first").expect("written");
        fs::write(at(NAME), [0xff, 0xfe]).expect("written");
        assert!(Store::open(directory.path()).0.closed().is_some());
        assert_eq!(fs::read_to_string(at("state.json.broken.1")).expect("kept"), "first");
        assert_eq!(fs::read(at(ASIDE)).expect("kept"), [0xff, 0xfe]);
        // Deleted: begin anew.
        fs::remove_file(at(ASIDE)).expect("deleted");
        assert_eq!(open(directory.path()).1, Book::default());
    }

    #[test]
    fn a_directory_that_cannot_be_used_and_a_second_agent_are_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        let (mut store, _, warnings) = Store::open(&file.join("state"));
        assert!(warnings.iter().all(|why| why.contains("choose another with --state-directory")));
        assert!(store.save(&Book::default()).is_err());
        let (first, _) = open(directory.path());
        let (second, _, _) = Store::open(directory.path());
        assert!(second.closed().is_some_and(|why| why.starts_with("another agent uses")));
        drop(first);
        open(directory.path());
    }

    #[test]
    fn a_disk_that_refuses_leaves_everything_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, new) = old_and_new();
        let (mut store, _) = open(directory.path());
        store.save(&old).expect("saved");
        // A directory in the way of the new file: it cannot be opened for writing.
        fs::create_dir(directory.path().join(NEW)).expect("made");
        let refused = store.save(&new).expect_err("refused");
        assert!(refused.contains("nothing was changed"), "{refused}");
        drop(store);
        assert_eq!(open(directory.path()).1, old);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_lost(text in "\\PC{0,200}|[\\[\\]{}\":,a-z0-9 ]{0,200}") {
            let directory = tempfile::tempdir().expect("a directory");
            fs::write(directory.path().join(NAME), &text).expect("written");
            let (store, _, _) = Store::open(directory.path());
            let kept = directory.path().join(if store.closed().is_some() { ASIDE } else { NAME });
            prop_assert_eq!(fs::read_to_string(kept).expect("kept"), text);
        }
    }
}
