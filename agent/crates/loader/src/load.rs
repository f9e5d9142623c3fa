//! Brings the kernel half in, or takes over what an earlier run pinned. Each hook that cannot be
//! attached disables just what depends on it; without the first there is nothing to run.
//!
//! Long because every part of the kernel half is brought together in one place.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use agent_common::config::Config;
use agent_common::durations;
use agent_common::preexisting::Preexisting;
use agent_common::wire::Wire as _;
use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;

use super::attacher::Attacher;
use super::bpf::{self, Map};
use super::btf::Btf;
use super::drain::Drain;
use super::enforcement::Enforcement;
use super::hooks::{
    self, HOOKS, Hook, Kind, OPTIONAL_FIELDS, QUESTIONS, RELEASE, TABLE_ITERATION, UNPREEMPTED, Way,
};
use super::later::LATER;
use super::maps;
use super::object::{self, Link, Parts};
use super::offsets;
use super::parts::{self, DNS_ANSWERS, LOOKUPS, PARTS, RESPONSES, SOCKET_TABLE, TCP_CAST};
use super::peers::Peers;
use super::pins::Pins;
use super::ports::Ports;
use super::preflight;
use super::socket_table::SocketTable;
use super::tcp_sock;

/// Counters of a slot are kept in at most this many copies, so that CPUs do not fight over them.
pub const MAX_SHARDS: usize = durations::MAX_SHARDS as usize;

/// What the operator chose, as far as the kernel half is concerned.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states of a machine")]
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows for edges.
    pub edges: u32,
    /// Rows for owners.
    pub owners: u32,
    /// Bytes of the ring of details, a power of two.
    pub ring_bytes: u32,
    /// Ranges whose addresses keep rows of their own as clients.
    pub internal_ranges: Vec<IpNet>,
    /// Time requests.
    pub requests: bool,
    /// Look at the beginnings of responses.
    pub responses: bool,
    /// Read answers of DNS servers.
    pub dns: bool,
    /// Count DNS lookups.
    pub lookups: bool,
    /// Keep maps, programs and links in this directory of the BPF file system.
    pub pin: Option<PathBuf>,
    /// Let the kernel programs log.
    pub bpf_log: bool,
    /// Turn on the kernel's run-time statistics.
    pub run_stats: bool,
    /// Where the root of the cgroup v2 tree is mounted.
    pub cgroup_root: Option<PathBuf>,
    /// Hooks and fields to treat as if this kernel did not have them.
    pub disabled: Vec<String>,
    /// Programs to have at hand for [`Attacher`], by their names in [`LATER`].
    pub later: Vec<&'static str>,
}

/// Something that is off, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// What is not observed, or takes more CPU time.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether everything is observed nevertheless, and only takes more CPU time.
    pub is_observed: bool,
}

// === impl Disabled ===

impl Disabled {
    /// Something that is not observed, and why.
    pub fn not_observed(what: &str, why: String) -> Self {
        Self { what: what.to_owned(), why, is_observed: false }
    }
}

/// A hook and what became of it.
pub struct Attached {
    /// The row of the table.
    pub hook: &'static Hook,
    /// The program and its link, or why there is none.
    pub result: Result<Link, String>,
    /// The fallback program, where it is needed, or why there is none.
    pub fallback: Option<Result<Link, String>>,
}

/// The kernel half, loaded and attached. Dropping it detaches everything that is not pinned.
pub struct Kernel {
    /// Hooks in the order of the table.
    pub hooks: Vec<Attached>,
    /// What is off, and why.
    pub disabled: Vec<Disabled>,
    /// The reading side.
    pub drain: Drain,
    /// Which ports it refuses to whom.
    pub enforcement: Enforcement,
    /// Attaches more while it runs.
    pub attacher: Attacher,
    /// Sockets from before, for the bootstrap programs.
    pub preexisting: Map<u64, Preexisting>,
    /// Notes of clients, for who knows connections by their ports.
    pub peers: Arc<Peers>,
    /// Whether maps and links were found pinned and taken over.
    pub adopted: bool,
    /// Whether answers of DNS servers are read.
    pub dns: bool,
    /// The kernel programs' own log, if asked for.
    pub log: Option<object::Log>,
    _run_stats: Option<OwnedFd>,
}

impl Kernel {
    /// Loads and attaches, or takes over what an earlier run pinned.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        hooks::check_disabled(&options.disabled)?;
        let btf = Btf::of_running_kernel()?;
        let wanted = offsets::config(&btf, options, shards());
        let plan = plan(&btf, &wanted, options);
        drop(btf);
        let pins = Pins::open(options.pin.as_deref(), &layout(options, &wanted))?;
        let pinned = pins.as_ref().and_then(Pins::adopt);
        let adopted = pinned.is_some();
        let (mut parts, config) = match pinned {
            // What it was loaded with, which may be less than this kernel seems to allow.
            Some(parts) => parts.config().map(|config| (parts, config))?,
            None => load(options, &wanted, &plan)?,
        };
        if let Some(pins) = pins.filter(|_| !adopted) {
            pins.keep(&parts).context("pinning maps and links")?;
        }
        give_memory_back();

        let hooks = take_links(&plan, &mut parts);
        let disabled = what_is_off(&hooks, &config, &wanted, options);
        let dns = options.dns && no_dns(&hooks, &config, options).is_none();
        let first = hooks.first().ok_or_else(|| anyhow!("the table of hooks is empty"))?;
        if let Err(why) = &first.result {
            bail!(
                "cannot attach {}, without which there is nothing to see: {why}",
                first.hook.name
            );
        }
        let iterate = program_of(&hooks, "iterate_sockets")?;
        let visit = program_of(&hooks, TABLE_ITERATION)?.filter(|_| (SOCKET_TABLE.is_on)(&config));
        let preexisting = parts.map(&maps::PREEXISTING)?;
        let peers = Arc::new(Peers(parts.map(&maps::PEERS)?));
        let enforcement =
            Enforcement::new(parts.map(&maps::ENFORCED)?, parts.map(&maps::VERDICTS)?)
                .context("reading the tables of refused ports")?;
        let attacher = attacher(options, &mut parts);
        let log = parts.log.take();
        let (expire, bound) =
            (program_of(&hooks, "expire_attempts")?, program_of(&hooks, "bound_sockets")?);
        let ports = Ports::new(&mut parts, expire, bound)?;
        let table = visit.map(|visit| SocketTable::new(&mut parts, visit)).transpose()?;
        let drain = Drain::new(&mut parts, config.shards as usize, iterate, table, ports)?;
        let run_stats = options.run_stats.then(bpf::enable_run_stats).transpose();
        let run_stats = run_stats.context("turning on the kernel's run-time statistics")?;
        Ok(Self {
            hooks,
            disabled,
            drain,
            enforcement,
            attacher,
            preexisting,
            peers,
            adopted,
            dns,
            log,
            _run_stats: run_stats,
        })
    }

    /// The program of a hook, if it is loaded.
    pub fn program(&self, name: &str) -> anyhow::Result<Option<OwnedFd>> {
        program_of(&self.hooks, name)
    }
}

/// Loads and attaches. A hook that the kernel refuses is tried without its parts: maps, programs and
/// links of the first try go, and everything is loaded anew, for constants are frozen.
fn load(options: &Options, wanted: &Config, plan: &Plan) -> anyhow::Result<(Parts, Config)> {
    for config in parts::attempts(wanted) {
        let parts = Parts::load(options, &config, plan)?;
        let parts_on = PARTS.iter().filter(|part| (part.is_on)(&config));
        let mut hooks = parts_on.flat_map(|part| part.hooks);
        let refused = hooks.find_map(|hook| match parts.links.get(hook) {
            Some(Err(why)) => Some((hook, why)),
            _ => None,
        });
        match refused {
            Some((hook, why)) => tracing::debug!("{hook} is refused with its parts: {why}"),
            None => return Ok((parts, config)),
        }
    }
    // The last attempt has no parts.
    bail!("the kernel half was not loaded")
}

/// Gives the kernel what was freed: its types are large, and so is what its verifier takes next.
pub fn give_memory_back() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// How each hook will be attached, decided before anything is loaded.
pub struct Plan {
    /// In the order of the table; `Err` says why not. Where programs are preempted the last way is
    /// the fallback program, which is able to do all that the first does.
    pub hooks: Vec<(&'static Hook, Result<Vec<&'static Way>, String>)>,
    /// The kernel function that gets at the `tcp_sock` of a socket, if this kernel has it.
    pub cast: Option<u32>,
}

impl Plan {
    /// The fallback program of a hook, where it is needed.
    pub fn fallback(&self, hook: &'static Hook) -> Option<&'static Way> {
        let (_, planned) = self.hooks.iter().find(|(other, _)| other.name == hook.name)?;
        let fallback = hook.fallback.as_ref()?;
        let of = |way: &&Way| way.program == fallback.program;
        planned.as_ref().is_ok_and(|ways| ways.iter().any(of)).then_some(fallback)
    }
}

/// The first Linux that preempts programs on tracepoints.
const PREEMPTS: (u32, u32) = (7, 0);

/// Whether programs on tracepoints are preempted, so that some need a fallback.
pub fn is_preempted(options: &Options) -> bool {
    let version = preflight::version(&preflight::kernel_release());
    version.is_none_or(|version| version >= PREEMPTS)
        || options.disabled.iter().any(|mask| mask == UNPREEMPTED)
}

fn plan(btf: &Btf, config: &Config, options: &Options) -> Plan {
    let preempted = is_preempted(options);
    let decide = |hook: &'static Hook| {
        if options.disabled.iter().any(|mask| mask == hook.name) {
            return Err("disabled in the configuration".to_owned());
        }
        if hook.requests && !options.requests {
            return Err("request timing is switched off".to_owned());
        }
        if QUESTIONS.contains(&hook.name) && config.dns | config.lookups == 0 {
            return Err("names from DNS and DNS lookups are off".to_owned());
        }
        if hook.name == RELEASE && config.lookups == 0 {
            return Err("DNS lookups are off".to_owned());
        }
        let missing = offsets::missing(&config.offsets, hook.fields);
        if !missing.is_empty() {
            return Err(format!(
                "{} not in this kernel's structs, or disabled",
                missing.join(", ")
            ));
        }
        let is_cgroup = |way: &Way| matches!(way.kind, Kind::CgroupAddress | Kind::CgroupSocket);
        if options.cgroup_root.is_none() && hook.ways.iter().all(is_cgroup) {
            return Err("no cgroup2 file system is mounted here".to_owned());
        }
        let ways = hook.ways.iter().chain(hook.fallback.as_ref().filter(|_| preempted));
        let ways: Vec<_> = ways.filter(|way| is_there(btf, way, options)).collect();
        if ways.is_empty() {
            let targets: Vec<_> = hook.ways.iter().map(|way| way.target).collect();
            return Err(format!("this kernel does not have or permit {}", targets.join(" or ")));
        }
        Ok(ways)
    };
    let hooks = HOOKS.iter().map(|hook| (hook, decide(hook))).collect();
    Plan { hooks, cast: tcp_sock::cast(btf) }
}

fn is_there(btf: &Btf, way: &Way, options: &Options) -> bool {
    let disabled = options.disabled.iter().any(|mask| mask.strip_prefix("way:") == Some(way.name));
    !disabled
        && match way.kind {
            Kind::Tracepoint => btf.tracepoint_arguments(way.target).is_some(),
            Kind::FunctionEntry | Kind::FunctionExit => btf.has_function(way.target),
            Kind::Iterator => {
                let function = btf.function(&format!("bpf_iter_{}", way.target));
                function.is_some_and(|function| bpf::takes_iterator(function).is_ok())
            }
            // Older than any kernel that has the first hook.
            Kind::Run | Kind::CgroupAddress | Kind::CgroupSocket => true,
        }
}

fn take_links(plan: &Plan, parts: &mut Parts) -> Vec<Attached> {
    let not_there = || Err("not attached by the agent that pinned the maps".to_owned());
    plan.hooks
        .iter()
        .map(|(hook, planned)| {
            let result = match planned {
                Ok(_) => parts.links.remove(hook.name).unwrap_or_else(not_there),
                Err(why) => Err(why.clone()),
            };
            let first = result.as_ref().ok();
            let first = first.and_then(|link| bpf::program_name(link.program.as_fd()).ok());
            let fallback =
                plan.fallback(hook).filter(|way| first.is_some_and(|name| name != way.program));
            let fallback =
                fallback.map(|way| parts.links.remove(way.program).unwrap_or_else(not_there));
            Attached { hook, result, fallback }
        })
        .collect()
}

fn what_is_off(
    hooks: &[Attached],
    config: &Config,
    wanted: &Config,
    options: &Options,
) -> Vec<Disabled> {
    let mut disabled = Vec::new();
    for Attached { hook, result, fallback } in hooks {
        if let Some(Err(why)) = fallback {
            let what = "events that the kernel skips while a program is preempted";
            let why = format!("{}, fallback program: {why}", hook.name);
            disabled.push(Disabled::not_observed(what, why));
        }
        if let Err(why) = result
            && (options.requests || !hook.requests)
            && (config.dns | config.lookups == 1 || !QUESTIONS.contains(&hook.name))
            && (config.lookups == 1 || hook.name != RELEASE)
        {
            let why = format!("{}: {why}", hook.name);
            let is_observed = hook.name == TABLE_ITERATION;
            disabled.push(Disabled { what: hook.lost_without.to_owned(), why, is_observed });
        }
    }
    for (field, what) in OPTIONAL_FIELDS {
        if !offsets::missing(&config.offsets, &[field]).is_empty() {
            let why = format!("this kernel's structs have no {field}");
            disabled.push(Disabled::not_observed(what, why));
        }
    }
    if let Some(why) = no_dns(hooks, config, options) {
        disabled.push(Disabled::not_observed(DNS_ANSWERS.lost_without, why));
    }
    if let Some(why) = no_responses(hooks, config, options) {
        disabled.push(Disabled::not_observed(RESPONSES.lost_without, why));
    }
    if let Some(why) = no_lookups(hooks, config, options) {
        disabled.push(Disabled::not_observed(LOOKUPS.lost_without, why));
    }
    if config.reset_has_reason == 0 {
        let what = "the cause of sent resets, and resets sent without a socket, as for a refused connection";
        let why = "the kernel reports it from 6.10 on".to_owned();
        disabled.push(Disabled::not_observed(what, why));
    }
    let iterates_files = hooks.iter().any(|one| {
        let link = one.result.as_ref().ok().filter(|_| one.hook.name == "iterate_sockets");
        link.is_some_and(|link| {
            bpf::program_name(link.program.as_fd()).is_ok_and(|name| name == "iterate_files")
        })
    });
    if iterates_files && !(SOCKET_TABLE.is_on)(config) {
        let what = "queues of open connections, and of those that no process holds (yet to be accepted, or closing) what happens before they end";
        let why = "iterate_sockets: this kernel permits no iterator over maps".to_owned();
        disabled.push(Disabled::not_observed(what, why));
    }
    let cheaper = [
        (
            &TCP_CAST,
            "attached with a helper instead of bpf_rdonly_cast, which was refused or disabled",
        ),
        (&SOCKET_TABLE, "attached without the table of sockets, which was refused or disabled"),
    ];
    for (part, why) in cheaper {
        if (part.is_on)(wanted) && !(part.is_on)(config) {
            let what = part.lost_without.to_owned();
            disabled.push(Disabled { what, why: why.to_owned(), is_observed: true });
        }
    }
    disabled
}

/// Why responses are not looked at although they should be.
fn no_responses(hooks: &[Attached], config: &Config, options: &Options) -> Option<String> {
    if !options.responses || !options.requests {
        return None;
    }
    let hook = hooks.iter().find(|one| RESPONSES.hooks.contains(&one.hook.name))?;
    let missing = offsets::missing(&config.offsets, RESPONSES.fields);
    match &hook.result {
        Err(why) => Some(format!("{}: {why}", hook.hook.name)),
        Ok(_) if !missing.is_empty() => {
            Some(format!("{} not in this kernel's structs, or disabled", missing.join(", ")))
        }
        Ok(_) if (RESPONSES.is_on)(config) => None,
        Ok(_) => {
            let without =
                "attached without the part that reads responses, which was refused or disabled";
            Some(format!("{}: {without}", hook.hook.name))
        }
    }
}

/// Why DNS lookups are not counted although they should be.
fn no_lookups(hooks: &[Attached], config: &Config, options: &Options) -> Option<String> {
    if !options.lookups || !options.requests {
        return None;
    }
    let fields = [LOOKUPS.fields, DNS_ANSWERS.fields].concat();
    let missing = offsets::missing(&config.offsets, &fields);
    let mut needed = hooks.iter().filter(|one| LOOKUPS.hooks.contains(&one.hook.name));
    if let Some((name, why)) =
        needed.find_map(|one| one.result.as_ref().err().map(|why| (one.hook.name, why)))
    {
        return Some(format!("{name}: {why}"));
    }
    if !missing.is_empty() {
        return Some(format!("{} not in this kernel's structs, or disabled", missing.join(", ")));
    }
    let mut needed = hooks.iter().filter(|one| LOOKUPS.hooks.contains(&one.hook.name));
    let by_another = needed.find_map(|one| {
        let link = one.result.as_ref().ok()?;
        let name = bpf::program_name(link.program.as_fd()).ok()?;
        let fallback = one.hook.fallback.as_ref().map(|way| way.program);
        // Before 6.3 the function that data becomes ready in serves as well; the one that sends by TCP
        // does not.
        let is_enough = name != "tcp_sendmsg" && Some(name.as_str()) != fallback;
        (!is_enough).then_some((one.hook.name, name))
    });
    match by_another {
        Some((hook, program)) => Some(format!(
            "{hook}: attached as {program}, which sees no lookups; the kernel has the tracepoint since 6.3"
        )),
        _ if (LOOKUPS.is_on)(config) => None,
        _ => Some(
            "sock_send_length, sk_data_ready: attached without the part that counts DNS lookups, which was refused or disabled"
                .to_owned(),
        ),
    }
}

/// Why answers of DNS servers are not read although they should be.
fn no_dns(hooks: &[Attached], config: &Config, options: &Options) -> Option<String> {
    if !options.dns {
        return None;
    }
    let hook = hooks.iter().find(|one| DNS_ANSWERS.hooks.contains(&one.hook.name))?;
    let missing = offsets::missing(&config.offsets, DNS_ANSWERS.fields);
    let without = "attached without the part that reads DNS answers, which was refused or disabled";
    match &hook.result {
        Err(why) => Some(format!("{}: {why}", hook.hook.name)),
        Ok(_) if !missing.is_empty() => {
            Some(format!("{} not in this kernel's structs, or disabled", missing.join(", ")))
        }
        Ok(link) if (DNS_ANSWERS.is_on)(config) => {
            // A fallback program does not read them, should it be the only one.
            let name = bpf::program_name(link.program.as_fd()).ok();
            let fallback = hook.hook.fallback.as_ref().map(|way| way.program);
            let is_fallback = name.is_some_and(|name| Some(name.as_str()) == fallback);
            is_fallback.then(|| format!("{}: {without}", hook.hook.name))
        }
        Ok(_) => Some(format!("{}: {without}", hook.hook.name)),
    }
}

/// The programs that were asked for, loaded or refused.
fn attacher(options: &Options, parts: &mut Parts) -> Attacher {
    let mut attacher = Attacher::default();
    for later in LATER.iter().filter(|later| options.later.contains(&later.program)) {
        let not_there = || Err("not loaded by the agent that pinned the other programs".to_owned());
        let loaded = parts.links.remove(later.program).unwrap_or_else(not_there);
        attacher.insert(later, loaded);
    }
    attacher
}

fn program_of(hooks: &[Attached], name: &str) -> anyhow::Result<Option<OwnedFd>> {
    let link = hooks.iter().find(|attached| attached.hook.name == name);
    let program = link.and_then(|attached| attached.result.as_ref().ok());
    Ok(program.map(|link| link.program.try_clone()).transpose()?)
}

/// Everything that decides whether pinned maps fit this agent.
fn layout(options: &Options, config: &Config) -> Vec<u8> {
    let mut layout = object::OBJECT.to_vec();
    layout.extend_from_slice(config.as_bytes());
    layout.extend_from_slice(
        format!(
            "{} {} {} {:?} {:?}",
            options.edges, options.owners, options.ring_bytes, options.disabled, options.later
        )
        .as_bytes(),
    );
    layout
}

/// One for each CPU of the host up to a few. How much of them the agent may use makes no difference:
/// programs run wherever something happens.
fn shards() -> u32 {
    let cpus = aya::util::online_cpus().map_or(MAX_SHARDS, |cpus| cpus.len());
    cpus.next_power_of_two().min(MAX_SHARDS) as u32
}
