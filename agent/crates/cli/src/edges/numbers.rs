//! What is read off an edge, for tables, screens and checks.

use api_types::{Cause, Edge, Role, Source};

use crate::human;

/// Whether anything happened in the window, or a connection is open.
pub fn is_busy(edge: &Edge) -> bool {
    let numbers = [edge.active, edge.opened, edge.closed, edge.request.count, edge.unanswered];
    numbers.iter().chain(edge.connects.values()).any(|n| *n > 0) || resets(edge) + aborts(edge) > 0
}

/// Whether a row has no connection of a client.
pub fn is_without_client(edge: &Edge) -> bool {
    edge.role == Role::Listener || (edge.client == "any" && edge.client_source == Source::Unknown)
}

/// The client as a table names it.
pub fn client(edge: &Edge) -> String {
    match (is_without_client(edge), edge.port) {
        (true, 0) => "(resets without a connection)".to_owned(),
        (true, _) => "(listener)".to_owned(),
        (false, _) => human::full_name(&edge.client_namespace, &edge.client),
    }
}

/// Problems, most important first, behind a mark if a user can have made it up; `-` if nothing
/// is.
pub fn why(edge: &Edge) -> String {
    if edge.why.is_empty() && edge.unverified_user.is_none() {
        return "-".to_owned();
    }
    let cause = |Cause { cause, text, count }: &Cause| match &**cause {
        "receive_queue" | "send_queue" => format!("{} {text}", human::bytes(*count)),
        _ => format!("{} {text}", human::count(*count)),
    };
    let mark = edge.unverified_user.map(|user| format!("unverified (user {user})"));
    mark.into_iter().chain(edge.why.iter().map(cause)).collect::<Vec<_>>().join(", ")
}

/// 2: something failed or is stuck; 1: nothing but what programs do on purpose, as proxies that close
/// idle connections with a reset and servers that stop; 0: all is well.
pub fn urgency(edge: &Edge) -> u64 {
    let is_meant =
        |Cause { cause, .. }: &Cause| &**cause == "reset_linger" || cause.ends_with("_stopping");
    u64::from(!edge.why.is_empty()) + u64::from(!edge.why.iter().all(is_meant))
}

/// Connects that succeeded.
pub fn connected(edge: &Edge) -> u64 {
    edge.connects.get("ok").copied().unwrap_or_default()
}

/// Connects that failed.
pub fn failed(edge: &Edge) -> u64 {
    edge.connects.values().sum::<u64>() - connected(edge)
}

/// Responses whose status is known.
pub fn responses(edge: &Edge) -> u64 {
    edge.responses.values().flat_map(|statuses| statuses.values()).sum()
}

/// Responses that are errors of the server.
pub fn error_responses(edge: &Edge) -> u64 {
    let statuses = edge.responses.values().flatten();
    statuses.filter(|(status, _)| is_error(status)).map(|(_, count)| count).sum()
}

/// Whether a response of this status is an error of the server: not what its caller did wrong.
pub fn is_error(status: &str) -> bool {
    matches!(status, "5xx" | "error")
}

/// Connects that failed, requests without a response and those that were answered with an error, as a
/// share of all connects and requests; `None` without any.
pub fn error_ratio(edge: &Edge) -> Option<f64> {
    let unmade = failed(edge).saturating_add(edge.unanswered);
    let all = unmade.saturating_add(connected(edge)).saturating_add(edge.request.count);
    let bad = unmade.saturating_add(error_responses(edge));
    (all > 0).then(|| (bad as f64 / all as f64).min(1.0))
}

/// Connections that a kernel gave up.
pub fn aborts(edge: &Edge) -> u64 {
    edge.aborts.values().sum()
}

/// Resets, without those that answered a connect: these are failed connects.
pub fn resets(edge: &Edge) -> u64 {
    let received = edge.resets_received.iter().filter(|(cause, _)| *cause != "no_listener");
    let both = received.chain(&edge.resets_sent);
    // Health checks cut connections that nobody used.
    both.filter(|(cause, _)| *cause != "unused").map(|(_, count)| count).sum()
}
