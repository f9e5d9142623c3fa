//! Names that root has given to network namespaces: `ip netns add NAME` mounts one at
//! `/run/netns/NAME`. They are read in the mount namespace of the first process, where only root of
//! the host can mount.

use std::fs::File;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io;
use std::path::Path;

use hashbrown::HashMap;

use super::foreign_path;
use crate::mounts::{self, Mount};

/// How much of the mount table is read.
const LONGEST: u64 = 16 << 20;
/// Prefixes of names that engines make up for each container, before a UUID.
const MADE_UP: [&str; 2] = ["cni-", "netns-"];
const UUID_BYTES: usize = 36;

/// Names of network namespaces by their inodes, and a number that changes with the mounts of
/// namespaces; no names if the mount table cannot be read.
pub fn read() -> (HashMap<u32, String>, u64) {
    let list = |who| mounts::list(who, LONGEST, foreign_path::is_namespace);
    let found = list("1").or_else(|_| list("self")).unwrap_or_default().mounts;
    // The number of a mount that is gone is another's as soon as that of a namespace.
    let place = |mount: &Mount| (mount.id, mount.root.clone(), mount.point.clone());
    let places: Vec<_> = found.iter().map(place).collect();
    let version = BuildHasherDefault::<DefaultHasher>::default().hash_one(places);
    (names(&found), version)
}

/// The mount table with these names. It becomes ready with priority (POLLPRI) when it has changed.
pub fn table() -> io::Result<File> {
    let open = |who: &str| File::open(format!("/proc/{who}/mountinfo"));
    open("1").or_else(|_| open("self"))
}

/// Of several names the first in their order, so that it is the same every time.
fn names(mounts: &[Mount]) -> HashMap<u32, String> {
    let mut names: HashMap<u32, String> = HashMap::new();
    for mount in mounts {
        if let (Some(inode), Some(name)) = (inode(&mount.root), name(&mount.point)) {
            names
                .entry(inode)
                .and_modify(|first| {
                    if *name < **first {
                        name.clone_into(first);
                    }
                })
                .or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// The inode in a mount's root `net:[4026532229]`.
pub(super) fn inode(root: &Path) -> Option<u32> {
    root.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// `NAME` of `/run/netns/NAME`, unless an engine made it up for one container.
fn name(point: &Path) -> Option<&str> {
    let point = point.to_str()?;
    let name = point.strip_prefix("/run/netns/").or_else(|| point.strip_prefix("/var/run/netns/"));
    let name = name.filter(|name| !name.is_empty() && !name.contains('/'))?;
    let is_uuid = |rest: &str| {
        rest.len() == UUID_BYTES
            && rest.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    };
    let is_made_up = MADE_UP.iter().filter_map(|prefix| name.strip_prefix(prefix)).any(is_uuid);
    (!is_made_up).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_ip_netns_and_not_those_of_containers() {
        let check = |point: &str, expected: Option<&str>| {
            assert_eq!(name(Path::new(point)), expected, "{point}");
        };
        check("/run/netns/blue", Some("blue"));
        check("/var/run/netns/vpn 2", Some("vpn 2"));
        check("/run/netns/cni", Some("cni"));
        let uuid = "6d3c1f0e-0b1a-4f5e-9c3d-2a1b0c9d8e7f";
        check(&format!("/run/netns/qrouter-{uuid}"), Some(&format!("qrouter-{uuid}")));
        check(&format!("/run/netns/cni-{uuid}"), None);
        check(&format!("/run/netns/netns-{uuid}"), None);
        check("/run/docker/netns/0123456789ab", None);
        check("/run/netns/", None);
        check("/run/netns/a/b", None);
        check("/proc/1/ns/net", None);
    }

    #[test]
    fn only_network_namespaces_have_names_and_of_several_the_first() {
        let mount = |root: &str, point: &str| Mount {
            id: 1,
            root: root.into(),
            point: point.into(),
            kind: "nsfs".to_owned(),
        };
        let names = names(&[
            mount("net:[7]", "/run/netns/green"),
            mount("net:[7]", "/run/netns/blue"),
            mount("mnt:[8]", "/run/netns/files"),
            mount("net:[x]", "/run/netns/none"),
        ]);
        assert_eq!(names, HashMap::from([(7, "blue".to_owned())]));
    }
}
