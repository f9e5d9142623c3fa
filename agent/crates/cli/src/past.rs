//! What agents recorded: `--prometheus` in place of agents, and `--at` for a moment that is over.

use std::time::Duration;

use api_types::{Edges, Map, Services, Timestamp, WindowChoice};
use clap::Args;
use client::Error;
use notation::duration;
use recorded::prometheus::{self, Recorded};

use super::fleet::{self, Combine, Connections, Host, Reply};
use super::target::{Connection, HEADING, clock};
use super::{Output, Usage};

/// Agents, or what they recorded, and the output format.
#[derive(Debug, Args)]
pub(super) struct Sources {
    #[command(flatten)]
    pub agents: Connections,
    #[command(flatten)]
    past: Past,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A server that has recorded metrics, and the moment to look at.
#[derive(Clone, Debug, Default, Args)]
struct Past {
    /// Use what this server has recorded of agents, in place of agents: Prometheus, Thanos, Mimir (its
    /// URL ends with /prometheus) or VictoriaMetrics; --user and the other flags of a connection apply.
    #[arg(long, value_name = "URL", conflicts_with_all = ["url", "socket", "from"], help_heading = HEADING)]
    prometheus: Option<String>,
    /// With --prometheus: the end of the window, like 2026-11-30T14:05:00Z, "2026-11-30 14:05" (UTC) or
    /// -2h [default: now].
    #[arg(long, value_name = "TIME", requires = "prometheus", allow_hyphen_values = true, value_parser = moment, help_heading = HEADING)]
    at: Option<Moment>,
}

/// A moment, as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Ago(Duration),
    At(Timestamp),
}

/// An answer that can be made of what was recorded.
pub(super) trait OfRecorded: Combine {
    /// The answer; `services`: of these, if any are named and it is about some.
    fn of(recorded: &Recorded, services: &[String]) -> Self;
}

impl OfRecorded for Edges {
    fn of(recorded: &Recorded, _: &[String]) -> Self {
        recorded.edges()
    }
}

impl OfRecorded for Services {
    fn of(recorded: &Recorded, _: &[String]) -> Self {
        recorded.services()
    }
}

impl OfRecorded for Map {
    fn of(recorded: &Recorded, services: &[String]) -> Self {
        recorded.map(services)
    }
}

/// A moment of the command line.
fn moment(text: &str) -> Result<Moment, String> {
    let form = || {
        format!(
            "\"{text}\" is not a time; write 2026-11-30T14:05:00Z, \"2026-11-30 14:05\" (UTC), or how long ago, like -2h"
        )
    };
    if let Some(ago) = text.strip_prefix('-') {
        return duration::parse(ago).map(Moment::Ago).ok_or_else(form);
    }
    if let Ok(time) = text.parse() {
        return Ok(Moment::At(time));
    }
    let (day, time) = text.split_once([' ', 'T']).ok_or_else(form)?;
    let time = if time.matches(':').count() == 1 { format!("{time}:00") } else { time.to_owned() };
    format!("{day}T{time}Z").parse().map(Moment::At).map_err(|_| form())
}

// === impl Moment ===

impl Moment {
    fn time(self, now: Timestamp) -> Result<Timestamp, Usage> {
        let time = match self {
            Self::Ago(ago) => Timestamp::from_seconds(now.seconds() - ago.as_secs_f64()),
            Self::At(time) => time,
        };
        if time > now {
            return Err(Usage(format!(
                "--at {time} is in the future: it is {now} by this host's clock"
            )));
        }
        Ok(time)
    }
}

// === impl Sources ===

impl Sources {
    /// Whether what was recorded is in place of agents.
    pub(super) fn is_past(&self) -> bool {
        self.past.prometheus.is_some()
    }

    /// The answer over the window: what agents say to `path`, or what was recorded.
    pub(super) fn read<T: OfRecorded>(
        &self,
        path: &str,
        window: WindowChoice,
        services: &[String],
    ) -> anyhow::Result<Reply<T>> {
        if !self.is_past() {
            return self.agents.read(path);
        }
        self.read_past(window, services, Duration::ZERO)
    }

    /// What was recorded, so long before the moment that was asked for.
    pub(super) fn read_past<T: OfRecorded>(
        &self,
        window: WindowChoice,
        services: &[String],
        before: Duration,
    ) -> anyhow::Result<Reply<T>> {
        let Past { prometheus, at } = &self.past;
        let Some(url) = prometheus else {
            return Err(Usage(
                "--compare needs --prometheus URL: agents keep five minutes".to_owned(),
            )
            .into());
        };
        let WindowChoice::Last(seconds) = window else {
            let why = "--window start is not recorded: with --prometheus it is 5m or less";
            return Err(Usage(why.to_owned()).into());
        };
        let now = clock();
        let at = at.map_or(Ok(now), |at| at.time(now))?;
        let at = Timestamp::from_seconds(at.seconds() - before.as_secs_f64());
        let recorded = self.recorded(url, at, seconds)?;
        let agents = recorded.agents().iter().cloned();
        let hosts: Vec<Host> =
            agents.map(|one| Host::recorded(one.name, one.version, one.error)).collect();
        let answer = T::of(&recorded, services);
        let json = fleet::json(&answer, &hosts)?;
        let window = recorded.window();
        let floor = |time: Timestamp| Timestamp::from_seconds(time.seconds().floor());
        let footer =
            format!("recorded by {url}: {} to {}\n", floor(window.since), floor(window.until));
        Ok(Reply { answer, json, hosts, footer })
    }

    fn recorded(&self, url: &str, at: Timestamp, seconds: u64) -> anyhow::Result<Recorded> {
        let Some(connection) = self.agents.all().first() else {
            return Err(Usage("no agent is given; name one with --url".to_owned()).into());
        };
        let mut bodies = Vec::new();
        for query in prometheus::queries(at, seconds) {
            bodies.push(ask(connection, url, &query)?);
        }
        let said = |text: String| Error::Foreign { said: text };
        Recorded::read(&bodies, at, seconds).map_err(|error| match error {
            prometheus::Error::NoMetrics { .. } => {
                let now = ask(connection, url, &prometheus::agents_now());
                let now = now.ok().and_then(|body| prometheus::count_of_agents(&body).ok());
                let hint = match now {
                    Some(0) | None => "nor any now: let it scrape the agents (docs/deploy.md)".to_owned(),
                    Some(n) => format!("but of {n} agents now: take a later --at"),
                };
                said(format!("{url}: {error}, {hint}")).into()
            }
            prometheus::Error::NotPrometheus(_) => said(format!(
                "{url} is not the API of Prometheus: {error}; check --prometheus (that of Mimir ends with /prometheus)"
            ))
            .into(),
            prometheus::Error::Refused(_) | prometheus::Error::TooFew { .. } => {
                anyhow::Error::new(said(format!("{url}: {error}")))
            }
        })
    }
}

/// The body of a response of Prometheus.
fn ask(connection: &Connection, url: &str, path: &str) -> Result<String, Error> {
    if !url.contains("://") {
        let why = "write it like http://prometheus:9090".to_owned();
        return Err(Error::Url { url: url.to_owned(), why });
    }
    let said = |text: String| Error::Foreign { said: text };
    // Messages of the client are about agents.
    let client = connection.foreign(url)?;
    let (status, body) = client.get_foreign(path).map_err(|error| match error {
        Error::NoAgent { at } => said(format!(
            "nothing answers at {at}: check --prometheus, and whether Prometheus runs there"
        )),
        Error::Url { .. } | Error::File { .. } | Error::Incomplete(_) => error,
        other => said(other.to_string().replace("--url", "--prometheus")),
    })?;
    // Errors of the API are JSON, whatever their status.
    if !status.is_success() && !body.trim_start().starts_with('{') {
        return Err(said(format!(
            "{url} is not the API of Prometheus: status {} for {}; check --prometheus (that of Mimir ends with /prometheus)",
            status.as_u16(),
            path.split('?').next().unwrap_or(path)
        )));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let check = |text: &str, expected: &str| {
            let now = "2026-11-30T20:00:00Z".parse().expect("a time");
            let time = moment(text).expect(text).time(now).expect(text);
            assert_eq!(time.to_string(), expected, "{text}");
        };
        check("-2h", "2026-11-30T18:00:00Z");
        check("2026-11-30T14:05:00Z", "2026-11-30T14:05:00Z");
        check("2026-11-30T15:05:00+01:00", "2026-11-30T14:05:00Z");
        check("2026-11-30 14:05", "2026-11-30T14:05:00Z");
        check("2026-11-30 14:05:07", "2026-11-30T14:05:07Z");
        check("2026-11-30T14:05", "2026-11-30T14:05:00Z");
        for text in ["", "yesterday", "-", "2h", "14:05", "2026-11-30 25:00", "-5"] {
            let said = moment(text).expect_err(text);
            assert!(said.contains("is not a time; write 2026-11-30T14:05:00Z"), "{said}");
        }
        let now = "2026-11-30T20:00:00Z".parse().expect("a time");
        let later = moment("2026-11-30 20:01").expect("a moment").time(now);
        assert!(later.expect_err("later").0.contains("is in the future"));
    }
}
