//! Dashboards drawn with Grafana's own components, without a Grafana: for the demo's page and for
//! pictures. Node's packages lie in the target directory, never in the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{shell, tree};

/// The programs that draw and check; their packages are named in package.json.
const SOURCE: &str = "dashboards/draw";
const FILES: [&str; 6] =
    ["package.json", "main.tsx", "build.mjs", "index.html", "validate.mjs", "picture.mjs"];

/// Puts the page and what it shows into `folder`.
pub fn page(folder: &Path) -> Result<()> {
    let tools = tools()?;
    shell::quiet(Command::new("node").arg("build.mjs").arg(folder).current_dir(&tools))?;
    for (path, text) in super::files(&super::Look::default())? {
        if let Some(name) = path.strip_prefix("dashboards/grafana/") {
            fs::write(folder.join(name), text).context("writing a dashboard")?;
        }
    }
    // Alerts of the demo link to the runbooks here.
    let docs = tree::root().join("docs");
    shell::quiet(Command::new("cp").args(["-r"]).arg(docs).arg(folder))
}

/// Whether there is what installs and runs Grafana's components.
pub fn can_draw() -> bool {
    shell::exists("node") && shell::exists("npm")
}

/// Checks every dashboard against Grafana's own types; an error says where they differ.
pub fn validate() -> Result<()> {
    let tools = tools()?;
    let boards = super::files(&super::Look::default())?;
    let mut check = Command::new("node");
    check.arg("validate.mjs").current_dir(&tools);
    let boards = boards.iter().map(|(path, _)| path);
    let boards = boards.filter(|path| path.starts_with("dashboards/grafana/"));
    check.args(boards.map(|path| tree::root().join(path)));
    shell::quiet(&mut check).context("the dashboards are not as Grafana's types want them")
}

/// The folder with the programs and their packages, installed if they are not there yet.
pub fn tools() -> Result<PathBuf> {
    if !can_draw() {
        bail!("node and npm are not installed");
    }
    let folder = tree::target()?.join("grafana");
    fs::create_dir_all(&folder).context("making room for Node's packages")?;
    let source = tree::root().join(SOURCE);
    let stamp = folder.join("installed");
    let wanted = fs::read_to_string(source.join("package.json")).context("reading package.json")?;
    for file in FILES {
        fs::copy(source.join(file), folder.join(file))
            .with_context(|| format!("copying {file}"))?;
    }
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        println!("installing Grafana's components (a minute)");
        let mut install = Command::new("npm");
        install.args([
            "install",
            "--legacy-peer-deps",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ]);
        shell::quiet(install.arg("--loglevel=error").current_dir(&folder))?;
        fs::write(&stamp, wanted).context("remembering what is installed")?;
    }
    Ok(folder)
}
