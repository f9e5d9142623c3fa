//! `cargo xtask test`: every test there is, and one line at the end that says how many passed.
//!
//! Three kinds, in this order: unit tests, in parallel; the command-line and live tests in
//! `agent/tests`, one after the other, because they share the kernel; the documentation's
//! examples. With `CI` set image and packages are built and tested too, live tests of every hook run
//! on two more kernels (`cargo xtask vm`), and the tools that read `deploy/` check it. A test that
//! cannot run here prints a line `SKIPPED: why` and returns: it counts as skipped, and its line is
//! repeated at the end. What takes hours is in [`full`].
//!
//! Live tests, here and on other kernels, start an agent whose own crates check arithmetic for
//! overflow ([`build::Checks`]); image and packages have the agent as it is shipped.
//!
//! Live tests compare exact numbers with those of real programs on a real kernel, with deadlines;
//! on a busy machine one of them can miss its own. A few that fail run a second time, alone, and
//! those that pass then are listed at the end, so that no failure is hidden. A test that never ends
//! is shown with what it waits for, and killed (`watch`).

pub mod full;
mod needs;
mod watch;

use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use portolan_kit::build::{self, Checks, Target};
use portolan_kit::report::Report;
use portolan_kit::{setup, shell, tree};

use crate::tool::Tool;
use crate::{deploy, package, page};
use watch::{End, watch};

/// More failed live tests than this are not retried: the change broke something.
const MOST_RETRIES: usize = 3;

/// Minutes long, and of a kind of its own: see `xtask/tools/demo`.
const E2E_ALERTS: &str = "e2e-alerts";

#[derive(clap::Args)]
pub struct Args {
    /// Run only the tests whose names contain one of these; `e2e-alerts [FAULT…]`: inject every
    /// fault of the demo and require the right alerts (some minutes)
    filter: Vec<String>,
    /// Run the parts that take hours instead, and record them in docs/proof.md: miri, fuzz,
    /// e2e-alerts, soak, vm; all of them if none is named
    #[arg(long)]
    full: bool,
}

pub fn test(args: &Args) -> Result<()> {
    let Args { filter, full } = args;
    if *full {
        return full::run(filter);
    }
    if let Some((E2E_ALERTS, faults)) = filter.split_first().map(|(a, b)| (a.as_str(), b)) {
        return shell::loud(Tool::Demo.command()?.arg("test").args(faults));
    }
    setup::setup()?;
    needs::install()?;
    if let Err(error) = page::tools() {
        println!("the test of the page in a browser is skipped: {error:#}");
    }
    let mut report = Report::default();
    if shell::is_root() && tests_what_is_shipped(filter) {
        heading("image and packages, for their tests");
        if let Err(error) = package::packages() {
            println!("{error:#}");
            report.failed += 1;
        }
    }
    heading("unit tests");
    watch(&mut report, &mut tests(&["--lib", "--bins"], filter, &[]))?;
    if has_live_tests() {
        heading("live tests");
        if shell::is_root() {
            live_tests(&mut report, filter)?;
        } else {
            report.skip("the live tests: loading programs into the kernel needs root");
        }
    }
    if filter.is_empty() && env::var_os("CI").is_some() {
        heading("live tests on other kernels");
        other_kernels(&mut report)?;
        heading("deploy/, read by the tools that it is for");
        deploy::test(&mut report);
    }
    if filter.is_empty() {
        heading("documentation");
        watch(&mut report, &mut tests(&["--doc"], filter, &[]))?;
    }
    if filter.is_empty() {
        heading("dashboards against Grafana's own types");
        if !(shell::exists("node") && shell::exists("npm")) {
            report.skip("the dashboards' types: node or npm is not installed");
        } else if let Err(error) = shell::quiet(Tool::Dashboards.command()?.arg("--grafana-types"))
        {
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

/// Runs the tests in `agent/tests`, one after the other.
fn live_tests(report: &mut Report, filter: &[String]) -> Result<()> {
    let binary = Target::Host.agent(Checks::On)?;
    let live = |filter: &[String], options: &[&str]| -> Result<Command> {
        let mut command = Target::Host.release("test", Checks::On)?;
        command.args(["--no-fail-fast", "--package", "agent", "--test", "*"]);
        command.env("PORTOLAN_BIN", &binary);
        Ok(select(command, filter, options))
    };
    let failed_before = report.failures().len();
    let mut end = watch(report, &mut live(filter, &["--test-threads=1"])?)?;
    // A test that crashes its program does not prevent the others.
    for _ in 0..MOST_RETRIES {
        if end == End::Whole {
            break;
        }
        let listed = shell::output(&mut live(filter, &["--list"])?)?;
        let listed = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let rest: Vec<String> =
            listed.filter(|test| !report.has_ended(test)).map(str::to_owned).collect();
        heading("the live tests without those that did not end");
        end = watch(report, &mut live(&rest, &["--test-threads=1", "--exact"])?)?;
    }
    let failed: Vec<String> = report.failures().iter().skip(failed_before).cloned().collect();
    if failed.len() <= MOST_RETRIES {
        for test in &failed {
            heading(&format!("second try, alone: {test}"));
            let mut second = Report::default();
            let options = ["--test-threads=1", "--exact"];
            watch(&mut second, &mut live(std::slice::from_ref(test), &options)?)?;
            report.retried(test, &second);
        }
    }
    Ok(())
}

/// Runs the CI subset of live tests on other kernels.
fn other_kernels(report: &mut Report) -> Result<()> {
    let sums = tempfile::NamedTempFile::new().context("making a file for the sums")?;
    let ended = shell::loud(Tool::Vm.command()?.args(["--ci", "--sums"]).arg(sums.path()));
    // Failed tests are in the sums; without any, something else went wrong.
    report.add_written(sums.path()).or_else(|without| ended.and(Err(without)))
}

/// Whether to build image and packages first: that takes as long as all other tests, so only when
/// they are requested, and in CI.
fn tests_what_is_shipped(filter: &[String]) -> bool {
    let asked =
        |word: &String| ["names::image::", "package::"].iter().any(|test| test.contains(word));
    if filter.is_empty() { env::var_os("CI").is_some() } else { filter.iter().any(asked) }
}

/// Whether cargo finds test programs in `agent/tests`: a file, or a folder with a `main.rs`.
fn has_live_tests() -> bool {
    let entries = fs::read_dir(tree::root().join("agent/tests"));
    entries.into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|kind| kind == "rs") || path.join("main.rs").exists()
    })
}

/// Runs `cargo test` over the workspace; the output of passed tests goes to the report, which shows
/// only skipped tests.
fn tests(selection: &[&str], filter: &[String], options: &[&str]) -> Command {
    let mut command = shell::cargo();
    command.args(["test", "--no-fail-fast"]).args(build::locked()).args(selection);
    select(command, filter, options)
}

fn select(mut command: Command, filter: &[String], options: &[&str]) -> Command {
    command.args(["--", "--show-output"]).args(options).args(filter);
    command
}

/// A heading, with the time since the first.
fn heading(text: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGAN.get_or_init(Instant::now).elapsed().as_secs();
    println!("\n== {text} ({} min {} s)", seconds / 60, seconds % 60);
}
