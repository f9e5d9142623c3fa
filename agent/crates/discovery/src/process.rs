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

mod living;

use agent_common::owner::{ARGV_BYTES, OwnerRow, PATH_BYTES, is_interpreter, is_server};

pub(super) use self::living::{full_name, is_worth_reading};
use super::command_line::{self, Language};
use super::program_name::{ProgramName, basename};
use super::{manifest, project, title};
use model::service::{Service, Source};

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
    let program = program(comm, argv);
    if is_hidden(program.as_ref(), argv) {
        return project::of_directory(path).or(program);
    }
    let program = program?;
    project::project(&program, path).or(Some(program))
}

/// Whether a title hides what an interpreter runs: arguments that do not begin with an interpreter,
/// and no name in them but that of one (`my worker 3`, `perl: order importer`), or none at all.
fn is_hidden(program: Option<&ProgramName>, argv: &[u8]) -> bool {
    let arguments = arguments(argv);
    let first = arguments.first().and_then(|title| title.split_whitespace().next());
    // Code on the command line (`python3 -c`) and interactive shells are no application.
    let language = |name: &str| Language::of(basename(name.trim_start_matches('-')));
    let is_title = first.is_some_and(|first| language(first).is_none());
    is_title
        && program.is_none_or(|program| {
            let name = program.as_str();
            language(name).is_some_and(|one| one != Language::PhpFpm && one.name(name) == name)
        })
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

/// The project of a program that its directories do not name: `/app/index.js`.
fn of_manifest(tgid: u32, comm: &[u8], argv: &[u8], path: &[u8; PATH_BYTES]) -> Option<Service> {
    let folder = nameless(comm, argv, path)?;
    let name = manifest::project(tgid, &folder)?;
    Some(Service::new(name.as_str(), Source::Process))
}

/// The folder of a template's program, of a server of applications, or of a program that a title
/// hides, if that has no name of its own; relative to the working directory.
fn nameless(comm: &[u8], argv: &[u8], path: &[u8; PATH_BYTES]) -> Option<String> {
    let program = program(&String::from_utf8_lossy(comm), argv);
    if is_hidden(program.as_ref(), argv) {
        return project::of_directory(path).is_none().then(String::new);
    }
    let program = program?;
    // A server's own file is where it was installed.
    let folder = if project::is_server(&program) {
        ""
    } else if program.is_source() && project::is_template(program.as_str()) {
        program.folder()
    } else {
        return None;
    };
    project::project(&program, path).is_none().then(|| folder.to_owned())
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
    fn a_script_that_comes_from_a_descriptor_is_named_as_its_interpreter() {
        check("bash", "bash|/dev/fd/3", "bash");
        check("bash", "bash|/dev/fd/63|--port|80", "bash");
        check("sh", "sh|-c|/proc/self/fd/3 x", "sh");
        check("python3", "/usr/bin/python3|-u|/dev/fd/11", "python3");
        check("node", "node|/proc/17/fd/20", "node");
        check("bash", "bash /dev/fd/3", "bash");
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
    fn a_program_that_its_title_hides_is_called_by_the_project_of_its_directory() {
        let check = |comm: &str, argv: &str, cwd: &str, expected: &str| {
            let argv = argv.replace('|', "\0") + "\0";
            let found = process_name_in(comm, argv.as_bytes(), &crate::test_path(cwd));
            assert_eq!(found, expected, "{comm}: {argv:?} in {cwd}");
        };
        // A title over the arguments, over both, and one of a single word behind them.
        for (comm, argv, interpreter) in [
            ("ruby", "my worker 3", "ruby"),
            ("ruby3.1", "stock: idle", "ruby3.1"),
            ("perl: order imp", "perl: order importer", "perl"),
            ("perl", "import orders|--days|7", "perl"),
            ("python3", "hunter2 value", "python3"),
            ("python3", "hunter2", "python3"),
            ("node", "my app", "node"),
            ("PW=hunter2 gu", "PW=hunter2 gu", "unknown"),
        ] {
            for (cwd, project) in [
                ("/srv/orders", "orders"),
                ("/srv/stock/current", "stock"),
                ("/home/alice/mail/src", "mail"),
            ] {
                check(comm, argv, cwd, project);
            }
            for cwd in
                ["/", "/app", "/root", "/home/alice", "/tmp/x", "/var/lib", "/usr/share", "/etc"]
            {
                check(comm, argv, cwd, interpreter);
            }
        }
        // What has a name keeps it, and code that somebody runs there is not the application.
        check("ruby", "sidekiq 7.1.2 shop [0 of 5 busy]", "/", "sidekiq");
        check("python3", "/usr/bin/python3 /srv/x/sync.py --all", "/srv/orders", "sync.py");
        check("my worker", "my worker", "/srv/orders", "my");
        for argv in ["python3|-c|import x", "python3", "/usr/bin/python3 -c hunter2"] {
            check("python3", argv, "/srv/orders", "python3");
        }
        check("bash", "-bash", "/srv/orders", "bash");
        check("ruby", "", "/srv/orders", "ruby");
        check("php-fpm8.2", "php-fpm: pool www", "/srv/orders", "php-fpm");
        check("kworker/0:1", "", "/srv/orders", "kworker");
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
