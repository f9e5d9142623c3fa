//! The mount table: where the cgroup v2 hierarchy and bind-mounted namespaces are.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::{fs, io};

/// One line of /proc/PID/mountinfo (man 5 proc_pid_mountinfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Folder of the file system that is mounted; `net:[inode]` for a network namespace.
    pub root: PathBuf,
    /// Where it is mounted, as that process sees it.
    pub point: PathBuf,
    /// File system type.
    pub kind: String,
}

/// What process `who` (a pid or `self`) has mounted; lines that make no sense are left out.
pub fn of(who: &str) -> io::Result<Vec<Mount>> {
    Ok(fs::read(format!("/proc/{who}/mountinfo"))?
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::parse)
        .collect())
}

impl Mount {
    /// Parses one line: `id parent major:minor root point options [tags…] - type source options`.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self {
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
        let check = |line: &str, root: &str, point: &str, kind: &str| {
            let expected = Mount { root: root.into(), point: point.into(), kind: kind.into() };
            assert_eq!(Mount::parse(line.as_bytes()), Some(expected), "{line}");
        };
        check(
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
            "/",
            "/sys/fs/cgroup/unified",
            "cgroup2",
        );
        check(
            "98 24 0:4 net:[4026532229] /run/netns/blue\\040sky rw shared:1 master:2 - nsfs nsfs rw",
            "net:[4026532229]",
            "/run/netns/blue sky",
            "nsfs",
        );
        assert_eq!(Mount::parse(b"41 31 0:38 / /x rw"), None);
        assert_eq!(Mount::parse(b""), None);
    }

    #[test]
    fn this_machine_has_a_proc() {
        assert!(of("self").unwrap().iter().any(|mount| mount.kind == "proc"));
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mount::parse(&line);
        }
    }
}
