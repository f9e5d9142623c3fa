//! `portolan events`: what went wrong and what changed, a line each.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::outcome::Report;
use super::target::Target;
use super::{Outcome, Output, human, print, window};
use api_types::{Change, Event, EventKind, Events, Service, Severity, Timestamp};
use notation::duration::{self, ago};

/// Between two requests of `--follow`.
const PAUSE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  portolan events                                  what happened, oldest first
  portolan events --follow                         and what happens, until Ctrl-C
  portolan events --since 10m --service shop/cart  of one service, at whichever end
  portolan events --kind connect,reset --server db
  portolan events --kind service,backend,edge      only what changed
  portolan events --cause connect_refused -o json | jq -r '.events[] | [.last_seen, .text] | @tsv'

Kinds: connect (a connect failed), reset, abort (a connection died), unanswered (a request without
a response), response (an error of the server), dns (a lookup without an answer), listen_drop (a full accept queue), bind (a failed bind), violation (of the segments),
agent (a problem of the agent); and changes: service (started, stopped, restarted, another command
line), backend (came or went), edge (seen first or last).

✗ fails, ! may fail, · is a change or a server that stops. What repeats within a minute is one line
with a count; --follow prints it again every ten seconds while it goes on. `before:` names what
changed at the same services in the ten minutes before. The agent keeps the last 10000 events; its
setting events.log writes them to a file. Times of an event are those of its collection, a second
late at most by default.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EventsArgs {
    /// Print further events as they happen, until the reader closes the pipe.
    #[arg(short, long)]
    follow: bool,
    /// Only the last 90s, 15m, 1h, 2d.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    since: Option<u64>,
    /// Only events of this service, at whichever end: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only events with this client.
    #[arg(long, value_name = "SERVICE")]
    client: Option<String>,
    /// Only events with this server.
    #[arg(long, value_name = "SERVICE")]
    server: Option<String>,
    /// Only events with this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only these kinds.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)))]
    kind: Vec<String>,
    /// Only these causes, as WHY in `portolan edges -o json` names them.
    #[arg(long, value_name = "CAUSE", value_delimiter = ',')]
    cause: Vec<String>,
    /// Only the last so many; more may follow with --follow.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: Option<u16>,
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &EventsArgs) -> anyhow::Result<Outcome> {
    let EventsArgs { follow, report, target, .. } = arguments;
    if *follow {
        target.connection.live("--follow")?;
    }
    let query = query(arguments, target.connection.now()?);
    let path = format!("/api/v1/events?{}", query.join("&"));
    let body = target.text(&path)?;
    let answer: Events = client::read(&body)?;
    if *follow {
        show(&answer, target.output)?;
        return follow_from(arguments, answer.cursor).map(|()| Outcome::Done);
    }
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end()))?,
        Output::Text => print(&text(&answer))?,
    }
    Ok(report.of(answer.events.iter().any(|event| event.severity > Severity::Info)))
}

/// Prints events after a cursor, again and again.
fn follow_from(arguments: &EventsArgs, mut cursor: u64) -> anyhow::Result<()> {
    let EventsArgs { target, .. } = arguments;
    let filter: Vec<String> = filter(arguments);
    loop {
        let path = format!("/api/v1/events?after={cursor}&{}", filter.join("&"));
        let answer: Events = client::read(&target.text(path.trim_end_matches('&'))?)?;
        if answer.overwritten {
            print(&overwritten(target.output))?;
        }
        show(&answer, target.output)?;
        cursor = answer.cursor;
        if !answer.more {
            thread::sleep(PAUSE);
        }
    }
}

/// Prints events as lines of a log.
fn show(answer: &Events, output: Output) -> anyhow::Result<()> {
    for event in &answer.events {
        let line = match output {
            Output::Json => serde_json::to_string(event).context("writing JSON")?,
            // The output is read later, too: print the time.
            Output::Text => line(event, &event.last_seen.to_string()),
        };
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

/// A line in place of events that are gone.
fn overwritten(output: Output) -> String {
    const WHAT: &str = "events were overwritten before they were read";
    match output {
        Output::Json => format!("{}\n", serde_json::json!({ "error": WHAT })),
        Output::Text => format!("… {WHAT}\n"),
    }
}

/// The query of the first request, made at `now`.
fn query(arguments: &EventsArgs, now: Timestamp) -> Vec<String> {
    let EventsArgs { since, limit, .. } = arguments;
    let since = since.map(|since| {
        let since = (now.seconds().floor() - since as f64).max(0.0);
        format!("since={}", Timestamp::from_seconds(since))
    });
    let limit = limit.map(|limit| format!("limit={limit}"));
    filter(arguments).into_iter().chain(since).chain(limit).collect()
}

/// What every request asks for.
fn filter(arguments: &EventsArgs) -> Vec<String> {
    let EventsArgs { service, client, server, port, kind, cause, .. } = arguments;
    let names = [("service", service), ("client", client), ("server", server)];
    let names = names.into_iter().filter_map(|(key, name)| Some((key, name.clone()?)));
    let port = port.map(|port| ("port", port.to_string()));
    let words = [("kind", kind.join(",")), ("cause", cause.join(","))];
    let words = words.into_iter().filter(|(_, words)| !words.is_empty());
    let all = names.chain(port).chain(words);
    all.map(|(key, value)| format!("{key}={}", window::encoded(&[value]))).collect()
}

fn text(answer: &Events) -> String {
    if answer.events.is_empty() {
        return "No events.\n".to_owned();
    }
    let shown = |event: &Event| {
        let when = ago(answer.timestamp.seconds_since(event.last_seen).max(0.0));
        line(event, &format!("{when} ago")) + "\n"
    };
    answer.events.iter().map(shown).collect()
}

/// One event as a line that begins with `when`.
pub fn line(event: &Event, when: &str) -> String {
    let Event { count, severity, kind, text, client, server, port, changes_before, .. } = event;
    let mark = match severity {
        Severity::Error => '✗',
        Severity::Warning => '!',
        Severity::Info => '·',
    };
    let name = |service: &Service| readable(&service.namespace, &service.name);
    // The text of a failed bind names both processes.
    let subject = match (client, server) {
        _ if *kind == EventKind::Bind => String::new(),
        (Some(client), Some(server)) => format!("{} → {}", name(client), name(server)),
        (None, Some(server)) => name(server),
        // Those of one client beyond the first hundred.
        (Some(client), None) => format!("{} → …", name(client)),
        (None, None) if *kind == EventKind::Agent => String::new(),
        (None, None) => "…".to_owned(),
    };
    let port = port.filter(|port| *port != 0 && !subject.is_empty());
    let subject = match (port, server) {
        (Some(port), Some(server)) => {
            let server = human::readable(&human::endpoint(&server.namespace, &server.name, port));
            client
                .as_ref()
                .map_or_else(|| server.clone(), |client| format!("{} → {server}", name(client)))
        }
        _ => subject,
    };
    let subject = if subject.is_empty() { subject } else { format!("{subject} ") };
    let seconds = event.last_seen.seconds_since(event.first_seen);
    let times = match (count, seconds) {
        (..=1, _) => String::new(),
        (_, seconds) if seconds < 1.0 => format!(" ({} times)", human::count(*count)),
        _ => format!(" ({} times in {})", human::count(*count), ago(seconds)),
    };
    let before = |change: &Change| {
        let name = readable(&change.service_namespace, &change.service);
        let earlier = ago(event.first_seen.seconds_since(change.time).max(0.0));
        format!("{name} {} {earlier} earlier", change.text)
    };
    let before: Vec<String> = changes_before.iter().map(before).collect();
    let before =
        if before.is_empty() { String::new() } else { format!("; before: {}", before.join(", ")) };
    let line = format!("{when} {mark} {:<11} {subject}{text}{times}{before}", kind.as_str());
    // An agent elsewhere may send anything.
    line.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

fn readable(namespace: &str, name: &str) -> String {
    human::readable(&human::full_name(namespace, name))
}

/// A time like `15m`, in seconds.
fn span(text: &str) -> Result<u64, String> {
    let span = duration::parse(text).ok_or_else(|| format!("write {}", duration::FORM))?;
    Ok(span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert::{self, EventRange};

    fn answer() -> Events {
        convert::events(&snapshot(), EventRange { after: None, limit: 100 }, |_| true)
    }

    #[test]
    fn an_event_is_a_line_with_its_count_and_the_changes_before_it() {
        assert_eq!(
            text(&answer()),
            "\
40 seconds ago · service     postgres restarted
19 seconds ago ✗ connect     prod/shop → postgres:5432 refused (2 times in 20 seconds); before: postgres restarted 1 second earlier
"
        );
        let none = Events { events: Vec::new(), ..answer() };
        assert_eq!(text(&none), "No events.\n");
    }

    #[test]
    fn what_a_strange_agent_sends_does_not_reach_the_terminal() {
        let mut answer = answer();
        let event = answer.events.last_mut().expect("one");
        event.text = "refused\x1b[2J\n\u{9b}2J".to_owned();
        event.client = None;
        let line = line(event, "now");
        assert!(line.contains("postgres:5432 refused_[2J__2J"), "{line}");
    }

    #[test]
    fn a_filter_is_safe_in_a_query() {
        let arguments = EventsArgs {
            follow: false,
            since: None,
            service: Some("shop/a b&c".to_owned()),
            client: None,
            server: None,
            port: Some(80),
            kind: vec!["connect".to_owned(), "reset".to_owned()],
            cause: Vec::new(),
            limit: Some(5),
            report: Report::default(),
            target: Target::default(),
        };
        assert_eq!(
            query(&arguments, Timestamp::from_seconds(1.8e9)).join("&"),
            "service=shop/a%20b%26c&port=80&kind=connect,reset&limit=5"
        );
    }
}
