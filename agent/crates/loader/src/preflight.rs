//! Checks whether this host can run the agent. Each refusal is one sentence with the fix.

use std::fs::File;
use std::io;
use std::path::Path;

use thiserror::Error;

use super::btf;
use super::private::{self, Exposed};

/// The oldest kernel whose tracing programs may use socket-local storage and atomic exchanges.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Why the agent does not start.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Kernel too old.
    #[error("this kernel is {found}, but Portolan needs Linux {}.{} or later (socket-local storage in tracing programs); upgrade the kernel of this host", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    KernelTooOld {
        /// The release of `uname`.
        found: String,
    },
    /// No BTF.
    #[error(
        "this kernel does not publish its types ({} is missing); boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all major distributions ship",
        btf::VMLINUX
    )]
    NoBtf,
    /// Another instance.
    #[error(
        "another Portolan agent is running on this host (it holds {path}); stop it first, or give this one its own --run-directory"
    )]
    SecondInstance {
        /// The lock.
        path: String,
    },
    /// The run directory cannot be used.
    #[error("cannot use the run directory {path}: {error}; choose another with --run-directory")]
    RunDirectory {
        /// The directory.
        path: String,
        /// The system's error.
        error: io::Error,
    },
    /// Others can change the run directory.
    #[error("cannot use the run directory {0} (--run-directory)")]
    RunDirectoryExposed(#[from] Exposed),
}

/// Checks the kernel.
pub fn check() -> Result<(), Refusal> {
    check_kernel(&kernel_release())?;
    if !Path::new(btf::VMLINUX).exists() {
        return Err(Refusal::NoBtf);
    }
    Ok(())
}

/// Release of the running kernel, as uname says it.
pub fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Holds the run directory's lock; only one agent per host can.
pub fn lock(run_directory: &Path) -> Result<File, Refusal> {
    let refuse = |error| Refusal::RunDirectory { path: run_directory.display().to_string(), error };
    std::fs::create_dir_all(run_directory).map_err(refuse)?;
    private::check(run_directory)?;
    let path = run_directory.join("lock");
    private::lock(&path)
        .map_err(refuse)?
        .ok_or_else(|| Refusal::SecondInstance { path: path.display().to_string() })
}

/// Major and minor number of a release, as of `6.12.9-amd64`.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    Some((number()?, number()?))
}

fn check_kernel(release: &str) -> Result<(), Refusal> {
    // If it cannot be read, loading will fail with the reason.
    if version(release).is_some_and(|version| version < OLDEST_KERNEL) {
        return Err(Refusal::KernelTooOld { found: release.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_with_the_reason() {
        let check =
            |release, fine: bool| assert_eq!(check_kernel(release).is_ok(), fine, "{release}");
        check("5.10.0-28-amd64", false);
        check("5.14.21", false);
        check("5.15.0", true);
        check("6.18.44-fc", true);
        check("7.2", true);
        check("strange", true);
        let sentence = check_kernel("5.10.0").unwrap_err().to_string();
        assert!(
            sentence.contains("5.10.0")
                && sentence.contains("5.15")
                && sentence.contains("upgrade")
        );
    }

    #[test]
    fn the_lock_admits_one() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        assert!(matches!(lock(directory.path()), Err(Refusal::SecondInstance { .. })));
        drop(first);
        assert!(lock(directory.path()).is_ok());
    }
}
