//! Reads what the kernel half counted. Tables are read through mmap without system calls; the
//! socket iteration brings them up to date first; the ring is emptied by timer.

mod counters;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use agent_common::attempt::OVERDUE_NS;
use agent_common::counters::EdgeCounters;
use agent_common::durations::{self, KINDS, NO_HISTOGRAM, OPERATION, is_own};
use agent_common::edge::{EdgeKey, EdgeRow, HotCounters};
use agent_common::ledger::{BIND, Ledger};
use agent_common::listener::{ListenerKey, ListenerRecord, ListenerRow};
use agent_common::owner::{OWNER_OVERFLOW, OwnerKey, OwnerRow};
use agent_common::slot_table::{Reclaim, SlotRow};
use agent_common::unsent::{UnsentKey, UnsentRow};
use agent_common::wire::Wire as _;
use anyhow::Context as _;
use aya::maps::{Map as AyaMap, MapData, RingBuf};
use hashbrown::HashMap;

use super::bpf::Map;
pub use super::drained::Drained;
use super::histograms::Histograms;
use super::mapped::Mapped;
use super::maps;
use super::object::Parts;
use super::ports::{self, Ports};
use super::queues::EdgeQueues;
use super::shares::Shares;
use super::slot_table::{self, SlotTable};
use super::socket_table::SocketTable;
use agent_common::decode;
use agent_common::decode::dns;
use agent_common::drained::Row;

/// At most this many records leave the ring in one drain, so that a flood cannot stall it.
const MAX_EVENTS: usize = 4096;

/// The same for answers of DNS servers.
const MAX_ANSWERS: usize = 4096;

/// The reading side of the kernel half.
pub struct Drain {
    edges: SlotTable<EdgeRow>,
    counters: Mapped<HotCounters>,
    counters_map: Map<u32, HotCounters>,
    queues: EdgeQueues,
    histograms: Histograms,
    /// Rows of histograms that edges had at the last drain, and places that make do with a reserved
    /// one: the row of counters, and the kind.
    histograms_in_use: u64,
    places_without: Vec<(usize, usize)>,
    /// Likewise of operations: the row that counts how they ended, and the method.
    methods_without: Vec<(u64, usize)>,
    listeners: SlotTable<ListenerRow>,
    unsent: SlotTable<UnsentRow>,
    owners: SlotTable<OwnerRow>,
    shares: Shares,
    /// Which owners were read, and when their slots were taken.
    known_owners: HashMap<u32, u64>,
    ledger: Map<u32, Ledger>,
    ring: RingBuf<MapData>,
    answers: RingBuf<MapData>,
    /// The iteration over sockets that have a storage, and over the table of sockets.
    iterate_sockets: Option<OwnedFd>,
    table: Option<SocketTable>,
    /// The bind hooks.
    pub ports: Ports,
    /// Whether binds were under way at the last drain, and when a program had asked for a
    /// connection by then, CLOCK_MONOTONIC nanoseconds.
    open_binds: bool,
    connect_ns: u64,
    /// When attempts were last expired.
    expired_ns: u64,
    /// What each slot had counted at the last drain: shared with those that still read it, and
    /// the same again if nothing has moved.
    last: Vec<Option<Arc<EdgeCounters>>>,
    shards: usize,
    cpus: usize,
}

impl Drain {
    /// Takes over the maps it reads. `iterate_sockets` is the program to run before each drain, beside
    /// going through the table of sockets.
    pub fn new(
        parts: &mut Parts,
        shards: usize,
        iterate_sockets: Option<OwnedFd>,
        table: Option<SocketTable>,
        ports: Ports,
    ) -> anyhow::Result<Self> {
        let counters_map: Map<u32, HotCounters> = parts.map(&maps::EDGE_COUNTERS)?;
        let sockets = parts.take(&maps::SOCKETS)?;
        let sockets_link =
            iterate_sockets.map(|program| ports::link_to_sockets(program.as_fd(), sockets.as_fd()));
        let iterate_sockets =
            sockets_link.transpose().context("linking the iterator to the storage of sockets")?;
        let mut ring = |map| -> anyhow::Result<RingBuf<MapData>> {
            let ring = MapData::from_fd(parts.take(map)?).context("opening a ring")?;
            Ok(RingBuf::try_from(AyaMap::RingBuf(ring))?)
        };
        let (ring, answers) = (ring(&maps::EVENTS)?, ring(&maps::ANSWERS)?);
        Ok(Self {
            edges: SlotTable::new(parts, &slot_table::EDGES)?,
            counters: counters_map.mapped_writable().context("mapping the counters")?,
            counters_map,
            queues: EdgeQueues::new(parts)?,
            histograms: Histograms::new(parts)?,
            histograms_in_use: 0,
            places_without: Vec::new(),
            methods_without: Vec::new(),
            listeners: SlotTable::new(parts, &slot_table::LISTENERS)?,
            unsent: SlotTable::new(parts, &slot_table::UNSENT)?,
            owners: SlotTable::new(parts, &slot_table::OWNERS)?,
            shares: Shares::new(parts)?,
            known_owners: HashMap::new(),
            ledger: parts.map(&maps::LEDGER)?,
            ring,
            answers,
            iterate_sockets,
            table,
            ports,
            open_binds: true,
            connect_ns: 0,
            expired_ns: 0,
            last: Vec::new(),
            shards,
            cpus: possible_cpus()?,
        })
    }

    /// Reads everything; `now_ns` is CLOCK_MONOTONIC.
    pub fn run(&mut self, now_ns: u64) -> anyhow::Result<Drained> {
        let mut drained = Drained::default();
        // First, so that no call is in vain: what is seen after a call was there before.
        while drained.events.len() < MAX_EVENTS {
            let Some(record) = self.ring.next() else { break };
            match decode::event(&record) {
                Ok(event) => drained.events.push(event),
                Err(_) => drained.malformed_events += 1,
            }
        }
        if !self.queues.are_empty() {
            let ledger = self.ledger().context("reading the ledger")?;
            self.queues.take(self.edges.reached(&ledger)).context("emptying the queues")?;
        }
        drained.listeners = self.iterate_sockets().context("iterating over the sockets")?;
        // A connect that was refused is only found once it is overdue.
        if self.open_binds || self.connect_ns.saturating_add(2 * OVERDUE_NS) > self.expired_ns {
            self.ports.expire_attempts().context("expiring binds and connects")?;
            self.expired_ns = now_ns;
        }
        // The ledger before the tables: what is counted in between shows as exported first.
        drained.ledger = self.ledger().context("reading the ledger")?;
        let slots = self.edges.reached(&drained.ledger);
        let take = || self.queues.take(slots).context("reading queues");
        drained.queues = drained.listeners.is_some().then(take).transpose()?;
        self.connect_ns = drained.ledger.connect_ns;
        let now_us = now_ns / 1000;
        drained.owners = self.new_owners(&drained.ledger, now_us).context("reading owners")?;
        drained.edges = self.read_edges(&drained.ledger, now_us).context("reading edges")?;
        drained.listener_rows =
            self.listeners.rows(&drained.ledger, now_us).context("reading rows of listeners")?;
        drained.unsent =
            self.unsent.rows(&drained.ledger, now_us).context("reading refused connects")?;
        drained.bound = self.ports.bound().context("listing bound sockets")?;
        drained.bind_failures =
            self.ports.failures(&drained.ledger, now_us).context("reading failed binds")?;
        self.open_binds = open_binds(&drained);
        self.shares.forget_empty(now_ns).context("looking through the tenants")?;
        for _ in 0..MAX_ANSWERS {
            let Some(record) = self.answers.next() else { break };
            match dns::answer(&record) {
                Ok(answer) => drained.answers.push(answer),
                Err(_) => drained.malformed_answers += 1,
            }
        }
        Ok(drained)
    }

    /// Readable when the kernel half calls: something has ended, and what was counted until then
    /// should be read before something else begins.
    pub fn calls(&self) -> io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }

    /// Tables: name, rows in use, rows there are.
    pub fn fill(&self, drained: &Drained) -> [(&'static str, u64, u64); 6] {
        let failures = in_use(&drained.bind_failures);
        let edges = drained.edges_in_use();
        let (listeners, unsent) = (in_use(&drained.listener_rows), in_use(&drained.unsent));
        [
            ("bind_failures", failures, self.ports.capacity()),
            ("edges", edges as u64, u64::from(self.edges.capacity())),
            ("histograms", self.histograms_in_use, self.histograms.capacity()),
            ("listeners", listeners, self.listener_capacity()),
            ("owners", self.known_owners.len() as u64, u64::from(self.owners.capacity())),
            ("unsent_connects", unsent, self.unsent_capacity()),
        ]
    }

    /// How many slots for edges there are, without those that are kept back.
    pub fn edge_capacity(&self) -> u64 {
        u64::from(self.edges.capacity()).saturating_sub(self.held_edges())
    }

    /// How many rows for owners there are.
    pub fn owner_capacity(&self) -> u64 {
        u64::from(self.owners.capacity())
    }

    /// How many free slots are kept back.
    pub fn held_edges(&self) -> u64 {
        self.edges.held() as u64
    }

    /// Has about `wanted` free slots on offer, or all of them, when `in_use` are taken.
    pub fn offer_edges(&mut self, in_use: usize, wanted: Option<u64>) -> io::Result<()> {
        self.edges.offer(in_use, wanted.map(|wanted| wanted as usize))
    }

    /// Takes an edge's slot back, one step at a time.
    pub fn reclaim_edge(&mut self, step: &Reclaim<EdgeKey>) -> io::Result<()> {
        if let Reclaim::Free(slot) = step {
            let tenant = self.edges.row(*slot)?.tenant();
            for shard in 0..self.shards {
                let index = *slot as usize * self.shards + shard;
                // The numbers first: from here on no hook finds the rows.
                let mut numbers = [NO_HISTOGRAM; KINDS];
                for (kind, number) in numbers.iter_mut().enumerate() {
                    let at = durations::offset_of(kind);
                    *number = self.counters.swap_word(index, at, NO_HISTOGRAM)?;
                }
                let operations = numbers.get(OPERATION).copied().filter(|number| is_own(*number));
                let of_methods = operations.map(|number| self.histograms.of_operations(number));
                if let Some(of_methods) = of_methods.transpose()? {
                    self.histograms.give_back(&of_methods, tenant)?;
                }
                self.histograms.give_back(&numbers, tenant)?;
                self.counters_map.insert(&(index as u32), &HotCounters::zeroed())?;
            }
            if let Some(last) = self.last.get_mut(*slot as usize) {
                *last = None;
            }
        }
        self.edges.reclaim(step)
    }

    /// How many rows of listeners there are.
    pub fn listener_capacity(&self) -> u64 {
        u64::from(self.listeners.capacity())
    }

    /// Takes a listener's row back, one step at a time.
    pub fn reclaim_listener(&mut self, step: &Reclaim<ListenerKey>) -> io::Result<()> {
        self.listeners.reclaim(step)
    }

    /// How many rows of refused connects there are.
    pub fn unsent_capacity(&self) -> u64 {
        u64::from(self.unsent.capacity())
    }

    /// Takes a row of refused connects back, one step at a time.
    pub fn reclaim_unsent(&mut self, step: &Reclaim<UnsentKey>) -> io::Result<()> {
        self.unsent.reclaim(step)
    }

    /// Takes in which cgroups at the first level are a user's, by id and user.
    pub fn set_delegated(&self, cgroups: &HashMap<u64, u32>) -> io::Result<()> {
        self.shares.set_delegated(cgroups)
    }

    /// Takes an owner's row back, one step at a time.
    pub fn reclaim_owner(&mut self, step: &Reclaim<OwnerKey>) -> io::Result<()> {
        self.owners.reclaim(step)?;
        if let Reclaim::Free(slot) = step {
            self.known_owners.remove(slot);
        }
        Ok(())
    }

    fn iterate_sockets(&mut self) -> io::Result<Option<Vec<ListenerRecord>>> {
        if self.iterate_sockets.is_none() && self.table.is_none() {
            return Ok(None);
        }
        let mut listeners = Vec::new();
        // Where there is a table, mostly all sockets have their state there.
        if let Some(link) = &self.iterate_sockets
            && (self.table.is_none() || self.ledger()?.spilled != 0)
        {
            listeners = ports::records(link.as_fd())?;
        }
        if let Some(table) = &mut self.table {
            listeners.extend(table.visit()?);
        }
        ports::once(&mut listeners, |listener| listener.cookie);
        Ok(Some(listeners))
    }

    /// The kernel's part of the ledger, of all CPUs.
    fn ledger(&self) -> io::Result<Ledger> {
        let mut sum = Ledger::zeroed();
        self.ledger.lookup_per_cpu(&0, self.cpus)?.iter().for_each(|cpu| sum.merge(cpu));
        Ok(sum)
    }

    /// Owners that were not read yet.
    fn new_owners(&mut self, ledger: &Ledger, now_us: u64) -> io::Result<Vec<(u32, OwnerRow)>> {
        let mut new = Vec::new();
        for slot in self.owners.reached(ledger) {
            let Some(born_us) = self.owners.born_us(slot, now_us)? else { continue };
            if slot != OWNER_OVERFLOW && self.known_owners.insert(slot, born_us) != Some(born_us) {
                new.push((slot, self.owners.row(slot)?));
            }
        }
        Ok(new)
    }
}

/// Rows that are taken.
fn in_use<R: SlotRow>(rows: &[Row<R>]) -> u64 {
    rows.iter().filter(|row| row.slot >= R::RESERVED).count() as u64
}

/// Whether binds have begun that neither succeeded nor failed yet.
fn open_binds(drained: &Drained) -> bool {
    let counted: u64 = drained.bind_failures.iter().map(|claim| claim.row.count).sum();
    let lost: u64 = drained.ledger.lost[BIND].iter().sum();
    drained.ledger.seen[BIND] > counted.saturating_add(lost)
}

/// How many CPUs this kernel may ever have: per-CPU values come in that many copies.
fn possible_cpus() -> anyhow::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("reading {path}: {error}"))
}
