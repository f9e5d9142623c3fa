//! The fields of `tcp_sock`: bytes, round trips, the times of packets.

use core::ffi::c_void;

use agent_common::config::MISSING;
use agent_common::limit::{CHRONO_RECEIVE_WINDOW, CHRONO_SEND_BUFFER};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_probe_read_kernel};

use super::{CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, read};
use crate::maps::config;
use crate::socket_table;

/// A `struct tcp_sock`.
#[derive(Clone, Copy)]
pub struct Tcp(pub *const c_void);

impl Tcp {
    /// Of a child that its listener has just got (`sk_clone_lock`, net/core/sock.c), the listener's key
    /// in the table of sockets: lists of the child still have the addresses of that one's.
    #[inline(always)]
    pub fn parents_key(self) -> u64 {
        let node = field!(self.0, tsq_node: *const c_void);
        socket_table::key(node).wrapping_sub(u64::from(config!(offsets.tsq_node)))
    }

    /// Whether the kernel encrypts what programs send (`struct tcp_ulp_ops tcp_tls_ulp_ops`,
    /// net/tls/tls_main.c).
    #[inline(always)]
    pub fn encrypts(self) -> bool {
        if config!(offsets.upper_protocol) == MISSING
            || config!(offsets.upper_protocol_name) == MISSING
        {
            return false;
        }
        let upper = field!(self.0, upper_protocol: *const c_void);
        !upper.is_null() && field!(upper, upper_protocol_name: u32) == u32::from_le_bytes(*b"tls\0")
    }

    /// Next byte the program will write.
    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        field!(self.0, write_seq: u32)
    }

    /// Next byte the program will write; as [`write_seq`](Self::write_seq), but a FIN is no byte.
    #[inline(always)]
    pub fn written(self) -> u32 {
        self.write_seq().wrapping_sub(u32::from(is_fin_queued(self.state())))
    }

    /// The first sequence number of this side, that of its SYN.
    #[inline(always)]
    pub fn first_sequence(self) -> u32 {
        // The SYN counts among the bytes.
        self.unacknowledged().wrapping_sub(field!(self.0, bytes_acked: u64) as u32)
    }

    /// The first sequence number of the peer, that of its SYN.
    #[inline(always)]
    pub fn peers_first_sequence(self) -> u32 {
        // The SYN counts as one; it may have carried bytes.
        field!(self.0, rcv_nxt: u32).wrapping_sub(self.received_bytes() as u32).wrapping_sub(1)
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
        if config!(offsets.first_tx_mstamp) == MISSING {
            return 0;
        }
        field!(self.0, first_tx_mstamp: u64)
    }

    /// Whether bytes of the program are not acknowledged, sent or not.
    #[inline(always)]
    pub fn is_in_flight(self) -> bool {
        // A FIN of ours, which is no byte, may be acknowledged.
        self.written().wrapping_sub(self.unacknowledged()) as i32 > 0
    }

    /// Whether the peer has acknowledged everything, a FIN included.
    #[inline(always)]
    pub fn is_acknowledged(self) -> bool {
        self.write_seq() == self.unacknowledged()
    }

    /// Whether data arrived within the last 40 jiffies, which are less than half a second; never on a
    /// kernel that does not say.
    #[inline(always)]
    pub fn has_just_received(self) -> bool {
        if config!(offsets.last_received) == MISSING {
            return false;
        }
        // SAFETY: no arguments. The stack counts the lower half, too (`tcp_jiffies32`).
        let now = unsafe { bpf_jiffies64() } as u32;
        now.wrapping_sub(field!(self.0, last_received: u32)) < 40
    }

    /// Whether the program set `TCP_USER_TIMEOUT`.
    #[inline(always)]
    pub fn has_user_timeout(self) -> bool {
        optional_field!(self.0, user_timeout: u32) != 0
    }

    /// When the youngest segment was sent that the peer has acknowledged (`tcp_rack_advance`,
    /// net/ipv4/tcp_recovery.c). Microseconds; 0 if not known, as without SACK.
    #[inline(always)]
    pub fn delivered_sent_us(self) -> u64 {
        optional_field!(self.0, rack_mstamp: u64)
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
        let has_fin = next == self.write_seq() && is_fin_queued(self.state());
        let numbered = acknowledged
            .wrapping_add(u64::from(next.wrapping_sub(in_flight_from)))
            .wrapping_sub(u64::from(connected) + u64::from(has_fin));
        if numbered as i64 >= 0 && numbered < counted { numbered } else { counted }
    }

    /// Whether any payload was ever handed to the network; always on a kernel that does not say.
    #[inline(always)]
    pub fn has_sent(self) -> bool {
        config!(offsets.bytes_sent) == MISSING || field!(self.0, bytes_sent: u64) != 0
    }

    /// Payload bytes received in order. The stack counts a FIN as a byte; we do not. Only for
    /// those who hold the socket's lock.
    #[inline(always)]
    pub fn received_bytes(self) -> u64 {
        field!(self.0, bytes_received: u64).wrapping_sub(self.has_fin())
    }

    /// As [`received_bytes`](Self::received_bytes) without the lock; `None` if it is not known
    /// now. The stack counts a FIN shortly before it sets the flag for it, holding the lock:
    /// read in the order count, lock, flag, such a count is always found with the lock taken.
    #[inline(always)]
    pub fn received_bytes_unlocked(self) -> Option<u64> {
        let count = field!(self.0, bytes_received: u64);
        let is_locked = self.is_locked();
        let has_fin = self.has_fin();
        if is_locked && has_fin == 0 { None } else { Some(count.wrapping_sub(has_fin)) }
    }

    /// Whether someone works on the socket now; never on a kernel that does not say.
    #[inline(always)]
    fn is_locked(self) -> bool {
        (config!(offsets.lock_spinning) != MISSING && field!(self.0, lock_spinning: u32) != 0)
            || (config!(offsets.lock_owned) != MISSING && field!(self.0, lock_owned: u32) != 0)
    }

    /// 1 if the peer's FIN was received.
    #[inline(always)]
    fn has_fin(self) -> u64 {
        field!(self.0, flags: u64) >> (config!(sock_done_bit) & 63) & 1
    }

    /// TCP state.
    #[inline(always)]
    pub fn state(self) -> u8 {
        field!(self.0, state: u8)
    }

    /// Segments sent again.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        optional_field!(self.0, total_retrans: u32)
    }
}

// Queues, and what holds them up.
impl Tcp {
    /// Payload that arrived in order and that the program has not read. Without the lock it is that
    /// of about now.
    #[inline(always)]
    pub fn unread(self) -> u32 {
        if config!(offsets.copied_seq) == MISSING {
            return 0;
        }
        let copied = field!(self.0, copied_seq: u32);
        // A FIN is numbered, and read like a byte.
        let unread = field!(self.0, rcv_nxt: u32).wrapping_sub(copied) as i32;
        if unread <= 0 { 0 } else { unread as u32 - self.has_fin() as u32 }
    }

    /// Payload that the program wrote and that is not acknowledged, sent or not; likewise.
    #[inline(always)]
    pub fn unsent_or_in_flight(self) -> u32 {
        let unacknowledged = self.unacknowledged();
        let waiting = self.written().wrapping_sub(unacknowledged) as i32;
        if waiting < 0 { 0 } else { waiting as u32 }
    }

    /// Retransmission timeouts, in the upper half: the kernel's count has 16 bits, and wraps as it
    /// does.
    #[inline(always)]
    pub fn timeouts(self) -> u32 {
        u32::from(optional_field!(self.0, total_rto: u16)) << 16
    }

    /// Segments that the peer has received twice.
    #[inline(always)]
    pub fn dsacks(self) -> u32 {
        optional_field!(self.0, dsack_dups: u32)
    }

    /// For how many jiffies the peer's window, and the program's send buffer, have kept data from
    /// being sent, up to now (`tcp_get_info_chrono_stats`, net/ipv4/tcp.c). Only for those who hold
    /// the socket's lock.
    #[inline(always)]
    pub fn limited(self) -> (u32, u32) {
        if !has_chronograph() {
            return (0, 0);
        }
        self.limited_until_now(self.timed(), field!(self.0, chrono_start: u32))
    }

    /// As [`limited`](Self::limited) without the lock; `None` if it is not known now. The stack
    /// holds the lock when it adds a time to the sum and starts another one: who has added it but
    /// not started is found with the lock taken, and who has started by the new start.
    #[inline(always)]
    pub fn limited_unlocked(self) -> Option<(u32, u32)> {
        if !has_chronograph() {
            return Some((0, 0));
        }
        let kind = self.timed();
        let start = field!(self.0, chrono_start: u32);
        let limited = self.limited_until_now(kind, start);
        let is_locked = self.is_locked();
        if is_locked || field!(self.0, chrono_start: u32) != start { None } else { Some(limited) }
    }

    #[inline(always)]
    fn limited_until_now(self, kind: u8, start: u32) -> (u32, u32) {
        let sums = config!(offsets.chrono_stat);
        // SAFETY: as in `field!`; the array has a sum for each kind from 1 on.
        let (window, buffer): (u32, u32) = unsafe {
            (
                read(self.0, sums + 4 * (u32::from(CHRONO_RECEIVE_WINDOW) - 1)),
                read(self.0, sums + 4 * (u32::from(CHRONO_SEND_BUFFER) - 1)),
            )
        };
        if kind != CHRONO_RECEIVE_WINDOW && kind != CHRONO_SEND_BUFFER {
            return (window, buffer);
        }
        // SAFETY: no arguments. The stack counts the lower half, too.
        let running = (unsafe { bpf_jiffies64() } as u32).wrapping_sub(start);
        if kind == CHRONO_RECEIVE_WINDOW {
            (window.wrapping_add(running), buffer)
        } else {
            (window, buffer.wrapping_add(running))
        }
    }

    /// What the connection is timed for at this moment, 0 for nothing.
    #[inline(always)]
    fn timed(self) -> u8 {
        // Without anything outstanding nothing is: `tcp_chrono_stop`.
        if self.is_acknowledged() { 0 } else { self.chrono_type() }
    }

    /// `enum tcp_chrono`; a bit field on some kernels, which the verifier will not let us load.
    #[inline(always)]
    fn chrono_type(self) -> u8 {
        let (mut byte, offset) = (0u8, config!(offsets.chrono_type));
        // SAFETY: the helper checks the source address at run time.
        unsafe {
            let from = self.0.cast::<u8>().add(offset as usize);
            bpf_probe_read_kernel((&raw mut byte).cast(), 1, from.cast());
        }
        byte & config!(chrono_type_mask)
    }
}

/// Whether this kernel times what keeps data from being sent.
#[inline(always)]
fn has_chronograph() -> bool {
    config!(offsets.chrono_stat) != MISSING
        && config!(offsets.chrono_start) != MISSING
        && config!(offsets.chrono_type) != MISSING
}

/// Whether a socket in this state has queued its FIN. While the hook of a state change runs, the
/// socket still has the state before.
#[inline(always)]
fn is_fin_queued(state: u8) -> bool {
    state == FIN_WAIT1 || state == FIN_WAIT2 || state == CLOSING || state == LAST_ACK
}
