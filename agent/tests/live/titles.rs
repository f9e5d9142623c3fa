//! Programs that write their whole command line into their title: over the arguments and the
//! command name, as setproctitle does, with a password in it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};

/// Short enough to fit into a command name behind a variable.
const SECRET: &str = "zq7secret";

/// The text that no page may contain: also what a truncated command name leaves of it.
const TRACES: [&str; 3] = [SECRET, "zq7", "q7secret"];

/// Writes a title over its arguments (`argv`), its command name (`comm`), both or neither; then
/// listens, is refused the same port a second time, and connects to itself.
const PROGRAM: &str = r#"
import ctypes, socket, sys
what, title, port = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
libc = ctypes.CDLL(None)
if "comm" in what:
    libc.prctl(15, title[:15], 0, 0, 0)
if "argv" in what:
    start, end = map(int, open("/proc/self/stat").read().rsplit(")", 1)[1].split()[45:47])
    assert len(title) < end - start
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, title, len(title))
listener = socket.socket()
listener.bind(("127.0.0.1", port))
listener.listen()
refused = False
try:
    socket.socket().bind(("127.0.0.1", port))
except OSError:
    refused = True
client = socket.create_connection(("127.0.0.1", port))
server = listener.accept()[0]
print("ready" if refused else "not refused", flush=True)
sys.stdin.read()
"#;

struct Program(Child);

impl Program {
    /// Starts `script` in a namespace; it has a password among its arguments.
    fn start(net: &Namespace, script: &Path, what: &str, title: &str, port: u16) -> Self {
        fs::write(script, PROGRAM).unwrap();
        let mut command: Command = net.command("python3");
        // A directory that names nothing.
        command.current_dir("/").arg(script).args([what, title, &port.to_string()]);
        command.args(["--env", &format!("DB_PASSWORD={SECRET}"), "-p", SECRET]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{what}: {title}");
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Programs that write something over their arguments, listen, and say so: interpreter, code, title.
const HIDING: [(&str, &str, &str); 3] = [
    (
        "ruby",
        "require 'socket'; $0 = ARGV[0]; s = TCPServer.new('127.0.0.1', ARGV[1]); \
         puts 'ready'; $stdout.flush; $stdin.read",
        "my worker 3",
    ),
    (
        "perl",
        "use IO::Socket::INET; $| = 1; $0 = $ARGV[0]; my $s = IO::Socket::INET->new( \
         LocalAddr => '127.0.0.1', LocalPort => $ARGV[1], Listen => 5) or die; \
         print \"ready\\n\"; <STDIN>;",
        "perl: order importer",
    ),
    (
        "python3",
        "import ctypes, socket, sys\n\
         title, port = sys.argv[1].encode(), int(sys.argv[2])\n\
         start, end = map(int, open('/proc/self/stat').read().rsplit(')', 1)[1].split()[45:47])\n\
         ctypes.memset(start, 0, end - start)\n\
         ctypes.memmove(start, title, len(title))\n\
         listener = socket.create_server(('127.0.0.1', port))\n\
         print('ready', flush=True)\n\
         sys.stdin.read()\n",
        "import orders, then stock",
    ),
];

#[test]
fn programs_that_their_titles_hide_are_called_by_the_projects_of_their_directories() {
    needs_kernel!();
    let net = Pair::new();
    let root = tempfile::tempdir().unwrap();
    let start = |interpreter: &str, code: &str, title: &str, project: &str, port: u16| {
        let directory = root.path().join("srv").join(project);
        fs::create_dir_all(&directory).unwrap();
        let script = root.path().join(format!("{interpreter}-code"));
        fs::write(&script, code).unwrap();
        let mut command: Command = net.server.command(interpreter);
        command.current_dir(&directory).arg(&script).args([title, &port.to_string()]);
        // Room for the title.
        command.args(["--some-room", "--for-the-title"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{interpreter} in {project}");
        Program(child)
    };
    let is_there = |interpreter: &str| {
        Command::new(interpreter).arg("-v").output().is_ok_and(|output| output.status.success())
    };
    let programs: Vec<_> = HIDING.into_iter().filter(|(name, ..)| is_there(name)).collect();
    if programs.len() < HIDING.len() {
        println!("SKIPPED: ruby, perl or python3 is not installed");
        return;
    }
    let mut running = Vec::new();
    let mut expected: Vec<(String, String)> = Vec::new();
    let mut port = 18_800;
    let mut start_all = |when: &str| {
        for (interpreter, code, title) in &programs {
            for project in ["orders", "stock"] {
                let project = format!("{project}-{interpreter}-{when}");
                running.push(start(interpreter, code, title, &project, port));
                expected.push((port.to_string(), project));
                port += 1;
            }
        }
    };
    start_all("before");
    let agent = Agent::start();
    start_all("after");
    agent.eventually(Vec::new(), |now| {
        let is_there = |(port, name): &&(String, String)| {
            now.has("portolan_port_listeners", &[("port", port), ("service", name)])
        };
        expected.iter().filter(|one| !is_there(one)).cloned().collect::<Vec<_>>()
    });
    agent.stop();
}

#[test]
fn no_value_of_an_argument_is_in_any_answer_or_in_the_log() {
    needs_kernel!();
    if !Command::new("python3").arg("-V").output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: python3 is not installed");
        return;
    }
    let net = Pair::new();
    let scripts = tempfile::tempdir().unwrap();
    let joined = |script: &str| {
        format!("/usr/bin/python3 {}/{script} --env DB_PASSWORD={SECRET}", scripts.path().display())
    };
    // Script, what it overwrites, title, and the expected name.
    let cases = [
        ("gu-plain", "nothing", "x".to_owned(), "gu-plain"),
        ("gu-both", "argv+comm", joined("gu-both"), "gu-both"),
        ("gu-argv", "argv", joined("gu-argv"), "gu-argv"),
        // Two with the same command name that is not an interpreter's would be one owner.
        ("gu-comm", "comm", joined("gu-comm").replace("/usr/bin/", ""), "gu-comm"),
        ("gu-env", "argv+comm", format!("PW={SECRET} gu"), "unknown"),
        ("gu-first", "argv", format!("{SECRET} value"), "python3"),
        ("gu-word", "argv", SECRET.to_owned(), "python3"),
        ("gu-url", "argv+comm", format!("a:{SECRET}@db gu"), "unknown"),
        ("gu-title", "argv+comm", format!("gu-title: worker --password {SECRET}"), "gu-title"),
        ("gu-code", "argv+comm", format!("python3 -c {SECRET}"), "python3"),
    ];
    // Some are pre-existing, the others start while the agent runs.
    let start = |from: usize, to: usize| -> Vec<Program> {
        let cases = cases.iter().enumerate().take(to).skip(from);
        cases
            .map(|(at, (script, what, title, _))| {
                let path = scripts.path().join(script);
                Program::start(&net.server, &path, what, title, 18_700 + at as u16)
            })
            .collect()
    };
    let _before = start(0, 5);
    let agent = Agent::start();
    let _after = start(5, cases.len());
    let _again: Vec<Program> = cases
        .iter()
        .enumerate()
        .take(5)
        .map(|(at, (script, what, title, _))| {
            let path = scripts.path().join(script);
            Program::start(&net.server, &path, what, title, 18_750 + at as u16)
        })
        .collect();
    let mut expected: Vec<(String, String)> = Vec::new();
    for (at, (.., name)) in cases.iter().enumerate() {
        expected.push(((18_700 + at).to_string(), (*name).to_owned()));
    }
    for (at, (.., name)) in cases.iter().enumerate().take(5) {
        expected.push(((18_750 + at).to_string(), (*name).to_owned()));
    }
    let missing = |now: &crate::scrape::Scrape| -> Vec<(String, String)> {
        let is_there = |(port, name): &&(String, String)| {
            now.has("portolan_port_listeners", &[("port", port), ("service", name)])
        };
        expected.iter().filter(|one| !is_there(one)).cloned().collect()
    };
    agent.eventually(Vec::new(), missing);
    agent.eventually(true, |_| {
        let conflicts = agent.json("/api/v1/conflicts").to_string();
        (5..cases.len()).all(|at| conflicts.contains(&(18_700 + at).to_string()))
    });
    let answers = ["/metrics", "/api/v1/services", "/api/v1/edges", "/api/v1/ports"];
    let others = [
        "/api/v1/listeners",
        "/api/v1/conflicts",
        "/api/v1/map",
        "/api/v1/status",
        "/api/v1/balance",
    ];
    let mut pages: Vec<(&str, String)> = Vec::new();
    for path in answers.into_iter().chain(others) {
        let (status, body) = agent.get(path).unwrap();
        assert!(status == 200 || others.contains(&path), "{path}: {status}");
        pages.push((path, body));
    }
    pages.push(("the log", agent.log()));
    for (page, text) in &pages {
        let leak = text.lines().find(|line| TRACES.iter().any(|trace| line.contains(trace)));
        assert_eq!(leak, None, "{page}");
    }
    agent.stop();
}
