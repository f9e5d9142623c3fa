//! Reads what the kernel half counted. Tables are read through mmap without system calls; the
//! sweep brings them up to date first; the ring is emptied by timer.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use agent_common::bound::BoundRecord;
use agent_common::claim::OVERDUE_NS;
use agent_common::edge::{EdgeCounters, EdgeKey, EdgeRow, FIRST_FREE_SLOT};
use agent_common::ledger::{BIND, CLAIMS, EDGES, Ledger, OWNERS};
use agent_common::listener::ListenerRecord;
use agent_common::owner::{OWNER_OVERFLOW, OwnerKey, OwnerRow};
use agent_common::wire::Wire as _;
use anyhow::Context as _;
use aya::maps::{Map as AyaMap, MapData, RingBuf};
use hashbrown::HashMap;

use super::bpf::{self, Map, Mapped};
use super::object::Parts;
use super::ports::{self, Ports};
use super::spare::Spare;
use agent_common::decode::dns::{self, Answer};
use agent_common::decode::{self, Event};
use agent_common::drained::Claim;
use agent_common::drained::Edge;

/// At most this many records leave the ring in one drain, so that a flood cannot stall it.
const MAX_EVENTS: usize = 4096;

/// The same for answers of DNS servers.
const MAX_ANSWERS: usize = 4096;

/// What one drain found.
#[derive(Default)]
pub struct Drained {
    /// Owner rows that are new since the last drain.
    pub owners: Vec<(u32, OwnerRow)>,
    /// Every edge in use.
    pub edges: Vec<Edge>,
    /// Every listener; `None` if the sweep could not run.
    pub listeners: Option<Vec<ListenerRecord>>,
    /// Failed binds, and how many did not fail.
    pub claims: Vec<Claim>,
    /// Every socket that holds a port, as far as the hooks know; `None` if they cannot tell.
    pub bound: Option<Vec<BoundRecord>>,
    /// The kernel's part of the ledger.
    pub ledger: Ledger,
    /// Records from the ring.
    pub events: Vec<Event>,
    /// Records that could not be read.
    pub malformed_events: u64,
    /// What DNS servers have told programs.
    pub answers: Vec<Answer>,
    /// Answers that could not be read.
    pub malformed_answers: u64,
}

/// A row is read when it is so old, microseconds. The store that publishes it comes last, but there
/// are processors (aarch64) that may show it before those that it announces.
const YOUNG_US: u64 = 10;

/// The reading side of the kernel half.
pub struct Drain {
    edges: Map<EdgeKey, u32>,
    edge_rows: Map<u32, EdgeRow>,
    spare: Spare,
    rows: Mapped<EdgeRow>,
    counters: Mapped<EdgeCounters>,
    counters_map: Map<u32, EdgeCounters>,
    owners: Map<OwnerKey, u32>,
    owner_rows_map: Map<u32, OwnerRow>,
    owner_free: Map<(), u32>,
    owner_rows: Mapped<OwnerRow>,
    known_owners: HashMap<u32, u64>,
    ledger: Map<u32, Ledger>,
    ring: RingBuf<MapData>,
    answers: RingBuf<MapData>,
    sweep: Option<OwnedFd>,
    /// The bind hooks.
    pub ports: Ports,
    /// Whether binds were under way at the last drain, and when a program had asked for a
    /// connection by then, CLOCK_MONOTONIC nanoseconds.
    open_binds: bool,
    connect_ns: u64,
    /// When those that said nothing were last looked for.
    settled_ns: u64,
    /// What each slot had counted at the last drain: shared with whoever still looks at it, and
    /// the same again if nothing has moved.
    last: Vec<Option<Arc<EdgeCounters>>>,
    shards: usize,
    cpus: usize,
}

impl Drain {
    /// Takes over the maps it reads. `sweep` is the program to run before each drain.
    pub fn new(
        parts: &mut Parts,
        shards: usize,
        sweep: Option<OwnedFd>,
        ports: Ports,
    ) -> anyhow::Result<Self> {
        let edge_rows = map::<u32, EdgeRow>(parts, "EDGE_ROWS")?;
        let counters_map = map::<u32, EdgeCounters>(parts, "EDGE_COUNTERS")?;
        let owner_rows_map = map::<u32, OwnerRow>(parts, "OWNER_ROWS")?;
        let sockets = parts.take("SOCKETS")?;
        let sweep = sweep.map(|program| bpf::link_iterator(program.as_fd(), Some(sockets.as_fd())));
        let sweep = sweep.transpose().context("linking the sweep to the table of sockets")?;
        let mut ring = |name| -> anyhow::Result<RingBuf<MapData>> {
            let ring = MapData::from_fd(parts.take(name)?).context("opening a ring")?;
            Ok(RingBuf::try_from(AyaMap::RingBuf(ring))?)
        };
        let (ring, answers) = (ring("EVENTS")?, ring("ANSWERS")?);
        Ok(Self {
            edges: map(parts, "EDGES")?,
            spare: Spare::new(Map::stack(parts.take("EDGE_FREE")?)?),
            rows: edge_rows.mapped().context("EDGE_ROWS")?,
            edge_rows,
            counters: counters_map.mapped().context("EDGE_COUNTERS")?,
            counters_map,
            owners: map(parts, "OWNERS")?,
            owner_free: Map::stack(parts.take("OWNER_FREE")?)?,
            owner_rows: owner_rows_map.mapped().context("OWNER_ROWS")?,
            owner_rows_map,
            known_owners: HashMap::new(),
            ledger: map(parts, "LEDGER")?,
            ring,
            answers,
            sweep,
            ports,
            open_binds: true,
            connect_ns: 0,
            settled_ns: 0,
            last: Vec::new(),
            shards,
            cpus: possible_cpus()?,
        })
    }

    /// Reads everything; `now_ns` is CLOCK_MONOTONIC.
    pub fn run(&mut self, now_ns: u64) -> anyhow::Result<Drained> {
        let mut drained = Drained::default();
        // First, so that nobody is called for nothing: what is seen after a call was there before.
        while drained.events.len() < MAX_EVENTS {
            let Some(record) = self.ring.next() else { break };
            match decode::event(&record) {
                Ok(event) => drained.events.push(event),
                Err(_) => drained.malformed_events += 1,
            }
        }
        drained.listeners = self.sweep().context("running the sweep")?;
        // A connect that was refused is only found once it is overdue.
        if self.open_binds || self.connect_ns.saturating_add(2 * OVERDUE_NS) > self.settled_ns {
            self.ports.settle().context("settling binds and connects")?;
            self.settled_ns = now_ns;
        }
        // The ledger before the tables: what is counted in between shows as exported first.
        for cpu in self.ledger.lookup_per_cpu(&0, self.cpus).context("reading the ledger")? {
            drained.ledger.merge(&cpu);
        }
        self.connect_ns = drained.ledger.connect_ns;
        let reach = drained.ledger.reach;
        let until_us = (now_ns / 1000).saturating_sub(YOUNG_US);
        self.read_owners(reach[OWNERS], until_us, &mut drained.owners).context("reading owners")?;
        self.read_edges(reach[EDGES], until_us, &mut drained.edges).context("reading edges")?;
        drained.bound = self.ports.bound().context("listing bound sockets")?;
        drained.claims =
            self.ports.claims(reach[CLAIMS], until_us).context("reading failed binds")?;
        self.open_binds = open_binds(&drained);
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
    pub fn fill(&self, edges_in_use: usize, claims_in_use: usize) -> [(&'static str, u64, u64); 3] {
        [
            ("claims", claims_in_use as u64, self.ports.capacity()),
            ("edges", edges_in_use as u64, u64::from(self.edges.max_entries)),
            ("owners", self.known_owners.len() as u64, u64::from(self.owners.max_entries)),
        ]
    }

    /// How many slots for edges there are, without those that are kept back.
    pub fn edge_capacity(&self) -> u64 {
        u64::from(self.edges.max_entries).saturating_sub(self.held_edges())
    }

    /// How many free slots are kept back.
    pub fn held_edges(&self) -> u64 {
        self.spare.held() as u64
    }

    /// Has about `wanted` free slots on offer, or all of them, when `in_use` are taken.
    pub fn offer_edges(&mut self, in_use: usize, wanted: Option<u64>) -> io::Result<()> {
        let slots = self.rows.rows().saturating_sub(FIRST_FREE_SLOT as usize);
        let offered = slots.saturating_sub(in_use).saturating_sub(self.spare.held());
        self.spare.offer(offered, wanted.map(|wanted| wanted as usize))
    }

    /// First half of giving an edge's slot back: new connections no longer find it.
    pub fn forget_edge(&self, key: &EdgeKey) -> io::Result<bool> {
        self.edges.remove(key)
    }

    /// Second half, once nothing moves in it any more: clears the slot and offers it again.
    pub fn free_edge(&mut self, slot: u32) -> io::Result<()> {
        for shard in 0..self.shards as u32 {
            let index = slot * self.shards as u32 + shard;
            self.counters_map.insert(&index, &EdgeCounters::zeroed())?;
        }
        self.edge_rows.insert(&slot, &EdgeRow::zeroed())?;
        self.spare.give(slot)
    }

    /// First half of giving an owner's row back.
    pub fn forget_owner(&self, key: &OwnerKey) -> io::Result<bool> {
        self.owners.remove(key)
    }

    /// Second half.
    pub fn free_owner(&mut self, row: u32) -> io::Result<()> {
        self.owner_rows_map.insert(&row, &OwnerRow::zeroed())?;
        self.known_owners.remove(&row);
        self.owner_free.push(row)
    }

    fn sweep(&self) -> io::Result<Option<Vec<ListenerRecord>>> {
        let Some(link) = &self.sweep else { return Ok(None) };
        ports::records(link.as_fd()).map(Some)
    }

    fn read_owners(
        &mut self,
        reach: u64,
        until_us: u64,
        new: &mut Vec<(u32, OwnerRow)>,
    ) -> io::Result<()> {
        for index in self.owner_rows.up_to(reach, OWNER_OVERFLOW + 1) {
            let row = index as u32;
            let born = self.owner_rows.word(index, offset_of!(OwnerRow, born_us))?;
            if born == 0 || born > until_us {
                continue;
            }
            if self.known_owners.insert(row, born) != Some(born) {
                new.push((row, self.owner_rows.read(index)?));
            }
        }
        Ok(())
    }

    fn read_edges(&mut self, reach: u64, until_us: u64, edges: &mut Vec<Edge>) -> io::Result<()> {
        for index in self.rows.up_to(reach, FIRST_FREE_SLOT) {
            let slot = index as u32;
            let born_us = self.rows.word(index, offset_of!(EdgeRow, born_us))?;
            if born_us == 0 && slot >= FIRST_FREE_SLOT {
                if let Some(last) = self.last.get_mut(index) {
                    *last = None;
                }
                continue;
            }
            if born_us > until_us {
                continue;
            }
            let EdgeRow { key, local, remote, .. } = self.rows.read(index)?;
            let counters = self.read_counters(index)?;
            edges.push(Edge { slot, key, local, remote, born_us, counters });
        }
        Ok(())
    }

    /// What a slot has counted on all shards.
    fn read_counters(&mut self, slot: usize) -> io::Result<Arc<EdgeCounters>> {
        let mut counters = self.counters.read(slot * self.shards)?;
        for shard in 1..self.shards {
            counters.merge(&self.counters.read(slot * self.shards + shard)?);
        }
        if self.last.len() <= slot {
            self.last.resize(slot + 1, None);
        }
        match self.last.get_mut(slot) {
            Some(Some(last)) if **last == counters => Ok(Arc::clone(last)),
            Some(last) => Ok(Arc::clone(last.insert(Arc::new(counters)))),
            None => Ok(Arc::new(counters)),
        }
    }
}

/// Whether binds have begun that neither succeeded nor failed yet.
fn open_binds(drained: &Drained) -> bool {
    let counted: u64 = drained.claims.iter().map(|claim| claim.row.count).sum();
    let lost: u64 = drained.ledger.lost[BIND].iter().sum();
    drained.ledger.seen[BIND] > counted.saturating_add(lost)
}

fn map<K: agent_common::wire::Wire, V: agent_common::wire::Wire>(
    parts: &mut Parts,
    name: &str,
) -> anyhow::Result<Map<K, V>> {
    Map::new(parts.take(name)?).with_context(|| format!("map {name}"))
}

/// How many CPUs this kernel may ever have: per-CPU values come in that many copies.
fn possible_cpus() -> anyhow::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("reading {path}: {error}"))
}
