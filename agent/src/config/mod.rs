//! What the operator decides: a file, the environment and flags, parsed once into checked types.
//!
//! Every setting is one row of [`settings::SETTINGS`]; its flag, its environment variable, its key
//! in the file, its help and `portolan config show` all come from that row. Flags win over the
//! environment, the environment over the file, the file over the defaults.

mod confinement;
mod file;
mod log;
mod names;
mod nearest;
mod otlp;
pub mod segments;
pub mod settings;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

pub use self::confinement::{Keep, Seccomp};
pub use self::log::{Log, LogFormat, LogLevel};
pub use self::names::Names;
pub use self::otlp::{Headers, Otlp};
use self::settings::{RENAMED, SETTINGS, Setting};
pub use self::value::Given;
use model::balance::Weights;
use model::reservations::{Environment, Reservation};
use model::segments::Policy;

/// At most this many internal ranges: the kernel half keeps them in a table of fixed size.
pub const MAX_INTERNAL_RANGES: usize = 32;

/// Everything an operator can choose, checked.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states of a machine")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The HTTP server.
    pub web: Web,
    /// The agent's own log.
    pub log: Log,
    /// Keep maps and links in the BPF file system, so that a restart loses nothing.
    pub pin: bool,
    /// Let the kernel programs log, for debugging.
    pub bpf_log: bool,
    /// Addresses that belong to us; a server's clients from elsewhere are one row, `internet`.
    pub internal_ranges: Vec<IpNet>,
    /// Sizes of the kernel's tables.
    pub limits: Limits,
    /// Where names come from.
    pub names: Names,
    /// Measure request latency: three more hooks.
    pub requests: bool,
    /// How often the kernel's counters are collected between scrapes.
    #[serde(serialize_with = "value::serialize_duration")]
    pub collection_interval: Duration,
    /// Turn on the kernel's run-time statistics of BPF programs.
    pub run_stats: bool,
    /// Where the lock lies that keeps a second agent off this host, and the socket for changes.
    pub run_directory: PathBuf,
    /// Where the agent keeps reservations and registered services.
    pub state_directory: PathBuf,
    /// Id of the group that may make changes, beside root and the agent's own user.
    pub control_group: Option<u32>,
    /// Ports kept for services.
    pub ports: Ports,
    /// Hooks to do without, as if this kernel did not have them.
    pub disable_hooks: Vec<String>,
    /// Kernel fields to do without, as if this kernel did not have them.
    pub disable_fields: Vec<String>,
    /// Which capabilities are kept after the start.
    pub privileges: Keep,
    /// What becomes of system calls that the running agent does not make.
    pub seccomp: Seccomp,
    /// Enter other network namespaces while running, and not only at the start.
    pub enter_namespaces: bool,
    /// Pushing metrics to a collector.
    pub otlp: Otlp,
    /// Expected load of backends.
    pub balance: Balance,
    /// Parts of the network, and which may connect to which; only in a file.
    pub segments: Arc<Policy>,
}

/// Expected load of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// What backends are meant to get where that is not the same for all.
    pub weights: Weights,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Web {
    /// Where it listens.
    pub listen_address: SocketAddr,
    /// The file with TLS, passwords and headers, as Prometheus' exporters have it.
    pub config_file: Option<PathBuf>,
    /// The path of a reverse proxy below which everything is served too, like `/portolan`; empty
    /// for none.
    pub external_path: String,
}

/// Ports kept for services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// Reservations that cannot be changed while the agent runs.
    #[serde(serialize_with = "value::serialize_texts")]
    pub reservations: Vec<Reservation>,
    /// What this host is for; `None`: for everything.
    pub environment: Option<Environment>,
}

/// Sizes of the kernel's tables; `None` = derived from the memory of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Edges.
    pub edges: Option<u32>,
    /// Owners of sockets.
    pub owners: Option<u32>,
    /// Ends of edges that are called by their address.
    pub addresses: Option<u32>,
    /// Bytes of the ring of details.
    pub ring_bytes: Option<u32>,
    /// Bytes that the agent itself may take; `None` = what its cgroup allows.
    pub memory_bytes: Option<u64>,
}

/// A configuration, and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where they come from, by key; a key that is not here has its default.
    pub origins: BTreeMap<&'static str, Place>,
    /// What looks like a mistake, but may be someone else's: sentences for the log.
    pub warnings: Vec<String>,
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}; check the path given with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither TOML nor YAML by its name.
    #[error("{}: unknown format; name the file .toml, .yaml or .yml", .0.display())]
    UnknownFormat(PathBuf),
    /// The file is not what its name says.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser said.
        message: String,
    },
    /// A key that has been renamed.
    #[error("{place}: {old} has been renamed: use {new}")]
    RenamedKey {
        /// Where.
        place: Place,
        /// The key, or `it` if the place says what it is.
        old: String,
        /// What it is called now.
        new: String,
    },
    /// A key nobody knows.
    #[error("{place}: unknown key `{key}`{}", nearest::suggestion(near.as_deref()))]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// The nearest known key.
        near: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("{place}: `{key}` {problem}")]
    BadValue {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A value that does not go with another.
    #[error("{place}: {problem}{}", the_other(first.as_ref()))]
    Contradiction {
        /// Where.
        place: Place,
        /// Where the other is, if there is one.
        first: Option<Place>,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Builds the configuration: defaults, then `file`, then the `PORTOLAN_…` variables among
/// `environment`, then `flags` (setting and value).
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(&'static Setting, Given)],
) -> Result<Loaded, ConfigError> {
    let mut loaded =
        Loaded { config: Config::default(), origins: BTreeMap::new(), warnings: Vec::new() };
    if let Some(path) = file {
        let mut sections = segments::Sections::new(path);
        for entry in file::read(path)? {
            if segments::is_theirs(&entry.key) {
                sections.take(&entry)?;
                continue;
            }
            let place = Place::File(path.to_owned(), entry.line);
            let Some(setting) = settings::find(&entry.key) else {
                if let Some(renamed) = RENAMED.iter().find(|one| one.key == entry.key) {
                    let new = renamed.now(|setting| format!("`{}`", setting.key));
                    let old = format!("`{}`", entry.key);
                    return Err(ConfigError::RenamedKey { place, old, new });
                }
                let near = nearest::nearest(&entry.key, SETTINGS.iter().map(|s| s.key));
                return Err(ConfigError::UnknownKey { place, key: entry.key, near });
            };
            loaded.apply(setting, &entry.value, place)?;
        }
        loaded.config.segments = Arc::new(sections.policy()?);
    }
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(settings::ENV_PREFIX))
        .collect();
    variables.sort();
    for (name, value) in variables {
        if let Some(setting) = SETTINGS.iter().find(|s| s.env() == name) {
            loaded.apply(setting, &Given::Text(value), Place::Environment(name))?;
        } else if let Some(renamed) = RENAMED.iter().find(|one| settings::variable(one.key) == name)
        {
            let new = renamed.now(Setting::env);
            let (place, old) = (Place::Environment(name), "it".to_owned());
            return Err(ConfigError::RenamedKey { place, old, new });
        } else if name != settings::ENV_CONFIG {
            loaded.warn_of_variable(&name);
        }
    }
    for (setting, value) in flags {
        loaded.apply(setting, value, Place::Flag(setting.flag.name()))?;
    }
    let ranges = loaded.config.kernel_ranges().len();
    if ranges > MAX_INTERNAL_RANGES {
        let origin = loaded.origins.get("internal_ranges").cloned();
        return Err(ConfigError::BadValue {
            place: origin.unwrap_or_else(|| Place::File(file.unwrap_or(Path::new("")).into(), 1)),
            key: "internal_ranges".to_owned(),
            problem: format!(
                "and the networks of all segments make {ranges} ranges; at most {MAX_INTERNAL_RANGES} fit, so write fewer and wider ones"
            ),
        });
    }
    Ok(loaded)
}

// === impl Loaded ===

impl Loaded {
    /// Where the value of `key` comes from, for people.
    pub fn origin(&self, key: &str) -> String {
        self.origins.get(key).map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    fn apply(
        &mut self,
        setting: &'static Setting,
        value: &Given,
        place: Place,
    ) -> Result<(), ConfigError> {
        match (setting.set)(&mut self.config, value) {
            Ok(()) => {
                self.origins.insert(setting.key, place);
                Ok(())
            }
            Err(problem) => {
                Err(ConfigError::BadValue { place, key: setting.key.to_owned(), problem })
            }
        }
    }

    /// An unknown variable is no error: Kubernetes puts `PORTOLAN_PORT=tcp://…` and its like into
    /// every pod that lives beside a Service of that name. One that nearly fits is worth a word.
    fn warn_of_variable(&mut self, name: &str) {
        let prefix = settings::ENV_PREFIX;
        let known: Vec<String> = SETTINGS.iter().map(Setting::env).collect();
        // Without the prefix: it is the same in all, so it would make all of them near.
        let ends = known.iter().filter_map(|known| known.strip_prefix(prefix));
        if let Some(near) = nearest::nearest(name.strip_prefix(prefix).unwrap_or(name), ends) {
            self.warnings.push(format!(
                "the environment variable {name} is not known and has no effect; did you mean {prefix}{near}?"
            ));
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            web: Web {
                listen_address: SocketAddr::from(([127, 0, 0, 1], 10062)),
                config_file: None,
                external_path: String::new(),
            },
            log: Log { level: LogLevel::Info, format: LogFormat::Text },
            pin: false,
            bpf_log: false,
            internal_ranges: value::default_internal_ranges(),
            limits: Limits::default(),
            names: Names::default(),
            requests: true,
            collection_interval: Duration::from_secs(1),
            run_stats: false,
            run_directory: PathBuf::from("/run/portolan"),
            state_directory: PathBuf::from("/var/lib/portolan"),
            control_group: None,
            ports: Ports::default(),
            disable_hooks: Vec::new(),
            disable_fields: Vec::new(),
            otlp: Otlp::default(),
            balance: Balance::default(),
            segments: Arc::default(),
            privileges: Keep::Needed,
            seccomp: Seccomp::Log,
            enter_namespaces: true,
        }
    }
}

/// The end of a sentence that names the other place.
fn the_other(first: Option<&Place>) -> String {
    first.map_or_else(String::new, |first| format!("; the other is at {first}"))
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

#[cfg(test)]
mod tests;
