//! `cargo xtask release`: everything that a release has, in one folder: the archive, the packages, the
//! SBOM, the install script, and `SHA256SUMS` of all of them, signed if a key is given.
//!
//! The archive is the same for the same commit and toolchain: entries are sorted, times are that of
//! the commit, and owners are root.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::build::Checks;
use portolan_kit::{setup, shell, tree};

use crate::package::{self, Packages};

const SUMS: &str = "SHA256SUMS";
/// What the signature is for: one for something else is not accepted.
const NAMESPACE: &str = "portolan";

#[derive(clap::Args)]
pub struct Args {
    /// Sign the checksums with this SSH key; verify with `install.sh --signers`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub fn release(args: &Args) -> Result<()> {
    setup::setup()?;
    let packages = package::packages(Checks::Off)?;
    let folder = tree::target()?.join("release-files");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("removing the previous release")?;
    }
    fs::create_dir_all(&folder).context("making a folder for the release")?;
    let time = package::commit("%ct")?;
    let files = assemble(&packages, &folder, &time)?;
    sum(&folder, &files)?;
    if let Some(key) = &args.key {
        sign(&folder, key)?;
    }
    println!("made {}", tree::shown(&folder));
    Ok(())
}

/// The files of a release, by name.
fn assemble(packages: &Packages, folder: &Path, time: &str) -> Result<Vec<String>> {
    let version = env!("CARGO_PKG_VERSION");
    let base = format!("portolan-{version}-linux-{ARCH}");
    let stage = packages.deb.with_file_name("stage");
    archive(&stage, folder, &base, time)?;
    let mut files = vec![format!("{base}.tar.gz")];
    let install = tree::root().join("deploy/install.sh");
    let bill = packages.bill.as_ref().context("packages for tests have no SBOM")?;
    for (from, name) in [
        (&packages.deb, format!("{base}.deb")),
        (&packages.rpm, format!("{base}.rpm")),
        (bill, format!("{base}.cdx.json")),
        (&install, "install.sh".to_owned()),
    ] {
        fs::copy(from, folder.join(&name)).with_context(|| format!("copying {name}"))?;
        files.push(name);
    }
    Ok(files)
}

/// `BASE.tar.gz` with the folder `BASE`: the program, and what an installation needs.
fn archive(stage: &Path, folder: &Path, base: &str, time: &str) -> Result<()> {
    let work = tempfile::tempdir().context("making a folder for the archive")?;
    let top = work.path().join(base);
    let root = tree::root();
    let copies = [
        (stage.join("portolan"), "portolan"),
        (stage.join("man"), "man"),
        (stage.join("portolan.bash"), "completions/portolan.bash"),
        (stage.join("_portolan"), "completions/_portolan"),
        (stage.join("portolan.fish"), "completions/portolan.fish"),
        (root.join("deploy/systemd/portolan.service"), "portolan.service"),
        (root.join("deploy/systemd/portolan.toml"), "portolan.toml"),
        (root.join("dashboards/prometheus"), "prometheus"),
        (root.join("dashboards/grafana"), "grafana"),
        (root.join("LICENSE"), "LICENSE"),
        (root.join("README.md"), "README.md"),
        (root.join("CHANGELOG.md"), "CHANGELOG.md"),
    ];
    for (from, to) in copies {
        let to = top.join(to);
        fs::create_dir_all(to.parent().unwrap_or(&top)).context("making a folder")?;
        shell::quiet(Command::new("cp").arg("-r").arg(&from).arg(&to))?;
    }
    fs::remove_dir_all(top.join("prometheus/tests")).context("leaving the tests of rules out")?;
    let program = top.join("portolan");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("the program")?;
    let out = folder.join(format!("{base}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"]);
    tar.args(["--mode=u+rwX,go+rX,go-w", "--use-compress-program=gzip -9 --no-name"]);
    tar.arg(format!("--mtime=@{time}")).arg("--create").arg("--file").arg(out);
    shell::quiet(tar.arg("--directory").arg(work.path()).arg(base))
}

fn sum(folder: &Path, files: &[String]) -> Result<()> {
    let sums = shell::output(Command::new("sha256sum").args(files).current_dir(folder))?;
    fs::write(folder.join(SUMS), sums).context("writing the checksums")
}

fn sign(folder: &Path, key: &Path) -> Result<()> {
    if !key.is_file() {
        bail!("there is no key {}: `ssh-keygen -t ed25519 -f FILE` makes one", key.display());
    }
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-Y", "sign", "-q", "-n", NAMESPACE, "-f"]).arg(key).arg(folder.join(SUMS));
    shell::quiet(&mut sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A release whose program is a script, from a stage as `package` leaves it.
    fn made(folder: &Path) -> PathBuf {
        let stage = folder.join("stage");
        fs::create_dir_all(stage.join("man")).unwrap();
        fs::write(stage.join("portolan"), "#!/bin/sh\necho portolan 9\n").unwrap();
        for name in ["man/portolan.1.gz", "portolan.bash", "_portolan", "portolan.fish"] {
            fs::write(stage.join(name), name).unwrap();
        }
        let file = |name: &str| {
            fs::write(folder.join(name), name).unwrap();
            folder.join(name)
        };
        let packages = Packages { deb: file("d"), rpm: file("r"), bill: Some(file("b")) };
        let out = folder.join("out");
        fs::create_dir(&out).unwrap();
        let files = assemble(&packages, &out, "1700000000").unwrap();
        sum(&out, &files).unwrap();
        out
    }

    fn install(release: &Path, more: &[&str]) -> Result<String> {
        let prefix = release.join("prefix");
        let mut script = Command::new("sh");
        script.arg(release.join("install.sh")).arg("--from").arg(release);
        shell::output(script.arg("--prefix").arg(prefix).args(more))
    }

    #[test]
    fn a_release_is_the_same_twice_and_installs() {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, second] = [first.path(), second.path()].map(made);
        let sums = |release: &Path| fs::read_to_string(release.join(SUMS)).unwrap();
        assert_eq!(sums(&first), sums(&second));
        assert!(install(&first, &[]).unwrap().contains("(portolan 9)"));
        let at = |path: &str| fs::read_to_string(first.join("prefix").join(path)).unwrap();
        assert_eq!(at("share/man/man1/portolan.1.gz"), "man/portolan.1.gz");
        let unit = at("lib/systemd/system/portolan.service");
        let prefix = first.join("prefix").display().to_string();
        let start =
            format!("ExecStart={prefix}/bin/portolan agent --config {prefix}/etc/portolan/");
        assert!(unit.contains(&start), "{unit}");
        // A second installation keeps the configuration.
        fs::write(first.join("prefix/etc/portolan/portolan.toml"), "mine").unwrap();
        install(&first, &[]).unwrap();
        assert_eq!(at("etc/portolan/portolan.toml"), "mine");
    }

    #[test]
    fn an_archive_with_another_checksum_is_not_installed() {
        let folder = tempfile::tempdir().unwrap();
        let release = made(folder.path());
        let archive =
            release.join(format!("portolan-{}-linux-{ARCH}.tar.gz", env!("CARGO_PKG_VERSION")));
        let mut bytes = fs::read(&archive).unwrap();
        bytes.push(0);
        fs::write(&archive, bytes).unwrap();
        let error = install(&release, &[]).unwrap_err().to_string();
        assert!(error.contains("does not have the checksum"), "{error}");
        assert!(!release.join("prefix").exists());
    }

    #[test]
    fn checksums_are_signed_by_the_key_that_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let release = made(folder.path());
        let key = |name: &str| {
            let key = folder.path().join(name);
            let mut make = Command::new("ssh-keygen");
            if shell::quiet(make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).is_err() {
                return None;
            }
            let public = fs::read_to_string(key.with_extension("pub")).unwrap();
            let signers = folder.path().join(format!("{name}.signers"));
            fs::write(&signers, format!("portolan {public}")).unwrap();
            Some((key, signers.display().to_string()))
        };
        let (Some((ours, signers)), Some((_, others))) = (key("ours"), key("other")) else {
            println!("SKIPPED: no ssh-keygen");
            return;
        };
        sign(&release, &ours).unwrap();
        install(&release, &["--signers", &signers]).unwrap();
        let error = install(&release, &["--signers", &others]).unwrap_err().to_string();
        assert!(error.contains("is not signed by anybody in"), "{error}");
        fs::write(release.join(SUMS), "changed").unwrap();
        assert!(install(&release, &["--signers", &signers]).is_err());
    }
}
