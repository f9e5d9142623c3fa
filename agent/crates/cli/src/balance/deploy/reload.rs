//! How a balancer is made to read its configuration again, and whether it has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::super::intent::Balancer;
use super::process;

/// How long a master may take to start workers.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// A worker that has lived for so long has read its configuration.
const SETTLED: Duration = Duration::from_millis(200);

/// A way to reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// The signal that the program takes for it, to the process of this pid file.
    Signal(PathBuf),
    /// `systemctl reload UNIT`.
    Systemd(String),
    /// `caddy reload` at this address of the admin API.
    Admin(String),
    /// A command of the caller's.
    Command(String),
    /// The balancer watches its file.
    Watches,
}

/// How it is written.
const FORM: &str = "signal:PIDFILE, systemd:UNIT, admin:HOST:PORT (Caddy), command:COMMAND or none";

// === impl Reload ===

impl Reload {
    /// The usual way of a program; `None` if there is none.
    pub(super) fn usual(balancer: Balancer) -> Option<Self> {
        match balancer {
            Balancer::Nginx => Some(Self::Signal("/run/nginx.pid".into())),
            Balancer::Haproxy => Some(Self::Signal("/run/haproxy.pid".into())),
            Balancer::Caddy => Some(Self::Admin("127.0.0.1:2019".to_owned())),
            Balancer::Traefik => Some(Self::Watches),
            // A static bootstrap is read once.
            Balancer::Envoy => None,
        }
    }

    /// Whether this way exists, before anything is changed.
    pub(super) fn check(&self, balancer: Balancer) -> anyhow::Result<()> {
        match self {
            Self::Signal(file) => {
                let signal = signal(balancer)?;
                let pid = running(file)?;
                if signal == Signal::USR2 && !is_master(pid) {
                    bail!(
                        "HAProxy (pid {}) has no master process, so it cannot be reloaded by a signal; start it with -W, or use --reload command:COMMAND",
                        pid.as_raw_nonzero()
                    );
                }
                Ok(())
            }
            Self::Admin(_) if balancer != Balancer::Caddy => {
                bail!("--reload admin: is for Caddy; write {FORM}")
            }
            _ => Ok(()),
        }
    }

    /// Reloads; says what that did.
    pub(super) fn run(
        &self,
        balancer: Balancer,
        program: &Path,
        config: &Path,
    ) -> anyhow::Result<String> {
        let done = |ended: process::Ended, what: &str| {
            if ended.status.success() {
                Ok(what.to_owned())
            } else {
                Err(anyhow::anyhow!("{what} failed: {}", ended.complaint()))
            }
        };
        match self {
            Self::Signal(file) => by_signal(file, signal(balancer)?),
            Self::Systemd(unit) => {
                let ended =
                    process::run(Command::new("systemctl").args(["reload", "--"]).arg(unit))?;
                done(ended, &format!("systemctl reload {unit}"))
            }
            Self::Admin(address) => {
                let mut command = Command::new(program);
                command.args(["reload", "--adapter", "caddyfile", "--address"]).arg(address);
                done(process::run(command.arg("--config").arg(config))?, "caddy reload")
            }
            Self::Command(text) => {
                done(process::run(Command::new("sh").arg("-c").arg(text))?, text)
            }
            Self::Watches => Ok("the balancer watches the file".to_owned()),
        }
    }
}

impl FromStr for Reload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("write {FORM}");
        match text.split_once(':') {
            None if text == "none" => Ok(Self::Watches),
            Some((_, "")) | None => Err(wrong()),
            Some(("signal", file)) => Ok(Self::Signal(file.into())),
            Some(("systemd", unit)) => Ok(Self::Systemd(unit.to_owned())),
            Some(("admin", address)) => Ok(Self::Admin(address.to_owned())),
            Some(("command", command)) => Ok(Self::Command(command.to_owned())),
            Some(_) => Err(wrong()),
        }
    }
}

fn signal(balancer: Balancer) -> anyhow::Result<Signal> {
    match balancer {
        Balancer::Nginx => Ok(Signal::HUP),
        Balancer::Haproxy => Ok(Signal::USR2),
        other => bail!("{} is not reloaded by a signal; write {FORM}", other.title()),
    }
}

/// The process of a pid file, if it runs.
fn running(file: &Path) -> anyhow::Result<Pid> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| {
        format!("reading the pid file {name}; is the balancer running? --reload names another way")
    })?;
    let pid = text.lines().next().and_then(|line| Pid::from_raw(line.trim().parse().ok()?));
    let pid = pid.with_context(|| format!("{name} has no process id"))?;
    test_kill_process(pid)
        .with_context(|| format!("process {} of {name}", pid.as_raw_nonzero()))?;
    Ok(pid)
}

/// A signal to a master, and then new workers: without them it has kept the old configuration.
fn by_signal(file: &Path, signal: Signal) -> anyhow::Result<String> {
    let master = running(file)?;
    let before = children(master);
    kill_process(master, signal)
        .with_context(|| format!("sending a signal to process {}", master.as_raw_nonzero()))?;
    let began = Instant::now();
    let mut seen: Option<(BTreeSet<i32>, Instant)> = None;
    loop {
        let new: BTreeSet<i32> = children(master).difference(&before).copied().collect();
        match &seen {
            Some((known, since)) if !new.is_empty() && *known == new => {
                if since.elapsed() >= SETTLED {
                    let pids: Vec<String> = new.iter().map(i32::to_string).collect();
                    return Ok(format!(
                        "signal to process {}, new workers {}",
                        master.as_raw_nonzero(),
                        pids.join(" ")
                    ));
                }
            }
            _ => seen = (!new.is_empty()).then(|| (new, Instant::now())),
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "process {} has started no new workers within {} s: it has kept its old configuration; its log says why (an address in use, for example)",
                master.as_raw_nonzero(),
                PATIENCE.as_secs()
            );
        }
        thread::sleep(PAUSE);
    }
}

/// The children of a process.
fn children(parent: Pid) -> BTreeSet<i32> {
    let parent = parent.as_raw_nonzero().get();
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state and parent.
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest);
        let mut words = rest.unwrap_or_default().split_whitespace();
        let is_alive = words.next().is_some_and(|state| state != "Z" && state != "X");
        is_alive && words.next().and_then(|parent| parent.parse().ok()) == Some(parent)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

/// Whether HAProxy was started with a master process.
fn is_master(pid: Pid) -> bool {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let arguments = fs::read(path).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|word| word.starts_with(b"-W"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_parsed_or_refused_with_all_of_them() {
        let check = |text: &str, expected| assert_eq!(text.parse(), Ok(expected));
        check("signal:/run/nginx.pid", Reload::Signal("/run/nginx.pid".into()));
        check("systemd:nginx", Reload::Systemd("nginx".to_owned()));
        check("admin:127.0.0.1:2019", Reload::Admin("127.0.0.1:2019".to_owned()));
        check("command:kill -HUP 1: x", Reload::Command("kill -HUP 1: x".to_owned()));
        check("none", Reload::Watches);
        for text in ["", "signal", "signal:", "nginx", "unit:x"] {
            assert_eq!(text.parse::<Reload>(), Err(format!("write {FORM}")), "{text}");
        }
    }

    #[test]
    fn a_process_that_is_not_a_balancer_is_not_signalled() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("pid");
        let reload = Reload::Signal(file.clone());
        let check = |balancer, expected: &str| {
            let why = format!("{:#}", reload.check(balancer).expect_err("refused"));
            assert!(why.contains(expected), "{why}");
        };
        check(Balancer::Nginx, "is the balancer running?");
        fs::write(&file, "x\n").expect("writing");
        check(Balancer::Nginx, "has no process id");
        fs::write(&file, format!("{}\n", std::process::id())).expect("writing");
        check(Balancer::Haproxy, "start it with -W");
        check(Balancer::Envoy, "Envoy is not reloaded by a signal");
        reload.check(Balancer::Nginx).expect("it runs");
    }
}
