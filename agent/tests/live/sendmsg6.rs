//! `sendmsg6`: which DNS servers a program asks over IPv6 from a socket that is not connected.

use crate::dns::{Family, answers_count_only_from_a_server_that_was_asked};

#[test]
fn sendmsg6_shows_which_servers_a_socket_has_asked() {
    needs_kernel!();
    answers_count_only_from_a_server_that_was_asked(Family::V6);
}
