//! The kernel object: creates its maps, loads and attaches its programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use agent_common::attempt::FailureRow;
use agent_common::config::Config;
use agent_common::edge::EdgeRow;
use agent_common::listener::ListenerRow;
use agent_common::owner::OwnerRow;
use agent_common::unsent::UnsentRow;
use agent_common::wire::Wire;
use anyhow::{Context as _, anyhow};
use aya::maps::{Map as AyaMap, MapData};
use aya::programs::{
    BtfTracePoint, CgroupSkb, CgroupSock, CgroupSockAddr, FEntry, FExit, Iter, Program,
    RawTracePoint, UProbe,
};
use aya::{Ebpf, EbpfLoader};

use super::bpf::{self, Map};
use super::histograms::Histograms;
use super::hooks::{Kind, Way};
use super::later::{LATER, Later, Target};
use super::load::{self, Options, Plan};
use super::maps::{self, MAPS, Spec};
use super::parts::{PARTS, Part, TCP_CAST};
use super::slot_table::{self, SlotTable};
use super::tcp_sock::{self, Call};

/// The kernel programs, as built from `agent-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portolan-ebpf"));

/// What distinguishes these programs from another build's: SHA-256 of the object, in hex.
pub fn object_hash() -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, OBJECT);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The kernel programs' own log.
pub type Log = aya_log::EbpfLogger<&'static dyn log::Log>;

/// A program in the kernel.
pub struct Link {
    /// The program.
    pub program: OwnedFd,
    /// Its link; an iterator's is made for each use.
    pub link: Option<OwnedFd>,
}

/// Descriptors of everything in the kernel, freshly loaded or found pinned.
pub struct Parts {
    /// Maps by name.
    pub maps: BTreeMap<String, OwnedFd>,
    /// Programs and links by hook, fallback programs and those for later by their name; or why
    /// there is none.
    pub links: BTreeMap<&'static str, Result<Link, String>>,
    /// The programs' log, if asked for.
    pub log: Option<Log>,
}

impl Parts {
    /// A map's descriptor.
    pub fn get(&self, map: &Spec) -> anyhow::Result<&OwnedFd> {
        self.maps.get(map.name).ok_or_else(|| anyhow!("the kernel half has no map {}", map.name))
    }

    /// Takes a map's descriptor.
    pub fn take(&mut self, map: &Spec) -> anyhow::Result<OwnedFd> {
        let fd = self.maps.remove(map.name);
        fd.ok_or_else(|| anyhow!("the kernel half has no map {}", map.name))
    }

    /// Takes a map.
    pub fn map<K: Wire, V: Wire>(&mut self, map: &Spec) -> anyhow::Result<Map<K, V>> {
        Map::new(self.take(map)?).with_context(|| format!("map {}", map.name))
    }

    /// Takes a stack.
    pub fn stack(&mut self, map: &Spec) -> anyhow::Result<Map<(), u32>> {
        Map::stack(self.take(map)?).with_context(|| format!("map {}", map.name))
    }

    /// What the programs were loaded with.
    pub fn config(&self) -> anyhow::Result<Config> {
        let map = Map::<u32, Config>::new(self.get(&maps::CONFIG)?.try_clone()?);
        let map = map.context("the configuration of the kernel half")?;
        map.lookup(&0)?.ok_or_else(|| anyhow!("the kernel half has an empty configuration"))
    }

    /// Creates the maps, loads the programs and attaches them as planned.
    pub fn load(options: &Options, config: &Config, plan: &Plan) -> anyhow::Result<Self> {
        let log_level: u8 = if options.bpf_log { u8::MAX } else { 0 };
        let btf = aya::Btf::from_sys_fs().context("reading the kernel's types")?;
        let mut loader = EbpfLoader::new();
        // It has read the types itself. They are large, and the verifier's memory comes on top.
        loader.btf(Some(&btf));
        loader.override_global("CONFIG", config.as_bytes(), true);
        loader.override_global("AYA_LOG_LEVEL", &log_level, false);
        for map in MAPS {
            if let Some(entries) = map.size.entries(options, config) {
                loader.map_max_entries(map.name, entries);
            }
        }
        let call = match plan.cast {
            Some(function) if (TCP_CAST.is_on)(config) => Call::Function(function),
            _ => Call::Helper,
        };
        let mut ebpf = loader
            .load(&tcp_sock::replace(OBJECT, call)?)
            .context("creating the kernel tables (on kernels before 5.11 or in containers RLIMIT_MEMLOCK may be too low; in a cgroup with little memory, allow more or lower --limits.edges and --limits.owners)")?;
        let mut parts = Self { maps: BTreeMap::new(), links: BTreeMap::new(), log: None };
        for (name, map) in ebpf.maps() {
            if let Some(data) = data_of(map) {
                parts.maps.insert(name.to_owned(), data.fd().as_fd().try_clone_to_owned()?);
            }
        }
        // The free lists must be full before the first event.
        SlotTable::<EdgeRow>::fill(&parts, &slot_table::EDGES)?;
        Histograms::fill(&parts)?;
        SlotTable::<ListenerRow>::fill(&parts, &slot_table::LISTENERS)?;
        SlotTable::<UnsentRow>::fill(&parts, &slot_table::UNSENT)?;
        SlotTable::<OwnerRow>::fill(&parts, &slot_table::OWNERS)?;
        SlotTable::<FailureRow>::fill(&parts, &slot_table::BIND_FAILURES)?;
        if options.bpf_log {
            let log = aya_log::EbpfLogger::init(&mut ebpf);
            parts.log = Some(log.context("opening the kernel programs' log")?);
        }
        load::give_memory_back();
        let links = &mut parts.links;
        for (hook, planned) in &plan.hooks {
            let Ok(ways) = planned else { continue };
            let missing = hook.after.filter(|name| !matches!(links.get(name), Some(Ok(_))));
            let disabled = PARTS.iter().find(|part| {
                part.hooks.contains(&hook.name)
                    && (part.is_on)(config)
                    && is_disabled(part, options)
            });
            let link = match (missing, disabled) {
                (Some(name), _) => Err(format!("its counts would be wrong without {name}")),
                // As if the kernel refused it.
                (None, Some(part)) => Err(format!("its part {} is disabled", part.name)),
                (None, None) => attach(&mut ebpf, ways, &btf, options.cgroup_root.as_deref()),
            };
            let attached = link.is_ok();
            links.insert(hook.name, link);
            // After the first, for a tracepoint runs its programs in the order they came in.
            if let Some(way) = plan.fallback(hook)
                && attached
                && !is_loaded(&ebpf, way)
            {
                let link = attach(&mut ebpf, &[way], &btf, options.cgroup_root.as_deref());
                links.insert(way.program, link);
            }
        }
        for later in LATER.iter().filter(|later| options.later.contains(&later.program)) {
            let loaded = load_later(&mut ebpf, later);
            links.insert(later.program, loaded.map_err(|error| short(&format!("{error:#}"))));
        }
        Ok(parts)
    }
}

fn is_disabled(part: &Part, options: &Options) -> bool {
    options.disabled.iter().any(|mask| mask.strip_prefix("part:") == Some(part.name))
}

fn is_loaded(ebpf: &Ebpf, way: &Way) -> bool {
    ebpf.program(way.program).is_some_and(|program| program.fd().is_ok())
}

/// Attaches by the first way that works; the error is that of the best way.
fn attach(
    ebpf: &mut Ebpf,
    ways: &[&'static Way],
    btf: &aya::Btf,
    cgroup_root: Option<&Path>,
) -> Result<Link, String> {
    let mut first_error = None;
    for way in ways {
        match load_program(ebpf, way, btf, cgroup_root) {
            Ok(link) => return Ok(link),
            Err(error) => {
                tracing::debug!(way = way.name, "{error:#}");
                first_error.get_or_insert_with(|| short(&format!("{error:#}")));
            }
        }
    }
    Err(first_error.unwrap_or_default())
}

fn load_program(
    ebpf: &mut Ebpf,
    way: &Way,
    btf: &aya::Btf,
    cgroup_root: Option<&Path>,
) -> anyhow::Result<Link> {
    let program = ebpf
        .program_mut(way.program)
        .ok_or_else(|| anyhow!("the kernel object has no program {}", way.program))?;
    match way.kind {
        Kind::Tracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(way.target, btf)?;
        }
        Kind::FunctionEntry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(way.target, btf)?;
        }
        Kind::FunctionExit => {
            let program: &mut FExit = program.try_into()?;
            program.load(way.target, btf)?;
        }
        Kind::Iterator => {
            let program: &mut Iter = program.try_into()?;
            program.load(way.target, btf)?;
        }
        Kind::Run => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
        }
        Kind::CgroupAddress => {
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load()?;
        }
        Kind::CgroupSocket => {
            let program: &mut CgroupSock = program.try_into()?;
            program.load()?;
        }
    }
    let program: &Program = program;
    let program = program.fd()?.as_fd().try_clone_to_owned()?;
    let link = match way.kind {
        Kind::Iterator | Kind::Run => None,
        Kind::CgroupAddress | Kind::CgroupSocket => {
            let root = cgroup_root.ok_or_else(|| anyhow!("no cgroup2 file system is mounted"))?;
            let folder = File::open(root).with_context(|| format!("opening {}", root.display()))?;
            let at = bpf::cgroup_attach_type(way.target)
                .ok_or_else(|| anyhow!("{} is no cgroup hook", way.target))?;
            let link = bpf::attach_cgroup(program.as_fd(), folder.as_fd(), at);
            Some(link.with_context(|| format!("attaching to {}", root.display()))?)
        }
        Kind::Tracepoint | Kind::FunctionEntry | Kind::FunctionExit => {
            Some(bpf::attach_tracing(program.as_fd()).context("attaching")?)
        }
    };
    Ok(Link { program, link })
}

/// Loads a program that is attached another time.
fn load_later(ebpf: &mut Ebpf, later: &Later) -> anyhow::Result<Link> {
    let program = ebpf
        .program_mut(later.program)
        .ok_or_else(|| anyhow!("the kernel object has no program {}", later.program))?;
    match later.target {
        Target::CgroupIngress | Target::CgroupEgress => {
            let program: &mut CgroupSkb = program.try_into()?;
            program.load()?;
        }
        Target::Function => {
            let program: &mut UProbe = program.try_into()?;
            program.load()?;
        }
    }
    let program: &Program = program;
    Ok(Link { program: program.fd()?.as_fd().try_clone_to_owned()?, link: None })
}

fn data_of(map: &AyaMap) -> Option<&MapData> {
    match map {
        AyaMap::Array(data)
        | AyaMap::HashMap(data)
        | AyaMap::PerCpuArray(data)
        | AyaMap::RingBuf(data)
        | AyaMap::SkStorage(data)
        | AyaMap::Stack(data) => Some(data),
        _ => None,
    }
}

/// A verifier's refusal is pages long; its last line, before its statistics, says what it is about.
fn short(error: &str) -> String {
    const STATISTICS: [&str; 5] =
        ["processed ", "insns processed ", "stack depth ", "verification time ", ": "];
    let (what, output) = error.split_once(" Verifier output:").unwrap_or((error, ""));
    let verdict = output
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)));
    let what = what.lines().next().unwrap_or_default().trim_end_matches('.');
    match verdict {
        Some(verdict) => format!("{what}; the verifier says: {verdict}"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_cut_down_to_its_verdict() {
        let check = |error, expected| assert_eq!(short(error), expected);
        check(
            "load returned EACCES. Verifier output: 0: R1=ctx()\n\
             1836: (71) r5 = *(u8 *)(r0 +57)\n\
             R0 unbounded memory access\n\
             verification time 270478 usec\n\
             stack depth 128+0+0 max 0\n\
             insns processed 7716\n\
             processed 7716 insns (limit 1000000)\n\n\
             : Permission denied (os error 13)",
            "load returned EACCES; the verifier says: R0 unbounded memory access",
        );
        check("load returned EPERM. Verifier output: : not permitted", "load returned EPERM");
        check("attaching: busy", "attaching: busy");
    }
}
