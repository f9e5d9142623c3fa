//! The emulated architectures, and their differences.

use portolan_kit::build::Target;
use portolan_kit::{apt, shell};

/// An architecture and its machine.
#[derive(Debug)]
pub struct Architecture {
    /// As Debian calls it.
    pub name: &'static str,
    /// The target triple.
    pub target: Target,
    /// The emulator.
    pub emulator: &'static str,
    /// The machine type of QEMU.
    pub machine: &'static [&'static str],
    /// The console of its kernel.
    pub console: &'static str,
    /// Its `strip`: that of another architecture does not support its programs.
    pub strip: &'static str,
    /// Further packages needed on this machine.
    programs: &'static [&'static str],
    /// The package with the emulator.
    pub emulator_package: &'static str,
    /// The packages, including the common ones.
    packages: &'static [&'static str],
}

pub static AMD64: Architecture = Architecture {
    name: "amd64",
    target: Target::Host,
    emulator: "qemu-system-x86_64",
    machine: &["-cpu", "max"],
    console: "ttyS0",
    strip: "strip",
    programs: &["busybox", "ldd", "timeout", "xz"],
    emulator_package: "qemu-system-x86",
    packages: &["busybox-static", "xz-utils", "binutils"],
};

/// Neoverse N1: atomic instructions of ARMv8.1, as every server has them, and no pointer
/// authentication, which takes an emulator most of its time.
pub static ARM64: Architecture = Architecture {
    name: "arm64",
    target: Target::Aarch64,
    emulator: "qemu-system-aarch64",
    machine: &["-machine", "virt", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
    strip: "aarch64-linux-gnu-strip",
    programs: &["aarch64-linux-gnu-gcc", "dpkg-deb", "readelf", "timeout", "xz"],
    emulator_package: "qemu-system-arm",
    packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "binutils", "xz-utils"],
};

impl Architecture {
    /// Why it cannot be emulated here, if so; installs the requirements where possible.
    pub fn cannot_be_emulated(&self) -> Option<String> {
        if cfg!(not(target_arch = "x86_64")) {
            return Some("programs for it are compiled on x86_64, this machine is another".into());
        }
        if apt::is_here() && shell::is_root() {
            let install = || apt::install(&apt::missing(self.packages));
            if let Err(error) = install().and_then(|()| self.target.prepare()) {
                return Some(format!("{error:#}"));
            }
        }
        let mut needed = std::iter::once(&self.strip).chain(self.programs);
        let missing = needed.find(|program| !shell::exists(program));
        missing.map(|program| format!("{program} is not installed"))
    }
}
