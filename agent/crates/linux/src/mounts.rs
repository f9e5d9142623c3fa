//! The mount table: where the cgroup v2 hierarchy and bind-mounted namespaces are.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// One line of /proc/PID/mountinfo (man 5 proc_pid_mountinfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique on the host, in all mount namespaces, while the mount exists.
    pub id: u64,
    /// Directory of the file system that is mounted; `net:[inode]` for a network namespace.
    pub root: PathBuf,
    /// The mount point, as that process sees it.
    pub point: PathBuf,
    /// File system type.
    pub kind: String,
}

/// Part of a mount table.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The selected mounts.
    pub mounts: Vec<Mount>,
    /// How many bytes of the table were read.
    pub bytes: u64,
    /// The limit was reached: the table may be longer.
    pub truncated: bool,
}

/// The mounts of process `who` (a pid or `self`); unreadable lines are omitted.
pub fn of(who: &str) -> io::Result<Vec<Mount>> {
    Ok(list(who, u64::MAX, |_| true)?.mounts)
}

/// The mounts of process `who` that `keep` accepts, in the first `limit` bytes of its table: in a
/// user namespace any user can create 100 000 mounts (`fs.mount-max`).
pub fn list(who: &str, limit: u64, keep: impl Fn(&Mount) -> bool) -> io::Result<Listing> {
    read(File::open(format!("/proc/{who}/mountinfo"))?, limit, keep)
}

fn read(table: impl io::Read, limit: u64, keep: impl Fn(&Mount) -> bool) -> io::Result<Listing> {
    let mut table = BufReader::new(table.take(limit));
    let mut listing = Listing::default();
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line)? > 0 {
        listing.bytes = listing.bytes.saturating_add(line.len() as u64);
        // A line without an end was cut off by the limit.
        if let Some(whole) = line.strip_suffix(b"\n") {
            listing.mounts.extend(Mount::parse(whole).filter(&keep));
        }
        line.clear();
    }
    listing.truncated = listing.bytes >= limit;
    Ok(listing)
}

impl Mount {
    /// Parses one line: `id parent major:minor root point options [tags…] - type source options`.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let mut fields = fields.skip(2);
        let (root, point) = (fields.next()?, fields.next()?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self {
            id,
            root: unescaped(root),
            point: unescaped(point),
            kind: String::from_utf8_lossy(kind).into_owned(),
        })
    }
}

/// Undoes the kernel's escapes: space, tab, newline and backslash are written as `\ooo`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_and_escapes_are_understood() {
        let check = |line: &str, id: u64, root: &str, point: &str, kind: &str| {
            let expected = Mount { id, root: root.into(), point: point.into(), kind: kind.into() };
            assert_eq!(Mount::parse(line.as_bytes()), Some(expected), "{line}");
        };
        check(
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
            41,
            "/",
            "/sys/fs/cgroup/unified",
            "cgroup2",
        );
        check(
            "98 24 0:4 net:[4026532229] /run/netns/blue\\040sky rw shared:1 master:2 - nsfs nsfs rw",
            98,
            "net:[4026532229]",
            "/run/netns/blue sky",
            "nsfs",
        );
        assert_eq!(Mount::parse(b"41 31 0:38 / /x rw"), None);
        assert_eq!(Mount::parse(b"x 31 0:38 / /x rw - tmpfs t rw"), None);
        assert_eq!(Mount::parse(b""), None);
    }

    #[test]
    fn this_machine_has_a_proc() {
        assert!(of("self").unwrap().iter().any(|mount| mount.kind == "proc"));
    }

    #[test]
    fn a_long_table_is_read_up_to_the_limit_and_reported_as_longer() {
        let line = |id: u64| format!("{id} 1 0:4 net:[{id}] /run/{id} rw - nsfs nsfs rw\n");
        let table: String = (10..99).map(line).collect();
        let (one, all) = (line(10).len() as u64, table.len() as u64);
        let check = |limit: u64, count: usize, truncated: bool| {
            let listing = read(table.as_bytes(), limit, |_| true).unwrap();
            let found = (listing.mounts.len(), listing.bytes, listing.truncated);
            assert_eq!(found, (count, limit.min(all), truncated), "{limit}");
        };
        check(0, 0, true);
        check(one - 1, 0, true);
        check(one, 1, true);
        check(3 * one + 1, 3, true);
        check(all + 1, 89, false);
        let chosen = read(table.as_bytes(), all + 1, |mount| mount.id == 42).unwrap();
        assert_eq!(chosen.mounts.len(), 1);
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mount::parse(&line);
        }
    }
}
