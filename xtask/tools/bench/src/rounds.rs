//! The order of measurements: every window of a subject lies between two windows without any.
//!
//! Identical runs of a load differ by a factor of two within a minute on a shared machine, so
//! figures taken minutes apart cannot be compared. Neighbouring seconds can: each window is divided
//! by the mean of the two beside it, and only such ratios are kept. The order of subjects is drawn
//! anew for each round, so that no subject always follows the same one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::load::{Load, Server, Window};
use crate::random::Random;
use crate::stats::{Estimate, median};
use crate::subject::Subject;

/// Peers cost so much that a part of the rounds is enough.
const PEERS_EVERY: u32 = 3;
const SEED: u64 = 1;
/// A window in which other programs used more of the busy time than this is discarded.
const FOREIGN_LIMIT: f64 = 0.08;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: u32,
    pub seconds: u32,
    /// Whether other tools are measured too.
    pub peers: bool,
}

/// Everything measured under one load.
pub struct Outcome {
    pub load: Load,
    pub plan: Plan,
    /// With nothing switched on.
    pub off: Absolute,
    /// In the order of [`Subject`].
    pub subjects: Vec<(Subject, Ratios)>,
    /// Subjects that could not be measured, and why.
    pub unavailable: BTreeMap<Subject, String>,
    /// Operations that failed according to wrk, whatever was switched on.
    pub errors: u64,
}

/// Medians of the windows with nothing on.
#[derive(Clone, Copy, Debug)]
pub struct Absolute {
    pub throughput: f64,
    /// Processor seconds of the machine per operation.
    pub cost: f64,
    /// Share of the busy time used by other programs.
    pub foreign: f64,
    /// Share of the time that the hypervisor took.
    pub stolen: f64,
}

/// A subject against nothing: 1 = as if it were not there.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    /// Processor time of the whole machine per operation.
    pub cost: Estimate,
    /// The same, only of the processes that take part and of the kernel's threads.
    pub own_cost: Estimate,
    /// Share of the busy time used by other programs.
    pub foreign: f64,
    /// Operations per second.
    pub throughput: Estimate,
    /// Windows that were not evidence.
    pub discarded: usize,
    /// Too few were left: all are in the figures after all, which are then uncertain.
    pub is_doubtful: bool,
}

/// A subject's window and the two beside it.
struct Triple {
    before: Window,
    on: Window,
    after: Window,
}

/// Measures all subjects under one load.
pub fn measure(
    load: Load,
    plan: Plan,
    server: &Server,
    agent: &Path,
    directory: &Path,
) -> Result<Outcome> {
    let mut random = Random::seeded(SEED);
    let mut triples: BTreeMap<Subject, Vec<Triple>> = BTreeMap::new();
    let mut unavailable = BTreeMap::new();
    let started = Instant::now();
    // The first window warms caches up and is not counted.
    server.run(load, plan.seconds, &[])?;
    let mut before = server.run(load, plan.seconds, &[])?;
    for round in 0..plan.rounds {
        for subject in order(round, load, plan, &mut random) {
            if unavailable.contains_key(&subject) {
                continue;
            }
            let on = match window(subject, load, plan, server, agent, directory) {
                Ok(on) => on,
                Err(error) if subject.is_peer() => {
                    println!("NOT MEASURED: {}: {error:#}", subject.as_str());
                    unavailable.insert(subject, format!("{error:#}"));
                    continue;
                }
                Err(error) => return Err(error.context(subject.as_str())),
            };
            let after = server.run(load, plan.seconds, &[])?;
            triples.entry(subject).or_default().push(Triple { before, on, after });
            before = after;
        }
        print_progress(round + 1, plan, started, &triples);
    }
    Ok(summary(load, plan, &triples, unavailable))
}

/// The order within a round.
fn order(round: u32, load: Load, plan: Plan, random: &mut Random) -> Vec<Subject> {
    let mut subjects = Subject::CORE.to_vec();
    if plan.peers && round.is_multiple_of(PEERS_EVERY) {
        subjects.extend_from_slice(Subject::peers(load));
    }
    random.shuffle(&mut subjects);
    subjects
}

fn window(
    subject: Subject,
    load: Load,
    plan: Plan,
    server: &Server,
    agent: &Path,
    directory: &Path,
) -> Result<Window> {
    let running = subject.start(agent, directory)?;
    let window = server.run(load, plan.seconds, &running.processes());
    running.stop()?;
    window
}

fn print_progress(
    round: u32,
    plan: Plan,
    started: Instant,
    triples: &BTreeMap<Subject, Vec<Triple>>,
) {
    let remaining = started.elapsed().mul_f64(f64::from(plan.rounds - round) / f64::from(round));
    let shown = Subject::CORE.iter().filter_map(|subject| {
        let costs: Vec<f64> = triples.get(subject)?.iter().map(Triple::cost).collect();
        Some(format!("{} ×{:.3}", subject.as_str(), median(&costs)?))
    });
    let foreign: Vec<f64> =
        triples.values().flatten().map(|triple| triple.after.spent.foreign()).collect();
    println!(
        "  round {round} of {}, about {} s remaining, others use {:.0} %; processor time so far: {}",
        plan.rounds,
        remaining.as_secs(),
        median(&foreign).unwrap_or(0.0) * 100.0,
        shown.collect::<Vec<_>>().join(", ")
    );
}

fn summary(
    load: Load,
    plan: Plan,
    triples: &BTreeMap<Subject, Vec<Triple>>,
    unavailable: BTreeMap<Subject, String>,
) -> Outcome {
    let all = || triples.values().flatten();
    let off: Vec<&Window> = all().flat_map(|triple| [&triple.before, &triple.after]).collect();
    let middle = |figure: &dyn Fn(&Window) -> f64| {
        median(&off.iter().map(|window| figure(window)).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let absolute = Absolute {
        throughput: middle(&Window::throughput),
        cost: middle(&Window::cost),
        foreign: middle(&|window| window.spent.foreign()),
        stolen: middle(&|window| {
            window.spent.stolen / window.spent.wall.as_secs_f64() / processors
        }),
    };
    let errors = all().map(|triple| triple.on.errors + triple.after.errors).sum();
    let ratios =
        |(subject, triples): (&Subject, &Vec<Triple>)| Some((*subject, Ratios::of(triples)?));
    let subjects = triples.iter().filter_map(ratios).collect();
    Outcome { load, plan, off: absolute, subjects, unavailable, errors }
}

impl Outcome {
    /// The figures of a subject.
    pub fn of(&self, subject: Subject) -> Result<&Ratios> {
        let found = self.subjects.iter().find(|(other, _)| *other == subject);
        let (_, ratios) = found.with_context(|| format!("{} is missing", subject.as_str()))?;
        Ok(ratios)
    }
}

impl Ratios {
    fn of(triples: &[Triple]) -> Option<Self> {
        let mut usable: Vec<&Triple> =
            triples.iter().filter(|triple| triple.is_evidence()).collect();
        let is_doubtful = usable.len() < triples.len().div_ceil(2);
        if is_doubtful {
            usable = triples.iter().collect();
        }
        let estimate = |figure: &dyn Fn(&Triple) -> f64| {
            Estimate::of(&usable.iter().map(|triple| figure(triple)).collect::<Vec<_>>())
        };
        Some(Self {
            cost: estimate(&Triple::cost)?,
            own_cost: estimate(&|triple| triple.ratio(Window::own_cost))?,
            throughput: estimate(&|triple| triple.ratio(Window::throughput))?,
            foreign: estimate(&|triple| triple.on.spent.foreign())?.median,
            discarded: triples.len() - usable.len(),
            is_doubtful,
        })
    }
}

impl Triple {
    fn cost(&self) -> f64 {
        self.ratio(Window::cost)
    }

    fn ratio(&self, figure: fn(&Window) -> f64) -> f64 {
        let Self { before, on, after } = self;
        figure(on) / f64::midpoint(figure(before), figure(after))
    }

    fn is_evidence(&self) -> bool {
        let Self { before, on, after } = self;
        [before, on, after].iter().all(|window| window.spent.foreign() <= FOREIGN_LIMIT)
    }
}
