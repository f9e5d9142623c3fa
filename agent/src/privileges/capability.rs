//! Capabilities of a thread: the ones we know by name, and what the thread holds (man 7
//! capabilities).

use std::fmt;
use std::io;

use serde::Serialize;

/// A capability that some feature uses, or that can stand in for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Capability {
    /// Read what file permissions would hide.
    DacReadSearch = 2,
    /// Drop capabilities from the bounding set.
    Setpcap = 8,
    /// Configure the network; attach programs to cgroups.
    NetAdmin = 12,
    /// Look into other users' processes.
    SysPtrace = 19,
    /// The rest of what root may do; includes CAP_BPF and CAP_PERFMON.
    SysAdmin = 21,
    /// Trace the kernel (5.8).
    Perfmon = 38,
    /// Create BPF maps and load programs (5.8).
    Bpf = 39,
}

/// A set of capabilities, as the kernel writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl Capability {
    /// All of them, as people list them: the particular ones first.
    pub const ALL: [Self; 7] = [
        Self::Bpf,
        Self::Perfmon,
        Self::NetAdmin,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::SysAdmin,
        Self::Setpcap,
    ];

    /// The name in include/uapi/linux/capability.h.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Setpcap => "CAP_SETPCAP",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    /// The capability that the kernel takes as well (`bpf_capable`, `perfmon_capable` in
    /// include/linux/capability.h; programs for cgroups in `bpf_prog_load`).
    pub const fn stand_in(self) -> Option<Self> {
        match self {
            Self::Bpf | Self::Perfmon | Self::NetAdmin => Some(Self::SysAdmin),
            _ => None,
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u32
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Capability {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// === impl CapabilitySet ===

impl CapabilitySet {
    /// What the kernel writes in hexadecimal, as after `CapEff:` in /proc/PID/status.
    pub fn from_hex(hex: &str) -> Option<Self> {
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether `capability` is in it.
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// What of it gives `capability`: itself, or what stands in for it.
    pub fn giving(self, capability: Capability) -> Option<Capability> {
        [Some(capability), capability.stand_in()].into_iter().flatten().find(|one| self.has(*one))
    }

    /// The members we have names for.
    pub fn named(self) -> Vec<Capability> {
        Capability::ALL.into_iter().filter(|one| self.has(*one)).collect()
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// As the kernel writes it.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What the calling thread may make use of: its permitted set.
    pub fn permitted() -> io::Result<Self> {
        let (_, data) = thread_capabilities()?;
        Ok(Self(join(data.map(|half| half.permitted))))
    }

    /// Makes this the effective and permitted set of the calling thread, and clears the
    /// inheritable, ambient and (with CAP_SETPCAP) the bounding set. Nothing can be regained.
    pub fn leave_only(self) -> io::Result<()> {
        let (header, before) = thread_capabilities()?;
        if Self(join(before.map(|half| half.effective))).has(Capability::Setpcap) {
            clear_bounding_set()?;
        }
        // SAFETY: clears a set of this thread; takes no pointers.
        let cleared = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0) };
        if cleared != 0 {
            return Err(io::Error::last_os_error());
        }
        let half =
            |bits: u64| Half { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
        let data = [half(self.0), half(self.0 >> 32)];
        // SAFETY: header and two halves are what version 3 takes; the call only reads them.
        match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        Self(capabilities.into_iter().fold(0, |set, one| set | one.bit()))
    }
}

/// `_LINUX_CAPABILITY_VERSION_3`: two halves of 32 bits.
const VERSION: u32 = 0x2008_0522;
/// `PR_CAP_AMBIENT_CLEAR_ALL`, with the width that prctl takes.
const CLEAR_ALL: libc::c_ulong = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;

#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn thread_capabilities() -> io::Result<(Header, [Half; 2])> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Half::default(); 2];
    // SAFETY: version 3 writes two halves, which is what there is room for.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } {
        0 => Ok((header, data)),
        _ => Err(io::Error::last_os_error()),
    }
}

const fn join(halves: [u32; 2]) -> u64 {
    halves[0] as u64 | (halves[1] as u64) << 32
}

/// No program that this process could start would get any capability.
fn clear_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        // SAFETY: drops a member of a set of this thread; takes no pointers.
        let dropped =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if dropped != 0 {
            let error = io::Error::last_os_error();
            // Beyond the last capability that this kernel knows.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_the_kernel_writes_them() {
        let set = CapabilitySet::from_hex("\t000000c000001000\n").unwrap();
        assert_eq!(set.named(), [Capability::Bpf, Capability::Perfmon, Capability::NetAdmin]);
        assert_eq!(set, Capability::ALL[..3].iter().copied().collect());
        assert_eq!(CapabilitySet::from_hex("many"), None);
    }

    #[test]
    fn sys_admin_stands_in_where_the_kernel_lets_it() {
        let old: CapabilitySet = [Capability::SysAdmin].into_iter().collect();
        assert_eq!(old.giving(Capability::Bpf), Some(Capability::SysAdmin));
        assert_eq!(old.giving(Capability::SysPtrace), None);
        let new: CapabilitySet = [Capability::SysAdmin, Capability::Bpf].into_iter().collect();
        assert_eq!(new.giving(Capability::Bpf), Some(Capability::Bpf));
    }

    #[test]
    fn what_a_thread_drops_is_gone_for_it_alone() {
        let before = CapabilitySet::permitted().unwrap();
        let inside = std::thread::spawn(|| {
            CapabilitySet::default().leave_only().unwrap();
            CapabilitySet::permitted().unwrap()
        });
        assert_eq!(inside.join().unwrap(), CapabilitySet::default());
        assert_eq!(CapabilitySet::permitted().unwrap(), before);
    }
}
