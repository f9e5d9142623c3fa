//! The command-line and live tests in `agent/tests`, as root, on this kernel.
//!
//! They compare exact numbers with those of real programs on a real kernel, with deadlines; on a
//! busy machine one of them can miss its own. A few that fail run a second time, alone, and those
//! that pass then are listed at the end, so that no failure is hidden. Every line has the time that
//! its test took, and the slowest are repeated: they are where a run can become shorter.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use portolan_kit::build::{Target, Tests};
use portolan_kit::report::Report;
use portolan_kit::{heading, shell, tree};

use super::lanes::{self, LANES, Module};
use super::watch::{End, Started, watch, watch_showing};

/// More failed tests than this are not retried: the change broke something.
const MOST_RETRIES: usize = 5;
/// As many of the slowest tests are listed.
const SLOWEST: usize = 10;

/// A test program in `agent/tests`, and the agent that it starts.
#[derive(Clone)]
struct Program {
    path: PathBuf,
    agent: PathBuf,
}

/// The results of all modules.
struct Results<'a> {
    report: &'a mut Report,
    /// Seconds and names of the tests that ended.
    times: Vec<(f64, String)>,
    /// The tests that failed, with their programs.
    failed: Vec<(Program, String)>,
}

/// Runs them: first those that run side by side; then, when `wait` has returned, one after the other
/// those that need the machine for themselves.
pub fn run(report: &mut Report, filter: &[String], wait: &mut impl FnMut()) -> Result<()> {
    let Tests { agent, programs } = Target::Host.tests("*")?;
    let programs: Vec<Program> =
        programs.into_iter().map(|(_, path)| Program { path, agent: agent.clone() }).collect();
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for program in &programs {
        let tests = program.list(filter)?;
        let (some, others) = lanes::split(&tests);
        beside.extend(some.into_iter().map(|module| (program, module)));
        alone.extend(others.into_iter().map(|module| (program, module)));
        all.extend(tests);
    }
    if filter.is_empty()
        && let [name, ..] = *lanes::unused(&all)
    {
        bail!("no live test is called {name}…: take it from xtask/src/test/lanes.rs");
    }
    let results = Results { report, times: Vec::new(), failed: Vec::new() };
    let results = Mutex::new(results);
    let work = |(program, module): (&Program, Module)| program.run(&module, &results);
    heading(&format!("live tests, {LANES} modules at a time"));
    lanes::side_by_side(LANES, beside, work);
    wait();
    if !alone.is_empty() {
        heading("live tests that need the machine for themselves");
        lanes::side_by_side(1, alone, work);
    }
    let Results { report, times, failed } =
        results.into_inner().unwrap_or_else(PoisonError::into_inner);
    print_slowest(times);
    if failed.len() <= MOST_RETRIES {
        for (program, test) in failed {
            heading(&format!("second try, alone: {test}"));
            let mut second = Report::default();
            watch(
                &mut second,
                &mut program.command(std::slice::from_ref(&test)),
                Started::Directly,
            )?;
            report.retried(&test, &second);
        }
    }
    Ok(())
}

fn print_slowest(mut times: Vec<(f64, String)>) {
    times.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let all: f64 = times.iter().map(|(seconds, _)| seconds).sum();
    println!("\n{} live tests took {all:.0} s, one by one; the slowest:", times.len());
    for (seconds, test) in times.iter().take(SLOWEST) {
        println!("  {seconds:5.1} s  {test}");
    }
}

// === impl Program ===

impl Program {
    /// The tests whose names contain one of these words; all of them without words.
    fn list(&self, filter: &[String]) -> Result<Vec<String>> {
        let listed = shell::output(self.bare().arg("--list").args(filter))?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(tests.map(str::to_owned).collect())
    }

    /// Runs a module. A test that takes the program down does not prevent the others.
    fn run(&self, module: &Module, results: &Mutex<Results<'_>>) {
        let mut report = Report::default();
        let mut left = module.tests.clone();
        while !left.is_empty() {
            let mut shown = Shown::new();
            let mut command = self.command(&left);
            let end = watch_showing(&mut report, &mut command, Started::Directly, |line| {
                shown.line(line);
            });
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            if report.failed > 0 || end.is_err() {
                println!("\n== output of {}", module.name);
                shown.rest.iter().for_each(|line| println!("{line}"));
            }
            results.times.extend(shown.times);
            drop(results);
            match end {
                Ok(End::Cut(_)) => left.retain(|test| !report.has_ended(test)),
                Ok(End::Whole) => break,
                Err(error) => {
                    println!("{}: {error:#}", module.name);
                    report.failed += 1;
                    break;
                }
            }
        }
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        results.failed.extend(report.failures().iter().map(|test| (self.clone(), test.clone())));
        results.report.append(report);
    }

    /// The command that runs these tests, one after the other.
    fn command(&self, tests: &[String]) -> Command {
        let mut command = self.bare();
        command.args(["--test-threads=1", "--show-output", "--exact"]).args(tests);
        command
    }

    fn bare(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(tree::root().join("agent")).env("PORTOLAN_BIN", &self.agent);
        command
    }
}

/// What the terminal gets of a module: a line for each test when it ends; the rest is for failures.
struct Shown {
    /// When the running test began.
    began: Instant,
    times: Vec<(f64, String)>,
    rest: Vec<String>,
}

// === impl Shown ===

impl Shown {
    fn new() -> Self {
        Self { began: Instant::now(), times: Vec::new(), rest: Vec::new() }
    }

    fn line(&mut self, line: &str) {
        let test = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let Some((test, end)) = test.filter(|(_, end)| ["ok", "FAILED", "ignored"].contains(end))
        else {
            self.rest.push(line.to_owned());
            return;
        };
        let seconds = self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        println!("test {test} ... {end} ({seconds:.1} s)");
        self.times.push((seconds, test.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program of three tests: one passes, one fails, and the first takes the program down unless
    /// it is alone.
    const PROGRAM: &str = r#"#!/bin/sh
        if [ "$1" = --list ]; then
            printf 'm::crash: test\nm::fail: test\nm::pass: test\n'; exit
        fi
        case "$*" in
        *crash*) printf 'running 3 tests\ntest m::crash ... '; exit 1 ;;
        *fail*) printf 'running 2 tests\ntest m::fail ... FAILED\ntest m::pass ... ok\n'
            printf 'test result: FAILED. 1 passed; 1 failed; 0 ignored\n'; exit 101 ;;
        esac"#;

    #[test]
    fn a_test_that_takes_its_program_down_fails_and_the_others_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let text = folder.path().join("text");
        fs::write(&text, PROGRAM).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // By another process: a child of another test's may have what this one writes open, and what
        // is being written cannot be started.
        shell::quiet(Command::new("cp").arg(&text).arg(&path)).unwrap();
        let program = Program { path, agent: PathBuf::new() };
        let tests = program.list(&[]).unwrap();
        assert_eq!(tests, ["m::crash", "m::fail", "m::pass"]);
        let mut report = Report::default();
        let results = Results { report: &mut report, times: Vec::new(), failed: Vec::new() };
        let results = Mutex::new(results);
        program.run(&Module { name: "m".to_owned(), tests }, &results);
        let Results { times, failed, .. } = results.into_inner().unwrap();
        let names = |of: Vec<String>| of.join(" ");
        assert_eq!(names(failed.into_iter().map(|(_, test)| test).collect()), "m::crash m::fail");
        assert_eq!(names(times.into_iter().map(|(_, test)| test).collect()), "m::fail m::pass");
        assert_eq!((report.passed, report.failed), (1, 2));
    }
}
