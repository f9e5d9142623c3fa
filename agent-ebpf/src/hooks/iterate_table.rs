//! The socket iteration, as [`super::iterate_sockets`], over the table of sockets: a few entries at a
//! time.
//!
//! Run as [`super::expire_attempts`] is; the kernel holds RCU meanwhile. Only where the kernel casts
//! sockets, see [`crate::sock::Sock::tcp`]: an entry knows the address of its socket, and nothing
//! holds that.

use agent_common::edge::ROLE_LISTENER;
use agent_common::socket_table::{ARGUMENTS, NO_ENTRY, WAYS};

use super::iterate_sockets::{visit_connection, visit_listener};
use crate::maps::{self, config};
use crate::sock::Sock;
use crate::socket_table;

/// The arguments: which entries, see [`agent_common::socket_table::batch`]. Returns how many records
/// of listeners it wrote.
#[unsafe(link_section = "raw_tp/run")]
#[unsafe(no_mangle)]
extern "C" fn iterate_table(arguments: *const [u64; ARGUMENTS]) -> i32 {
    if config!(socket_table) != 1 {
        return 0;
    }
    let mut records = 0;
    // The verifier takes no computed offset into the arguments.
    macro_rules! visit_those {
        ($($argument:literal)*) => { $(
            // SAFETY: the kernel passes twelve arguments.
            let mut entries = unsafe {
                core::ptr::read_volatile((&raw const (*arguments)).cast::<u64>().add($argument))
            };
            let mut part = 0;
            while part < 4 {
                let number = entries & 0xffff;
                if number == NO_ENTRY {
                    return records;
                }
                records += visit_entry(number as u32, records as u32) as i32;
                entries >>= 16;
                part += 1;
            }
        )* };
    }
    visit_those!(0 1 2 3 4 5 6 7 8 9 10 11);
    records
}

/// Visits an entry; 1 if it wrote a record, at this place.
///
/// A global function of numbers: the verifier walks it once, not once for each entry.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn visit_entry(number: u32, place: u32) -> u32 {
    // Everything below is pruned where it could not be verified.
    if config!(socket_table) != 1 {
        return 0;
    }
    let (index, way) = (number / WAYS as u32, number as usize % WAYS);
    let Some(set) = maps::socket_set(index) else { return 0 };
    if !socket_table::is_living(set, way) {
        socket_table::unmark(index, set, way);
        return 0;
    }
    let Some(key) = socket_table::take(set, way) else { return 0 };
    let state = socket_table::state(set, way);
    let mut written = 0;
    // SAFETY: ours since `take`; the verifier checks each load.
    unsafe {
        if let Some(sk) = Sock::at(socket_table::address(key))
            && socket_table::is_alive(sk, state)
        {
            if core::ptr::read_volatile(&raw const (*state).role) != ROLE_LISTENER {
                visit_connection(sk, state, true);
            } else if let Some(record) = visit_listener(sk, state)
                && let Some(room) = maps::listener_room(place)
            {
                *room = record;
                written = 1;
            }
        }
    }
    socket_table::give_back(set, way, key);
    written
}
