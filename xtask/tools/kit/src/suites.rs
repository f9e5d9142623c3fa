//! Other Debian releases, from this machine's own sources: same servers, same keys, another suite.
//! Their package lists are separate from the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;
use anyhow::{Context as _, Result, bail};

/// A package source of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    address: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// The package lists of one suite for one architecture.
pub struct Suite {
    folder: PathBuf,
    name: String,
    architecture: String,
}

impl Suite {
    /// Fetches the lists of `name` into a folder below `cache`, unless they are there.
    pub fn open(name: &str, architecture: &str, cache: &Path) -> Result<Self> {
        let suite = Self {
            folder: cache.join(format!("lists-{name}-{architecture}")),
            name: name.to_owned(),
            architecture: architecture.to_owned(),
        };
        if suite.folder.join("fetched").exists() {
            return Ok(suite);
        }
        let line = line_for(name, &sources(), &codename()?)?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.folder.join(folder)).context("making a folder for apt")?;
        }
        fs::write(suite.folder.join("sources.list"), line).context("writing a list for apt")?;
        fs::write(suite.folder.join("status"), "").context("writing a file for apt")?;
        shell::quiet(suite.apt("apt-get").args(["update", "--quiet"]))?;
        fs::write(suite.folder.join("fetched"), "").context("writing a file for apt")?;
        Ok(suite)
    }

    /// Names of packages that begin so.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = shell::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Unpacks packages into a new folder, or leaves none.
    pub fn unpack<S: AsRef<str>>(self, packages: &[S], into: &Path) -> Result<()> {
        let mut download = self.apt("apt-get");
        download.arg("download");
        self.fetch(download, packages, into)
    }

    /// The same, and the packages that these depend on.
    pub fn unpack_with_all_they_need(self, packages: &[&str], into: &Path) -> Result<()> {
        let mut install = self.apt("apt-get");
        install.args(["install", "--download-only", "--no-install-recommends", "--yes"]);
        self.fetch(install, packages, into)
    }

    /// Downloads packages with apt, and unpacks them.
    fn fetch<S: AsRef<str>>(self, mut apt: Command, packages: &[S], into: &Path) -> Result<()> {
        let beside = into.parent().context("a folder for packages has no parent")?;
        let place = tempfile::tempdir_in(beside).context("making a folder to download to")?;
        fs::create_dir(place.path().join("partial")).context("making a folder for apt")?;
        apt.arg("--quiet")
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", place.path().display()));
        apt.args(packages.iter().map(AsRef::as_ref)).current_dir(place.path());
        let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
        println!("downloading {} of {} ({})", names.join(" "), self.name, self.architecture);
        if let Err(error) = shell::quiet(&mut apt) {
            // Old lists name files that are gone; the next run starts with fresh ones.
            let _ = fs::remove_dir_all(&self.folder);
            return Err(error);
        }
        let unpacked = place.path().join("unpacked");
        for entry in fs::read_dir(place.path()).context("listing what was downloaded")?.flatten() {
            if entry.path().extension().is_some_and(|kind| kind == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                shell::quiet(unpack.arg("-x").arg(entry.path()).arg(&unpacked))?;
            }
        }
        // All or nothing: a folder that exists is complete.
        fs::rename(&unpacked, into).context("keeping what was downloaded")
    }

    /// apt with all its state in our folder.
    fn apt(&self, program: &str) -> Command {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for (key, value) in [
            ("APT::Architecture", self.architecture.clone()),
            ("APT::Architectures", self.architecture.clone()),
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command
    }
}

/// The line of a sources.list for `suite`.
fn line_for(suite: &str, sources: &[Source], codename: &str) -> Result<String> {
    let ours =
        if suite.ends_with("-security") { format!("{codename}-security") } else { codename.into() };
    let source = sources.iter().find(|source| {
        source.suites.contains(&ours) && source.components.iter().any(|name| name == "main")
    });
    let Some(source) = source else {
        bail!("apt's sources on this machine have no suite {ours} to derive {suite} from");
    };
    let key = source.signed_by.as_ref().map(|key| format!("[signed-by={key}] "));
    Ok(format!("deb {}{} {suite} main\n", key.unwrap_or_default(), source.address))
}

/// The code name of this machine's release.
pub fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).context("this Debian has no codename")
}

fn sources() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let more = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(more.map(|entry| entry.path()));
    let mut sources = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|kind| kind.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(text.split("\n\n").filter_map(paragraph)),
            _ => {}
        }
    }
    sources
}

/// `deb [signed-by=KEY] ADDRESS SUITE COMPONENT…`
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let signed_by = options.split_whitespace().find_map(|word| word.strip_prefix("signed-by="));
    Some(Source {
        address: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// A paragraph of a `.sources` file (deb822).
fn paragraph(text: &str) -> Option<Source> {
    let field = |name: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut values = lines.filter_map(|line| line.split_once(':'));
        values.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let words = |name| -> Option<Vec<String>> {
        Some(field(name)?.split_whitespace().map(str::to_owned).collect())
    };
    words("Types")?.iter().find(|kind| *kind == "deb")?;
    Some(Source {
        address: words("URIs")?.into_iter().next()?,
        suites: words("Suites")?,
        components: words("Components").unwrap_or_default(),
        signed_by: field("Signed-By").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "Types: deb\n# a note: with a colon\nURIs: http://a.invalid/debian\n\
                          Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";

    #[test]
    fn both_forms_of_sources_are_read() {
        let line = one_line("deb [arch=amd64 signed-by=/k.gpg] http://a.invalid/debian sid main");
        let source = line.unwrap();
        assert_eq!((source.suites, source.signed_by), (vec!["sid".into()], Some("/k.gpg".into())));
        assert_eq!(one_line("# deb http://a.invalid sid main"), None);
        let source = paragraph(DEB822).unwrap();
        assert_eq!(source.address, "http://a.invalid/debian");
        assert_eq!(source.suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(paragraph("Types: deb-src\nURIs: x\nSuites: y"), None);
    }

    #[test]
    fn another_suite_comes_from_the_same_place() {
        let sources: Vec<Source> = [
            "deb http://else.invalid/apt bookworm contrib",
            "deb http://a.invalid/debian-security bookworm-security main",
        ]
        .into_iter()
        .filter_map(one_line)
        .chain(paragraph(DEB822))
        .collect();
        let line = |suite| line_for(suite, &sources, "bookworm");
        assert_eq!(
            line("sid").unwrap(),
            "deb [signed-by=/k.gpg] http://a.invalid/debian sid main\n"
        );
        assert_eq!(
            line("bullseye-security").unwrap(),
            "deb http://a.invalid/debian-security bullseye-security main\n"
        );
        let error = line_for("sid", &sources, "trixie").unwrap_err().to_string();
        assert!(error.contains("no suite trixie"), "{error}");
    }
}
