//! The configuration: a file, the environment and flags, parsed once into checked types.
//!
//! Every setting is one row of [`settings::SETTINGS`]; its flag, its environment variable, its key
//! in the file, its help and `portolan config show` all come from that row. Flags override the
//! environment, the environment overrides the file, the file overrides the defaults.

mod confinement;
mod error;
mod events;
mod file;
mod listen;
mod log;
mod names;
mod otlp;
pub mod segments;
pub mod settings;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

pub use self::confinement::{Keep, Seccomp};
use self::error::suggestion;
pub use self::error::{ConfigError, Location};
pub use self::events::{EventsConfig, EventsLog};
pub use self::listen::Listen;
pub use self::log::{Log, LogFormat, LogLevel};
pub use self::names::{Names, host_name, own_names};
pub use self::otlp::{Headers, Otlp};
use self::settings::{RENAMED, SETTINGS, Setting};
pub use self::value::Given;
use api_types::Skip;
use model::balance::Weights;
use model::directory::Pattern;
use model::reservations::{Environment, Reservation};
use model::segments::Policy;
use notation::nearest;
use server::web::AllowedHost;

/// Maximum number of internal ranges: the kernel half has a table of fixed size.
pub const MAX_INTERNAL_RANGES: usize = 32;

/// Everything an operator can choose, checked.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states of a machine")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The HTTP server.
    pub web: Web,
    /// The agent's own log.
    pub log: Log,
    /// Events, one by one.
    pub events: EventsConfig,
    /// Pin maps and links in the BPF file system, so that a restart loses nothing.
    pub pin: bool,
    /// Let the kernel programs log, for debugging.
    pub bpf_log: bool,
    /// Addresses that belong to us; a server's clients from elsewhere are one row, `internet`.
    pub internal_ranges: Vec<IpNet>,
    /// Sizes of the kernel's tables.
    pub limits: Limits,
    /// Where names come from.
    pub names: Names,
    /// Measure request latency: six more hooks.
    pub requests: bool,
    /// Look at the beginnings of responses.
    pub responses: bool,
    /// Count DNS lookups.
    pub dns_lookups: bool,
    /// Protocols that are walked message by message.
    pub protocols: Protocols,
    /// How often the kernel's counters are collected between scrapes.
    #[serde(serialize_with = "value::serialize_duration")]
    pub collection_interval: Duration,
    /// Turn on the kernel's run-time statistics of BPF programs.
    pub run_stats: bool,
    /// Directory of the lock that excludes a second agent, and of the control socket.
    pub run_directory: PathBuf,
    /// Directory of the state file: reservations and registered services.
    pub state_directory: PathBuf,
    /// Id of the group that may make changes, besides root and the agent's user.
    pub control_group: Option<u32>,
    /// Port reservations.
    pub ports: Ports,
    /// Hooks to do without, as if this kernel did not have them.
    pub disable_hooks: Vec<String>,
    /// Kernel fields to do without, as if this kernel did not have them.
    pub disable_fields: Vec<String>,
    /// Which capabilities are kept after startup.
    pub privileges: Keep,
    /// How the seccomp filter treats system calls that the running agent does not make.
    pub seccomp: Seccomp,
    /// Users whose user namespaces are believed as those of root are.
    pub trusted_users: Vec<u32>,
    /// What `portolan check` takes from the agent.
    pub check: Check,
    /// Base URL of the documentation, for the links of findings.
    pub docs_url: String,
    /// Whether to enter other network namespaces after startup too.
    pub enter_namespaces: bool,
    /// Pushing metrics to a collector.
    pub otlp: Otlp,
    /// Expected load of backends.
    pub balance: Balance,
    /// Segments of the network and their policy; only in a file.
    pub segments: Arc<Policy>,
}

/// Protocols that are walked message by message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Protocols {
    /// Of which services.
    pub services: Vec<Pattern>,
}

/// What `portolan check` takes from the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Findings to leave out.
    #[serde(serialize_with = "value::serialize_texts")]
    pub skip: Vec<Skip>,
}

/// Expected load of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Declared weights of backends.
    pub weights: Weights,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Web {
    /// Where it listens.
    pub listen_address: Listen,
    /// The file with TLS, passwords and headers, as Prometheus' exporters have it.
    pub config_file: Option<PathBuf>,
    /// The path of a reverse proxy below which everything is served too, like `/portolan`; empty
    /// for none.
    pub external_path: String,
    /// Names for this agent in the `Host` header of requests, besides its own.
    pub allowed_hosts: Vec<AllowedHost>,
}

/// Port reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// Reservations that cannot be changed while the agent runs.
    #[serde(serialize_with = "value::serialize_texts")]
    pub reservations: Vec<Reservation>,
    /// The environment of this host; `None`: reservations of all environments apply.
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
    /// Memory limit of the agent in bytes; `None` = its cgroup's.
    pub memory_bytes: Option<u64>,
}

/// A configuration, and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The origin of each value, by key; a missing key has its default.
    pub origins: BTreeMap<&'static str, Location>,
    /// Warnings about variables that may be misspelt or belong to another program, for the log.
    pub warnings: Vec<String>,
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
    let mut encrypted = None;
    if let Some(path) = file {
        let mut sections = segments::Sections::new(path);
        for entry in file::read(path)? {
            if segments::is_theirs(&entry.key) {
                sections.take(&entry)?;
                continue;
            }
            let location = Location::File(path.to_owned(), entry.line);
            let Some(setting) = settings::find(&entry.key) else {
                if let Some(renamed) = RENAMED.iter().find(|one| one.key == entry.key) {
                    let new = renamed.now(|setting| format!("`{}`", setting.key));
                    let old = format!("`{}`", entry.key);
                    return Err(ConfigError::RenamedKey { location, old, new });
                }
                let near = nearest(&entry.key, SETTINGS.iter().map(|s| s.key));
                return Err(ConfigError::UnknownKey { location, key: entry.key, near });
            };
            loaded.apply(setting, &entry.value, location)?;
        }
        encrypted = sections.encrypted();
        loaded.config.segments = Arc::new(sections.policy()?);
    }
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(settings::ENV_PREFIX))
        .collect();
    variables.sort();
    for (name, value) in variables {
        if let Some(setting) = SETTINGS.iter().find(|s| s.env() == name) {
            loaded.apply(setting, &Given::Text(value), Location::Environment(name))?;
        } else if let Some(renamed) = RENAMED.iter().find(|one| settings::variable(one.key) == name)
        {
            let new = renamed.now(Setting::env);
            let (location, old) = (Location::Environment(name), "it".to_owned());
            return Err(ConfigError::RenamedKey { location, old, new });
        } else if !settings::is_of_a_command(&name) && !is_of_a_service(&name, &value) {
            loaded.warn_of_variable(&name);
        }
    }
    for (setting, value) in flags {
        loaded.apply(setting, value, Location::Flag(setting.flag.name()))?;
    }
    let ranges = loaded.config.kernel_ranges().len();
    if ranges > MAX_INTERNAL_RANGES {
        let origin = loaded.origins.get("internal_ranges").cloned();
        return Err(ConfigError::BadValue {
            location: origin
                .unwrap_or_else(|| Location::File(file.unwrap_or(Path::new("")).into(), 1)),
            key: "internal_ranges".to_owned(),
            problem: format!(
                "and the networks of all segments make {ranges} ranges; at most {MAX_INTERNAL_RANGES} fit, so write fewer and wider ones"
            ),
        });
    }
    if let Some(location) = encrypted.filter(|_| !loaded.config.reads_responses()) {
        return Err(ConfigError::BadValue {
            location,
            key: "segments.require_tls".to_owned(),
            problem: "needs `responses = true` (and `requests`, which is on by default): without reading responses the agent does not know which connections are encrypted".to_owned(),
        });
    }
    if loaded.config.web.listen_address == Listen::Unix
        && let Some(location) = loaded.origins.get("web.config_file")
    {
        return Err(ConfigError::BadValue {
            location: location.clone(),
            key: "web.config_file".to_owned(),
            problem: "is for an address, and `web.listen_address` is \"unix\": the mode and group of the Unix socket decide who reads (control_group); remove one of the two".to_owned(),
        });
    }
    Ok(loaded)
}

// === impl Loaded ===

impl Loaded {
    /// The origin of the value of `key`, for messages.
    pub fn origin(&self, key: &str) -> String {
        self.origins.get(key).map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    fn apply(
        &mut self,
        setting: &'static Setting,
        value: &Given,
        location: Location,
    ) -> Result<(), ConfigError> {
        match (setting.set)(&mut self.config, value) {
            Ok(()) => {
                self.origins.insert(setting.key, location);
                Ok(())
            }
            Err(problem) => {
                Err(ConfigError::BadValue { location, key: setting.key.to_owned(), problem })
            }
        }
    }

    /// An unknown variable may be another program's, so it is not an error.
    fn warn_of_variable(&mut self, name: &str) {
        let prefix = settings::ENV_PREFIX;
        let mut known: Vec<String> = SETTINGS.iter().map(Setting::env).collect();
        known.push(settings::ENV_CONFIG.to_owned());
        // Without the common prefix, which would make all of them similar.
        let ends = known.iter().filter_map(|known| known.strip_prefix(prefix));
        let near = nearest(name.strip_prefix(prefix).unwrap_or(name), ends);
        let near = near.map(|near| format!("{prefix}{near}"));
        self.warnings.push(format!(
            "the environment variable {name} is unknown and has no effect{}",
            suggestion(near.as_deref())
        ));
    }
}

/// Whether Kubernetes sets this variable, in every pod beside a Service whose name begins with
/// `portolan` (`PORTOLAN_PORT=tcp://…`, `PORTOLAN_WEB_SERVICE_HOST`, `PORTOLAN_PORT_80_TCP_ADDR`).
fn is_of_a_service(name: &str, value: &str) -> bool {
    let after = |mark: &str| name.split_once(mark).map(|(_, rest)| rest);
    let is_port = name.ends_with("_PORT") && value.contains("://");
    let is_detail =
        after("_PORT_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    is_port || is_detail || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            web: Web {
                listen_address: Listen::Address(SocketAddr::from(([127, 0, 0, 1], 10062))),
                config_file: None,
                external_path: String::new(),
                allowed_hosts: Vec::new(),
            },
            log: Log { level: LogLevel::Info, format: LogFormat::Text },
            events: EventsConfig::default(),
            pin: false,
            bpf_log: false,
            internal_ranges: value::default_internal_ranges(),
            limits: Limits::default(),
            names: Names::default(),
            requests: true,
            responses: false,
            dns_lookups: true,
            protocols: Protocols::default(),
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
            seccomp: Seccomp::Enforce,
            enter_namespaces: true,
            trusted_users: Vec::new(),
            check: Check::default(),
            docs_url: api_types::DOCS_URL.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
