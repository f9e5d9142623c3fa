//! Programs: a name from the command name and the arguments, as an operator would say it.
//!
//! A server is named by its command name, without the additions of process titles, so that prefork
//! workers are one service. What an interpreter runs gives the name (`server.js`, not `node`); see
//! [`command_line`](super::command_line). Both come from the owner's row, so the name of a `curl`
//! that ran for a millisecond is still known after it has exited.
//!
//! Arguments, titles and command names contain passwords too. Every name goes through
//! [`ProgramName`], and is only looked for where a program, a script, a module or a class stands,
//! never in a value.

use agent_common::owner::{
    ARGV_BYTES, OwnerRow, PATH_BYTES, counts_arguments, is_interpreter, is_server,
};

use super::command_line::{self, Language};
use super::program_name::{ProgramName, basename};
use super::{manifest, project, title};
use linux::procfs;
use model::service::{Service, Source};

/// How much of a command line is worth reading.
const MAX_COMMAND_LINE: u64 = 64 * 1024;
/// A command name of this length may have been cut (TASK_COMM_LEN - 1).
const FULL_COMM: usize = 15;
/// The name of a program without any usable name.
const UNKNOWN: &str = "unknown";

/// The name of a program.
///
/// `comm` is the command name of the group leader, `argv` its arguments or the first 256 bytes of
/// them, separated by NUL. Without arguments (a kernel thread, or a process that had exited) only
/// the command name is used.
pub fn process_name(comm: &str, argv: &[u8]) -> String {
    process_name_in(comm, argv, &[0; PATH_BYTES])
}

/// As [`process_name`]; `path` is the last names of the path of its working directory, as in
/// [`OwnerRow`].
pub fn process_name_in(comm: &str, argv: &[u8], path: &[u8; PATH_BYTES]) -> String {
    found(comm, argv, path).map_or_else(|| UNKNOWN.to_owned(), ProgramName::into_string)
}

/// The name of a program from its command name alone.
pub fn command_name(comm: &str) -> String {
    process_name(comm, b"")
}

fn found(comm: &str, argv: &[u8], path: &[u8; PATH_BYTES]) -> Option<ProgramName> {
    let program = program(comm, argv)?;
    project::project(&program, path).or(Some(program))
}

fn program(comm: &str, argv: &[u8]) -> Option<ProgramName> {
    let arguments = arguments(argv);
    let found = arguments.split_first().and_then(|(program, rest)| match Language::of(comm) {
        Some(language) if is_interpreter(&padded(comm)) => interpreted(language, program, rest),
        None if is_server(&padded(comm)) => served(comm, program, rest),
        _ => native(comm, program, rest),
    });
    let alone = || match Language::of(comm) {
        Some(language) => ProgramName::of(language.name(comm)),
        None => ProgramName::of(comm).filter(|_| !comm.contains('/')),
    };
    found.or_else(alone).or_else(|| title::of_command(comm, comm.len() >= FULL_COMM))
}

/// Names an owner by its program, from the row alone; `None` if the row has no program, or it has
/// no valid name.
pub fn name(row: &OwnerRow) -> Option<Service> {
    let (comm, argv) = seen(row);
    named(comm, argv, &row.path)
}

/// As [`name`], with the full command line of the process where that matters and while it runs.
/// Reads /proc, and may block on a program that maps its arguments from a file of its own.
pub(super) fn full_name(row: &OwnerRow) -> Option<Service> {
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

/// The project of a template's program that its directories do not name: `/app/index.js`.
fn of_manifest(tgid: u32, comm: &[u8], argv: &[u8], path: &[u8; PATH_BYTES]) -> Option<Service> {
    let program = nameless(comm, argv, path)?;
    let name = manifest::project(tgid, &program)?;
    Some(Service::new(name.as_str(), Source::Process))
}

/// A template's program, or a server of applications, that has no name of its own.
fn nameless(comm: &[u8], argv: &[u8], path: &[u8; PATH_BYTES]) -> Option<ProgramName> {
    let program = program(&String::from_utf8_lossy(comm), argv)?;
    let is_template = || program.is_source() && project::is_template(program.as_str());
    let is_many = project::is_server(&program) || is_template();
    (is_many && project::project(&program, path).is_none()).then_some(program)
}

/// Whether [`full_name`] may find a better name than [`name`]. The row may have too little: class
/// paths fill kilobytes and the main class follows them; owners of pre-existing sockets have no
/// arguments at all; a worker may be named by its parent, a server by a title that it set after it
/// had begun to listen, and a template's script by its project's manifest.
pub(super) fn is_worth_reading(row: &OwnerRow) -> bool {
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

/// The command name and the arguments.
fn seen(row: &OwnerRow) -> (&[u8], &[u8]) {
    let comm = row.key.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    (comm, row.argv.get(..row.argv_len as usize).unwrap_or(&row.argv))
}

fn named(comm: &[u8], argv: &[u8], path: &[u8; PATH_BYTES]) -> Option<Service> {
    if comm.is_empty() && argv.iter().all(|byte| *byte == 0) {
        return None;
    }
    let name = found(&String::from_utf8_lossy(comm), argv, path)?;
    Some(Service::new(name.as_str(), Source::Process))
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

/// What an interpreter runs; if that is unknown (code on the command line, an interactive shell),
/// the interpreter. `language` is that of the command name.
fn interpreted(language: Language, program: &str, rest: &[String]) -> Option<ProgramName> {
    if is_title(program, rest) {
        return title::of_interpreter(program);
    }
    let base = basename(program).trim_start_matches('-');
    let Some(own) = Language::of(base) else {
        // `exec -a`, or a title of one word and the rest of the arguments.
        let script = command_line::program(language, rest).filter(ProgramName::is_source);
        // What is left of the arguments may begin within a value.
        let script = script.map(ProgramName::without_folder);
        return script.or_else(|| title::of_interpreter(program));
    };
    command_line::program(own, rest).or_else(|| ProgramName::of(own.name(base)))
}

/// What a server of applications serves, if that is known: from its arguments or its title.
fn served(comm: &str, program: &str, rest: &[String]) -> Option<ProgramName> {
    if is_title(program, rest) {
        return title::of_interpreter(program);
    }
    match Language::of(basename(program)) {
        Some(language) => command_line::program(language, rest),
        None => native(comm, program, rest),
    }
}

/// Whether a program overwrote its arguments. The rest may be remains of those.
fn is_title(program: &str, rest: &[String]) -> bool {
    let is_path = !rest.is_empty() && Language::of(basename(program)).is_some();
    program.contains(char::is_whitespace) && !is_path
}

/// The name of a program whose command name is reliable.
fn native(comm: &str, program: &str, rest: &[String]) -> Option<ProgramName> {
    let is_title = is_title(program, rest);
    let whole = ProgramName::of(comm).filter(|_| !comm.contains('/'));
    if comm.len() >= FULL_COMM && whole.is_some() {
        // A script that the kernel started through its `#!` line has the script's command name.
        // Two of them in one cgroup are one owner, so a name from the arguments would be wrong
        // for one of them.
        let script = rest.first().filter(|_| Language::of(basename(program)).is_some());
        let own = if is_title { title::of_program(program) } else { ProgramName::of(program) };
        let script = || script.and_then(|path| ProgramName::of(path));
        let completes = |name: &ProgramName| name.as_str().starts_with(comm);
        return own.filter(completes).or_else(|| script().filter(completes)).or(whole);
    }
    if whole.is_some() {
        return whole;
    }
    // The command name is a title too, or its first bytes.
    if is_title {
        return title::of_program(program).filter(|_| comm.is_empty() || program.starts_with(comm));
    }
    // Joined arguments as the command name, and arguments that are not.
    match Language::of(basename(program)) {
        Some(language) => interpreted(language, program, rest),
        None => ProgramName::of(program).filter(|_| comm.is_empty() || program.starts_with(comm)),
    }
}

fn arguments(argv: &[u8]) -> Vec<String> {
    let cut = argv.len() >= ARGV_BYTES && argv.last().is_some_and(|byte| *byte != 0);
    let end = argv.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut arguments: Vec<String> = argv
        .get(..end)
        .filter(|bytes| !bytes.is_empty())
        .into_iter()
        .flat_map(|bytes| bytes.split(|byte| *byte == 0))
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    // Half a path or class name would be a wrong name.
    if cut && arguments.len() > 1 {
        arguments.pop();
    }
    arguments
}

fn padded(comm: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().take(FULL_COMM).zip(comm.bytes()).for_each(|(to, from)| *to = from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;
    use proptest::prelude::*;

    /// Arguments are separated by `|` here.
    fn check(comm: &str, argv: &str, expected: &str) {
        let argv = argv.replace('|', "\0") + "\0";
        assert_eq!(process_name(comm, argv.as_bytes()), expected, "{comm}: {argv:?}");
    }

    #[test]
    fn servers_are_called_by_their_command_name() {
        check("nginx", "nginx: worker process", "nginx");
        check("nginx", "nginx: master process /usr/sbin/nginx -g daemon off;", "nginx");
        check("postgres", "postgres: 15/main: walwriter ", "postgres");
        check("sshd", "sshd: alice@pts/0", "sshd");
        check("curl", "curl|-s|http://127.0.0.1:8080/", "curl");
        check("redis-server", "/usr/bin/redis-server 127.0.0.1:6379", "redis-server");
        check("gunicorn: maste", "gunicorn: master [shop:app]", "shop");
        check("kworker/0:1", "", "kworker");
        check("", "/usr/bin/odd|x", "odd");
        check("", "", "unknown");
    }

    #[test]
    fn a_cut_command_name_is_completed() {
        check("prometheus-node", "/bin/prometheus-node-exporter|--web", "prometheus-node-exporter");
        check("systemd-resolve", "/lib/systemd/systemd-resolved", "systemd-resolved");
        check("a-very-long-dae", "a-very-long-daemon: worker 3", "a-very-long-daemon");
        check("containerd-shim", "/usr/bin/other|x", "containerd-shim");
    }

    #[test]
    fn scripts_with_an_interpreter_line_keep_their_command_name() {
        check("gunicorn", "/usr/bin/python3|/usr/bin/gunicorn|shop:app", "shop");
        check("supervisord", "/usr/bin/python3|/usr/bin/supervisord|-n", "supervisord");
        check("my-long-script-", "/bin/sh|/opt/my-long-script-name|x", "my-long-script-name");
    }

    #[test]
    fn process_titles_of_interpreters_are_understood() {
        check("ruby", "puma 6.4.0 (tcp://0.0.0.0:3000) [shop]", "shop");
        check("ruby3.1", "sidekiq 7.1.2 shop [0 of 5 busy]", "sidekiq");
        check("php-fpm8.2", "php-fpm: pool www", "php-fpm");
        check("php-fpm8.2", "/usr/sbin/php-fpm8.2|--nodaemonize", "php-fpm");
        check("npm run start", "npm run start", "npm start");
        check("npm run start:d", "npm run start:dev", "npm start:dev");
        check("npm start", "npm start", "npm start");
        check("npm", "npm", "npm");
        check("bash", "-bash", "bash");
        check("MainThread", "my app", "node");
        check("my app", "my app", "my");
    }

    #[test]
    fn only_an_identifier_is_a_name() {
        check("bad\u{1b}[31m", "", "unknown");
        assert_eq!(process_name("python3", b"python3\0/x/\xff\n.py"), "python3");
        assert_eq!(process_name(&"x".repeat(15), "x".repeat(300).as_bytes()).len(), 64);
    }

    #[test]
    fn half_an_argument_names_nothing() {
        let mut argv = b"java\0-cp\0".to_vec();
        argv.resize(240, b'a');
        argv.extend(b"\0com.shop.MainClassCutHere");
        argv.truncate(ARGV_BYTES);
        assert_eq!(process_name("java", &argv), "java");
    }

    #[test]
    fn a_row_is_named_after_the_death_of_its_process() {
        let mut row = OwnerRow::zeroed();
        row.key.comm[..4].copy_from_slice(b"curl");
        row.tgid = u32::MAX;
        let expected = Some(Service::new("curl", Source::Process));
        assert_eq!(name(&row), expected);
        row.key.comm[..5].copy_from_slice(b"node\0");
        row.argv[..14].copy_from_slice(b"node\0server.js");
        row.argv_len = 15;
        let expected = Some(Service::new("server.js", Source::Process));
        assert_eq!(name(&row), expected);
        assert_eq!(name(&OwnerRow::zeroed()), None);
        let mut row = OwnerRow::zeroed();
        row.key.comm[..10].copy_from_slice(b"A=hunter2 ");
        assert_eq!(name(&row), None);
    }

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

    proptest! {
        #[test]
        fn any_process_gets_an_identifier(
            comm in prop::sample::select(vec!["", "node", "python3", "java", "ruby", "perl", "php",
                "sh", "deno", "bun", "dotnet", "beam.smp", "MainThread", "npm run start:d", "nginx",
                "/usr/bin/python", "[celeryd: celer", "A=b"]),
            words in prop::collection::vec(
                "(-{0,2}[a-zA-Z]{0,6}(=x)?|/[a-z./]{0,9}|(run|exec|task|-m|-c|-jar|--)|\\PC{0,4})", 0..8),
            noise in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            for argv in [words.join("\0").into_bytes(), words.join(" ").into_bytes(), noise] {
                let name = process_name(comm, &argv);
                prop_assert!(!name.is_empty() && name.chars().count() <= 64);
                let (tool, task) = name.split_once(' ').unwrap_or(("npm", &name));
                prop_assert!(["npm", "yarn", "pnpm", "node", "bun", "deno"].contains(&tool), "{name}");
                let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '@' | '+' | '-' | ':');
                prop_assert!(task.chars().all(fits), "{name}");
            }
        }
    }
}
