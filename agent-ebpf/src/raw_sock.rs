//! A socket as the cgroup hooks get it: the verifier lets them read little of it, so the rest is
//! read by address.

use core::ffi::c_void;

use agent_common::attempt::{BOUND_BEFORE, IS_V6};
pub use agent_common::config::MISSING;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::maps::config;
use crate::net::Net;
use crate::sock::{CLOSE, options_of};

/// The address of a `struct sock`.
#[derive(Clone, Copy)]
pub struct RawSock(u64);

/// Reads a field by its offset; zero if the kernel lacks it or the read fails.
macro_rules! raw {
    ($base:expr, $name:ident : $ty:ty) => {{
        let offset = config!(offsets.$name);
        if offset == $crate::raw_sock::MISSING {
            0 as $ty
        } else {
            $crate::raw_sock::read::<$ty>($base, offset)
        }
    }};
}
pub(crate) use raw;

impl RawSock {
    /// The address behind a `struct bpf_sock` pointer.
    ///
    /// The verifier allows no arithmetic on such a pointer; read back from the stack by a helper
    /// it is a number.
    #[inline(always)]
    pub fn of(sk: *const c_void) -> Self {
        let mut address = 0u64;
        // SAFETY: copies the eight bytes of a local variable.
        unsafe {
            bpf_probe_read_kernel((&raw mut address).cast(), 8, (&raw const sk).cast());
        }
        Self(address)
    }

    /// At an address.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(address)
    }

    /// The network namespace.
    #[inline(always)]
    pub fn net(self) -> Net {
        Net(raw!(self.0, net: u64))
    }

    /// Who made the socket.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        raw!(self.0, uid: u32)
    }

    /// The device the socket is bound to.
    #[inline(always)]
    pub fn device(self) -> u32 {
        raw!(self.0, device: u32)
    }

    /// `attempt::REUSE_ADDRESS` and its kin.
    #[inline(always)]
    pub fn options(self, is_v6: bool) -> u8 {
        let mut options = options_of(
            raw!(self.0, reuse: u8),
            raw!(self.0, reuse_port: u8),
            raw!(self.0, v6_only: u8),
        );
        if is_v6 {
            options |= IS_V6;
        }
        if raw!(self.0, num: u16) != 0 || raw!(self.0, state: u8) != CLOSE {
            options |= BOUND_BEFORE;
        }
        options
    }
}

/// Reads from an address; zeros if that fails.
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the source at run time; the destination is a local variable.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            base.wrapping_add(u64::from(offset)) as *const _,
        );
    }
    value
}
