//! The sections `[segments]` and `[segments.NAME]` of a file: parts of the network and rules.
//!
//! The operator chooses these keys, so they are not in the table of settings, and have neither
//! flags nor variables.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::file::Entry;
use super::value::{networks, parts, quoted_list};
use super::{Config, ConfigError, Given, Location};
use model::segments::{Contradiction, Declared, OUTSIDE, Policy};

/// Keys of `[segments]` itself; no segment can be called so.
const RULES: [&str; 3] = ["allow", "deny", "require_tls"];
/// Keys of `[segments.NAME]`.
const MEMBERS: [&str; 3] = ["networks", "namespaces", "services"];

/// The prefix of every key.
const PREFIX: &str = "segments.";

/// Whether a key belongs here.
pub(super) fn is_theirs(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// The sections of a file, while they are read.
pub(super) struct Sections {
    path: PathBuf,
    declared: Vec<Declared>,
    lines: Vec<usize>,
}

// === impl Sections ===

impl Sections {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), declared: Vec::new(), lines: Vec::new() }
    }

    /// Takes one value of the file.
    pub(super) fn take(&mut self, entry: &Entry) -> Result<(), ConfigError> {
        let key = entry.key.strip_prefix(PREFIX).unwrap_or(&entry.key);
        let (segment, name) = key.rsplit_once('.').unwrap_or(("", key));
        let known: &[&str] = if segment.is_empty() { &RULES } else { &MEMBERS };
        if !known.contains(&name) {
            let near = notation::nearest(name, known.iter().copied());
            let near = near.map(|near| match segment {
                "" => format!("{PREFIX}{near}"),
                _ => format!("{PREFIX}{segment}.{near}"),
            });
            let location = self.location(entry.line);
            return Err(ConfigError::UnknownKey { location, key: entry.key.clone(), near });
        }
        if !segment.is_empty() && !is_name(segment) {
            let problem = format!(
                "is of a segment that cannot be called `{segment}`; choose letters, digits, - and _, and another name than {} or {OUTSIDE}",
                RULES.join(", ")
            );
            return Err(self.bad(entry, entry.line, problem));
        }
        let segment: Arc<str> = segment.into();
        for (index, part) in parts(&entry.value).enumerate() {
            let line = entry.line_of(index);
            let declared = declare(&segment, name, part);
            self.declared.extend(declared.map_err(|problem| self.bad(entry, line, problem))?);
            self.lines.resize(self.declared.len(), line);
        }
        Ok(())
    }

    /// Where TLS is required first.
    pub(super) fn encrypted(&self) -> Option<Location> {
        let is_one = |declared: &Declared| matches!(declared, Declared::RequireTls(_));
        let at = self.declared.iter().position(is_one)?;
        self.lines.get(at).map(|line| self.location(*line))
    }

    /// All sections, checked against each other.
    pub(super) fn policy(self) -> Result<Policy, ConfigError> {
        // In the order of the lines, so that the first is the one that is written first.
        let mut all: Vec<_> = self.lines.iter().copied().zip(self.declared).collect();
        all.sort_by_key(|(line, _)| *line);
        let (lines, declared): (Vec<usize>, Vec<Declared>) = all.into_iter().unzip();
        let location = |at: usize| {
            Location::File(self.path.clone(), lines.get(at).copied().unwrap_or_default())
        };
        Policy::new(declared).map_err(|Contradiction { first, second, problem }| {
            ConfigError::Contradiction {
                location: location(second),
                first: first.map(location),
                problem,
            }
        })
    }

    fn location(&self, line: usize) -> Location {
        Location::File(self.path.clone(), line)
    }

    fn bad(&self, entry: &Entry, line: usize, problem: String) -> ConfigError {
        ConfigError::BadValue { location: self.location(line), key: entry.key.clone(), problem }
    }
}

// === impl Config ===

impl Config {
    /// The ranges whose addresses have rows of their own as clients: the internal ones, and the
    /// networks of segments, because the policy is evaluated by the client's address.
    pub fn kernel_ranges(&self) -> Vec<IpNet> {
        let networks = self.segments.networks().filter(|network| {
            !self.internal_ranges.iter().any(|internal| internal.contains(network))
        });
        let mut ranges = self.internal_ranges.clone();
        ranges.extend(IpNet::aggregate(&networks.collect()));
        ranges
    }
}

impl Config {
    /// Whether protocols are recognised, and with them TLS.
    pub fn reads_responses(&self) -> bool {
        self.requests && self.responses
    }
}

fn declare(segment: &Arc<str>, key: &str, part: &str) -> Result<Vec<Declared>, String> {
    let segment = Arc::clone(segment);
    Ok(match key {
        "allow" => vec![Declared::Allow(part.parse()?)],
        "deny" => vec![Declared::Deny(part.parse()?)],
        "require_tls" => vec![Declared::RequireTls(part.parse()?)],
        "namespaces" => vec![Declared::Namespace(segment, part.into())],
        "services" => vec![Declared::Service(segment, part.into())],
        _ => networks(&Given::Text(part.to_owned()))?
            .into_iter()
            .map(|network| Declared::Network(Arc::clone(&segment), network))
            .collect(),
    })
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.chars().all(plain) && name != OUTSIDE && !RULES.contains(&name)
}

/// The sections as TOML; nothing if nothing is declared.
pub fn text(policy: &Policy) -> String {
    let mut text = String::new();
    if policy.declared().is_empty() {
        return text;
    }
    // Writing into a String cannot fail.
    let _ = writeln!(text, "\n[segments]");
    let rules = |wanted: fn(&Declared) -> bool| -> Vec<String> {
        let rules = policy.declared().iter().filter(|declared| wanted(declared));
        rules
            .filter_map(|declared| match declared {
                Declared::Allow(rule) | Declared::Deny(rule) | Declared::RequireTls(rule) => {
                    Some(rule.to_string())
                }
                _ => None,
            })
            .collect()
    };
    let lists = [
        (RULES[0], rules(|declared| matches!(declared, Declared::Allow(_)))),
        (RULES[1], rules(|declared| matches!(declared, Declared::Deny(_)))),
        (RULES[2], rules(|declared| matches!(declared, Declared::RequireTls(_)))),
    ];
    for (key, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(text, "{key} = {}", quoted_list(list));
    }
    for segment in policy.segments() {
        let name = policy.name(segment);
        let _ = writeln!(text, "\n[segments.{name}]");
        for key in MEMBERS {
            let list: Vec<String> = policy
                .declared()
                .iter()
                .filter_map(|declared| match (key, declared) {
                    ("networks", Declared::Network(of, network)) if *of == name => {
                        Some(network.to_string())
                    }
                    ("namespaces", Declared::Namespace(of, member))
                    | ("services", Declared::Service(of, member))
                        if *of == name =>
                    {
                        Some(member.to_string())
                    }
                    _ => None,
                })
                .collect();
            if !list.is_empty() {
                let _ = writeln!(text, "{key} = {}", quoted_list(&list));
            }
        }
    }
    text
}
