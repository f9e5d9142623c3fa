//! The capabilities of the agent, and which of them it drops after startup.
//!
//! [`features`] is the table: feature → capability, for how long, why. [`Privileges::of`] evaluates
//! it for the configuration, the host and the capabilities of the process; [`check`] refuses to
//! start with too few; [`Privileges::give_up`] drops the others after startup, for all threads and
//! irrevocably: `no_new_privs` and the system call filter of [`seccomp`].

pub mod features;
pub mod host;
pub mod seccomp;

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use self::features::{FEATURES, Feature, Lost, Need, Span};
use self::host::Host;
use crate::config::{Config, Keep, Seccomp};
use linux::capability::{Capability, CapabilitySet};

/// How often the exit of joined threads is awaited, a millisecond each.
const EXIT_CHECKS: usize = 200;

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
#[error("missing {}; run as root, or grant them: AmbientCapabilities= in systemd, capabilities.add in Kubernetes, cap_add in compose (CAP_SYS_ADMIN stands in for them on old runtimes); `portolan agent --show-privileges` lists what each is for", names(.0))]
pub struct TooLittle(Vec<Capability>);

/// The table, for one configuration, host and process.
#[derive(Debug)]
pub struct Privileges {
    /// Needs of the enabled features, one entry each.
    pub uses: Vec<Use>,
    /// The capabilities of the process at startup.
    pub given: CapabilitySet,
    /// The capabilities kept after startup.
    pub kept: CapabilitySet,
}

/// One need of an enabled feature.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Use {
    /// The feature.
    pub feature: &'static str,
    /// The capability that it needs.
    pub capability: Capability,
    /// For how long.
    pub needed: Span,
    /// The granting capability of this process: the needed one, or one that includes it.
    pub given_by: Option<Capability>,
    /// The kernel check that requires it.
    pub why: &'static str,
    /// What is missing without it.
    pub lost_without: &'static str,
    /// Whether the agent refuses to start without it.
    pub required: bool,
}

/// Fails if a required capability is missing.
pub fn check(config: &Config) -> anyhow::Result<Privileges> {
    let given = CapabilitySet::permitted().context("reading this process's capabilities")?;
    let privileges = Privileges::of(config, &Host::read(), given);
    let mut missing: Vec<Capability> = privileges
        .uses
        .iter()
        .filter(|one| one.required && one.given_by.is_none())
        .map(|one| one.capability)
        .collect();
    missing.dedup();
    if missing.is_empty() { Ok(privileges) } else { Err(TooLittle(missing).into()) }
}

fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
}

// === impl Privileges ===

impl Privileges {
    /// Evaluates the table for a configuration, a host and the capabilities of a process.
    pub fn of(config: &Config, host: &Host, given: CapabilitySet) -> Self {
        let wanted = FEATURES.iter().filter(|feature| (feature.wanted)(config));
        let uses: Vec<Use> = wanted
            .flat_map(|feature| feature.needs.iter().map(move |need| (feature, need)))
            .filter(|(_, need)| (need.on)(host))
            .map(|(feature, need)| Use::of(feature, need, given))
            .collect();
        let lasting = uses.iter().filter(|one| one.needed == Span::Always);
        let kept = match config.privileges {
            Keep::All => given,
            Keep::Needed => lasting.filter_map(|one| one.given_by).collect(),
            // Without these the agent could not read its own tables.
            Keep::None => {
                lasting.filter(|one| one.required).filter_map(|one| one.given_by).collect()
            }
        };
        Self { uses, given, kept }
    }

    /// What is missing for want of a capability, or because it is dropped: what, why.
    pub fn losses(&self) -> Vec<(&'static str, String)> {
        let mut losses = Vec::new();
        for one in &self.uses {
            let name = one.capability;
            let why = match one.given_by {
                None => format!("{name} is missing"),
                Some(by) if one.needed == Span::Always && !self.kept.has(by) => {
                    format!("{name} is dropped after startup (privileges = \"none\")")
                }
                Some(_) => continue,
            };
            losses.push((one.lost_without, why));
        }
        losses
    }

    /// Runs `work` on a thread that drops the capabilities of [`Self::give_up`] before the calling
    /// thread does. Threads that it starts do not have them either, and may outlive it.
    pub fn without<T: Send>(
        &self,
        config: &Config,
        work: impl FnOnce() -> T + Send,
    ) -> anyhow::Result<T> {
        let reduced = || {
            self.reduce(config)?;
            Ok(work())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("reduced".to_owned());
            let thread = thread.spawn_scoped(scope, reduced).context("starting a thread")?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Drops the capabilities that are no longer needed. Threads that start later inherit the reduced
    /// set; a running thread would keep its own, so there must be no other with more.
    pub fn give_up(&self, config: &Config) -> anyhow::Result<()> {
        let list = || self.threads_with_more(config).context("listing the threads of this process");
        let mut others = list()?;
        // One that was joined is still listed until the kernel has reaped it.
        for _ in 0..EXIT_CHECKS {
            if others.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            others = list()?;
        }
        if !others.is_empty() {
            bail!(
                "privileges can only be dropped while no other thread has them, but there is also {}; start it later",
                others.join(", ")
            );
        }
        self.reduce(config)?;
        tracing::info!(
            "kept {} after startup; system calls: {}",
            if self.kept.bits() == 0 {
                "no capability".to_owned()
            } else {
                names(&self.kept.named())
            },
            config.seccomp.as_str(),
        );
        Ok(())
    }

    /// Drops it for the calling thread.
    fn reduce(&self, config: &Config) -> anyhow::Result<()> {
        if config.privileges != Keep::All {
            self.kept.leave_only().context("dropping capabilities")?;
        }
        no_new_privileges().context("setting no_new_privs (PR_SET_NO_NEW_PRIVS)")?;
        seccomp::install(config.seccomp, features::attaches_later(config))
    }

    /// Names of the other threads of this process, without those that have given up as much.
    fn threads_with_more(&self, config: &Config) -> io::Result<Vec<String>> {
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        let mut others = Vec::new();
        for entry in fs::read_dir("/proc/self/task")? {
            let entry = entry?;
            // One that cannot be read has ended.
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            if entry.file_name().to_str() != Some(&own) && !self.is_reduced(config, &status) {
                others.push(format!("`{}`", field(&status, "Name:").unwrap_or_default()));
            }
        }
        Ok(others)
    }

    /// Whether the thread with this /proc/self/task/TID/status has no more than we want to keep.
    fn is_reduced(&self, config: &Config, status: &str) -> bool {
        let permitted = field(status, "CapPrm:").and_then(CapabilitySet::from_hex);
        let has_more = permitted.is_none_or(|has| has.and(self.kept) != has);
        // 2: by a filter (man 5 proc). One that only logs may be refused by the kernel.
        let is_filtered = field(status, "Seccomp:") == Some("2");
        (config.privileges == Keep::All || !has_more)
            && field(status, "NoNewPrivs:") == Some("1")
            && (config.seccomp != Seccomp::Enforce || is_filtered)
    }
}

// === impl Use ===

impl Use {
    fn of(feature: &'static Feature, need: &'static Need, given: CapabilitySet) -> Self {
        let Need { capability, span, on: _, why, lost_without } = *need;
        let (required, lost_without) = match lost_without {
            Lost::Everything => (true, "everything: the agent does not start"),
            Lost::Only(what) => (false, what),
        };
        let given_by = given.giving(capability);
        Self {
            feature: feature.name,
            capability,
            needed: span,
            given_by,
            why,
            lost_without,
            required,
        }
    }
}

/// What follows `name` in a status file of /proc.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// After this no execve(2) can gain privileges (man 2 prctl).
fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Host = Host { kernel: (6, 18), bpf_restricted: true };
    const OLD: Host = Host { kernel: (5, 15), bpf_restricted: true };

    fn all() -> CapabilitySet {
        Capability::ALL.into_iter().collect()
    }

    #[track_caller]
    fn keeps(config: &Config, host: &Host, given: CapabilitySet, expected: &[Capability]) {
        assert_eq!(Privileges::of(config, host, given).kept.named(), expected, "{config:?}");
    }

    #[test]
    fn what_is_kept_is_what_enabled_features_need_on_this_kernel() {
        use Capability::{Bpf, DacReadSearch, NetAdmin, SysAdmin, SysPtrace};
        let mut config = Config::default();
        config.names.conntrack = true;
        keeps(&config, &NEW, all(), &[NetAdmin, SysPtrace, DacReadSearch, SysAdmin]);
        config.names.conntrack = false;
        keeps(&config, &NEW, all(), &[SysPtrace, DacReadSearch, SysAdmin]);
        keeps(&config, &OLD, all(), &[Bpf, SysPtrace, DacReadSearch, SysAdmin]);
        let open = Host { bpf_restricted: false, ..OLD };
        keeps(&config, &open, all(), &[SysPtrace, DacReadSearch, SysAdmin]);
        let outside = Config { enter_namespaces: false, ..config.clone() };
        keeps(&outside, &NEW, all(), &[SysPtrace, DacReadSearch]);
        let none = Config { privileges: Keep::None, ..config.clone() };
        keeps(&none, &NEW, all(), &[]);
        keeps(&none, &OLD, all(), &[Bpf]);
        let everything = Config { privileges: Keep::All, ..Config::default() };
        keeps(&everything, &NEW, all(), &Capability::ALL);
    }

    #[test]
    fn an_old_runtime_keeps_what_stands_in_only_where_it_must() {
        use Capability::{SysAdmin, SysPtrace};
        let given: CapabilitySet = [SysAdmin, SysPtrace].into_iter().collect();
        let mut outside = Config { enter_namespaces: false, ..Config::default() };
        outside.names.conntrack = false;
        keeps(&outside, &NEW, given, &[SysPtrace]);
        keeps(&outside, &OLD, given, &[SysPtrace, SysAdmin]);
    }

    #[test]
    fn missing_and_dropped_capabilities_are_reported() {
        let none = Config { privileges: Keep::None, ..Config::default() };
        let losses = Privileges::of(&none, &NEW, all()).losses();
        assert!(losses.iter().any(|(_, why)| why.contains("is dropped")), "{losses:?}");
        assert_eq!(Privileges::of(&Config::default(), &NEW, all()).losses(), []);
        let little: CapabilitySet = [Capability::Bpf, Capability::Perfmon].into_iter().collect();
        let losses = Privileges::of(&Config::default(), &NEW, little).losses();
        assert!(losses.iter().any(|(_, why)| why == "CAP_SYS_PTRACE is missing"), "{losses:?}");
    }

    #[test]
    fn work_without_privileges_leaves_threads_that_have_none_and_the_caller_its_own() {
        let given = CapabilitySet::permitted().unwrap();
        let privileges = Privileges { uses: Vec::new(), given, kept: CapabilitySet::from_iter([]) };
        let config = Config::default();
        let status = || fs::read_to_string("/proc/thread-self/status").unwrap();
        let (inside, left) = privileges
            .without(&config, || (status(), std::thread::spawn(status)))
            .expect("a thread that drops its privileges");
        for status in [inside, left.join().unwrap()] {
            assert_eq!(field(&status, "CapPrm:"), Some("0000000000000000"));
            assert!(privileges.is_reduced(&config, &status), "{status}");
        }
        assert_eq!(CapabilitySet::permitted().unwrap(), given);
        assert!(!privileges.is_reduced(&config, &status()), "it has not given up yet");
    }

    #[test]
    fn a_second_thread_is_refused_by_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let name = "early".to_owned();
        let (begin, begun) = std::sync::mpsc::channel();
        let wait = move || {
            begin.send(()).unwrap();
            let _ = stopped.recv();
        };
        let early = std::thread::Builder::new().name(name).spawn(wait).unwrap();
        begun.recv().unwrap();
        let error = Privileges::of(&Config::default(), &NEW, all())
            .give_up(&Config::default())
            .expect_err("there is another thread")
            .to_string();
        assert!(error.contains("`early`") && error.contains("start it later"), "{error}");
        drop(stop);
        early.join().unwrap();
    }
}
