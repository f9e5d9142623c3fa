//! What user space sets before the programs are loaded: read-only data of the kernel half.
//!
//! The verifier sees these as constants, so a branch on a field that this kernel lacks costs
//! nothing. Offsets come from the running kernel's BTF.

use crate::address::Range;
use crate::slot_table::SHARED;

/// Offset of a field that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// How many internal ranges can be declared.
pub const MAX_RANGES: usize = 32;

/// How many values of `enum sk_rst_reason` the table holds.
pub const MAX_REASONS: usize = 64;

/// What the object calls where it needs the `tcp_sock` of a socket. There is no such helper: before
/// loading, the loader replaces each of these calls by one of the helper `bpf_skc_to_tcp_sock`, or
/// of the kernel function `bpf_rdonly_cast`; see [`Config::tcp_sock_type`].
pub const TCP_SOCK_CALL: u32 = 0x7463_7000;

macro_rules! offsets {
    ($size:literal; $( $(#[$meta:meta])* $field:ident = $ty:literal . $path:expr ),* $(,)?) => {
        crate::wire! {
            /// Byte offsets of kernel struct fields, [`MISSING`] where the kernel has none.
            pub struct Offsets: $size { $( $(#[$meta])* pub $field: u32 ),* }
        }

        impl Offsets {
            /// Nothing known.
            pub const NONE: Self = Self { $( $field: MISSING ),* };

            /// Every field: its name here, the kernel struct, the member's path in it.
            pub const FIELDS: &'static [(&'static str, &'static str, &'static str)] =
                &[ $( (stringify!($field), $ty, $path) ),* ];

            /// Sets a field by its name in [`Self::FIELDS`]; `false` if there is none.
            pub fn set(&mut self, name: &str, offset: u32) -> bool {
                match name {
                    $( stringify!($field) => self.$field = offset, )*
                    _ => return false,
                }
                true
            }
        }
    };
}

offsets! { 336;
    /// Remote IPv4 address.
    daddr = "sock_common"."skc_daddr",
    /// Local IPv4 address.
    rcv_saddr = "sock_common"."skc_rcv_saddr",
    /// Remote port, network byte order.
    dport = "sock_common"."skc_dport",
    /// Local port, host byte order.
    num = "sock_common"."skc_num",
    /// Address family.
    family = "sock_common"."skc_family",
    /// TCP state.
    state = "sock_common"."skc_state",
    /// Network namespace.
    net = "sock_common"."skc_net.net",
    /// Remote IPv6 address.
    v6_daddr = "sock_common"."skc_v6_daddr",
    /// Local IPv6 address.
    v6_rcv_saddr = "sock_common"."skc_v6_rcv_saddr",
    /// Socket cookie.
    cookie = "sock_common"."skc_cookie",
    /// Flags of `enum sock_flags`.
    flags = "sock_common"."skc_flags",
    /// Pending error.
    err = "sock"."sk_err",
    /// IP protocol.
    protocol = "sock"."sk_protocol",
    /// Drop counter.
    drops = "sock"."sk_drops",
    /// Accept queue length.
    ack_backlog = "sock"."sk_ack_backlog",
    /// Accept queue limit.
    max_ack_backlog = "sock"."sk_max_ack_backlog",
    /// Next byte the program will write.
    write_seq = "tcp_sock"."write_seq",
    /// First unacknowledged byte.
    snd_una = "tcp_sock"."snd_una",
    /// Next byte expected from the peer.
    rcv_nxt = "tcp_sock"."rcv_nxt",
    /// Next byte to be sent.
    snd_nxt = "tcp_sock"."snd_nxt",
    /// Sequence numbers acknowledged.
    bytes_acked = "tcp_sock"."bytes_acked",
    /// The socket's spin lock: not 0 while a softirq works on the socket.
    lock_spinning = "sock"."sk_lock.slock",
    /// Not 0 while a program's system call owns the socket.
    lock_owned = "sock"."sk_lock.owned",
    /// Time of the packet in hand, microseconds, CLOCK_MONOTONIC.
    tcp_mstamp = "tcp_sock"."tcp_mstamp",
    /// When the most recently acknowledged packet was sent, microseconds.
    first_tx_mstamp = "tcp_sock"."first_tx_mstamp",
    /// When the youngest acknowledged segment was sent, microseconds.
    rack_mstamp = "tcp_sock"."rack.mstamp",
    /// `TCP_USER_TIMEOUT`, milliseconds; 0 if not set.
    user_timeout = "inet_connection_sock"."icsk_user_timeout",
    /// Smoothed round trip time times eight, microseconds.
    srtt_us = "tcp_sock"."srtt_us",
    /// Round trip marker: moves with every new sample.
    rtt_seq = "tcp_sock"."rtt_seq",
    /// Payload received in order.
    bytes_received = "tcp_sock"."bytes_received",
    /// Payload sent, retransmits included.
    bytes_sent = "tcp_sock"."bytes_sent",
    /// Payload retransmitted.
    bytes_retrans = "tcp_sock"."bytes_retrans",
    /// Segments retransmitted.
    total_retrans = "tcp_sock"."total_retrans",
    /// Retransmission timeouts, since Linux 6.7.
    total_rto = "tcp_sock"."total_rto",
    /// Segments that the peer has received twice.
    dsack_dups = "tcp_sock"."dsack_dups",
    /// What the connection is timed for at this moment; see [`Config::chrono_type_mask`].
    chrono_type = "tcp_sock"."chrono_type",
    /// Since when, jiffies.
    chrono_start = "tcp_sock"."chrono_start",
    /// For how long before that, by what it was, jiffies.
    chrono_stat = "tcp_sock"."chrono_stat",
    /// Next byte that the program will read.
    copied_seq = "tcp_sock"."copied_seq",
    /// Inode number of a network namespace.
    net_inum = "net"."ns.inum",
    /// The user namespace that a network namespace belongs to.
    net_user_ns = "net"."user_ns",
    /// The user namespace that a user namespace was made in.
    user_ns_parent = "user_namespace"."parent",
    /// How deep a user namespace is nested; 0 is the initial one.
    user_ns_level = "user_namespace"."level",
    /// Who made it.
    user_ns_owner = "user_namespace"."owner",
    /// Thread group leader.
    group_leader = "task_struct"."group_leader",
    /// Command name.
    comm = "task_struct"."comm",
    /// Memory of a task.
    mm = "task_struct"."mm",
    /// Where the arguments start.
    arg_start = "mm_struct"."arg_start",
    /// Where the arguments end.
    arg_end = "mm_struct"."arg_end",
    /// The directories of a task.
    fs = "task_struct"."fs",
    /// The working directory.
    working_directory = "fs_struct"."pwd.dentry",
    /// The directory that a directory is in; of the root of a file system, itself.
    parent_directory = "dentry"."d_parent",
    /// The name of a directory.
    directory_name = "dentry"."d_name.name",
    /// Device a packet came in on.
    skb_dev = "sk_buff"."dev",
    /// Network namespace of a device.
    dev_net = "net_device"."nd_net.net",
    /// Start of a packet's buffer.
    skb_head = "sk_buff"."head",
    /// Offset of the transport header in it.
    skb_transport_header = "sk_buff"."transport_header",
    /// Offset of the network header in it.
    skb_network_header = "sk_buff"."network_header",
    /// Byte that holds the IPv6-only flag; see [`Config::v6_only_mask`].
    v6_only = "sock_common"."skc_ipv6only",
    /// Byte that holds `SO_REUSEADDR`; see [`Config::reuse_mask`].
    reuse = "sock_common"."skc_reuse",
    /// Byte that holds `SO_REUSEPORT`; see [`Config::reuse_port_mask`].
    reuse_port = "sock_common"."skc_reuseport",
    /// Byte that holds whether the kernel made a socket for itself; see
    /// [`Config::kernel_socket_mask`].
    kernel_socket = "sock"."sk_kern_sock",
    /// Whether a TCP socket is part of an MPTCP socket, which has it instead of a process.
    is_mptcp = "tcp_sock"."is_mptcp",
    /// What a program has a descriptor of.
    socket = "sock"."sk_socket",
    /// Inode of that.
    socket_inode = "socket_alloc"."vfs_inode.i_ino",
    /// The device a socket is bound to.
    device = "sock_common"."skc_bound_dev_if",
    /// Who made a socket.
    uid = "sock"."sk_uid",
    /// Rights of a task.
    cred = "task_struct"."cred",
    /// Its effective capabilities, as bits.
    cap_effective = "cred"."cap_effective",
    /// The newest packet that waits to be read.
    newest_packet = "sock"."sk_receive_queue.prev",
    /// How many wait.
    waiting_packets = "sock"."sk_receive_queue.qlen",
    /// The packet that was queued before.
    skb_prev = "sk_buff"."prev",
    /// Where the packet's data in its buffer ends.
    skb_tail = "sk_buff"."tail",
    /// A list of its own; a child of a listener is born with the address of that one's.
    tsq_node = "tcp_sock"."tsq_node",
    /// The socket of what a program has a descriptor of.
    socket_sk = "socket"."sk",
    /// When data last arrived, jiffies.
    last_received = "inet_connection_sock"."icsk_ack.lrcvtime",
    /// What kind of task it is.
    task_flags = "task_struct"."flags",
    /// The number of the system call that a task is in.
    syscall_number = "pt_regs".SYSCALL_NUMBER,
    /// Its second argument; the loader adds [`SECOND_ARGUMENT`].
    syscall_argument = "pt_regs".SYSCALL_ARGUMENTS,
    /// Its third argument; the loader adds [`THIRD_ARGUMENT`].
    syscall_third = "pt_regs".SYSCALL_THIRD,
    /// Its result, once it has one. Before: [`NO_RESULT`], or its first argument; see
    /// [`Config::result_replaces_argument`].
    syscall_result = "pt_regs".SYSCALL_RESULT,
    /// Its first argument, where the result takes the place of that; elsewhere not looked at.
    syscall_first = "pt_regs".SYSCALL_FIRST,
    /// Who works between the program and TCP.
    upper_protocol = "inet_connection_sock"."icsk_ulp_ops",
    /// The name of that.
    upper_protocol_name = "tcp_ulp_ops"."name",
}

/// Where a task keeps the registers of its program (arch/*/include/asm/ptrace.h).
#[cfg(not(target_arch = "aarch64"))]
mod registers {
    pub const SYSCALL_NUMBER: &str = "orig_ax";
    pub const SYSCALL_ARGUMENTS: &str = "si";
    pub const SYSCALL_THIRD: &str = "dx";
    pub const SYSCALL_RESULT: &str = "ax";
    pub const SYSCALL_FIRST: &str = "di";
    /// See [`super::Offsets::syscall_argument`].
    pub const SECOND_ARGUMENT: u32 = 0;
    /// See [`super::Offsets::syscall_third`].
    pub const THIRD_ARGUMENT: u32 = 0;
}

/// As above.
#[cfg(target_arch = "aarch64")]
mod registers {
    pub const SYSCALL_NUMBER: &str = "syscallno";
    pub const SYSCALL_ARGUMENTS: &str = "regs";
    pub const SYSCALL_THIRD: &str = "regs";
    pub const SYSCALL_RESULT: &str = "regs";
    pub const SYSCALL_FIRST: &str = "orig_x0";
    /// See [`super::Offsets::syscall_argument`].
    pub const SECOND_ARGUMENT: u32 = 8;
    /// See [`super::Offsets::syscall_third`].
    pub const THIRD_ARGUMENT: u32 = 16;
}

/// How far behind the field in the place of [`Offsets::syscall_argument`] that is.
pub use registers::SECOND_ARGUMENT;
/// The same for [`Offsets::syscall_third`].
pub use registers::THIRD_ARGUMENT;
use registers::{SYSCALL_ARGUMENTS, SYSCALL_FIRST, SYSCALL_NUMBER, SYSCALL_RESULT, SYSCALL_THIRD};

/// What the result of a system call is as long as it has none, on x86-64: ENOSYS, negative.
pub const NO_RESULT: i64 = -38;

/// How a program hands over what it sends.
pub const WRITE: usize = 0;
/// As [`WRITE`].
pub const SENDTO: usize = 1;
/// In several parts.
pub const WRITEV: usize = 2;
/// In several parts, with an address.
pub const SENDMSG: usize = 3;
/// Several such messages at once.
pub const SENDMMSG: usize = 4;

crate::wire! {
    /// Everything set before load.
    pub struct Config: 1492 {
        /// Field offsets.
        pub offsets: Offsets,
        /// Ranges whose addresses keep rows of their own as clients of a server.
        pub ranges: [Range; MAX_RANGES],
        /// How many of `ranges` are valid.
        pub range_count: u32,
        /// Copies of each slot's counters, a power of two; a CPU adds to its own.
        pub shards: u32,
        /// `enum sk_rst_reason` value → cause.
        pub causes: [u8; MAX_REASONS],
        /// The kernel's number (BTF id) of `struct tcp_sock` where it casts sockets to that, 0 where
        /// the helper does; the second argument of [`TCP_SOCK_CALL`].
        pub tcp_sock_type: u32,
        /// How long a jiffy is, microseconds.
        pub jiffy_us: u32,
        /// The numbers of the system calls by which programs send: [`WRITE`] and its kin.
        pub sending: [u16; 5],
        /// 1 if DNS lookups are counted ([`crate::lookup`]).
        pub lookups: u8,
        /// Always zero.
        pub zero: u8,
        /// How many slots each slot table has, and how many rows for durations there are.
        pub capacities: [u32; SHARED],
        /// 1 if `tcp_send_reset` has the reason as its third argument.
        pub reset_has_reason: u8,
        /// 1 if requests are timed.
        pub requests: u8,
        /// The bit of [`Offsets::v6_only`]'s byte.
        pub v6_only_mask: u8,
        /// Bit number of `SOCK_DONE` in the flags: the peer's FIN was received.
        pub sock_done_bit: u8,
        /// Bit number of `SOCK_DEAD` in the flags: the program has closed the socket.
        pub sock_dead_bit: u8,
        /// Bit number of `SOCK_LINGER` in the flags: the program chose how to close.
        pub sock_linger_bit: u8,
        /// Bit number of `SOCK_RCU_FREE` in the flags: a listener was found by packets.
        pub sock_rcu_free_bit: u8,
        /// The bits of [`Offsets::reuse`]'s byte.
        pub reuse_mask: u8,
        /// The bit of [`Offsets::reuse_port`]'s byte.
        pub reuse_port_mask: u8,
        /// 1 if answers of DNS servers are handed over.
        pub dns: u8,
        /// 1 if programs are preempted, so that fallback programs are attached.
        pub fallback: u8,
        /// The bits of [`Offsets::chrono_type`]'s byte.
        pub chrono_type_mask: u8,
        /// The bit of [`Offsets::kernel_socket`]'s byte.
        pub kernel_socket_mask: u8,
        /// 1 if the state of sockets lies in the table of sockets.
        pub socket_table: u8,
        /// 1 if the heads of responses are looked at ([`crate::response`]).
        pub responses: u8,
        /// 1 if the result of a system call is kept where its first argument was, which is also kept
        /// elsewhere ([`Offsets::syscall_first`]).
        pub result_replaces_argument: u8,
    }
}
