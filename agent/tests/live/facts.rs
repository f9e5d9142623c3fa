//! The reference: the kernel's own counters of a namespace, and its BPF objects.
//!
//! [`Counters::of`] reads `/proc/net/snmp`, `snmp6` and `netstat` of a namespace; the difference of
//! two readings is what the agent must have counted in between. [`KernelObjects::now`] lists BPF
//! programs, maps and links of the whole host by id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use loader::bpf;
use loader::btf::Btf;
use loader::hooks::UNPREEMPTED;

use crate::namespace::{self, Namespace};

/// How long the kernel may take to free unreferenced objects.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why no test with the kernel can run here, if so.
pub fn cannot_run() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t0"));
    if !root {
        return Some("loading programs into the kernel needs root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel publishes no BTF".to_owned());
    }
    None
}

/// The timeout for something that takes `ordinary` at most: emulated machines are slower, and set
/// the factor in `PORTOLAN_TEST_SLOWNESS`.
pub fn patience(ordinary: Duration) -> Duration {
    let slowness = std::env::var("PORTOLAN_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok());
    ordinary * slowness.unwrap_or(1)
}

/// Whether this machine is emulated: its clock runs, but its figures are the emulator's.
pub fn is_emulated() -> bool {
    std::env::var_os("PORTOLAN_TEST_SLOWNESS").is_some()
}

/// Counters of one namespace by their `nstat` names (`TcpRetransSegs`, `TcpExtListenOverflows`).
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them now.
    pub fn of(namespace: &Namespace) -> Self {
        let read = |name: &str| {
            let path = format!("/proc/thread-self/net/{name}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {path}: {error}"))
        };
        let (snmp, netstat) = namespace.within(|| (read("snmp"), read("netstat")));
        Self::parse(&[snmp, netstat])
    }

    fn parse(texts: &[String]) -> Self {
        let mut counters = BTreeMap::new();
        for text in texts {
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.chunks_exact(2) {
                let (Some((group, names)), Some((_, values))) =
                    (pair[0].split_once(':'), pair[1].split_once(':'))
                else {
                    panic!("not a pair of lines: {pair:?}");
                };
                for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                    // TcpMaxConn is -1: not a counter.
                    if let Ok(value) = value.parse() {
                        counters.insert(format!("{group}{name}"), value);
                    }
                }
            }
        }
        Self(counters)
    }

    /// The value of a counter, which must exist.
    pub fn value(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("this kernel does not count {name}"))
    }

    /// How much it grew since `before`.
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        self.value(name) - before.value(name)
    }
}

/// Resets sent by all other namespaces that are mounted, by namespace.
pub fn resets_elsewhere(ours: &[&Namespace]) -> BTreeMap<String, u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let sent = |snmp: String| Counters::parse(&[snmp]).0.get("TcpOutRsts").copied();
    let mut resets = BTreeMap::new();
    resets.extend(sent(read("/proc/self/net/snmp")).map(|sent| (String::new(), sent)));
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ours.iter().any(|namespace| namespace.name == name) {
            continue;
        }
        // It may be removed meanwhile.
        let snmp = namespace::read_in(&name, "/proc/thread-self/net/snmp");
        resets.extend(snmp.and_then(sent).map(|sent| (name, sent)));
    }
    resets
}

/// The output of `ss -tin` in a namespace, with a filter such as `dport = :80`.
pub fn socket_statistics(namespace: &Namespace, filter: &str) -> String {
    let output = namespace.command("ss").args(["-tinH"]).args(filter.split(' ')).output();
    let output = output.expect("starting ss");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// BPF programs, maps and links of the host, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// Programs.
    pub programs: BTreeSet<u64>,
    /// Maps.
    pub maps: BTreeSet<u64>,
    /// Links.
    pub links: BTreeSet<u64>,
}

impl KernelObjects {
    /// Lists them.
    pub fn now() -> Self {
        Self { programs: ids("prog"), maps: ids("map"), links: ids("link") }
    }

    /// Those that a process holds.
    pub fn of(pid: u32) -> Self {
        let mut held = Self::default();
        // A process that has ended holds nothing.
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
        for entry in entries.into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let id = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|value| value.trim().parse::<u64>().ok())
            };
            // A link also has the id of its program.
            held.links.extend(id("link_id:"));
            held.programs.extend(id("prog_id:"));
            held.maps.extend(id("map_id:"));
        }
        held
    }

    /// Waits until none of them exists; the kernel frees them asynchronously.
    #[track_caller]
    pub fn are_gone(&self) {
        Self::awaited("still there", |now| Self {
            programs: self.programs.intersection(&now.programs).copied().collect(),
            maps: self.maps.intersection(&now.maps).copied().collect(),
            links: self.links.intersection(&now.links).copied().collect(),
        });
    }

    /// Waits until all new objects are gone, except those held by some process, which belong to
    /// other programs of this host.
    #[track_caller]
    pub fn nothing_new_stays(&self) {
        Self::awaited("left behind", |now| {
            let held = Self::held();
            let new = |now: &BTreeSet<u64>, before: &BTreeSet<u64>, held: &BTreeSet<u64>| {
                now.difference(before).filter(|id| !held.contains(id)).copied().collect()
            };
            let others = now.programs.iter().any(|id| !self.programs.contains(id));
            Self {
                programs: new(&now.programs, &self.programs, &held.programs),
                // Maps may be held by programs alone.
                maps: if others { BTreeSet::new() } else { new(&now.maps, &self.maps, &held.maps) },
                links: new(&now.links, &self.links, &held.links),
            }
        });
    }

    /// Those that any process holds.
    fn held() -> Self {
        let mut held = Self::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                let Self { programs, maps, links } = Self::of(pid);
                held.programs.extend(programs);
                held.maps.extend(maps);
                held.links.extend(links);
            }
        }
        held
    }

    #[track_caller]
    fn awaited(what: &str, rest: impl Fn(&Self) -> Self) {
        let began = Instant::now();
        loop {
            let rest = rest(&Self::now());
            if rest.programs.is_empty() && rest.maps.is_empty() && rest.links.is_empty() {
                return;
            }
            assert!(began.elapsed() < patience(PATIENCE), "{what}: {rest:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn ids(kind: &str) -> BTreeSet<u64> {
    let output = Command::new("bpftool").args(["--json", kind, "show"]).output();
    let output = output.expect("starting bpftool");
    // An object that went away while it was listed makes bpftool complain, but not stop.
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let entries = list.as_array().cloned().unwrap_or_default();
    entries.iter().filter_map(|entry| entry.get("id")?.as_u64()).collect()
}

/// Whether this kernel is older than that release.
pub fn kernel_is_before(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(here_major)), Some(Ok(here_minor))) => (here_major, here_minor) < (major, minor),
        _ => panic!("{release} is not a kernel release"),
    }
}

/// Whether this kernel refuses iterators over maps, so that the agent looks for sockets among open
/// files.
pub fn refuses_iterators_over_maps() -> bool {
    let btf = Btf::of_running_kernel().expect("the kernel's types");
    let function = btf.function("bpf_iter_bpf_sk_storage_map");
    function.is_none_or(|function| bpf::takes_iterator(function).is_err())
}

/// How many programs a hook has at most: a second one where programs can be preempted.
pub fn programs_of_a_hook() -> u32 {
    let disabled = std::env::var(crate::agent::DISABLE_HOOKS).unwrap_or_default();
    1 + u32::from(!kernel_is_before(7, 0) || disabled.split(',').any(|name| name == UNPREEMPTED))
}

/// Whether this kernel gives the reason of a sent reset (6.10 and later).
pub fn names_reset_reasons() -> bool {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let name = b"sk_rst_reason\0";
    types.windows(name.len()).any(|window| window == name)
}
