//! The price of the kernel programs themselves, from the kernel's run-time statistics: how often
//! each runs per operation, which is a count and repeats exactly, and how long a run takes above
//! an empty program on the same tracepoint, timed by the same clock.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::agent::Agent;
use crate::bpf::{self, Runs};
use crate::empty::Empty;
use crate::load::{Load, Server};
use crate::stats::{Estimate, median};

/// Hooks with fewer runs per operation than this are not part of the load.
const NOISE: f64 = 0.01;

/// The cost of a hook under one load.
#[derive(Clone, Debug)]
pub struct Hook {
    pub name: String,
    /// Runs per operation; an operation has two sides on this machine.
    pub runs: f64,
    /// Nanoseconds of a run, the clock's own included.
    pub full: Estimate,
    /// The same of an empty program.
    pub empty: f64,
}

/// All hooks under one load.
#[derive(Clone, Debug)]
pub struct Cost {
    pub load: Load,
    pub hooks: Vec<Hook>,
    /// Runs per operation of all hooks, request timing switched off.
    pub bare_runs: f64,
    /// TCP segments received per operation.
    pub segments: f64,
}

/// Figures of single windows, by hook: runs per operation, nanoseconds per run.
type Seen = BTreeMap<String, Vec<(f64, f64)>>;

/// Measures every load `rounds` times, alternating between the agent and empty programs.
pub fn measure(
    rounds: u32,
    seconds: u32,
    server: &Server,
    agent: &Path,
    directory: &Path,
) -> Result<Vec<Cost>> {
    let loads = [Load::Connections, Load::Requests, Load::Bulk];
    let mut full: Vec<Seen> = vec![Seen::new(); loads.len()];
    let mut empty = full.clone();
    let mut segments = vec![Vec::new(); loads.len()];
    for round in 1..=rounds {
        println!("  hooks: round {round} of {rounds}");
        let running = Agent::start(agent, &["--run-stats"], directory)?;
        for (at, load) in loads.into_iter().enumerate() {
            let received = server.segments()?;
            let before = running.runs()?;
            let window = server.run(load, seconds, &[])?;
            note(&mut full[at], &before, &running.runs()?, window.operations);
            let received = server.segments()?.wrapping_sub(received);
            segments[at].push(received as f64 / window.operations as f64);
        }
        running.stop()?;
        let statistics = bpf::enable_statistics().context("turning on run-time statistics")?;
        let running = Empty::attach()?;
        for (at, load) in loads.into_iter().enumerate() {
            let before = running.runs()?;
            let window = server.run(load, seconds, &[])?;
            note(&mut empty[at], &before, &running.runs()?, window.operations);
        }
        drop((running, statistics));
    }
    let mut bare = vec![Seen::new(); loads.len()];
    let running = Agent::start(agent, &["--run-stats", "--no-requests"], directory)?;
    for (at, load) in loads.into_iter().enumerate() {
        let before = running.runs()?;
        let window = server.run(load, seconds, &[])?;
        note(&mut bare[at], &before, &running.runs()?, window.operations);
    }
    running.stop()?;
    let costs = loads.into_iter().enumerate().map(|(at, load)| Cost {
        load,
        hooks: hooks(&full[at], &empty[at]),
        bare_runs: hooks(&bare[at], &empty[at]).iter().map(|hook| hook.runs).sum(),
        segments: median(&segments[at]).unwrap_or(f64::NAN),
    });
    Ok(costs.collect())
}

fn note(seen: &mut Seen, before: &[(String, Runs)], after: &[(String, Runs)], operations: u64) {
    let before: BTreeMap<&str, Runs> =
        before.iter().map(|(hook, runs)| (hook.as_str(), *runs)).collect();
    for (hook, after) in after {
        let before = before.get(hook.as_str()).copied().unwrap_or_default();
        let count = (after.count - before.count) as f64;
        if count > 0.0 {
            let each = (after.nanoseconds - before.nanoseconds) as f64 / count;
            seen.entry(hook.clone()).or_default().push((count / operations as f64, each));
        }
    }
}

fn hooks(full: &Seen, empty: &Seen) -> Vec<Hook> {
    let column = |rows: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        rows.iter().map(pick).collect()
    };
    // Cgroup hooks have no empty program; the dispatch costs the same at every hook.
    let nothing: Vec<f64> =
        empty.values().filter_map(|rows| median(&column(rows, |row| row.1))).collect();
    let mut hooks: Vec<Hook> = full
        .iter()
        .filter_map(|(name, rows)| {
            let runs = median(&column(rows, |row| row.0))?;
            let own = empty.get(name).and_then(|rows| median(&column(rows, |row| row.1)));
            let empty = own.or_else(|| median(&nothing))?;
            let full = Estimate::of(&column(rows, |row| row.1))?;
            (runs >= NOISE).then(|| Hook { name: name.clone(), runs, full, empty })
        })
        .collect();
    hooks.sort_by(|a, b| b.nanoseconds().total_cmp(&a.nanoseconds()));
    hooks
}

impl Hook {
    /// Nanoseconds of a run above an empty program.
    pub fn above_empty(&self) -> f64 {
        self.full.median - self.empty
    }

    /// Nanoseconds per operation above empty programs.
    fn nanoseconds(&self) -> f64 {
        self.above_empty() * self.runs
    }
}

impl Cost {
    /// Nanoseconds per operation, both sides, above empty programs.
    pub fn nanoseconds(&self) -> f64 {
        self.hooks.iter().map(Hook::nanoseconds).sum()
    }

    /// Runs per operation, both sides.
    pub fn runs(&self) -> f64 {
        self.hooks.iter().map(|hook| hook.runs).sum()
    }

    /// The mean of a run above an empty program.
    pub fn mean(&self) -> f64 {
        self.nanoseconds() / self.runs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_costs_what_it_takes_beyond_an_empty_one() {
        let seen = |each| Seen::from([("a".to_owned(), vec![(2.0, each), (2.0, each)])]);
        let hooks = hooks(&seen(90.0), &seen(20.0));
        let cost = Cost { load: Load::Requests, hooks, bare_runs: 0.0, segments: 4.0 };
        assert!((cost.nanoseconds() - 140.0).abs() < 1e-9);
        assert!((cost.mean() - 70.0).abs() < 1e-9);
    }

    #[test]
    fn a_hook_without_an_empty_program_is_held_against_those_of_others() {
        let full = Seen::from([("cgroup".to_owned(), vec![(1.0, 90.0)])]);
        let empty = Seen::from([
            ("a".to_owned(), vec![(1.0, 10.0)]),
            ("b".to_owned(), vec![(1.0, 20.0)]),
            ("c".to_owned(), vec![(1.0, 40.0)]),
        ]);
        let hooks = hooks(&full, &empty);
        assert!((hooks[0].above_empty() - 70.0).abs() < 1e-9);
    }

    #[test]
    fn rare_hooks_are_left_out() {
        let full = Seen::from([("rare".to_owned(), vec![(0.001, 500.0)])]);
        let empty = Seen::from([("rare".to_owned(), vec![(0.001, 20.0)])]);
        assert!(hooks(&full, &empty).is_empty());
    }
}
