//! A kernel half and a host made of plain tables: hooks count in them as the real ones do, and
//! every fact that is counted is written down a second time, as what people must be told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use agent_common::address::{self, Address};
use agent_common::attempt::AttemptKey;
use agent_common::counters::EdgeCounters;
use agent_common::decode::Event;
use agent_common::decode::dns::{Answer, Resolution};
use agent_common::drained::{Edge, Row, Table};
use agent_common::edge::{
    CONNECT_OK, CONNECT_OTHER, CONNECT_REFUSED, CONNECT_UNREACHABLE, EdgeKey, FIRST_FREE_SLOT,
    ROLE_CLIENT,
};
use agent_common::ledger::{
    CONNECTION, EDGE, EVENT, Ledger, NO_OWNER, NO_SLOT, OWNER, REQUEST, RESET, RING_FULL, SOCKET,
};
use agent_common::listener::{LISTENER_OVERFLOW, ListenerKey, ListenerRecord, ListenerRow};
use agent_common::owner::{OWNER_OVERFLOW, OwnerKey, OwnerRow};
use agent_common::slot_table::{Reclaim, SlotRow};
use agent_common::unsent::{UNSENT_OVERFLOW, UnsentKey, UnsentRow};
use agent_common::wire::Wire as _;

use crate::pipeline::host::{HeldBy, Host};
use crate::pipeline::kernel::Kernel;
use hashbrown::HashMap;
use linux::addresses::{Held, Reach};
use linux::current_holders::Bound;
use linux::existing::Survey;
use linux::inspection::Inspection;
use linux::probes::Pending;
use loader::drain::Drained;
use model::enforcement::Verdicts;
use model::probes::ProbesView;
use model::snapshot::{Disabled, HookView, MapView};

/// The port that everybody listens on and connects to.
pub(super) const PORT: u16 = 80;
/// Records that the ring holds.
const RING: usize = 4;

/// Handles to one world.
#[derive(Clone)]
pub(super) struct Fake {
    world: Arc<Mutex<World>>,
    is_adopted: bool,
}

/// Tables of the kernel half, and the host around it.
pub(super) struct World {
    pub now_us: u64,
    owners: Slots<OwnerKey, OwnerRow>,
    /// Rows that were reported.
    reported: BTreeMap<u32, u64>,
    edges: Slots<EdgeKey, EdgeSlot>,
    listener_rows: Slots<ListenerKey, ListenerRow>,
    unsent: Slots<UnsentKey, UnsentRow>,
    /// Rows for durations that no edge has.
    free_histograms: u32,
    listeners: Vec<ListenerRecord>,
    ledger: Ledger,
    ring: Vec<Event>,
    dns: Vec<Answer>,
    /// Really dropped connection requests, by namespace.
    drops: BTreeMap<u32, u64>,
    /// What people must be told.
    pub truth: Truth,
    /// Questions to the host without an answer.
    questions: Vec<Question>,
    /// Whether questions are answered at once.
    pub answers_at_once: bool,
    /// Whether slots of edges were given back since this was last looked at.
    pub has_freed: bool,
    /// Ends of pipes that must stay open.
    silence: Vec<io::PipeWriter>,
}

/// Answers when it is called.
type Question = Box<dyn FnOnce(&World) + Send>;

/// Totals by the name of the near end; `other` for what found no row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    pub connects: BTreeMap<String, u64>,
    pub requests: BTreeMap<String, u64>,
    pub resets: BTreeMap<String, u64>,
    pub drops: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct EdgeSlot {
    key: EdgeKey,
    born_us: u64,
    counters: EdgeCounters,
    /// Whether it has a row for requests.
    has_histogram: bool,
}

/// A table of rows with an index, as both halves share it.
struct Slots<K, R> {
    index: BTreeMap<Vec<u8>, u32>,
    rows: BTreeMap<u32, R>,
    free: BTreeSet<u32>,
    keys: std::marker::PhantomData<K>,
}

// === impl Slots ===

impl<K: agent_common::wire::Wire, R> Slots<K, R> {
    fn new(first: u32, count: u32) -> Self {
        let (index, rows) = (BTreeMap::new(), BTreeMap::new());
        Self { index, rows, free: (first..first + count).collect(), keys: std::marker::PhantomData }
    }

    /// The slot of a key, and whether it was taken just now; none if all are taken.
    fn find_or_take(&mut self, key: &K, row: impl FnOnce() -> R) -> Option<(u32, bool)> {
        if let Some(slot) = self.index.get(key.as_bytes()) {
            return Some((*slot, false));
        }
        let slot = self.free.pop_first()?;
        self.index.insert(key.as_bytes().to_vec(), slot);
        self.rows.insert(slot, row());
        Some((slot, true))
    }

    /// An agent that took the tables over may forget a key that an earlier one has forgotten, and
    /// that was taken again since: then another row is taken the next time.
    fn forget(&mut self, key: &K) {
        self.index.remove(key.as_bytes());
    }

    fn capacity(&self) -> u64 {
        (self.free.len() + self.rows.len()) as u64
    }

    fn free(&mut self, slot: u32) -> R {
        assert!(!self.index.values().any(|other| *other == slot), "freed before it was forgotten");
        assert!(self.free.insert(slot), "freed twice");
        self.rows.remove(&slot).expect("a row that is in use")
    }
}

// === impl EdgeSlot ===

impl EdgeSlot {
    fn new(key: EdgeKey, born_us: u64) -> Self {
        Self { key, born_us, counters: EdgeCounters::ZERO, has_histogram: false }
    }
}

// === impl World ===

impl World {
    /// `edges` and `owners` are the sizes of the tables.
    pub(super) fn new(owners: u32, edges: u32) -> Self {
        Self {
            now_us: 1_000_000_000,
            owners: Slots::new(OWNER_OVERFLOW + 1, owners),
            reported: BTreeMap::new(),
            edges: Slots::new(FIRST_FREE_SLOT, edges),
            listener_rows: Slots::new(ListenerRow::RESERVED, edges / 4),
            unsent: Slots::new(UnsentRow::RESERVED, edges / 2),
            free_histograms: edges / 2,
            listeners: Vec::new(),
            ledger: Ledger::zeroed(),
            ring: Vec::new(),
            dns: Vec::new(),
            drops: BTreeMap::new(),
            truth: Truth::default(),
            questions: Vec::new(),
            answers_at_once: true,
            has_freed: false,
            silence: Vec::new(),
        }
    }

    /// The row of a program in its own network namespace.
    fn owner(&mut self, program: u32) -> u32 {
        let mut key = OwnerKey { netns: 100 + program, app: 0, cgroup: 0, comm: [0; 16] };
        let name = name_of(program);
        key.comm[..name.len()].copy_from_slice(name.as_bytes());
        let now_us = self.now_us;
        let row = || {
            let mut row = OwnerRow { key, born_us: now_us, ..OwnerRow::zeroed() };
            row.argv[..name.len()].copy_from_slice(name.as_bytes());
            OwnerRow { argv_len: name.len() as u32 + 1, ..row }
        };
        if let Some((slot, is_new)) = self.owners.find_or_take(&key, row) {
            self.ledger.seen[OWNER] += u64::from(is_new);
            return slot;
        }
        self.ledger.seen[OWNER] += 1;
        self.ledger.lost[OWNER][NO_OWNER] += 1;
        OWNER_OVERFLOW
    }

    /// Counts into the row of an edge; returns its slot and how its near end is called.
    fn count(&mut self, key: EdgeKey, count: impl FnOnce(&mut EdgeCounters)) -> (u32, String) {
        let born_us = self.now_us;
        let row = || EdgeSlot::new(key, born_us);
        let taken = self.edges.find_or_take(&key, row);
        let slot = self.count_key(taken, u32::from(key.role));
        if taken.is_none() {
            let key = EdgeKey { role: key.role, ..EdgeKey::zeroed() };
            self.edges.rows.entry(slot).or_insert_with(|| EdgeSlot::new(key, 0));
        }
        let row = self.edges.rows.get_mut(&slot).expect("taken");
        count(&mut row.counters);
        (slot, self.name(slot))
    }

    /// How the near end of a slot is called.
    fn name(&self, slot: u32) -> String {
        let owner = self.edges.rows.get(&slot).map_or(OWNER_OVERFLOW, |row| row.key.owner);
        self.name_of_owner(owner)
    }

    fn name_of_owner(&self, owner: u32) -> String {
        let row = self.owners.rows.get(&owner);
        row.map_or_else(|| "other".to_owned(), |row| comm(&row.key))
    }

    /// Takes note of what became of a key that has its table's row `taken`, or the overflow row.
    fn count_key(&mut self, taken: Option<(u32, bool)>, overflow: u32) -> u32 {
        let is_new = taken.is_none_or(|(_, is_new)| is_new);
        self.ledger.seen[EDGE] += u64::from(is_new);
        self.ledger.lost[EDGE][NO_SLOT] += u64::from(taken.is_none());
        taken.map_or(overflow, |(slot, _)| slot)
    }

    /// A program connects, or is refused.
    pub(super) fn connect(&mut self, program: u32, to: u32, is_ok: bool) {
        let key = self.client(program, to);
        let result = if is_ok { CONNECT_OK } else { CONNECT_REFUSED };
        let (slot, name) = self.count(key, |counters| {
            counters.connects[usize::from(result)] += 1;
            counters.opened += u64::from(is_ok);
        });
        self.ledger.seen[CONNECTION] += 1;
        self.ledger.seen[SOCKET] += 1;
        *self.truth.connects.entry(name).or_default() += 1;
        if !is_ok {
            let remote = address::to_ip(key.remote);
            let time_ns = self.now_us * 1000;
            self.event(Event::ConnectFailed {
                owner: key.owner,
                time_ns,
                slot,
                remote,
                port: PORT,
                result: "refused",
                errno: libc::ECONNREFUSED,
                elapsed_us: 1,
            });
        }
    }

    /// The kernel refuses to connect before a SYN.
    pub(super) fn connect_unsent(&mut self, program: u32, to: u32) {
        let EdgeKey { owner, port, remote, .. } = self.client(program, to);
        let (key, born_us) = (UnsentKey { owner, port, local_port: 0, remote }, self.now_us);
        let row = || UnsentRow { key, born_us, ..UnsentRow::zeroed() };
        let taken = self.unsent.find_or_take(&key, row);
        let slot = self.count_key(taken, UNSENT_OVERFLOW);
        let row = self.unsent.rows.entry(slot).or_insert(UnsentRow::zeroed());
        row.count += 1;
        let owner = row.key.owner;
        let name = self.name_of_owner(owner);
        self.ledger.seen[CONNECTION] += 1;
        *self.truth.connects.entry(name).or_default() += 1;
    }

    fn client(&mut self, program: u32, to: u32) -> EdgeKey {
        let owner = self.owner(program);
        EdgeKey { owner, port: PORT, role: ROLE_CLIENT, zero: 0, remote: address_of(to) }
    }

    /// All open connections of a slot end.
    pub(super) fn close(&mut self, nth: usize) {
        let slots: Vec<u32> = self.edges.rows.keys().copied().collect();
        let Some(slot) = slots.get(nth % slots.len().max(1)) else { return };
        let counters = &mut self.edges.rows.get_mut(slot).expect("there").counters;
        counters.closed = counters.opened;
    }

    /// An answer comes on an open connection.
    pub(super) fn request(&mut self, nth: usize, us: u64) {
        let Some((slot, _)) = self.open(nth) else { return };
        let row = self.edges.rows.get_mut(&slot).expect("open");
        let takes_one = slot >= FIRST_FREE_SLOT && !row.has_histogram && self.free_histograms > 0;
        self.free_histograms -= u32::from(takes_one);
        row.has_histogram |= takes_one;
        let (role, has_one) = (row.key.role, row.has_histogram);
        // Without a row of its own: in that of all others of its role.
        let slot = if has_one { slot } else { role.into() };
        let key = EdgeKey { role, ..EdgeKey::zeroed() };
        let row = self.edges.rows.entry(slot).or_insert_with(|| EdgeSlot::new(key, 0));
        row.counters.request.observe(us);
        let name = self.name(slot);
        self.ledger.seen[REQUEST] += 1;
        *self.truth.requests.entry(name).or_default() += 1;
    }

    /// An open connection is reset.
    pub(super) fn reset(&mut self, nth: usize) {
        let Some((slot, name)) = self.open(nth) else { return };
        let counters = &mut self.edges.rows.get_mut(&slot).expect("open").counters;
        counters.resets_received[1] += 1;
        counters.closed += 1;
        self.ledger.seen[RESET] += 1;
        *self.truth.resets.entry(name).or_default() += 1;
    }

    fn open(&self, nth: usize) -> Option<(u32, String)> {
        let open: Vec<u32> = self
            .edges
            .rows
            .iter()
            .filter(|(_, row)| row.counters.active() > 0)
            .map(|(slot, _)| *slot)
            .collect();
        let slot = *open.get(nth % open.len().max(1))?;
        Some((slot, self.name(slot)))
    }

    /// A record for the ring, if there is room.
    fn event(&mut self, event: Event) {
        self.ledger.seen[EVENT] += 1;
        if self.ring.len() < RING {
            self.ring.push(event);
        } else {
            self.ledger.lost[EVENT][RING_FULL] += 1;
        }
    }

    /// A program listens, which names the address of its namespace, or stops to.
    pub(super) fn listen(&mut self, program: u32) {
        let owner = self.owner(program);
        let netns = 100 + program;
        if let Some(index) = self.listeners.iter().position(|one| one.netns == netns) {
            self.listeners.remove(index);
            return;
        }
        if owner == OWNER_OVERFLOW {
            return;
        }
        let record =
            ListenerRecord { owner, netns, port: PORT, family: 2, ..ListenerRecord::zeroed() };
        self.listeners.push(record);
    }

    /// A listener's socket drops a packet: a connection request, or something else.
    pub(super) fn drop_at_listener(&mut self, program: u32, is_request: bool) {
        let netns = 100 + program;
        let Some(listener) = self.listeners.iter().find(|one| one.netns == netns) else { return };
        let owner = listener.owner;
        let key = ListenerKey { owner, port: PORT, zero: 0, address: address::UNSPECIFIED };
        let born_us = self.now_us;
        let row = || ListenerRow { key, born_us, ..ListenerRow::zeroed() };
        let taken = self.listener_rows.find_or_take(&key, row);
        let slot = self.count_key(taken, LISTENER_OVERFLOW);
        if slot == LISTENER_OVERFLOW {
            return;
        }
        self.listener_rows.rows.get_mut(&slot).expect("there").drops += 1;
        let name = self.name_of_owner(owner);
        if is_request {
            *self.drops.entry(netns).or_default() += 1;
            *self.truth.drops.entry(name).or_default() += 1;
        }
    }

    /// A DNS server tells a program a name of an address.
    pub(super) fn resolve(&mut self, program: u32, of: u32) {
        self.ledger.seen[agent_common::ledger::DNS_ANSWER] += 1;
        let resolution = Resolution {
            name: format!("host-{of}.example"),
            addresses: vec![(address::to_ip(address_of(of)), 600)],
        };
        self.dns.push(Answer { netns: 100 + program, time_ns: self.now_us * 1000, resolution });
    }

    /// The host answers what it was asked.
    pub(super) fn answer(&mut self) {
        for answer in std::mem::take(&mut self.questions) {
            answer(self);
        }
    }

    /// What was asked is given up.
    pub(super) fn give_up(&mut self) {
        self.questions.clear();
    }

    /// Whether the host owes answers.
    pub(super) fn owes_answers(&self) -> bool {
        !self.questions.is_empty()
    }

    /// What an agent that takes the tables over can tell.
    pub(super) fn adopt(&mut self) {
        self.questions.clear();
        self.reported.clear();
        let mut truth = Truth::default();
        for (slot, row) in &self.edges.rows {
            let name = self.name(*slot);
            let EdgeSlot { counters, .. } = row;
            let connects = counters.connects.iter().sum::<u64>();
            let resets = counters.resets_received.iter().sum::<u64>();
            for (totals, count) in [
                (&mut truth.connects, connects),
                (&mut truth.requests, counters.request.count()),
                (&mut truth.resets, resets),
            ] {
                if count > 0 {
                    *totals.entry(name.clone()).or_default() += count;
                }
            }
        }
        for row in self.unsent.rows.values() {
            *truth.connects.entry(self.name_of_owner(row.key.owner)).or_default() += row.count;
        }
        self.truth = truth;
    }

    fn ask<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (reply, pending) = Pending::channel();
        let answer = move |world: &Self| {
            let _ = reply.try_send(look(world));
        };
        if self.answers_at_once {
            answer(self);
        } else {
            self.questions.push(Box::new(answer));
        }
        pending
    }
}

// === impl Fake ===

impl Fake {
    pub(super) fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), is_adopted: false }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while it was locked")
    }

    /// The same tables for an agent that takes them over.
    pub(super) fn adopted(&self) -> Self {
        self.world().adopt();
        Self { world: Arc::clone(&self.world), is_adopted: true }
    }
}

impl Kernel for Fake {
    fn drain(&mut self, _now_ns: u64) -> anyhow::Result<Drained> {
        let mut world = self.world();
        let World { owners, reported, edges, listener_rows, unsent, .. } = &mut *world;
        let is_new = |(index, row): &(&u32, &OwnerRow)| {
            reported.insert(**index, row.born_us) != Some(row.born_us)
        };
        Ok(Drained {
            owners: owners.rows.iter().filter(is_new).map(|(i, row)| (*i, *row)).collect(),
            edges: edges
                .rows
                .iter()
                .map(|(slot, EdgeSlot { key, born_us, counters, .. })| Edge {
                    table: Table::Edges,
                    slot: *slot,
                    key: *key,
                    local: address::UNSPECIFIED,
                    remote: key.remote,
                    born_us: *born_us,
                    counters: Arc::new(counters.clone()),
                })
                .collect(),
            listener_rows: rows(listener_rows),
            unsent: rows(unsent),
            listeners: Some(world.listeners.clone()),
            ledger: world.ledger,
            events: std::mem::take(&mut world.ring),
            answers: std::mem::take(&mut world.dns),
            ..Drained::default()
        })
    }

    fn reclaim_edge(&mut self, step: &Reclaim<EdgeKey>) -> io::Result<()> {
        let mut world = self.world();
        match step {
            Reclaim::Forget(key) => world.edges.forget(key),
            Reclaim::Free(slot) => {
                let row = world.edges.free(*slot);
                world.free_histograms += u32::from(row.has_histogram);
                world.has_freed = true;
            }
        }
        Ok(())
    }

    fn reclaim_listener(&mut self, step: &Reclaim<ListenerKey>) -> io::Result<()> {
        let mut world = self.world();
        match step {
            Reclaim::Forget(key) => world.listener_rows.forget(key),
            Reclaim::Free(slot) => {
                world.listener_rows.free(*slot);
                world.has_freed = true;
            }
        }
        Ok(())
    }

    fn reclaim_unsent(&mut self, step: &Reclaim<UnsentKey>) -> io::Result<()> {
        let mut world = self.world();
        match step {
            Reclaim::Forget(key) => world.unsent.forget(key),
            Reclaim::Free(slot) => {
                world.unsent.free(*slot);
                world.has_freed = true;
            }
        }
        Ok(())
    }

    fn reclaim_owner(&mut self, step: &Reclaim<OwnerKey>) -> io::Result<()> {
        let mut world = self.world();
        match step {
            Reclaim::Forget(key) => world.owners.forget(key),
            Reclaim::Free(index) => {
                let edges = world.edges.rows.values().map(|row| row.key.owner);
                let listeners = world.listener_rows.rows.values().map(|row| row.key.owner);
                let unsent = world.unsent.rows.values().map(|row| row.key.owner);
                let used = edges.chain(listeners).chain(unsent).any(|owner| owner == *index);
                assert!(!used, "an owner is freed while an edge is its");
                world.owners.free(*index);
                world.reported.remove(index);
            }
        }
        Ok(())
    }

    fn reclaim_bind_failure(&mut self, _step: &Reclaim<AttemptKey>) -> io::Result<()> {
        unreachable!("no bind fails here")
    }

    fn edge_capacity(&self) -> u64 {
        self.world().edges.capacity()
    }

    fn owner_capacity(&self) -> u64 {
        self.world().owners.capacity()
    }

    fn held_edges(&self) -> u64 {
        0
    }

    fn offer_edges(&mut self, _in_use: usize, wanted: Option<u64>) -> io::Result<()> {
        assert_eq!(wanted, None, "memory has no limit");
        Ok(())
    }

    fn listener_capacity(&self) -> u64 {
        self.world().listener_rows.capacity()
    }

    fn unsent_capacity(&self) -> u64 {
        self.world().unsent.capacity()
    }

    fn bind_failure_capacity(&self) -> u64 {
        1
    }

    fn enforce(&mut self, verdicts: Verdicts) -> io::Result<()> {
        assert!(verdicts.verdicts.is_empty(), "nothing is reserved");
        Ok(())
    }

    fn hooks(&self) -> Vec<HookView> {
        Vec::new()
    }

    fn maps(&self, _drained: &Drained) -> Vec<MapView> {
        Vec::new()
    }

    fn disabled(&self) -> Vec<Disabled> {
        Vec::new()
    }

    fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    fn reads_dns(&self) -> bool {
        true
    }

    fn calls(&self) -> io::Result<OwnedFd> {
        // Nobody ever writes there.
        let (calls, silence) = io::pipe()?;
        self.world().silence.push(silence);
        Ok(calls.into())
    }
}

impl Host for Fake {
    fn addresses(&self, _known: &[Held]) -> Pending<Survey> {
        let addresses = (0..8)
            .map(|program| Held {
                netns: 100 + program,
                address: address_of(program),
                reach: Reach::Host,
            })
            .collect();
        self.world().ask(|_| Ok(Survey { addresses, ..Survey::default() }))
    }

    fn listen_drops(&self, netns: u32, _tgid: u32) -> Pending<Option<u64>> {
        self.world().ask(move |world| Ok(Some(world.drops.get(&netns).copied().unwrap_or(0))))
    }

    fn refusal(&self, _netns: u32, _tgid: u32, _local: u16, remote: SocketAddr) -> Pending<u8> {
        let is_even = remote.ip().is_ipv4();
        self.world().ask(move |_| Ok(if is_even { CONNECT_UNREACHABLE } else { CONNECT_OTHER }))
    }

    fn sockets(&self, _netns: u32, _processes: Vec<u32>) -> Pending<Inspection> {
        unreachable!("no bind fails here")
    }

    fn holder(&self, _bound: Bound, _netns: u32) -> Pending<HeldBy> {
        unreachable!("no bind fails here")
    }

    fn holders(&self, _bound: Vec<(u32, Bound)>) -> Pending<HashMap<u32, HeldBy>> {
        unreachable!("no ports are bound here")
    }

    fn proxy_arguments(&self, _tgid: u32) -> Pending<Vec<u8>> {
        unreachable!("no ports are bound here")
    }

    fn probes(&self) -> ProbesView {
        ProbesView::default()
    }
}

/// Rows of a table as a drain reads them.
fn rows<R: SlotRow>(table: &Slots<R::Key, R>) -> Vec<Row<R>> {
    table.rows.iter().map(|(slot, row)| Row { slot: *slot, row: *row }).collect()
}

/// How a program is called.
pub(super) fn name_of(program: u32) -> String {
    format!("program{program}")
}

fn comm(key: &OwnerKey) -> String {
    let end = key.comm.iter().position(|byte| *byte == 0).unwrap_or(key.comm.len());
    String::from_utf8_lossy(&key.comm[..end]).into_owned()
}

/// The address of the namespace of a program.
fn address_of(program: u32) -> Address {
    address::from_ip(Ipv4Addr::new(10, 0, 0, 1 + program as u8).into())
}
