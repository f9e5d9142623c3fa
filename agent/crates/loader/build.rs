//! Builds the kernel programs and lays them where `aya::include_bytes_aligned!` finds them.
//!
//! They are compiled by the rustup toolchain `portolan-bpf`, which `cargo xtask setup` provides:
//! rustup's nightly, or a stable rustc with a prebuilt `core` for BPF. For the stable one the
//! crates with unstable features are named in `RUSTC_BOOTSTRAP`.
//!
//! The object depends on its sources and the toolchain alone, not on where either of them lies:
//! paths in it are written as if everything lay in `/portolan`, `/cargo` and `/rust`, and DWARF,
//! which only the linker reads to make BTF of it, is left out. `cargo xtask check` proves it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use object::build::elf::{Builder, SectionData};

const TOOLCHAIN: &str = "portolan-bpf";
const TARGET: &str = "bpfel-unknown-none";
const BOOTSTRAP: &str = "aya_ebpf,portolan_ebpf";
const OBJECT: &str = "portolan-ebpf";

/// The sources of the BPF programs. Not the folders of their packages: other tools write files there for
/// a moment, which changes the time of the folder, and all of this would be compiled again.
const SOURCES: [&str; 6] = [
    "agent-ebpf/src",
    "agent-ebpf/Cargo.toml",
    "agent-common/src",
    "agent-common/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() -> Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    // Below agent/crates.
    let root = root.ancestors().nth(3).context("this crate lies outside a workspace")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        bail!("the kernel programs read tables and addresses as little endian");
    }
    let Ok(sysroot) = output(toolchain("rustc", root).args(["--print", "sysroot"])) else {
        bail!("the toolchain for the kernel programs is missing: run `cargo xtask setup`");
    };
    let sysroot = PathBuf::from(sysroot.trim());
    let folder = out.join("kernel");
    compile(root, &sysroot, &shared_folder(&out), &folder)?;
    let built = folder.join(TARGET).join("release").join(OBJECT);
    let object = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    fs::write(out.join(OBJECT), without_dwarf(&object)?).context("writing the kernel object")
}

/// Where cargo keeps what it compiles of the kernel programs and for them: one folder for all builds in
/// a target folder, with checks or without, for each architecture, since most of it is the same. Cargo
/// marks target folders with this file; without it, each build has its own.
fn shared_folder(out: &Path) -> PathBuf {
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    out.ancestors().filter(marked).last().unwrap_or(out).join("kernel")
}

/// Leaves the object in `folder`, and what it is made of in `parts`.
fn compile(root: &Path, sysroot: &Path, parts: &Path, folder: &Path) -> Result<()> {
    let mut cargo = toolchain("cargo", root);
    // Only messages that need attention: cargo shows lines of a build script only as warnings.
    cargo.args(["build", "--quiet", "--release", "--package", "agent-ebpf", "--target", TARGET]);
    cargo.arg("--target-dir").arg(folder).env("CARGO_BUILD_BUILD_DIR", parts);
    if !sysroot.join("lib/rustlib").join(TARGET).exists() {
        cargo.args(["-Z", "build-std=core"]);
    }
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let mut flags = OsString::from("-Cdebuginfo=2\x1f-Clink-arg=--btf");
    // Otherwise every value of more than a few words is cleared and copied byte by byte, in a function
    // that the verifier walks at each call.
    flags.push("\x1f-Clink-arg=--disable-expand-memcpy-in-order");
    flags.push(format!("\x1f--cfg=bpf_target_arch=\"{}\"", arch.display()));
    // The last matching prefix wins.
    for (place, name) in places(root, sysroot)? {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(place);
        flags.push(format!("={name}"));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    // Of this profile the host's crates take less.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "false");
    let output = cargo.output().context("starting the compiler of the BPF programs")?;
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }
    if !output.status.success() {
        bail!("compiling the BPF programs failed ({})", output.status);
    }
    Ok(())
}

/// Paths of sources on this machine, and their replacements in the object.
fn places(root: &Path, sysroot: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    // rustup sets it for its children; otherwise it is the default directory.
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let home = home.context("CARGO_HOME is not set, and there is no home")?;
    let mut places = vec![(home.clone(), "/cargo")];
    // One folder for each registry, named after its address.
    if let Ok(registries) = fs::read_dir(home.join("registry/src")) {
        for registry in registries {
            places.push((registry.context("listing the registries")?.path(), "/cargo/registry"));
        }
    }
    places.push((sysroot.join("lib/rustlib/src/rust"), "/rust"));
    places.push((root.to_path_buf(), "/portolan"));
    Ok(places)
}

/// The object without debug information, which is most of it and unused.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("reading the kernel object")?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table, this writer in two.
    let names = elf.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut written = Vec::new();
    elf.write(&mut written).context("writing the kernel object without DWARF")?;
    Ok(written)
}

/// A program of the toolchain for the kernel.
fn toolchain(program: &str, root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, program]).current_dir(root);
    // Cargo passes variables about its own toolchain to children; none of them apply here.
    for key in ["CARGO", "RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(key);
    }
    command.env("RUSTC_BOOTSTRAP", BOOTSTRAP);
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo sets no {name}"))
}
