//! tracefs, from which bpftrace and libbpf's tools read tracepoints. Nothing mounts it on machines
//! without systemd, containers for instance, and these tools then fail or count nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Where it belongs since Linux 4.1, and where it was before, below debugfs.
const FOLDERS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Mounts tracefs if it is missing, and reports it.
pub fn mount() -> Result<()> {
    if FOLDERS.iter().any(|folder| Path::new(folder).join("events").is_dir()) {
        return Ok(());
    }
    let [folder, _] = FOLDERS;
    if !shell::is_root() {
        bail!("tracefs is not mounted: run `mount -t tracefs tracefs {folder}` as root");
    }
    println!("mounting tracefs at {folder}");
    shell::quiet(Command::new("mount").args(["-t", "tracefs", "tracefs", folder]))
        .context("tracing tools need tracefs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracepoints_can_be_read_once_it_is_mounted() {
        if !shell::is_root() {
            println!("SKIPPED: mounting needs root");
            return;
        }
        // A second call finds the first one's mount.
        mount().and_then(|()| mount()).unwrap();
        let there =
            |folder: &str| Path::new(folder).join("events/sock/inet_sock_set_state").exists();
        assert!(FOLDERS.into_iter().any(there));
    }
}
