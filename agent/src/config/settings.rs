//! The table of settings: one row each, the single source of keys, flags, variables and help.

use super::names;
use super::otlp;
use super::value::{self, Given};
use super::{Config, Keep, LogFormat, LogLevel, Seccomp};
use model::reservations::Environment;

/// What every environment variable begins with.
pub const ENV_PREFIX: &str = "PORTOLAN_";

/// The variable that names the file.
pub const ENV_CONFIG: &str = "PORTOLAN_CONFIG";

/// One thing an operator can choose.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, dotted.
    pub key: &'static str,
    /// The flag.
    pub flag: Flag,
    /// One sentence.
    pub help: &'static str,
    /// Checks a value and stores it; the error completes "`key` …".
    pub set: fn(&mut Config, &Given) -> Result<(), String>,
    /// The effective value as a TOML literal; `None` = chosen by the agent.
    pub show: fn(&Config) -> Option<String>,
}

/// How a setting is given on the command line.
#[derive(Clone, Copy, Debug)]
pub enum Flag {
    /// `--name VALUE`: the name, and what VALUE is called.
    Value(&'static str, &'static str),
    /// `--name` turns it on.
    On(&'static str),
    /// `--name` turns it off.
    Off(&'static str),
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "web.listen_address",
        flag: Flag::Value("web.listen-address", "HOST:PORT"),
        help: "Where /metrics, the API and the page are served",
        set: |config, given| value::socket_address(given).map(|v| config.web.listen_address = v),
        show: |config| Some(value::quoted(config.web.listen_address)),
    },
    Setting {
        key: "web.config_file",
        flag: Flag::Value("web.config.file", "FILE"),
        help: "TLS, client certificates, passwords and headers of the endpoint, as in the web configuration file of Prometheus' exporters; read again when it changes",
        set: |config, given| value::text(given).map(|v| config.web.config_file = Some(v.into())),
        show: |config| config.web.config_file.as_ref().map(|v| value::quoted(v.display())),
    },
    Setting {
        key: "web.external_path",
        flag: Flag::Value("web.external-path", "PATH"),
        help: "The path of a reverse proxy below which page, API and metrics are served too, like /portolan",
        set: |config, given| value::external_path(given).map(|v| config.web.external_path = v),
        show: |config| {
            let path = &config.web.external_path;
            (!path.is_empty()).then(|| value::quoted(path))
        },
    },
    Setting {
        key: "log.level",
        flag: Flag::Value("log.level", "LEVEL"),
        help: "What is worth a log line: error, warn, info, debug, trace",
        set: |config, given| {
            value::choice(given, &LogLevel::ALL, LogLevel::as_str).map(|v| config.log.level = v)
        },
        show: |config| Some(value::quoted(config.log.level.as_str())),
    },
    Setting {
        key: "log.format",
        flag: Flag::Value("log.format", "FORMAT"),
        help: "How a log line looks: text, json",
        set: |config, given| {
            value::choice(given, &LogFormat::ALL, LogFormat::as_str).map(|v| config.log.format = v)
        },
        show: |config| Some(value::quoted(config.log.format.as_str())),
    },
    Setting {
        key: "pin",
        flag: Flag::On("pin"),
        help: "Keep maps and links in the BPF file system, so that a restart loses nothing",
        set: |config, given| value::boolean(given).map(|v| config.pin = v),
        show: |config| Some(config.pin.to_string()),
    },
    Setting {
        key: "internal_ranges",
        flag: Flag::Value("internal-ranges", "CIDR,…"),
        help: "Addresses that are ours; a server's clients from elsewhere are one row, `internet`",
        set: |config, given| value::networks(given).map(|v| config.internal_ranges = v),
        show: |config| Some(value::quoted_list(&config.internal_ranges)),
    },
    Setting {
        key: "requests",
        flag: Flag::Off("no-requests"),
        help: "Measure request latency (three more hooks); the flag turns it off",
        set: |config, given| value::boolean(given).map(|v| config.requests = v),
        show: |config| Some(config.requests.to_string()),
    },
    Setting {
        key: "sweep_interval",
        flag: Flag::Value("sweep-interval", "DURATION"),
        help: "How often the kernel's tables are read between scrapes",
        set: |config, given| value::sweep_interval(given).map(|v| config.sweep_interval = v),
        show: |config| Some(value::quoted(value::duration_text(config.sweep_interval))),
    },
    Setting {
        key: "limits.edges",
        flag: Flag::Value("limits.edges", "N"),
        help: "Rows of the kernel's table of edges (default: from the memory of the host)",
        set: |config, given| value::table_size(given).map(|v| config.limits.edges = Some(v)),
        show: |config| config.limits.edges.map(|v| v.to_string()),
    },
    Setting {
        key: "limits.owners",
        flag: Flag::Value("limits.owners", "N"),
        help: "Rows of the kernel's table of owners (default: from the memory of the host)",
        set: |config, given| value::table_size(given).map(|v| config.limits.owners = Some(v)),
        show: |config| config.limits.owners.map(|v| v.to_string()),
    },
    Setting {
        key: "limits.addresses",
        flag: Flag::Value("limits.addresses", "N"),
        help: "How many ends of edges may be called by their address or by a name from DNS (default: 4096); the others are `internet` or `other`",
        set: |config, given| value::table_size(given).map(|v| config.limits.addresses = Some(v)),
        show: |config| config.limits.addresses.map(|v| v.to_string()),
    },
    Setting {
        key: "limits.ring_bytes",
        flag: Flag::Value("limits.ring-bytes", "N"),
        help: "Room for details of resets and failed connects between two drains, and as much for answers of DNS servers: a power of two (default: 262144)",
        set: |config, given| value::ring_size(given).map(|v| config.limits.ring_bytes = Some(v)),
        show: |config| config.limits.ring_bytes.map(|v| v.to_string()),
    },
    Setting {
        key: "limits.memory_bytes",
        flag: Flag::Value("limits.memory-bytes", "N"),
        help: "Memory that the agent may take; close to it new edges are counted in the rows `other`, where sums stay exact, until memory is free again (default: the limit of its cgroup, if there is one)",
        set: |config, given| {
            value::memory_size(given).map(|v| config.limits.memory_bytes = Some(v))
        },
        show: |config| config.limits.memory_bytes.map(|v| v.to_string()),
    },
    Setting {
        key: "names.rules",
        flag: Flag::Value("names.rules", "RULE,…"),
        help: "Names that you decide, first match wins: executable:PATTERN, cgroup:PATTERN, port:N, label:KEY=PATTERN or address:CIDR, then -> [NAMESPACE/]NAME",
        set: |config, given| names::rules(given).map(|v| config.names.rules = v),
        show: |config| Some(value::quoted_list(&config.names.rules)),
    },
    Setting {
        key: "names.networks",
        flag: Flag::Value("names.networks", "CIDR->NAME,…"),
        help: "Networks whose addresses share a name, unless something better is known",
        set: |config, given| names::networks(given).map(|v| config.names.networks = v),
        show: |config| Some(value::quoted_list(&config.names.networks)),
    },
    Setting {
        key: "names.docker",
        flag: Flag::Value("names.docker", "SOCKET"),
        help: "Docker's socket, to learn the names of containers; off = do not ask",
        set: |config, given| names::socket(given).map(|v| config.names.docker = v),
        show: |config| Some(names::shown(config.names.docker.as_ref())),
    },
    Setting {
        key: "names.podman",
        flag: Flag::Value("names.podman", "SOCKET"),
        help: "Podman's socket, to learn the names of containers; off = do not ask",
        set: |config, given| names::socket(given).map(|v| config.names.podman = v),
        show: |config| Some(names::shown(config.names.podman.as_ref())),
    },
    Setting {
        key: "names.cri",
        flag: Flag::Value("names.cri", "SOCKET,…"),
        help: "Sockets of container runtimes that speak CRI; the first that is there is asked for pods; off = do not ask",
        set: |config, given| names::sockets(given).map(|v| config.names.cri = v),
        show: |config| {
            let paths: Vec<_> = config.names.cri.iter().map(|path| path.display()).collect();
            Some(if paths.is_empty() { value::quoted("off") } else { value::quoted_list(&paths) })
        },
    },
    Setting {
        key: "names.kubernetes",
        flag: Flag::Value("names.kubernetes", "auto|off|URL"),
        help: "The Kubernetes API: auto = the cluster that the agent is a pod of; a URL is asked without credentials",
        set: |config, given| names::cluster(given).map(|v| config.names.kubernetes = v),
        show: |config| Some(value::quoted(&config.names.kubernetes)),
    },
    Setting {
        key: "names.node",
        flag: Flag::Value("names.node", "NAME"),
        help: "This node's name in the cluster (default: NODE_NAME, else the host's name)",
        set: |config, given| value::text(given).map(|v| config.names.node = Some(v)),
        show: |config| config.names.node.as_ref().map(value::quoted),
    },
    Setting {
        key: "names.conntrack",
        flag: Flag::Off("names.no-conntrack"),
        help: "Ask the kernel's connection tracking who answers behind translated addresses; the flag turns it off",
        set: |config, given| value::boolean(given).map(|v| config.names.conntrack = v),
        show: |config| Some(config.names.conntrack.to_string()),
    },
    Setting {
        key: "names.dns",
        flag: Flag::Off("names.no-dns"),
        help: "Call servers by the names that programs asked DNS servers for, if nothing better is known; only names, addresses and times to live are kept; the flag turns it off",
        set: |config, given| value::boolean(given).map(|v| config.names.dns = v),
        show: |config| Some(config.names.dns.to_string()),
    },
    Setting {
        key: "names.units",
        flag: Flag::Off("names.no-units"),
        help: "Call what runs in a systemd unit by the unit, not by the program; the flag turns it off",
        set: |config, given| value::boolean(given).map(|v| config.names.units = v),
        show: |config| Some(config.names.units.to_string()),
    },
    Setting {
        key: "balance.weights",
        flag: Flag::Value("balance.weights", "ADDRESS=N,…"),
        help: "What backends are meant to get, relative to each other, where that is not the same for all",
        set: |config, given| value::weights(given).map(|v| config.balance.weights = v),
        show: |config| Some(value::quoted_list(&config.balance.weights.declared())),
    },
    Setting {
        key: "otlp.endpoint",
        flag: Flag::Value("otlp.endpoint", "URL"),
        help: "Push the metrics to an OpenTelemetry collector, too: http://HOST:4318 or the whole address of what takes OTLP metrics over HTTP (default: do not push)",
        set: |config, given| otlp::endpoint(given).map(|v| config.otlp.endpoint = Some(v)),
        show: |config| config.otlp.endpoint.as_ref().map(value::quoted),
    },
    Setting {
        key: "otlp.interval",
        flag: Flag::Value("otlp.interval", "DURATION"),
        help: "How often metrics are pushed",
        set: |config, given| otlp::interval(given).map(|v| config.otlp.interval = v),
        show: |config| Some(value::quoted(value::duration_text(config.otlp.interval))),
    },
    Setting {
        key: "otlp.timeout",
        flag: Flag::Value("otlp.timeout", "DURATION"),
        help: "How long the collector may take to answer a request",
        set: |config, given| otlp::timeout(given).map(|v| config.otlp.timeout = v),
        show: |config| Some(value::quoted(value::duration_text(config.otlp.timeout))),
    },
    Setting {
        key: "otlp.headers",
        flag: Flag::Value("otlp.headers", "NAME=VALUE,…"),
        help: "Headers of every push, such as authorization; their values are shown nowhere, but a flag is visible in the list of processes: write them into the file or the variable",
        set: |config, given| otlp::headers(given).map(|v| config.otlp.headers = v),
        show: |config| Some(value::quoted_list(&config.otlp.headers.shown())),
    },
    Setting {
        key: "otlp.ca_file",
        flag: Flag::Value("otlp.ca-file", "FILE"),
        help: "Certificates (PEM) to tell an https collector by, beside the system's",
        set: |config, given| value::text(given).map(|v| config.otlp.ca_file = Some(v.into())),
        show: |config| config.otlp.ca_file.as_ref().map(|v| value::quoted(v.display())),
    },
    Setting {
        key: "run_stats",
        flag: Flag::On("run-stats"),
        help: "Let the kernel time our programs (portolan_hook_runs_total and its like); costs a little on every run",
        set: |config, given| value::boolean(given).map(|v| config.run_stats = v),
        show: |config| Some(config.run_stats.to_string()),
    },
    Setting {
        key: "run_directory",
        flag: Flag::Value("run-directory", "DIR"),
        help: "Where the lock lies that keeps a second agent off this host, and the socket through which it is told changes",
        set: |config, given| value::text(given).map(|v| config.run_directory = v.into()),
        show: |config| Some(value::quoted(config.run_directory.display())),
    },
    Setting {
        key: "state_directory",
        flag: Flag::Value("state-directory", "DIR"),
        help: "Where the agent keeps what it was told: reservations of ports, registered services",
        set: |config, given| value::text(given).map(|v| config.state_directory = v.into()),
        show: |config| Some(value::quoted(config.state_directory.display())),
    },
    Setting {
        key: "control_group",
        flag: Flag::Value("control-group", "GROUP"),
        help: "Group whose members may reserve ports and register services, beside root and the agent's own user",
        set: |config, given| value::group(given).map(|v| config.control_group = Some(v)),
        show: |config| config.control_group.map(value::quoted),
    },
    Setting {
        key: "ports.reservations",
        flag: Flag::Value("ports.reservations", "PORT SERVICE,…"),
        help: "Ports kept for services, each like \"5432 postgres\" or \"8125/udp shop/statsd env=prod until=2030-12-01 enforce\"",
        set: |config, given| value::reservations(given).map(|v| config.ports.reservations = v),
        show: |config| Some(value::quoted_list(&config.ports.reservations)),
    },
    Setting {
        key: "ports.environment",
        flag: Flag::Value("ports.environment", "dev|prod"),
        help: "What this host is for; reservations for the other environment are listed and not in force (default: for both)",
        set: |config, given| {
            value::choice(given, &Environment::ALL, Environment::as_str)
                .map(|v| config.ports.environment = Some(v))
        },
        show: |config| config.ports.environment.map(|v| value::quoted(v.as_str())),
    },
    Setting {
        key: "masked",
        flag: Flag::Value("masked", "NAME,…"),
        help: "Hooks and kernel fields to do without, as if this kernel did not have them; way:NAME for one way to attach a hook, unpreempted to have second programs as from Linux 7.0 on",
        set: |config, given| value::names(given).map(|v| config.masked = v),
        show: |config| Some(value::quoted_list(&config.masked)),
    },
    Setting {
        key: "privileges",
        flag: Flag::Value("privileges", "KEEP"),
        help: "Capabilities kept after the start: needed (by what is enabled), none, all; --show-privileges explains",
        set: |config, given| {
            value::choice(given, &Keep::ALL, Keep::as_str).map(|v| config.privileges = v)
        },
        show: |config| Some(value::quoted(config.privileges.as_str())),
    },
    Setting {
        key: "seccomp",
        flag: Flag::Value("seccomp", "MODE"),
        help: "System calls that the running agent does not make: enforce (they fail), log (they pass, the kernel logs them), off",
        set: |config, given| {
            value::choice(given, &Seccomp::ALL, Seccomp::as_str).map(|v| config.seccomp = v)
        },
        show: |config| Some(value::quoted(config.seccomp.as_str())),
    },
    Setting {
        key: "enter_namespaces",
        flag: Flag::Off("no-enter-namespaces"),
        help: "Enter network namespaces while running: tells who has a port in a container (keeps CAP_SYS_ADMIN); the flag turns it off after the start",
        set: |config, given| value::boolean(given).map(|v| config.enter_namespaces = v),
        show: |config| Some(config.enter_namespaces.to_string()),
    },
    Setting {
        key: "bpf_log",
        flag: Flag::On("bpf-log"),
        help: "Let the kernel programs log, for debugging",
        set: |config, given| value::boolean(given).map(|v| config.bpf_log = v),
        show: |config| Some(config.bpf_log.to_string()),
    },
];

/// The setting with this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

// === impl Setting ===

impl Setting {
    /// The environment variable.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }
}

// === impl Flag ===

impl Flag {
    /// The name without the dashes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value(name, _) | Self::On(name) | Self::Off(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_shows_a_literal_that_sets_it_again() {
        for setting in SETTINGS {
            let mut config = Config::default();
            let Some(shown) = (setting.show)(&config) else { continue };
            let text = shown.trim_matches(['[', ']', '"']).replace("\", \"", ",");
            (setting.set)(&mut config, &Given::Text(text)).expect(setting.key);
            assert_eq!(config, Config::default(), "{}", setting.key);
        }
    }

    #[test]
    fn no_two_settings_share_a_name() {
        let mut names: Vec<String> = SETTINGS
            .iter()
            .flat_map(|s| [s.key.into(), format!("--{}", s.flag.name()), s.env()])
            .collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
