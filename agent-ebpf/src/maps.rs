//! Every map: what it holds, who writes it, who reads it. Sizes marked † are set at load time.
//!
//! Long because all maps are in one place.

use core::ffi::c_void;

use agent_common::answer::{AnswerHeader, AnswerRoom, BUDGETS, Questions};
use agent_common::attempt::{self, FAILURE_ROWS, FailureRow, PendingBucket};
use agent_common::bound::BoundState;
use agent_common::config::Config;
use agent_common::edge::{EdgeRow, HotCounters};
use agent_common::enforced::{Enforced, EnforcedPort, VerdictKey};
use agent_common::events::{EventHeader, KINDS, RateWindow};
use agent_common::histogram::{self, Histogram};
use agent_common::ledger::Ledger;
use agent_common::listener::{ListenerRecord, ListenerRow};
use agent_common::owner::OwnerRow;
use agent_common::peer::{self, Note, Notes};
use agent_common::preexisting::Preexisting;
use agent_common::protocol::http1::Walk;
use agent_common::queues::Queues;
use agent_common::share::{self, ShareKey};
use agent_common::socket::SocketState;
use agent_common::socket_table::{self as contract, Entry, Set};
use agent_common::unsent::UnsentRow;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

use crate::atomic;
use crate::slot_table::{Free, Index, Rows, SlotTable};
use crate::sock::Sock;
use crate::socket_storage::{BoundStorage, QuestionStorage, SocketStorage, WalkStorage};
use crate::socket_table;

/// Set by the agent before load; constant for the verifier. In a map of its own, so that an agent
/// that takes over pinned tables can read what the programs were loaded with.
#[unsafe(link_section = ".rodata.config")]
#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    offsets: agent_common::config::Offsets::NONE,
    ranges: [agent_common::address::Range { prefix: [0; 4], mask: [0; 4] };
        agent_common::config::MAX_RANGES],
    range_count: 0,
    shards: 1,
    causes: [0; agent_common::config::MAX_REASONS],
    tcp_sock_type: 0,
    jiffy_us: 1000,
    sending: [0; 5],
    lookups: 0,
    zero: 0,
    capacities: [0; agent_common::slot_table::SHARED],
    reset_has_reason: 0,
    requests: 1,
    v6_only_mask: 0,
    sock_done_bit: 1,
    sock_dead_bit: 0,
    sock_linger_bit: 4,
    sock_rcu_free_bit: 25,
    reuse_mask: 0,
    reuse_port_mask: 0,
    dns: 1,
    fallback: 0,
    chrono_type_mask: 0,
    kernel_socket_mask: 0,
    socket_table: 0,
    responses: 0,
    result_replaces_argument: 0,
};

/// The histogram grid, in read-only data.
static GRID: [u32; 128] = histogram::SEARCH_US;
/// The same for short durations, bucket by microsecond.
static NEAR: [u8; histogram::NEAR_US] = histogram::NEAR_BUCKETS;

/// A socket's state before anything is known.
// SAFETY: zeros are a valid state.
static BLANK: SocketState = unsafe { core::mem::zeroed() };

/// State per socket; see [`agent_common::socket_table`]. Written by the hooks only. Mapped by nobody:
/// it begins at a page that way, and its entries at cache lines.
#[btf_map]
static SOCKET_TABLE: Array<Set, { contract::SETS }, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Which entries may live, as bits. Set by hooks, cleared by the socket iteration, read by the daemon.
#[btf_map]
static SOCKETS_LIVE: Array<u64, { contract::LIVE_WORDS }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
/// What the last run of the socket iteration has found of listeners.
#[btf_map]
static LISTENER_ROOM: Array<ListenerRecord, { contract::BATCH }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
/// The same of sockets that found no room there; a child of `accept` inherits its listener's. Written
/// by the hooks only.
#[btf_map]
static SOCKETS: SocketStorage = SocketStorage::new();

/// The slot table of edges: who talks to whom. †
#[btf_map]
static EDGES: Index<EdgeRow, 8192> = Index::<EdgeRow, 8192>::new();
#[btf_map]
static EDGE_ROWS: Rows<EdgeRow, 8192> = Rows::<EdgeRow, 8192>::new();
#[btf_map]
static EDGE_FREE: Free<8192> = Free::<8192>::new();
/// Slot × shard → counters. Added to by hooks, read by the daemon through mmap. †
#[btf_map]
static EDGE_COUNTERS: Array<HotCounters, 8192, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Slot → what waits in its connections. Added to by the socket iteration, read and emptied by the
/// daemon through mmap. †
#[btf_map]
static EDGE_QUEUES: Array<Queues, 8192, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Rows that edges take for durations, and those that no edge has; see
/// [`agent_common::durations`]. Added to by hooks, read by the daemon through mmap. †
#[btf_map]
static HISTOGRAMS: Array<Histogram, 8192, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static HISTOGRAM_FREE: Free<8192> = Free::<8192>::new();

/// The slot table of listeners. The rows count themselves. †
#[btf_map]
static LISTENERS: Index<ListenerRow, 2048> = Index::<ListenerRow, 2048>::new();
#[btf_map]
static LISTENER_ROWS: Rows<ListenerRow, 2048> = Rows::<ListenerRow, 2048>::new();
#[btf_map]
static LISTENER_FREE: Free<2048> = Free::<2048>::new();

/// The slot table of connects that were refused before a SYN. The rows count themselves. †
#[btf_map]
static UNSENT: Index<UnsentRow, 4096> = Index::<UnsentRow, 4096>::new();
#[btf_map]
static UNSENT_ROWS: Rows<UnsentRow, 4096> = Rows::<UnsentRow, 4096>::new();
#[btf_map]
static UNSENT_FREE: Free<4096> = Free::<4096>::new();

/// The slot table of owners: on whose behalf. †
#[btf_map]
static OWNERS: Index<OwnerRow, 4096> = Index::<OwnerRow, 4096>::new();
#[btf_map]
static OWNER_ROWS: Rows<OwnerRow, 4096> = Rows::<OwnerRow, 4096>::new();
#[btf_map]
static OWNER_FREE: Free<4096> = Free::<4096>::new();
/// Slots that each tenant has taken in each slot table. Written by hooks.
#[btf_map]
static TAKEN_SLOTS: HashMap<ShareKey, u64, SHARES> = HashMap::new();
/// How many of them it has given back. Written by the daemon.
#[btf_map]
static FREED_SLOTS: HashMap<ShareKey, u64, SHARES, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
/// Tenants, each with the tables in which it has slots.
const SHARES: usize = 5120;
/// Cgroups at the first level that root has given to a user, who makes others below. Written by the
/// daemon.
#[btf_map]
static DELEGATED: HashMap<u64, u32, { share::DELEGATED }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
/// Ports that are refused to others than their service. Written by the daemon. †
#[btf_map]
static ENFORCED: HashMap<EnforcedPort, Enforced, 4096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
/// Who is known to be someone else, or the service itself. Written by the daemon. †
#[btf_map]
static VERDICTS: HashMap<VerdictKey, u32, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Room to read a command line into: too large for the stack. Process context only; several, because
/// one thread can be preempted by another while it reads.
#[btf_map]
static OWNER_SCRATCH: PerCpuArray<OwnerRow, SCRATCHES> = PerCpuArray::new();
/// A power of two.
const SCRATCHES: usize = 16;

/// What the daemon knows of sockets from before its start, by socket cookie. Emptied after use.
#[btf_map]
static PREEXISTING: HashMap<u64, Preexisting, 65536, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Sets of notes of clients to servers of this host; see [`agent_common::peer`].
#[btf_map]
static PEERS: Array<Notes, { peer::SETS }> = Array::new();

/// Binds under way, by thread. Written by hooks.
#[btf_map]
static PENDING: Array<PendingBucket, { attempt::BUCKETS as usize }> = Array::new();
/// The slot table of failed binds, by kind. The rows count themselves.
#[btf_map]
static BIND_FAILURES: Index<FailureRow, FAILURE_ROWS> = Index::<FailureRow, FAILURE_ROWS>::new();
#[btf_map]
static BIND_FAIL_ROWS: Rows<FailureRow, FAILURE_ROWS> = Rows::<FailureRow, FAILURE_ROWS>::new();
#[btf_map]
static BIND_FAIL_FREE: Free<FAILURE_ROWS> = Free::<FAILURE_ROWS>::new();
/// Who bound a socket. Written by hooks; gone with the socket.
#[btf_map]
static BOUND: BoundStorage = BoundStorage::new();

/// Which DNS servers were asked from a socket that is not connected. Gone with the socket.
#[btf_map]
static QUESTIONS: QuestionStorage = QuestionStorage::new();

/// How far connections of chosen services were walked. Gone with the socket.
#[btf_map]
static WALKS: WalkStorage = WalkStorage::new();

/// Detail records. Written by hooks without waking anyone, drained by timer. †
#[btf_map]
static EVENTS: RingBuf<EventHeader, { 256 * 1024 }> = RingBuf::new();
/// Rate limit per kind of record, and of calls.
#[btf_map]
static EVENT_RATES: PerCpuArray<RateWindow, KINDS> = PerCpuArray::new();

/// Answers of DNS servers, whole; apart from the other records, so that neither takes the room of
/// the other. †
#[btf_map]
static ANSWERS: RingBuf<AnswerHeader, { 256 * 1024 }> = RingBuf::new();
/// Rate limit of answers, by whose the network namespace is.
#[btf_map]
static ANSWER_RATES: PerCpuArray<RateWindow, { BUDGETS as usize }> = PerCpuArray::new();
/// Room for one answer, and what was handed over last.
#[btf_map]
static ANSWER_ROOM: PerCpuArray<AnswerRoom, 1> = PerCpuArray::new();

/// Events that a first program handled and the second has not come to, by thread; see
/// [`crate::fallback`].
#[btf_map]
static HANDLED: Array<u64, HANDLED_ROWS> = Array::new();
/// A power of two. Threads that share a row may be taken for each other, and their sum stays right.
const HANDLED_ROWS: usize = 1024;

/// What was seen and what was lost.
#[btf_map]
static LEDGER: PerCpuArray<Ledger, 1> = PerCpuArray::new();

/// Reads one field of the configuration; a volatile read, so that the compiler does not fold the
/// default in.
macro_rules! config {
    ($($field:tt)+) => {
        // SAFETY: CONFIG is a valid static; its fields are plain integers.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::configuration().$($field)+) }
    };
}
pub(crate) use config;

/// The configuration; read fields with [`config!`].
#[inline(always)]
pub fn configuration() -> &'static Config {
    &CONFIG
}

/// The bucket of a duration.
#[inline(always)]
pub fn bucket(value_us: u64) -> usize {
    histogram::bucket(&GRID, &NEAR, value_us)
}

/// The slot table of edges.
#[inline(always)]
pub fn edges() -> SlotTable<EdgeRow, 8192> {
    SlotTable { index: &EDGES, rows: &EDGE_ROWS, free: &EDGE_FREE }
}

/// The counters at `index` (slot × shards + shard).
#[inline(always)]
pub fn counters(index: u32) -> Option<*mut HotCounters> {
    EDGE_COUNTERS.get_ptr_mut(index)
}

/// What waits in the connections of a slot.
#[inline(always)]
pub fn queues(slot: u32) -> Option<*mut Queues> {
    EDGE_QUEUES.get_ptr_mut(slot)
}

/// A row of histograms.
#[inline(always)]
pub fn histogram(number: u32) -> Option<*mut Histogram> {
    HISTOGRAMS.get_ptr_mut(number)
}

/// Rows of histograms that no edge has.
#[inline(always)]
pub fn histogram_free() -> &'static Free<8192> {
    &HISTOGRAM_FREE
}

/// The slot table of listeners.
#[inline(always)]
pub fn listeners() -> SlotTable<ListenerRow, 2048> {
    SlotTable { index: &LISTENERS, rows: &LISTENER_ROWS, free: &LISTENER_FREE }
}

/// The slot table of connects that were refused before a SYN.
#[inline(always)]
pub fn unsent() -> SlotTable<UnsentRow, 4096> {
    SlotTable { index: &UNSENT, rows: &UNSENT_ROWS, free: &UNSENT_FREE }
}

/// The slot table of owners.
#[inline(always)]
pub fn owners() -> SlotTable<OwnerRow, 4096> {
    SlotTable { index: &OWNERS, rows: &OWNER_ROWS, free: &OWNER_FREE }
}

/// Slots that tenants have taken.
#[inline(always)]
pub fn taken_slots() -> &'static HashMap<ShareKey, u64, SHARES> {
    &TAKEN_SLOTS
}

/// Slots that tenants have given back.
#[inline(always)]
pub fn freed_slots() -> &'static HashMap<ShareKey, u64, SHARES, { BPF_F_NO_PREALLOC as usize }> {
    &FREED_SLOTS
}

/// Whether a cgroup at the first level is a user's.
#[inline(always)]
pub fn is_delegated(cgroup: u64) -> bool {
    DELEGATED.get_ptr(cgroup).is_some()
}

/// A bucket of attempts to bind.
#[inline(always)]
pub fn pending(bucket: u32) -> Option<*mut PendingBucket> {
    PENDING.get_ptr_mut(bucket)
}

/// The slot table of failed binds.
#[inline(always)]
pub fn bind_failures() -> SlotTable<FailureRow, FAILURE_ROWS> {
    SlotTable { index: &BIND_FAILURES, rows: &BIND_FAIL_ROWS, free: &BIND_FAIL_FREE }
}

/// Who bound a socket, if it was bound by a program we saw.
#[inline(always)]
pub fn bound(sk: *const c_void) -> Option<*mut BoundState> {
    BOUND.get(sk, core::ptr::null(), 0)
}

/// Notes who bound a socket.
#[inline(always)]
pub fn bound_or_insert(sk: *const c_void, initial: &BoundState) -> Option<*mut BoundState> {
    BOUND.get(sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into())
}

/// Which DNS servers were asked from a socket, if any.
#[inline(always)]
pub fn questions(sk: *const c_void) -> Option<*mut Questions> {
    QUESTIONS.get(sk, core::ptr::null(), 0)
}

/// The same, of zeros at first.
#[inline(always)]
pub fn questions_or_insert(sk: *const c_void) -> Option<*mut Questions> {
    QUESTIONS.get(sk, core::ptr::null(), BPF_SK_STORAGE_GET_F_CREATE.into())
}

/// The walk of a connection, if it has one.
#[inline(always)]
pub fn walk(sk: *const c_void) -> Option<*mut Walk> {
    WALKS.get(sk, core::ptr::null(), 0)
}

/// The same, of zeros at first.
#[inline(always)]
pub fn walk_or_insert(sk: *const c_void) -> Option<*mut Walk> {
    WALKS.get(sk, core::ptr::null(), BPF_SK_STORAGE_GET_F_CREATE.into())
}

/// What is known of the service that a port is refused to others for, if it is.
#[inline(always)]
pub fn enforced(port: &EnforcedPort) -> Option<*const Enforced> {
    ENFORCED.get_ptr(port)
}

/// The verdict on who asks for an enforced port; 0 = none.
#[inline(always)]
pub fn verdict(key: &VerdictKey) -> u32 {
    // SAFETY: a valid map value.
    VERDICTS.get_ptr(key).map_or(0, |verdict| unsafe { *verdict })
}

/// Room for the command line of the running thread, whose number is `tid`.
#[inline(always)]
pub fn owner_scratch(tid: u32) -> Option<*mut OwnerRow> {
    OWNER_SCRATCH.get_ptr_mut(tid % SCRATCHES as u32)
}

/// What is known of a socket from before the daemon's start.
#[inline(always)]
pub fn preexisting(cookie: u64) -> Option<*const Preexisting> {
    PREEXISTING.get_ptr(cookie)
}

/// The first of a set's notes.
#[inline(always)]
pub fn notes(set: u32) -> Option<*mut Note> {
    PEERS.get_ptr_mut(set).map(<*mut _>::cast)
}

/// How many events of this thread were handled by a first program only.
#[inline(always)]
pub fn handled(thread: u32) -> Option<*mut u64> {
    HANDLED.get_ptr_mut(thread % HANDLED_ROWS as u32)
}

/// The ring and its rate limit for `kind`.
#[inline(always)]
pub fn events(
    kind: u32,
) -> (&'static RingBuf<EventHeader, { 256 * 1024 }>, Option<*mut RateWindow>) {
    (&EVENTS, EVENT_RATES.get_ptr_mut(kind))
}

/// The ring of answers, and the rate limit of those to a tenant, [`Tenant::origin`].
///
/// [`Tenant::origin`]: agent_common::share::Tenant::origin
#[inline(always)]
pub fn answers(
    origin: u64,
) -> (&'static RingBuf<AnswerHeader, { 256 * 1024 }>, Option<*mut RateWindow>) {
    (&ANSWERS, ANSWER_RATES.get_ptr_mut(origin as u32 % BUDGETS))
}

/// Room for one answer.
#[inline(always)]
pub fn answer_room() -> Option<*mut AnswerRoom> {
    ANSWER_ROOM.get_ptr_mut(0)
}

/// Counts a fact of `class` as met.
#[inline(always)]
pub fn seen(class: usize) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        // SAFETY: a valid map value; `class` is one of the constants of `agent_common::ledger`.
        unsafe { atomic::add((&raw mut (*ledger).seen).cast::<u64>().add(class), 1) };
    }
}

/// Counts a fact of `class` as lost for `reason`.
#[inline(always)]
pub fn lost(class: usize, reason: usize) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        let at = class * agent_common::ledger::REASONS + reason;
        // SAFETY: as in `seen`.
        unsafe { atomic::add((&raw mut (*ledger).lost).cast::<u64>().add(at), 1) };
    }
}

/// Counts facts of `class` as lost for `reason`, `times` of them.
#[inline(always)]
pub fn lost_times(class: usize, reason: usize, times: u32) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        let at = class * agent_common::ledger::REASONS + reason;
        // SAFETY: as in `seen`.
        unsafe { atomic::add((&raw mut (*ledger).lost).cast::<u64>().add(at), times.into()) };
    }
}

/// Notes that a slot of `table` was taken, so that readers look that far. Not the highest but all
/// bits: that takes one instruction without a branch, of which a verifier would try both ways.
#[inline(always)]
pub fn taken(table: usize, slot: u32) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        // SAFETY: a valid map value; `table` is one of the constants of
        // `agent_common::slot_table`.
        unsafe { atomic::or((&raw mut (*ledger).reach).cast::<u64>().add(table), u64::from(slot)) };
    }
}

/// Notes that a program asks for a connection now.
#[inline(always)]
pub fn connects_at(now_ns: u64) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        // SAFETY: a valid map value; volatile keeps it one store.
        unsafe { core::ptr::write_volatile(&raw mut (*ledger).connect_ns, now_ns) };
    }
}

/// Notes that a socket found no room in the table of sockets.
#[inline(always)]
pub fn spilled() {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        // SAFETY: a valid map value.
        unsafe { atomic::add(&raw mut (*ledger).spilled, 1) };
    }
}

/// State of a socket, if it has any. `sk` may be any kernel socket pointer the verifier trusts.
///
/// Who has a state is a full `struct tcp_sock`: a state is only created for a socket of TCP that
/// changes its state (`inet_sock_set_state`) or that `bootstrap_tcp` has checked, and only copied by
/// `sk_clone_lock` (net/core/sock.c), from such a listener to its child. `bpf_sk_storage_get`
/// (net/core/bpf_sk_storage.c) finds nothing for request and TIME_WAIT sockets.
#[inline(always)]
pub fn socket(sk: *const c_void) -> Option<*mut SocketState> {
    if config!(socket_table) == 1
        && let Some(state) = socket_table::find(Sock(sk))
    {
        return Some(state);
    }
    stored(sk)
}

/// State of a socket in its own storage, if it has one there.
#[inline(always)]
pub fn stored(sk: *const c_void) -> Option<*mut SocketState> {
    SOCKETS.get(sk, core::ptr::null(), 0)
}

/// A word of the bitmap of living entries.
#[inline(always)]
pub fn sockets_live(word: u32) -> Option<*mut u64> {
    SOCKETS_LIVE.get_ptr_mut(word)
}

/// Room for what is found of a listener.
#[inline(always)]
pub fn listener_room(place: u32) -> Option<*mut ListenerRecord> {
    LISTENER_ROOM.get_ptr_mut(place)
}

/// The first entry of a set of sockets.
#[inline(always)]
pub fn socket_set(set: u32) -> Option<*mut Entry> {
    SOCKET_TABLE.get_ptr_mut(set).map(<*mut _>::cast)
}

/// A state of zeros. Read, not made: the compiler makes zeros with a call that goes byte by byte.
#[inline(always)]
pub fn blank() -> SocketState {
    // SAFETY: BLANK is a valid static; volatile keeps the compiler from knowing what is in it.
    unsafe { core::ptr::read_volatile(&raw const BLANK) }
}

/// State of a socket in its own storage, created from `initial` if it has none there.
#[inline(always)]
pub fn stored_or_insert(sk: *const c_void, initial: &SocketState) -> Option<*mut SocketState> {
    SOCKETS.get(sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into())
}
