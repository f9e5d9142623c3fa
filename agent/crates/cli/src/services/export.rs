//! `portolan services export` and `services discover`: where services can be reached, as other programs
//! read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use api_types::{DiscoveryResponse, Endpoints, ServiceEndpoint, TargetGroups};
use clap::{Args, ValueEnum};
use notation::FullName;

use crate::quote::{comment, is_dns_label};
use crate::table::{self, Column};
use crate::target::{Connection, Target};
use crate::{Output, human, print, window};

/// Which endpoints.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only this service; may be repeated.
    #[arg(long = "service", value_name = "NAME", value_delimiter = ',')]
    services: Vec<FullName>,
    /// Only this port.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Observed endpoints had traffic in this time.
    #[arg(long, value_name = "WINDOW", default_value = "1h", value_parser = parse_window)]
    window: String,
    /// Loopback addresses too: they are valid on this host only.
    #[arg(long)]
    loopback: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiscoverArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The form.
    #[arg(long, value_enum)]
    format: Format,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    connection: Connection,
}

/// A form in which other programs read endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What `http_sd_configs` of Prometheus reads (the agent serves it at /api/v1/sd/prometheus).
    Prometheus,
    /// The same as a file for `file_sd_configs`.
    FileSd,
    /// A DiscoveryResponse with the endpoints of clusters, for `path_config_source` of Envoy.
    Envoy,
    /// Lines for /etc/hosts.
    Hosts,
    /// The agent's JSON.
    Json,
}

const COLUMNS: &[Column] = &[
    Column::left("SERVICE"),
    Column::left("ENDPOINT"),
    Column::left("KIND").rank(2),
    Column::left("FOUND BY").rank(1),
    Column::left("CONNECTS"),
];

pub(super) fn discover(arguments: &DiscoverArgs) -> anyhow::Result<()> {
    let DiscoverArgs { which, target } = arguments;
    let body = target.text(&which.path())?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Text => print(&text(&client::read(&body)?, which, table::room())),
    }
}

pub(super) fn export(arguments: &ExportArgs) -> anyhow::Result<()> {
    let ExportArgs { format, which, connection } = arguments;
    let body = connection.text(&which.path())?;
    let endpoints: Endpoints = client::read(&body)?;
    print(&match format {
        Format::Prometheus | Format::FileSd => {
            format!("{}\n", serde_json::to_string_pretty(&TargetGroups::from(&endpoints))?)
        }
        Format::Envoy => {
            format!("{}\n", serde_json::to_string_pretty(&DiscoveryResponse::new(&endpoints, &[]))?)
        }
        Format::Hosts => hosts(&endpoints),
        Format::Json => format!("{}\n", body.trim_end()),
    })
}

fn text(answer: &Endpoints, which: &Which, room: Option<usize>) -> String {
    if answer.endpoints.is_empty() {
        return format!(
            "No endpoints in the last {}; --loopback shows those of the loopback, --window 24h older ones.\n",
            which.window
        );
    }
    let row = |one: &ServiceEndpoint| {
        vec![
            human::full_name(&one.service_namespace, &one.service),
            one.socket().to_string(),
            one.kind.as_str().to_owned(),
            one.found_by.as_str().to_owned(),
            one.health.as_str().to_owned(),
        ]
    };
    let rows: Vec<_> = answer.endpoints.iter().map(row).collect();
    let table = table::render(COLUMNS, &rows, room);
    format!(
        "{table}with traffic in the last {}, listening or registered; CONNECTS of the last minute\n",
        which.window
    )
}

/// Names by address. The port is not in it, and names that no resolver accepts are reported.
fn hosts(answer: &Endpoints) -> String {
    let mut names: BTreeMap<(IpAddr, String), Vec<u16>> = BTreeMap::new();
    let mut text = "# Made by `portolan services export --format hosts`.\n".to_owned();
    // Writing into a String cannot fail.
    for one in &answer.endpoints {
        if let Some(name) = host_name(&one.service_namespace, &one.service) {
            names.entry((one.address, name)).or_default().push(one.port);
        } else {
            let full = human::full_name(&one.service_namespace, &one.service);
            let _ = writeln!(text, "# no host name: {} at {}", comment(&full), one.socket());
        }
    }
    for ((address, name), ports) in names {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{address}\t{name}\t# port {}", ports.join(", "));
    }
    text
}

/// `NAME` or `NAME.NAMESPACE`, if that is a host name (RFC 1123) and no name that every host has.
fn host_name(namespace: &str, name: &str) -> Option<String> {
    let whole = if namespace.is_empty() { name.to_owned() } else { format!("{name}.{namespace}") };
    let whole = whole.to_ascii_lowercase();
    let is_own = whole == "localhost" || whole.starts_with("localhost.");
    let is_name = whole.len() <= 253
        && whole.split('.').all(is_dns_label)
        && whole.chars().any(|c| c.is_ascii_lowercase())
        && !is_own;
    is_name.then_some(whole)
}

fn parse_window(text: &str) -> Result<String, String> {
    match notation::duration::parse(text) {
        Some(window) if !window.is_zero() => Ok(text.replace(' ', "")),
        _ => Err(format!("write {}", notation::duration::FORM)),
    }
}

// === impl Which ===

impl Which {
    fn path(&self) -> String {
        let Self { services, port, window, loopback } = self;
        let mut path = format!("/api/v1/endpoints?window={window}");
        // Writing into a String cannot fail.
        if let Some(port) = port {
            let _ = write!(path, "&port={port}");
        }
        if *loopback {
            path.push_str("&loopback=true");
        }
        if !services.is_empty() {
            let names: Vec<String> = services.iter().map(ToString::to_string).collect();
            let _ = write!(path, "&service={}", window::encoded(&names));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(name: &str) -> Endpoints {
        let one = serde_json::json!({
            "service": name, "service_namespace": "", "kind": "process", "source": "process",
            "address": "10.0.0.7", "port": 80, "found_by": "traffic", "health": "ok",
        });
        let answer = serde_json::json!({
            "timestamp": "2026-11-30T01:00:00Z",
            "window": {"since": "2026-11-30T00:00:00Z", "until": "2026-11-30T01:00:00Z", "seconds": 3600.0},
            "endpoints": [one],
        });
        serde_json::from_value(answer).expect("endpoints")
    }

    #[test]
    fn host_names_are_those_that_resolvers_take() {
        let check = |namespace, name, expected| {
            assert_eq!(host_name(namespace, name).as_deref(), expected, "{namespace} {name}");
        };
        check("", "postgres", Some("postgres"));
        check("shop", "Web-1", Some("web-1.shop"));
        check("", "api.js", Some("api.js"));
        for name in ["a b", "a_b", "-a", "localhost", "10.0.0.1", "", "a..b", "ä", "a\tb", "a#b"] {
            check("", name, None);
        }
    }

    proptest! {
        #[test]
        fn no_name_adds_a_line_to_the_hosts_file(name in "\\PC{0,30}|[\n\r\t #a\u{85}\u{2028}]{0,20}") {
            let text = hosts(&endpoint(&name));
            prop_assert_eq!(text.lines().count(), 2, "{}", text);
            let line = text.lines().nth(1).unwrap_or_default();
            prop_assert!(line.starts_with("# no host name: ") || line.starts_with("10.0.0.7\t"));
            let ends_line = text.contains(['\r', '\u{85}', '\u{2028}']);
            prop_assert!(!ends_line, "{:?}", text);
        }
    }

    #[test]
    fn the_server_answers_what_the_command_asks_and_all_forms_name_the_endpoint() {
        // The fixture's endpoints, as the server makes them.
        let query = server::convert::EndpointQuery {
            services: Vec::new(),
            port: None,
            seconds: 3600,
            loopback: true,
        };
        let endpoints = server::convert::endpoints(&model::fixture::snapshot(), &query);
        let found: Vec<_> = endpoints
            .endpoints
            .iter()
            .map(|one| format!("{} {} {}", one.service, one.socket(), one.found_by.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                "billing 203.0.113.7:443 registration",
                "postgres 10.0.0.2:5432 traffic",
                "postgres 10.0.0.3:5432 traffic",
                "shop 127.0.0.1:8080 listener",
                "shop 172.20.0.2:8080 traffic",
            ]
        );
        let hosts = hosts(&endpoints);
        assert!(hosts.contains("10.0.0.2\tpostgres\t# port 5432\n"), "{hosts}");
        assert!(hosts.contains("172.20.0.2\tshop.prod\t# port 8080\n"), "{hosts}");
    }
}
