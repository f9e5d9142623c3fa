//! Where lookups are counted: global functions of numbers, so that the verifier walks each once per
//! program and not once per call.

use agent_common::address::Address;
use agent_common::answer::{DNS_PORT, is_same};
use agent_common::durations::{LOOKUP, LOOKUP_RESULT};
use agent_common::edge::{EdgeKey, FIRST_FREE_SLOT, ROLE_CLIENT};
use agent_common::lookup::{TIMEOUT, number};

use crate::{edges, histograms, maps};

/// The slot of the edge of a client and a DNS server.
///
/// A global function of numbers: the verifier walks it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn lookup_edge(
    owner: u32,
    a: u64,
    b: u64,
    local_a: u64,
    local_b: u64,
) -> u32 {
    let remote = address(a, b);
    let key = EdgeKey { owner, port: DNS_PORT, role: ROLE_CLIENT, zero: 0, remote };
    edges::slot(&key, || (address(local_a, local_b), remote))
}

/// Whether a slot is still that of the edge of a client and a DNS server: 1, or 0.
///
/// A global function as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn is_edge(slot: u32, owner: u32, a: u64, b: u64) -> u32 {
    let Some(row) = maps::edges().rows.get_ptr(slot) else { return 0 };
    // SAFETY: a valid map value.
    let key = unsafe { (*row).key };
    let is_it = slot >= FIRST_FREE_SLOT
        && key.owner == owner
        && key.port == DNS_PORT
        && key.role == ROLE_CLIENT
        && is_same(&key.remote, &address(a, b));
    is_it.into()
}

/// A lookup of a type has timed out.
///
/// A global function as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn time_out(slot: u32, question: u32) -> u32 {
    histograms::count(slot, ROLE_CLIENT, LOOKUP_RESULT, number(question, TIMEOUT));
    0
}

/// How long a lookup took, if that is not known.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// Counts a response.
///
/// A global function as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn answer(slot: u32, number: u32, took_us: u64) -> u32 {
    histograms::count(slot, ROLE_CLIENT, LOOKUP_RESULT, number);
    if took_us != UNKNOWN {
        histograms::observe(slot, ROLE_CLIENT, LOOKUP, took_us);
    }
    0
}

/// The first half of an address, as a number.
#[inline(always)]
pub(super) const fn first(address: &Address) -> u64 {
    address[0] as u64 | (address[1] as u64) << 32
}

/// The second half.
#[inline(always)]
pub(super) const fn second(address: &Address) -> u64 {
    address[2] as u64 | (address[3] as u64) << 32
}

#[inline(always)]
const fn address(a: u64, b: u64) -> Address {
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}
