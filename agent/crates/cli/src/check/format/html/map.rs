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
/// Layers are counted so far; services that call each other have no end.
const MOST_LAYERS: usize = 8;
/// Sizes in pixels.
const WIDTH: usize = 170;
const HEIGHT: usize = 30;
const GAP_X: usize = 110;
const GAP_Y: usize = 26;
const MARGIN: usize = 14;
/// Characters of a name in a box.
const LONGEST: usize = 24;

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
    let busy = |pair: &&Pair<'_>| {
        pair.attempts() + pair.requests() + pair.unanswered() > 0
            || severity(pair, report).is_some()
    };
    let mut all: Vec<&Pair<'_>> = pairs.iter().filter(busy).collect();
    if all.is_empty() {
        return String::new();
    }
    // Those with findings first, then the busiest.
    all.sort_by_key(|pair| {
        (Reverse(severity(pair, report)), Reverse(pair.requests() + pair.attempts()))
    });
    let mut nodes: BTreeSet<&Name> = BTreeSet::new();
    let mut shown: Vec<&Pair<'_>> = Vec::new();
    for pair in &all {
        let ends = [&pair.client, &pair.server];
        let new = ends.iter().filter(|name| !nodes.contains(**name)).count();
        if shown.len() < MOST_EDGES && nodes.len() + new <= MOST_NODES {
            nodes.extend(ends);
            shown.push(pair);
        }
    }
    let places = places(&nodes, &shown);
    let right = places.values().map(|(x, _)| x + WIDTH).max().unwrap_or_default() + MARGIN;
    let bottom = places.values().map(|(_, y)| y + HEIGHT).max().unwrap_or_default() + MARGIN;
    let mut svg = format!(
        "<div class=\"scroll\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right}\" height=\"{bottom}\" viewBox=\"0 0 {right} {bottom}\" role=\"img\" aria-label=\"Graph of services\">\n"
    );
    for pair in &shown {
        push_edge(&mut svg, pair, &places, report);
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
    let left_out = all.len() - shown.len();
    if left_out > 0 {
        let left_out = human::counted(left_out as u64, "edge");
        let _ = writeln!(
            svg,
            "<p>{left_out} more in the table: those with findings and the busiest are drawn.</p>"
        );
    }
    svg
}

/// Each service below its layer: one further than the furthest of its clients.
fn places<'a>(
    nodes: &BTreeSet<&'a Name>,
    pairs: &[&Pair<'_>],
) -> BTreeMap<&'a Name, (usize, usize)> {
    let mut layers: BTreeMap<&Name, usize> = nodes.iter().map(|name| (*name, 0)).collect();
    for _ in 0..MOST_LAYERS {
        for pair in pairs.iter().filter(|pair| pair.client != pair.server) {
            let behind = layers.get(&pair.client).copied().unwrap_or_default() + 1;
            if let Some(layer) = layers.get_mut(&pair.server) {
                *layer = (*layer).max(behind).min(MOST_LAYERS);
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

fn push_edge(
    svg: &mut String,
    pair: &Pair<'_>,
    places: &BTreeMap<&Name, (usize, usize)>,
    report: &Report,
) {
    let (Some(from), Some(to)) = (places.get(&pair.client), places.get(&pair.server)) else {
        return;
    };
    let (x1, y1) = (from.0 + WIDTH, from.1 + HEIGHT / 2);
    let (x2, y2) = (to.0, to.1 + HEIGHT / 2);
    let (class, label) = match severity(pair, report) {
        Some(severity) => (severity.as_str(), format!("{} :{}", mark(severity).0, pair.port)),
        None => ("ok", format!(":{}", pair.port)),
    };
    // Back to an earlier layer, or to itself: around above.
    let bend = x2.saturating_sub(x1).max(60) / 2;
    let title = format!(
        "{}: {} connects, {} requests, p99 {}",
        pair.subject(),
        human::count(pair.attempts()),
        human::count(pair.requests()),
        human::quantile(pair.p99())
    );
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
