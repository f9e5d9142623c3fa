//! `cargo xtask bench connection` and `cargo xtask bench request`: nanoseconds that the agent's
//! programs add to one connection or one request, resolved to some tens of nanoseconds.
//!
//! The loads of the goals (nginx and wrk on every processor) are ratios of two runs that differ by
//! several percent by themselves, which is a microsecond of a connection. Here one thread, bound
//! to one processor, holds both ends: connect, accept and close on the loopback of a network
//! namespace of its own, with 64 connections open. Time is taken of *slices* of a few
//! milliseconds; a figure is the 10th percentile of a variant's slices, a difference is that to the
//! figure with nothing attached, its interval a bootstrap over rounds ([`figures`]).
//!
//! # How variants take their turns
//!
//! An agent needs more than a second to start. Measured with nothing attached, two blocks that are
//! one to eight seconds apart differ by 1.7 times as much as neighbours: restarts would waste time
//! and lose resolution. So an agent is started once per variant; this command opens its attached
//! programs by their numbers and ends it. Programs and maps stay as long as this command holds
//! them, charged to the memory cgroup that the agent was in. From then on a *block* is: attach one
//! variant's programs, listen and open the connections, warm up, take the slices, close everything,
//! detach; attaching and detaching take some milliseconds. A round is one block of each variant in
//! random order ([`plan`]). Every socket lives within one block, so no table keeps sockets whose
//! end no program saw.
//!
//! What this leaves out is the daemon, whose time per connection is a goal of its own (P7). With
//! it ended, nothing drains the rings, but the load has neither resets nor failed connects to write
//! there: five times in turn, a kernel half that was taken over added 5.6 to 6.0 µs to a
//! connection, and one with its daemon running 5.6 to 5.8. Several running agents cannot take turns instead: a tracepoint has no switch per program,
//! so all of them would run on every socket.
//!
//! A slice is longer than a tick of the kernel (4 ms at 250 Hz): on the tick runs the work that
//! programs put off, such as freeing socket storage after a grace period, and the 10th percentile
//! of shorter slices would be one without it (measured: 6 % less above nothing in slices of 1.5 ms
//! than of 3 ms). With cold caches only the operations are timed, not the walks between them, so
//! most of that work is not in the figure.

mod args;
mod figures;
mod memory;
mod plan;
mod programs;
mod table;
mod traffic;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use portolan_kit::shell;

use crate::bpf;
use crate::empty::Empty;
pub use args::Args;
use args::{Output, Variant};
use figures::Rounds;
use memory::{MemoryCgroup, MemoryCgroups};
use programs::{Attached, Programs};
use traffic::{Cold, Operation, Traffic};

/// How the agent of this checkout is called in tables.
const PORTOLAN: &str = "portolan";
/// Names of variants that are always there.
const NOTHING: &str = "nothing";
const CONTROL: &str = "nothing again (A/A control)";
const EMPTY: &str = "empty programs on the same tracepoints";

/// Number and size of the trials that find the operations per slice.
const CALIBRATIONS: u32 = 50;
const CALIBRATION: u32 = 50;
/// Operations of which program runs are counted.
const COUNTED: u32 = 256;
/// Operations before the first slice of a block, beside opening the connections.
const WARM_UP: u32 = 64;
/// Fewer rounds than this give no interval to rely on.
const FEWEST_ROUNDS: u32 = 30;
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The size of the buffer of `--cold` in second-level caches, if it is not given. Caches do not
/// give up what is oldest: a walk through two of them left a connection as fast as it was (EPYC,
/// 31.8 µs), through eight of them not (37.6 µs).
const CACHES: usize = 8;

/// Something to measure.
struct Subject {
    name: String,
    memory_cgroup: Option<MemoryCgroup>,
    what: What,
    /// Program runs per operation.
    runs: f64,
}

enum What {
    Nothing,
    Empty,
    Agent(Programs),
}

/// The result.
struct Outcome {
    operation: Operation,
    processor: usize,
    seed: u64,
    /// Operations of a slice.
    operations: u32,
    cold_kib: Option<usize>,
    other_programs: usize,
    /// The first two are the baseline, twice.
    variants: Vec<(Subject, Rounds)>,
    /// Mean duration of attaching and detaching a variant.
    switch: Duration,
}

/// Measures connections.
pub fn connection(args: &Args) -> Result<()> {
    run(args, Operation::Connection)
}

/// Measures requests.
pub fn request(args: &Args) -> Result<()> {
    run(args, Operation::Request)
}

fn run(args: &Args, operation: Operation) -> Result<()> {
    if !shell::is_root() {
        bail!("attaching programs needs root: run this command as root");
    }
    let agents = args::agents(args)?;
    let other_programs = bpf::tracing_programs().context("listing the kernel's programs")?;
    if other_programs > 0 {
        progress(&format!(
            "WARNING: {other_programs} other tracing programs are loaded (another agent, a test?): \
             they are part of every figure"
        ));
    }
    if args.rounds < FEWEST_ROUNDS {
        progress(&format!(
            "WARNING: {} rounds show that it works, no more: intervals need {FEWEST_ROUNDS}",
            args.rounds
        ));
    }
    let groups = MemoryCgroups::enter()?;
    let subjects = subjects(&agents, &args.memory_cgroup, &groups)?;
    let outcome = thread::scope(|scope| {
        let pinned = scope.spawn(|| measure(args, operation, subjects, other_programs));
        pinned.join().unwrap_or_else(|_| bail!("the thread that measures panicked"))
    });
    drop(groups);
    let outcome = outcome?;
    match args.output {
        Output::Table => println!("{}", table::table(&outcome)),
        Output::Json => {
            let json = serde_json::to_string_pretty(&table::json(&outcome));
            println!("{}", json.context("writing JSON")?);
        }
    }
    Ok(())
}

/// Everything to measure: starts each agent once per memory cgroup and keeps its programs.
fn subjects(
    agents: &[Variant],
    cgroups: &[MemoryCgroup],
    groups: &MemoryCgroups,
) -> Result<Vec<Subject>> {
    let plain =
        |name: &str, what| Subject { name: name.to_owned(), memory_cgroup: None, what, runs: 0.0 };
    let mut subjects = vec![
        plain(NOTHING, What::Nothing),
        plain(CONTROL, What::Nothing),
        plain(EMPTY, What::Empty),
    ];
    for agent in agents {
        for (index, cgroup) in cgroups.iter().enumerate() {
            if cgroups[..index].contains(cgroup) {
                continue;
            }
            progress(&format!(
                "starting {} ({} memory cgroup) to take its programs over",
                agent.name,
                cgroup.as_str()
            ));
            let programs = groups
                .within(*cgroup, || agent.programs())
                .with_context(|| format!("taking over the programs of {}", agent.name))?;
            subjects.push(Subject {
                memory_cgroup: Some(*cgroup),
                ..plain(&agent.name, What::Agent(programs))
            });
        }
    }
    Ok(subjects)
}

/// The body of the pinned thread.
fn measure(
    args: &Args,
    operation: Operation,
    mut subjects: Vec<Subject>,
    other_programs: usize,
) -> Result<Outcome> {
    let processor = match args.processor {
        Some(processor) => processor,
        None => traffic::last_processor()?,
    };
    traffic::isolate(processor)?;
    let cold_kib = match args.cold_kib {
        Some(kib) => Some(kib as usize),
        None if args.cold => Some(default_cold(processor)?),
        None => None,
    };
    let cold = cold_kib.map(Cold::of);
    let cold = cold.as_ref();
    let seed = args.seed.unwrap_or_else(new_seed);
    count_runs(&mut subjects, operation)?;
    let operations = calibrate(operation, cold, args.slice_ms)?;
    progress(&format!(
        "{} rounds of {} variants, {} slices of {operations} operations ({}) in each block, on \
         processor {processor}, --seed {seed}",
        args.rounds,
        subjects.len(),
        args.slices,
        operation.as_str()
    ));
    let mut variants: Vec<(Subject, Rounds)> =
        subjects.into_iter().map(|subject| (subject, Rounds::new())).collect();
    let mut switching = Duration::ZERO;
    let mut shown = Instant::now();
    let began = shown;
    let orders = plan::orders(variants.len(), args.rounds, seed);
    for (round, order) in (1..).zip(&orders) {
        for index in order {
            let (subject, rounds) = &mut variants[*index];
            let (slices, switch) = block(subject, operation, cold, operations, args.slices)
                .with_context(|| format!("measuring {}", subject.name))?;
            rounds.push(slices);
            switching += switch;
        }
        if shown.elapsed() > REPORT_EVERY {
            shown = Instant::now();
            progress(&so_far(round, args.rounds, began.elapsed(), &variants));
        }
    }
    let resets = traffic::resets()?;
    if resets > 0 {
        bail!("{resets} connections were reset: the load did not do what it should");
    }
    let blocks = args.rounds * variants.len() as u32;
    Ok(Outcome {
        operation,
        processor,
        seed,
        operations,
        cold_kib,
        other_programs,
        variants,
        switch: switching / blocks,
    })
}

/// One block: nanoseconds per operation of each slice, and the time of attaching and detaching.
fn block(
    subject: &Subject,
    operation: Operation,
    cold: Option<&Cold>,
    operations: u32,
    slices: u32,
) -> Result<(Vec<f64>, Duration)> {
    let began = Instant::now();
    let attached = subject.what.attach()?;
    let attaching = began.elapsed();
    let mut traffic = Traffic::open(operation, cold)?;
    traffic.run(WARM_UP + operations / 2)?;
    let slice = |_| Ok(nanoseconds(traffic.run(operations)?, operations));
    let slices = (0..slices).map(slice).collect::<Result<Vec<f64>>>()?;
    traffic.close()?;
    let began = Instant::now();
    drop(attached);
    Ok((slices, attaching + began.elapsed()))
}

/// Counts program runs per operation. A variant without any would be measured as if it were free.
fn count_runs(subjects: &mut [Subject], operation: Operation) -> Result<()> {
    let _statistics = bpf::enable_statistics().context("turning on run-time statistics")?;
    for Subject { name, what, runs, .. } in subjects {
        let attached = what.attach()?;
        let mut traffic = Traffic::open(operation, None)?;
        let before = what.runs(&attached)?;
        traffic.run(COUNTED)?;
        let counted = what.runs(&attached)? - before;
        traffic.close()?;
        if counted == 0 && !matches!(what, What::Nothing) {
            bail!("{name} is attached, but not one of its programs has run");
        }
        *runs = counted as f64 / f64::from(COUNTED);
    }
    Ok(())
}

/// How many operations take as long as a slice should, when nothing disturbs them.
fn calibrate(operation: Operation, cold: Option<&Cold>, slice_ms: u32) -> Result<u32> {
    let mut traffic = Traffic::open(operation, cold)?;
    let each = |_| {
        // Walks between operations make a slice longer, too.
        let began = Instant::now();
        traffic.run(CALIBRATION)?;
        Ok(nanoseconds(began.elapsed(), CALIBRATION))
    };
    let tries = (0..CALIBRATIONS).map(each).collect::<Result<Vec<f64>>>()?;
    traffic.close()?;
    let each = figures::level(&vec![tries]).context("no calibration")?;
    Ok((f64::from(slice_ms) * 1e6 / each).round().max(1.0) as u32)
}

/// The size of a buffer whose walk empties the second-level cache of a processor, in KiB.
fn default_cold(processor: usize) -> Result<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{processor}/cache/index2/size");
    let size = fs::read_to_string(&path).ok().and_then(|size| kib(size.trim()));
    let size = size.with_context(|| format!("{path} does not show a size: give --cold-kib"))?;
    Ok(size * CACHES)
}

/// A size as sysfs shows it, such as `1024K`.
fn kib(size: &str) -> Option<usize> {
    size.strip_suffix('K')?.parse().ok()
}

fn new_seed() -> u64 {
    // Short enough to be typed.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs() % 1_000_000)
}

fn nanoseconds(taken: Duration, operations: u32) -> f64 {
    taken.as_nanos() as f64 / f64::from(operations)
}

fn so_far(round: u32, rounds: u32, elapsed: Duration, variants: &[(Subject, Rounds)]) -> String {
    let remaining = elapsed.mul_f64(f64::from(rounds - round) / f64::from(round)).as_secs();
    let base = variants.first().and_then(|(_, rounds)| figures::level(rounds));
    let shown = variants.iter().skip(1).filter_map(|(subject, rounds)| {
        let above = figures::level(rounds)? - base?;
        Some(format!("{} {above:+.0}", subject.label()))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    format!("round {round} of {rounds}, about {remaining} s remaining; ns above nothing: {shown}")
}

/// Progress goes to stderr, because the result on stdout may be JSON.
#[expect(clippy::print_stderr, reason = "a terminal program")]
fn progress(line: &str) {
    eprintln!("{line}");
}

impl Subject {
    /// Name and memory cgroup in one.
    fn label(&self) -> String {
        match self.memory_cgroup {
            None => self.name.clone(),
            Some(cgroup) => format!("{} ({} memory cgroup)", self.name, cgroup.as_str()),
        }
    }
}

impl What {
    fn attach(&self) -> Result<Attached> {
        match self {
            Self::Nothing => Ok(Attached::Nothing),
            Self::Empty => Empty::attach().map(Attached::Empty),
            Self::Agent(programs) => programs.attach(),
        }
    }

    /// Runs so far of the attached programs.
    fn runs(&self, attached: &Attached) -> Result<u64> {
        match (self, attached) {
            (Self::Agent(programs), _) => programs.runs(),
            (_, Attached::Empty(empty)) => {
                Ok(empty.runs()?.iter().map(|(_, runs)| runs.count).sum())
            }
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_size_is_read_in_kib() {
        assert_eq!(kib("1024K"), Some(1024));
        assert_eq!(kib("1M"), None);
        assert_eq!(kib(""), None);
    }
}
