//! Capabilities of a thread: names of the known ones, and the set that the thread holds (man 7
//! capabilities).

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::thread;
use serde::Serialize;

/// A capability that some feature uses, or that can stand in for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Capability {
    /// Bypass file read permission checks.
    DacReadSearch = 2,
    /// Drop capabilities from the bounding set.
    Setpcap = 8,
    /// Configure the network; attach programs to cgroups.
    NetAdmin = 12,
    /// Inspect processes of other users.
    SysPtrace = 19,
    /// Most other privileges of root; includes CAP_BPF and CAP_PERFMON.
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
    /// All capabilities in the order in which they are shown: the specific ones first.
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
    /// Parses the kernel's hexadecimal form, as after `CapEff:` in /proc/PID/status.
    pub fn from_hex(hex: &str) -> Option<Self> {
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether `capability` is in it.
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// The member that grants `capability`: itself, or one that includes it.
    pub fn giving(self, capability: Capability) -> Option<Capability> {
        [Some(capability), capability.stand_in()].into_iter().flatten().find(|one| self.has(*one))
    }

    /// The members we have names for.
    pub fn named(self) -> Vec<Capability> {
        Capability::ALL.into_iter().filter(|one| self.has(*one)).collect()
    }

    /// The intersection.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// As the kernel writes it.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The permitted set of the calling thread.
    pub fn permitted() -> io::Result<Self> {
        Ok(Self(thread::capabilities(None)?.permitted.bits()))
    }

    /// Makes this the effective and permitted set of the calling thread, and clears the
    /// inheritable, ambient and (with CAP_SETPCAP) the bounding set. Nothing can be regained.
    pub fn leave_only(self) -> io::Result<()> {
        let before = thread::capabilities(None)?;
        if before.effective.contains(thread::CapabilitySet::SETPCAP) {
            clear_bounding_set()?;
        }
        thread::clear_ambient_capability_set()?;
        let left = thread::CapabilitySet::from_bits_retain(self.0);
        let inheritable = thread::CapabilitySet::empty();
        let sets = thread::CapabilitySets { effective: left, permitted: left, inheritable };
        Ok(thread::set_capabilities(None, sets)?)
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        Self(capabilities.into_iter().fold(0, |set, one| set | one.bit()))
    }
}

/// No program that this process could start would get any capability.
fn clear_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = thread::CapabilitySet::from_bits_retain(1 << number);
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
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
