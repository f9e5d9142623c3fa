//! The kernels: which Debian release has them, and a cache of fetched packages.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use portolan_kit::{apt, shell};

use crate::architecture::{AMD64, ARM64, Architecture};
use portolan_kit::suites::Suite;

/// A version that Portolan is proven on, or proven to refuse.
#[derive(Debug)]
pub struct Kernel {
    /// As its users call it.
    pub version: &'static str,
    /// Its architecture.
    pub architecture: &'static Architecture,
    /// Where it can come from, best first.
    suites: &'static [&'static str],
    /// Its packages: the parts before and after the full version.
    packages: &'static [(&'static str, &'static str)],
    /// Too old: the agent must refuse with one sentence.
    pub refused: bool,
}

const CLOUD: &str = "-cloud-amd64";
const CLOUD_UNSIGNED: &str = "-cloud-amd64-unsigned";

/// All of them. Cloud kernels: small, and with kprobes and fentry, which our own kernel lacks.
pub static KERNELS: [Kernel; 5] = [
    Kernel {
        version: "5.10",
        architecture: &AMD64,
        suites: &["bullseye"],
        packages: &[("linux-image-5.10.", CLOUD_UNSIGNED)],
        refused: true,
    },
    Kernel {
        version: "6.1",
        architecture: &AMD64,
        suites: &["bookworm"],
        packages: &[("linux-image-6.1.", CLOUD_UNSIGNED)],
        refused: false,
    },
    Kernel {
        version: "6.12",
        architecture: &AMD64,
        suites: &["bookworm-security", "trixie"],
        packages: &[("linux-image-6.12.", CLOUD_UNSIGNED)],
        refused: false,
    },
    Kernel {
        version: "6.12-arm64",
        architecture: &ARM64,
        suites: &["bookworm-security", "trixie"],
        packages: &[("linux-image-6.12.", "-cloud-arm64-unsigned")],
        refused: false,
    },
    Kernel {
        version: "7.2",
        architecture: &AMD64,
        suites: &["sid"],
        packages: &[("linux-binary-7.2.", CLOUD), ("linux-modules-7.2.", CLOUD)],
        refused: false,
    },
];

/// The kernel of this version.
pub fn find(version: &str) -> Result<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.version == version).with_context(|| {
        let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.version).collect();
        format!("no kernel {version} here; there are {}", known.join(", "))
    })
}

/// Where kernels are cached, outside the checkout: they outlive `cargo clean`.
pub fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache.context("neither HOME nor XDG_CACHE_HOME is set")?.join("portolan/kernels"))
}

impl Kernel {
    /// The folder with this kernel's files; fetches them the first time.
    pub fn folder(&self) -> Result<PathBuf> {
        let folder = cache()?.join(self.version);
        if folder.exists() {
            return Ok(folder);
        }
        if !apt::is_here() || !shell::exists("dpkg-deb") {
            bail!("not a Debian system: kernels are fetched with apt");
        }
        let mut errors = Vec::new();
        for suite in self.suites {
            match self.fetch(suite, &folder) {
                Ok(()) => return Ok(folder),
                Err(error) => errors.push(format!("{suite}: {error:#}")),
            }
        }
        bail!("{}", errors.join("; "))
    }

    fn fetch(&self, suite: &str, folder: &Path) -> Result<()> {
        let lists = Suite::open(suite, self.architecture.name, &cache()?)?;
        let packages = self.choose(&lists)?;
        lists.unpack(&packages, folder)
    }

    /// The newest full version that all its packages have.
    fn choose(&self, lists: &Suite) -> Result<Vec<String>> {
        let mut common: Option<Vec<String>> = None;
        for (before, after) in self.packages {
            let names = lists.names(before)?;
            let mut versions = names.iter().filter_map(|name| {
                name.strip_prefix(before)?.strip_suffix(after).map(str::to_owned)
            });
            common = Some(match common {
                None => versions.collect(),
                Some(known) => versions.by_ref().filter(|name| known.contains(name)).collect(),
            });
        }
        let newest = common.unwrap_or_default().into_iter().max_by_key(|text| numbers(text));
        let newest = newest.with_context(|| format!("no kernel {} is on offer", self.version))?;
        let name = |(before, after): &(&str, &str)| format!("{before}{newest}{after}");
        Ok(self.packages.iter().map(name).collect())
    }
}

/// The numbers in a version, for comparing: 6.1.0-50 is newer than 6.1.0-9.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// The first file below `folder` whose name starts with this.
pub fn find_file(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(path);
        } else if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Some(path);
        }
    }
    folders.iter().find_map(|folder| find_file(folder, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("0-50") > numbers("0-9"));
        assert!(numbers("117+deb12") > numbers("99+deb12"));
    }

    #[test]
    fn an_unknown_version_names_those_there_are() {
        assert!(find("6.1").is_ok());
        let error = find("4.19").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12, 6.12-arm64, 7.2"), "{error}");
    }
}
