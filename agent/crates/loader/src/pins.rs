//! Pins maps, programs and links in the BPF file system, so that a killed agent loses nothing: the
//! kernel keeps counting, and the next agent adopts them.
//!
//! Pins are in `<directory>/<layout>`, where the layout is a hash of the kernel object, its config
//! and its sizes. Pins of another layout belong to another version and are removed, because two
//! versions must not count at the same time. A directory that others own or can write is not used:
//! they could put programs and tables of theirs in place of ours.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::bpf;
use super::hooks::HOOKS;
use super::later::LATER;
use super::maps::{MAPS, Spec};
use super::object::{Link, Parts};
use super::private::{self, Exposed};

/// The default directory of pins.
pub const DIRECTORY: &str = "/sys/fs/bpf/portolan";

/// The maps that are pinned, with the files' names.
fn pinned() -> impl DoubleEndedIterator<Item = (&'static Spec, &'static str)> {
    MAPS.iter().filter_map(|map| Some((map, map.pin?)))
}

/// The directory of pins of this layout.
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Removes pins of other layouts (all pins, if pinning is off) and returns the directory for
    /// ours, if pinning is on.
    pub fn open(directory: Option<&Path>, layout: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(directory) = directory else {
            let directory = Path::new(DIRECTORY);
            if fs::symlink_metadata(directory).is_ok() {
                match is_ours(directory) {
                    Ok(()) => remove_all_but(directory, None),
                    Err(why) => tracing::warn!("pins of earlier agents are not looked for: {why}"),
                }
            }
            return Ok(None);
        };
        let mut hasher = DefaultHasher::new();
        layout.hash(&mut hasher);
        let ours = format!("{:016x}", hasher.finish());
        make(directory)?;
        is_ours(directory)?;
        remove_all_but(directory, Some(&ours));
        let directory = directory.join(ours);
        make(&directory)?;
        is_ours(&directory)?;
        Ok(Some(Self { directory }))
    }

    /// The pins of an earlier run, if they are complete.
    pub fn adopt(&self) -> Option<Parts> {
        // Without the last one they are those of a start that did not finish.
        let (_, last) = pinned().next_back()?;
        if !self.directory.join(last).exists() {
            return None;
        }
        let open = |name: &str| bpf::open_pinned(&self.directory.join(name));
        let maps: io::Result<BTreeMap<_, _>> =
            pinned().map(|(map, name)| Ok((map.name.to_owned(), open(name)?))).collect();
        let mut links = BTreeMap::new();
        let fallbacks = HOOKS.iter().filter_map(|hook| Some(hook.fallback.as_ref()?.program));
        let later = LATER.iter().map(|later| later.program);
        for name in HOOKS.iter().map(|hook| hook.name).chain(fallbacks).chain(later) {
            let Ok(program) = open(&program_pin(name)) else { continue };
            let link = open(&link_pin(name)).ok();
            links.insert(name, Ok(Link { program, link }));
        }
        match maps {
            Ok(maps) => Some(Parts { maps, links, log: None }),
            Err(error) => {
                tracing::warn!("pinned maps cannot be opened, starting anew: {error}");
                remove(&self.directory);
                let _ = make(&self.directory);
                None
            }
        }
    }

    /// Pins everything.
    pub fn keep(&self, parts: &Parts) -> anyhow::Result<()> {
        let pin = |fd: &OwnedFd, name: &str| {
            let path = self.directory.join(name);
            bpf::pin(fd.as_fd(), &path).with_context(|| format!("pinning {}", path.display()))
        };
        let result = (|| {
            for (hook, link) in &parts.links {
                let Ok(link) = link else { continue };
                pin(&link.program, &program_pin(hook))?;
                if let Some(link) = &link.link {
                    pin(link, &link_pin(hook))?;
                }
            }
            pinned().try_for_each(|(map, name)| pin(parts.get(map)?, name))
        })();
        if result.is_err() {
            remove(&self.directory);
        }
        result
    }
}

fn program_pin(hook: &str) -> String {
    format!("program_{hook}")
}

fn link_pin(hook: &str) -> String {
    format!("link_{hook}")
}

/// Creates a directory that only the agent's user can read, unless there is one.
fn make(directory: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| {
        format!(
            "creating {}; is the BPF file system mounted (mount -t bpf bpf /sys/fs/bpf)?",
            directory.display()
        )
    })
}

/// Where everybody may make directories (`mount -t bpf` allows it by default), somebody else may
/// have made this one.
fn is_ours(directory: &Path) -> Result<(), Exposed> {
    directory.parent().map_or(Ok(()), private::check_parent)?;
    private::check_no_link(directory)
}

/// Removes every layout's pins except `keep`.
fn remove_all_but(directory: &Path, keep: Option<&str>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if keep.is_none_or(|keep| entry.file_name() != keep) {
            tracing::info!("removing pins of an earlier agent: {}", entry.path().display());
            remove(&entry.path());
        }
    }
    if keep.is_none() {
        let _ = fs::remove_dir(directory);
    }
}

/// Unpins everything in one directory. `remove_dir_all` does not do on the BPF file system of
/// old kernels, and one level is all there is.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!("cannot remove the pin {}: {error}", entry.path().display());
        }
    }
    let _ = fs::remove_dir(directory);
}
