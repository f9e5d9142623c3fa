//! `portolan ports reservations`: reserved ports, who holds them, and breaches.

use std::fmt::Write as _;

use clap::Args;

use crate::table::{self, Column};
use crate::target::Target;
use crate::{Output, human, print};
use api_types::{ReservationStatus, Reservations};

const EXAMPLES: &str = "\
Examples:
  portolan ports reservations
  portolan ports reservations --output json | jq '.reservations[] | select(.breaches > 0)'

Reservations from the configuration (ORIGIN config) are changed there. One that is not in force has
expired, or is for the other environment.";

/// Breaches shown at most; JSON has more.
const LAST: usize = 5;

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct ReservationsArgs {
    #[command(flatten)]
    target: Target,
}

const COLUMNS: &[Column] = &[
    Column::left("PORT"),
    Column::left("RESERVED FOR"),
    Column::left("HELD BY"),
    Column::left("ENV").rank(2),
    Column::left("UNTIL").rank(3),
    Column::left("ENFORCED").rank(4),
    Column::left("IN FORCE").rank(1),
    Column::left("ORIGIN").rank(5),
    Column::left("NETNS").rank(6),
    Column::right("BREACHES"),
];

pub(super) fn run(arguments: &ReservationsArgs) -> anyhow::Result<()> {
    let ReservationsArgs { target } = arguments;
    let body = target.text("/api/v1/reservations")?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Text => print(&text(&client::read(&body)?, table::room())),
    }
}

fn text(answer: &Reservations, room: Option<usize>) -> String {
    if answer.reservations.is_empty() && answer.breaches.is_empty() {
        return "No port is reserved; see `portolan ports reserve --help`.\n".to_owned();
    }
    let rows: Vec<_> = answer.reservations.iter().map(row).collect();
    let mut text = table::render(COLUMNS, &rows, room);
    let skipped = answer.breaches.len().saturating_sub(LAST);
    if !answer.breaches.is_empty() {
        text.push_str("\nLast breaches:\n");
    }
    for breach in answer.breaches.iter().skip(skipped) {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {}  {}", breach.timestamp, breach.finding.title);
    }
    text
}

fn row(status: &ReservationStatus) -> Vec<String> {
    let one = &status.reservation;
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let dash = || "-".to_owned();
    vec![
        format!("{}/{}", one.port, one.protocol.as_str()),
        one.service.clone(),
        if status.holders.is_empty() { dash() } else { status.holders.join(" ") },
        one.environment.map_or_else(dash, |environment| environment.as_str().to_owned()),
        one.until.map_or_else(dash, |until| until.to_string()),
        yes(one.enforce),
        yes(status.in_force),
        one.origin.as_str().to_owned(),
        one.netns.map_or_else(|| "host".to_owned(), |netns| netns.to_string()),
        human::count(status.breaches),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert;

    #[test]
    fn every_reservation_is_a_row_and_the_last_breaches_follow() {
        assert_eq!(
            text(&convert::reservations(&snapshot()), None),
            "\
PORT      RESERVED FOR  HELD BY   ENV   UNTIL                 ENFORCED  IN FORCE  ORIGIN  NETNS  BREACHES
3001/tcp  prod/shop     -         prod  2036-12-01T00:00:00Z  no        yes       state   host          0
5432/tcp  postgres      postgres  -     -                     yes       yes       config  host          2

Last breaches:
  2023-11-14T22:14:50Z  server.js has 5432/tcp, which is reserved for postgres
"
        );
    }
}
