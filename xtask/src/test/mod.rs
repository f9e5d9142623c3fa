//! `cargo xtask test`: every test there is, and one line at the end that says how many passed.
//!
//! Three kinds, in this order: unit tests, in parallel; the command-line and live tests in
//! `agent/tests`, side by side or alone ([`lanes`]), after image and packages are made for them; the
//! documentation's examples. With `CI` set live tests of every hook run on an older kernel, emulated
//! and beside the others (`cargo xtask vm`), and the tools that read `deploy/` check it. A test that
//! cannot run here prints a line `SKIPPED: why` and returns: it counts as skipped, and its line is
//! repeated at the end. What takes hours is in [`full`].
//!
//! All tests are compiled with [`Checks::On`], as `cargo xtask check` compiles them, and so is the agent
//! that live tests start, here, on other kernels and in image and packages. Tests of image and packages
//! that are asked for by name, as a full run does, have the agent as it is shipped.
//!
//! A test that never ends is shown with what it waits for, and killed (`watch`).

mod balancers;
pub mod full;
mod lanes;
mod live;
mod needs;
mod watch;

use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, anyhow, bail};
use portolan_kit::build::{Checks, Target};
use portolan_kit::report::Report;
use portolan_kit::{heading, setup, shell, tree};

use crate::tool::Tool;
use crate::{deploy, page};
use watch::{Started, watch};

/// Minutes long, and of a kind of their own: see `xtask/tools/demo`. With the demo's command.
const E2E: [(&str, &str); 2] = [("e2e-alerts", "test"), ("e2e-diagnose", "diagnose")];

/// Live tests that start the agent from an image or a package.
const PACKED: [&str; 3] = ["names::image::", "names::daemonset::", "package::"];

#[derive(clap::Args)]
pub struct Args {
    /// Run only the tests whose names contain one of these; `e2e-alerts [FAULT…]`: inject every
    /// fault of the demo and require the right alerts (some minutes); `e2e-diagnose [FAULT…]`:
    /// require the right answers of `portolan check` and `diagnose`
    filter: Vec<String>,
    /// Run the parts that take hours instead, and record them in docs/proof.md: reproducible,
    /// features, miri, balancers, packages, fuzz, e2e-alerts, e2e-diagnose, soak, vm; all of them if none is named
    #[arg(long)]
    full: bool,
}

pub fn test(args: &Args) -> Result<()> {
    let Args { filter, full } = args;
    if *full {
        return full::run(filter);
    }
    if let Some((first, faults)) = filter.split_first()
        && let Some((_, command)) = E2E.iter().find(|(name, _)| name == first)
    {
        return shell::loud(Tool::Demo.command()?.arg(command).args(faults));
    }
    setup::setup()?;
    // While the agent is compiled for image and packages.
    let programs = thread::spawn(install_programs);
    let mut report = Report::default();
    if shell::is_root() && tests_packages(filter) {
        heading("image and packages, for their tests");
        let kind: &[&str] = if filter.is_empty() { &["--tests"] } else { &[] };
        let packed = |mut tool: Command| shell::loud(tool.arg("package").args(kind));
        if let Err(error) = Tool::Package.command().and_then(packed) {
            println!("{error:#}");
            report.failed += 1;
        }
    }
    programs.join().map_err(|_| anyhow!("the installation of programs panicked"))??;
    heading("unit tests");
    watch(&mut report, &mut tests(&["--lib", "--bins"], filter)?, Started::ByCargo)?;
    let in_ci = filter.is_empty() && env::var_os("CI").is_some();
    let mut emulation = in_ci.then(|| thread::spawn(other_kernels));
    let mut kernels = None;
    if has_live_tests() {
        heading("live tests");
        let mut wait = || kernels = emulation.take().map(JoinHandle::join);
        if !shell::is_root() {
            report.skip("the live tests: loading programs into the kernel needs root");
        } else if let Err(error) = live::run(&mut report, filter, &mut wait) {
            println!("{error:#}");
            report.failed += 1;
        }
    }
    if let Some(ended) = kernels.or_else(|| emulation.map(JoinHandle::join)) {
        heading("live tests on other kernels, which ran meanwhile");
        let (output, result) = ended.map_err(|_| anyhow!("running other kernels panicked"))??;
        println!("{output}");
        report.append(result);
    }
    if in_ci {
        heading("deploy/, read by the tools that it is for");
        deploy::test(&mut report);
    }
    if filter.is_empty() {
        heading("documentation");
        watch(&mut report, &mut tests(&["--doc"], filter)?, Started::ByCargo)?;
    }
    if filter.is_empty() {
        heading("dashboards against Grafana's own types");
        if !(shell::exists("node") && shell::exists("npm")) {
            report.skip("the dashboards' types: node or npm is not installed");
        } else if let Err(error) = shell::quiet(&mut grafana_types()?) {
            println!("{error:#}");
            report.failed += 1;
        } else {
            report.passed += 1;
        }
    }
    report.print();
    if report.failed > 0 {
        bail!("tests failed");
    }
    if report.passed + report.skipped == 0 {
        bail!("no test ran: no name contains {}", filter.join(" or "));
    }
    Ok(())
}

/// As compiled for its own tests.
fn grafana_types() -> Result<Command> {
    let mut dashboards = Target::Host.release("run", Checks::On)?;
    dashboards.args(["--quiet", "--bin", "portolan-dashboards", "--", "--grafana-types"]);
    Ok(dashboards)
}

/// Installs the programs that tests use.
fn install_programs() -> Result<()> {
    needs::install()?;
    if let Err(error) = page::tools() {
        println!("the test of the page in a browser is skipped: {error:#}");
    }
    Ok(())
}

/// Runs the CI subset of live tests on other kernels: what it printed, and the sums.
fn other_kernels() -> Result<(String, Report)> {
    let sums = tempfile::NamedTempFile::new().context("making a file for the sums")?;
    let mut command = Tool::Vm.command()?;
    command.args(["--ci", "--sums"]).arg(sums.path());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("starting the tests on other kernels")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut report = Report::default();
    // Failed tests are in the sums; without any, something else went wrong.
    if let Err(error) = report.add_written(sums.path()) {
        println!("{text}\nother kernels: {error:#} ({})", output.status);
        report.failed += 1;
    }
    Ok((text, report))
}

/// Whether any of the chosen tests is about image or packages, which are then made first.
fn tests_packages(filter: &[String]) -> bool {
    let asked = |word: &String| PACKED.iter().any(|test| test.contains(word.as_str()));
    filter.is_empty() || filter.iter().any(asked)
}

/// Whether cargo finds test programs in `agent/tests`: a file, or a folder with a `main.rs`.
fn has_live_tests() -> bool {
    let entries = fs::read_dir(tree::root().join("agent/tests"));
    entries.into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|kind| kind == "rs") || path.join("main.rs").exists()
    })
}

/// `cargo test` over the workspace; the output of passed tests goes to the report, which shows only
/// skipped tests.
fn tests(selection: &[&str], filter: &[String]) -> Result<Command> {
    let mut command = Target::Host.release("test", Checks::On)?;
    command.arg("--no-fail-fast").args(selection);
    command.args(["--", "--show-output"]).args(filter);
    Ok(command)
}
