//! Every hook: its name, ways to attach it, what it needs, what is missing without it.
//!
//! Long because it is one table: a row for each hook.

use agent_common::config::Offsets;

use super::later::LATER;
use super::parts::PARTS;

/// A kernel event that the agent attaches to.
#[derive(Debug)]
pub struct Hook {
    /// The name used everywhere: file, metric label, documentation.
    pub name: &'static str,
    /// Ways to attach it, best first.
    pub ways: &'static [Way],
    /// The fallback program behind a tracepoint's program, where programs can be preempted: it
    /// handles the events that the kernel skipped for the first; see [`UNPREEMPTED`].
    pub fallback: Option<Way>,
    /// Kernel fields its program reads; see `agent_common::config::Offsets`.
    pub fields: &'static [&'static str],
    /// Whether it belongs to request timing, which can be switched off.
    pub requests: bool,
    /// A hook without which the figures of this one would be wrong; it precedes it in the table.
    pub after: Option<&'static str>,
    /// What is not observed without it, in the operator's terms.
    pub lost_without: &'static str,
}

/// One way to attach a hook.
#[derive(Debug)]
pub struct Way {
    /// Its name among the ways of the hook.
    pub name: &'static str,
    /// The program in the object file; several ways may share one.
    pub program: &'static str,
    /// How it attaches.
    pub kind: Kind,
    /// The tracepoint, function or iterator.
    pub target: &'static str,
}

/// How a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tracepoint with typed arguments (`tp_btf`).
    Tracepoint,
    /// The entry of a kernel function.
    FunctionEntry,
    /// The return of a kernel function.
    FunctionExit,
    /// An iterator that the agent runs.
    Iterator,
    /// Nowhere: the agent runs it, with an argument.
    Run,
    /// Gets the address of a system call; at the root of the cgroup tree.
    CgroupAddress,
    /// Sees a socket; at the root of the cgroup tree.
    CgroupSocket,
}

const fn tracepoint(program: &'static str) -> Way {
    Way { name: program, program, kind: Kind::Tracepoint, target: program }
}

const fn fallback(program: &'static str, target: &'static str) -> Way {
    Way { name: program, program, kind: Kind::Tracepoint, target }
}

const fn cgroup(program: &'static str, kind: Kind) -> Way {
    Way { name: program, program, kind, target: program }
}

const fn function_entry(function: &'static str) -> Way {
    Way { name: function, program: function, kind: Kind::FunctionEntry, target: function }
}

/// The return of a function, for which another one's program serves.
const fn function_exit(function: &'static str, program: &'static str) -> Way {
    Way { name: function, program, kind: Kind::FunctionExit, target: function }
}

const fn iterator(program: &'static str, target: &'static str) -> Way {
    Way { name: program, program, kind: Kind::Iterator, target }
}

const fn run(program: &'static str) -> Way {
    Way { name: program, program, kind: Kind::Run, target: program }
}

/// All of them. `inet_sock_set_state` comes first: without it there is nothing to see at all.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "inet_sock_set_state",
        ways: &[tracepoint("inet_sock_set_state")],
        fallback: Some(fallback("state_fallback", "inet_sock_set_state")),
        fields: &[
            "daddr",
            "rcv_saddr",
            "dport",
            "num",
            "family",
            "state",
            "net",
            "v6_daddr",
            "v6_rcv_saddr",
            "protocol",
            "net_inum",
            "flags",
            "err",
            "write_seq",
            "tcp_mstamp",
            "bytes_received",
            "bytes_retrans",
            "bytes_acked",
            "snd_una",
            "rcv_nxt",
            "snd_nxt",
            "group_leader",
            "comm",
            "mm",
            "arg_start",
            "arg_end",
            "fs",
            "working_directory",
            "parent_directory",
            "directory_name",
        ],
        requests: false,
        after: None,
        lost_without: "everything: connects, connections, connect latency",
    },
    Hook {
        name: "sk_data_ready",
        ways: &[tracepoint("sk_data_ready"), function_entry("sock_def_readable")],
        fallback: Some(fallback("ready_fallback", "sk_data_ready")),
        fields: &[
            "write_seq",
            "snd_una",
            "tcp_mstamp",
            "first_tx_mstamp",
            "bytes_received",
            "flags",
            "state",
            "protocol",
        ],
        requests: true,
        after: None,
        lost_without: "request latency on both sides",
    },
    Hook {
        name: "sock_send_length",
        ways: &[tracepoint("sock_send_length"), function_exit("tcp_sendmsg", "tcp_sendmsg")],
        fallback: Some(fallback("send_fallback", "sock_send_length")),
        fields: &["write_seq", "tcp_mstamp", "state"],
        requests: true,
        after: None,
        lost_without: "timely request latency on the server side: a response is counted when the next request arrives or the connection ends",
    },
    Hook {
        name: "tcp_retransmit_skb",
        ways: &[tracepoint("tcp_retransmit_skb")],
        fallback: None,
        fields: &["write_seq", "first_tx_mstamp", "state"],
        requests: true,
        after: None,
        lost_without: "the part of request latency that is due to retransmits",
    },
    Hook {
        name: "tcp_retransmit_synack",
        ways: &[tracepoint("tcp_retransmit_synack")],
        fallback: None,
        fields: &[],
        requests: false,
        after: None,
        lost_without: "retransmitted SYN-ACKs of listeners",
    },
    Hook {
        name: "tcp_send_reset",
        ways: &[tracepoint("tcp_send_reset")],
        fallback: Some(fallback("tx_rst_fallback", "tcp_send_reset")),
        fields: &[
            "state",
            "flags",
            "net",
            "net_inum",
            "skb_dev",
            "dev_net",
            "skb_head",
            "skb_transport_header",
        ],
        requests: false,
        after: None,
        lost_without: "resets sent by this host and their cause",
    },
    Hook {
        name: "tcp_receive_reset",
        ways: &[tracepoint("tcp_receive_reset")],
        fallback: Some(fallback("rx_rst_fallback", "tcp_receive_reset")),
        fields: &["state", "flags", "write_seq", "first_tx_mstamp", "tcp_mstamp", "bytes_received"],
        requests: false,
        after: None,
        lost_without: "resets received and their cause",
    },
    Hook {
        name: "iterate_sockets",
        ways: &[
            iterator("iterate_sockets", "bpf_sk_storage_map"),
            iterator("iterate_files", "task_file"),
        ],
        fallback: None,
        fields: &["ack_backlog", "max_ack_backlog", "cookie"],
        requests: false,
        after: None,
        lost_without: "bytes, retransmits and round trip time of open connections before they end, and the list of listeners",
    },
    Hook {
        name: TABLE_ITERATION,
        ways: &[run(TABLE_ITERATION)],
        fallback: None,
        fields: &["ack_backlog", "max_ack_backlog", "cookie"],
        requests: false,
        after: None,
        lost_without: "keeping the state of connections",
    },
    Hook {
        name: "bootstrap_tcp",
        ways: &[iterator("bootstrap_tcp", "tcp")],
        fallback: None,
        fields: &["cookie"],
        requests: false,
        after: None,
        lost_without: "pre-existing connections and listeners",
    },
    Hook {
        name: "bootstrap_udp",
        ways: &[iterator("bootstrap_udp", "udp")],
        fallback: None,
        fields: &["cookie"],
        requests: false,
        after: None,
        lost_without: "pre-existing UDP sockets",
    },
    Hook {
        name: "post_bind4",
        ways: &[cgroup("post_bind4", Kind::CgroupSocket)],
        fallback: None,
        fields: OWNER_FIELDS,
        requests: false,
        after: None,
        lost_without: "holders of IPv4 ports without a TCP listener, including UDP, and since when",
    },
    Hook {
        name: "post_bind6",
        ways: &[cgroup("post_bind6", Kind::CgroupSocket)],
        fallback: None,
        fields: OWNER_FIELDS,
        requests: false,
        after: None,
        lost_without: "holders of IPv6 ports without a TCP listener, including UDP, and since when",
    },
    Hook {
        name: "bind4",
        ways: &[cgroup("bind4", Kind::CgroupAddress)],
        fallback: None,
        fields: BIND_FIELDS,
        requests: false,
        after: Some("post_bind4"),
        lost_without: "failed binds to IPv4 addresses",
    },
    Hook {
        name: "bind6",
        ways: &[cgroup("bind6", Kind::CgroupAddress)],
        fallback: None,
        fields: BIND_FIELDS,
        requests: false,
        after: Some("post_bind6"),
        lost_without: "failed binds to IPv6 addresses",
    },
    Hook {
        name: "connect4",
        ways: &[cgroup("connect4", Kind::CgroupAddress)],
        fallback: None,
        fields: OWNER_FIELDS,
        requests: false,
        after: None,
        lost_without: "connects to IPv4 addresses that fail before the SYN, as without a route",
    },
    Hook {
        name: "connect6",
        ways: &[cgroup("connect6", Kind::CgroupAddress)],
        fallback: None,
        fields: OWNER_FIELDS,
        requests: false,
        after: None,
        lost_without: "connects to IPv6 addresses that fail before the SYN, as without a route",
    },
    Hook {
        name: "sendmsg4",
        ways: &[cgroup("sendmsg4", Kind::CgroupAddress)],
        fallback: None,
        fields: &[],
        requests: true,
        after: Some("sk_data_ready"),
        lost_without: "names that programs resolve by DNS over IPv4 from sockets that are not connected, and these lookups: which servers they ask is not seen, so no answer is believed",
    },
    Hook {
        name: "sendmsg6",
        ways: &[cgroup("sendmsg6", Kind::CgroupAddress)],
        fallback: None,
        fields: &[],
        requests: true,
        after: Some("sk_data_ready"),
        lost_without: "names that programs resolve by DNS over IPv6 from sockets that are not connected, and these lookups: which servers they ask is not seen, so no answer is believed",
    },
    Hook {
        name: "sock_release",
        ways: &[cgroup("sock_release", Kind::CgroupSocket)],
        fallback: None,
        fields: OWNER_FIELDS,
        requests: true,
        after: Some("sock_send_length"),
        lost_without: "DNS lookups that got no response before their socket was closed, as timeouts",
    },
    Hook {
        name: "inet_bind_sk",
        ways: &[
            function_exit("inet_bind_sk", "inet_bind_sk"),
            function_exit("inet_bind", "inet_bind_sk"),
        ],
        fallback: None,
        fields: &[],
        requests: false,
        after: Some("bind4"),
        lost_without: "the exact errno of failed IPv4 binds: it is inferred, a second later",
    },
    Hook {
        name: "inet6_bind_sk",
        ways: &[
            function_exit("inet6_bind_sk", "inet6_bind_sk"),
            function_exit("inet6_bind", "inet6_bind_sk"),
        ],
        fallback: None,
        fields: &[],
        requests: false,
        after: Some("bind6"),
        lost_without: "the exact errno of failed IPv6 binds: it is inferred, a second later",
    },
    Hook {
        name: "expire_attempts",
        ways: &[run("expire_attempts")],
        fallback: None,
        fields: &[],
        requests: false,
        after: None,
        lost_without: "failed binds and refused connects of programs that try only once",
    },
    Hook {
        name: "bound_sockets",
        ways: &[
            iterator("bound_sockets", "bpf_sk_storage_map"),
            iterator("bound_files", "task_file"),
        ],
        fallback: None,
        fields: &["ack_backlog", "max_ack_backlog"],
        requests: false,
        after: Some("post_bind4"),
        lost_without: "bound sockets that do not listen, including UDP",
    },
];

/// The hook that goes through the table of sockets; without it that table is not used.
pub const TABLE_ITERATION: &str = "iterate_table";

/// Hooks that only names from DNS and DNS lookups need.
pub const QUESTIONS: [&str; 2] = ["sendmsg4", "sendmsg6"];

/// The hook that only DNS lookups need.
pub const RELEASE: &str = "sock_release";

/// Hooks without which nothing is missing: what they give exactly and at once is inferred a second
/// later.
pub const INFERRED_WITHOUT: [&str; 2] = ["inet_bind_sk", "inet6_bind_sk"];

/// Fields that `bind4` and `bind6` read.
const BIND_FIELDS: &[&str] =
    &["net", "net_inum", "num", "state", "group_leader", "comm", "cred", "cap_effective"];

/// Fields needed to identify the current process.
const OWNER_FIELDS: &[&str] = &["net", "net_inum", "group_leader", "comm"];

/// Kernels before 7.0, as a name to disable: programs on tracepoints are not preempted. Since then
/// they can be (kernel commit a46023d5616e), and the kernel skips events of the same hook on that
/// CPU until the program resumes, in other threads and in interrupts.
pub const UNPREEMPTED: &str = "unpreempted";

/// Optional fields without a hook of their own: what is missing if the kernel lacks them.
pub const OPTIONAL_FIELDS: &[(&str, &str)] = &[
    ("net_user_ns", "shares of users in tables: each of their network namespaces has its own"),
    ("user_ns_parent", "shares of users in tables: each of their network namespaces has its own"),
    ("user_ns_level", "shares of users in tables: each of their network namespaces has its own"),
    ("user_ns_owner", "shares of users in tables: each of their network namespaces has its own"),
    ("drops", "listen overflows"),
    ("v6_only", "whether an IPv6 listener also takes IPv4"),
    ("reuse", "the reason of a bind conflict: SO_REUSEADDR"),
    ("reuse_port", "the reason of a bind conflict: SO_REUSEPORT"),
    ("device", "the reason of a bind conflict: devices of the sockets"),
    ("uid", "the reason of a bind conflict: users of the sockets"),
    ("kernel_socket", "which ports the kernel holds for itself"),
    (
        "is_mptcp",
        "ports of MPTCP sockets (this kernel's structs have none): they count as the kernel's",
    ),
    ("socket", "who holds a port that was left to another process"),
    ("socket_inode", "who holds a port that was left to another process"),
    ("srtt_us", "round trip times"),
    ("rtt_seq", "round trip times"),
    ("bytes_sent", "bytes sent"),
    ("total_retrans", "retransmits"),
    ("total_rto", "retransmission timeouts (portolan_tcp_rto_total), which Linux counts since 6.7"),
    ("dsack_dups", "segments received twice (portolan_tcp_dsacks_total)"),
    ("chrono_type", LIMITED),
    ("chrono_start", LIMITED),
    ("chrono_stat", LIMITED),
    ("copied_seq", "unread data of connections (portolan_tcp_receive_queue_bytes)"),
    (
        "rack_mstamp",
        "whether a client that is never answered was idle before a reset; unanswered requests of clients that send a last message",
    ),
    ("user_timeout", "the cause user_timeout of aborts, which are retransmission without it"),
    (
        "socket_sk",
        "sockets in their storage, where the kernel permits no iterator over maps (docs/kernels.md)",
    ),
    ("last_received", "nothing: the clock is read more often (portolan_tcp_idle_close_seconds)"),
    ("upper_protocol", KERNEL_TLS),
    ("upper_protocol_name", KERNEL_TLS),
    ("lock_spinning", RACING_FIN),
    ("lock_owned", RACING_FIN),
];

const LIMITED: &str = "how long the receive window and the send buffer limit senders";
const KERNEL_TLS: &str = "which connections from before the agent the kernel encrypts (kTLS)";
const RACING_FIN: &str =
    "the end of a connection while it is being read: its FIN may count as one byte received";

/// Refuses unknown names: a typing mistake would make a test prove nothing.
pub fn check_disabled(disabled: &[String]) -> anyhow::Result<()> {
    let known = |mask: &str| {
        mask == UNPREEMPTED
            || find(mask).is_some()
            || Offsets::FIELDS.iter().any(|(name, ..)| *name == mask)
            || HOOKS
                .iter()
                .flat_map(|hook| hook.ways.iter().chain(&hook.fallback))
                .any(|way| mask.strip_prefix("way:") == Some(way.name))
            || PARTS.iter().any(|part| mask.strip_prefix("part:") == Some(part.name))
    };
    match disabled.iter().find(|mask| !known(mask)) {
        Some(mask) => anyhow::bail!(
            "`disable_hooks` and `disable_fields`: {mask} is neither a hook, nor a kernel field, nor way:NAME, nor part:NAME, nor {UNPREEMPTED}; `portolan status` lists the hooks"
        ),
        None => Ok(()),
    }
}

/// Every program that is attached, now or later; those that serve several ways come several times.
pub fn programs() -> impl Iterator<Item = &'static str> {
    let ways = HOOKS.iter().flat_map(|hook| hook.ways.iter().chain(&hook.fallback));
    ways.map(|way| way.program).chain(LATER.iter().map(|later| later.program))
}

/// The row of a hook.
pub fn find(name: &str) -> Option<&'static Hook> {
    HOOKS.iter().find(|hook| hook.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_exists_and_every_field_is_needed_by_someone() {
        let known: Vec<_> = Offsets::FIELDS.iter().map(|(name, ..)| *name).collect();
        let mut needed: Vec<_> = HOOKS.iter().flat_map(|hook| hook.fields).copied().collect();
        needed.extend(PARTS.iter().flat_map(|part| part.fields));
        needed.extend(OPTIONAL_FIELDS.iter().map(|(name, _)| *name));
        for name in &needed {
            assert!(known.contains(name), "{name} is not a field");
        }
        for name in known {
            assert!(needed.contains(&name), "nobody needs {name}");
        }
    }

    #[test]
    fn a_mask_must_mask_something() {
        let check = |mask: &str| check_disabled(&[mask.to_owned()]).is_ok();
        assert!(check("iterate_sockets") && check("drops"));
        assert!(check("way:sk_data_ready") && check("way:inet_bind") && check("part:dns_answers"));
        assert!(check("part:tcp_cast"));
        assert!(!check("sweeep") && !check("way:nothing") && !check("part:nothing"));
    }

    #[test]
    fn parts_are_of_hooks() {
        let mut hooks = PARTS.iter().flat_map(|part| part.hooks);
        assert!(hooks.all(|hook| find(hook).is_some()));
    }

    #[test]
    fn a_hook_comes_after_the_one_it_needs() {
        for (i, hook) in HOOKS.iter().enumerate() {
            let Some(needed) = hook.after else { continue };
            let place = HOOKS.iter().position(|other| other.name == needed);
            assert!(place.is_some_and(|place| place < i), "{} before {needed}", hook.name);
        }
    }

    /// The loader distinguishes a fallback program from the first by its name, of which the kernel
    /// keeps 15 bytes.
    #[test]
    fn fallback_programs_have_names_that_the_kernel_keeps() {
        let mut fallbacks = HOOKS.iter().filter_map(|hook| hook.fallback.as_ref());
        assert!(fallbacks.all(|way| way.program.len() <= 15));
    }

    #[test]
    fn names_are_unique() {
        for hook in HOOKS {
            assert_eq!(HOOKS.iter().filter(|other| other.name == hook.name).count(), 1);
        }
        let ways = || HOOKS.iter().flat_map(|hook| hook.ways.iter().chain(&hook.fallback));
        for way in ways() {
            assert_eq!(ways().filter(|other| other.name == way.name).count(), 1, "{}", way.name);
        }
    }
}
