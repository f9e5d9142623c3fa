//! `cargo xtask page`: the script of the agent's web page, from its TypeScript source.
//!
//! The result is committed, so that building the agent needs no Node.js; `cargo xtask check` makes it
//! again and compares. Node's packages lie in the target directory, never in the checkout; the lock
//! file says which, with their hashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::{shell, tree};

const SOURCE: &str = "agent/crates/server/page";
const SCRIPT: &str = "agent/crates/server/src/page/page.js";
/// Filters and what they admit: one list for the page and the commands.
const FILTERS: &str = "agent/crates/notation/tests/filter.json";
/// The bound of everything that a browser loads.
const MOST_BYTES: u64 = 300_000;

/// Writes the script.
pub fn page() -> Result<()> {
    build(&tree::root().join(SCRIPT))
}

/// Fails if the script is not what its source makes, if filters mean something else than in the
/// commands, or if the page is too large; without npm it says that this was not checked.
pub fn is_current() -> Result<()> {
    if !(shell::exists("node") && shell::exists("npm")) {
        println!("SKIPPED: whether {SCRIPT} equals its source: node or npm is not installed");
        return Ok(());
    }
    let tools = tools()?;
    let made = tools.join("page.js");
    build(&made)?;
    if fs::read(&made).context("reading the script")? != fs::read(tree::root().join(SCRIPT))? {
        bail!("{SCRIPT} is not what its source makes: run cargo xtask page");
    }
    let mut filter = Command::new("node");
    filter.arg("test/filter.test.mjs").arg(tree::root().join(FILTERS)).current_dir(&tools);
    shell::quiet(&mut filter).context("the page reads filters otherwise than the commands")?;
    let files = fs::read_dir(tree::root().join(SCRIPT).with_file_name("")).context("listing")?;
    let mut bytes = 0;
    for file in files {
        bytes += file?.metadata()?.len();
    }
    if bytes > MOST_BYTES {
        bail!("the page is {bytes} bytes; {MOST_BYTES} are the most");
    }
    Ok(())
}

/// The folder with a copy of the source and the packages that it needs, also for the tests in a
/// browser; installs the packages the first time.
pub fn tools() -> Result<PathBuf> {
    if !(shell::exists("node") && shell::exists("npm")) {
        bail!("node and npm are not installed");
    }
    let folder = tree::target()?.join("page");
    let source = tree::root().join(SOURCE);
    for name in ["src", "test"] {
        match fs::remove_dir_all(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("removing the last copy");
            }
            _ => copy(&source.join(name), &folder.join(name))?,
        }
    }
    let stamp = folder.join("installed");
    for file in ["package.json", "package-lock.json", "tsconfig.json", "build.mjs"] {
        fs::copy(source.join(file), folder.join(file))
            .with_context(|| format!("copying {file}"))?;
    }
    let wanted = fs::read_to_string(source.join("package-lock.json"))?;
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        let mut install = Command::new("npm");
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        shell::quiet(install.current_dir(&folder)).context("installing the page's packages")?;
        fs::write(&stamp, wanted).context("recording the installed packages")?;
    }
    Ok(folder)
}

fn build(script: &Path) -> Result<()> {
    let mut node = Command::new("node");
    node.arg("build.mjs").arg(script).current_dir(tools()?);
    shell::quiet(&mut node).context("making the page's script")
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", tree::shown(to)))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", tree::shown(from)))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
