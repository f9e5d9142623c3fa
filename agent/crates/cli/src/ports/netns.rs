//! `--netns`: a network namespace by name or path.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use api_types::HOST_NETNS;

/// A network namespace by its inode: `host` (which the agent knows), a name of `ip netns`, or a
/// path.
pub(super) fn parse(text: &str) -> Result<u32, String> {
    let path = match text {
        "host" => return Ok(HOST_NETNS),
        path if path.contains('/') => path.to_owned(),
        name => format!("/run/netns/{name}"),
    };
    match fs::metadata(&path) {
        // Inodes of namespaces have 32 bits.
        Ok(file) => Ok(file.ino() as u32),
        Err(error) => Err(format!(
            "cannot open {path}: {error}; use host, a name as `ip netns` lists it, or a path like /proc/PID/ns/net"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_named_by_path_or_refused_with_the_fix() {
        let own = parse("/proc/self/ns/net").expect("our own");
        assert_eq!(u64::from(own), fs::metadata("/proc/self/ns/net").expect("ours").ino());
        let error = parse("no-such-namespace").expect_err("refused");
        assert!(error.starts_with("cannot open /run/netns/no-such-namespace"), "{error}");
    }
}
