//! Every map of the kernel object: its name, how large it is, whether it is pinned, who reads it.
//!
//! What each holds and who writes it is said where it is declared, in `agent-ebpf/src/maps.rs`. A
//! test compares the two.

use agent_common::attempt::FAILURE_ROWS;
use agent_common::config::Config;
use agent_common::durations::FIRST_FREE_HISTOGRAM;
use agent_common::edge::EdgeRow;
use agent_common::listener::ListenerRow;
use agent_common::owner::OwnerRow;
use agent_common::slot_table::{HISTOGRAMS as DURATIONS, SHARED, SlotRow as _};
use agent_common::unsent::UnsentRow;
use agent_common::wire::Wire as _;

use super::load::Options;

/// A map of the kernel object.
#[derive(Debug)]
pub struct Spec {
    /// Its name in the object.
    pub name: &'static str,
    /// How many entries it has.
    pub size: Size,
    /// The file it is pinned under, if the next agent needs it to go on; no dots.
    pub pin: Option<&'static str>,
    /// Who in user space opens it.
    pub reader: Reader,
}

/// How many entries, or bytes, a map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As declared.
    Declared,
    /// One for each edge.
    Edges,
    /// One for each edge and shard.
    EdgeShards,
    /// [`HISTOGRAMS_PER_EDGE`] for each edge.
    Histograms,
    /// One for each listener: a quarter of the edges, and not too few.
    Listeners,
    /// One for each kind of connect that is refused before a SYN: half of the edges, and not too
    /// few.
    Unsent,
    /// One for each owner.
    Owners,
    /// Bytes, as configured for rings.
    Ring,
}

/// Who in user space opens a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Nobody: hooks among themselves.
    Hooks,
    /// [`super::drain`].
    Drain,
    /// [`super::ports`].
    Ports,
    /// [`super::bootstrap`].
    Bootstrap,
    /// [`super::enforcement`].
    Enforcement,
    /// [`super::peers`].
    Peers,
    /// [`super::load`], when it takes over what is pinned.
    Load,
    /// aya's own.
    Library,
}

/// Edge → slot.
pub const EDGES: Spec = pinned("EDGES", Size::Edges, Reader::Drain);
/// Slot → edge.
pub const EDGE_ROWS: Spec = pinned("EDGE_ROWS", Size::Edges, Reader::Drain);
/// Slots that no edge has.
pub const EDGE_FREE: Spec = pinned("EDGE_FREE", Size::Edges, Reader::Drain);
/// Slot × shard → counters.
pub const EDGE_COUNTERS: Spec = pinned("EDGE_COUNTERS", Size::EdgeShards, Reader::Drain);
/// Slot → what waits in its connections.
pub const EDGE_QUEUES: Spec = pinned("EDGE_QUEUES", Size::Edges, Reader::Drain);
/// Rows for durations.
pub const HISTOGRAMS: Spec = pinned("HISTOGRAMS", Size::Histograms, Reader::Drain);
/// Rows for durations that no edge has.
pub const HISTOGRAM_FREE: Spec = pinned("HISTOGRAM_FREE", Size::Histograms, Reader::Drain);
/// Listener → row.
pub const LISTENERS: Spec = pinned("LISTENERS", Size::Listeners, Reader::Drain);
/// Rows of listeners.
pub const LISTENER_ROWS: Spec = pinned("LISTENER_ROWS", Size::Listeners, Reader::Drain);
/// Rows that no listener has.
pub const LISTENER_FREE: Spec = pinned("LISTENER_FREE", Size::Listeners, Reader::Drain);
/// Kind of refused connect → row.
pub const UNSENT: Spec = pinned("UNSENT", Size::Unsent, Reader::Drain);
/// Rows of refused connects.
pub const UNSENT_ROWS: Spec = pinned("UNSENT_ROWS", Size::Unsent, Reader::Drain);
/// Rows that no kind of refused connect has.
pub const UNSENT_FREE: Spec = pinned("UNSENT_FREE", Size::Unsent, Reader::Drain);
/// Owner → row.
pub const OWNERS: Spec = pinned("OWNERS", Size::Owners, Reader::Drain);
/// Rows of owners.
pub const OWNER_ROWS: Spec = pinned("OWNER_ROWS", Size::Owners, Reader::Drain);
/// Rows that no owner has.
pub const OWNER_FREE: Spec = pinned("OWNER_FREE", Size::Owners, Reader::Drain);
/// Kind of failed bind → row.
pub const BIND_FAILURES: Spec = pinned("BIND_FAILURES", Size::Declared, Reader::Ports);
/// Rows of failed binds.
pub const BIND_FAIL_ROWS: Spec = pinned("BIND_FAIL_ROWS", Size::Declared, Reader::Ports);
/// Rows that no kind of failed bind has.
pub const BIND_FAIL_FREE: Spec = pinned("BIND_FAIL_FREE", Size::Declared, Reader::Ports);
/// Binds and connects under way.
pub const PENDING: Spec = pinned("PENDING", Size::Declared, Reader::Hooks);
/// Who bound a socket.
pub const BOUND: Spec = pinned("BOUND", Size::Declared, Reader::Ports);
/// Which DNS servers were asked from a socket.
pub const QUESTIONS: Spec = pinned("QUESTIONS", Size::Declared, Reader::Hooks);
/// Slots that tenants have taken.
pub const TAKEN_SLOTS: Spec = pinned("TAKEN_SLOTS", Size::Declared, Reader::Drain);
/// Slots that tenants have given back.
pub const FREED_SLOTS: Spec = pinned("FREED_SLOTS", Size::Declared, Reader::Drain);
/// Cgroups at the first level that are a user's.
pub const DELEGATED: Spec = pinned("DELEGATED", Size::Declared, Reader::Drain);
/// Ports that are refused to others than their service.
pub const ENFORCED: Spec = pinned("ENFORCED", Size::Declared, Reader::Enforcement);
/// Verdicts on who asks for such a port.
pub const VERDICTS: Spec = pinned("VERDICTS", Size::Declared, Reader::Enforcement);
/// Sockets from before the start.
pub const PREEXISTING: Spec = pinned("PREEXISTING", Size::Declared, Reader::Bootstrap);
/// Notes of clients to servers of this host, by the client's port.
pub const PEERS: Spec = pinned("PEERS", Size::Declared, Reader::Peers);
/// Detail records.
pub const EVENTS: Spec = pinned("EVENTS", Size::Ring, Reader::Drain);
/// Answers of DNS servers.
pub const ANSWERS: Spec = pinned("ANSWERS", Size::Ring, Reader::Drain);
/// What was seen and lost.
pub const LEDGER: Spec = pinned("LEDGER", Size::Declared, Reader::Drain);
/// What the programs were loaded with.
pub const CONFIG: Spec = Spec {
    name: ".rodata.config",
    size: Size::Declared,
    pin: Some("CONFIG"),
    reader: Reader::Load,
};
/// State of each socket that has room there.
pub const SOCKET_TABLE: Spec = pinned("SOCKET_TABLE", Size::Declared, Reader::Hooks);
/// Which entries may live.
pub const SOCKETS_LIVE: Spec = pinned("SOCKETS_LIVE", Size::Declared, Reader::Drain);
/// What is found of listeners.
pub const LISTENER_ROOM: Spec = pinned("LISTENER_ROOM", Size::Declared, Reader::Drain);
/// State of each other socket.
pub const SOCKETS: Spec = pinned("SOCKETS", Size::Declared, Reader::Drain);

/// All of them.
pub const MAPS: &[Spec] = &[
    EDGES,
    EDGE_ROWS,
    EDGE_FREE,
    EDGE_COUNTERS,
    EDGE_QUEUES,
    HISTOGRAMS,
    HISTOGRAM_FREE,
    LISTENERS,
    LISTENER_ROWS,
    LISTENER_FREE,
    UNSENT,
    UNSENT_ROWS,
    UNSENT_FREE,
    OWNERS,
    OWNER_ROWS,
    OWNER_FREE,
    BIND_FAILURES,
    BIND_FAIL_ROWS,
    BIND_FAIL_FREE,
    PENDING,
    BOUND,
    QUESTIONS,
    TAKEN_SLOTS,
    FREED_SLOTS,
    DELEGATED,
    ENFORCED,
    VERDICTS,
    PREEXISTING,
    PEERS,
    EVENTS,
    ANSWERS,
    LEDGER,
    CONFIG,
    SOCKET_TABLE,
    SOCKETS_LIVE,
    LISTENER_ROOM,
    SOCKETS,
    private("WALKS", Reader::Hooks),
    private("OWNER_SCRATCH", Reader::Hooks),
    private("EVENT_RATES", Reader::Hooks),
    private("ANSWER_RATES", Reader::Hooks),
    private("ANSWER_ROOM", Reader::Hooks),
    private("HANDLED", Reader::Hooks),
    private(".rodata", Reader::Hooks),
    private("AYA_LOGS", Reader::Library),
];

const fn pinned(name: &'static str, size: Size, reader: Reader) -> Spec {
    Spec { name, size, pin: Some(name), reader }
}

/// Not pinned: programs that go on keep it, and the next agent does not need it.
const fn private(name: &'static str, reader: Reader) -> Spec {
    Spec { name, size: Size::Declared, pin: None, reader }
}

/// Rows for durations that there are for each edge. An edge takes one for each kind of duration and
/// shard that it observes one on, so from none to twelve.
pub const HISTOGRAMS_PER_EDGE: u32 = 3;

/// How many slots each slot table has, and how many rows for durations there are.
pub fn slots(options: &Options) -> [u32; SHARED] {
    let mut slots = [FAILURE_ROWS as u32; SHARED];
    let sizes = [
        (EdgeRow::TABLE, Size::Edges),
        (ListenerRow::TABLE, Size::Listeners),
        (UnsentRow::TABLE, Size::Unsent),
        (OwnerRow::TABLE, Size::Owners),
        (DURATIONS, Size::Histograms),
    ];
    for (table, size) in sizes {
        if let (Some(slots), Some(entries)) =
            (slots.get_mut(table), size.entries(options, &Config::zeroed()))
        {
            *slots = entries;
        }
    }
    slots
}

/// The fewest rows of a table of small rows.
const FEWEST: u32 = 256;

impl Size {
    /// How many entries that is; `None` as declared.
    pub fn entries(self, options: &Options, config: &Config) -> Option<u32> {
        let edges = options.edges.saturating_add(EdgeRow::RESERVED);
        match self {
            Self::Declared => None,
            Self::Edges => Some(edges),
            Self::EdgeShards => Some(edges.saturating_mul(config.shards)),
            Self::Histograms => {
                let rows = options.edges.saturating_mul(HISTOGRAMS_PER_EDGE);
                Some(rows.saturating_add(FIRST_FREE_HISTOGRAM))
            }
            Self::Listeners => Some((options.edges / 4).max(FEWEST) + ListenerRow::RESERVED),
            Self::Unsent => Some((options.edges / 2).max(FEWEST) + UnsentRow::RESERVED),
            Self::Owners => Some(options.owners.saturating_add(OwnerRow::RESERVED)),
            Self::Ring => Some(options.ring_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::object::OBJECT;
    use super::*;

    #[test]
    fn the_table_lists_the_objects_maps_and_no_others() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let theirs: BTreeSet<&str> = object.maps.keys().map(String::as_str).collect();
        let ours: BTreeSet<&str> = MAPS.iter().map(|map| map.name).collect();
        let missing: Vec<_> = theirs.difference(&ours).collect();
        assert!(
            missing.is_empty(),
            "agent-ebpf/src/maps.rs has {missing:?}: add rows to MAPS here"
        );
        let extra: Vec<_> = ours.difference(&theirs).collect();
        assert!(extra.is_empty(), "MAPS has {extra:?}, which no program of agent-ebpf uses");
        assert_eq!(ours.len(), MAPS.len(), "a name comes twice");
    }

    #[test]
    fn every_hook_way_names_a_program_of_the_object() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let programs: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
        let used: BTreeSet<&str> = super::super::hooks::programs().collect();
        let missing: Vec<_> = used.difference(&programs).collect();
        assert!(
            missing.is_empty(),
            "not in the object: {missing:?}; write them in agent-ebpf/src/hooks/ with a `mod` line in its mod.rs, or correct the row in agent/crates/loader/src/hooks.rs or later.rs"
        );
        let unused: Vec<_> = programs.difference(&used).collect();
        assert!(
            unused.is_empty(),
            "never attached: {unused:?}; add a row to agent/crates/loader/src/hooks.rs or later.rs"
        );
    }

    #[test]
    fn the_kernel_keeps_every_name_whole_and_pins_have_no_dots() {
        for map in MAPS {
            assert!(map.name.len() <= 15, "{}", map.name);
            assert!(map.pin.is_none_or(|pin| !pin.contains('.')), "{}", map.name);
        }
    }
}
