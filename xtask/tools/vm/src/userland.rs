//! The programs that go along into the machine: this machine's own, or, into one of another
//! architecture, those of Debian's packages for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result};
use portolan_kit::build::Target;
use portolan_kit::shell;

use crate::architecture::Architecture;
use crate::kernels::cache;
use portolan_kit::suites::{Suite, codename};

/// The packages with the programs that the tests use.
const PACKAGES: [&str; 11] = [
    "bash",
    "bpftool",
    "busybox-static",
    "coreutils",
    "curl",
    "dnsmasq-base",
    "iproute2",
    "nftables",
    "openssl",
    "tcpdump",
    "util-linux",
];
/// Where programs lie below a root.
const PROGRAMS: [&str; 4] = ["bin", "sbin", "usr/bin", "usr/sbin"];

/// Where programs and libraries are taken from.
pub struct Userland {
    /// None: from this machine.
    root: Option<PathBuf>,
}

/// A file of this machine, and its path in the other.
pub type Placed = (PathBuf, String);

impl Userland {
    /// That of an architecture; fetches it the first time.
    pub fn of(architecture: &Architecture) -> Result<Self> {
        if matches!(architecture.target, Target::Host) {
            return Ok(Self { root: None });
        }
        let root = cache()?.join(format!("programs-{}", architecture.name));
        if !root.exists() {
            let lists = Suite::open(&codename()?, architecture.name, &cache()?)?;
            lists.unpack_with_all_they_need(&PACKAGES, &root)?;
        }
        Ok(Self { root: Some(root) })
    }

    /// Where a program lies, links resolved by reading it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let places: Vec<PathBuf> = if let Some(root) = &self.root {
            PROGRAMS.iter().map(|place| root.join(place)).collect()
        } else {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect()
        };
        places.iter().map(|place| place.join(name)).find(|path| path.is_file())
    }

    /// Another file of the same system.
    pub fn file(&self, path: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.trim_start_matches('/')),
            None => path.into(),
        }
    }

    /// The shared libraries of a program, including the loader, by its own search path.
    pub fn libraries(&self, program: &Path) -> Result<BTreeSet<Placed>> {
        match &self.root {
            None => {
                let mut ldd = Command::new("ldd");
                let output =
                    ldd.env("LC_ALL", "C").arg(program).output().context("starting ldd")?;
                let listed = String::from_utf8_lossy(&output.stdout).into_owned();
                let listed = listed_by_ldd(&listed);
                Ok(listed.map(|path| (path.clone().into(), path)).collect())
            }
            Some(root) => {
                let mut found = BTreeSet::new();
                of_another(root, program, &mut found)?;
                Ok(found)
            }
        }
    }
}

/// Reads `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn listed_by_ldd(text: &str) -> impl Iterator<Item = String> {
    let words = text.lines().filter_map(|line| {
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        place.split_whitespace().next()
    });
    words.filter(|word| word.starts_with('/')).map(str::to_owned)
}

/// The libraries of a program below `root`, which cannot be run here.
fn of_another(root: &Path, program: &Path, found: &mut BTreeSet<Placed>) -> Result<()> {
    let mut readelf = Command::new("readelf");
    let headers = shell::output(readelf.args(["--wide", "-l", "-d"]).arg(program))?;
    for name in named_by_readelf(&headers) {
        // The loader is named by its path, a library by its name alone.
        let placed = if name.starts_with('/') {
            (root.join(name.trim_start_matches('/')), name)
        } else {
            let triplets = ["usr/lib", "lib"].map(|place| root.join(place));
            let folders =
                triplets.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten());
            let folders = folders.flatten().map(|entry| entry.path());
            let file = folders.map(|folder| folder.join(&name)).find(|file| file.is_file());
            let file = file.with_context(|| format!("no package has {name}"))?;
            let place =
                file.strip_prefix(root).context("not below the root")?.display().to_string();
            (file, format!("/{}", place.trim_start_matches("usr/")))
        };
        if found.insert(placed.clone()) {
            of_another(root, &placed.0, found)?;
        }
    }
    Ok(())
}

/// Reads `(NEEDED) Shared library: [libc.so.6]` and `[Requesting program interpreter: /lib/ld.so]`.
fn named_by_readelf(headers: &str) -> Vec<String> {
    let names = headers.lines().filter_map(|line| {
        let bracket = line.split_once('[')?.1.split_once(']')?.0;
        let loader = bracket.strip_prefix("Requesting program interpreter: ");
        if line.contains("(NEEDED)") { Some(bracket) } else { loader }
    });
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_listed_with_the_loader() {
        let listed = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\
                      \tlibmissing.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let listed: Vec<String> = listed_by_ldd(listed).collect();
        assert_eq!(listed, ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(listed_by_ldd("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn a_program_of_another_architecture_is_read() {
        let headers = "      [Requesting program interpreter: /lib/ld-linux-aarch64.so.1]\n\
                       0x01 (NEEDED)             Shared library: [libc.so.6]\n\
                       0x0e (SONAME)             Library soname: [libx.so.1]\n";
        assert_eq!(named_by_readelf(headers), ["/lib/ld-linux-aarch64.so.1", "libc.so.6"]);
    }
}
