//! Better names from processes that still run: the whole command line, titles, parents.

use agent_common::owner::{ARGV_BYTES, OwnerRow, counts_arguments};

use super::{FULL_COMM, arguments, is_title, named, nameless, of_manifest, program, seen};
use crate::command_line::{self, Language};
use crate::program_name::basename;
use crate::{project, title};
use linux::procfs;
use model::service::{Service, Source};

/// How much of a command line is worth reading.
const MAX_COMMAND_LINE: u64 = 64 * 1024;

/// As [`name`], with the full command line of the process where that matters and while it runs.
/// Reads /proc, and may block on a program that maps its arguments from a file of its own.
pub(crate) fn full_name(row: &OwnerRow) -> Option<Service> {
    let (comm, argv) = seen(row);
    let now = is_worth_reading(row).then(|| living(row)).flatten();
    let Some(now) = now else { return named(comm, argv, &row.path) };
    let of_others = || application(&now).or_else(|| is_worker(&now.argv).then(|| parent(&now))?);
    let whole = whole_command_line(row, &now);
    let (argv, path) = match &whole {
        Some(whole) => (&**whole, &now.path),
        None => (argv, &row.path),
    };
    of_others()
        .or_else(|| of_manifest(row.tgid, comm, argv, path))
        .or_else(|| named(comm, argv, path))
}

/// Whether [`full_name`] may find a better name than [`name`]. The row may have too little: class
/// paths fill kilobytes and the main class follows them; owners of pre-existing sockets have no
/// arguments at all; a worker may be named by its parent, a server by a title that it set after it
/// had begun to listen, and a template's script by its project's manifest.
pub(crate) fn is_worth_reading(row: &OwnerRow) -> bool {
    let (comm, argv) = seen(row);
    let matters = counts_arguments(&row.key.comm) || comm.len() >= FULL_COMM;
    let is_server = || {
        let name = program(&String::from_utf8_lossy(comm), argv);
        name.is_some_and(|name| project::is_server(&name))
    };
    let is_short = argv.is_empty() || argv.len() == ARGV_BYTES;
    let is_nameless = || nameless(comm, argv, &row.path).is_some();
    matters && (is_short || is_worker(argv) || is_server() || is_nameless())
}

/// The row's process as it is now, while it runs: a recycled pid belongs to a process that started
/// after the row was taken.
fn living(row: &OwnerRow) -> Option<procfs::Process> {
    let process = procfs::Process::read(row.tgid).ok()?;
    let is_same = row.born_us == 0 || process.started_before(row.born_us)?;
    is_same.then_some(process)
}

/// The full command line of a row's process, unless it has changed since the row was taken.
fn whole_command_line(row: &OwnerRow, now: &procfs::Process) -> Option<Vec<u8>> {
    let (_, argv) = seen(row);
    let is_unchanged =
        now.comm == row.key.comm && now.app() == row.key.app && now.argv.starts_with(argv);
    is_unchanged.then(|| procfs::command_line(row.tgid, MAX_COMMAND_LINE).ok()).flatten()
}

/// The application in the title of a server.
fn application(process: &procfs::Process) -> Option<Service> {
    let title = arguments(&process.argv).into_iter().next()?;
    let name = title::application(&title).filter(|_| counts_arguments(&process.comm))?;
    let name = project::project(&name, &process.path).unwrap_or(name);
    Some(Service::new(name.as_str(), Source::Process))
}

/// Whether the arguments are those of a worker that does not know its application: of
/// `multiprocessing`, as `uvicorn --workers` starts them, or of celery's pool.
fn is_worker(argv: &[u8]) -> bool {
    let arguments = arguments(argv);
    arguments.first().is_some_and(|title| title::is_worker(title))
        || command_line::is_worker(&arguments)
}

/// The name of the parent, if that is the program that a worker belongs to.
fn parent(worker: &procfs::Process) -> Option<Service> {
    let parent = procfs::Process::read(worker.parent).ok()?;
    let comm = parent.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let first = arguments(&parent.argv).into_iter().next().unwrap_or_default();
    let is_python = Language::of(basename(&first)) == Some(Language::Python);
    let is_program = is_python || is_title(&first, &[]) && counts_arguments(&parent.comm);
    let is_known = is_program && !is_worker(&parent.argv);
    is_known.then(|| named(comm, &parent.argv, &parent.path)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;

    #[test]
    fn a_long_command_line_is_read_whole_while_the_process_lives() {
        use std::process::{Command, Stdio};
        let class_path = format!("-Dx={}", "y".repeat(ARGV_BYTES));
        // A shell that waits for its input, with more arguments than a row holds.
        let mut child = Command::new("sh")
            .args(["-e", "-c", "read line; : #"])
            .arg(&class_path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let process = loop {
            // Until the exec has happened the child still is a copy of this process.
            match procfs::Process::read(child.id()) {
                Ok(process) if process.argv.starts_with(b"sh\0") => break process,
                _ => std::thread::yield_now(),
            }
        };
        let mut row = OwnerRow::zeroed();
        row.tgid = child.id();
        row.key.comm = process.comm;
        row.key.app = process.app();
        let seeded = whole_command_line(&row, &process);
        row.argv_len = ARGV_BYTES as u32;
        row.argv = procfs::argv_region(&process.argv);
        let cut = whole_command_line(&row, &process);
        row.key.app ^= 1;
        let changed = whole_command_line(&row, &process);
        row.born_us = u64::MAX;
        let same = living(&row);
        row.born_us = 1;
        let recycled = living(&row);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.argv.len(), ARGV_BYTES);
        let expected = format!("sh\0-e\0-c\0read line; : #\0{class_path}\0");
        assert_eq!(seeded.as_deref(), Some(expected.as_bytes()));
        assert_eq!(cut, seeded);
        assert_eq!(changed, None);
        assert_eq!((same.map(|same| same.argv), recycled), (Some(process.argv), None));
    }
}
