//! `cargo xtask package`: a .deb and an .rpm of the static binary, with unit, configuration, man
//! pages and completions, and its SBOM (CycloneDX).
//!
//! The tools are cargo subcommands, installed once into the target folder. The contents of the
//! packages are listed in `agent/Cargo.toml`, in the tables of these tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::{setup, shell, tree};

use crate::image;

/// Program and version.
const TOOLS: [(&str, &str); 3] =
    [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1"), ("cargo-cyclonedx", "0.5.9")];

/// Where each shell looks for completions, in the packaged folder.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "portolan.bash"), ("zsh", "_portolan"), ("fish", "portolan.fish")];

/// The packages that were built.
pub struct Packages {
    pub deb: PathBuf,
    pub rpm: PathBuf,
    pub bill: PathBuf,
}

pub fn package() -> Result<()> {
    setup::setup()?;
    let Packages { deb, rpm, bill } = packages()?;
    for path in [deb, rpm, bill] {
        let size = fs::metadata(&path).with_context(|| tree::shown(&path))?.len();
        println!("made {}: {} MB", tree::shown(&path), image::megabytes(size));
    }
    Ok(())
}

/// Generates them in `target/package`, with the binary's own commands.
pub fn packages() -> Result<Packages> {
    let tools = tools()?;
    let binary = image::static_binary()?;
    let folder = tree::target()?.join("package");
    let stage = folder.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage).context("removing the previous packages")?;
    }
    let pages = stage.join("man");
    fs::create_dir_all(&pages).context("making a folder to pack from")?;
    fs::copy(&binary, stage.join("portolan")).context("copying the binary")?;
    shell::quiet(Command::new(&binary).args(["man", "--directory"]).arg(&pages))?;
    for (name, file) in COMPLETIONS {
        let text = shell::output(Command::new(&binary).args(["completions", name]))?;
        fs::write(stage.join(file), text).context("writing completions")?;
    }
    let made = Packages {
        deb: folder.join("portolan.deb"),
        rpm: folder.join("portolan.rpm"),
        bill: folder.join("portolan.cdx.json"),
    };
    let subcommand = |name: &str| {
        let mut command = Command::new(tools.join(name));
        command.arg(name.trim_start_matches("cargo-")).current_dir(tree::root());
        command
    };
    let mut deb = subcommand("cargo-deb");
    deb.args(["--package", "agent", "--no-build", "--no-strip", "--quiet", "--output"]);
    shell::quiet(deb.arg(&made.deb))?;
    let mut rpm = subcommand("cargo-generate-rpm");
    shell::quiet(rpm.args(["--package", "agent", "--output"]).arg(&made.rpm))?;
    bill(&mut subcommand("cargo-cyclonedx"), &made.bill)?;
    Ok(made)
}

/// Lists the linked crates. The tool writes beside each package's manifest; only the agent's is
/// shipped.
fn bill(tool: &mut Command, out: &Path) -> Result<()> {
    const NAME: &str = "portolan-bill";
    tool.args(["--format", "json", "--no-build-deps", "--spec-version", "1.5"]);
    tool.args(["--override-filename", NAME, "--manifest-path", "agent/Cargo.toml"]);
    shell::quiet(tool)?;
    let lists = |member: &Path| member.join(format!("{NAME}.json"));
    let of_agent = fs::read_to_string(lists(&tree::root().join("agent")));
    for manifest in tree::files()?.iter().filter(|file| file.ends_with("Cargo.toml")) {
        let member = tree::root().join(manifest);
        // Written beside the manifest of every package in the workspace.
        let _ = member.parent().map(|member| fs::remove_file(lists(member)));
    }
    let Ok(text) = of_agent else { bail!("cargo-cyclonedx wrote no list for the agent") };
    let bill: serde_json::Value = serde_json::from_str(&text).context("reading the list")?;
    let parts = bill["components"].as_array().map_or(0, Vec::len);
    if parts == 0 {
        bail!("the SBOM of the agent is empty");
    }
    println!("{parts} crates are linked into it");
    fs::write(out, text).context("writing the list")
}

/// The folder of the tools, fetched if they are not there.
fn tools() -> Result<PathBuf> {
    let home = tree::target()?.join("package-tools");
    for (name, version) in TOOLS {
        if home.join("bin").join(name).is_file() {
            continue;
        }
        println!("building {name} {version}");
        let mut install = shell::cargo();
        install.args(["install", "--quiet", "--locked", "--version", version, name, "--root"]);
        install.arg(&home).arg("--target-dir").arg(home.join("build"));
        // They work for seconds; compiled for speed, they take minutes to build.
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
        install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        shell::quiet(&mut install)?;
    }
    Ok(home.join("bin"))
}
