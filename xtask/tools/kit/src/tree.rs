//! Where things lie: the checkout and cargo's target directory.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

use crate::shell;

/// The root of the checkout.
///
/// `cargo run` sets the folder of the running package; the one of compile time would be wrong as
/// soon as two checkouts share a target directory.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = env::var_os("CARGO_MANIFEST_DIR");
        let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        // Packages lie at different depths; only the root has the lock file.
        let root = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
        root.unwrap_or(&here).to_path_buf()
    })
}

/// Cargo's target directory, wherever configuration or environment put it.
///
/// Cargo built this very program to `<target>/<profile>/`, so no configuration has to be
/// read.
pub fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("finding the path of this program")?;
    let target =
        program.ancestors().nth(2).context("this program lies outside a target directory")?;
    Ok(target.to_path_buf())
}

/// Every file that is, or could be, committed, as paths from the root.
pub fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    // The checkout may belong to another user than root.
    git.args(["-c", "safe.directory=*", "ls-files", "-z"]);
    git.args(["--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = shell::output(&mut git)?;
    Ok(listed.split_terminator('\0').map(str::to_owned).collect())
}

/// `path` as a person in the checkout would write it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
