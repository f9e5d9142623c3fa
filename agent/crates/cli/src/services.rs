//! `portolan services`: services with ports and health, and names registered by hand.

mod checks;
mod export;
mod monitor;
mod register;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::compare::{self, Compare};
use super::fleet::{self, Reply};
use super::outcome::Report;
use super::past::Sources;
use super::table::{self, Column};
use super::window::{self, Over};
use super::{Outcome, Output, human, known, print, watch};
use api_types::{
    Change, HealthReason, HealthState, ServiceStatus, Services, Source, Window, WindowChoice,
};
use clap::{Args, Subcommand};
use notation::FullName;
use notation::duration::ago;

const EXAMPLES: &str = "\
Examples:
  portolan services
  portolan services health postgres
  portolan services --url http://node1:10062 --url http://node2:10062
                                               both hosts: a service of both is one row
  portolan services --prometheus http://prometheus:9090 --at '2026-11-30 14:05'
  portolan services --prometheus http://prometheus:9090 --compare 1h
  portolan services watch
  portolan services discover --window 24h
  portolan services export --format file-sd --port 9100 > targets.json
  portolan services register billing --address 203.0.113.7:443 --address 203.0.113.8:443
  portolan services register partner --address 203.0.113.0/24 --namespace acme
  portolan services register api --address 10.0.0.7:80 --ttl 30s --check http=/healthz
  portolan services monitor 10                 make these checks every ten seconds, and renew what passes
  portolan services unregister acme/partner

Health covers the traffic of this host over the window, the last minute by default. failing: most connects
fail, or most requests are not answered; degraded: some fail or are not answered, more than one of
100 requests takes longer than 500 ms, the server resets connections, connections die, a listener
drops connection requests, or most connects of the service fail on its own side; ok: none of these;
idle: no traffic; -: it serves no port (a client only). What only its clients did wrong, health
checks, long polling and failures while it was stopping do not count.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct ServicesArgs {
    #[command(subcommand)]
    command: Option<ServicesCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    compare: Compare,
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Debug, Subcommand)]
enum ServicesCommand {
    /// List services with ports and health (the default).
    List(ListArgs),
    /// Explain the health of a service, or of all unhealthy ones.
    Health(HealthArgs),
    /// Refresh the list continuously.
    Watch(WatchArgs),
    /// Check registered services from here, renew those that pass, and show the list; again and again.
    Monitor(monitor::MonitorArgs),
    /// List where services can be reached: addresses and ports.
    Discover(export::DiscoverArgs),
    /// Write addresses and ports for Prometheus, Envoy or a hosts file.
    Export(export::ExportArgs),
    /// Register a name for addresses, networks or ports.
    Register(register::RegisterArgs),
    /// Remove a registered name.
    Unregister(register::UnregisterArgs),
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The service, like postgres or shop/postgres [default: all that are failing or degraded].
    service: Option<FullName>,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Debug, Args)]
struct WatchArgs {
    /// Seconds between two refreshes.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    sources: Sources,
}

const COLUMNS: &[Column] = &[
    Column::left("SERVICE"),
    Column::left("KIND").rank(3),
    Column::left("PORTS").rank(1),
    Column::left("HEALTH"),
    Column::right("CONNECTS").rank(4),
    Column::right("FAILED"),
    Column::right("REQUESTS").rank(2),
    Column::right("UNANS").rank(1),
    Column::right("P50").rank(5),
    Column::right("P99"),
    Column::right("ABORTS").rank(5),
    Column::right("RESETS"),
    Column::right("LISTEN DROPS").rank(6),
];

pub(super) fn run(arguments: &ServicesArgs) -> anyhow::Result<Outcome> {
    match &arguments.command {
        None => list(&arguments.list),
        Some(ServicesCommand::List(arguments)) => list(arguments),
        Some(ServicesCommand::Health(arguments)) => health(arguments),
        Some(ServicesCommand::Watch(WatchArgs { every, over, sources })) => {
            sources.agents.live("services watch")?;
            let look = || Ok(shown(sources, *over)?.0);
            watch::every(Duration::from_secs(*every), look).map(|()| Outcome::Done)
        }
        Some(ServicesCommand::Discover(arguments)) => {
            export::discover(arguments).map(|()| Outcome::Done)
        }
        Some(ServicesCommand::Export(arguments)) => {
            export::export(arguments).map(|()| Outcome::Done)
        }
        Some(ServicesCommand::Monitor(arguments)) => monitor::run(arguments),
        Some(ServicesCommand::Register(arguments)) => {
            register::register(arguments).map(|()| Outcome::Done)
        }
        Some(ServicesCommand::Unregister(arguments)) => {
            register::unregister(arguments).map(|()| Outcome::Done)
        }
    }
}

fn list(arguments: &ListArgs) -> anyhow::Result<Outcome> {
    let ListArgs { over, compare, report, sources } = arguments;
    if let Some(before) = compare.compare {
        let now = sources.read_past::<Services>(over.window, &[], Duration::ZERO)?;
        let earlier = sources.read_past::<Services>(over.window, &[], before)?.answer;
        let (now, said) = now.split();
        let found = compare::show(
            "service",
            (&now.services, now.window, now.timestamp),
            (&earlier.services, earlier.window),
            &said,
            sources.output,
        )?;
        return Ok(fleet::outcome(&said.hosts, report.of(found == Outcome::Found)));
    }
    let (text, is_unwell, hosts) = shown(sources, *over)?;
    print(&text)?;
    Ok(fleet::outcome(&hosts, report.of(is_unwell)))
}

/// The list, whether a service in it is failing or degraded, and who was asked if those are several.
fn shown(
    sources: &Sources,
    Over { window }: Over,
) -> anyhow::Result<(String, bool, Vec<fleet::Host>)> {
    let path = format!("/api/v1/services{}", window::query(window, &[]));
    let Reply { answer, json, hosts, footer } = sources.read::<Services>(&path, window, &[])?;
    let shown = match sources.output {
        Output::Json => format!("{}\n", json.trim_end()),
        Output::Text => {
            let text = text(&answer, window, table::room());
            format!("{text}{}{footer}", fleet::remarks(&hosts))
        }
    };
    Ok((shown, answer.services.iter().any(is_unwell), hosts))
}

fn is_unwell(one: &ServiceStatus) -> bool {
    one.health.state < HealthState::Ok
}

fn health(arguments: &HealthArgs) -> anyhow::Result<Outcome> {
    let HealthArgs { service, over: Over { window: choice }, report, sources } = arguments;
    let service = service.as_ref();
    let path = format!("/api/v1/services{}", window::query(*choice, &[]));
    let Reply { answer, hosts, footer, .. } = sources.read::<Services>(&path, *choice, &[])?;
    let Services { timestamp, window, mut services } = answer;
    let wanted = |one: &ServiceStatus| match service {
        Some(FullName { namespace, name }) => {
            **name == *one.service
                && namespace.as_ref().is_none_or(|namespace| **namespace == *one.service_namespace)
        }
        None => is_unwell(one),
    };
    let full = |one: &ServiceStatus| human::full_name(&one.service_namespace, &one.service);
    let names: Vec<String> = services.iter().map(full).collect();
    services.retain(wanted);
    if let (Some(service), true) = (service, services.is_empty()) {
        anyhow::bail!("{}", known::message(&service.to_string(), &names));
    }
    let found = services.iter().any(is_unwell);
    match sources.output {
        Output::Json => {
            let answer = Services { timestamp, window, services };
            print(&format!("{}\n", fleet::json(&answer, &hosts)?))?;
        }
        Output::Text if services.is_empty() => print(&format!(
            "No service is failing or degraded ({}).\n",
            window::covered(&window, *choice)
        ))?,
        Output::Text => {
            print(&services.iter().map(|one| summary(one, &window)).collect::<String>())?;
        }
    }
    if sources.output == Output::Text {
        print(&(fleet::remarks(&hosts) + &footer))?;
    }
    Ok(fleet::outcome(&hosts, report.of(found)))
}

fn text(answer: &Services, choice: WindowChoice, room: Option<usize>) -> String {
    if answer.services.is_empty() {
        return "No services yet.\n".to_owned();
    }
    let rows: Vec<_> = answer.services.iter().map(row).collect();
    let covered = window::covered(&answer.window, choice);
    let table = table::render(COLUMNS, &rows, room);
    format!("{table}{covered}; --window {}\n", window::CHOICES)
}

fn row(one: &ServiceStatus) -> Vec<String> {
    let health = &one.health;
    vec![
        shown_name(one),
        kind(one).to_owned(),
        places(one),
        state(one).to_owned(),
        human::count(health.connects_ok),
        human::count(health.connects_failed),
        human::count(health.requests),
        human::count(health.unanswered),
        human::quantile(health.p50_seconds),
        human::quantile(health.p99_seconds),
        human::count(health.aborts),
        human::count(health.resets),
        human::count(health.listen_overflows),
    ]
}

/// Its name. Listeners of processes that cannot be identified are one row, called `none`.
pub fn shown_name(one: &ServiceStatus) -> String {
    if one.service == "none" && one.source == Source::Unknown {
        return "(unidentified)".to_owned();
    }
    human::full_name(&one.service_namespace, &one.service)
}

/// Its kind; a service without a name is an address.
pub fn kind(one: &ServiceStatus) -> &'static str {
    if one.service.parse::<IpAddr>().is_ok() { "address" } else { one.kind.as_str() }
}

/// Only servers have a health.
pub fn state(one: &ServiceStatus) -> &'static str {
    let serves = !(one.listens.is_empty() && one.serves.is_empty() && one.registered.is_empty());
    if one.health.state == HealthState::Idle && !serves { "-" } else { one.health.state.as_str() }
}

/// Its listening ports; of a service elsewhere, its addresses or registered endpoints.
pub fn places(one: &ServiceStatus) -> String {
    /// More would fill the line.
    const SHOWN: usize = 4;
    let all: Vec<String> = if !one.listens.is_empty() {
        one.listens.clone()
    } else if !one.serves.is_empty() {
        one.serves.clone()
    } else {
        let expired = one.registration.iter().flat_map(|one| &one.addresses);
        let expired = expired.filter(|one| one.is_expired);
        let expired = expired.map(|one| format!("{} (expired)", one.address));
        one.registered.iter().cloned().chain(expired).collect()
    };
    let shown: Vec<&str> =
        all.iter().take(SHOWN).map(|port| port.trim_end_matches("/tcp")).collect();
    match all.len() {
        0 => "-".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(" "), n - SHOWN),
        _ => shown.join(" "),
    }
}

fn summary(one: &ServiceStatus, window: &Window) -> String {
    let health = &one.health;
    let mut text = format!(
        "{} is {}",
        human::readable(&human::full_name(&one.service_namespace, &one.service)),
        health.state.as_str()
    );
    // Writing into a String cannot fail.
    let _ = write!(text, " over the last {}", human::span(window.seconds));
    if let Some(ratio) = health.success_ratio {
        let attempts = health.connects_ok + health.connects_failed;
        let _ = write!(
            text,
            "; {:.1} % of {} succeeded",
            ratio * 100.0,
            human::counted(attempts, "connect")
        );
    }
    if let (Some(p50), Some(p99)) = (health.p50_seconds, health.p99_seconds) {
        let _ = write!(
            text,
            "; {}, p50 {}, p99 {}",
            human::counted(health.requests, "request"),
            human::quantile(Some(p50)),
            human::quantile(Some(p99))
        );
    }
    if health.unanswered > 0 {
        let open = human::counted(health.unanswered, "request");
        let _ = write!(text, "; {open} without an answer");
    }
    if health.errors > 0 {
        let responses = human::counted(health.responses, "response");
        let _ = write!(text, "; {} of {responses} are errors", human::count(health.errors));
    }
    if health.resets > 0 {
        let _ = write!(text, "; {}", human::counted(health.resets, "reset"));
    }
    if health.aborts > 0 {
        let dead = human::counted(health.aborts, "connection");
        let _ = write!(text, "; {dead} died without an answer");
    }
    if health.listen_overflows > 0 {
        let _ =
            write!(text, "; {} connection requests dropped", human::count(health.listen_overflows));
    }
    if let Some(queue) = health.accept_queue
        && health.reasons.contains(&HealthReason::AcceptQueueFull)
    {
        let (length, limit) = (queue.length, queue.limit);
        let _ = write!(text, "; {length} connections in an accept queue for {limit}");
    }
    if health.reasons.contains(&HealthReason::OwnConnectsFail) {
        let own = human::counted(health.as_client.connects_failed, "connect");
        let _ = write!(text, "; {own} of its own failed on its own side");
    }
    if health.stopping > 0 {
        let stopping = human::counted(health.stopping, "failure");
        let _ = write!(text, "; {stopping} while it was stopping");
    }
    let changed = |change: &Change| {
        let ago = ago(window.until.seconds_since(change.time).max(0.0));
        format!("{} {ago} ago", change.text)
    };
    let changes: Vec<String> = one.changes_before.iter().map(changed).collect();
    if !changes.is_empty() {
        let _ = write!(text, "; before: {}", changes.join(", "));
    }
    text.push_str(".\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert;

    fn answer() -> Services {
        convert::services(&snapshot(), WindowChoice::Last(60), |_| true)
    }

    #[test]
    fn a_pipe_gets_every_column() {
        let text = text(&answer(), WindowChoice::Last(60), None);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("SERVICE"), "{text}");
        let line = |name: &str| {
            let found = lines.iter().find(|line| line.starts_with(name));
            let words = found.expect(name).split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("billing")[..4], ["billing", "declared", "203.0.113.7:443", "idle"]);
        assert_eq!(line("postgres")[..4], ["postgres", "process", "5432", "degraded"]);
        assert_eq!(line("prod/shop")[..4], ["prod/shop", "container", "8080", "ok"]);
    }

    #[test]
    fn a_summary_explains_what_is_unhealthy() {
        let answer = answer();
        let postgres = answer.services.iter().find(|one| one.service == "postgres");
        let said = summary(postgres.expect("there"), &answer.window);
        assert!(said.contains("76.9 % of 13 connects succeeded"), "{said}");
        assert!(said.contains("; 1 reset;"), "{said}");
        assert!(said.contains("; 2 connections died without an answer"), "{said}");
        assert!(said.ends_with("; before: restarted 40 seconds ago.\n"), "{said}");
    }
}
