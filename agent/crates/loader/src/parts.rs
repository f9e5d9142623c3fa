//! Parts of hooks that can be left out without leaving out the hook.

use agent_common::config::Config;

use super::hooks::TABLE_ITERATION;

/// A part of hooks that a constant of the configuration disables. The verifier prunes it, or the
/// loader writes something else in its place, so there is no second program: where the kernel
/// refuses a hook, it is tried without its parts.
#[derive(Debug)]
pub struct Part {
    /// Its name to disable it: `part:NAME`.
    pub name: &'static str,
    /// Its hooks.
    pub hooks: &'static [&'static str],
    /// Kernel fields that it reads, beside those of the hooks.
    pub fields: &'static [&'static str],
    /// Whether a configuration has it.
    pub is_on: fn(&Config) -> bool,
    /// Takes it out of a configuration.
    pub leave_out: fn(&mut Config),
    /// What is not observed without it, or takes more CPU time, in the operator's terms.
    pub lost_without: &'static str,
}

/// The table of sockets; see [`agent_common::socket_table`].
pub const SOCKET_TABLE: Part = Part {
    name: "socket_table",
    hooks: &[
        "inet_sock_set_state",
        "sk_data_ready",
        "sock_send_length",
        "tcp_retransmit_skb",
        "tcp_retransmit_synack",
        "tcp_send_reset",
        "tcp_receive_reset",
        TABLE_ITERATION,
        "bootstrap_tcp",
    ],
    fields: &["tsq_node"],
    is_on: |config| config.socket_table == 1,
    leave_out: |config| config.socket_table = 0,
    lost_without: "keeping the state of connections",
};

/// The cheap way from a socket to its `tcp_sock`; see [`super::tcp_sock`].
pub const TCP_CAST: Part = Part {
    name: "tcp_cast",
    hooks: &[
        "inet_sock_set_state",
        "sk_data_ready",
        "sock_send_length",
        "tcp_retransmit_skb",
        "tcp_receive_reset",
        "iterate_sockets",
        "connect4",
        "connect6",
    ],
    fields: &[],
    is_on: |config| config.tcp_sock_type != 0,
    // Without a cast there is no way from an entry of the table to its socket.
    leave_out: |config| (config.tcp_sock_type, config.socket_table) = (0, 0),
    lost_without: "reading TCP sockets",
};

/// DNS answers, read when data becomes ready.
pub const DNS_ANSWERS: Part = Part {
    name: "dns_answers",
    hooks: &["sk_data_ready"],
    fields: &[
        "family",
        "protocol",
        "dport",
        "net",
        "net_inum",
        "newest_packet",
        "waiting_packets",
        "skb_prev",
        "skb_head",
        "skb_tail",
        "skb_transport_header",
        "skb_network_header",
    ],
    is_on: |config| config.dns == 1,
    leave_out: |config| config.dns = 0,
    lost_without: "names that programs resolve by DNS",
};

/// What responses say, looked at when they are sent; see [`agent_common::response`].
pub const RESPONSES: Part = Part {
    name: "responses",
    hooks: &["sock_send_length"],
    fields: &[
        "task_flags",
        "syscall_number",
        "syscall_argument",
        "syscall_result",
        "syscall_first",
    ],
    is_on: |config| config.responses == 1,
    leave_out: |config| config.responses = 0,
    lost_without: "protocols of connections, and whether requests succeeded",
};

/// DNS lookups, noted when they are sent and counted when a response arrives; see
/// [`agent_common::lookup`]. `sock_release` has nothing to do without it.
pub const LOOKUPS: Part = Part {
    name: "lookups",
    hooks: &["sock_send_length", "sk_data_ready"],
    fields: &[
        "v6_daddr",
        "v6_rcv_saddr",
        "daddr",
        "rcv_saddr",
        "net",
        "net_inum",
        "group_leader",
        "comm",
        "mm",
        "arg_start",
        "arg_end",
        "fs",
        "working_directory",
        "parent_directory",
        "directory_name",
        "syscall_third",
        "task_flags",
        "syscall_number",
        "syscall_argument",
        "syscall_result",
        "syscall_first",
    ],
    is_on: |config| config.lookups == 1,
    leave_out: |config| config.lookups = 0,
    lost_without: "DNS lookups: their results and latency, and DNS servers that do not respond",
};

/// All parts, those first that are missed least.
pub const PARTS: &[Part] = &[SOCKET_TABLE, TCP_CAST, DNS_ANSWERS, RESPONSES, LOOKUPS];

/// What to load, one after the other, until the kernel takes every hook that has parts: everything,
/// then without each part alone, without each two, and so on.
pub fn attempts(config: &Config) -> Vec<Config> {
    let parts: Vec<&Part> = PARTS.iter().filter(|part| (part.is_on)(config)).collect();
    let without = |left_out: usize| {
        let mut config = *config;
        for (_, part) in parts.iter().enumerate().filter(|(at, _)| left_out >> at & 1 == 1) {
            (part.leave_out)(&mut config);
        }
        config
    };
    let mut left_out: Vec<usize> = (0..1 << parts.len()).collect();
    left_out.sort_by_key(|parts| parts.count_ones());
    let mut attempts: Vec<Config> = Vec::new();
    for config in left_out.into_iter().map(without) {
        // A part may take another one with it.
        if !attempts.contains(&config) {
            attempts.push(config);
        }
    }
    attempts
}

#[cfg(test)]
mod tests {
    use agent_common::wire::Wire as _;

    use super::*;

    #[test]
    fn parts_are_left_out_one_by_one_and_then_together() {
        let check = |socket_table, tcp_sock_type, dns, expected: &[(u8, u32, u8)]| {
            let config = Config { socket_table, tcp_sock_type, dns, ..Config::zeroed() };
            let tried = attempts(&config);
            let parts = |one: &Config| (one.socket_table, one.tcp_sock_type, one.dns);
            let tried: Vec<_> = tried.iter().map(parts).collect();
            assert_eq!(tried, expected);
        };
        let all = [(1, 7, 1), (0, 7, 1), (0, 0, 1), (1, 7, 0), (0, 7, 0), (0, 0, 0)];
        check(1, 7, 1, &all);
        check(0, 7, 1, &[(0, 7, 1), (0, 0, 1), (0, 7, 0), (0, 0, 0)]);
        check(0, 0, 1, &[(0, 0, 1), (0, 0, 0)]);
        check(0, 0, 0, &[(0, 0, 0)]);
    }
}
