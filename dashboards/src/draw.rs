//! Dashboards drawn with Grafana's own components, without a Grafana: for the demo's page and for
//! pictures. Node's packages lie in the target directory, never in the checkout.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use super::{Dashboards, Look};

/// The programs that draw and check; their packages are named in package.json.
const SOURCE: &str = "dashboards/draw";
const FILES: [&str; 6] =
    ["package.json", "main.tsx", "build.mjs", "index.html", "validate.mjs", "picture.mjs"];
/// How much of a failed program's output is shown.
const LAST_LINES: usize = 25;

/// Where dashboards are drawn from, and where Node's packages are kept.
pub struct Drawing {
    root: PathBuf,
    target: PathBuf,
}

impl Drawing {
    /// `root` is the checkout, `target` is cargo's target directory.
    pub fn new(root: &Path, target: &Path) -> Self {
        Self { root: root.to_path_buf(), target: target.to_path_buf() }
    }

    /// Whether node and npm are installed.
    pub fn is_possible() -> bool {
        ["node", "npm"].into_iter().all(is_installed)
    }

    /// Writes the page and what it shows into `folder`.
    pub fn page(&self, folder: &Path) -> Result<()> {
        let tools = self.tools()?;
        run(Command::new("node").arg("build.mjs").arg(folder).current_dir(&tools))?;
        for (path, text) in Dashboards::read(&self.root)?.generated(&Look::default()) {
            if let Some(name) = path.strip_prefix("dashboards/grafana/") {
                fs::write(folder.join(name), text).context("writing a dashboard")?;
            }
        }
        // Alerts of the demo link to the runbooks here.
        run(Command::new("cp").arg("-r").arg(self.root.join("docs")).arg(folder))
    }

    /// Checks every dashboard against Grafana's own types; the error lists the differences.
    pub fn check_types(&self) -> Result<()> {
        let mut check = Command::new("node");
        check.arg("validate.mjs").current_dir(self.tools()?);
        let files = Dashboards::read(&self.root)?.generated(&Look::default());
        let paths = files.iter().map(|(path, _)| path);
        let boards = paths.filter(|path| path.starts_with("dashboards/grafana/"));
        check.args(boards.map(|path| self.root.join(path)));
        run(&mut check).context("the dashboards do not match Grafana's types")
    }

    /// The folder with the programs and their packages; installs the packages the first time.
    pub fn tools(&self) -> Result<PathBuf> {
        if !Self::is_possible() {
            bail!("node and npm are not installed");
        }
        let folder = self.target.join("grafana");
        fs::create_dir_all(&folder).context("creating the folder for Node's packages")?;
        let source = self.root.join(SOURCE);
        let stamp = folder.join("installed");
        let wanted =
            fs::read_to_string(source.join("package.json")).context("reading package.json")?;
        for file in FILES {
            fs::copy(source.join(file), folder.join(file))
                .with_context(|| format!("copying {file}"))?;
        }
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
            let mut install = Command::new("npm");
            install.args([
                "install",
                "--legacy-peer-deps",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]);
            run(install.current_dir(&folder)).context("installing Grafana's components")?;
            fs::write(&stamp, wanted).context("noting what is installed")?;
        }
        Ok(folder)
    }
}

fn is_installed(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Runs a program; the error has the end of its output, without addresses of package servers.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let first = command.get_args().next().map(OsStr::to_string_lossy);
    let name = format!("{name} {}", first.unwrap_or_default());
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown: Vec<String> = lines[lines.len().saturating_sub(LAST_LINES)..]
        .iter()
        .map(|line| {
            let words = line.split(' ');
            let words = words.map(|word| if word.contains("://") { "<address>" } else { word });
            format!("    {}", words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    bail!("`{name}` failed ({}):\n{}", output.status, shown.join("\n"))
}
