//! `portolan diagnose`: what is wrong between two services, and where.
//!
//! Three stages, each of which knows only the one before: *evidence* is gathered ([`live`] from the
//! agent, [`probe`] from the client's network namespace, [`host`] from /proc), a *verdict* is a
//! function of the evidence, and a *report* shows both. Probes and looks into other namespaces are
//! made by this process, with the rights of the user who runs it.

mod burden;
mod cause;
mod chain;
mod evidence;
mod examine;
mod host;
mod live;
mod place;
mod ports;
mod probe;
mod report;
mod steps;
mod verdict;
mod words;

use anyhow::Context as _;
use api_types::WindowChoice;
use clap::{Args, ValueEnum};
use client::Class;
use rustls::pki_types::ServerName;

pub(crate) use self::evidence::{Certificate, TlsFault};
use self::examine::Examiner;
use self::live::Answers;
pub(crate) use self::probe::{TLS_PORTS, certificate, connects, http_status, resolver_answers};
use self::report::Findings;
use self::words::Wanted;
use crate::target::Connection;
use crate::{Outcome, Usage, print, window};

const EXAMPLES: &str = "\
Examples:
  portolan diagnose                                the worst edge of the last minute
  portolan diagnose gateway catalog                one client and one server
  portolan diagnose gateway catalog:3002 --http /healthz
  portolan diagnose catalog                        a service, as a server and as a client
  portolan diagnose db.example:5432                a server that no agent knows
  portolan diagnose --gateway nginx                the way of a request, and its slowest or failing hop
  portolan diagnose --database postgres --no-probe
  portolan diagnose --all -o json | jq -r '.reports[] | [.server.name, .verdict.cause] | @tsv'

The steps are name, route, port, TCP, path, TLS, HTTP, application, host and policy: ✓ well, ✗ the
fault, ! conspicuous, – not looked at. What the agent has counted comes first; then this command
tries what the client does, from the client's network namespace (needs root; skipped otherwise):
connects (--probe-count; fewer if the accept queue is short, one if it grows, none if the
server is stopped), TLS with --tls-name or on a port that is known for it, HTTP with --http, and the greeting
of PostgreSQL, MySQL and Redis. --no-probe leaves all of that out.

Exit codes: 0 nothing is wrong, 1 a fault was found, 2 invalid command line, 3 nothing can be said:
no agent answers, or there was no traffic and no probe.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DiagnoseArgs {
    /// The service that connects: NAME or NAMESPACE/NAME. Alone, a service in both directions; with
    /// a port, a server.
    #[arg(value_name = "CLIENT")]
    client: Option<String>,
    /// The service that is connected to, or HOST:PORT.
    #[arg(value_name = "SERVER[:PORT]")]
    server: Option<String>,
    /// Follow the requests of a gateway: its clients, its upstreams, their databases.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["client", "database", "ports", "all"])]
    gateway: Option<String>,
    /// Diagnose a database and its clients.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["client", "ports", "all"])]
    database: Option<String>,
    /// Diagnose ports: failed binds, full accept queues, local ports that run out.
    #[arg(long, conflicts_with_all = ["client", "all"])]
    ports: bool,
    /// Diagnose every edge with a fault, without probes.
    #[arg(long, conflicts_with = "client")]
    all: bool,
    /// Use only what the agent has counted; connect to nothing.
    #[arg(long)]
    no_probe: bool,
    /// How often to connect.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    probe_count: u32,
    /// Request this path over HTTP.
    #[arg(long, value_name = "PATH", value_parser = path)]
    http: Option<String>,
    /// Try TLS, and expect this name in the certificate.
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    tls_name: Option<String>,
    /// A process of the client, where it cannot be found by itself.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Time that the agent's numbers cover: 10s, 1m, 5m (at most).
    #[arg(long, value_name = "WINDOW", default_value = "1m", value_parser = last)]
    window: WindowChoice,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    agent: Connection,
}

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Readable text.
    #[default]
    Text,
    /// JSON for programs.
    Json,
    /// A section of a page.
    Markdown,
}

pub(super) fn run(arguments: &DiagnoseArgs) -> anyhow::Result<Outcome> {
    let DiagnoseArgs { ports, output, agent, .. } = arguments;
    if *ports {
        return ports::run(agent, *output);
    }
    let findings = findings(arguments)?;
    let text = match output {
        Format::Text => findings.text(),
        Format::Markdown => findings.markdown(),
        Format::Json => serde_json::to_string(&findings).context("writing JSON")? + "\n",
    };
    print(&text)?;
    Ok(match (findings.is_fault(), findings.is_unknown()) {
        (true, _) => Outcome::Found,
        (false, true) => Outcome::Incomplete,
        (false, false) => Outcome::Done,
    })
}

/// The report of `portolan diagnose CLIENT SERVER:PORT` over the last minute, probes included.
pub fn between(agent: &Connection, client: &str, server: &str) -> anyhow::Result<String> {
    let arguments = DiagnoseArgs {
        client: Some(client.to_owned()),
        server: Some(server.to_owned()),
        gateway: None,
        database: None,
        ports: false,
        all: false,
        no_probe: false,
        probe_count: 20,
        http: None,
        tls_name: None,
        pid: None,
        window: WindowChoice::Last(60),
        output: Format::Text,
        agent: agent.clone(),
    };
    Ok(findings(&arguments)?.text())
}

fn findings(arguments: &DiagnoseArgs) -> anyhow::Result<Findings> {
    let DiagnoseArgs { client, server, agent, .. } = arguments;
    let wanted = Wanted::of(client.as_deref(), server.as_deref()).map_err(Usage)?;
    let (answers, unreached) = match Answers::ask(agent, arguments.window) {
        Ok(answers) => (Some(answers), None),
        Err(error) if crate::class(&error) == Some(Class::Unreached) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let examiner = Examiner::new(arguments, answers.as_ref());
    let mut findings = if let Some(answers) = &answers {
        chain::findings(arguments, &wanted, answers, &examiner)?
    } else {
        let Some(report) = examiner.without_agent(&wanted) else {
            let error = unreached.unwrap_or_else(|| anyhow::anyhow!("no agent"));
            return Err(error.context("without an agent, name the server as HOST:PORT"));
        };
        Findings { reports: vec![report], ..Findings::default() }
    };
    if let Some(error) = unreached {
        findings.notes.push(format!("No agent: {error:#}. These are probes alone."));
    }
    Ok(findings)
}

/// A window that addresses are remembered for.
fn last(text: &str) -> Result<WindowChoice, String> {
    match window::parse(text) {
        Ok(WindowChoice::Start) | Err(_) => Err("write a duration from 1s to 5m".to_owned()),
        Ok(choice) => Ok(choice),
    }
}

/// A path as HTTP has it.
fn path(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.starts_with('/') && is_plain {
        Ok(text.to_owned())
    } else {
        Err("write a path that begins with / and has no spaces, like /healthz".to_owned())
    }
}

/// A name that a certificate can have.
fn server_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a DNS name or an address, like shop.example".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_paths_are_checked() {
        assert_eq!(last("5m"), Ok(WindowChoice::Last(300)));
        for text in ["start", "6m", "x"] {
            assert_eq!(last(text), Err("write a duration from 1s to 5m".to_owned()), "{text}");
        }
        assert_eq!(path("/healthz?full=1"), Ok("/healthz?full=1".to_owned()));
        for text in ["healthz", "/a b", "/a\r\nHost: x", ""] {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(server_name("shop.example"), Ok("shop.example".to_owned()));
        for text in ["", "a b", "shop..example"] {
            assert!(server_name(text).is_err(), "{text}");
        }
    }
}
