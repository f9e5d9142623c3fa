//! The graph of services as SVG: layers from clients to what they call, edges with findings marked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use api_types::Severity;

use super::super::escape::xml;
use super::super::text::mark;
use crate::check::faults::SEVERAL;
use crate::check::name::Name;
use crate::check::pairs::Pair;
use crate::check::report::Report;
use crate::human;

/// Of larger graphs only what matters most is drawn.
const MOST_NODES: usize = 40;
const MOST_EDGES: usize = 60;
/// Sizes in pixels.
const WIDTH: usize = 170;
const HEIGHT: usize = 30;
const GAP_X: usize = 110;
const GAP_Y: usize = 26;
const MARGIN: usize = 14;
/// Characters of a name in a box.
const LONGEST: usize = 24;

/// Everything between two services.
struct Arrow<'a> {
    client: &'a Name,
    server: &'a Name,
    severity: Option<Severity>,
    ports: Vec<u16>,
    connects: u64,
    requests: u64,
    p99: Option<f64>,
}

/// The worst severity of a finding about a pair.
pub(super) fn severity(pair: &Pair<'_>, report: &Report) -> Option<Severity> {
    let (edge, server) = (pair.subject(), pair.server.at(pair.port));
    // A client with many of them: of those that failed.
    let scan = format!("{} → {SEVERAL}", pair.client);
    let has_failed = pair.attempts() > pair.connects(&["ok"]);
    let about = report.findings.iter().filter(|one| {
        one.subject == edge || one.subject == server || (has_failed && one.subject == scan)
    });
    about.map(|one| one.severity).filter(|severity| *severity > Severity::Info).max()
}

/// The drawing; nothing without edges.
pub(super) fn draw(pairs: &[Pair<'_>], report: &Report) -> String {
    let mut all = arrows(pairs, report);
    if all.is_empty() {
        return String::new();
    }
    // Those with findings first, then the busiest.
    all.sort_by_key(|one| (Reverse(one.severity), Reverse(one.requests + one.connects)));
    let mut nodes: BTreeSet<&Name> = BTreeSet::new();
    let mut shown: Vec<&Arrow<'_>> = Vec::new();
    for arrow in &all {
        let ends = [arrow.client, arrow.server];
        let new = ends.iter().filter(|name| !nodes.contains(**name)).count();
        if shown.len() < MOST_EDGES && nodes.len() + new <= MOST_NODES {
            nodes.extend(ends);
            shown.push(arrow);
        }
    }
    let places = places(&nodes, &shown);
    let right = places.values().map(|(x, _)| x + WIDTH).max().unwrap_or_default() + MARGIN;
    let bottom = places.values().map(|(_, y)| y + HEIGHT).max().unwrap_or_default() + MARGIN;
    let mut svg = format!(
        "<div class=\"scroll\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right}\" height=\"{bottom}\" viewBox=\"0 0 {right} {bottom}\" role=\"img\" aria-label=\"Graph of services\">\n"
    );
    for arrow in &shown {
        push_arrow(&mut svg, arrow, &places);
    }
    for (name, (x, y)) in &places {
        let label = human::shortened(&human::full_name(&name.namespace, &name.name), LONGEST);
        // Writing into a String cannot fail.
        let _ = writeln!(
            svg,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"5\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
            xml(&name.to_string()),
            x + WIDTH / 2,
            y + HEIGHT / 2 + 4,
            xml(&label)
        );
    }
    svg.push_str("</svg></div>\n");
    if all.len() > shown.len() {
        let _ = writeln!(
            svg,
            "<p>Drawn are those with findings and the busiest; {} more in the table.</p>",
            human::count((all.len() - shown.len()) as u64)
        );
    }
    svg
}

/// Pairs with traffic or a finding, those of two services as one.
fn arrows<'a>(pairs: &'a [Pair<'_>], report: &Report) -> Vec<Arrow<'a>> {
    let mut arrows: BTreeMap<(&Name, &Name), Arrow<'a>> = BTreeMap::new();
    for pair in pairs {
        let severity = severity(pair, report);
        let traffic = pair.attempts() + pair.requests() + pair.unanswered();
        if traffic == 0 && severity.is_none() {
            continue;
        }
        let (client, server) = (&pair.client, &pair.server);
        let arrow = arrows.entry((client, server)).or_insert_with(|| Arrow {
            client,
            server,
            severity: None,
            ports: Vec::new(),
            connects: 0,
            requests: 0,
            p99: None,
        });
        arrow.severity = arrow.severity.max(severity);
        arrow.ports.push(pair.port);
        arrow.connects += pair.attempts();
        arrow.requests += pair.requests();
        arrow.p99 = [arrow.p99, pair.p99()].into_iter().flatten().max_by(f64::total_cmp);
    }
    arrows.into_values().collect()
}

/// Each service below its layer: one further than the furthest of its clients.
fn places<'a>(
    nodes: &BTreeSet<&'a Name>,
    arrows: &[&Arrow<'a>],
) -> BTreeMap<&'a Name, (usize, usize)> {
    let mut layers: BTreeMap<&Name, usize> = nodes.iter().map(|name| (*name, 0)).collect();
    let forward = forward(nodes, arrows);
    for _ in nodes {
        for (client, server) in &forward {
            let behind = layers.get(*client).copied().unwrap_or_default() + 1;
            if let Some(layer) = layers.get_mut(*server) {
                *layer = (*layer).max(behind);
            }
        }
    }
    let mut used: BTreeMap<usize, usize> = BTreeMap::new();
    nodes
        .iter()
        .map(|name| {
            let layer = layers.get(*name).copied().unwrap_or_default();
            let row = used.entry(layer).or_default();
            let place = (MARGIN + layer * (WIDTH + GAP_X), MARGIN + *row * (HEIGHT + GAP_Y));
            *row += 1;
            (*name, place)
        })
        .collect()
}

/// The call graph, without the calls that close a cycle.
fn forward<'a>(nodes: &BTreeSet<&'a Name>, arrows: &[&Arrow<'a>]) -> Vec<(&'a Name, &'a Name)> {
    let is_called = |name: &Name| arrows.iter().any(|arrow| arrow.server == name);
    let (called, first): (Vec<&Name>, Vec<&Name>) = nodes.iter().partition(|name| is_called(name));
    let (mut kept, mut done) = (Vec::new(), BTreeSet::new());
    for name in first.into_iter().chain(called) {
        follow(name, arrows, &mut Vec::new(), &mut done, &mut kept);
    }
    kept
}

/// Adds the calls of a service, and of those that it calls; `path` has led to it.
fn follow<'a>(
    name: &'a Name,
    arrows: &[&Arrow<'a>],
    path: &mut Vec<&'a Name>,
    done: &mut BTreeSet<&'a Name>,
    kept: &mut Vec<(&'a Name, &'a Name)>,
) {
    if !done.insert(name) {
        return;
    }
    path.push(name);
    for arrow in arrows.iter().filter(|arrow| arrow.client == name) {
        if !path.contains(&arrow.server) {
            kept.push((arrow.client, arrow.server));
            follow(arrow.server, arrows, path, done, kept);
        }
    }
    path.pop();
}

fn push_arrow(svg: &mut String, arrow: &Arrow<'_>, places: &BTreeMap<&Name, (usize, usize)>) {
    let Arrow { client, server, severity, ports, connects, requests, p99 } = arrow;
    let (Some(from), Some(to)) = (places.get(client), places.get(server)) else { return };
    let (x1, y1) = (from.0 + WIDTH, from.1 + HEIGHT / 2);
    let (x2, y2) = (to.0, to.1 + HEIGHT / 2);
    let at = match ports.as_slice() {
        [port] => format!(":{port}"),
        ports => format!("{} ports", ports.len()),
    };
    let (class, label) = match severity {
        Some(severity) => (severity.as_str(), format!("{} {at}", mark(*severity).0)),
        None => ("ok", at.clone()),
    };
    let bend = x2.saturating_sub(x1).max(60) / 2;
    let title = format!(
        "{client} → {server} {at}: {} connects, {} requests, p99 {}",
        human::count(*connects),
        human::count(*requests),
        human::quantile(*p99)
    );
    // Writing into a String cannot fail.
    let _ = writeln!(
        svg,
        "<g><title>{}</title><path class=\"{class}\" d=\"M{x1} {y1} C{} {y1} {} {y2} {x2} {y2}\"/><text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
        xml(&title),
        x1 + bend,
        x2.saturating_sub(bend),
        usize::midpoint(x1, x2),
        usize::midpoint(y1, y2).saturating_sub(5),
        xml(&label)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_call_each_other_have_a_place_each() {
        let names: Vec<Name> = ["a", "b", "c"].map(|name| Name::new("", name)).to_vec();
        let arrow = |from: usize, to: usize| Arrow {
            client: &names[from],
            server: &names[to],
            severity: None,
            ports: vec![80],
            connects: 1,
            requests: 1,
            p99: None,
        };
        let arrows = [arrow(0, 1), arrow(1, 2), arrow(2, 1), arrow(2, 2)];
        let arrows: Vec<&Arrow<'_>> = arrows.iter().collect();
        let places = places(&names.iter().collect(), &arrows);
        let columns: Vec<usize> = places.values().map(|(x, _)| *x).collect();
        let step = WIDTH + GAP_X;
        assert_eq!(columns, [MARGIN, MARGIN + step, MARGIN + 2 * step]);
    }
}
