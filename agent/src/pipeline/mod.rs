//! The pipeline: the only module that knows every stage.
//!
//! [`run`] starts them: the kernel half, the core thread that owns all state ([`core`]), and HTTP
//! on the calling thread, so that a slow collection never makes the agent look dead. Each stage is
//! a plain call; time is an argument; nothing is locked.

mod account;
mod backends;
mod bootstrap;
mod calls;
mod clock;
mod conditions;
mod core;
mod event_log;
mod full_tables;
mod host;
mod kernel;
mod labels;
mod memory;
mod notify;
mod ports;
mod reconcile;
mod relate;
mod reservations;
#[cfg(test)]
mod simulation;
mod views;
mod walks;

use std::net::TcpListener;
use std::sync::Arc;

use agent_common::edge::HotCounters;
use agent_common::histogram::Histogram;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::conditions::Watch;
use self::core::{Core, Now, Parts};
use self::event_log::EventLog;
use self::memory::{Keeper, Meter};
use self::notify::Manager;
use self::relate::Relate;
use self::reservations::ReservationMonitor;
use self::walks::Walks;
use crate::config::{Config, ConfigError, host_name, own_names};
use crate::state::{StateActor, StateFile, StateHandle};
use crate::{occupant, privileges};
use discovery::Names;
use discovery::remote::MAX_ADDRESSES;
use discovery::sources::Sources;
use linux::clock::monotonic_us;
use linux::hierarchy::Hierarchy;
use linux::namespace_names;
use linux::probes::Probes;
use loader::hooks::INFERRED_WITHOUT;
use loader::later::WALKS;
use loader::load::Disabled;
use loader::load::{Kernel, MAX_SHARDS, Options};
use loader::maps::HISTOGRAMS_PER_EDGE;
use loader::{object, pins, preflight};
use model::memory::ROW_BYTES;
use model::owners::Owners;
use server::web::Hosts;
use server::{Endpoint, Web};
use telemetry::event_feed::EventFeed;
use telemetry::push::Pusher;
use telemetry::{Build, Exporter};

/// Bytes of the ring of details: some thousand records, and at most 100 of a kind are written each
/// second and CPU.
const RING_BYTES: u32 = 256 * 1024;

/// Runs the agent until a signal stops it.
pub fn run(config: &Config) -> anyhow::Result<()> {
    preflight::check()?;
    let privileges = privileges::check(config)?;
    let _lock = preflight::lock(&config.run_directory)?;
    let http = Http::open(config)?;
    let control = server::local::bind(&config.run_directory, config.control_group, |caller| {
        linux::peer::groups(caller).unwrap_or_default()
    })?;
    let relate = Relate::new(config, monotonic_us());
    let meter = Meter::new(config.limits.memory_bytes);
    let mut kernel = Kernel::start(&options(config, &meter)).context("starting the kernel half")?;
    let losses = privileges.losses().into_iter();
    kernel.disabled.extend(losses.map(|(what, why)| Disabled::not_observed(what, why)));
    report(&kernel);
    let (probes, survey) = bootstrap::bootstrap(&mut kernel, &privileges, config)?;
    // Later threads inherit the remaining capabilities of this one; probe threads have no more.
    privileges.give_up(config)?;
    let state = state(config, &kernel, probes.clone())?;
    let (source, requests) = telemetry::source::channel();
    let (stop, stopping) = watch::channel(());
    let rules = config.names.rules();
    let peers = Arc::clone(&kernel.peers);
    // A note that cannot be read names nobody, as one that is gone.
    let owner_of = Arc::new(move |of: &_| peers.owner(of).ok().flatten());
    let sources = Sources::start(config.names.settings(&rules.labels()), &probes, owner_of)
        .context("starting the sources of names")?;
    let addresses = config.limits.addresses.map_or(MAX_ADDRESSES, |limit| limit as usize);
    let mut names = Names::new(rules, config.names.units, addresses, &probes);
    if let Err(error) = names.watch_cgroups() {
        tracing::info!(
            "new cgroups cannot be watched: {error}; a container that ends within a second is named \
             by its program"
        );
    }
    let interval = config.collection_interval;
    let owners = Owners::trusting(config.trusted_users.iter().copied());
    let reservations = ReservationMonitor::new(state.clone(), config);
    // Withheld rows would be lost if the agent of a pinned kernel half were killed.
    let walks = Walks::new(config.protocols.services.clone());
    let keeper = Keeper::new(if config.pin { Meter::default() } else { meter });
    let feed = EventFeed::default();
    let log = config.events.log.as_ref().map(|to| EventLog::start(to, &feed)).transpose()?;
    let followers = feed.clone();
    // Without it, namespaces that come and go are noticed later.
    let mounts = namespace_names::table().ok();
    let core = std::thread::Builder::new().name("core".to_owned()).spawn(move || {
        let host = Box::new(probes.clone());
        let conditions = Watch::new(interval);
        let parts = Parts {
            kernel,
            host,
            owners,
            names,
            sources,
            reservations,
            relate,
            conditions,
            walks,
            keeper,
            feed,
        };
        let core = Core::new(parts, &survey, Now::read());
        core.run(requests, stopping, interval, &probes, mounts)
    })?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let build = Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: preflight::kernel_release(),
    };
    let exporter = Exporter::new(build.clone());
    let pusher = config.otlp.collector().map(|collector| {
        Pusher::new(collector, source.clone(), exporter, &host_name().unwrap_or_default())
    });
    let mut pusher = pusher.transpose().context("preparing pushes to otlp.endpoint")?;
    let api = server::Api::new(source.clone(), build).with_events(followers);
    let api = api.with_outcomes(pusher.as_ref().map(Pusher::outcomes));
    let api = api.with_check_skip(&config.check.skip);
    let api = api.below(&config.web.external_path);
    let api = match &http {
        Some(http) => api.with_web(Arc::clone(&http.web)),
        None => api,
    };
    let address = match &http {
        Some(http) => format!("{}://{}", http.web.scheme(), config.web.listen_address),
        None => format!("{} only (web.listen_address = \"unix\")", control.path().display()),
    };
    let (router, control_router) = (server::router(api.clone()), server::local::router(api, state));
    tracing::info!("listening on {address}");
    let manager = Manager::of_this_process();
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop_requested = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping");
            manager.stopping();
        };
        manager.ready(&format!("listening on {address}"));
        linux::pages::give_back();
        let (stop_control, control_stopping) = watch::channel(());
        let served = async {
            let served = tokio::select! {
                served = async {
                    if let Some(Http { listener, web }) = http {
                        server::serve(listener, router, web, stop_requested).await
                    } else {
                        stop_requested.await;
                        Ok(())
                    }
                } => served,
                () = manager.watch(&source) => Ok(()),
                () = push(pusher.as_mut()) => Ok(()),
            };
            if let Some(pusher) = &mut pusher {
                pusher.last().await;
            }
            drop(stop_control);
            served
        };
        let (served, ()) = tokio::join!(served, control.serve(control_router, control_stopping));
        served
    });
    // Responses that are still rendered are not waited for.
    runtime.shutdown_background();
    drop(stop);
    core.join().map_err(|_| anyhow::anyhow!("the core thread panicked"))??;
    if let Some(log) = log {
        log.finish();
    }
    served
}

/// The endpoint at an address.
struct Http {
    listener: TcpListener,
    web: Arc<Web>,
}

impl Http {
    /// Opens it, unless everything is read at the Unix socket.
    fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(address) = config.web.listen_address.address() else { return Ok(None) };
        let hosts = Hosts::new(&own_names(&config.names), &config.web.allowed_hosts);
        let file = config.web.config_file.clone();
        let web = Web::open(Endpoint { address, file, hosts }).map_err(ConfigError::Web)?;
        let listener = server::bind(address, occupant::of)?;
        Ok(Some(Self { listener, web: Arc::new(web) }))
    }
}

/// Pushes continuously, if a collector is configured.
async fn push(pusher: Option<&mut Pusher>) {
    match pusher {
        Some(pusher) => pusher.run().await,
        None => std::future::pending().await,
    }
}

/// Reads the state file, adds the configuration's reservations, and starts the state actor.
fn state(config: &Config, kernel: &Kernel, probes: Probes) -> anyhow::Result<StateHandle> {
    let (store, mut state, warnings) = StateFile::open(&config.state_directory);
    for warning in warnings {
        tracing::error!("{warning}");
    }
    for dropped in state.configure(&config.ports.reservations) {
        tracing::warn!(
            "the configuration has another reservation for the port; dropped: {dropped}"
        );
    }
    let unenforceable = kernel.hooks.iter().find_map(|attached| {
        let refuses = matches!(attached.hook.name, "bind4" | "bind6");
        let why = attached.result.as_ref().err().filter(|_| refuses)?;
        Some(format!("{} is not attached ({why})", attached.hook.name))
    });
    StateActor::start(store, state, config.ports.environment, unenforceable, probes)
        .context("starting the state thread")
}

fn options(config: &Config, meter: &Meter) -> Options {
    let (edges, owners) = default_sizes(memory_bytes(), meter.limit());
    Options {
        edges: config.limits.edges.unwrap_or(edges),
        owners: config.limits.owners.unwrap_or(owners),
        internal_ranges: config.kernel_ranges(),
        ring_bytes: config.limits.ring_bytes.unwrap_or(RING_BYTES),
        requests: config.requests,
        responses: config.responses,
        dns: config.names.dns,
        lookups: config.dns_lookups,
        pin: config.pin.then(|| pins::DIRECTORY.into()),
        bpf_log: config.bpf_log,
        run_stats: config.run_stats,
        cgroup_root: Hierarchy::find().ok().flatten().map(|tree| tree.mount().to_owned()),
        disabled: config.disable_hooks.iter().chain(&config.disable_fields).cloned().collect(),
        later: if config.protocols.services.is_empty() { Vec::new() } else { WALKS.to_vec() },
    }
}

/// What an edge takes in the kernel's tables: its counters on every shard, and its part of the
/// histograms.
const EDGE_BYTES: u64 = (MAX_SHARDS * size_of::<HotCounters>()
    + HISTOGRAMS_PER_EDGE as usize * size_of::<Histogram>()) as u64;

/// Rows for edges and owners: a bit more than two thousandths of the memory, within reason; and where
/// the agent's own memory has a limit, not more than it will have room for, in the kernel (a quarter
/// of it) and in the agent (two thirds).
fn default_sizes(memory_bytes: u64, limit: Option<u64>) -> (u32, u32) {
    let gib = (memory_bytes >> 30).clamp(1, 64) as u32;
    let (edges, owners) = ((gib * 768).clamp(3072, 24_576), (gib * 64).clamp(512, 2048));
    let fits =
        limit.map_or(u64::MAX, |limit| (limit / 4 / EDGE_BYTES).min(limit / 3 * 2 / ROW_BYTES));
    (edges.min(u32::try_from(fits).unwrap_or(u32::MAX)).max(64), owners)
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn report(kernel: &Kernel) {
    if kernel.adopted {
        tracing::info!("took over the pinned kernel half of an earlier agent");
    }
    let attached = kernel.hooks.iter().filter(|hook| hook.result.is_ok()).count();
    tracing::info!(
        "{attached} of {} hooks attached; kernel object sha256:{}",
        kernel.hooks.len(),
        object::object_hash()
    );
    let inferred: Vec<_> = kernel
        .hooks
        .iter()
        .filter(|one| one.result.is_err() && INFERRED_WITHOUT.contains(&one.hook.name))
        .collect();
    if let Some(Err(why)) = inferred.first().map(|one| &one.result) {
        let names: Vec<&str> = inferred.iter().map(|one| one.hook.name).collect();
        tracing::info!(
            "the errno of failed binds is inferred, up to two seconds later: {} cannot be attached ({why}); nothing else depends on it",
            names.join(", ")
        );
    }
    for Disabled { what, why, is_observed } in &kernel.disabled {
        if *is_observed {
            tracing::info!("takes more CPU time on this host: {what} ({why})");
        } else if !inferred.iter().any(|one| one.hook.lost_without == what) {
            tracing::warn!("not observed on this host: {what} ({why})");
        }
    }
}
