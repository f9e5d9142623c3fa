//! Faults of connections, from the counts of pairs. Each kind of fault is a row of [`KINDS`]: what it
//! counts, from where on it is a finding, and what it says. Pairs with one cause are one finding.

mod attempts;
mod connects;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use api_types::{Change, Finding, Role, Severity, code};
use notation::duration::ago;

use super::answers::Answers;
use super::name::Name;
use super::pairs::Pair;
use super::report::{Checks, Found};
use super::since;
use crate::human;

/// Names of clients in a title.
const NAMES: usize = 3;
/// A client with more findings of a kind than this has one for all: it scans, or its network fails.
const MANY: usize = 10;
/// The server of such a finding.
pub(super) const SEVERAL: &str = "several servers";
/// Changes that a finding names.
const CHANGES: usize = 3;
/// Ports of DNS over TCP and TLS.
const DNS: [u16; 2] = [53, 853];

/// All kinds, those that explain others first.
const KINDS: [&[Kind]; 2] = [&connects::KINDS, &traffic::KINDS];

/// A kind of fault.
struct Kind {
    code: &'static str,
    /// Whose pairs are one finding.
    blame: Blame,
    /// Names of the counts among the evidence.
    counted: &'static str,
    of: Option<&'static str>,
    /// Causes of the events that it consists of.
    events: fn(&str) -> bool,
    /// The counts of a pair; nothing if it is not concerned.
    count: fn(&Pair, &Answers) -> Option<Sum>,
    /// How bad that is.
    grade: fn(&Sum, &Answers) -> Severity,
    /// In words, behind the names.
    says: fn(&Sum) -> String,
    /// What to do, with the counts, and the names of a client and of the server.
    fix: fn(&Sum, &str, &str) -> String,
}

/// Who has caused it, as far as counts tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The server, or the path to it.
    Server,
    /// The client.
    Client,
}

/// Counts of a pair, or of several.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    of: u64,
    /// The worst of ratios or times.
    worst: f64,
    /// More in words.
    note: Option<&'static str>,
    /// The side whose program is at fault, where that is known.
    side: Option<Role>,
    /// Whether clients are those of the internet.
    is_internet: bool,
}

/// Pairs with one cause.
#[derive(Default)]
struct Group<'a> {
    pairs: Vec<&'a Pair<'a>>,
    sum: Sum,
    severity: Option<Severity>,
    /// One client of many servers.
    is_folded: bool,
}

/// Looks for every kind of fault.
pub(super) fn check(answers: &Answers, pairs: &[Pair<'_>], checks: &mut Checks) {
    for kind in KINDS.iter().copied().flatten() {
        let mut groups: BTreeMap<(Name, u16), Group<'_>> = BTreeMap::new();
        for pair in pairs {
            let Some(sum) = (kind.count)(pair, answers) else { continue };
            let key = match kind.blame {
                Blame::Server => (pair.server.clone(), pair.port),
                Blame::Client => (pair.client.clone(), 0),
            };
            let grade = (kind.grade)(&sum, answers);
            groups.entry(key).or_default().add(pair, sum, grade);
        }
        for group in folded(groups) {
            checks.found.push(kind.found(&group, answers));
        }
    }
    connects::summarize(pairs, checks);
    traffic::summarize(answers, pairs, checks);
}

/// The groups, those of a client of many servers as one.
fn folded<'a>(groups: BTreeMap<(Name, u16), Group<'a>>) -> Vec<Group<'a>> {
    let client = |group: &Group<'_>| match group.pairs.as_slice() {
        [pair] => Some(pair.client.clone()),
        _ => None,
    };
    let mut of_one: BTreeMap<Name, usize> = BTreeMap::new();
    for client in groups.values().filter_map(client) {
        *of_one.entry(client).or_default() += 1;
    }
    let (mut kept, mut many) = (Vec::new(), BTreeMap::<Name, Group<'a>>::new());
    for group in groups.into_values() {
        let client = client(&group).filter(|client| of_one.get(client).is_some_and(|n| *n > MANY));
        let Some(client) = client else {
            kept.push(group);
            continue;
        };
        let Group { pairs, sum, severity, .. } = group;
        let into = many.entry(client).or_default();
        into.is_folded = true;
        for pair in pairs {
            // What is said of one of them is not true of all.
            let sum = Sum { note: None, ..sum };
            into.add(pair, sum, severity.unwrap_or(Severity::Info));
        }
    }
    kept.extend(many.into_values());
    kept
}

// === impl Group ===

impl<'a> Group<'a> {
    fn add(&mut self, pair: &'a Pair<'a>, sum: Sum, severity: Severity) {
        self.pairs.push(pair);
        self.sum.count += sum.count;
        self.sum.of += sum.of;
        self.sum.worst = self.sum.worst.max(sum.worst);
        self.sum.note = self.sum.note.or(sum.note);
        self.sum.side = self.sum.side.or(sum.side);
        self.sum.is_internet |= sum.is_internet;
        self.severity = self.severity.max(Some(severity));
    }

    fn clients(&self) -> Vec<Name> {
        let names: BTreeSet<&Name> = self.pairs.iter().map(|pair| &pair.client).collect();
        names.into_iter().cloned().collect()
    }

    fn servers(&self) -> BTreeSet<(&Name, u16)> {
        self.pairs.iter().map(|pair| (&pair.server, pair.port)).collect()
    }

    /// The one server, if it is one.
    fn server(&self) -> Option<(&Name, u16)> {
        let servers = self.servers();
        servers.first().copied().filter(|_| servers.len() == 1)
    }

    /// What stays the same from run to run.
    fn subject(&self) -> String {
        match (self.pairs.as_slice(), self.server()) {
            ([pair], _) => pair.subject(),
            (_, Some((server, port))) => server.at(port),
            _ => match self.clients().as_slice() {
                [client] => format!("{client} → {SEVERAL}"),
                _ => "several services".to_owned(),
            },
        }
    }
}

// === impl Kind ===

impl Kind {
    fn found(&self, group: &Group<'_>, answers: &Answers) -> Found {
        let Self { counted, of, says, fix, grade, events, .. } = self;
        let (clients, sum) = (group.clients(), &group.sum);
        let subject = group.subject();
        let mut title = format!("{subject}: {}", says(sum));
        let listed = listed(&clients);
        if clients.len() > 1 {
            // Writing into a String cannot fail.
            let _ = write!(title, "; clients: {listed}");
        }
        if group.is_folded {
            let _ = write!(title, "; {} servers and ports", group.servers().len());
        }
        let severity = group.severity.max(Some(grade(sum, answers))).unwrap_or(Severity::Info);
        let server = group.server();
        let is_dns = server.is_some_and(|(_, port)| DNS.contains(&port));
        let code = match self.code {
            code::CONNECTS_REFUSED | code::CONNECTS_UNREACHABLE | code::CONNECTS_TIME_OUT
                if is_dns =>
            {
                code::RESOLVER_FAILS
            }
            code => code,
        };
        let mut finding = Finding::new(code, severity, &subject, title)
            .with("clients", listed.as_str())
            .with(counted, sum.count);
        if let Some(of) = of {
            finding = finding.with(of, sum.of);
        }
        if let Some((name, port)) = server {
            finding = finding.with("server", name.to_string()).with("port", u64::from(port));
        }
        let changes = group.pairs.iter().flat_map(|pair| pair.changes());
        if let Some(before) = changes_before(changes, answers) {
            finding = finding.with("changes_before", before);
        }
        let client = match clients.as_slice() {
            [client] => client.to_string(),
            _ => "each client".to_owned(),
        };
        let server_name = match server {
            // It is unknown what the address belongs to.
            Some((name, port)) if name.name.parse::<IpAddr>().is_ok() => name.at(port),
            Some((name, _)) => name.to_string(),
            None => "the server".to_owned(),
        };
        finding.remediation = Some(fix(sum, &client, &server_name));
        let is_it = |client: &Name, server: &Name, port| {
            let matches = |pair: &&Pair<'_>| {
                (&pair.client, &pair.server, pair.port) == (client, server, port)
            };
            group.pairs.iter().any(matches)
        };
        finding.since = since::of_edges(&answers.events.events, *events, is_it);
        Found {
            finding,
            clients,
            server: server.map(|(name, _)| name.clone()),
            port: server.map(|(_, port)| port),
        }
    }
}

/// Names, the first of many.
fn listed(names: &[Name]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(Name::to_string).collect();
    match names.len().checked_sub(shown.len()) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The latest changes at the services, in words.
pub(super) fn changes_before<'a>(
    changes: impl Iterator<Item = &'a Change>,
    answers: &Answers,
) -> Option<String> {
    let mut changes: Vec<&Change> = changes.collect();
    changes.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.service.cmp(&b.service)));
    changes.dedup();
    let said = |change: &&Change| {
        let ago = ago(answers.edges.timestamp.seconds_since(change.time).max(0.0));
        let name = Name::new(&change.service_namespace, &change.service);
        format!("{name} {} {ago} ago", change.text)
    };
    let said: Vec<String> = changes.iter().take(CHANGES).map(said).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// The share of all, and the counts.
fn share(sum: &Sum, what: &str) -> String {
    let Sum { count, of, .. } = *sum;
    let ratio = if of == 0 { 0.0 } else { count as f64 / of as f64 };
    format!("{} {what} ({} of {})", human::percent(ratio), human::count(count), human::count(of))
}
