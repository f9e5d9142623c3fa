//! The fields of `sk_buff`, and the headers it points to.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use agent_common::address::{self, Address};
use agent_common::answer::{Front, UDP_HEADER};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use network_types::tcp::TcpHdr;

use super::read;
use crate::maps::config;
use crate::net::Net;
use crate::raw_sock::raw;

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

    /// That network namespace, as a number.
    #[inline(always)]
    pub fn net(self) -> Net {
        Net(raw!(raw!(self.0 as u64, skb_dev: u64), dev_net: u64))
    }

    /// The packet that was queued before this one.
    #[inline(always)]
    pub fn previous(self) -> Self {
        Self(field!(self.0, skb_prev: *const c_void))
    }

    /// The address it came from.
    #[inline(always)]
    pub fn source(self) -> Option<Address> {
        let head = field!(self.0, skb_head: *const u8);
        let header = head.wrapping_add(field!(self.0, skb_network_header: u16) as usize);
        let mut words = MaybeUninit::<[u32; 6]>::uninit();
        // SAFETY: the helper checks the source at run time and fills the buffer or fails.
        let result = unsafe {
            bpf_probe_read_kernel(
                words.as_mut_ptr().cast(),
                size_of::<[u32; 6]>() as u32,
                header.cast(),
            )
        };
        if result != 0 {
            return None;
        }
        // SAFETY: filled just now. A UDP header follows, so that many bytes are there.
        let [first, _, a, b, c, d] = unsafe { words.assume_init() };
        // The version is the first half byte of either header (RFC 791, RFC 8200).
        match first as u8 >> 4 {
            4 => Some(address::from_v4(b)),
            6 => Some([a, b, c, d]),
            _ => None,
        }
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
