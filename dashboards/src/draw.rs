//! Dashboards drawn with Grafana's own components, without a Grafana: for the demo's page and for
//! pictures. Node's packages lie in the target directory, never in the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::{shell, tree};

use super::{Dashboards, Look};

/// The programs that draw and check; their packages are named in package.json.
const SOURCE: &str = "dashboards/draw";
const FILES: [&str; 6] =
    ["package.json", "main.tsx", "build.mjs", "index.html", "validate.mjs", "picture.mjs"];

/// Writes the page and its data into `folder`.
pub fn page(folder: &Path) -> Result<()> {
    let tools = tools()?;
    shell::quiet(Command::new("node").arg("build.mjs").arg(folder).current_dir(&tools))?;
    for (path, text) in Dashboards::read(tree::root())?.generated(&Look::default()) {
        if let Some(name) = path.strip_prefix("dashboards/grafana/") {
            fs::write(folder.join(name), text).context("writing a dashboard")?;
        }
    }
    // Alerts of the demo link to the runbooks here.
    shell::quiet(Command::new("cp").arg("-r").arg(tree::root().join("docs")).arg(folder))
}

/// Checks every dashboard against Grafana's own types; the error lists the differences.
pub fn check_types() -> Result<()> {
    let mut check = Command::new("node");
    check.arg("validate.mjs").current_dir(tools()?);
    let files = Dashboards::read(tree::root())?.generated(&Look::default());
    let paths = files.iter().map(|(path, _)| path);
    let boards = paths.filter(|path| path.starts_with("dashboards/grafana/"));
    check.args(boards.map(|path| tree::root().join(path)));
    shell::quiet(&mut check).context("the dashboards do not match Grafana's types")
}

/// The folder with the programs and their packages; installs the packages the first time.
pub fn tools() -> Result<PathBuf> {
    if !(shell::exists("node") && shell::exists("npm")) {
        bail!("node and npm are not installed");
    }
    let folder = tree::target()?.join("grafana");
    fs::create_dir_all(&folder).context("creating the folder for Node's packages")?;
    let source = tree::root().join(SOURCE);
    let stamp = folder.join("installed");
    let wanted = fs::read_to_string(source.join("package.json")).context("reading package.json")?;
    for file in FILES {
        fs::copy(source.join(file), folder.join(file))
            .with_context(|| format!("copying {file}"))?;
    }
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        let mut install = Command::new("npm");
        install.args(["install", "--legacy-peer-deps", "--ignore-scripts", "--no-audit"]);
        install.args(["--no-fund", "--loglevel=error"]).current_dir(&folder);
        shell::quiet(&mut install).context("installing Grafana's components")?;
        fs::write(&stamp, wanted).context("recording the installed packages")?;
    }
    Ok(folder)
}
