//! The only reads of kernel structs.
//!
//! Offsets come from the running kernel's BTF and are constants for the verifier, which accepts
//! `BTF pointer + constant` as a typed load (a fault reads as zero). [`Sock`] is any `struct sock`;
//! [`Tcp`] is the same pointer as one to `struct tcp_sock`, whose fields are then in reach.

use core::arch::asm;
use core::ffi::c_void;

use agent_common::address::{self, Address};
use agent_common::attempt;
use agent_common::config::{MISSING, TCP_SOCK_CALL};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};

use crate::maps::config;
use crate::net::Net;
use crate::raw_sock::RawSock;

/// TCP states, include/net/tcp_states.h.
pub const ESTABLISHED: u8 = 1;
pub const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
pub const SYN_SENT: u8 = 2;
pub const SYN_RECV: u8 = 3;
const TIME_WAIT: u8 = 6;
pub const CLOSE: u8 = 7;
pub const CLOSE_WAIT: u8 = 8;
pub const LAST_ACK: u8 = 9;
pub const LISTEN: u8 = 10;
pub const CLOSING: u8 = 11;
const NEW_SYN_RECV: u8 = 12;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;

/// Whether a connection changes to this state with the first FIN, where two of them cross, or when
/// this side closes after the other one.
#[inline(always)]
pub fn is_ending(state: u8) -> bool {
    state == FIN_WAIT1 || state == CLOSE_WAIT || state == CLOSING || state == LAST_ACK
}

/// Reads a field by its offset.
macro_rules! field {
    ($base:expr, $name:ident : $ty:ty) => {{
        let offset = config!(offsets.$name);
        // SAFETY: the verifier checks base, offset and size against the kernel's own types.
        unsafe { read::<$ty>($base, offset) }
    }};
}

/// The same for a field that a kernel may lack: then it reads as zero, and nothing moves.
macro_rules! optional_field {
    ($base:expr, $name:ident : $ty:ty) => {
        if config!(offsets.$name) == MISSING { 0 } else { field!($base, $name: $ty) }
    };
}

// Below the macros, which they use.
mod packet;
mod task;
mod tcp;

pub use packet::Packet;
pub use task::{SystemCall, Task};
pub use tcp::Tcp;

#[inline(always)]
unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: the caller's contract; volatile keeps it one load of exactly this size.
    unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast::<T>()) }
}

/// A `struct sock` (full sockets; for others only the part they share, `sock_common`).
#[derive(Clone, Copy)]
pub struct Sock(pub *const c_void);

impl Sock {
    /// That of a `struct socket`; null if it has none.
    #[inline(always)]
    pub fn of_socket(socket: *const c_void) -> Self {
        if config!(offsets.socket_sk) == MISSING {
            return Self(core::ptr::null());
        }
        Self(field!(socket, socket_sk: *const c_void))
    }

    /// Whether the socket speaks TCP (and not MPTCP, DCCP or SCTP, whose states pass by too).
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        field!(self.0, protocol: u16) == IPPROTO_TCP
    }

    /// Whether the socket speaks UDP. Protocol numbers of other families mean other things.
    #[inline(always)]
    pub fn is_udp(self) -> bool {
        let family = field!(self.0, family: u16);
        (family == AF_INET || family == AF_INET6) && field!(self.0, protocol: u16) == IPPROTO_UDP
    }

    /// The packet that was queued last, if any waits to be read. Only a guess without the lock of
    /// the queue: the program may read it any time, see [`Packet::is_queued`].
    #[inline(always)]
    pub fn newest_packet(self) -> Option<Packet> {
        if self.waiting_packets() == 0 {
            return None;
        }
        Some(Packet(field!(self.0, newest_packet: *const c_void)))
    }

    /// How many packets wait to be read.
    #[inline(always)]
    pub fn waiting_packets(self) -> u32 {
        field!(self.0, waiting_packets: u32)
    }

    /// TCP state.
    #[inline(always)]
    pub fn state(self) -> u8 {
        field!(self.0, state: u8)
    }

    /// Whether it is neither a TIME_WAIT nor a request socket (`sk_fullsock`, include/net/sock.h).
    #[inline(always)]
    pub fn is_full(self) -> bool {
        let state = self.state();
        state != TIME_WAIT && state != NEW_SYN_RECV
    }

    /// Pending error, positive.
    #[inline(always)]
    pub fn error(self) -> i32 {
        field!(self.0, err: i32)
    }

    /// Remote address.
    #[inline(always)]
    pub fn remote(self) -> Address {
        if field!(self.0, family: u16) == AF_INET {
            address::from_v4(field!(self.0, daddr: u32))
        } else {
            self.words(config!(offsets.v6_daddr))
        }
    }

    /// Local address.
    #[inline(always)]
    pub fn local(self) -> Address {
        if field!(self.0, family: u16) == AF_INET {
            address::from_v4(field!(self.0, rcv_saddr: u32))
        } else {
            self.words(config!(offsets.v6_rcv_saddr))
        }
    }

    /// Local and remote address.
    #[inline(always)]
    pub fn addresses(self) -> (Address, Address) {
        (self.local(), self.remote())
    }

    /// Remote port, host byte order.
    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(field!(self.0, dport: u16))
    }

    /// Local port, host byte order.
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        field!(self.0, num: u16)
    }

    /// Address family.
    #[inline(always)]
    pub fn family(self) -> u16 {
        field!(self.0, family: u16)
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net = field!(self.0, net: *const c_void);
        field!(net, net_inum: u32)
    }

    /// The network namespace, as a number.
    #[inline(always)]
    pub fn net(self) -> Net {
        RawSock::at(self.0 as u64).net()
    }

    /// Socket cookie; 0 if the kernel has not made one yet.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        field!(self.0, cookie: u64)
    }

    /// Drop counter; on a listener, connection requests it could not take.
    #[inline(always)]
    pub fn drops(self) -> u32 {
        optional_field!(self.0, drops: u32)
    }

    /// Whether the program has closed the socket, which the kernel still works on.
    #[inline(always)]
    pub fn is_orphaned(self) -> bool {
        field!(self.0, flags: u64) >> (config!(sock_dead_bit) & 63) & 1 == 1
    }

    /// Whether the program set `SO_LINGER`.
    #[inline(always)]
    pub fn lingers(self) -> bool {
        field!(self.0, flags: u64) >> (config!(sock_linger_bit) & 63) & 1 == 1
    }

    /// IP protocol.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        field!(self.0, protocol: u16)
    }

    /// Who made the socket.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        optional_field!(self.0, uid: u32)
    }

    /// The device the socket is bound to, 0 if none.
    #[inline(always)]
    pub fn device(self) -> u32 {
        optional_field!(self.0, device: u32)
    }

    /// Whether the kernel made it for itself; the sockets that an MPTCP socket consists of belong to
    /// the process that has that one. For iterators.
    #[inline(always)]
    pub fn is_kernels(self) -> bool {
        let is_made_by_kernel =
            self.bit_field(config!(offsets.kernel_socket)) & config!(kernel_socket_mask) != 0;
        let is_mptcp =
            || self.checked_tcp().is_some_and(|tcp| optional_field!(tcp.0, is_mptcp: u8) != 0);
        is_made_by_kernel && !is_mptcp()
    }

    /// The inode that /proc/PID/fd shows for it; 0 if unknown. For iterators.
    #[inline(always)]
    pub fn inode(self) -> u32 {
        if config!(offsets.socket) == MISSING || config!(offsets.socket_inode) == MISSING {
            return 0;
        }
        let socket = field!(self.0, socket: *const u8);
        if socket.is_null() {
            return 0;
        }
        let (offset, mut inode) = (config!(offsets.socket_inode) as usize, 0u64);
        // SAFETY: the helper checks the source address at run time.
        unsafe {
            let from = socket.add(offset);
            bpf_probe_read_kernel((&raw mut inode).cast(), 8, from.cast());
        }
        inode as u32
    }

    /// Whether packets could find it as a listener. The flag is set when a listener is hashed
    /// (`__inet_hash`), which comes after it has kept its port, and is never taken back.
    #[inline(always)]
    pub fn was_listening(self) -> bool {
        field!(self.0, flags: u64) >> (config!(sock_rcu_free_bit) & 63) & 1 == 1
    }

    /// `attempt::REUSE_ADDRESS` and its kin.
    #[inline(always)]
    pub fn options(self) -> u8 {
        let options = options_of(
            self.bit_field(config!(offsets.reuse)),
            self.bit_field(config!(offsets.reuse_port)),
            self.bit_field(config!(offsets.v6_only)),
        );
        if self.family() == AF_INET { options } else { options | attempt::IS_V6 }
    }

    /// Accept queue: length and limit.
    #[inline(always)]
    pub fn backlog(self) -> (u32, u32) {
        (field!(self.0, ack_backlog: u32), field!(self.0, max_ack_backlog: u32))
    }

    /// Whether an IPv6 socket refuses IPv4.
    #[inline(always)]
    pub fn is_v6_only(self) -> bool {
        self.bit_field(config!(offsets.v6_only)) & config!(v6_only_mask) != 0
    }

    /// The byte that holds a bit field, which the verifier will not let us load directly.
    #[inline(always)]
    fn bit_field(self, offset: u32) -> u8 {
        if offset == MISSING {
            return 0;
        }
        let mut byte = 0u8;
        // SAFETY: the helper checks the source address at run time.
        unsafe {
            let from = self.0.cast::<u8>().add(offset as usize);
            bpf_probe_read_kernel((&raw mut byte).cast(), 1, from.cast());
        }
        byte
    }

    /// The fields of `tcp_sock`, for sockets that are known to be full TCP sockets: those with a
    /// state ([`crate::maps::socket`]) and those for which [`Self::is_tcp`] holds in
    /// `inet_sock_set_state`, which the kernel runs for full sockets only. For others use
    /// [`Self::checked_tcp`].
    ///
    /// Where the kernel has `bpf_rdonly_cast` (Linux 6.2), this is a copy of a register, and what it
    /// points to is not checked: reads of something else would be wrong numbers, without harm to
    /// the kernel (`BPF_PROBE_MEM`). Elsewhere it is the helper `bpf_skc_to_tcp_sock`.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
        let cast_to = u64::from(config!(tcp_sock_type));
        let tcp: *const c_void;
        // SAFETY: the verifier checks the arguments of what the loader writes here; a call may
        // change these registers and nothing else.
        unsafe {
            asm!(
                "call {call}",
                call = const TCP_SOCK_CALL,
                lateout("r0") tcp,
                inlateout("r1") self.0 => _,
                inlateout("r2") cast_to => _,
                lateout("r3") _,
                lateout("r4") _,
                lateout("r5") _,
                options(nostack)
            );
        }
        if tcp.is_null() { None } else { Some(Tcp(tcp)) }
    }

    /// The socket at an address, as if it were a full TCP socket: nothing is checked. Only where the
    /// kernel casts; the verifier refuses it elsewhere.
    #[inline(always)]
    pub fn at(address: u64) -> Option<Self> {
        Self(address as *const c_void).tcp().map(|tcp| Self(tcp.0))
    }

    /// The fields of `tcp_sock`; `None` if it is not a full TCP socket.
    #[inline(always)]
    pub fn checked_tcp(self) -> Option<Tcp> {
        // SAFETY: the verifier checks the pointer; the helper checks what it points to.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) };
        if tcp.is_null() { None } else { Some(Tcp(tcp.cast_const().cast())) }
    }

    #[inline(always)]
    fn words(self, offset: u32) -> Address {
        // SAFETY: as in `field!`; an in6_addr is four words.
        unsafe {
            [
                read(self.0, offset),
                read(self.0, offset + 4),
                read(self.0, offset + 8),
                read(self.0, offset + 12),
            ]
        }
    }
}

/// Options of a socket, from the bytes that hold its bit fields.
#[inline(always)]
pub fn options_of(reuse: u8, reuse_port: u8, v6_only: u8) -> u8 {
    let mut options = 0;
    if reuse & config!(reuse_mask) != 0 {
        options |= attempt::REUSE_ADDRESS;
    }
    if reuse_port & config!(reuse_port_mask) != 0 {
        options |= attempt::REUSE_PORT;
    }
    if v6_only & config!(v6_only_mask) != 0 {
        options |= attempt::V6_ONLY;
    }
    options
}
