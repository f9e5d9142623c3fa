//! The route everywhere else: rustup's nightly, the sources of `core`, and a bpf-linker for its LLVM.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{build_linker, link, linker_is_here};
use crate::{apt, shell};

/// The LLVM releases that bpf-linker can be built for.
const LLVM: [&str; 3] = ["21", "22", "23"];

pub fn install() -> Result<()> {
    let folder = sysroot()?;
    if !Path::new(&folder).join("lib/rustlib/src/rust/library/core").exists() {
        println!("installing rust-src");
        let mut add = Command::new("rustup");
        shell::quiet(add.args(["component", "add", "rust-src", "--toolchain", "nightly"]))
            .context("nightly lacks the component rust-src")?;
    }
    link(&folder)?;
    if linker_is_here() && super::proof::prove().is_ok() {
        return Ok(());
    }
    install_linker()
}

fn sysroot() -> Result<String> {
    if let Some(folder) = nightly(&["--print", "sysroot"]) {
        return Ok(folder.trim().to_owned());
    }
    println!("installing rustup's nightly");
    let mut add = Command::new("rustup");
    shell::quiet(add.args(["toolchain", "install", "nightly", "--profile", "minimal"]))?;
    let folder = nightly(&["--print", "sysroot"]).context("nightly does not start")?;
    Ok(folder.trim().to_owned())
}

fn install_linker() -> Result<()> {
    let version = nightly(&["--version", "--verbose"]).unwrap_or_default();
    let major = llvm_major(&version).context("nightly does not print its LLVM version")?;
    if LLVM.contains(&major) {
        if has_llvm(major) {
            return build_linker(major);
        }
        if apt::is_here() {
            let packages =
                [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"), "g++".into()];
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            let missing = apt::missing(&packages);
            if apt::unknown(&missing).is_empty() {
                apt::install(&missing)?;
                return build_linker(major);
            }
        }
    }
    prebuilt_linker().with_context(|| {
        format!(
            "bpf-linker is missing: install the development files of LLVM {major}, or a release \
             of bpf-linker from its project"
        )
    })
}

/// The project's own release of bpf-linker, which carries its LLVM.
fn prebuilt_linker() -> Result<()> {
    if !shell::exists("cargo-binstall") {
        println!("installing cargo-binstall (some minutes)");
        shell::quiet(shell::cargo().args(["install", "cargo-binstall", "--locked", "--quiet"]))?;
    }
    println!("installing bpf-linker");
    let options = ["binstall", "bpf-linker", "--version", super::LINKER, "--no-confirm", "--force"];
    shell::quiet(shell::cargo().args(options))?;
    if !linker_is_here() {
        bail!("bpf-linker was installed, but not to a folder of PATH");
    }
    Ok(())
}

fn nightly(arguments: &[&str]) -> Option<String> {
    let mut rustc = Command::new("rustup");
    shell::probe(rustc.args(["run", "nightly", "rustc"]).args(arguments))
}

fn has_llvm(major: &str) -> bool {
    Path::new(&format!("/usr/lib/llvm-{major}/bin/llvm-config")).exists()
}

/// The LLVM in `rustc --version --verbose`.
fn llvm_major(version: &str) -> Option<&str> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_of_llvm_is_read_from_rustc() {
        let version = "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_major(version), Some("22"));
        assert_eq!(llvm_major("rustc 1.0"), None);
    }
}
