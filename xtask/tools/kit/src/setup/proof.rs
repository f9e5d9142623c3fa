//! Verifies the toolchain by compiling a BPF program.
//!
//! Versions alone prove little: a linker whose LLVM is older than rustc's fails only when it reads
//! rustc's output. The check takes seconds, so its success is recorded together with the versions
//! it was made with.

use std::path::Path;
use std::{fs, process};

use anyhow::{Context as _, Result, bail};

use super::{BOOTSTRAP, TARGET, linked, linker_version, toolchain};
use crate::{shell, tree};

/// A socket filter that does nothing, which is all that a proof needs.
const PROGRAM: &str = r#"
#![no_std]
#![no_main]
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
extern "C" fn proof(_: *const u8) -> u32 { 0 }
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
"#;

const MANIFEST: &str = "[package]\nname = \"proof\"\nedition = \"2024\"\n[workspace]\n";

/// Whether this very toolchain was proved before.
pub fn is_fresh() -> bool {
    let (Some(now), Ok(target)) = (versions(), tree::target()) else { return false };
    fs::read_to_string(target.join("bpf-toolchain")).is_ok_and(|stamp| stamp == now)
}

/// Compiles a program for the kernel and remembers the success.
pub fn prove() -> Result<()> {
    println!("trying the BPF toolchain");
    let target = tree::target()?;
    let folder = target.join(format!("bpf-proof-{}", process::id()));
    let proved = compile(&folder);
    // The build is not needed any more.
    let _ = fs::remove_dir_all(&folder);
    proved.context("the toolchain does not compile for the kernel")?;
    let versions = versions().context("the toolchain went away while it was tried")?;
    fs::write(target.join("bpf-toolchain"), versions).context("remembering the toolchain")
}

fn compile(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("src")).context("making room in the target directory")?;
    fs::write(folder.join("Cargo.toml"), MANIFEST).context("writing the proof")?;
    fs::write(folder.join("src/main.rs"), PROGRAM).context("writing the proof")?;

    let mut build = toolchain("cargo");
    build.current_dir(folder).args(["build", "--release", "--quiet", "--target", TARGET]);
    if needs_own_core()? {
        build.args(["-Z", "build-std=core"]);
    }
    build.env("CARGO_TARGET_DIR", folder.join("target")).env("RUSTC_BOOTSTRAP", BOOTSTRAP);
    build.env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\x1f-Clink-arg=--btf");
    shell::quiet(&mut build)?;

    let object = folder.join("target").join(TARGET).join("release/proof");
    let object = fs::read(object).context("the compiler wrote no object")?;
    // ELF, and machine 247: BPF.
    if object.get(..4) != Some(b"\x7fELF") || object.get(18..20) != Some(&[247, 0]) {
        bail!("the compiler wrote something else than a BPF object");
    }
    Ok(())
}

/// Whether `core` has to be built, because there is no prebuilt one.
pub fn needs_own_core() -> Result<bool> {
    let sysroot = linked().context("the toolchain is not linked")?;
    Ok(!Path::new(&sysroot).join("lib/rustlib").join(TARGET).exists())
}

/// The versions that the proof applies to; `None` where a part is missing.
fn versions() -> Option<String> {
    let rustc = shell::probe(toolchain("rustc").args(["--version", "--verbose"]))?;
    Some(format!("{rustc}{}", linker_version()?))
}
