//! `portolan balance` without a subcommand: how connections and requests spread over the backends of
//! a service.

use std::fmt::Write as _;

use clap::Args;

use crate::outcome::Report;
use crate::target::Target;
use crate::{Outcome, Output, human, known, print, window};
use api_types::{Backend, Balance, BalanceGroup, BalanceVerdict, Distribution, WindowChoice};

/// Cells of a bar.
const WIDTH: usize = 20;

#[derive(Debug, Args)]
pub(super) struct SpreadArgs {
    #[command(flatten)]
    pub target: Target,
    /// Services to show [default: all with more than one backend].
    pub services: Vec<String>,
    /// Time that the numbers cover: 1m, 5m (at most), or start, since the agent started. Chance
    /// needs many samples to be distinguished from a fault, so it is 5m by default.
    #[arg(long, value_name = "WINDOW", default_value = "5m", value_parser = window::parse)]
    pub window: WindowChoice,
    #[command(flatten)]
    pub report: Report,
}

pub(super) fn run(arguments: &SpreadArgs) -> anyhow::Result<Outcome> {
    let SpreadArgs { target, services, window, report } = arguments;
    let (body, answer) = ask(arguments)?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end()))?,
        Output::Text => print(&text(&answer, *window, !services.is_empty()))?,
    }
    Ok(report.of(answer.groups.iter().any(is_unbalanced)))
}

/// The agent's answer, as JSON and read; the services must exist.
pub(super) fn ask(arguments: &SpreadArgs) -> anyhow::Result<(String, Balance)> {
    let SpreadArgs { target, services, window, .. } = arguments;
    let query = window::query(*window, services);
    let body = target.text(&format!("/api/v1/balance{query}"))?;
    let answer: Balance = client::read(&body)?;
    let server = |group: &BalanceGroup| human::full_name(&group.server_namespace, &group.server);
    known::check(
        &target.connection,
        services,
        &answer.groups.iter().map(server).collect::<Vec<_>>(),
    )?;
    Ok((body, answer))
}

/// Whether connections or requests are not spread as expected.
pub(super) fn is_unbalanced(group: &BalanceGroup) -> bool {
    [group.connections, group.requests]
        .iter()
        .any(|spread| spread.verdict == BalanceVerdict::Unbalanced)
}

/// Groups with bars.
pub(super) fn text(answer: &Balance, choice: WindowChoice, with_single: bool) -> String {
    let mut text = String::new();
    let is_shown = |group: &&BalanceGroup| with_single || group.backends.len() > 1;
    for group in answer.groups.iter().filter(is_shown) {
        if !text.is_empty() {
            text.push('\n');
        }
        push_group(&mut text, group);
    }
    if text.is_empty() {
        return if with_single {
            "No connections to these services yet.\n".to_owned()
        } else {
            "No service has more than one backend.\n".to_owned()
        };
    }
    // Writing into a String cannot fail.
    let _ = writeln!(text, "\n{}", window::covered(&answer.window, choice));
    text
}

fn push_group(text: &mut String, group: &BalanceGroup) {
    let BalanceGroup { client, client_namespace, server, server_namespace, port, .. } = group;
    let _ = writeln!(
        text,
        "{} → {}",
        human::readable(&human::full_name(client_namespace, client)),
        human::readable(&human::endpoint(server_namespace, server, *port))
    );
    let label = |share: &Backend| match &share.instance {
        Some(instance) => format!("{} {}", share.backend, human::readable(instance)),
        None => share.backend.clone(),
    };
    let longest = group.backends.iter().map(|share| label(share).chars().count()).max();
    let longest = longest.unwrap_or_default();
    type Of = fn(&Backend) -> (u64, Option<f64>);
    type Bad = (&'static str, fn(&Backend) -> u64);
    let connections: Of = |share| (share.connections, share.connections_share);
    let requests: Of = |share| (share.requests, share.requests_share);
    let parts: [(&str, Distribution, Of, Bad); 2] = [
        ("connections", group.connections, connections, ("failed", |share| share.failed)),
        ("requests", group.requests, requests, ("unanswered", |share| share.unanswered)),
    ];
    for (what, spread, of, (worse, bad)) in parts {
        let _ = writeln!(text, "  {what}: {}", verdict(&spread));
        if spread.total == 0 && !group.backends.iter().any(|share| bad(share) > 0) {
            continue;
        }
        for share in &group.backends {
            let (count, part) = of(share);
            let part = part.unwrap_or_default();
            let _ = write!(
                text,
                "    {:longest$}  {}  {:>5}  {:>6}  expected {}",
                label(share),
                bar(part),
                human::percent(part),
                human::count(count),
                human::percent(share.expected_share),
            );
            match bad(share) {
                0 => text.push('\n'),
                n => {
                    let _ = writeln!(text, "  {} {worse}", human::count(n));
                }
            }
        }
    }
}

fn verdict(spread: &Distribution) -> String {
    let deviation = spread.deviation.unwrap_or_default() * 100.0;
    match spread.verdict {
        BalanceVerdict::Balanced => format!("balanced, within {deviation:.1} points"),
        BalanceVerdict::Unbalanced => format!("UNBALANCED, off by {deviation:.1} points"),
        BalanceVerdict::TooFew => {
            format!("too few samples ({} of at least {})", spread.total, spread.minimum)
        }
    }
}

fn bar(part: f64) -> String {
    let full = ((part * WIDTH as f64).round() as usize).min(WIDTH);
    format!("{}{}", "█".repeat(full), "·".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert;

    #[test]
    fn shares_are_bars_beside_what_is_expected() {
        let answer = convert::balance(&snapshot(), Some(300), &[]);
        assert_eq!(
            text(&answer, WindowChoice::Last(300), false),
            "\
prod/shop → postgres:5432
  connections: too few samples (12 of at least 400)
    10.0.0.2:5432  ███████████████·····    75%       9  expected 50%
    10.0.0.3:5432  █████···············    25%       3  expected 50%
  requests: UNBALANCED, off by 25.0 points
    10.0.0.2:5432  ███████████████·····    75%     600  expected 50%
    10.0.0.3:5432  █████···············    25%     200  expected 50%

last 100 s
"
        );
    }

    #[test]
    fn without_backends_the_text_says_so() {
        let answer = convert::balance(&snapshot(), Some(300), &["nobody".to_owned()]);
        assert_eq!(
            text(&answer, WindowChoice::Last(300), true),
            "No connections to these services yet.\n"
        );
    }
}
