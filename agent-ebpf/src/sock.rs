//! The only reads of kernel structs.
//!
//! Offsets come from the running kernel's BTF and are constants for the verifier, which accepts
//! `BTF pointer + constant` as a typed load (a fault reads as zero). [`Sock`] is any `struct sock`;
//! [`Tcp`] is what `bpf_skc_to_tcp_sock` returned, behind which the fields of `tcp_sock` are in
//! reach.
//!
//! Long because what the kernel's structs look like is known nowhere else.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use agent_common::address::{self, Address};
use agent_common::answer::{Front, UDP_HEADER};
use agent_common::claim;
use agent_common::knobs::MISSING;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use network_types::tcp::TcpHdr;

use crate::maps::knob;

/// TCP states, include/net/tcp_states.h.
pub const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
pub const SYN_SENT: u8 = 2;
pub const SYN_RECV: u8 = 3;
pub const CLOSE: u8 = 7;
pub const CLOSE_WAIT: u8 = 8;
pub const LAST_ACK: u8 = 9;
pub const LISTEN: u8 = 10;
pub const CLOSING: u8 = 11;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;

/// Reads a field by its offset.
macro_rules! field {
    ($base:expr, $name:ident : $ty:ty) => {{
        let offset = knob!(offsets.$name);
        // SAFETY: the verifier checks base, offset and size against the kernel's own types.
        unsafe { read::<$ty>($base, offset) }
    }};
}

/// The same for a field that a kernel may lack: then it reads as zero, and nothing moves.
macro_rules! optional_field {
    ($base:expr, $name:ident : $ty:ty) => {
        if knob!(offsets.$name) == MISSING { 0 } else { field!($base, $name: $ty) }
    };
}

#[inline(always)]
unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: the caller's contract; volatile keeps it one load of exactly this size.
    unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast::<T>()) }
}

/// A `struct sock` (full sockets; for others only the part they share, `sock_common`).
#[derive(Clone, Copy)]
pub struct Sock(pub *const c_void);

impl Sock {
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
            self.words(knob!(offsets.v6_daddr))
        }
    }

    /// Local address.
    #[inline(always)]
    pub fn local(self) -> Address {
        if field!(self.0, family: u16) == AF_INET {
            address::from_v4(field!(self.0, rcv_saddr: u32))
        } else {
            self.words(knob!(offsets.v6_rcv_saddr))
        }
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

    /// Socket cookie; 0 if nobody asked for one yet.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        field!(self.0, cookie: u64)
    }

    /// Drop counter; on a listener, connection requests it could not take.
    #[inline(always)]
    pub fn drops(self) -> u32 {
        optional_field!(self.0, drops: u32)
    }

    /// Whether the program set `SO_LINGER`.
    #[inline(always)]
    pub fn lingers(self) -> bool {
        field!(self.0, flags: u64) >> (knob!(sock_linger_bit) & 63) & 1 == 1
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

    /// Whether packets could find it as a listener. The flag is set when a listener is hashed
    /// (`__inet_hash`), which comes after it has kept its port, and is never taken back.
    #[inline(always)]
    pub fn was_listening(self) -> bool {
        field!(self.0, flags: u64) >> (knob!(sock_rcu_free_bit) & 63) & 1 == 1
    }

    /// `claim::REUSE_ADDRESS` and its kin.
    #[inline(always)]
    pub fn options(self) -> u8 {
        let options = options_of(
            self.bit_field(knob!(offsets.reuse)),
            self.bit_field(knob!(offsets.reuse_port)),
            self.bit_field(knob!(offsets.v6_only)),
        );
        if self.family() == AF_INET { options } else { options | claim::IS_V6 }
    }

    /// Accept queue: length and limit.
    #[inline(always)]
    pub fn backlog(self) -> (u32, u32) {
        (field!(self.0, ack_backlog: u32), field!(self.0, max_ack_backlog: u32))
    }

    /// Whether an IPv6 socket refuses IPv4.
    #[inline(always)]
    pub fn is_v6_only(self) -> bool {
        self.bit_field(knob!(offsets.v6_only)) & knob!(v6_only_mask) != 0
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

    /// The fields of `tcp_sock`; `None` if it is not a full TCP socket.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
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
    if reuse & knob!(reuse_mask) != 0 {
        options |= claim::REUSE_ADDRESS;
    }
    if reuse_port & knob!(reuse_port_mask) != 0 {
        options |= claim::REUSE_PORT;
    }
    if v6_only & knob!(v6_only_mask) != 0 {
        options |= claim::V6_ONLY;
    }
    options
}

/// A `struct tcp_sock`.
#[derive(Clone, Copy)]
pub struct Tcp(pub *const c_void);

impl Tcp {
    /// Next byte the program will write.
    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        field!(self.0, write_seq: u32)
    }

    /// Next byte the program will write; as [`write_seq`](Self::write_seq), but a FIN is no byte.
    #[inline(always)]
    pub fn written(self) -> u32 {
        self.write_seq().wrapping_sub(u32::from(is_fin_queued(field!(self.0, state: u8))))
    }

    /// First byte not acknowledged.
    #[inline(always)]
    pub fn unacknowledged(self) -> u32 {
        field!(self.0, snd_una: u32)
    }

    /// Time of the packet in hand, CLOCK_MONOTONIC microseconds. The stack refreshes it when a
    /// segment is received (`tcp_rcv_established`, `tcp_rcv_state_process`) and when it tries to
    /// transmit (`tcp_write_xmit`), so at our hooks it is now.
    #[inline(always)]
    pub fn now_us(self) -> u64 {
        field!(self.0, tcp_mstamp: u64)
    }

    /// When the most recently acknowledged packet was sent, or, while the pipe was empty before
    /// it, the first packet in flight (net/ipv4/tcp_rate.c). Microseconds; 0 if not known.
    #[inline(always)]
    pub fn sent_us(self) -> u64 {
        if knob!(offsets.first_tx_mstamp) == MISSING {
            return 0;
        }
        field!(self.0, first_tx_mstamp: u64)
    }

    /// Smoothed round trip time in microseconds, and a mark that moves with new samples.
    #[inline(always)]
    pub fn round_trip(self) -> (u32, u32) {
        (optional_field!(self.0, srtt_us: u32) >> 3, optional_field!(self.0, rtt_seq: u32))
    }

    /// Payload bytes handed to the network for the first time; `connected`: by connect, so that
    /// a SYN was acknowledged.
    ///
    /// The stack's own count has a segment twice that this host's packet filter or queue refused
    /// and that was therefore written again; sequence numbers do not, but they contain SYN and FIN.
    #[inline(always)]
    pub fn sent_bytes(self, connected: bool) -> u64 {
        let sent = optional_field!(self.0, bytes_sent: u64);
        if sent == 0 {
            return 0;
        }
        let counted = sent.wrapping_sub(field!(self.0, bytes_retrans: u64));
        let acknowledged = field!(self.0, bytes_acked: u64);
        let in_flight_from = self.unacknowledged();
        let next = field!(self.0, snd_nxt: u32);
        let has_fin = next == self.write_seq() && is_fin_queued(field!(self.0, state: u8));
        let numbered = acknowledged
            .wrapping_add(u64::from(next.wrapping_sub(in_flight_from)))
            .wrapping_sub(u64::from(connected) + u64::from(has_fin));
        if numbered as i64 >= 0 && numbered < counted { numbered } else { counted }
    }

    /// Payload bytes received in order. The stack counts a FIN as a byte; we do not. Only for
    /// those who hold the socket's lock.
    #[inline(always)]
    pub fn received_bytes(self) -> u64 {
        field!(self.0, bytes_received: u64).wrapping_sub(self.has_fin())
    }

    /// As [`received_bytes`](Self::received_bytes) without the lock; `None` if it cannot be told
    /// now. The stack counts a FIN shortly before it sets the flag that tells, holding the lock:
    /// read in the order count, lock, flag, such a count is always found with the lock taken.
    #[inline(always)]
    pub fn received_bytes_unlocked(self) -> Option<u64> {
        let count = field!(self.0, bytes_received: u64);
        let is_locked = (knob!(offsets.lock_spinning) != MISSING
            && field!(self.0, lock_spinning: u32) != 0)
            || (knob!(offsets.lock_owned) != MISSING && field!(self.0, lock_owned: u32) != 0);
        let has_fin = self.has_fin();
        if is_locked && has_fin == 0 { None } else { Some(count.wrapping_sub(has_fin)) }
    }

    /// 1 if the peer's FIN was received.
    #[inline(always)]
    fn has_fin(self) -> u64 {
        field!(self.0, flags: u64) >> (knob!(sock_done_bit) & 63) & 1
    }

    /// Segments sent again.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        optional_field!(self.0, total_retrans: u32)
    }
}

/// Whether a socket in this state has queued its FIN. While the hook of a state change runs, the
/// socket still has the state before.
#[inline(always)]
fn is_fin_queued(state: u8) -> bool {
    state == FIN_WAIT1 || state == FIN_WAIT2 || state == CLOSING || state == LAST_ACK
}

/// A `struct sk_buff`.
#[derive(Clone, Copy)]
pub struct Packet(pub *const c_void);

/// What a reset without a socket needs to know of the packet that caused it.
pub struct Segment {
    /// Port it was sent to.
    pub local_port: u16,
    /// Port it came from.
    pub remote_port: u16,
    /// It asked for a connection.
    pub is_connection_request: bool,
}

impl Packet {
    /// Inode number of the network namespace the packet came into; 0 if it has no device.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let device = field!(self.0, skb_dev: *const c_void);
        let net = field!(device, dev_net: *const c_void);
        field!(net, net_inum: u32)
    }

    /// The packet that was queued before this one.
    #[inline(always)]
    pub fn previous(self) -> Self {
        Self(field!(self.0, skb_prev: *const c_void))
    }

    /// Whether it is in a queue. What was read from it before this was so is what was in it.
    #[inline(always)]
    pub fn is_queued(self) -> bool {
        !self.previous().0.is_null()
    }

    /// The UDP header, and what follows it as far as the header of a DNS message would go.
    #[inline(always)]
    pub fn front(self) -> Option<Front> {
        let mut front = MaybeUninit::<Front>::uninit();
        // SAFETY: the helper checks the source at run time and fills the buffer or fails.
        let result = unsafe {
            bpf_probe_read_kernel(
                front.as_mut_ptr().cast(),
                size_of::<Front>() as u32,
                self.datagram(0),
            )
        };
        // SAFETY: filled just now; every pattern of bytes is valid.
        if result == 0 { Some(unsafe { front.assume_init() }) } else { None }
    }

    /// How many bytes of the datagram's message lie in the packet's buffer.
    #[inline(always)]
    pub fn message_in_buffer(self) -> u32 {
        let start = u32::from(field!(self.0, skb_transport_header: u16)) + UDP_HEADER as u32;
        field!(self.0, skb_tail: u32).saturating_sub(start)
    }

    /// Copies `length` bytes of the datagram's message; `false` if they cannot be read.
    ///
    /// # Safety
    /// `to` must have room for them.
    #[inline(always)]
    pub unsafe fn copy_message(self, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller's contract, and the helper checks the source at run time.
        unsafe { bpf_probe_read_kernel(to.cast(), length, self.datagram(UDP_HEADER)) == 0 }
    }

    /// Where the UDP header is, and so many bytes behind it.
    #[inline(always)]
    fn datagram(self, offset: usize) -> *const c_void {
        let head = field!(self.0, skb_head: *const u8);
        let header = field!(self.0, skb_transport_header: u16);
        head.wrapping_add(header as usize).wrapping_add(offset).cast()
    }

    /// Ports and purpose from the TCP header.
    #[inline(always)]
    pub fn segment(self) -> Option<Segment> {
        let head = field!(self.0, skb_head: *const u8);
        let offset = field!(self.0, skb_transport_header: u16);
        let mut header = MaybeUninit::<TcpHdr>::uninit();
        // SAFETY: the helper checks the source at run time and fills the buffer or fails.
        let result = unsafe {
            bpf_probe_read_kernel(
                header.as_mut_ptr().cast(),
                TcpHdr::LEN as u32,
                head.wrapping_add(offset as usize).cast(),
            )
        };
        if result != 0 {
            return None;
        }
        // SAFETY: filled just now; a header is bytes, of which every pattern is valid.
        let header = unsafe { header.assume_init() };
        Some(Segment {
            remote_port: u16::from_be_bytes(header.source),
            local_port: u16::from_be_bytes(header.dest),
            is_connection_request: header.syn() == 1 && header.ack() == 0,
        })
    }
}

/// The current task, for its name and arguments.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    /// Command name of the thread group's leader.
    #[inline(always)]
    pub fn leader_comm(self) -> [u8; 16] {
        let leader = field!(self.0, group_leader: *const c_void);
        let offset = knob!(offsets.comm);
        // SAFETY: as in `field!`; comm is sixteen bytes.
        let words: [u64; 2] = unsafe { [read(leader, offset), read(leader, offset + 8)] };
        let mut comm = [0; 16];
        let (a, b) = (words[0].to_ne_bytes(), words[1].to_ne_bytes());
        let mut i = 0;
        while i < 8 {
            comm[i] = a[i];
            comm[i + 8] = b[i];
            i += 1;
        }
        comm
    }

    /// Whether its effective capabilities have CAP_NET_BIND_SERVICE (10).
    #[inline(always)]
    pub fn may_bind_privileged(self) -> bool {
        let cred = field!(self.0, cred: *const c_void);
        field!(cred, cap_effective: u32) >> 10 & 1 == 1
    }

    /// Where the arguments start and end in the task's memory; zeros for kernel threads.
    #[inline(always)]
    pub fn arguments(self) -> (u64, u64) {
        let mm = field!(self.0, mm: *const c_void);
        (field!(mm, arg_start: u64), field!(mm, arg_end: u64))
    }
}
