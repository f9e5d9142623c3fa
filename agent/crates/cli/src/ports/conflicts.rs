//! `portolan ports conflicts` and `watch`: failed binds and listens, a line each.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::outcome::Report;
use crate::target::Target;
use crate::{Outcome, Output, print};
use api_types::{Conflict, Conflicts, Timestamp};
use notation::duration::{self, ago};

/// Between two requests of `watch`.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct ConflictsArgs {
    /// Only the last 90s, 15m, 1h, 2d.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    since: Option<u64>,
    /// Only this port.
    #[arg(long, value_parser = super::port)]
    port: Option<u16>,
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &ConflictsArgs) -> anyhow::Result<Outcome> {
    let ConflictsArgs { since, port, report, target } = arguments;
    let port = port.map(|port| format!("port={port}"));
    let now = target.connection.now()?.seconds().floor();
    let since = since.map(|since| {
        let since = (now - since as f64).max(0.0);
        format!("since={}", Timestamp::from_seconds(since))
    });
    let query: Vec<String> = port.into_iter().chain(since).collect();
    let body = target.text(&format!("/api/v1/conflicts?{}", query.join("&")))?;
    let answer: Conflicts = client::read(&body)?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end()))?,
        Output::Text if answer.conflicts.is_empty() && !query.is_empty() => {
            print("No matching conflicts.\n")?;
        }
        Output::Text => print(&text(&answer))?,
    }
    Ok(report.of(!answer.conflicts.is_empty()))
}

/// Prints every conflict when it is new or was repeated, until the reader closes the pipe.
pub(super) fn watch(arguments: &WatchArgs) -> anyhow::Result<()> {
    let target = &arguments.target;
    target.connection.live("ports watch")?;
    let mut newest_shown: Option<Timestamp> = None;
    loop {
        let since = newest_shown.map_or_else(String::new, |shown| format!("?since={shown}"));
        let answer: Conflicts = client::read(&target.text(&format!("/api/v1/conflicts{since}"))?)?;
        let newest = answer.conflicts.iter().map(|one| one.last_seen);
        let newest = newest.fold(newest_shown.unwrap_or(answer.timestamp), Timestamp::max);
        if let Some(shown) = newest_shown {
            let new = answer.conflicts.iter().filter(|one| one.last_seen > shown);
            for one in new {
                let line = match target.output {
                    Output::Json => serde_json::to_string(one).context("writing JSON")?,
                    // The output is a log that is read later: print the time.
                    Output::Text => line(one, &one.last_seen.to_string(), answer.host_netns),
                };
                print(&format!("{line}\n"))?;
            }
        }
        newest_shown = Some(newest);
        thread::sleep(PAUSE);
    }
}

/// One sentence each.
pub(super) fn text(answer: &Conflicts) -> String {
    if answer.conflicts.is_empty() {
        return "No conflicts.\n".to_owned();
    }
    let shown = |one: &Conflict| {
        let when = ago(answer.timestamp.seconds_since(one.last_seen));
        line(one, &format!("{when} ago"), answer.host_netns) + "\n"
    };
    answer.conflicts.iter().map(shown).collect()
}

/// One conflict; its namespace is printed if it is not the host's.
pub fn line(conflict: &Conflict, when: &str, host: Option<u32>) -> String {
    let errno = &conflict.errno;
    let sure = if conflict.inferred { ", inferred" } else { "" };
    let place = if host.is_none_or(|host| host == conflict.netns) {
        String::new()
    } else {
        format!("; netns {}", conflict.netns)
    };
    let title = &conflict.finding.title;
    let fix = conflict.finding.remediation.as_deref();
    let fix = fix.map_or_else(String::new, |fix| format!(". Fix: {fix}"));
    format!("{when}: {title}{fix} [{errno}{sure}{place}]")
}

/// A time like `15m`, in seconds.
fn span(text: &str) -> Result<u64, String> {
    let span = duration::parse(text).ok_or_else(|| format!("write {}", duration::FORM))?;
    Ok(span.as_secs())
}
