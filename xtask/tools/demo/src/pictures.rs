//! `cargo xtask demo pictures`: the dashboards of a running demo and the page of its agent, drawn by
//! a headless browser.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_dashboards::draw;
use portolan_kit::{apt, shell};

/// The dashboards, and the selection on each.
const PICTURES: [&str; 5] = [
    "dashboard-overview?dashboard=portolan-overview",
    "dashboard-service?dashboard=portolan-service&var-service=orders.js",
    "dashboard-ports?dashboard=portolan-ports",
    "dashboard-connectivity?dashboard=portolan-connectivity",
    "dashboard-agent?dashboard=portolan-agent",
];

/// Writes a PNG per dashboard into `folder`, and one of the page of `agent`.
pub fn take(page: &str, agent: &str, folder: &Path) -> Result<()> {
    if !shell::exists("chromium") && apt::is_here() {
        apt::install(&["chromium"])?;
    }
    if !shell::exists("chromium") {
        bail!("chromium is not installed: open {page} in a browser of your own");
    }
    fs::create_dir_all(folder).context("making room for pictures")?;
    let folder = fs::canonicalize(folder).context("finding the folder for pictures")?;
    let mut command = Command::new("node");
    command.arg("picture.mjs").arg(page).arg(&folder).args(PICTURES);
    command.arg(format!("page?http://{agent}/"));
    shell::quiet(command.current_dir(draw::tools()?))?;
    println!("{} pictures in {}", PICTURES.len() + 1, portolan_kit::tree::shown(&folder));
    Ok(())
}
