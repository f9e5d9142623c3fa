//! What a policy would cut, summed up by edge.

use super::*;
use crate::policy::fixture::{flow, shop};
use crate::policy::nftables;
use api_types::Flow;
use std::collections::BTreeSet;

fn observed(flows: &Flows) -> Observed {
    let rows = Observed::rows(std::slice::from_ref(flows), None);
    Observed { edges: rows, ..Observed::of(std::slice::from_ref(flows), None) }
}

#[test]
fn a_policy_made_from_a_window_cuts_what_came_later() {
    let mut flows = shop();
    let merged = Observed::of(&[flows.clone()], None);
    let (policy, _) = nftables::text(&merged, &BTreeSet::new());
    let policy = nftables::read(&policy).expect("ours");
    flows.flows.push(flow("shop/web@10.0.0.1", "data/db@10.1.0.5", 5432, 9));
    let rows = observed(&flows);
    let trial = Trial::of(&rows, &policy);
    let cut: Vec<_> =
        trial.cut.iter().map(|one| (one.server.as_str(), one.port, one.connections)).collect();
    // The twelve are of an IPv4 client at an IPv6 server, for which there is no rule.
    assert_eq!(
        cut,
        [("web", 443, 1200), ("db", 5432, 12), ("db", 5432, 9), ("pay.example", 443, 5)]
    );
    assert_eq!(trial.allowed_connections, 40 + 2 + 3 + 1);
    assert_eq!(trial.undecided.len(), 1, "behind a Service: {:?}", trial.undecided);
    let text = text(&trial, &rows, None);
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        "1226 connections would be cut, 46 allowed, 7 undecided; observed 2027-01-15T07:00:00Z to 2027-01-15T08:00:00Z (60 min)"
    );
}

#[test]
fn a_window_takes_only_flows_that_were_used_in_it() {
    let mut flows = shop();
    flows.flows.push(Flow { last_seen: flows.timestamp, ..flow("a@10.0.0.1", "b@10.0.0.2", 1, 4) });
    let rows = Observed::rows(&[flows.clone()], Some(std::time::Duration::from_secs(30)));
    assert_eq!(rows.len(), 1);
    let merged = Observed::of(&[flows], Some(std::time::Duration::from_secs(30)));
    assert_eq!(merged.edges.len(), 1);
    assert!(merged.window().ends_with("(30 s)"), "{}", merged.window());
}
