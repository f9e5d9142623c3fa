//! The socket iteration, as [`super::iterate_sockets`], over the table of sockets: a few entries at a
//! time.
//!
//! Run as [`super::expire_attempts`] is; the kernel holds RCU meanwhile. Only where the kernel casts
//! sockets, see [`crate::sock::Sock::tcp`]: an entry knows the address of its socket, and nothing
//! holds that.

use agent_common::edge::ROLE_LISTENER;
use agent_common::socket_table::{BATCH, NO_ENTRY, WAYS};

use super::iterate_sockets::{visit_connection, visit_listener};
use crate::maps::{self, config};
use crate::sock::Sock;
use crate::{connection, socket_table};

/// The argument: which entries, see [`agent_common::socket_table::batch`]. The result has a bit for each
/// of them of which there is a record of a listener.
#[unsafe(link_section = "raw_tp/run")]
#[unsafe(no_mangle)]
extern "C" fn iterate_table(arguments: *const u64) -> i32 {
    if config!(socket_table) != 1 {
        return 0;
    }
    // SAFETY: the kernel passes twelve arguments.
    let mut entries = unsafe { core::ptr::read_volatile(arguments) };
    let (mut records, mut place) = (0, 0);
    while place < BATCH {
        let number = entries & 0xffff;
        if number == NO_ENTRY {
            break;
        }
        if visit(number as u32 / WAYS as u32, number as usize % WAYS, place as u32) {
            records |= 1 << place;
        }
        entries >>= 16;
        place += 1;
    }
    records
}

/// Visits an entry; whether it wrote a record.
#[inline(always)]
fn visit(index: u32, way: usize, place: u32) -> bool {
    let Some(set) = maps::socket_set(index) else { return false };
    if !socket_table::is_living(set, way) {
        socket_table::unmark(index, set, way);
        return false;
    }
    let Some(key) = socket_table::take(set, way) else { return false };
    let state = socket_table::state(set, way);
    let mut is_written = false;
    // SAFETY: ours since `take`; the verifier checks each load.
    unsafe {
        if let Some(sk) = Sock::at(socket_table::address(key))
            && connection::is_alive(sk, state)
        {
            if core::ptr::read_volatile(&raw const (*state).role) != ROLE_LISTENER {
                visit_connection(sk, state, true);
            } else if let Some(record) = visit_listener(sk, state)
                && let Some(room) = maps::listener_room(place)
            {
                *room = record;
                is_written = true;
            }
        }
    }
    socket_table::give_back(set, way, key);
    is_written
}
