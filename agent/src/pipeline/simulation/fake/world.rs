//! What happens in the simulated world: hooks count in its tables as the real ones do, and every fact
//! that is counted is written down a second time, as what people must read.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use agent_common::address::{self, Address};
use agent_common::attempt::{
    AttemptKey, BOUND_ROW, FAILURE_OVERFLOW, FIRST_FREE_FAILURE, FailureRow, STEP_BIND,
};
use agent_common::counters::EdgeCounters;
use agent_common::decode::Event;
use agent_common::decode::dns::{Answer, Resolution};
use agent_common::edge::{
    CONNECT_OK, CONNECT_REFUSED, EdgeKey, FIRST_FREE_SLOT, ROLE_CLIENT, ROLE_SERVER,
};
use agent_common::ledger::{
    BIND, CONNECTION, EDGE, EVENT, Ledger, NO_OWNER, NO_SLOT, OWNER, REQUEST, RESET, RING_FULL,
    SOCKET,
};
use agent_common::listener::{LISTENER_OVERFLOW, ListenerKey, ListenerRecord, ListenerRow};
use agent_common::owner::{OWNER_OVERFLOW, OwnerKey, OwnerRow};
use agent_common::queues::Queues;
use agent_common::share::Tenant;
use agent_common::slot_table::SlotRow as _;
use agent_common::unsent::{UNSENT_OVERFLOW, UnsentKey, UnsentRow};
use agent_common::wire::Wire as _;
use linux::probes::Pending;

use super::slots::Slots;

/// The port that everybody listens on and connects to.
pub(in crate::pipeline::simulation) const PORT: u16 = 80;
/// Records that the ring holds.
const RING: usize = 4;

/// Tables of the kernel half, and the host around it.
pub(in crate::pipeline::simulation) struct World {
    pub(in crate::pipeline::simulation) now_us: u64,
    pub(super) owners: Slots<OwnerKey, OwnerRow>,
    /// Rows that were reported.
    pub(super) reported: BTreeMap<u32, u64>,
    pub(super) edges: Slots<EdgeKey, EdgeSlot>,
    pub(super) listener_rows: Slots<ListenerKey, ListenerRow>,
    pub(super) unsent: Slots<UnsentKey, UnsentRow>,
    pub(super) bind_failures: Slots<AttemptKey, FailureRow>,
    /// Rows for durations that no edge has.
    pub(super) free_histograms: u32,
    pub(super) listeners: Vec<ListenerRecord>,
    pub(super) ledger: Ledger,
    pub(super) ring: Vec<Event>,
    pub(super) dns: Vec<Answer>,
    /// Really dropped connection requests, by namespace.
    pub(super) drops: BTreeMap<u32, u64>,
    /// What people must be told.
    pub(in crate::pipeline::simulation) truth: Truth,
    /// Questions to the host without an answer.
    pub(super) questions: Vec<Question>,
    /// Whether questions are answered at once.
    pub(in crate::pipeline::simulation) answers_at_once: bool,
    /// Whether slots of edges were given back since this was last looked at.
    pub(in crate::pipeline::simulation) has_freed: bool,
    /// Network namespaces by their numbers: the cookie of the one that has it now, and its name. Empty:
    /// namespaces cannot be told apart.
    pub(super) namespaces: BTreeMap<u32, (u64, String)>,
    /// Ends of pipes that must stay open.
    pub(super) silence: Vec<io::PipeWriter>,
}

/// Answers when it is called.
type Question = Box<dyn FnOnce(&World) + Send>;

/// Totals by the name of the near end; `other` for what found no row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::pipeline::simulation) struct Truth {
    pub(in crate::pipeline::simulation) connects: BTreeMap<String, u64>,
    pub(in crate::pipeline::simulation) requests: BTreeMap<String, u64>,
    pub(in crate::pipeline::simulation) resets: BTreeMap<String, u64>,
    pub(in crate::pipeline::simulation) drops: BTreeMap<String, u64>,
    /// Failed binds.
    pub(in crate::pipeline::simulation) conflicts: BTreeMap<String, u64>,
}

#[derive(Clone)]
pub(super) struct EdgeSlot {
    pub(super) key: EdgeKey,
    pub(super) born_us: u64,
    pub(super) counters: EdgeCounters,
    /// Whether it has a row for requests.
    pub(super) has_histogram: bool,
}

// === impl EdgeSlot ===

impl EdgeSlot {
    fn new(key: EdgeKey, born_us: u64) -> Self {
        Self { key, born_us, counters: EdgeCounters::ZERO, has_histogram: false }
    }

    /// What the socket iteration finds.
    pub(super) fn queues(&self) -> Queues {
        Queues { open: self.counters.active(), ..Queues::NONE }
    }
}

// === impl World ===

impl World {
    /// `edges` and `owners` are the sizes of the tables.
    pub(in crate::pipeline::simulation) fn new(owners: u32, edges: u32) -> Self {
        Self {
            now_us: 1_000_000_000,
            owners: Slots::new(OWNER_OVERFLOW + 1, owners),
            reported: BTreeMap::new(),
            edges: Slots::new(FIRST_FREE_SLOT, edges),
            listener_rows: Slots::new(ListenerRow::RESERVED, edges / 4),
            unsent: Slots::new(UnsentRow::RESERVED, edges / 2),
            bind_failures: Slots::new(FIRST_FREE_FAILURE, edges / 4),
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
            namespaces: BTreeMap::new(),
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
            // All programs are one tenant's.
            let tenant = Tenant { cgroup: 1, origin: 1 };
            let mut row = OwnerRow { key, born_us: now_us, tenant, ..OwnerRow::zeroed() };
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

    pub(super) fn name_of_owner(&self, owner: u32) -> String {
        let row = self.owners.rows.get(&owner);
        row.map_or_else(|| "other".to_owned(), |row| comm(&row.key))
    }

    /// Whether a row belongs to this owner.
    pub(super) fn uses(&self, owner: u32) -> bool {
        let edges = self.edges.rows.values().map(|row| row.key.owner);
        let listeners = self.listener_rows.rows.values().map(|row| row.key.owner);
        let unsent = self.unsent.rows.values().map(|row| row.key.owner);
        let failures = self.bind_failures.rows.values().map(|row| row.key.owner);
        edges.chain(listeners).chain(unsent).chain(failures).any(|other| other == owner)
    }

    /// Takes note of what became of a key that has its table's row `taken`, or the overflow row.
    fn count_key(&mut self, taken: Option<(u32, bool)>, overflow: u32) -> u32 {
        let is_new = taken.is_none_or(|(_, is_new)| is_new);
        self.ledger.seen[EDGE] += u64::from(is_new);
        self.ledger.lost[EDGE][NO_SLOT] += u64::from(taken.is_none());
        taken.map_or(overflow, |(slot, _)| slot)
    }

    /// A program connects, or is refused.
    pub(in crate::pipeline::simulation) fn connect(&mut self, program: u32, to: u32, is_ok: bool) {
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

    /// A program accepts a connection of another program of this host.
    pub(in crate::pipeline::simulation) fn accept(&mut self, program: u32, from: u32) {
        let (owner, client) = (self.owner(program), self.owner(from));
        let remote = address::from_owner(client, &address_of(program), &address_of(from));
        let key = EdgeKey { owner, port: PORT, role: ROLE_SERVER, zero: 0, remote };
        self.count(key, |counters| {
            counters.connects[usize::from(CONNECT_OK)] += 1;
            counters.opened += 1;
        });
        self.ledger.seen[CONNECTION] += 1;
        self.ledger.seen[SOCKET] += 1;
    }

    /// A network namespace with this name gets the number of the one that a program was in.
    pub(in crate::pipeline::simulation) fn make_namespace(&mut self, program: u32, name: &str) {
        let cookie = 1 + self.namespaces.values().map(|(cookie, _)| *cookie).max().unwrap_or(0);
        self.namespaces.insert(100 + program, (cookie, name.to_owned()));
    }

    /// The kernel refuses to connect before a SYN.
    pub(in crate::pipeline::simulation) fn connect_unsent(&mut self, program: u32, to: u32) {
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

    /// A program is refused by so many ports.
    pub(in crate::pipeline::simulation) fn scan(&mut self, program: u32, ports: u16) {
        for port in 1..=ports {
            let key = EdgeKey { port, ..self.client(program, 0) };
            let refused = usize::from(CONNECT_REFUSED);
            let (_, name) = self.count(key, |counters| counters.connects[refused] += 1);
            self.ledger.seen[CONNECTION] += 1;
            self.ledger.seen[SOCKET] += 1;
            *self.truth.connects.entry(name).or_default() += 1;
        }
    }

    fn client(&mut self, program: u32, to: u32) -> EdgeKey {
        let owner = self.owner(program);
        EdgeKey { owner, port: PORT, role: ROLE_CLIENT, zero: 0, remote: address_of(to) }
    }

    /// All open connections of a slot end.
    pub(in crate::pipeline::simulation) fn close(&mut self, nth: usize) {
        let slots: Vec<u32> = self.edges.rows.keys().copied().collect();
        let Some(slot) = slots.get(nth % slots.len().max(1)) else { return };
        let counters = &mut self.edges.rows.get_mut(slot).expect("there").counters;
        counters.closed = counters.opened;
    }

    /// An answer comes on an open connection.
    pub(in crate::pipeline::simulation) fn request(&mut self, nth: usize, us: u64) {
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
    pub(in crate::pipeline::simulation) fn reset(&mut self, nth: usize) {
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
    pub(in crate::pipeline::simulation) fn listen(&mut self, program: u32) {
        let owner = self.owner(program);
        let netns = 100 + program;
        if let Some(index) = self.listeners.iter().position(|one| one.netns == netns) {
            self.listeners.remove(index);
            return;
        }
        if owner == OWNER_OVERFLOW {
            return;
        }
        let record = ListenerRecord {
            owner,
            netns,
            port: PORT,
            family: 2,
            cookie: 1 + u64::from(program),
            ..ListenerRecord::zeroed()
        };
        self.listeners.push(record);
    }

    /// A listener's socket drops a packet: a connection request, or something else.
    pub(in crate::pipeline::simulation) fn drop_at_listener(
        &mut self,
        program: u32,
        is_request: bool,
    ) {
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

    /// A program of a namespace binds the port; it fails if one listens there.
    pub(in crate::pipeline::simulation) fn bind(&mut self, program: u32, in_namespace_of: u32) {
        let netns = 100 + in_namespace_of;
        self.ledger.seen[BIND] += 1;
        let is_taken = self.listeners.iter().any(|one| one.netns == netns);
        if !is_taken {
            let row = self.bind_failures.rows.entry(BOUND_ROW).or_insert(FailureRow::zeroed());
            row.count += 1;
            return;
        }
        let owner = self.owner(program);
        let (protocol, errno) = (libc::IPPROTO_TCP as u8, libc::EADDRINUSE as u16);
        let key = AttemptKey {
            owner,
            netns,
            port: PORT,
            errno,
            protocol,
            step: STEP_BIND,
            ..AttemptKey::zeroed()
        };
        let (born_us, last_us) = (self.now_us, self.now_us);
        let taken = self.bind_failures.find_or_take(&key, || FailureRow {
            key,
            born_us,
            ..FailureRow::zeroed()
        });
        let slot = taken.map_or(FAILURE_OVERFLOW, |(slot, _)| slot);
        let row = self.bind_failures.rows.entry(slot).or_insert(FailureRow::zeroed());
        row.count += 1;
        row.last_us = last_us;
        let name = self.name_of_claimant(slot);
        *self.truth.conflicts.entry(name).or_default() += 1;
    }

    /// How who failed to bind is called.
    fn name_of_claimant(&self, slot: u32) -> String {
        let row = self.bind_failures.rows.get(&slot);
        let owner =
            row.filter(|_| slot != FAILURE_OVERFLOW).map_or(OWNER_OVERFLOW, |row| row.key.owner);
        self.name_of_owner(owner)
    }

    /// A DNS server tells a program a name of an address.
    pub(in crate::pipeline::simulation) fn resolve(&mut self, program: u32, of: u32) {
        self.ledger.seen[agent_common::ledger::DNS_ANSWER] += 1;
        let resolution = Resolution {
            name: format!("host-{of}.example"),
            addresses: vec![(address::to_ip(address_of(of)), 600)],
        };
        let netns = 100 + program;
        let time_ns = self.now_us * 1000;
        self.dns.push(Answer { netns, origin: netns.into(), time_ns, resolution });
    }

    /// The host answers what it was asked.
    pub(in crate::pipeline::simulation) fn answer(&mut self) {
        for answer in std::mem::take(&mut self.questions) {
            answer(self);
        }
    }

    /// What was asked is given up.
    pub(in crate::pipeline::simulation) fn give_up(&mut self) {
        self.questions.clear();
    }

    /// Whether the host owes answers.
    pub(in crate::pipeline::simulation) fn owes_answers(&self) -> bool {
        !self.questions.is_empty()
    }

    /// What an agent that takes the tables over can tell.
    pub(in crate::pipeline::simulation) fn adopt(&mut self) {
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
        for (slot, row) in self.bind_failures.rows.iter().filter(|(slot, _)| **slot != BOUND_ROW) {
            *truth.conflicts.entry(self.name_of_claimant(*slot)).or_default() += row.count;
        }
        self.truth = truth;
    }

    pub(super) fn ask<T: Send + 'static>(
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

/// How a program is called.
pub(in crate::pipeline::simulation) fn name_of(program: u32) -> String {
    format!("program{program}")
}

fn comm(key: &OwnerKey) -> String {
    let end = key.comm.iter().position(|byte| *byte == 0).unwrap_or(key.comm.len());
    String::from_utf8_lossy(&key.comm[..end]).into_owned()
}

/// The address of the namespace of a program.
pub(super) fn address_of(program: u32) -> Address {
    address::from_ip(Ipv4Addr::new(10, 0, 0, 1 + program as u8).into())
}
