//! `cargo xtask fuzz [BODY…]`: every parser under libFuzzer, a minute each (goal R11).
//!
//! The bodies are those of `agent/fuzz`, which run over their seeds with every `cargo test`; here
//! they are compiled with coverage instrumentation, by the stable compiler, so that the fuzzer
//! finds its way in. What it learns is kept in `target/fuzz/corpus`, what broke a body in
//! `target/fuzz/found`: put that among the seeds together with the repair.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use portolan_kit::{setup, shell, tree};

#[derive(clap::Args)]
pub struct Args {
    /// Bodies to run; all of them if none is named
    body: Vec<String>,
    /// How long each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Write what came of it as a table in Markdown to this file
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// What libFuzzer needs of the compiler: edges counted, comparisons traced (clang's
/// SanitizerCoverage).
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";
/// What stands above the table.
const PROSE: &str = "# Parsers under the fuzzer

Every parser of foreign bytes is a body of `agent/fuzz`. With every `cargo test` the bodies run over \
their seeds, pieces of them and noise; `cargo xtask fuzz` runs them under libFuzzer, compiled with \
coverage instrumentation. What breaks a body becomes a seed, together with the repair. The table is \
written by `cargo xtask fuzz --table docs/fuzz.md`; *kept* are inputs that reached code which no \
other had reached.

| body | executions | kept | outcome |
|---|---|---|---|
";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs all bodies for the usual time.
pub fn all(table: &str) -> Result<String> {
    fuzz(&Args { body: Vec::new(), seconds: 60, table: Some(tree::root().join(table)) })
}

/// Runs bodies and returns what they showed.
pub fn fuzz(args: &Args) -> Result<String> {
    let Args { body, seconds, table } = args;
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        println!("SKIPPED: the fuzzer is built for {TARGET} only");
        return Ok("skipped: not x86-64".to_owned());
    }
    setup::setup()?;
    let known = bodies()?;
    if let Some(unknown) = body.iter().find(|name| !known.contains(name)) {
        bail!("no body {unknown}; there are {}", known.join(", "));
    }
    let chosen = if body.is_empty() { &known } else { body };
    let program = compile()?;
    let (mut broken, mut executions) = (Vec::new(), 0);
    let mut rows = String::new();
    for name in chosen {
        let run = run(&program, name, *seconds)?;
        println!(
            "{name:<14} {:>12} executions, {} inputs kept{}",
            run.executions,
            run.kept,
            if run.broken { ", BROKEN" } else { "" }
        );
        executions += run.executions;
        let Run { executions: times, kept, broken: is_broken, .. } = run;
        let outcome = if is_broken { "**broken**" } else { "nothing broke" };
        let _ = writeln!(rows, "| {name} | {times} | {kept} | {outcome} |");
        if run.broken {
            println!("{}", run.output);
            broken.push(name.as_str());
        }
    }
    let summary = format!(
        "{executions} executions of {} bodies, {seconds} s each, nothing broke",
        chosen.len()
    );
    if let Some(file) = table {
        let text = format!("{PROSE}{rows}\n{executions} executions, {seconds} seconds each.\n");
        fs::write(file, text).context("writing the table")?;
        println!("wrote {}", tree::shown(file));
    }
    if !broken.is_empty() {
        bail!("{} broke; the inputs are in target/fuzz/found", broken.join(", "));
    }
    println!("{summary}");
    Ok(summary)
}

/// Names of bodies: those that have seeds. A test compares with the code.
fn bodies() -> Result<Vec<String>> {
    let entries = fs::read_dir(tree::root().join("agent/fuzz/seeds")).context("listing seeds")?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn folder() -> Result<PathBuf> {
    Ok(tree::target()?.join("fuzz"))
}

/// The instrumented program. It has a target folder of its own: other flags, other objects.
fn compile() -> Result<PathBuf> {
    println!("building the bodies with coverage instrumentation");
    let build = folder()?.join("build");
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--package", "agent-fuzz", "--features", "fuzzer"]);
    cargo.args(["--bin", "fuzz", "--target", TARGET]).arg("--target-dir").arg(&build);
    // Not RUSTFLAGS: the kernel programs are compiled from a build script, by another compiler.
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", INSTRUMENTATION);
    cargo.args(portolan_kit::build::locked());
    shell::loud(&mut cargo)?;
    Ok(build.join(TARGET).join("release/fuzz"))
}

/// What became of one body.
struct Run {
    executions: u64,
    kept: usize,
    broken: bool,
    output: String,
}

fn run(program: &Path, body: &str, seconds: u32) -> Result<Run> {
    let (corpus, found) = (folder()?.join("corpus").join(body), folder()?.join("found").join(body));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).context("making a folder for the fuzzer")?;
    }
    let mut command = Command::new(program);
    command.env("PORTOLAN_FUZZ_BODY", body).env("RUST_BACKTRACE", "1");
    command.arg(&corpus).arg(tree::root().join("agent/fuzz/seeds").join(body));
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    command.args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    let output = command.stdin(Stdio::null()).output().context("starting the fuzzer")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let kept = fs::read_dir(&corpus).map_or(0, Iterator::count);
    let last: Vec<&str> = stderr.lines().rev().take(30).collect();
    Ok(Run {
        executions: executions(&stderr).unwrap_or(0),
        kept,
        broken: !output.status.success(),
        output: last.into_iter().rev().collect::<Vec<_>>().join("\n"),
    })
}

/// `stat::number_of_executed_units: 123`
fn executions(stderr: &str) -> Option<u64> {
    let line = stderr.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_output() {
        assert_eq!(executions("x\nstat::number_of_executed_units: 4711\nstat::y: 1\n"), Some(4711));
        assert_eq!(executions("killed"), None);
    }

    #[test]
    fn every_body_in_the_code_has_seeds_and_the_reverse() {
        let code = fs::read_to_string(tree::root().join("agent/fuzz/src/lib.rs")).unwrap();
        let table = code.split("BODIES: &[(&str, Body)] = &[").nth(1).unwrap();
        let table = table.split("];").next().unwrap();
        let mut named: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
        named.sort_unstable();
        assert_eq!(bodies().unwrap(), named);
    }
}
