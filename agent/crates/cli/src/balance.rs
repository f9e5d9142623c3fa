//! `portolan balance`: how connections and requests spread over the backends of a service.

use std::fmt::Write as _;

use clap::Args;

use super::target::Target;
use super::{Output, human, known, print, window};
use api_types::{Backend, Balance, BalanceGroup, BalanceVerdict, Distribution};

const EXAMPLES: &str = "\
Examples:
  portolan balance
  portolan balance api --window 1m
  portolan balance --output json | jq '.groups[] | select(.requests.verdict == \"unbalanced\")'

The share of a backend is its part of what the client sent to all backends of that server and port.
Load is balanced if every share is within 5 percentage points of the expected one, which is equal
for all or set by balance.weights. With too few samples there is no verdict.";

/// Cells of a bar.
const WIDTH: usize = 20;

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BalanceArgs {
    #[command(flatten)]
    target: Target,
    /// Services to show [default: all with more than one backend].
    services: Vec<String>,
    /// Time window up to now, at most 5m.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = window::parse)]
    window: u64,
}

pub(super) fn run(arguments: &BalanceArgs) -> anyhow::Result<()> {
    let BalanceArgs { target, services, window } = arguments;
    let query = window::query(Some(*window), services);
    let body = target.text(&format!("/api/v1/balance{query}"))?;
    let answer: Balance = client::read(&body)?;
    let server = |group: &BalanceGroup| human::full_name(&group.server_namespace, &group.server);
    known::check(target, services, &answer.groups.iter().map(server).collect::<Vec<_>>())?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => print(&text(&answer, !services.is_empty())),
    }
}

fn text(answer: &Balance, with_single: bool) -> String {
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
    let _ = writeln!(text, "\nover the last {}", human::span(answer.window.seconds));
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
    type Part = (&'static str, Distribution, fn(&Backend) -> (u64, Option<f64>));
    let parts: [Part; 2] = [
        ("connections", group.connections, |share| (share.connections, share.connections_share)),
        ("requests", group.requests, |share| (share.requests, share.requests_share)),
    ];
    for (what, spread, of) in parts {
        let _ = writeln!(text, "  {what}: {}", verdict(&spread));
        if spread.total == 0 {
            continue;
        }
        for share in &group.backends {
            let (count, part) = of(share);
            let part = part.unwrap_or_default();
            let _ = writeln!(
                text,
                "    {:longest$}  {}  {:>5}  {:>6}  expected {}",
                label(share),
                bar(part),
                human::percent(part),
                human::count(count),
                human::percent(share.expected_share),
            );
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
        let answer = convert::balance(&snapshot(), 300, &[]);
        assert_eq!(
            text(&answer, false),
            "\
prod/shop → postgres:5432
  connections: too few samples (12 of at least 400)
    10.0.0.2:5432  ███████████████·····    75%       9  expected 50%
    10.0.0.3:5432  █████···············    25%       3  expected 50%
  requests: UNBALANCED, off by 25.0 points
    10.0.0.2:5432  ███████████████·····    75%     600  expected 50%
    10.0.0.3:5432  █████···············    25%     200  expected 50%

over the last 100 s
"
        );
    }

    #[test]
    fn without_backends_the_text_says_so() {
        let answer = convert::balance(&snapshot(), 300, &["nobody".to_owned()]);
        assert_eq!(text(&answer, true), "No connections to these services yet.\n");
    }
}
