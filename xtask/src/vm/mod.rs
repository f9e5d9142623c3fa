//! `cargo xtask vm [VERSION…]`: the live tests on other kernels, in QEMU under emulation.
//!
//! Each kernel is a Debian package, fetched once and kept in the user's cache; the machine boots
//! into an initramfs with the release build of the agent and its live tests, and powers off.
//! A kernel that the agent must refuse runs the agent alone: one sentence is asked for.
//!
//! Without a network, or where no emulator is, kernels are skipped, aloud.

mod cpio;
mod image;
mod kernels;
mod machine;
mod modules;
mod suites;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::test::Report;
use crate::{apt, build, setup, shell, tree};
use image::Task;
use kernels::{KERNELS, Kernel};
use table::Table;

#[derive(clap::Args)]
pub struct Args {
    /// Kernels to run on, such as 6.1; all that are known if none is named
    version: Vec<String>,
    /// Run only the tests whose names contain this; may be given several times
    #[arg(long)]
    filter: Vec<String>,
    /// How long one kernel may take
    #[arg(long, default_value_t = 40)]
    minutes: u64,
    /// Write the results as a table in Markdown to this file
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// What every refusal has to say on a kernel that is too old.
const REFUSAL: [&str; 3] = ["needs Linux 5.15 or later", "upgrade the kernel", "this kernel is"];

pub fn vm(args: &Args) -> Result<()> {
    let Args { version, filter, minutes, table: file } = args;
    let chosen: Vec<&Kernel> = if version.is_empty() {
        KERNELS.iter().collect()
    } else {
        version.iter().map(|version| kernels::find(version)).collect::<Result<_>>()?
    };
    if let Some(why) = cannot_emulate() {
        println!("SKIPPED: no kernel was tried: {why}");
        return Ok(());
    }
    setup::setup()?;
    let agent = build::compile()?;
    let tests = build::live_tests()?;
    let patience = Duration::from_secs(minutes * 60);
    let (mut table, mut failed) = (Table::default(), 0);
    for kernel in chosen {
        println!("\n== Linux {}", kernel.version);
        let folder = match kernel.folder() {
            Ok(folder) => folder,
            Err(why) => {
                println!("SKIPPED: Linux {}: it cannot be fetched: {why:#}", kernel.version);
                continue;
            }
        };
        let began = Instant::now();
        let result = if kernel.refused {
            refusal(kernel, &folder, &agent, &tests, patience)
        } else {
            live_tests(kernel, &folder, &agent, &tests, filter, patience)
        };
        match result {
            Ok(outcome) => table.add(kernel.version, outcome),
            Err(error) => {
                println!("FAILED: Linux {}: {error:#}", kernel.version);
                failed += 1;
            }
        }
        println!("Linux {} took {} s", kernel.version, began.elapsed().as_secs());
    }
    println!("\n{}", table.summary());
    if let Some(file) = file {
        fs::write(file, table.markdown()).context("writing the table")?;
        println!("wrote {}", tree::shown(file));
    }
    if failed + table.failures() > 0 {
        bail!("not every kernel passed; the consoles are in {}", tree::shown(&consoles()?));
    }
    Ok(())
}

/// Boots a kernel that is too old; the agent must say so.
fn refusal(
    kernel: &Kernel,
    folder: &Path,
    agent: &Path,
    tests: &Path,
    patience: Duration,
) -> Result<table::Outcome> {
    let run = boot(kernel, folder, agent, tests, Task::Refusal, patience, |line| {
        println!("  {line}");
    })?;
    let said = run.output.join("\n");
    if run.code == Some(0) || run.code.is_none() {
        bail!("the agent did not refuse, it ended with {:?}", run.code);
    }
    if run.output.len() != 1 || !REFUSAL.iter().all(|words| said.contains(words)) {
        bail!("not one line that has {REFUSAL:?}, but:\n{said}");
    }
    Ok(table::Outcome::refused(run.release, said))
}

/// Boots a kernel into the live tests.
fn live_tests(
    kernel: &Kernel,
    folder: &Path,
    agent: &Path,
    tests: &Path,
    filter: &[String],
    patience: Duration,
) -> Result<table::Outcome> {
    let mut report = Report::default();
    let task = Task::Tests(filter);
    let run = boot(kernel, folder, agent, tests, task, patience, |line| {
        if report.read(line) {
            println!("{line}");
        }
    })?;
    // 101 is how a test program with failures ends.
    if !matches!(run.code, Some(0 | 101)) {
        report.failed += 1;
        println!("FAILED: it did not come to an end ({:?}); its last words:", run.code);
        println!("{}", machine::last_lines(&console(kernel)?, 30));
    }
    report.print();
    if report.passed + report.failed + report.skipped == 0 {
        bail!("no test ran");
    }
    Ok(table::Outcome::of(run.release, report))
}

fn boot(
    kernel: &Kernel,
    folder: &Path,
    agent: &Path,
    tests: &Path,
    task: Task<'_>,
    patience: Duration,
    line: impl FnMut(&str),
) -> Result<machine::Run> {
    let vmlinuz = kernels::find_file(folder, "vmlinuz").context("the package has no kernel")?;
    let place = tempfile::tempdir().context("making a temporary folder")?;
    let initramfs = place.path().join("initramfs");
    fs::write(&initramfs, image::build(folder, agent, tests, task)?)
        .context("writing the initramfs")?;
    machine::run(&vmlinuz, &initramfs, patience, &console(kernel)?, line)
}

/// Where consoles are kept.
fn consoles() -> Result<PathBuf> {
    Ok(tree::target()?.join("vm"))
}

fn console(kernel: &Kernel) -> Result<PathBuf> {
    let folder = consoles()?;
    fs::create_dir_all(&folder).context("making a folder for consoles")?;
    Ok(folder.join(format!("{}.log", kernel.version)))
}

/// Why nothing can be emulated here, if so; installs the emulator where that is possible.
fn cannot_emulate() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the kernels are for x86_64, this machine is not".to_owned());
    }
    if apt::is_here() && shell::is_root() {
        let wanted = ["qemu-system-x86", "busybox-static", "xz-utils", "binutils"];
        if let Err(error) = apt::install(&apt::missing(&wanted)) {
            return Some(format!("{error:#}"));
        }
    }
    let missing =
        [machine::QEMU, "busybox", "ldd", "timeout"].into_iter().find(|p| !shell::exists(p));
    missing.map(|program| format!("{program} is not installed"))
}
