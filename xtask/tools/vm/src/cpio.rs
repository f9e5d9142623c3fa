//! An archive in the kernel's initramfs format ("newc" of
//! `Documentation/driver-api/early-userspace/buffer-format.rst`), uncompressed.

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

/// Files in the order they were put in; folders come by themselves.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Puts a file there, executable: it does no harm to those that are none.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        let name = path.trim_start_matches('/');
        if let Some(parent) = Path::new(name).parent() {
            self.folder(&parent.to_string_lossy());
        }
        self.entry(name, EXECUTABLE, content, (0, 0));
    }

    /// Makes a folder and those above it.
    pub fn folder(&mut self, path: &str) {
        let name = path.trim_matches('/');
        if name.is_empty() || self.folders.contains(name) {
            return;
        }
        if let Some(parent) = Path::new(name).parent() {
            self.folder(&parent.to_string_lossy());
        }
        self.folders.insert(name.to_owned());
        self.entry(name, DIRECTORY, &[], (0, 0));
    }

    /// Makes a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        let name = path.trim_start_matches('/');
        if let Some(parent) = Path::new(name).parent() {
            self.folder(&parent.to_string_lossy());
        }
        self.entry(name, DEVICE, &[], (major, minor));
    }

    /// The archive with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device of the file (2), device it is
        // (2), length of the name with its zero, checksum (none in this variant).
        let size = content.len() as u32;
        let length = name.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn busybox_reads_what_was_put_in() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", b"hello");
        archive.file("a/d", b"");
        archive.folder("/a/b");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.cpio");
        std::fs::write(&file, archive.finish()).unwrap();
        let script = format!("cd {0} && busybox cpio -id < x.cpio", directory.path().display());
        match Command::new("sh").args(["-c", &script]).output() {
            Ok(output) if output.status.success() => {
                assert_eq!(std::fs::read(directory.path().join("a/b/c")).unwrap(), b"hello");
                assert!(directory.path().join("a/d").is_file());
            }
            _ => println!("SKIPPED: no busybox to read it"),
        }
    }

    #[test]
    fn an_archive_has_a_fixed_form() {
        let mut archive = Archive::default();
        archive.file("x", b"abc");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(bytes.len() % 4, 0);
        // Header of 110 bytes and "x\0": the content starts at the next multiple of four.
        assert_eq!(&bytes[112..115], b"abc");
        assert_eq!(bytes.windows(10).filter(|window| window == b"TRAILER!!!").count(), 1);
    }
}
