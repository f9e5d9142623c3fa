//! QEMU: the installed one, or Debian's packages unpacked in the cache. They are not installed:
//! QEMU's packages conflict with those of another release that a machine may have, such as
//! `qemu-utils` of the backports.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use portolan_kit::shell;

use crate::architecture::Architecture;
use crate::kernels::cache;
use portolan_kit::suites::{Suite, codename};

/// Where libraries lie below the root of unpacked packages.
const LIBRARIES: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"];

/// An emulator that can be started.
pub enum Emulator {
    /// By its name, from this machine.
    Installed(&'static str),
    /// From packages below this root.
    Unpacked { name: &'static str, root: PathBuf },
}

impl Emulator {
    /// That of an architecture; fetches it the first time.
    pub fn of(architecture: &Architecture) -> Result<Self> {
        let Architecture { emulator: name, emulator_package, .. } = *architecture;
        if shell::exists(name) {
            return Ok(Self::Installed(name));
        }
        let root = cache()?.join(format!("emulator-{}", architecture.name));
        if !root.exists() {
            let lists = Suite::open(&codename()?, "amd64", &cache()?)?;
            lists.unpack_with_all_they_need(&[emulator_package], &root)?;
        }
        Ok(Self::Unpacked { name, root })
    }

    /// Continues a command line that starts it.
    pub fn add_to(&self, command: &mut Command) {
        match self {
            Self::Installed(name) => {
                command.arg(name);
            }
            // It finds its firmware and modules relative to its program, but not its libraries.
            Self::Unpacked { name, root } => {
                let folders = LIBRARIES.map(|folder| root.join(folder).display().to_string());
                command.env("LD_LIBRARY_PATH", folders.join(":"));
                command.arg(root.join("usr/bin").join(name));
            }
        }
    }
}
