//! `cargo xtask image`: one static binary, and an image with nothing else in it.
//!
//! The binary is static-pie, so it runs FROM scratch and on any distribution. The image is built
//! with Docker's classic builder, which every version has; `deploy/image/Dockerfile` is for
//! BuildKit on a machine without a toolchain.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use portolan_kit::build::{self, Checks};
use portolan_kit::{setup, shell, tree};

#[derive(clap::Args)]
pub struct Args {
    /// Build the static binary and no image
    #[arg(long)]
    binary_only: bool,
    /// Copy the static binary here
    #[arg(long)]
    out: Option<PathBuf>,
    /// Name and tag of the image
    #[arg(long, default_value = concat!("portolan:", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// The Docker to talk to, as after `docker -H`
    #[arg(long)]
    host: Option<String>,
}

pub fn image(args: &Args) -> Result<()> {
    let Args { binary_only, out, tag, host } = args;
    setup::setup()?;
    let binary = static_binary(Checks::Off)?;
    if let Some(out) = out {
        fs::copy(&binary, out).with_context(|| format!("writing {}", out.display()))?;
    }
    if *binary_only {
        return Ok(());
    }
    if !shell::exists("docker") {
        bail!("docker is not installed; --binary-only builds the binary alone");
    }
    let folder = tempfile::tempdir().context("making a folder for the image")?;
    fs::copy(&binary, folder.path().join("portolan")).context("copying the binary")?;
    let recipe = tree::root().join("deploy/image/Dockerfile.binary");
    fs::copy(recipe, folder.path().join("Dockerfile")).context("copying the Dockerfile")?;
    let docker = || {
        let mut docker = Command::new("docker");
        if let Some(host) = host {
            docker.args(["-H", host]);
        }
        docker
    };
    let mut build = docker();
    build.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--tag", tag]).arg(folder.path());
    shell::quiet(&mut build)?;
    let format = ["image", "inspect", "--format", "{{.Size}}", tag];
    let size = shell::output(docker().args(format))?;
    println!("image {tag}: {} MB", megabytes(size.trim().parse().unwrap_or(0)));
    Ok(())
}

/// Builds the binary and checks that it is static. Debug symbols go into `portolan.debug` beside
/// it, where debuggers look for them.
pub fn static_binary(checks: Checks) -> Result<PathBuf> {
    let built = build::compile(checks)?;
    let folder = tree::target()?.join("static");
    fs::create_dir_all(&folder).with_context(|| tree::shown(&folder))?;
    let stripped = folder.join("portolan");
    fs::copy(&built, &stripped).context("copying the binary")?;
    split(&stripped)?;
    prove_static(&stripped)?;
    let began = Instant::now();
    let version = shell::output(Command::new(&stripped).arg("--version"))?;
    let (took, size) = (began.elapsed(), fs::metadata(&stripped)?.len());
    println!(
        "built {}: {}, {} MB, starts in {} ms",
        tree::shown(&stripped),
        version.trim(),
        megabytes(size),
        took.as_millis()
    );
    Ok(stripped)
}

/// Moves debug symbols into `portolan.debug`, and leaves a link to it.
fn split(binary: &Path) -> Result<()> {
    let debug = binary.with_extension("debug");
    let objcopy = || Command::new("objcopy");
    shell::quiet(objcopy().arg("--only-keep-debug").arg(binary).arg(&debug))?;
    shell::quiet(objcopy().arg("--strip-all").arg(binary))?;
    let mut link = OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    shell::quiet(objcopy().arg(link).arg(binary))
}

/// An ELF program with an interpreter is not static.
fn prove_static(binary: &Path) -> Result<()> {
    let listed =
        shell::output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(binary))?;
    if listed.lines().any(|line| line.trim_start().starts_with("INTERP")) {
        bail!("{} is not static: it has an interpreter", tree::shown(binary));
    }
    Ok(())
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
