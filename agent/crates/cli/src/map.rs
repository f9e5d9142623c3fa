//! `portolan map`: the graph of services.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::fleet::{self, Reply};
use super::past::Sources;
use super::window::{self, Over};
use super::{Outcome, Output, human, known, print};
use api_types::{Edges, Map, MapEdge, Services, WindowChoice};

const EXAMPLES: &str = "\
Examples:
  portolan map                                      all applications, as a tree that starts at the clients
  portolan map --window start                       since the agent started
  portolan map api postgres                         only these services, their clients and dependencies
  portolan map --url http://node1:10062 --url http://node2:10062
  portolan map --prometheus http://prometheus:9090 --at -30m
  portolan map --format mermaid > map.mmd           for Markdown: GitHub, GitLab and others draw it
  portolan map --format dot | dot -Tsvg > map.svg
  portolan map --output json | jq '.edges[] | select(.failed > 0)'

A connection between two services of this host is drawn once, with the numbers of the client side.
Monitoring and system services (names.monitoring, names.system) are drawn if they are named.
Rates are averages over the window, the last minute by default; `failed` counts failed connects,
`unanswered` requests without a response.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct MapArgs {
    #[command(flatten)]
    sources: Sources,
    /// Services to draw with their clients and dependencies [default: all applications].
    services: Vec<String>,
    /// Drawing format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    over: Over,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A tree for the terminal.
    #[default]
    Tree,
    /// A Mermaid flowchart.
    Mermaid,
    /// A Graphviz graph.
    Dot,
    /// The agent's JSON, as with --output json.
    Json,
}

pub(super) fn run(arguments: &MapArgs) -> anyhow::Result<Outcome> {
    let MapArgs { sources, services, format, over: Over { window } } = arguments;
    let Reply { answer: map, json, hosts, footer } = ask(sources, services, *window)?;
    let drawn = map.nodes.iter().map(|node| human::full_name(&node.namespace, &node.name));
    let all = || Ok(sources.read::<Services>("/api/v1/services", *window, &[])?.answer);
    known::among(all, services, &drawn.collect::<Vec<_>>())?;
    let outcome = fleet::outcome(&hosts, Outcome::Done);
    if sources.output == Output::Json || *format == Format::Json {
        return print(&format!("{}\n", json.trim_end())).map(|()| outcome);
    }
    let drawn = match format {
        Format::Mermaid => mermaid(&map),
        Format::Dot => dot(&map),
        Format::Tree | Format::Json => tree(&map, *window) + &fleet::remarks(&hosts) + &footer,
    };
    print(&drawn).map(|()| outcome)
}

/// The map of all applications, or of what leads to services and away.
fn ask(sources: &Sources, services: &[String], window: WindowChoice) -> anyhow::Result<Reply<Map>> {
    if services.is_empty() || sources.agents.only().is_some() {
        let path = format!("/api/v1/map{}", window::query(window, services));
        return sources.read(&path, window, services);
    }
    // What leads to a service goes on at other hosts, where it has other names.
    let path = format!("/api/v1/edges{}", window::query(window, &[]));
    let Reply { answer, hosts, footer, .. } = sources.read::<Edges>(&path, window, &[])?;
    let answer = recorded::around(&answer, services);
    let json = fleet::json(&answer, &hosts)?;
    Ok(Reply { answer, json, hosts, footer })
}

/// A node: namespace and name.
type Node<'a> = (&'a str, &'a str);

fn client(edge: &MapEdge) -> Node<'_> {
    (&edge.client_namespace, &edge.client)
}

fn server(edge: &MapEdge) -> Node<'_> {
    (&edge.server_namespace, &edge.server)
}

fn full_name((namespace, name): Node<'_>) -> String {
    human::full_name(namespace, name)
}

/// The traffic of an edge in a few words.
fn summary(traffic: &MapEdge) -> String {
    let mut words = Vec::new();
    if traffic.requests > 0 {
        words.push(format!("{} req/s", human::rate(traffic.requests_per_second)));
    } else {
        words.push(format!("{} conn/s", human::rate(traffic.connections_per_second)));
    }
    if traffic.p99_seconds.is_some() {
        words.push(format!("p99 {}", human::quantile(traffic.p99_seconds)));
    }
    if traffic.unanswered > 0 {
        words.push(format!("{} unanswered", human::count(traffic.unanswered)));
    }
    if traffic.failed > 0 {
        words.push(format!("{} failed", human::count(traffic.failed)));
    }
    if traffic.resets > 0 {
        words.push(human::counted(traffic.resets, "reset"));
    }
    if traffic.aborts > 0 {
        words.push(human::counted(traffic.aborts, "abort"));
    }
    words.join(", ")
}

fn tree(map: &Map, window: WindowChoice) -> String {
    if map.edges.is_empty() {
        return format!("No connections ({}).\n", window::covered(&map.window, window));
    }
    let mut outgoing: BTreeMap<Node<'_>, Vec<&MapEdge>> = BTreeMap::new();
    let mut served: BTreeSet<Node<'_>> = BTreeSet::new();
    for edge in &map.edges {
        outgoing.entry(client(edge)).or_default().push(edge);
        if server(edge) != client(edge) {
            served.insert(server(edge));
        }
    }
    let mut drawing = Drawing { outgoing, drawn: BTreeSet::new(), text: String::new() };
    // Those that are only clients, then one of each cycle that is left.
    let clients: Vec<Node<'_>> = drawing.outgoing.keys().copied().collect();
    let (inner, outer): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|node| served.contains(node));
    for node in outer.into_iter().chain(inner) {
        if !drawing.drawn.contains(&node) {
            let _ = writeln!(drawing.text, "{}", human::readable(&full_name(node)));
            drawing.branches(node, "");
        }
    }
    if map.unattributed_connections > 0 {
        let _ = writeln!(
            drawing.text,
            "({} not drawn because the edge table was full; raise limits.edges)",
            human::counted(map.unattributed_connections, "connection")
        );
    }
    // Writing into a String cannot fail.
    let _ = writeln!(
        drawing.text,
        "\n{}; --window {}",
        window::covered(&map.window, window),
        window::CHOICES
    );
    drawing.text
}

struct Drawing<'a> {
    outgoing: BTreeMap<Node<'a>, Vec<&'a MapEdge>>,
    drawn: BTreeSet<Node<'a>>,
    text: String,
}

impl<'a> Drawing<'a> {
    fn branches(&mut self, node: Node<'a>, indent: &str) {
        self.drawn.insert(node);
        let edges = self.outgoing.get(&node).cloned().unwrap_or_default();
        for (i, edge) in edges.iter().enumerate() {
            let (branch, below) =
                if i + 1 == edges.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let server = server(edge);
            let leads_on = self.outgoing.contains_key(&server);
            let again = leads_on && self.drawn.contains(&server);
            // Writing into a String cannot fail.
            let _ = writeln!(
                self.text,
                "{indent}{branch}{}  {}{}",
                human::readable(&human::endpoint(server.0, server.1, edge.port)),
                summary(edge),
                if again { "  (see above)" } else { "" }
            );
            if leads_on && !again {
                self.branches(server, &format!("{indent}{below}"));
            }
        }
    }
}

/// Numbers for nodes, as names may have any character.
fn ids(map: &Map) -> BTreeMap<Node<'_>, String> {
    let nodes = map.nodes.iter().map(|node| (&*node.namespace, &*node.name));
    nodes.enumerate().map(|(i, node)| (node, format!("n{i}"))).collect()
}

fn mermaid(map: &Map) -> String {
    let quoted = |text: &str| {
        let mut safe = String::new();
        for c in text.chars() {
            match c {
                '"' => safe.push_str("#quot;"),
                '#' => safe.push_str("#35;"),
                '<' => safe.push_str("#lt;"),
                '>' => safe.push_str("#gt;"),
                c if c.is_control() => safe.push(' '),
                c => safe.push(c),
            }
        }
        format!("\"{safe}\"")
    };
    let ids = ids(map);
    let mut text = "flowchart LR\n".to_owned();
    for (node, id) in &ids {
        let _ = writeln!(text, "  {id}[{}]", quoted(&full_name(*node)));
    }
    for edge in &map.edges {
        if let (Some(from), Some(to)) = (ids.get(&client(edge)), ids.get(&server(edge))) {
            let label = quoted(&format!(":{} {}", edge.port, summary(edge)));
            let arrow =
                if edge.failed + edge.aborts + edge.unanswered > 0 { "-.->" } else { "-->" };
            let _ = writeln!(text, "  {from} {arrow}|{label}| {to}");
        }
    }
    text
}

fn dot(map: &Map) -> String {
    let quoted = |text: &str| {
        let mut safe = String::new();
        for c in text.chars() {
            match c {
                '"' => safe.push_str("\\\""),
                '\\' => safe.push_str("\\\\"),
                c if c.is_control() => safe.push(' '),
                c => safe.push(c),
            }
        }
        format!("\"{safe}\"")
    };
    let ids = ids(map);
    let mut text = "digraph portolan {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (node, id) in &ids {
        let _ = writeln!(text, "  {id} [label={}];", quoted(&full_name(*node)));
    }
    for edge in &map.edges {
        if let (Some(from), Some(to)) = (ids.get(&client(edge)), ids.get(&server(edge))) {
            let label = quoted(&format!(":{} {}", edge.port, summary(edge)));
            let color =
                if edge.failed + edge.aborts + edge.unanswered > 0 { ", color=red" } else { "" };
            let _ = writeln!(text, "  {from} -> {to} [label={label}{color}];");
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{MapNode, Timestamp, Window};

    const LAST: WindowChoice = WindowChoice::Last(20);

    fn edge(client: &str, server: &str, port: u16, requests: u64, failed: u64) -> MapEdge {
        MapEdge {
            client: client.to_owned(),
            client_namespace: String::new(),
            server: server.to_owned(),
            server_namespace: String::new(),
            port,
            seen_by: Vec::new(),
            connections: 10,
            failed,
            resets: 0,
            aborts: 0,
            requests,
            unanswered: 0,
            connections_per_second: 0.5,
            requests_per_second: requests as f64 / 20.0,
            p50_seconds: None,
            p99_seconds: (requests > 0).then_some(0.002),
            server_requests: None,
            server_p99_seconds: None,
        }
    }

    fn map(edges: Vec<MapEdge>) -> Map {
        let names: BTreeSet<&str> =
            edges.iter().flat_map(|edge| [&*edge.client, &*edge.server]).collect();
        let node = |name: &str| MapNode { namespace: String::new(), name: name.to_owned() };
        let nodes = names.into_iter().map(node).collect();
        let timestamp = Timestamp::from_seconds(20.0);
        let window = Window::before(timestamp, 20.0);
        Map { timestamp, window, nodes, edges, unattributed_connections: 0 }
    }

    fn shop() -> Map {
        map(vec![
            edge("api", "db", 5432, 0, 3),
            edge("api", "redis", 6379, 4000, 0),
            edge("cron", "redis", 6379, 20, 0),
            edge("web", "api", 3001, 2000, 0),
            edge("web", "api", 3002, 2000, 0),
        ])
    }

    #[test]
    fn a_tree_starts_at_pure_clients_and_draws_no_branch_twice() {
        assert_eq!(
            tree(&shop(), LAST),
            "\
cron
└─ redis:6379  1 req/s, p99 2 ms
web
├─ api:3001  100 req/s, p99 2 ms
│  ├─ db:5432  0.5 conn/s, 3 failed
│  └─ redis:6379  200 req/s, p99 2 ms
└─ api:3002  100 req/s, p99 2 ms  (see above)

last 20 s; --window 10s|1m|5m|start
"
        );
    }

    #[test]
    fn requests_without_an_answer_are_named_and_break_the_line() {
        let mut edges = vec![edge("web", "api", 3001, 20, 0)];
        edges[0].unanswered = 7;
        let map = map(edges);
        assert!(tree(&map, LAST).contains("api:3001  1 req/s, p99 2 ms, 7 unanswered\n"));
        assert!(mermaid(&map).contains("-.->"));
        assert!(dot(&map).contains("color=red"));
    }

    #[test]
    fn a_circle_is_drawn_and_ends() {
        let circle = map(vec![edge("a", "b", 1, 20, 0), edge("b", "a", 2, 20, 0)]);
        assert_eq!(
            tree(&circle, LAST),
            "a\n└─ b:1  1 req/s, p99 2 ms\n   └─ a:2  1 req/s, p99 2 ms  (see above)\n\nlast 20 s; --window 10s|1m|5m|start\n"
        );
        let own = map(vec![edge("a", "a", 1, 20, 0)]);
        assert_eq!(
            tree(&own, LAST),
            "a\n└─ a:1  1 req/s, p99 2 ms  (see above)\n\nlast 20 s; --window 10s|1m|5m|start\n"
        );
        assert_eq!(tree(&map(vec![]), LAST), "No connections (last 20 s).\n");
    }

    #[test]
    fn names_cannot_break_out_of_a_drawing() {
        let odd = map(vec![edge("a\"]; x", "b\\<br>", 1, 20, 1)]);
        assert_eq!(
            mermaid(&odd),
            "flowchart LR\n  n0[\"a#quot;]; x\"]\n  n1[\"b\\#lt;br#gt;\"]\n  n0 -.->|\":1 1 req/s, p99 2 ms, 1 failed\"| n1\n"
        );
        assert_eq!(
            dot(&odd),
            "digraph portolan {\n  rankdir=LR;\n  node [shape=box];\n  n0 [label=\"a\\\"]; x\"];\n  n1 [label=\"b\\\\<br>\"];\n  n0 -> n1 [label=\":1 1 req/s, p99 2 ms, 1 failed\", color=red];\n}\n"
        );
    }
}
