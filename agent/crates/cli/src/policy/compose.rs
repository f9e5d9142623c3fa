//! An override for Docker Compose: services that were observed to connect share a network, others do
//! not.
//!
//! Compose separates by network, not by port. Each server has a network with its clients in it that
//! leads nowhere else (`internal`); what was observed to connect to the outside, or to be reached from
//! there, has a network of its own that does. Services that were not observed keep their networks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::bail;
use api_types::Kind;

use super::observed::{Edge, End, Observed};
use crate::quote::{comment, string};

const NOTES: &str = "\
# Use it beside the project's own file (Docker Compose 2.24.4 or later, for !override):
#   docker compose -f compose.yaml -f FILE config --quiet && docker compose -f compose.yaml -f FILE up -d
# Compose separates by network, not by port: what one service may reach of another, it may reach at every
# port. Health checks run within their container and need nothing.
";

/// A network: its members, and why.
#[derive(Default)]
struct Network {
    members: BTreeSet<String>,
    evidence: Vec<String>,
}

/// The networks of a project.
#[derive(Default)]
struct Networks {
    /// By the server whose clients are in it.
    inner: BTreeMap<String, Network>,
    /// By the service that it is for.
    outer: BTreeMap<String, Network>,
    /// Edges of the project without a network, and why.
    left_out: Vec<(String, &'static str)>,
    /// Edges of the project.
    edges: usize,
}

/// The file, and how many edges it does not allow. `wanted` is the project, if several were observed.
pub(crate) fn text(observed: &Observed, wanted: Option<&str>) -> anyhow::Result<(String, usize)> {
    let project = project(observed, wanted)?;
    let networks = Networks::of(observed, project);
    let Networks { inner, outer, left_out, edges } = &networks;
    if inner.is_empty() && outer.is_empty() {
        bail!("no connection of the project {project} was observed in this window");
    }
    let mut text = format!(
        "# Made by `portolan policy generate --for docker-compose`.
# Observed of the project {}: {}; {edges} edges by {} agent(s).
{NOTES}# {} edges are not allowed by these networks:
",
        comment(project),
        comment(&observed.window()),
        observed.agents,
        left_out.len(),
    );
    // Writing into a String cannot fail.
    for gap in observed.gaps() {
        let _ = writeln!(text, "# {}", comment(&gap));
    }
    for (evidence, reason) in left_out {
        let _ = writeln!(text, "# NOT ALLOWED {evidence}: {reason}");
    }
    text.push_str("services:\n");
    for (service, networks) in networks.of_services() {
        let list: Vec<String> = networks.iter().map(|one| string(one)).collect();
        let _ =
            writeln!(text, "  {}:\n    networks: !override [{}]", string(service), list.join(", "));
    }
    text.push_str("networks:\n");
    for (server, network) in inner {
        network.push(&mut text, &inner_name(server), "\n    internal: true");
    }
    for (service, network) in outer {
        network.push(&mut text, &outer_name(service), " {}");
    }
    Ok((text, left_out.len()))
}

/// The project that was observed, or the one of them that is wanted.
fn project<'a>(observed: &'a Observed, wanted: Option<&str>) -> anyhow::Result<&'a str> {
    let ends = observed.edges.iter().flat_map(|edge| [&edge.client, &edge.server]);
    let of_compose = ends.filter(|end| end.kind == Kind::ComposeService);
    let projects: BTreeSet<&str> = of_compose.map(|end| end.name.namespace.as_str()).collect();
    let listed = || projects.iter().copied().collect::<Vec<_>>().join(", ");
    match (wanted, projects.len()) {
        (_, 0) => bail!("no service of Docker Compose was observed in this window"),
        (Some(wanted), _) => match projects.get(wanted) {
            Some(project) => Ok(project),
            None => bail!("the project {wanted} was not observed, but {}", listed()),
        },
        (None, 1) => Ok(projects.first().copied().unwrap_or_default()),
        (None, _) => {
            bail!("several projects were observed: add --project with one of {}", listed())
        }
    }
}

fn inner_name(server: &str) -> String {
    format!("to-{server}")
}

fn outer_name(service: &str) -> String {
    format!("outside-{service}")
}

/// Whether this is the name of a service: the only characters that Compose takes.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

// === impl Networks ===

impl Networks {
    fn of(observed: &Observed, project: &str) -> Self {
        let is_inside =
            |end: &End| end.kind == Kind::ComposeService && end.name.namespace == project;
        let mut networks = Self::default();
        for edge in &observed.edges {
            let (from, to) = (is_inside(&edge.client), is_inside(&edge.server));
            if from || to {
                networks.edges += 1;
                networks.add(edge, from, to);
            }
        }
        networks
    }

    fn add(&mut self, edge: &Edge, from: bool, to: bool) {
        let (client, server) = (&edge.client.name.name, &edge.server.name.name);
        let evidence = comment(&edge.evidence());
        let mut leave_out = |reason| self.left_out.push((evidence.clone(), reason));
        if edge.connections == 0 {
            return leave_out(
                "no connection was established: attempts that failed are no reason to allow it",
            );
        }
        if (from && !is_name(client)) || (to && !is_name(server)) {
            return leave_out("Compose takes no such name of a service");
        }
        if from && to && edge.asked.is_some() {
            return leave_out(
                "it goes through a published port: connect to the service by its name instead",
            );
        }
        // Within one service a connection may stay in the container.
        if from && to && client != server {
            let network = self.inner.entry(server.clone()).or_default();
            network.members.extend([client.clone(), server.clone()]);
            network.evidence.push(evidence);
        } else if from != to {
            let service = if from { client } else { server };
            let network = self.outer.entry(service.clone()).or_default();
            network.members.insert(service.clone());
            network.evidence.push(evidence);
        }
    }

    /// The networks of each service.
    fn of_services(&self) -> BTreeMap<&str, Vec<String>> {
        let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let inner = self.inner.iter().map(|(server, network)| (inner_name(server), network));
        let outer = self.outer.iter().map(|(service, network)| (outer_name(service), network));
        for (name, network) in inner.chain(outer) {
            for member in &network.members {
                all.entry(member).or_default().push(name.clone());
            }
        }
        all
    }
}

// === impl Network ===

impl Network {
    fn push(&self, text: &mut String, name: &str, settings: &str) {
        // Writing into a String cannot fail.
        for evidence in &self.evidence {
            let _ = writeln!(text, "  # {evidence}");
        }
        let _ = writeln!(text, "  {}:{settings}", string(name));
    }
}

#[cfg(test)]
mod tests {
    use api_types::Flow;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::fixture::{answer, flow};

    /// A flow whose ends with a namespace are services of Compose.
    fn compose(client: &str, server: &str, port: u16, connections: u64) -> Flow {
        let mut flow = flow(client, server, port, connections);
        let kind = |namespace: &str, kind| {
            if namespace.is_empty() { kind } else { Kind::ComposeService }
        };
        flow.client_kind = kind(&flow.client_namespace, flow.client_kind);
        flow.server_kind = kind(&flow.server_namespace, flow.server_kind);
        flow
    }

    fn observed(flows: Vec<Flow>) -> Observed {
        Observed::of(&[answer(flows)], None)
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect()
    }

    #[test]
    fn a_server_shares_a_network_with_its_clients_and_only_the_edge_leads_out() {
        let observed = observed(vec![
            compose("internet", "shop/web@172.20.0.2", 80, 9),
            compose("shop/web@172.20.0.2", "shop/api@172.20.0.3", 8080, 42),
            compose("shop/jobs@172.20.0.5", "shop/api@172.20.0.3", 8080, 1),
            compose("shop/api@172.20.0.3", "shop/db@172.20.0.4", 5432, 12),
            compose("shop/api@172.20.0.3", "pay.example@203.0.113.7", 443, 2),
            Flow { failed: 3, ..compose("shop/web@172.20.0.2", "shop/db@172.20.0.4", 5432, 0) },
            compose("cron@10.0.0.1", "mail@10.0.0.2", 25, 3),
        ]);
        let (text, missing) = text(&observed, None).expect("a project");
        assert_eq!(
            lines(&text),
            [
                "services:",
                "  \"api\":",
                "    networks: !override [\"to-api\", \"to-db\", \"outside-api\"]",
                "  \"db\":",
                "    networks: !override [\"to-db\"]",
                "  \"jobs\":",
                "    networks: !override [\"to-api\"]",
                "  \"web\":",
                "    networks: !override [\"to-api\", \"outside-web\"]",
                "networks:",
                "  \"to-api\":",
                "    internal: true",
                "  \"to-db\":",
                "    internal: true",
                "  \"outside-api\": {}",
                "  \"outside-web\": {}",
            ]
        );
        // The attempt that failed; what is not of the project is not counted.
        assert_eq!(missing, 1, "{text}");
        assert!(text.contains("shop: ") && text.contains("6 edges"), "{text}");
    }

    #[test]
    fn one_of_several_projects_has_to_be_named() {
        let flows = || {
            vec![
                compose("shop/web@172.20.0.2", "shop/api@172.20.0.3", 8080, 1),
                compose("blog/web@172.21.0.2", "blog/db@172.21.0.3", 5432, 1),
            ]
        };
        let refused = |observed: &Observed, wanted| {
            format!("{:#}", text(observed, wanted).expect_err("refused"))
        };
        let both = observed(flows());
        assert!(refused(&both, None).contains("--project with one of blog, shop"));
        assert!(refused(&both, Some("wiki")).contains("was not observed, but blog, shop"));
        assert!(text(&both, Some("blog")).expect("named").0.contains("\"to-db\""));
        let none = observed(vec![flow("shop/web@10.0.0.1", "shop/api@10.0.0.2", 80, 1)]);
        assert!(refused(&none, None).contains("no service of Docker Compose"));
    }

    proptest! {
        #[test]
        fn no_name_adds_a_network(name in "\\PC{0,20}|[\n\r\u{85}\u{2028}\"': #{}a.-]{0,20}") {
            let mut flows = vec![
                compose("shop/web@172.20.0.2", "shop/x@172.20.0.3", 8080, 1),
                compose("shop/web@172.20.0.2", "shop/db@172.20.0.4", 5432, 1),
            ];
            flows[0].server.clone_from(&name);
            prop_assume!(!["web", "db"].contains(&name.as_str()));
            let (text, missing) = text(&observed(flows), None).expect("a project");
            // Two lines for a network, two for each of its services, and two headings.
            prop_assert_eq!(lines(&text).len(), 2 + 6 + 4 * (1 - missing), "{}", text);
        }
    }
}
