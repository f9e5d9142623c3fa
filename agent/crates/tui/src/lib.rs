//! `portolan top`: a screen that shows what is wrong first, and why.
//!
//! A thread for each agent asks it and judges the answers as `portolan check` does ([`agents`]). Each
//! view makes a table of them ([`views`]); the screen is a list of lines ([`screen`], [`detail`]) that
//! a terminal shows ([`terminal`]) and that `--once` prints ([`report`]). Nothing runs in the agent
//! while nobody watches.

#![forbid(unsafe_code)]

mod action;
mod agents;
mod app;
mod detail;
mod help;
mod report;
mod rows;
mod screen;
mod spark;
mod summary;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod trend;
mod views;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api_types::WindowChoice;
use clap::Args;
use cli::{Connection, Connections, Outcome, Output, fit, words};
use notation::filter::Filter;

use self::agents::{Asker, Host};
use self::app::App;
use self::rows::Sort;
use self::views::{Side, View, Wanted};

const EXAMPLES: &str = "\
Examples:
  portolan top                                     what is wrong first; Enter on a row explains it
  portolan top --once                              the same as text, and no more
  portolan top --filter 'server=catalog.js err>0'
  portolan top --view services --sort p99
  portolan top --url http://node1:10062 --url http://node2:10062
  portolan top --from node7.json.gz                what `portolan snapshot` has written
  portolan top --once -o json | jq -r '.problems[].title'

Rows are edges by default: those with a finding of `portolan check` first, then those where anything
failed, then the busiest. ✗ is an error, ! a warning, ✓ ok, · idle. Keys: ? lists them; Enter
opens a row, 1 to 0 are views, / filters, w changes the window, d runs `portolan diagnose` for the
row, with its probes, q quits.

Filters: terms that all have to hold. client= server= service= ns= role= why= state= kind= host= are
texts (* for anything in a name); port req p50 p99 err unans conn fail retr rtt active count are
numbers, compared with = != < > <= >=, like err>1 p99>50ms. A bare word is a part of any text; ! before
a term negates it.

Where standard output is no terminal the screen is printed once, as text.";

/// Arguments of `portolan top`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct TopArgs {
    /// What to show first.
    #[arg(long, value_enum, default_value_t)]
    view: View,
    /// Only rows that meet all terms, like 'server=catalog.js err>0'.
    #[arg(long, value_name = "TERMS", default_value = "")]
    filter: Filter,
    /// Sort by this field: why (what fails first), or a field of filters.
    #[arg(long, value_name = "FIELD", default_value = "why", value_parser = Sort::named)]
    sort: Sort,
    /// Time that the numbers cover: 10s, 1m, 5m (at most), or start, since the agent started.
    #[arg(long, value_name = "WINDOW", default_value = "1m", value_parser = words::window)]
    window: WindowChoice,
    /// Also what is idle, listeners, and Portolan's own connections.
    #[arg(long)]
    all: bool,
    /// Ask again after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Print the screen once.
    #[arg(long)]
    once: bool,
    /// Output format; JSON is an object in each tick.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    agents: Connections,
}

/// Runs the command.
pub fn run(arguments: &TopArgs) -> anyhow::Result<Outcome> {
    let TopArgs { view, filter, sort, window, all, every, once, output, agents } = arguments;
    let wanted = Wanted {
        view: *view,
        side: Side::default(),
        all: *all,
        filter: filter.clone(),
        sort: *sort,
    };
    let every = Duration::from_secs(*every);
    let deadline = agents.deadline();
    let agents = agents.all();
    if *output == Output::Json && !once {
        for agent in agents {
            agent.live("top -o json without --once")?;
        }
    }
    let hosts = agents::hosts(agents, Instant::now());
    match output {
        Output::Json => ticks(hosts, agents, &wanted, *window, (every, deadline), *once),
        Output::Text if *once || !std::io::stdout().is_terminal() => {
            let mut hosts = hosts;
            ask_all(&mut hosts, &mut askers(agents), *window, deadline)?;
            let lines = report::text(&hosts, &wanted, *window, every, fit::room());
            cli::print(&report::plain(&lines)).map(|()| Outcome::Done)
        }
        Output::Text => {
            let app = App::new(hosts, wanted, *window, every);
            terminal::run(app, agents, fit::has_colours()).map(|()| Outcome::Done)
        }
    }
}

fn askers(agents: &[Connection]) -> Vec<Asker> {
    agents.iter().cloned().map(Asker::new).collect()
}

/// Asks all agents at once. What one cannot say, or not in time, is shown beside what others say; an
/// error only if none can.
fn ask_all(
    hosts: &mut [Host],
    askers: &mut Vec<Asker>,
    window: WindowChoice,
    deadline: Duration,
) -> anyhow::Result<()> {
    let agents: Vec<Connection> = askers.iter().map(|asker| asker.agent.clone()).collect();
    let works = askers.drain(..).map(|mut asker| {
        move || {
            let result = asker.ask(window);
            (asker, result)
        }
    });
    let said = cli::at_once(works.collect::<Vec<_>>(), deadline);
    let mut results: Vec<anyhow::Result<agents::Look>> = Vec::new();
    for ((said, agent), host) in said.into_iter().zip(agents).zip(&*hosts) {
        let (asker, result) = said.unwrap_or_else(|| {
            let (at, seconds) = (host.name.clone(), deadline.as_secs());
            (Asker::new(agent), Err(client::Error::Timeout { at, seconds }.into()))
        });
        askers.push(asker);
        results.push(result);
    }
    let is_none = results.iter().all(Result::is_err);
    let now = Instant::now();
    let mut first = None;
    for (host, result) in hosts.iter_mut().zip(results) {
        let said = match result {
            Ok(look) => Ok(Arc::new(look)),
            Err(error) => {
                let said = format!("{error:#}");
                first = first.or(Some(error));
                Err(said)
            }
        };
        host.take(said, now);
    }
    match first.filter(|_| is_none) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// An object in each tick, until the reader closes the pipe.
fn ticks(
    mut hosts: Vec<Host>,
    agents: &[Connection],
    wanted: &Wanted,
    window: WindowChoice,
    (every, deadline): (Duration, Duration),
    once: bool,
) -> anyhow::Result<Outcome> {
    let mut askers = askers(agents);
    // An agent that is gone later may come back; one that never was there is an error.
    ask_all(&mut hosts, &mut askers, window, deadline)?;
    loop {
        let begun = Instant::now();
        let json = report::json(&hosts, wanted, window).context("writing JSON")?;
        if !cli::print_on(&json)? || once {
            return Ok(Outcome::Done);
        }
        std::thread::sleep(every.saturating_sub(begun.elapsed()));
        let _ = ask_all(&mut hosts, &mut askers, window, deadline);
    }
}
