//! Which finding follows from which: an effect names its cause, so that one fault has one root.
//!
//! A cause is at least as bad as what follows from it.

use api_types::{Evidence, Severity, code};

use super::report::Found;

/// The fact that names the subject of the cause.
pub(super) const SUBJECT: &str = "caused_by_subject";

/// Of several hosts: the fact that names the one that a finding is about.
pub(super) const HOST: &str = "host";

/// How two findings have to be related.
#[derive(Clone, Copy)]
enum Relation {
    /// The same server and port.
    Server,
    /// The same server and port, and a client in common.
    Edge,
    /// The server of the effect is a client of the cause: it waits for what it calls.
    Calls,
    /// The client of the effect is what the cause is about.
    Client,
    /// The effect is about connects to the port that the cause names.
    Port,
    /// Both are of this host.
    Host,
}

/// Codes of effects, of their causes, and the relation. The first that applies counts.
const RULES: &[(&[&str], &[&str], Relation)] = &[
    (&[code::NO_LOCAL_PORT], &[code::LOCAL_PORTS_LOW], Relation::Client),
    // Another service of the same network namespace.
    (&[code::NO_LOCAL_PORT], &[code::LOCAL_PORTS_LOW], Relation::Port),
    (&[code::CONNECTS_UNREACHABLE], &[code::NO_DEFAULT_ROUTE], Relation::Client),
    (
        &[code::CONNECTS_TIME_OUT, code::RETRANSMITS, code::SLOW, code::UNANSWERED],
        &[code::ACCEPT_QUEUE],
        Relation::Server,
    ),
    (
        &[
            code::CONNECTS_TIME_OUT,
            code::RESOLVER_FAILS,
            code::SLOW,
            code::UNANSWERED,
            code::CONNECTIONS_DIE,
        ],
        &[code::RETRANSMITS],
        Relation::Edge,
    ),
    (&[code::IDLE_REUSE], &[code::KEEPALIVE_MISMATCH], Relation::Edge),
    (&[code::UNANSWERED], &[code::IDLE_REUSE], Relation::Edge),
    (
        &[
            code::UNANSWERED,
            code::CONNECTIONS_DIE,
            code::CONNECTIONS_RESET,
            code::SLOW,
            code::UNBALANCED,
        ],
        CONNECTS,
        Relation::Server,
    ),
    (&[code::SLOW, code::NOT_READING], &[code::UNANSWERED], Relation::Server),
    (
        &[code::SLOW, code::UNANSWERED, code::CONNECTIONS_RESET, code::ERROR_RESPONSES],
        CONNECTS,
        Relation::Calls,
    ),
    (
        &[code::SLOW, code::UNANSWERED, code::ERROR_RESPONSES],
        &[code::UNANSWERED, code::RETRANSMITS],
        Relation::Calls,
    ),
    (
        &[code::ERROR_RESPONSES],
        &[
            code::IDLE_REUSE,
            code::CONNECTIONS_RESET,
            code::CONNECTIONS_DIE,
            code::NO_LOCAL_PORT,
            code::ERROR_RESPONSES,
        ],
        Relation::Calls,
    ),
    (&[code::SLOW, code::UNANSWERED, code::ERROR_RESPONSES], &[code::SLOW], Relation::Calls),
    (&[code::EVENTS_DROPPED], &[code::TABLE_FULL, code::MEMORY_SHORT], Relation::Host),
    (
        &[code::CONNECTS_TIME_OUT, code::RETRANSMITS],
        &[code::CONNTRACK_FULL, code::NEIGHBOURS_FULL],
        Relation::Host,
    ),
];

const CONNECTS: &[&str] = &[
    code::CONNECTS_REFUSED,
    code::CONNECTS_UNREACHABLE,
    code::CONNECTS_TIME_OUT,
    code::NO_LOCAL_PORT,
    code::RESOLVER_FAILS,
];

/// Sets `caused_by` of what follows from another finding.
pub(super) fn link(found: &mut [Found]) {
    let mut parents: Vec<Option<usize>> = vec![None; found.len()];
    for effect in 0..found.len() {
        let cause = RULES.iter().find_map(|rule| {
            let candidates = 0..found.len();
            candidates
                .filter(|cause| !leads_to(&parents, *cause, effect))
                .filter(|cause| applies(found, rule, effect, *cause))
                .max_by_key(|cause| found.get(*cause).map(|one| one.finding.severity))
        });
        if let Some(parent) = parents.get_mut(effect) {
            *parent = cause;
        }
    }
    for (effect, cause) in parents.iter().enumerate() {
        let Some(cause) = cause.and_then(|cause| found.get(cause)) else { continue };
        let (code, subject) = (cause.finding.code.clone(), cause.finding.subject.clone());
        let Some(effect) = found.get_mut(effect) else { continue };
        effect.finding.caused_by = Some(code);
        effect.finding.evidence.insert(SUBJECT.to_owned(), Evidence::Text(subject));
    }
    raise(found, &parents);
}

/// A cause has the severity of its worst effect.
fn raise(found: &mut [Found], parents: &[Option<usize>]) {
    for effect in 0..found.len() {
        let Some(severity) = found.get(effect).map(|one| one.finding.severity) else { continue };
        let mut at = effect;
        // It ends: `leads_to` closes no circle.
        while let Some(cause) = parents.get(at).copied().flatten() {
            if let Some(one) = found.get_mut(cause) {
                one.finding.severity = one.finding.severity.max(severity);
            }
            at = cause;
        }
    }
}

/// Whether `cause` is `effect`, or follows from it.
fn leads_to(parents: &[Option<usize>], cause: usize, effect: usize) -> bool {
    let mut at = Some(cause);
    while let Some(one) = at {
        if one == effect {
            return true;
        }
        at = parents.get(one).copied().flatten();
    }
    false
}

fn applies(
    found: &[Found],
    (effects, causes, relation): &(&[&str], &[&str], Relation),
    effect: usize,
    cause: usize,
) -> bool {
    let (Some(effect), Some(cause)) = (found.get(effect), found.get(cause)) else { return false };
    let is_grave = |one: &Found| one.finding.severity > Severity::Info;
    let has = |codes: &[&str], one: &Found| codes.contains(&one.finding.code.as_str());
    if !(is_grave(effect) && is_grave(cause) && has(effects, effect) && has(causes, cause)) {
        return false;
    }
    let same_server = effect.server.is_some()
        && effect.server == cause.server
        && effect.port.is_some()
        && effect.port == cause.port;
    match relation {
        Relation::Server => same_server,
        Relation::Edge => {
            same_server && effect.clients.iter().any(|client| cause.clients.contains(client))
        }
        Relation::Calls => {
            effect.server.as_ref().is_some_and(|server| cause.clients.contains(server))
        }
        Relation::Client => {
            cause.server.as_ref().is_some_and(|server| effect.clients.contains(server))
        }
        Relation::Port => effect.port.is_some() && effect.port == cause.port,
        Relation::Host => host(effect) == host(cause),
    }
}

/// The host that a finding is about; nothing if only one was asked.
fn host(one: &Found) -> Option<&Evidence> {
    one.finding.evidence.get(HOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::name::Name;
    use api_types::Finding;

    /// A finding on an edge.
    fn on(code: &str, severity: Severity, client: &str, server: &str) -> Found {
        let subject = format!("{client} → {server}:80");
        Found {
            finding: Finding::new(code, severity, &subject, subject.clone()),
            clients: vec![Name::new("", client)],
            server: Some(Name::new("", server)),
            port: Some(80),
        }
    }

    /// Codes with their causes and severities after linking.
    fn linked(mut found: Vec<Found>) -> Vec<(String, Option<String>, Severity)> {
        link(&mut found);
        let of = |one: Found| (one.finding.code, one.finding.caused_by, one.finding.severity);
        found.into_iter().map(of).collect()
    }

    #[test]
    fn a_slow_caller_follows_from_the_service_that_fails() {
        let found = linked(vec![
            on(code::SLOW, Severity::Warning, "users", "gateway"),
            on(code::CONNECTS_REFUSED, Severity::Error, "gateway", "catalog"),
            on(code::UNANSWERED, Severity::Warning, "gateway", "catalog"),
            on(code::SLOW, Severity::Warning, "other", "unrelated"),
            on(code::ERROR_RESPONSES, Severity::Warning, "users", "gateway"),
            on(code::ERROR_RESPONSES, Severity::Warning, "unrelated", "database"),
        ]);
        let causes: Vec<_> = found.iter().map(|(_, cause, _)| cause.as_deref()).collect();
        assert_eq!(causes, [Some("PC101"), None, Some("PC101"), None, Some("PC101"), None]);
    }

    #[test]
    fn loss_is_the_cause_of_timeouts_and_as_bad_as_they_are() {
        let found = linked(vec![
            on(code::CONNECTS_TIME_OUT, Severity::Error, "gateway", "catalog"),
            on(code::RETRANSMITS, Severity::Warning, "gateway", "catalog"),
            on(code::SLOW, Severity::Warning, "users", "gateway"),
        ]);
        assert_eq!(found[0].1.as_deref(), Some("PP204"));
        assert_eq!((found[1].1.as_deref(), found[1].2), (None, Severity::Error));
        assert!(found[2].1.is_some());
    }

    #[test]
    fn services_that_call_each_other_have_no_circle_of_causes() {
        let found = linked(vec![
            on(code::SLOW, Severity::Warning, "a", "b"),
            on(code::SLOW, Severity::Warning, "b", "c"),
            on(code::SLOW, Severity::Warning, "c", "a"),
        ]);
        let roots = found.iter().filter(|(_, cause, _)| cause.is_none()).count();
        assert_eq!(roots, 1, "{found:?}");
    }

    #[test]
    fn a_client_without_a_local_port_shares_them_with_its_namespace() {
        let used_up = |port| Found {
            clients: Vec::new(),
            server: Some(Name::new("", "auth")),
            port: Some(port),
            ..on(code::LOCAL_PORTS_LOW, Severity::Error, "", "auth")
        };
        let fails = || on(code::NO_LOCAL_PORT, Severity::Error, "scraper", "cache");
        let found = linked(vec![fails(), used_up(80)]);
        assert_eq!(found[0].1.as_deref(), Some("PO320"));
        let found = linked(vec![fails(), used_up(81)]);
        assert_eq!(found[0].1, None, "the ports to another destination are used up");
    }

    #[test]
    fn what_is_for_information_explains_nothing() {
        let found = linked(vec![
            on(code::SLOW, Severity::Warning, "users", "gateway"),
            on(code::CONNECTS_REFUSED, Severity::Info, "gateway", "catalog"),
        ]);
        assert_eq!(found[0].1, None);
    }
}
