//! `portolan services monitor`: the list of services, and the checks of those that are registered.
//!
//! What passes its check is renewed at the agent, round by round. An address that does not pass
//! expires after its TTL and is out of force until it passes again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use api_types::{Renew, Renewal, Renewed, Services, Timestamp, WindowChoice};
use clap::Args;
use http::Method;
use notation::duration;
use serde::Serialize;

use super::checks::{self, Checked};
use crate::table::{self, Column};
use crate::target::Target;
use crate::window::{self, Over};
use crate::{Outcome, Output, human, print, watch};

const ABOUT: &str = "\
Checks are made by this command: with its caller's rights, in its caller's network namespace, and only as
long as it runs. The agent makes none. A check passes if a connection is accepted (tcp), or if GET is
answered with a status from 200 to 399 (http). An endpoint that passes is renewed for its TTL. One that
does not expires after its TTL: it is removed from `services discover`, exports and service discovery. It
comes back when it passes again within an hour, or when it is registered again.

Run it as a service (Restart=always) with --every of a third of the shortest TTL. Renewing needs the
agent's Unix socket; --no-renew only checks.";

#[derive(Debug, Args)]
#[command(after_long_help = ABOUT)]
pub(super) struct MonitorArgs {
    /// Seconds between two rounds [default: 10].
    #[arg(value_name = "SECONDS", conflicts_with = "every", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Seconds between two rounds [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: Option<u64>,
    /// A check fails if it takes longer: 100ms to 30s.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = timeout)]
    timeout: Duration,
    /// Renew nothing; only check.
    #[arg(long)]
    no_renew: bool,
    /// End after one round.
    #[arg(long)]
    once: bool,
    /// Exit with 1 if a check fails, an address has expired, or a service is failing or degraded.
    #[arg(long, requires = "once")]
    exit_code: bool,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    target: Target,
}

/// Between two rounds, seconds.
const EVERY: u64 = 10;

const COLUMNS: &[Column] = &[
    Column::left("SERVICE"),
    Column::left("ADDRESS"),
    Column::left("CHECK").rank(2),
    Column::left("RESULT"),
    Column::right("TIME").rank(3),
    Column::right("TTL").rank(3),
    Column::left("EXPIRES").rank(1),
];

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    timestamp: Timestamp,
    /// Registered addresses with a TTL or a check.
    checks: Vec<Checked>,
    /// Addresses of them that were not checked, because there are too many.
    not_checked: usize,
    /// The list, as `services list` shows it.
    services: Services,
}

pub(super) fn run(arguments: &MonitorArgs) -> anyhow::Result<Outcome> {
    arguments.target.connection.live("services monitor")?;
    let every = arguments.seconds.or(arguments.every).unwrap_or(EVERY);
    if arguments.once {
        let (text, is_unwell) = look(arguments, None)?;
        print(&text)?;
        return Ok(if arguments.exit_code && is_unwell { Outcome::Found } else { Outcome::Done });
    }
    let look = || Ok(look(arguments, Some(every))?.0);
    watch::every(Duration::from_secs(every), look).map(|()| Outcome::Done)
}

/// What is shown of one round, and whether there is a problem in it. The next one comes after `every`
/// seconds.
fn look(arguments: &MonitorArgs, every: Option<u64>) -> anyhow::Result<(String, bool)> {
    let MonitorArgs { timeout, no_renew, over: Over { window }, target, .. } = arguments;
    let path = format!("/api/v1/services{}", window::query(*window, &[]));
    let services: Services = client::read(&target.text(&path)?)?;
    let mut checks = checks::registered(&services);
    let most = checks.len().min(checks::MOST);
    let (made, left_out) = checks.split_at_mut(most);
    let not_checked = left_out.iter().filter(|one| one.check.is_some()).count();
    for some in made.chunks_mut(checks::AT_ONCE) {
        checks::make(some, *timeout);
        if !no_renew {
            renew(some, target)?;
        }
    }
    let round = Round { timestamp: services.timestamp, checks, not_checked, services };
    let shown = match target.output {
        Output::Json => format!("{}\n", serde_json::to_string(&round)?),
        Output::Text => round.text(*window, every),
    };
    Ok((shown, round.is_unwell()))
}

/// Renews what has passed.
fn renew(some: &mut [Checked], target: &Target) -> anyhow::Result<()> {
    let addresses: Vec<Renewal> = some.iter().filter_map(Checked::renewal).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let body = target
        .change(Method::POST, "/api/v1/services/renew", &Renew { addresses })
        .context("renewing what has passed (--no-renew only checks)")?;
    let Renewed { renewed, gone: _ } = client::read(&body)?;
    let renewed: BTreeSet<(&str, &str)> =
        renewed.iter().map(|one| (&*one.service, &*one.address)).collect();
    for one in some {
        one.is_renewed = renewed.contains(&(&*one.service, &*one.address));
    }
    Ok(())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(30);
    let timeout = duration::parse(text).filter(|timeout| bounds.contains(timeout));
    timeout.ok_or_else(|| "write a duration from 100ms to 30s".to_owned())
}

// === impl Round ===

impl Round {
    fn is_unwell(&self) -> bool {
        self.services.services.iter().any(super::is_unwell)
            || self.checks.iter().any(|one| !one.is_well())
    }

    fn text(&self, window: WindowChoice, every: Option<u64>) -> String {
        let Self { timestamp, checks, not_checked, services } = self;
        let room = table::room();
        let mut text = String::new();
        // Writing into a String cannot fail.
        if checks.is_empty() {
            text.push_str(
                "No registered service has a check or a TTL: portolan services register NAME --address IP:PORT --ttl 30s --check tcp\n",
            );
        } else {
            let rows: Vec<_> = checks.iter().map(|one| row(one, *timestamp)).collect();
            let passed = checks.iter().filter(|one| one.passed == Some(true)).count();
            let tried = checks.iter().filter(|one| one.passed.is_some()).count();
            let renewed = checks.iter().filter(|one| one.is_renewed).count();
            text.push_str(&table::render(COLUMNS, &rows, room));
            let _ = writeln!(text, "{passed} of {tried} checks passed, {renewed} renewed");
        }
        if *not_checked > 0 {
            let most = checks::MOST;
            let _ = writeln!(
                text,
                "{not_checked} more were not checked: a round has {most} checks at most"
            );
        }
        for (service, ttl) in too_slow(checks, every) {
            let _ = writeln!(
                text,
                "{service} expires between two rounds: its TTL is {ttl}; check more often (--every), or register it with a longer one"
            );
        }
        text.push('\n');
        text.push_str(&super::text(services, window, room));
        text
    }
}

/// Services that are renewed too seldom, with their TTL.
fn too_slow(checks: &[Checked], every: Option<u64>) -> BTreeSet<(&str, &str)> {
    let Some(every) = every else { return BTreeSet::new() };
    let is_short = |ttl: &str| duration::parse(ttl).is_some_and(|ttl| ttl.as_secs() <= every);
    let short = checks
        .iter()
        .filter(|one| one.check.is_some())
        .filter_map(|one| Some((&*one.service, one.ttl.as_deref().filter(|ttl| is_short(ttl))?)));
    short.collect()
}

fn row(one: &Checked, now: Timestamp) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let expires = match one.expires {
        _ if one.is_renewed && one.is_expired => "renewed (had expired)".to_owned(),
        _ if one.is_renewed => "renewed".to_owned(),
        _ if one.is_expired => "expired".to_owned(),
        Some(at) => format!("in {}", human::span(at.seconds_since(now).max(0.0))),
        None => "never".to_owned(),
    };
    vec![
        one.service.clone(),
        one.address.clone(),
        or_dash(&one.check),
        or_dash(&one.result),
        one.seconds.map_or_else(|| "-".to_owned(), human::duration),
        or_dash(&one.ttl),
        expires,
    ]
}

#[cfg(test)]
mod tests {
    use api_types::{RegisteredAddress, Registration};
    use model::fixture::snapshot;
    use server::convert;

    use super::*;

    /// The fixture's services, and a registration of these addresses: seconds until they expire.
    fn round(addresses: &[(&str, Option<f64>)], ttl: Option<&str>, check: Option<&str>) -> Round {
        let mut services = convert::services(&snapshot(), WindowChoice::Last(60), |_| true);
        let now = services.timestamp;
        let billing = services.services.iter_mut().find(|one| one.service == "billing");
        let addresses = addresses.iter().map(|(address, left)| RegisteredAddress {
            address: (*address).to_owned(),
            expires: left.map(|left| Timestamp::from_seconds(now.seconds() + left)),
            is_expired: left.is_some_and(|left| left <= 0.0),
        });
        billing.expect("the fixture has it").registration = Some(Registration {
            ttl: ttl.map(str::to_owned),
            check: check.map(str::to_owned),
            addresses: addresses.collect(),
        });
        let checks = checks::registered(&services);
        Round { timestamp: now, checks, not_checked: 0, services }
    }

    fn lines(round: &Round, every: Option<u64>) -> Vec<Vec<String>> {
        let text = round.text(WindowChoice::Last(60), every);
        let columns = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        text.lines().map(columns).collect()
    }

    #[test]
    fn each_address_has_its_result_and_when_it_expires() {
        let places = [
            ("203.0.113.7:443", Some(12.0)),
            ("203.0.113.8:443", Some(-3.0)),
            ("203.0.113.9:443", Some(2.0)),
        ];
        let mut round = round(&places, Some("30s"), Some("tcp"));
        let results =
            [(true, "ok", Some(0.0012)), (false, "refused", None), (true, "ok", Some(0.3))];
        for (one, (passed, result, seconds)) in round.checks.iter_mut().zip(results) {
            one.passed = Some(passed);
            one.result = Some(result.to_owned());
            one.seconds = seconds;
        }
        round.checks[2].is_renewed = true;
        let lines = lines(&round, None);
        assert_eq!(
            lines[1],
            ["billing", "203.0.113.7:443", "tcp", "ok", "1.2 ms", "30s", "in 12 s"]
        );
        assert_eq!(
            lines[2],
            ["billing", "203.0.113.8:443", "tcp", "refused", "-", "30s", "expired"]
        );
        assert_eq!(
            lines[3],
            ["billing", "203.0.113.9:443", "tcp", "ok", "300 ms", "30s", "renewed"]
        );
        assert_eq!(lines[4], ["2 of 3 checks passed, 1 renewed"]);
        assert!(lines.iter().any(|line| line.first().is_some_and(|name| name == "postgres")));
        assert!(round.is_unwell());
    }

    #[test]
    fn what_is_renewed_too_seldom_is_named() {
        let warned = |every: Option<u64>, ttl: &str| {
            let round = round(&[("203.0.113.7:443", Some(9.0))], Some(ttl), Some("tcp"));
            round.text(WindowChoice::Last(60), every).contains("billing expires between two rounds")
        };
        assert!(warned(Some(10), "10s"));
        assert!(!warned(Some(10), "15s"));
        assert!(!warned(None, "10s"), "there is no next round");
    }

    #[test]
    fn what_is_not_checked_is_well_until_it_expires() {
        let is_well = |left: f64| {
            round(&[("203.0.113.7", Some(left))], Some("30s"), None)
                .checks
                .iter()
                .all(Checked::is_well)
        };
        assert!(is_well(1.0) && !is_well(0.0));
        let timeouts = ["99ms", "31s", "2", ""].map(timeout);
        assert!(timeouts.iter().all(Result::is_err), "{timeouts:?}");
        assert_eq!(timeout("2s"), Ok(Duration::from_secs(2)));
    }
}
