//! Properties of the host that decide which capabilities are needed.

use std::fs;

/// The properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Major and minor version of the running kernel.
    pub kernel: (u32, u32),
    /// Whether bpf(2) is denied to processes without capabilities.
    pub bpf_restricted: bool,
}

impl Host {
    /// This host.
    pub fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            // An unreadable version counts as old, which needs more.
            kernel: version(&read("/proc/sys/kernel/osrelease")).unwrap_or((0, 0)),
            bpf_restricted: read("/proc/sys/kernel/unprivileged_bpf_disabled").trim() != "0",
        }
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("5.15.0-91-generic\n"), Some((5, 15)));
        assert_eq!(version("7.2"), Some((7, 2)));
        assert_eq!(version("strange"), None);
    }
}
