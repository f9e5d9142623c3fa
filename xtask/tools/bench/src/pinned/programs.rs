//! The kernel half taken over from an agent: its programs with their maps, which can be attached
//! and detached within milliseconds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::bpf;
use crate::empty::Empty;

/// BPF_PROG_TYPE_TRACING.
const TRACING: u32 = 26;

/// Programs and where they belong.
pub struct Programs(Vec<Program>);

/// The attached programs, until it is dropped.
pub enum Attached {
    Nothing,
    Empty(Empty),
    Links(#[expect(dead_code, reason = "kept, for dropping it detaches")] Vec<OwnedFd>),
}

struct Program {
    descriptor: OwnedFd,
    target: Target,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// The target of a tracing program.
    Loaded,
    /// A tracepoint by its name.
    Tracepoint(String),
    /// A cgroup by its id, and the attach type.
    Cgroup { id: u64, attach_type: u32 },
}

impl Programs {
    /// The programs that a running agent has attached, in the order in which it attached them.
    ///
    /// Iterators are left out: nothing but a read of theirs runs them.
    pub fn of(process: u32) -> Result<Self> {
        let folder = format!("/proc/{process}/fdinfo");
        let entries = fs::read_dir(&folder).context("listing the agent's descriptors")?;
        let mut links = BTreeMap::new();
        for entry in entries {
            // A descriptor may be closed between the two reads.
            let Ok(text) = fs::read_to_string(entry.context("listing descriptors")?.path()) else {
                continue;
            };
            if let Some((link, program, target)) = link(&text)? {
                links.insert(link, (program, target));
            }
        }
        if links.is_empty() {
            bail!("the agent has attached no program: read its log with `portolan agent`");
        }
        let programs = links.into_values().map(|(id, target)| {
            let descriptor = bpf::program(id).context("opening a program of the agent")?;
            let is_tracing = bpf::program_type(&descriptor).context("asking for its type")?;
            let target = if is_tracing == TRACING { Target::Loaded } else { target };
            Ok(Program { descriptor, target })
        });
        programs.collect::<Result<_>>().map(Self)
    }

    /// Attaches them all.
    pub fn attach(&self) -> Result<Attached> {
        let links = self.0.iter().map(|Program { descriptor, target }| match target {
            Target::Loaded => bpf::attach_tracing(descriptor).context("attaching a program"),
            Target::Tracepoint(name) => {
                bpf::attach(descriptor, name).with_context(|| format!("attaching to {name}"))
            }
            Target::Cgroup { id, attach_type } => {
                bpf::attach_cgroup(descriptor, &root_cgroup(*id)?, *attach_type)
                    .context("attaching a program to the root cgroup")
            }
        });
        links.collect::<Result<_>>().map(Attached::Links)
    }

    /// How often they have run while run-time statistics were on.
    pub fn runs(&self) -> Result<u64> {
        let runs = self.0.iter().map(|program| {
            Ok(bpf::runs(&program.descriptor).context("reading run-time statistics")?.count)
        });
        runs.sum()
    }
}

/// Link, program and target of a descriptor, from its fdinfo; `None` for a descriptor that is not a
/// link, or an iterator's link.
fn link(fdinfo: &str) -> Result<Option<(u32, u32, Target)>> {
    let field = |name: &str| {
        let pairs = || fdinfo.lines().filter_map(|line| line.split_once(':'));
        pairs().find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let number = |name: &str| -> Result<u64> {
        let value = field(name).and_then(|value| value.parse().ok());
        value.with_context(|| format!("the kernel does not show {name} of a link"))
    };
    let target = match field("link_type") {
        None | Some("iter") => return Ok(None),
        Some("tracing") => Target::Loaded,
        Some("raw_tracepoint") => {
            Target::Tracepoint(field("tp_name").unwrap_or_default().to_owned())
        }
        Some("cgroup") => {
            Target::Cgroup { id: number("cgroup_id")?, attach_type: number("attach_type")? as u32 }
        }
        Some(other) => bail!(
            "the agent has a link of type {other}, which this command cannot attach: leave out \
             the flag that brings it"
        ),
    };
    Ok(Some((number("link_id")? as u32, number("prog_id")? as u32, target)))
}

/// The root of the cgroup v2 hierarchy, which must be the cgroup of this number.
fn root_cgroup(id: u64) -> Result<OwnedFd> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(at))
    });
    let root = File::open(mount.context("cgroup v2 is not mounted")?).context("opening it")?;
    if root.metadata().context("looking at the root cgroup")?.ino() != id {
        bail!("the agent attached a program to cgroup {id}, which is not the mounted root");
    }
    Ok(root.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fdinfo: &str, (link, program, target): (u32, u32, Target)) {
        assert_eq!(super::link(fdinfo).unwrap(), Some((link, program, target)));
    }

    fn check_no_link(fdinfo: &str) {
        assert_eq!(link(fdinfo).unwrap(), None);
    }

    #[test]
    fn a_link_shows_its_program_and_where_it_is_attached() {
        let start = "pos:\t0\nflags:\t02000002\n";
        check_no_link(start);
        check_no_link(&format!("{start}prog_type:\t26\nprog_id:\t5\n"));
        check(
            "link_type:\traw_tracepoint\nlink_id:\t7\nprog_tag:\tab\nprog_id:\t5\n\
             tp_name:\tsk_data_ready\ncookie:\t0\n",
            (7, 5, Target::Tracepoint("sk_data_ready".to_owned())),
        );
        check(
            "link_type:\tcgroup\nlink_id:\t8\nprog_id:\t6\ncgroup_id:\t1\nattach_type:\t10\n",
            (8, 6, Target::Cgroup { id: 1, attach_type: 10 }),
        );
        check(
            "link_type:\ttracing\nlink_id:\t9\nprog_id:\t6\nattach_type:\t24\n",
            (9, 6, Target::Loaded),
        );
    }

    #[test]
    fn an_iterator_runs_only_when_it_is_read_and_is_left_out() {
        check_no_link("link_type:\titer\nlink_id:\t9\nprog_id:\t6\n");
    }

    #[test]
    fn a_link_that_cannot_be_attached_is_an_error_not_a_gap() {
        let error = link("link_type:\tperf\nlink_id:\t9\nprog_id:\t6\n").unwrap_err().to_string();
        assert!(error.contains("perf"), "{error}");
        assert!(link("link_type:\tcgroup\nlink_id:\t9\nprog_id:\t6\n").is_err());
    }
}
