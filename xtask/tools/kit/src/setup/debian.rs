//! The Debian toolchain: `rustc-web` with its prebuilt `core` for BPF, and bpf-linker on Debian's
//! LLVM.
//!
//! Debian packages a current rustc for its browsers, for stable releases too. It is a stable
//! compiler: the crates that need unstable features are named in `RUSTC_BOOTSTRAP`.

use anyhow::{Result, bail};

use super::{build_linker, link, linker_is_here};
use crate::apt;

/// The LLVM that this rustc is built with.
const LLVM: &str = "22";

const PACKAGES: [&str; 6] =
    ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev", "g++"];

pub fn install() -> Result<()> {
    if !apt::is_here() {
        bail!("not a Debian system");
    }
    let missing = apt::missing(&PACKAGES);
    let unknown = apt::unknown(&missing);
    if !unknown.is_empty() {
        bail!("this release does not offer {}", unknown.join(", "));
    }
    let had_linker = missing.is_empty() && linker_is_here();
    apt::install(&missing)?;
    link("/usr")?;
    // A linker that is here although its LLVM was not is another's, and one that has failed
    // before this point is of no use either.
    if had_linker && super::proof::prove().is_ok() {
        return Ok(());
    }
    build_linker(LLVM)
}
