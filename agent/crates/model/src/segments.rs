//! Segments: declared parts of the network, and which of them may connect to which.
//!
//! An end belongs to a segment by its service, else by its namespace, else by its address, where
//! the longest declared prefix wins. An end in no segment is *outside*.
//!
//! Rules are pairs, `frontend -> backend`, in which `*` is any segment and `outside` an end in
//! none. For a pair of segments the most specific rule decides. Without a rule a segment may
//! connect to itself, segments may not connect to each other, and connections from or to outside
//! are not evaluated. Rules of the same form say between which segments connections must be
//! encrypted with TLS; each of them holds, whatever others say.

mod rule;

use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;
use serde::{Serialize, Serializer};

pub use self::rule::{End, Rule};
use super::service::Service;

/// Maximum number of segments: the matrix is their square.
pub const MAX_SEGMENTS: usize = 64;

/// The name for ends in no segment.
pub const OUTSIDE: &str = "outside";

/// The word for any segment.
const ANY: &str = "*";

/// One line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declared {
    /// This network belongs to that segment.
    Network(Arc<str>, IpNet),
    /// Services of this namespace belong to that segment.
    Namespace(Arc<str>, Arc<str>),
    /// This service (`name`, or `namespace/name`) belongs to that segment.
    Service(Arc<str>, Arc<str>),
    /// These may connect.
    Allow(Rule),
    /// These may not.
    Deny(Rule),
    /// Connections between these must be encrypted with TLS.
    RequireTls(Rule),
}

/// Two declarations of which only one can hold, or one that refers to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The declaration that came first, if there are two.
    pub first: Option<usize>,
    /// The one that does not go with it.
    pub second: usize,
    /// The effect of the second rule.
    pub problem: String,
}

/// A segment by number; `None` is outside.
pub type Segment = Option<u16>;

/// The verdict on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Allowed.
    Allowed,
    /// Not allowed.
    Violation,
    /// An end is outside, and no rule names that.
    NotJudged,
}

/// What is wrong with a connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its segments may not connect.
    NotAllowed,
    /// It is in plain text, and must be encrypted.
    Plaintext,
}

/// The declared segments, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    names: Vec<Arc<str>>,
    networks: JointPrefixMap<IpNet, u16>,
    namespaces: HashMap<Arc<str>, u16>,
    services: HashMap<Arc<str>, u16>,
    rules: HashMap<(Segment, Segment), Verdict>,
    encrypted: HashSet<(Segment, Segment)>,
    declared: Vec<Declared>,
}

// === impl Policy ===

impl Policy {
    /// Checks declarations, in the order in which they were written.
    pub fn new(declared: Vec<Declared>) -> Result<Self, Contradiction> {
        let mut policy = Self::default();
        let mut members: HashMap<String, (usize, Arc<str>)> = HashMap::new();
        for (at, declaration) in declared.iter().enumerate() {
            let (segment, member) = match declaration {
                Declared::Network(segment, network) => (segment, format!("network {network}")),
                Declared::Namespace(segment, name) => (segment, format!("namespace \"{name}\"")),
                Declared::Service(segment, name) => (segment, format!("service \"{name}\"")),
                Declared::Allow(_) | Declared::Deny(_) | Declared::RequireTls(_) => continue,
            };
            match members.entry(member) {
                Entry::Occupied(entry) if entry.get().1 != *segment => {
                    let (first, other) = entry.get();
                    let problem = format!(
                        "puts {} into the segment `{segment}`, but it is in `{other}` already; keep one of the two",
                        entry.key()
                    );
                    return Err(Contradiction { first: Some(*first), second: at, problem });
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(entry) => {
                    entry.insert((at, Arc::clone(segment)));
                }
            }
            policy.add(at, declaration)?;
        }
        policy.judge(&declared)?;
        policy.encrypt(&declared)?;
        policy.declared = declared;
        Ok(policy)
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The declarations.
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// The networks of all segments.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.declared.iter().filter_map(|declaration| match declaration {
            Declared::Network(_, network) => Some(*network),
            _ => None,
        })
    }

    /// Every declared segment.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        (0..self.names.len() as u16).map(Some)
    }

    /// Every declared segment, then outside.
    pub fn with_outside(&self) -> impl Iterator<Item = Segment> {
        self.segments().chain([None])
    }

    /// The name of a segment.
    pub fn name(&self, segment: Segment) -> Arc<str> {
        let name = segment.and_then(|segment| self.names.get(usize::from(segment)));
        name.cloned().unwrap_or_else(|| OUTSIDE.into())
    }

    /// The segment of one end; `address` is `None` if unknown.
    pub fn segment(&self, service: &Service, address: Option<std::net::IpAddr>) -> Segment {
        let Service { name, namespace, .. } = service;
        let full = || format!("{namespace}/{name}");
        let by_service = if self.services.is_empty() {
            None
        } else {
            self.services.get(full().as_str()).or_else(|| self.services.get(&**name))
        };
        by_service.or_else(|| self.namespaces.get(&**namespace)).copied().or_else(|| {
            self.networks.get_lpm(&address?.to_canonical().into()).map(|found| *found.1)
        })
    }

    /// The verdict on connections between these two.
    pub fn verdict(&self, client: Segment, server: Segment) -> Verdict {
        let default = if client.is_none() || server.is_none() {
            Verdict::NotJudged
        } else if client == server {
            Verdict::Allowed
        } else {
            Verdict::Violation
        };
        self.rules.get(&(client, server)).copied().unwrap_or(default)
    }

    /// Whether connections between these must be encrypted.
    pub fn requires_tls(&self, client: Segment, server: Segment) -> bool {
        self.encrypted.contains(&(client, server))
    }

    fn add(&mut self, at: usize, declaration: &Declared) -> Result<(), Contradiction> {
        let (Declared::Network(name, _)
        | Declared::Namespace(name, _)
        | Declared::Service(name, _)) = declaration
        else {
            return Ok(());
        };
        let known = self.names.iter().position(|known| known == name);
        let segment = known.unwrap_or(self.names.len());
        if segment == MAX_SEGMENTS {
            let problem = format!("declares one more than {MAX_SEGMENTS} segments; merge some");
            return Err(Contradiction { first: None, second: at, problem });
        }
        if known.is_none() {
            self.names.push(Arc::clone(name));
        }
        let segment = segment as u16;
        match declaration {
            Declared::Network(_, network) => drop(self.networks.insert(*network, segment)),
            Declared::Namespace(_, name) => drop(self.namespaces.insert(name.clone(), segment)),
            Declared::Service(_, name) => drop(self.services.insert(name.clone(), segment)),
            Declared::Allow(_) | Declared::Deny(_) | Declared::RequireTls(_) => {}
        }
        Ok(())
    }

    /// Spreads the rules over the matrix.
    fn judge(&mut self, declared: &[Declared]) -> Result<(), Contradiction> {
        let mut decided: HashMap<(Segment, Segment), (usize, usize)> = HashMap::new();
        let rule = |(at, declaration): (usize, &Declared)| match declaration {
            Declared::Allow(rule) => Some((at, rule.clone(), Verdict::Allowed)),
            Declared::Deny(rule) => Some((at, rule.clone(), Verdict::Violation)),
            _ => None,
        };
        let mut rules: Vec<_> = declared.iter().enumerate().filter_map(rule).collect();
        // Specific rules first: the others do not override them.
        rules.sort_by_key(|(_, rule, _)| std::cmp::Reverse(rule.names()));
        for (at, rule, verdict) in rules {
            let clients = self.meant(&rule.client, at)?;
            let servers = self.meant(&rule.server, at)?;
            let pairs = clients
                .iter()
                .flat_map(|client| servers.iter().map(move |server| (*client, *server)));
            for pair in pairs {
                let (first, names) = *decided.entry(pair).or_insert((at, rule.names()));
                if names > rule.names() {
                    continue;
                }
                if self.rules.insert(pair, verdict).is_some_and(|other| other != verdict) {
                    let (client, server) = (self.name(pair.0), self.name(pair.1));
                    let says = if verdict == Verdict::Allowed { "allows" } else { "denies" };
                    let problem = format!(
                        "{says} `{client} -> {server}` by the rule `{rule}`, but an equally exact rule says the opposite; keep one of the two"
                    );
                    let (first, second) = (Some(first.min(at)), first.max(at));
                    return Err(Contradiction { first, second, problem });
                }
            }
        }
        Ok(())
    }

    /// The pairs of segments that must use TLS.
    fn encrypt(&mut self, declared: &[Declared]) -> Result<(), Contradiction> {
        for (at, declaration) in declared.iter().enumerate() {
            let Declared::RequireTls(rule) = declaration else { continue };
            let servers = self.meant(&rule.server, at)?;
            for client in self.meant(&rule.client, at)? {
                self.encrypted.extend(servers.iter().map(|server| (client, *server)));
            }
        }
        Ok(())
    }

    /// The segments that one end of a rule matches.
    fn meant(&self, end: &End, at: usize) -> Result<Vec<Segment>, Contradiction> {
        match end {
            End::Any => Ok(self.segments().collect()),
            End::Outside => Ok(vec![None]),
            End::Segment(name) => match self.names.iter().position(|known| known == name) {
                Some(segment) => Ok(vec![Some(segment as u16)]),
                None => Err(Contradiction {
                    first: None,
                    second: at,
                    problem: format!(
                        "this rule names the segment `{name}`, which is not declared; declare it with [segments.{name}], or choose one of {}",
                        self.names
                            .iter()
                            .map(|name| &**name)
                            .chain([OUTSIDE, ANY])
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                }),
            },
        }
    }
}

/// The form used in the configuration.
impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Default, Serialize)]
        struct Members {
            networks: Vec<String>,
            namespaces: Vec<String>,
            services: Vec<String>,
        }
        #[derive(Default, Serialize)]
        struct Shape {
            allow: Vec<String>,
            deny: Vec<String>,
            require_tls: Vec<String>,
            #[serde(flatten)]
            segments: std::collections::BTreeMap<String, Members>,
        }
        fn of<'a>(shape: &'a mut Shape, name: &str) -> &'a mut Members {
            shape.segments.entry(name.to_owned()).or_default()
        }
        let mut shape = Shape::default();
        for declaration in &self.declared {
            match declaration {
                Declared::Network(name, network) => {
                    of(&mut shape, name).networks.push(network.to_string());
                }
                Declared::Namespace(name, member) => {
                    of(&mut shape, name).namespaces.push(member.to_string());
                }
                Declared::Service(name, member) => {
                    of(&mut shape, name).services.push(member.to_string());
                }
                Declared::Allow(rule) => shape.allow.push(rule.to_string()),
                Declared::Deny(rule) => shape.deny.push(rule.to_string()),
                Declared::RequireTls(rule) => shape.require_tls.push(rule.to_string()),
            }
        }
        shape.serialize(serializer)
    }
}

// === impl Reason ===

impl Reason {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Plaintext => "plaintext",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Violation => "violation",
            Self::NotJudged => "not_judged",
        }
    }
}

#[cfg(test)]
mod tests;
