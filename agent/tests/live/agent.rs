//! The program under test: the binary that users get, on a free port of the loopback.
//!
//! [`Agent::start`] returns when it is ready, [`Agent::with`] starts it with settings
//! (`("limits.edges", "64")`, keys as in the configuration file). Every [`Agent::scrape`] triggers
//! a collection, so [`Agent::eventually`] needs no fixed pauses: it scrapes until the value is the
//! expected one, and fails with the last value after a timeout. [`Agent::stop`] stops it and
//! requires exit code 0; dropping kills it.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::facts::patience;
use crate::scrape::Scrape;

/// The variable of the setting `seccomp`.
const SECCOMP: &str = "PORTOLAN_SECCOMP";
/// The variable of the setting `disable_hooks`.
pub const DISABLE_HOOKS: &str = "PORTOLAN_DISABLE_HOOKS";

/// Timeout of [`Agent::eventually`].
const PATIENCE: Duration = Duration::from_secs(5);
/// Timeout of a start, a stop or a response.
const SLOWEST: Duration = Duration::from_secs(15);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// A running agent.
pub struct Agent {
    /// Where it serves.
    pub address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

/// How to start one.
#[derive(Clone, Debug, Default)]
pub struct Start<'a> {
    /// Settings, by their keys in the configuration file.
    pub settings: Vec<(&'a str, &'a str)>,
    /// The process whose mount namespace it shares.
    pub mounts_of: Option<u32>,
    /// The only capabilities it gets, by names such as `sys_ptrace`.
    pub granted: Option<&'a [String]>,
    /// The user it runs as.
    pub user: Option<u32>,
    /// Its limit of descriptors.
    pub descriptors: Option<u64>,
    /// The `cgroup.procs` of the cgroup that it starts in.
    pub cgroup: Option<PathBuf>,
    /// Return at once: the test waits by itself until it is ready.
    pub unasked: bool,
}

/// The end of an agent that was expected to refuse.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stderr.
    pub stderr: String,
}

/// The binary: `PORTOLAN_BIN`, else the release build, else the one cargo made for this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PORTOLAN_BIN") {
        return path.into();
    }
    let built = PathBuf::from(env!("CARGO_BIN_EXE_portolan"));
    let release = built.parent().and_then(|profile| profile.parent());
    match release.map(|target| target.join("release/portolan")) {
        Some(release) if release.exists() => release,
        _ => built,
    }
}

/// A port of the loopback that is free now.
pub fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on the loopback");
    probe.local_addr().expect("a listener has an address").port()
}

/// `portolan agent` with these settings, through the environment. It inherits only the seccomp mode
/// and the disabled hooks, so that every test can be run with them (`PORTOLAN_SECCOMP=log cargo xtask
/// test`, `PORTOLAN_DISABLE_HOOKS=unpreempted cargo xtask test`).
pub fn command(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    if let Some(mode) = std::env::var_os(SECCOMP) {
        command.env(SECCOMP, mode);
    }
    command.arg("agent");
    let disabled = std::env::var(DISABLE_HOOKS).ok();
    if let Some(disabled) = &disabled {
        command.env(DISABLE_HOOKS, disabled);
    }
    for (key, value) in settings {
        if let (&"disable_hooks", Some(disabled)) = (key, &disabled) {
            command.env(DISABLE_HOOKS, format!("{disabled},{value}"));
            continue;
        }
        command.env(format!("PORTOLAN_{}", key.replace('.', "_").to_uppercase()), value);
    }
    command
}

/// The agent warns about unknown variables, such as those meant for tests.
pub fn forget_our_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PORTOLAN_") {
            command.env_remove(name);
        }
    }
}

/// Runs an agent that is expected to end by itself.
pub fn run_to_end(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let Some(status) = wait(&mut child) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("it runs on, but should have refused: {command:?}");
    };
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("stderr is piped");
    pipe.read_to_string(&mut stderr).expect("what it says is UTF-8");
    Ended { status, stderr }
}

// === impl Agent ===

impl Agent {
    /// An agent with the defaults.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// An agent with these settings.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::launch(&Start { settings: settings.to_vec(), ..Start::default() })
    }

    /// An agent started in this way.
    pub fn launch(start: &Start<'_>) -> Self {
        Self::try_launch(start).unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Agent::launch`]; if it exits by itself, the error is its log.
    pub fn try_launch(start: &Start<'_>) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (listen, run) = (address.to_string(), directory.path().display().to_string());
        // The settings of the test come last and win.
        let state = directory.path().join("state").display().to_string();
        let mut all = vec![
            ("web.listen_address", listen.as_str()),
            ("run_directory", &run),
            ("state_directory", &state),
        ];
        // Names come from the programs alone, wherever the tests run.
        all.extend([
            ("names.conntrack", "false"),
            ("names.cri", "off"),
            ("names.dns", "false"),
            ("names.docker", "off"),
            ("names.kubernetes", "off"),
            ("names.podman", "off"),
            ("names.units", "false"),
        ]);
        all.extend(&start.settings);
        let log = File::create(directory.path().join("log")).map_err(|e| e.to_string())?;
        let mut command = command(&all);
        if let Some(pid) = start.mounts_of {
            command = inside_mounts_of(pid, &command);
        }
        if let Some(granted) = start.granted {
            command = with_capabilities(granted, start.user, directory.path(), &command);
        }
        confine(&mut command, start.descriptors, start.cgroup.as_deref());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("starting {command:?}: {error}"))?;
        let mut agent = Self { address, child, directory };
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = agent.child.try_wait() {
                return Err(format!("the agent ended at once, {status}:\n{}", agent.log()));
            }
            if start.unasked || agent.get("/-/ready").is_ok_and(|(code, _)| code == 200) {
                return Ok(agent);
            }
            if began.elapsed() > patience(SLOWEST) {
                return Err(format!("the agent is not ready:\n{}", agent.log()));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its run directory, unless it was given another.
    pub fn run_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// GET: status and body.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, patience(SLOWEST))?;
        stream.set_read_timeout(Some(patience(SLOWEST)))?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, answer.clone());
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
        assert!(!head.contains("chunked"), "HTTP/1.0 knows no chunks: {head}");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
        Ok((code, body.to_owned()))
    }

    /// Scrapes `/metrics`.
    pub fn scrape(&self) -> Scrape {
        match self.get("/metrics") {
            Ok((200, body)) => Scrape::parse(&body),
            other => panic!("no metrics: {other:?}\n{}", self.log()),
        }
    }

    /// A JSON response of the API.
    pub fn json(&self, path: &str) -> serde_json::Value {
        match self.get(path) {
            Ok((200, body)) => serde_json::from_str(&body).expect("the API answers in JSON"),
            other => panic!("no {path}: {other:?}\n{}", self.log()),
        }
    }

    /// Scrapes until `value` is `expected`; panics with the last value after the timeout. Returns
    /// the scrape that had it.
    #[track_caller]
    pub fn eventually<T: PartialEq + Debug>(
        &self,
        expected: T,
        value: impl Fn(&Scrape) -> T,
    ) -> Scrape {
        let began = Instant::now();
        loop {
            let scrape = self.scrape();
            let now = value(&scrape);
            if now == expected {
                return scrape;
            }
            assert!(
                began.elapsed() < patience(PATIENCE),
                "expected {expected:?}, and after {:?} it is still {now:?}\n\
                 lost: {:?}, skipped: {:?}, edges: {:#?}",
                patience(PATIENCE),
                scrape.losses(),
                scrape.misses(),
                scrape.who(),
            );
            thread::sleep(PAUSE);
        }
    }

    /// Waits until every class of the ledger adds up: seen = exported + lost.
    #[track_caller]
    pub fn ledger_adds_up(&self) -> Scrape {
        self.eventually(Vec::new(), Scrape::ledger_gaps)
    }

    /// Stops it (SIGTERM) and requires exit code 0.
    pub fn stop(mut self) {
        self.signal(libc::SIGTERM);
        let status = wait(&mut self.child);
        let Some(status) = status else { panic!("SIGTERM did not end it:\n{}", self.log()) };
        assert!(status.success(), "after SIGTERM it ended with {status}:\n{}", self.log());
    }

    /// Kills it (SIGKILL), as the OOM killer would.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        assert!(wait(&mut self.child).is_some(), "SIGKILL ends everything");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        // SAFETY: kill touches no memory; the child is ours and was not waited for, so the pid is
        // still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "sending signal {signal}: {}", io::Error::last_os_error());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of the agent ---\n{}---", self.log());
        }
    }
}

/// The same command, among the mounts of another process.
fn inside_mounts_of(pid: u32, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &pid.to_string(), "--mount", "--"]);
    wrapped(inside, command)
}

/// The same command with these capabilities and no others, as a container runtime gives them.
fn with_capabilities(
    granted: &[String],
    user: Option<u32>,
    directory: &Path,
    command: &Command,
) -> Command {
    let list = |prefix: &str| {
        let names: Vec<String> = granted.iter().map(|name| format!("{prefix}{name}")).collect();
        format!("-all,{}", names.join(","))
    };
    let mut with = Command::new("setpriv");
    if let Some(user) = user {
        let id = Some(user);
        std::os::unix::fs::chown(directory, id, id).expect("giving a directory of ours away");
        with.args([format!("--reuid={user}"), format!("--regid={user}")]).arg("--clear-groups");
        with.args(["--inh-caps", &list("+"), "--ambient-caps", &list("+")]);
    } else {
        // Root has what the bounding set allows.
        with.args(["--inh-caps", "-all", "--bounding-set", &list("+")]);
    }
    wrapped(with, command)
}

/// `outer` with the arguments that make it run `command`.
fn wrapped(mut outer: Command, command: &Command) -> Command {
    outer.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    outer
}

/// The same command with a limit on its descriptors, in a cgroup.
fn confine(command: &mut Command, descriptors: Option<u64>, cgroup: Option<&Path>) {
    let cgroup = cgroup.map(Path::to_path_buf);
    let enter = move || {
        if let Some(group) = &cgroup {
            fs::write(group, "0")?;
        }
        if let Some(most) = descriptors {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: a valid rlimit.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; the path was built before, and
    // fs::write of a short path keeps it on the stack.
    unsafe { command.pre_exec(enter) };
}

/// Waits for the end, within reason.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < patience(SLOWEST) {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(PAUSE);
    }
    None
}
