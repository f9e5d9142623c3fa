//! The kernel half as the core sees it: tables to drain, rows to give back, and how it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use agent_common::attempt::AttemptKey;
use agent_common::edge::EdgeKey;
use agent_common::listener::ListenerKey;
use agent_common::owner::OwnerKey;
use agent_common::slot_table::Reclaim;
use agent_common::unsent::UnsentKey;
use hashbrown::HashMap;

use loader::attacher::Attachment;
use loader::bpf::{self, ProgramRuns};
use loader::drain::Drained;
use loader::later::WALKS;
use loader::object::Link;
use model::enforcement::Verdicts;
use model::snapshot::{Disabled, HookView, MapView};

/// What counts.
pub(super) trait Kernel {
    /// Reads everything at `now_ns` (CLOCK_MONOTONIC).
    fn drain(&mut self, now_ns: u64) -> anyhow::Result<Drained>;

    /// Gives a row of an edge back.
    fn reclaim_edge(&mut self, step: &Reclaim<EdgeKey>) -> io::Result<()>;

    /// Gives a row of a listener back.
    fn reclaim_listener(&mut self, step: &Reclaim<ListenerKey>) -> io::Result<()>;

    /// Gives a row of refused connects back.
    fn reclaim_unsent(&mut self, step: &Reclaim<UnsentKey>) -> io::Result<()>;

    /// Gives a row of an owner back.
    fn reclaim_owner(&mut self, step: &Reclaim<OwnerKey>) -> io::Result<()>;

    /// Gives a row of failed binds back.
    fn reclaim_bind_failure(&mut self, step: &Reclaim<AttemptKey>) -> io::Result<()>;

    /// How many slots for edges there are, without those that are kept back.
    fn edge_capacity(&self) -> u64;

    /// How many rows for owners there are.
    fn owner_capacity(&self) -> u64;

    /// How many free slots are kept back.
    fn held_edges(&self) -> u64;

    /// Has about `wanted` free slots on offer, or all of them, when `in_use` are taken.
    fn offer_edges(&mut self, in_use: usize, wanted: Option<u64>) -> io::Result<()>;

    /// How many rows for listeners there are.
    fn listener_capacity(&self) -> u64;

    /// How many rows for refused connects there are.
    fn unsent_capacity(&self) -> u64;

    /// How many rows for failed binds there are.
    fn bind_failure_capacity(&self) -> u64;

    /// Takes in which cgroups at the first level are a user's, by id and user.
    fn set_delegated(&mut self, cgroups: &HashMap<u64, u32>) -> io::Result<()>;

    /// Walks the packets of a cgroup, given by its folder, as long as what is returned lives; or why not.
    fn walk(&self, folder: &File, path: &Path) -> Result<Vec<Attachment>, String>;

    /// Takes over which ports to refuse to whom.
    fn enforce(&mut self, verdicts: Verdicts) -> io::Result<()>;

    /// Every hook: attached or why not, and what its program did.
    fn hooks(&self) -> Vec<HookView>;

    /// Kernel tables and how full they are.
    fn maps(&self, drained: &Drained) -> Vec<MapView>;

    /// What is off, and why.
    fn disabled(&self) -> Vec<Disabled>;

    /// Whether the tables were found pinned and taken over.
    fn is_adopted(&self) -> bool;

    /// Whether answers of DNS servers are read.
    fn reads_dns(&self) -> bool;

    /// Readable when the kernel half calls: something has ended, and what was counted until then
    /// should be read before something else begins.
    fn calls(&self) -> io::Result<OwnedFd>;
}

impl Kernel for loader::load::Kernel {
    fn drain(&mut self, now_ns: u64) -> anyhow::Result<Drained> {
        let drained = self.drain.run(now_ns)?;
        if let Some(log) = &mut self.log {
            log.flush();
        }
        Ok(drained)
    }

    fn reclaim_edge(&mut self, step: &Reclaim<EdgeKey>) -> io::Result<()> {
        self.drain.reclaim_edge(step)
    }

    fn reclaim_listener(&mut self, step: &Reclaim<ListenerKey>) -> io::Result<()> {
        self.drain.reclaim_listener(step)
    }

    fn reclaim_unsent(&mut self, step: &Reclaim<UnsentKey>) -> io::Result<()> {
        self.drain.reclaim_unsent(step)
    }

    fn reclaim_owner(&mut self, step: &Reclaim<OwnerKey>) -> io::Result<()> {
        self.drain.reclaim_owner(step)
    }

    fn reclaim_bind_failure(&mut self, step: &Reclaim<AttemptKey>) -> io::Result<()> {
        self.drain.ports.reclaim(step)
    }

    fn edge_capacity(&self) -> u64 {
        self.drain.edge_capacity()
    }

    fn owner_capacity(&self) -> u64 {
        self.drain.owner_capacity()
    }

    fn held_edges(&self) -> u64 {
        self.drain.held_edges()
    }

    fn offer_edges(&mut self, in_use: usize, wanted: Option<u64>) -> io::Result<()> {
        self.drain.offer_edges(in_use, wanted)
    }

    fn listener_capacity(&self) -> u64 {
        self.drain.listener_capacity()
    }

    fn unsent_capacity(&self) -> u64 {
        self.drain.unsent_capacity()
    }

    fn bind_failure_capacity(&self) -> u64 {
        self.drain.ports.capacity()
    }

    fn set_delegated(&mut self, cgroups: &HashMap<u64, u32>) -> io::Result<()> {
        self.drain.set_delegated(cgroups)
    }

    fn walk(&self, folder: &File, path: &Path) -> Result<Vec<Attachment>, String> {
        let attach = |program| self.attacher.attach_opened(program, folder, path);
        WALKS.map(attach).into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    fn enforce(&mut self, verdicts: Verdicts) -> io::Result<()> {
        self.enforcement.apply(verdicts.ports, verdicts.verdicts)
    }

    fn hooks(&self) -> Vec<HookView> {
        self.hooks
            .iter()
            .map(|attached| {
                let link = attached.result.as_ref().ok();
                let runs = |link: &Link| bpf::program_runs(link.program.as_fd()).ok();
                let mut sum = link.and_then(runs).unwrap_or_default();
                if let Some(link) = attached.fallback.as_ref().and_then(|link| link.as_ref().ok())
                    && let Some(fallback) = runs(link)
                {
                    // Lost is what both have missed, which is no more than either has.
                    sum = ProgramRuns {
                        time_ns: sum.time_ns + fallback.time_ns,
                        count: sum.count + fallback.count,
                        misses: sum.misses.min(fallback.misses),
                    };
                }
                HookView {
                    name: attached.hook.name.to_owned(),
                    attached: link.is_some(),
                    reason: attached.result.as_ref().err().cloned(),
                    lost_without: attached.hook.lost_without.to_owned(),
                    runs: sum.count,
                    run_seconds: sum.time_ns as f64 / 1e9,
                    misses: sum.misses,
                }
            })
            .collect()
    }

    fn maps(&self, drained: &Drained) -> Vec<MapView> {
        let fill = self.drain.fill(drained).into_iter();
        fill.map(|(name, entries, capacity)| MapView { name: name.to_owned(), entries, capacity })
            .collect()
    }

    fn disabled(&self) -> Vec<Disabled> {
        let view = |off: &loader::load::Disabled| {
            let loader::load::Disabled { what, why, is_observed } = off.clone();
            Disabled { what, why, is_observed }
        };
        self.disabled.iter().map(view).collect()
    }

    fn is_adopted(&self) -> bool {
        self.adopted
    }

    fn reads_dns(&self) -> bool {
        self.dns
    }

    fn calls(&self) -> io::Result<OwnedFd> {
        self.drain.calls()
    }
}
