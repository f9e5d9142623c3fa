//! The socket iteration, as [`super::iterate_sockets`], over the table of sockets.
//!
//! Iterator `bpf_map_elem` (kernel/bpf/map_iter.c, since 5.9) over the sets of entries. Only where
//! the kernel casts sockets, see [`crate::sock::Sock::tcp`]: an entry knows the address of its
//! socket, and nothing holds that.

use agent_common::edge::ROLE_LISTENER;
use agent_common::socket_table::WAYS;

use super::expire_attempts::Context;
use super::iterate_sockets::{visit_connection, visit_listener};
use crate::maps::{self, config};
use crate::opaque::opaque;
use crate::sock::Sock;
use crate::{connection, socket_table};

#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
extern "C" fn iterate_table(ctx: *const Context) -> i32 {
    if config!(socket_table) != 1 {
        return 0;
    }
    let Some((index, seq)) = Context::element(ctx) else { return 0 };
    let Some(set) = maps::socket_set(index) else { return 0 };
    // Listeners first: if the buffer for them is full the kernel visits this set again, and what
    // connections hold must not be added twice.
    let mut pass = 0;
    while pass < 2 * WAYS {
        let number = opaque(pass);
        let (way, wants_listener) = (number & (WAYS - 1), number < WAYS);
        let state = socket_table::state(set, way);
        // SAFETY: a valid map value; volatile, because others write it.
        let role = unsafe { core::ptr::read_volatile(&raw const (*state).role) };
        if (role == ROLE_LISTENER) == wants_listener
            && let Some(key) = socket_table::take(set, way)
        {
            let mut has_room = true;
            // SAFETY: ours; the verifier checks each load.
            unsafe {
                if let Some(sk) = Sock::at(socket_table::address(key))
                    && connection::is_alive(sk, state)
                {
                    if wants_listener {
                        has_room = visit_listener(sk, state, seq);
                    } else {
                        visit_connection(sk, state);
                    }
                }
            }
            socket_table::give_back(set, way, key);
            if !has_room {
                return 0;
            }
        }
        pass += 1;
    }
    0
}
