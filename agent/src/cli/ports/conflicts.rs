//! `portolan ports conflicts` and `watch`: binds and listens that failed, a sentence each.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::api::ports::{Conflicts, ToldConflict};
use crate::cli::target::Target;
use crate::cli::{Output, print};
use model::moment;
use model::words::ago;

/// Between two questions of `watch`.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct ConflictsArgs {
    /// Only what failed within this time: 90s, 15m, 1h, 2d.
    #[arg(long, value_parser = span)]
    since: Option<u64>,
    /// Only for this port.
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &ConflictsArgs) -> anyhow::Result<()> {
    let ConflictsArgs { since, port, target } = arguments;
    let port = port.map(|port| format!("port={port}"));
    let since = since.map(|since| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("since={}", now.as_secs().saturating_sub(since))
    });
    let query: Vec<String> = port.into_iter().chain(since).collect();
    let body = target.text(&format!("/api/v1/conflicts?{}", query.join("&")))?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => {
            let answer: Conflicts = target.read(&body)?;
            if answer.conflicts.is_empty() && !query.is_empty() {
                return print("No bind or listen has failed that fits.\n");
            }
            print(&text(&answer))
        }
    }
}

/// Tells every conflict when it is new or has happened again, until the reader has gone.
pub(super) fn watch(arguments: &WatchArgs) -> anyhow::Result<()> {
    let target = &arguments.target;
    let mut told: Option<f64> = None;
    loop {
        let since = told.map_or_else(String::new, |told| format!("?since={told}"));
        let answer: Conflicts = target.read(&target.text(&format!("/api/v1/conflicts{since}"))?)?;
        let newest = answer.conflicts.iter().map(|told| told.conflict.last_seconds);
        let newest = newest.fold(told.unwrap_or(answer.taken_seconds), f64::max);
        if let Some(told) = told {
            let new = answer.conflicts.iter().filter(|one| one.conflict.last_seconds > told);
            for one in new {
                let line = match target.output {
                    Output::Json => serde_json::to_string(one).context("writing JSON")?,
                    // Who reads a log of it tomorrow asks when.
                    Output::Table => {
                        let at = moment::rfc3339(one.conflict.last_seconds.max(0.0) as u64);
                        line(one, &at, answer.host_netns)
                    }
                };
                print(&format!("{line}\n"))?;
            }
        }
        told = Some(newest);
        thread::sleep(PAUSE);
    }
}

/// A sentence for each.
pub(super) fn text(answer: &Conflicts) -> String {
    if answer.conflicts.is_empty() {
        return "No bind or listen has failed.\n".to_owned();
    }
    let told = |one: &ToldConflict| {
        let when = ago(answer.taken_seconds - one.conflict.last_seconds);
        line(one, &format!("{when} ago"), answer.host_netns) + "\n"
    };
    answer.conflicts.iter().map(told).collect()
}

/// One conflict; where it was is said if that was not the host.
fn line(one: &ToldConflict, when: &str, host: Option<u32>) -> String {
    let ToldConflict { conflict, sentence, mend } = one;
    let errno = &conflict.errno;
    let sure = if conflict.inferred { ", inferred" } else { "" };
    let place = if host.is_none_or(|host| host == conflict.netns) {
        String::new()
    } else {
        format!(", network namespace {}", conflict.netns)
    };
    format!("{when}: {sentence}; {mend} [{errno}{sure}{place}]")
}

/// A time span like `15m`, in seconds.
fn span(text: &str) -> anyhow::Result<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit).unwrap_or_default();
    let length = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    ensure!(length != 0, "{text} is no time span; write it like 90s, 15m, 1h or 2d");
    let number: u64 = number
        .parse()
        .with_context(|| format!("{text} is no time span; write it like 90s, 15m, 1h or 2d"))?;
    Ok(number.saturating_mul(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_or_refused_with_the_mend() {
        let check = |text, expected: Option<u64>| assert_eq!(span(text).ok(), expected, "{text}");
        check("90s", Some(90));
        check("90", Some(90));
        check("15m", Some(900));
        check("1h", Some(3600));
        check("2d", Some(172_800));
        check("1w", None);
        check("h", None);
        check("", None);
        check("1h30m", None);
    }
}
