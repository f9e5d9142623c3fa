//! `cargo xtask vm [VERSION…]`: the live tests on other kernels, in QEMU under emulation.
//!
//! Each kernel is a Debian package, fetched once and kept in the user's cache; the machine boots
//! into an initramfs with the release build of the agent and its live tests, and powers off. For a
//! kernel that the agent must refuse, only the agent runs, and its refusal is checked.
//!
//! Without a network kernels are skipped, and that is printed.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a terminal program")]

mod architecture;
mod cpio;
mod emulator;
mod image;
mod kernels;
mod machine;
mod modules;
mod table;
mod userland;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use portolan_kit::report::Report;
use portolan_kit::{setup, summary, tree};

use emulator::Emulator;
use image::Task;
use kernels::{KERNELS, Kernel};
use table::{Outcome, Table};

/// Run the live tests on other kernels, in QEMU
#[derive(clap::Parser)]
#[command(name = "cargo xtask vm", bin_name = "cargo xtask vm")]
struct Args {
    /// Kernels to run on, such as 6.1; all known ones if none is named
    version: Vec<String>,
    /// Run only the tests whose names contain this; may be given several times
    #[arg(long)]
    filter: Vec<String>,
    /// Run this by a shell instead of the tests; the agent is /proof/portolan
    #[arg(long, value_name = "SCRIPT", conflicts_with = "filter")]
    run: Option<String>,
    /// More arguments for the kernel's command line, such as preempt=full; the result is not saved
    #[arg(long, value_name = "ARGUMENTS", default_value = "")]
    boot: String,
    /// Run the kernels and the tests that CI has the time for
    #[arg(long, conflicts_with_all = ["version", "filter", "run", "boot", "agent", "table"])]
    ci: bool,
    /// Write the sums, for the command that started this one
    #[arg(long, value_name = "FILE", requires = "ci", hide = true)]
    sums: Option<PathBuf>,
    /// The agent to try; built first if none is given
    #[arg(long, value_name = "FILE", requires = "tests")]
    agent: Option<PathBuf>,
    /// Its live tests, compiled
    #[arg(long, value_name = "FILE", requires = "agent")]
    tests: Option<PathBuf>,
    /// Timeout of one kernel
    #[arg(long, default_value_t = 40)]
    minutes: u64,
    /// Write the last whole run of each kernel as a table in Markdown into this file
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// The text of every refusal on a kernel that is too old.
const REFUSAL: [&str; 3] = ["needs Linux 5.15 or later", "upgrade the kernel", "this kernel is"];

/// The subset of CI: one kernel to refuse, and the oldest Debian has of those that are supported.
const IN_CI: [&str; 2] = ["5.10", "6.1"];
/// The tests of that subset: that all hooks attach, and one test for each figure. That is what
/// differs between kernels, and each start costs an emulated verifier of 6.1 a quarter of a minute.
const IN_CI_TESTS: [&str; 18] = [
    "conflicts::bind4_counts_a_storm_exactly",
    "conflicts::bind6_counts_a_storm_exactly",
    "conflicts::inet_bind_sk_gives_the_errno_or_it_is_marked_inferred",
    "conflicts::table::a_row_comes_with_the_socket_and_goes_with_it",
    "degrade::with_everything_everything_is_seen",
    "enforcement::who_is_known_to_be_someone_else_is_refused_and_the_owner_let_in",
    "exactness::bytes::bytes_over_ipv4_are_what_the_programs_wrote_and_read",
    "inet_sock_set_state::a_connection_counts_once_on_each_side_in_every_family",
    "restart::with_pins_a_kill_loses_nothing_and_no_counter_goes_back",
    "bootstrap_tcp::connections_from_before_are_known_by_role_and_owner_and_count_from_then_on",
    "sk_data_ready::every_exchange_of_an_open_connection_counts_on_both_sides_with_its_latency",
    "sock_send_length::thousands_of_quick_turns_are_all_counted_on_both_sides",
    "iterate_sockets::round_trip_times_are_the_kernels_own",
    "tcp_receive_reset::a_refused_connect_met_no_listener",
    "tcp_retransmit_skb::a_lost_syn_is_a_retransmit",
    "tcp_retransmit_synack::repeated_answers_to_connection_requests_are_what_the_kernel_counts",
    "tcp_send_reset::a_connection_request_without_a_listener",
    "unsent::connect4_counts_every_refusal_by_its_errno",
];
/// Timeout of one of them; on a quiet machine with two CPUs it takes a quarter.
const IN_CI_WITHIN: Duration = Duration::from_mins(20);

/// More failed tests than this are not retried: the change broke something.
const MOST_RETRIES: usize = 3;

fn main() -> ExitCode {
    portolan_kit::exit_code(vm(&Args::parse()))
}

fn vm(args: &Args) -> Result<()> {
    let Args { version, filter, run, boot, ci, sums, agent, tests, minutes, table } = args;
    if *ci {
        return in_ci(sums.as_deref());
    }
    let chosen: Vec<&Kernel> = if version.is_empty() {
        KERNELS.iter().collect()
    } else {
        version.iter().map(|version| kernels::find(version)).collect::<Result<_>>()?
    };
    let given = agent.clone().zip(tests.clone());
    let trial = Trial { given, filter, boot, patience: Duration::from_secs(minutes * 60) };
    let (mut results, mut failed) = (Table::default(), 0);
    for kernel in chosen {
        if let Some(script) = run {
            if let Some(subject) = trial.subject(kernel)? {
                trial.boot(&subject, Task::Script(script), |line| println!("{line}"))?;
            }
            continue;
        }
        match trial.on(kernel) {
            Ok(Some(outcome)) => results.add(kernel.version, outcome),
            Ok(None) => {}
            Err(error) => {
                println!("FAILED: Linux {}: {error:#}", kernel.version);
                failed += 1;
            }
        }
    }
    println!();
    summary::report(&results.summary())?;
    if let Some(file) = table {
        all_that_were_tried()?.write(file)?;
        println!("wrote {}", tree::shown(file));
    }
    if failed + results.failures() > 0 {
        bail!("not every kernel passed; the consoles are in {}", tree::shown(&folder()?));
    }
    Ok(())
}

/// The kernels and tests that CI has the time for.
fn in_ci(sums: Option<&Path>) -> Result<()> {
    let mut report = Report::default();
    let tests = IN_CI_TESTS.map(str::to_owned);
    let trial = Trial { given: None, filter: &tests, boot: "", patience: IN_CI_WITHIN };
    for version in IN_CI {
        match trial.on(kernels::find(version)?) {
            Ok(Some(outcome)) => report.add_sums(outcome.counts()),
            Ok(None) => report.skip(&format!("Linux {version}: it cannot be run here")),
            Err(error) => {
                println!("FAILED: Linux {version}: {error:#}");
                report.add_sums((0, 1, 0));
            }
        }
    }
    if let Some(file) = sums {
        report.write_sums(file)?;
    }
    if report.failed > 0 {
        bail!("not every kernel passed; the consoles are in {}", tree::shown(&folder()?));
    }
    Ok(())
}

/// The last whole run of each kernel.
fn all_that_were_tried() -> Result<Table> {
    let mut table = Table::default();
    for kernel in &KERNELS {
        if let Some(outcome) = Outcome::load(&result_of(kernel)?) {
            table.add(kernel.version, outcome);
        }
    }
    Ok(table)
}

/// The work to do.
struct Trial<'a> {
    /// The agent and its live tests, compiled; built if none are given.
    given: Option<(PathBuf, PathBuf)>,
    filter: &'a [String],
    /// More arguments for the kernel's command line.
    boot: &'a str,
    patience: Duration,
}

/// The kernel to do it on.
struct Subject<'a> {
    kernel: &'a Kernel,
    /// Where the kernel's files lie.
    folder: PathBuf,
    agent: PathBuf,
    tests: PathBuf,
}

impl Trial<'_> {
    /// Fetches a kernel, and builds for it; none, and a line with the reason, if that is not
    /// possible here.
    fn subject<'a>(&self, kernel: &'a Kernel) -> Result<Option<Subject<'a>>> {
        let Kernel { version, architecture, .. } = kernel;
        println!("\n== Linux {version}");
        let folder = match architecture.cannot_be_emulated() {
            Some(why) => Err(why),
            None => Emulator::of(architecture)
                .and_then(|_| kernel.folder())
                .map_err(|why| format!("it cannot be fetched: {why:#}")),
        };
        let folder = match folder {
            Ok(folder) => folder,
            Err(why) => {
                println!("SKIPPED: Linux {version}: {why}");
                return Ok(None);
            }
        };
        let (agent, tests) = if let Some(given) = &self.given {
            given.clone()
        } else {
            setup::setup()?;
            let tests = architecture.target.tests("live")?;
            (tests.agent.clone(), tests.program("live")?)
        };
        Ok(Some(Subject { kernel, folder, agent, tests }))
    }

    /// Boots a kernel; none if that is not possible here.
    fn on(&self, kernel: &Kernel) -> Result<Option<Outcome>> {
        let Some(subject) = self.subject(kernel)? else { return Ok(None) };
        let began = Instant::now();
        let outcome =
            if kernel.refused { self.refusal(&subject) } else { self.live_tests(&subject) };
        println!("Linux {} took {} s", kernel.version, began.elapsed().as_secs());
        let outcome = outcome?.within(began.elapsed());
        if self.filter.is_empty() && self.boot.is_empty() {
            outcome.save(&result_of(kernel)?)?;
        }
        Ok(Some(outcome))
    }

    /// Boots a kernel that is too old; the agent must refuse with one sentence.
    fn refusal(&self, subject: &Subject<'_>) -> Result<Outcome> {
        let run = self.boot(subject, Task::Refusal, |line| println!("  {line}"))?;
        let message = run.output.join("\n");
        if run.code == Some(0) || run.code.is_none() {
            println!("{}", machine::last_lines(&console(subject.kernel)?, 10));
            bail!("the agent did not refuse, it ended with {:?}", run.code);
        }
        if run.output.len() != 1 || !REFUSAL.iter().all(|part| message.contains(part)) {
            bail!("not one line that has {REFUSAL:?}, but:\n{message}");
        }
        Ok(Outcome::refused(run.release, message))
    }

    /// Boots a kernel into the live tests, and once more into a few that failed, as on this host.
    fn live_tests(&self, subject: &Subject<'_>) -> Result<Outcome> {
        let kernel = subject.kernel;
        let (mut report, run) = self.tests(subject, Task::Tests(self.filter))?;
        let failed = report.failures().to_vec();
        if run.code == Some(101) && failed.len() <= MOST_RETRIES {
            fs::rename(console(kernel)?, console(kernel)?.with_extension("first.log"))
                .context("keeping the first console")?;
            for test in &failed {
                println!("\n== Linux {}, once more, alone: {test}", kernel.version);
                let (second, _) = self.tests(subject, Task::Test(test))?;
                report.retried(test, &second);
            }
        }
        report.print();
        if report.passed + report.failed + report.skipped == 0 {
            bail!("no test ran");
        }
        if let Some(word) = self.filter.iter().find(|word| !report.has_test(word)) {
            bail!("no test that ran has {word} in its name");
        }
        Ok(Outcome::of(run.release, report))
    }

    fn tests(&self, subject: &Subject<'_>, task: Task<'_>) -> Result<(Report, machine::Run)> {
        let mut report = Report::default();
        let run = self.boot(subject, task, |line| {
            if report.read(line) {
                println!("{line}");
            }
        })?;
        // 101 is how a test program with failures ends.
        if !matches!(run.code, Some(0 | 101)) {
            report.failed += 1;
            println!("FAILED: it did not come to an end ({:?}); the end of its console:", run.code);
            println!("{}", machine::last_lines(&console(subject.kernel)?, 30));
        }
        Ok((report, run))
    }

    fn boot(
        &self,
        subject: &Subject<'_>,
        task: Task<'_>,
        line: impl FnMut(&str),
    ) -> Result<machine::Run> {
        let Subject { kernel, folder, agent, tests } = subject;
        let Kernel { architecture, .. } = kernel;
        let vmlinuz = kernels::find_file(folder, "vmlinuz").context("the package has no kernel")?;
        let place = tempfile::tempdir().context("making a temporary folder")?;
        let initramfs = place.path().join("initramfs");
        fs::write(&initramfs, image::build(architecture, folder, agent, tests, task)?)
            .context("writing the initramfs")?;
        let console = console(kernel)?;
        let boot = machine::Boot { kernel: &vmlinuz, initramfs: &initramfs, arguments: self.boot };
        machine::run(architecture, &boot, self.patience, &console, line)
    }
}

/// Where consoles and results are saved.
fn folder() -> Result<PathBuf> {
    let folder = tree::target()?.join("vm");
    fs::create_dir_all(&folder).context("making a folder for consoles")?;
    Ok(folder)
}

fn console(kernel: &Kernel) -> Result<PathBuf> {
    Ok(folder()?.join(format!("{}.log", kernel.version)))
}

fn result_of(kernel: &Kernel) -> Result<PathBuf> {
    Ok(folder()?.join(format!("{}.json", kernel.version)))
}
