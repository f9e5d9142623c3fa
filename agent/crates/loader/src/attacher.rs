//! Attaches programs after startup: to one cgroup, or to one function of one executable.
//!
//! The programs are loaded with all others, because they share their maps, and wait here. A link
//! lasts as long as its handle. The capabilities that the agent has to keep for it are a row of
//! `privileges/features.rs`: CAP_NET_ADMIN for packets of a cgroup, CAP_SYS_ADMIN for functions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::bpf::{self, ProgramRuns};
use super::later::{Later, Target};
use super::object::Link;

/// The file with the type number of uprobes for perf_event_open(2).
const UPROBE_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// Programs that are loaded and can be attached any time.
#[derive(Default)]
pub struct Attacher {
    programs: BTreeMap<&'static str, (Target, Result<OwnedFd, String>)>,
}

/// Why a program was not attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not requested at startup.
    #[error("{0} was not loaded at the start")]
    Unknown(String),
    /// The kernel refused to load it.
    #[error("{program} was refused at the start: {why}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The kernel's error.
        why: String,
    },
    /// It attaches to another kind of target.
    #[error("{program} cannot be attached to {what}")]
    Target {
        /// The program.
        program: &'static str,
        /// The requested target.
        what: &'static str,
    },
    /// The system call failed.
    #[error("attaching {program} to {}: {source}", .target.display())]
    System {
        /// The program.
        program: &'static str,
        /// The cgroup's folder or the program file.
        target: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// An attached program. Dropping it detaches it.
#[derive(Debug)]
pub struct Attachment {
    _link: OwnedFd,
}

// === impl Attacher ===

impl Attacher {
    pub(super) fn insert(&mut self, later: &'static Later, loaded: Result<Link, String>) {
        let program = loaded.map(|link| link.program);
        self.programs.insert(later.program, (later.target, program));
    }

    /// Attaches a program to a cgroup, given by its folder, and those below it.
    pub fn attach_cgroup(&self, program: &str, folder: &Path) -> Result<Attachment, Error> {
        match File::open(folder) {
            Ok(file) => self.attach_opened(program, &file, folder),
            Err(source) => {
                let (program, ..) = self.loaded(program)?;
                Err(Error::System { program, target: folder.to_owned(), source })
            }
        }
    }

    /// As [`Self::attach_cgroup`], for a folder that is open; `path` names it in errors.
    pub fn attach_opened(
        &self,
        program: &str,
        folder: &File,
        path: &Path,
    ) -> Result<Attachment, Error> {
        let (name, target, fd) = self.loaded(program)?;
        let attach_type =
            target.cgroup_attach_type().ok_or(Error::Target { program: name, what: "a cgroup" })?;
        finish(name, path, bpf::attach_cgroup(fd.as_fd(), folder.as_fd(), attach_type))
    }

    /// Attaches a program to the instruction `offset` bytes into a program file or library, in
    /// every process that executes this file (this inode: a replaced file is another one).
    pub fn attach_function(
        &self,
        program: &str,
        file: &Path,
        offset: u64,
    ) -> Result<Attachment, Error> {
        let (name, target, fd) = self.loaded(program)?;
        if target != Target::Function {
            return Err(Error::Target { program: name, what: "a function" });
        }
        let attach = || bpf::attach_uprobe(fd.as_fd(), uprobe_type()?, file, offset);
        finish(name, file, attach())
    }

    /// Runs of a program, over all its links.
    pub fn runs(&self, program: &str) -> Result<ProgramRuns, Error> {
        let (name, _, fd) = self.loaded(program)?;
        let failed = |source| Error::System { program: name, target: PathBuf::new(), source };
        bpf::program_runs(fd.as_fd()).map_err(failed)
    }

    fn loaded(&self, program: &str) -> Result<(&'static str, Target, &OwnedFd), Error> {
        let (name, (target, loaded)) = self
            .programs
            .get_key_value(program)
            .ok_or_else(|| Error::Unknown(program.to_owned()))?;
        match loaded {
            Ok(fd) => Ok((name, *target, fd)),
            Err(why) => Err(Error::Refused { program: name, why: why.clone() }),
        }
    }
}

fn finish(
    program: &'static str,
    target: &Path,
    link: io::Result<OwnedFd>,
) -> Result<Attachment, Error> {
    match link {
        Ok(link) => Ok(Attachment { _link: link }),
        Err(source) => Err(Error::System { program, target: target.to_owned(), source }),
    }
}

/// The number of uprobes among the kinds of perf events.
fn uprobe_type() -> io::Result<u32> {
    let text = fs::read_to_string(UPROBE_TYPE)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
