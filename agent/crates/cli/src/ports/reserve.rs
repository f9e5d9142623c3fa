//! `portolan ports reserve` and `portolan ports release`.

use std::fmt::Write as _;

use clap::Args;
use http::Method;

use super::netns;
use crate::target::Target;
use crate::{Output, print};
use api_types::{Evidence, Finding, Release, Reservation, Reserve, Reserved};
use notation::{Environment, FullName, Port};

const EXAMPLES: &str = "\
Examples:
  portolan ports reserve 5432 --for postgres
  portolan ports reserve 8125/udp --for shop/statsd --env prod
  portolan ports reserve 3001 --for web --until 2h
  portolan ports reserve 5432 --for postgres --enforce

Any other process that binds the port is reported: in the agent's log, in `portolan ports
reservations` and in portolan_port_reservation_breaches_total. With --enforce, bind() by other
processes fails with EPERM while the agent runs. That stops accidents, not attacks: a workload is
recognized by its name, and a program that calls itself like the service gets the port. Reservations
survive restarts of agent and host.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct ReserveArgs {
    /// The port: 5432, 8125/udp.
    #[arg(value_name = "PORT[/udp]")]
    port: Port,
    /// The service, as `portolan edges` shows it: postgres or shop/postgres.
    #[arg(long = "for", value_name = "SERVICE")]
    service: FullName,
    /// Only on hosts of this environment (--ports.environment of the agent).
    #[arg(long, value_name = "dev|prod")]
    env: Option<Environment>,
    /// End of the reservation: 2h, 7d, 2030-12-01, 2030-12-01T10:00:00Z [default: until released].
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Make bind() by other processes fail with EPERM, against accidents (see below).
    #[arg(long)]
    enforce: bool,
    /// Network namespace: host, a name as `ip netns` lists it, or a path [default: yours].
    #[arg(long, value_name = "NETNS", value_parser = netns::parse)]
    netns: Option<u32>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  portolan ports release 5432\n  portolan ports release 3001 --env dev"
)]
pub(super) struct ReleaseArgs {
    /// The port: 5432, 8125/udp.
    #[arg(value_name = "PORT[/udp]")]
    port: Port,
    /// Environment, if the port is reserved for dev and for prod.
    #[arg(long, value_name = "dev|prod")]
    env: Option<Environment>,
    /// Network namespace: host, a name as `ip netns` lists it, or a path [default: yours].
    #[arg(long, value_name = "NETNS", value_parser = netns::parse)]
    netns: Option<u32>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &ReserveArgs) -> anyhow::Result<()> {
    let ReserveArgs { port, service, env, until, enforce, netns, target } = arguments;
    let request = Reserve {
        port: port.number,
        protocol: super::protocol(port.protocol),
        service: service.to_string(),
        environment: env.map(super::environment),
        until: until.clone(),
        enforce: *enforce,
        netns: *netns,
    };
    show(target, &target.change(Method::POST, "/api/v1/reservations", &request)?, true)
}

pub(super) fn release(arguments: &ReleaseArgs) -> anyhow::Result<()> {
    let ReleaseArgs { port, env, netns, target } = arguments;
    let request = Release {
        port: port.number,
        protocol: super::protocol(port.protocol),
        environment: env.map(super::environment),
        netns: *netns,
    };
    show(target, &target.change(Method::DELETE, "/api/v1/reservations", &request)?, false)
}

fn show(target: &Target, body: &str, holds: bool) -> anyhow::Result<()> {
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => print(&text(&client::read(body)?, holds)),
    }
}

fn text(answer: &Reserved, holds: bool) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    for one in &answer.reservations {
        let _ = writeln!(text, "{}", summary(one, holds));
    }
    for Finding { severity, title, evidence, remediation, .. } in &answer.findings {
        let _ = write!(text, "{}: {title}", severity.as_str());
        let _ = match evidence.get("reason") {
            Some(Evidence::Text(reason)) => writeln!(text, " ({reason})"),
            _ => writeln!(text),
        };
        if let Some(remediation) = remediation {
            let _ = writeln!(text, "  fix: {remediation}");
        }
    }
    text
}

/// The reservation that was made or removed.
pub(super) fn summary(one: &Reservation, holds: bool) -> String {
    let done = if holds { "reserved" } else { "no longer reserved" };
    let mut text = format!("{}/{} is {done} for {}", one.port, one.protocol.as_str(), one.service);
    if let Some(environment) = one.environment {
        let _ = write!(text, " on {} hosts", environment.as_str());
    }
    if let Some(until) = &one.until {
        let _ = write!(text, " until {until}");
    }
    if one.enforce && holds {
        text.push_str(", and enforced");
    }
    if let Some(netns) = one.netns {
        let _ = write!(text, " (network namespace {netns})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{Severity, code};
    use model::reservations;
    use server::convert::ToApi as _;

    #[test]
    fn the_result_and_remaining_problems_are_printed() {
        let one = reservations::Reservation::from_config(
            "40000 shop/db env=prod until=2036-01-01 enforce",
        );
        let one = reservations::Reservation { netns: Some(7), ..one.expect("valid") };
        let finding = Finding {
            remediation: Some("sysctl -w x=1".to_owned()),
            ..Finding::new(
                code::RESERVED_EPHEMERAL,
                Severity::Warning,
                "40000/tcp",
                "it lies".into(),
            )
        };
        let answer = Reserved { reservations: vec![one.to_api()], findings: vec![finding] };
        assert_eq!(
            text(&answer, true),
            "\
40000/tcp is reserved for shop/db on prod hosts until 2036-01-01T00:00:00Z, and enforced (network namespace 7)
warning: it lies
  fix: sysctl -w x=1
"
        );
        let answer = Reserved { findings: Vec::new(), ..answer };
        assert_eq!(
            text(&answer, false),
            "40000/tcp is no longer reserved for shop/db on prod hosts until 2036-01-01T00:00:00Z (network namespace 7)\n"
        );
    }
}
