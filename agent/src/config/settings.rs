//! The table of settings: one row each, the single source of keys, flags, variables and help.
//!
//! Long because it is one table.

use super::names;
use super::otlp;
use super::value::{self, Given};
use super::{Config, Keep, LogFormat, LogLevel, Seccomp};
use model::reservations::Environment;
use notation::duration;

/// The prefix of every environment variable.
pub const ENV_PREFIX: &str = "PORTOLAN_";

/// The variable that names the file.
pub const ENV_CONFIG: &str = "PORTOLAN_CONFIG";

/// Variables of the commands for a running agent, and of the development of this project.
const OF_COMMANDS: [&str; 12] = [
    ENV_CONFIG,
    "PORTOLAN_URL",
    "PORTOLAN_SOCKET",
    "PORTOLAN_CA_FILE",
    "PORTOLAN_CERT",
    "PORTOLAN_KEY",
    "PORTOLAN_USER",
    "PORTOLAN_PASSWORD_FILE",
    "PORTOLAN_BIN",
    "PORTOLAN_BLESS",
    "PORTOLAN_TEST_LONG",
    "PORTOLAN_TEST_SLOWNESS",
];

/// Whether a variable is known, but not a setting of the agent.
pub(super) fn is_of_a_command(name: &str) -> bool {
    OF_COMMANDS.contains(&name)
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, dotted.
    pub key: &'static str,
    /// The flag.
    pub flag: Flag,
    /// One sentence, of the value `true` if the setting is a switch.
    pub help: &'static str,
    /// Checks a value and stores it; the error completes "`key` …".
    pub set: fn(&mut Config, &Given) -> Result<(), String>,
    /// The effective value as a TOML literal, or the meaning of an unset value.
    pub show: fn(&Config) -> Result<String, &'static str>,
}

/// How a setting is given on the command line.
#[derive(Clone, Copy, Debug)]
pub enum Flag {
    /// `--name VALUE`: the name, and the placeholder of the value.
    Value(&'static str, &'static str),
    /// `--name` enables it.
    On(&'static str),
    /// `--name` disables it: the name, and the help of that flag.
    Off(&'static str, &'static str),
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "web.listen_address",
        flag: Flag::Value("web.listen-address", "HOST:PORT"),
        help: "Address of /metrics, the API and the web page; unix = none, they are read at the Unix socket only, by root, the agent's user and control_group",
        set: |config, given| value::listen(given).map(|v| config.web.listen_address = v),
        show: |config| Ok(value::quoted(config.web.listen_address)),
    },
    Setting {
        key: "web.config_file",
        flag: Flag::Value("web.config.file", "FILE"),
        help: "TLS, client certificates, passwords and headers, in the format of the web configuration file of Prometheus exporters; reloaded when it changes",
        set: |config, given| value::text(given).map(|v| config.web.config_file = Some(v.into())),
        show: |config| {
            config
                .web
                .config_file
                .as_ref()
                .map(|v| value::quoted(v.display()))
                .ok_or("plain HTTP without passwords")
        },
    },
    Setting {
        key: "web.external_path",
        flag: Flag::Value("web.external-path", "PATH"),
        help: "Path prefix that a reverse proxy adds, like /portolan; page, API and metrics are served there as well as at /",
        set: |config, given| value::external_path(given).map(|v| config.web.external_path = v),
        show: |config| {
            let path = &config.web.external_path;
            (!path.is_empty()).then(|| value::quoted(path)).ok_or("served at / only")
        },
    },
    Setting {
        key: "web.allowed_hosts",
        flag: Flag::Value("web.allowed-hosts", "NAME,…"),
        help: "Names that a request may use for this agent in its Host header, besides IP addresses, localhost and this host's own names, like \"portolan, *.monitoring.svc\"; * = any",
        set: |config, given| value::allowed_hosts(given).map(|v| config.web.allowed_hosts = v),
        show: |config| Ok(value::quoted_list(&config.web.allowed_hosts)),
    },
    Setting {
        key: "log.level",
        flag: Flag::Value("log.level", "LEVEL"),
        help: "Log level: error, warn, info, debug, trace",
        set: |config, given| {
            value::choice(given, &LogLevel::ALL, LogLevel::as_str).map(|v| config.log.level = v)
        },
        show: |config| Ok(value::quoted(config.log.level.as_str())),
    },
    Setting {
        key: "log.format",
        flag: Flag::Value("log.format", "FORMAT"),
        help: "Log format: text, json",
        set: |config, given| {
            value::choice(given, &LogFormat::ALL, LogFormat::as_str).map(|v| config.log.format = v)
        },
        show: |config| Ok(value::quoted(config.log.format.as_str())),
    },
    Setting {
        key: "events.log",
        flag: Flag::Value("events.log", "FILE|stdout"),
        help: "File to which events are appended as lines of JSON, or stdout (or -); rotate it by renaming",
        set: |config, given| value::events_log(given).map(|v| config.events.log = Some(v)),
        show: |config| {
            config.events.log.as_ref().map(value::quoted).ok_or("events are not written")
        },
    },
    Setting {
        key: "pin",
        flag: Flag::On("pin"),
        help: "Pin BPF maps and links in the BPF file system, so that a restart loses no counts: counting goes on after the agent stops, until one start without --pin ends it",
        set: |config, given| value::boolean(given).map(|v| config.pin = v),
        show: |config| Ok(config.pin.to_string()),
    },
    Setting {
        key: "internal_ranges",
        flag: Flag::Value("internal-ranges", "CIDR,…"),
        help: "Your own networks; clients from elsewhere are counted in one row, `internet`",
        set: |config, given| value::networks(given).map(|v| config.internal_ranges = v),
        show: |config| Ok(value::quoted_list(&config.internal_ranges)),
    },
    Setting {
        key: "requests",
        flag: Flag::Off(
            "no-requests",
            "Disable request latency (saves six hooks; also turns off DNS names and DNS lookups)",
        ),
        help: "Measure request latency (six more hooks; DNS names and DNS lookups need them as well)",
        set: |config, given| value::boolean(given).map(|v| config.requests = v),
        show: |config| Ok(config.requests.to_string()),
    },
    Setting {
        key: "responses",
        flag: Flag::On("responses"),
        help: "Recognise protocols, TLS and failed requests by the first 24 bytes of responses, read in the kernel, where nothing of them is kept but a number; costs about half a microsecond per request (needs `requests`)",
        set: |config, given| value::boolean(given).map(|v| config.responses = v),
        show: |config| Ok(config.responses.to_string()),
    },
    Setting {
        key: "dns_lookups",
        flag: Flag::Off("no-dns-lookups", "Disable counting of DNS lookups (saves a hook)"),
        help: "Count DNS lookups over UDP by type and result, and measure their latency, in the kernel; of a query its number and type are read, no name is kept (needs `requests`, and Linux 6.3 or later)",
        set: |config, given| value::boolean(given).map(|v| config.dns_lookups = v),
        show: |config| Ok(config.dns_lookups.to_string()),
    },
    Setting {
        key: "protocols.services",
        flag: Flag::Value("protocols.services", "[NAMESPACE/]NAME,…"),
        help: "Services of which every HTTP/1 request is counted, with method, status class and duration, * is any text; the kernel walks through their packets, and nothing of these is kept but numbers. Only services in a cgroup of their own, and Linux 5.17 or later",
        set: |config, given| names::patterns(given).map(|v| config.protocols.services = v),
        show: |config| Ok(value::quoted_list(&config.protocols.services)),
    },
    Setting {
        key: "collection_interval",
        flag: Flag::Value("collection-interval", "DURATION"),
        help: "How often counters are read from the kernel between scrapes",
        set: |config, given| {
            value::collection_interval(given).map(|v| config.collection_interval = v)
        },
        show: |config| Ok(value::quoted(duration::text(config.collection_interval))),
    },
    Setting {
        key: "limits.edges",
        flag: Flag::Value("limits.edges", "N"),
        help: "Size of the kernel's edge table",
        set: |config, given| value::table_size(given).map(|v| config.limits.edges = Some(v)),
        show: |config| {
            config.limits.edges.map(|v| v.to_string()).ok_or("derived from the memory of the host")
        },
    },
    Setting {
        key: "limits.owners",
        flag: Flag::Value("limits.owners", "N"),
        help: "Size of the kernel's table of processes that own sockets",
        set: |config, given| value::table_size(given).map(|v| config.limits.owners = Some(v)),
        show: |config| {
            config.limits.owners.map(|v| v.to_string()).ok_or("derived from the memory of the host")
        },
    },
    Setting {
        key: "limits.addresses",
        flag: Flag::Value("limits.addresses", "N"),
        help: "How many peers may appear by their address or DNS name; further ones appear as `internet` or `other`",
        set: |config, given| value::table_size(given).map(|v| config.limits.addresses = Some(v)),
        show: |config| config.limits.addresses.map(|v| v.to_string()).ok_or("4096"),
    },
    Setting {
        key: "limits.ring_bytes",
        flag: Flag::Value("limits.ring-bytes", "N"),
        help: "Size of the ring buffer for details of resets and failed connects, and of the one for DNS responses: a power of two",
        set: |config, given| value::ring_size(given).map(|v| config.limits.ring_bytes = Some(v)),
        show: |config| config.limits.ring_bytes.map(|v| v.to_string()).ok_or("262144"),
    },
    Setting {
        key: "limits.memory_bytes",
        flag: Flag::Value("limits.memory-bytes", "N"),
        help: "Memory limit of the agent; close to it the agent enters overflow mode: new edges are counted in the rows `other`, where totals stay exact, until memory is free again",
        set: |config, given| {
            value::memory_size(given).map(|v| config.limits.memory_bytes = Some(v))
        },
        show: |config| {
            config
                .limits
                .memory_bytes
                .map(|v| v.to_string())
                .ok_or("the memory limit of the agent's cgroup, if there is one")
        },
    },
    Setting {
        key: "names.rules",
        flag: Flag::Value("names.rules", "RULE,…"),
        help: "Naming rules, first match wins: executable:PATTERN, cgroup:PATTERN, port:N, label:KEY=PATTERN or address:CIDR, then -> [NAMESPACE/]NAME, like \"executable:gunicorn -> shop/web, port:5432 -> postgres\"; a comma starts the next rule, except inside an entry of the file's list",
        set: |config, given| names::rules(given).map(|v| config.names.rules = v),
        show: |config| Ok(value::quoted_list(&config.names.rules)),
    },
    Setting {
        key: "names.networks",
        flag: Flag::Value("names.networks", "CIDR->NAME,…"),
        help: "Names for networks, for addresses that nothing else identifies, like \"10.20.0.0/16 -> warehouse, 10.30.0.0/16 -> office\" (in quotes: the shell reads >); a comma starts the next network",
        set: |config, given| names::networks(given).map(|v| config.names.networks = v),
        show: |config| Ok(value::quoted_list(&config.names.networks)),
    },
    Setting {
        key: "names.docker",
        flag: Flag::Value("names.docker", "SOCKET"),
        help: "Docker's socket, for names of containers; off = disabled",
        set: |config, given| names::socket(given).map(|v| config.names.docker = v),
        show: |config| Ok(names::shown(config.names.docker.as_ref())),
    },
    Setting {
        key: "names.podman",
        flag: Flag::Value("names.podman", "SOCKET"),
        help: "Podman's socket, for names of containers; off = disabled",
        set: |config, given| names::socket(given).map(|v| config.names.podman = v),
        show: |config| Ok(names::shown(config.names.podman.as_ref())),
    },
    Setting {
        key: "names.cri",
        flag: Flag::Value("names.cri", "SOCKET,…"),
        help: "CRI sockets, for names of pods; the first that exists is used; off = disabled",
        set: |config, given| names::sockets(given).map(|v| config.names.cri = v),
        show: |config| {
            let paths: Vec<_> = config.names.cri.iter().map(|path| path.display()).collect();
            Ok(if paths.is_empty() { value::quoted("off") } else { value::quoted_list(&paths) })
        },
    },
    Setting {
        key: "names.kubernetes",
        flag: Flag::Value("names.kubernetes", "auto|off|URL"),
        help: "Kubernetes API: auto = that of the cluster this agent runs in; a URL is used without credentials",
        set: |config, given| names::cluster(given).map(|v| config.names.kubernetes = v),
        show: |config| Ok(value::quoted(&config.names.kubernetes)),
    },
    Setting {
        key: "names.node",
        flag: Flag::Value("names.node", "NAME"),
        help: "Name of this node in the cluster",
        set: |config, given| value::text(given).map(|v| config.names.node = Some(v)),
        show: |config| {
            config.names.node.as_ref().map(value::quoted).ok_or("NODE_NAME, else the host's name")
        },
    },
    Setting {
        key: "names.conntrack",
        flag: Flag::Off(
            "names.no-conntrack",
            "Disable conntrack lookups (peers behind NAT or a service IP keep that address)",
        ),
        help: "Use conntrack to find the backend behind a translated address (NAT, service IP)",
        set: |config, given| value::boolean(given).map(|v| config.names.conntrack = v),
        show: |config| Ok(config.names.conntrack.to_string()),
    },
    Setting {
        key: "names.dns",
        flag: Flag::Off(
            "names.no-dns",
            "Disable DNS names (servers that nothing else identifies appear by address)",
        ),
        help: "Name servers by the DNS names that programs resolved, if no better name is known; only names, addresses and TTLs are kept",
        set: |config, given| value::boolean(given).map(|v| config.names.dns = v),
        show: |config| Ok(config.names.dns.to_string()),
    },
    Setting {
        key: "names.units",
        flag: Flag::Off(
            "names.no-units",
            "Disable names of systemd units (processes are named by their program)",
        ),
        help: "Name processes of a systemd unit by the unit instead of the program",
        set: |config, given| value::boolean(given).map(|v| config.names.units = v),
        show: |config| Ok(config.names.units.to_string()),
    },
    Setting {
        key: "names.labels",
        flag: Flag::Value("names.labels", "KEY,…"),
        help: "Labels of pods and containers that portolan_service_info exports, at most 8, like team or app.kubernetes.io/version: team becomes label_team, by which alerts can be routed",
        set: |config, given| names::labels(given).map(|v| config.names.labels = v),
        show: |config| Ok(value::quoted_list(&config.names.labels)),
    },
    Setting {
        key: "names.monitoring",
        flag: Flag::Value("names.monitoring", "[NAMESPACE/]NAME,…"),
        help: "Services that monitor or check others, * is any text; they get class=\"monitoring\", which objectives and service map leave out. Replaces the built-in list",
        set: |config, given| names::patterns(given).map(|v| config.names.monitoring = v),
        show: |config| Ok(value::quoted_list(&config.names.monitoring)),
    },
    Setting {
        key: "names.system",
        flag: Flag::Value("names.system", "[NAMESPACE/]NAME,…"),
        help: "Services of the system, * is any text; they get class=\"system\", which objectives and service map leave out. Replaces the built-in list",
        set: |config, given| names::patterns(given).map(|v| config.names.system = v),
        show: |config| Ok(value::quoted_list(&config.names.system)),
    },
    Setting {
        key: "names.polled",
        flag: Flag::Value("names.polled", "[NAMESPACE/]NAME,…"),
        help: "Services whose clients wait for events (long polling, BRPOP), * is any text: half a second or longer, one request right after the other, is never slow there. Replaces the built-in list of queues",
        set: |config, given| names::patterns(given).map(|v| config.names.polled = v),
        show: |config| Ok(value::quoted_list(&config.names.polled)),
    },
    Setting {
        key: "balance.weights",
        flag: Flag::Value("balance.weights", "ADDRESS=N,…"),
        help: "Expected load of backends, relative to each other, where it is not equal",
        set: |config, given| value::weights(given).map(|v| config.balance.weights = v),
        show: |config| Ok(value::quoted_list(&config.balance.weights.declared())),
    },
    Setting {
        key: "otlp.endpoint",
        flag: Flag::Value("otlp.endpoint", "URL"),
        help: "Push metrics to an OpenTelemetry collector: http://HOST:4318, or the full URL of an OTLP/HTTP metrics receiver",
        set: |config, given| otlp::endpoint(given).map(|v| config.otlp.endpoint = Some(v)),
        show: |config| {
            config.otlp.endpoint.as_ref().map(value::quoted).ok_or("metrics are not pushed")
        },
    },
    Setting {
        key: "otlp.interval",
        flag: Flag::Value("otlp.interval", "DURATION"),
        help: "Time between two pushes",
        set: |config, given| otlp::interval(given).map(|v| config.otlp.interval = v),
        show: |config| Ok(value::quoted(duration::text(config.otlp.interval))),
    },
    Setting {
        key: "otlp.timeout",
        flag: Flag::Value("otlp.timeout", "DURATION"),
        help: "Timeout of a push request",
        set: |config, given| otlp::timeout(given).map(|v| config.otlp.timeout = v),
        show: |config| Ok(value::quoted(duration::text(config.otlp.timeout))),
    },
    Setting {
        key: "otlp.headers",
        flag: Flag::Value("otlp.headers", "NAME=VALUE,…"),
        help: "Headers of push requests, such as authorization; values are never shown, but a flag is visible in the process list: use the file or the variable",
        set: |config, given| otlp::headers(given).map(|v| config.otlp.headers = v),
        show: |config| Ok(value::quoted_list(&config.otlp.headers.shown())),
    },
    Setting {
        key: "otlp.ca_file",
        flag: Flag::Value("otlp.ca-file", "FILE"),
        help: "Certificates (PEM) to trust beside the system's",
        set: |config, given| value::text(given).map(|v| config.otlp.ca_file = Some(v.into())),
        show: |config| {
            config
                .otlp
                .ca_file
                .as_ref()
                .map(|v| value::quoted(v.display()))
                .ok_or("only the system's certificates")
        },
    },
    Setting {
        key: "run_stats",
        flag: Flag::On("run-stats"),
        help: "Enable the kernel's run-time statistics of BPF programs (portolan_hook_runs_total and others); adds a clock read to every run",
        set: |config, given| value::boolean(given).map(|v| config.run_stats = v),
        show: |config| Ok(config.run_stats.to_string()),
    },
    Setting {
        key: "run_directory",
        flag: Flag::Value("run-directory", "DIR"),
        help: "Directory of the Unix socket, and of the lock that keeps a second agent off this host",
        set: |config, given| value::text(given).map(|v| config.run_directory = v.into()),
        show: |config| Ok(value::quoted(config.run_directory.display())),
    },
    Setting {
        key: "state_directory",
        flag: Flag::Value("state-directory", "DIR"),
        help: "Directory of reservations and registered services",
        set: |config, given| value::text(given).map(|v| config.state_directory = v.into()),
        show: |config| Ok(value::quoted(config.state_directory.display())),
    },
    Setting {
        key: "control_group",
        flag: Flag::Value("control-group", "GROUP"),
        help: "Group whose members may reserve ports and register services, beside root and the agent's own user",
        set: |config, given| value::group(given).map(|v| config.control_group = Some(v)),
        show: |config| {
            config.control_group.map(value::quoted).ok_or("only root and the agent's own user")
        },
    },
    Setting {
        key: "ports.reservations",
        flag: Flag::Value("ports.reservations", "PORT SERVICE,…"),
        help: "Reserved ports, each like \"5432 postgres\" or \"8125/udp shop/statsd env=prod until=2030-12-01 enforce\"",
        set: |config, given| value::reservations(given).map(|v| config.ports.reservations = v),
        show: |config| Ok(value::quoted_list(&config.ports.reservations)),
    },
    Setting {
        key: "ports.environment",
        flag: Flag::Value("ports.environment", "dev|prod"),
        help: "Environment of this host; reservations for other environments are listed but not in force",
        set: |config, given| {
            value::choice(given, &Environment::ALL, Environment::as_str)
                .map(|v| config.ports.environment = Some(v))
        },
        show: |config| {
            config
                .ports
                .environment
                .map(|v| value::quoted(v.as_str()))
                .ok_or("reservations for dev and for prod are both in force")
        },
    },
    Setting {
        key: "disable_hooks",
        flag: Flag::Value("disable-hooks", "NAME,…"),
        help: "Hooks to leave out, as if this kernel did not have them, by their names in `portolan status`; for tests also way:NAME (one way to attach a hook), part:NAME (a part of one) and unpreempted (attach the fallback programs of Linux 7.0)",
        set: |config, given| value::hooks(given).map(|v| config.disable_hooks = v),
        show: |config| Ok(value::quoted_list(&config.disable_hooks)),
    },
    Setting {
        key: "disable_fields",
        flag: Flag::Value("disable-fields", "NAME,…"),
        help: "Kernel struct fields to leave out, as if this kernel did not have them; for tests",
        set: |config, given| value::fields(given).map(|v| config.disable_fields = v),
        show: |config| Ok(value::quoted_list(&config.disable_fields)),
    },
    Setting {
        key: "privileges",
        flag: Flag::Value("privileges", "needed|none|all"),
        help: "Capabilities kept after startup: needed (by the enabled features), none, all; see --show-privileges",
        set: |config, given| {
            value::choice(given, &Keep::ALL, Keep::as_str).map(|v| config.privileges = v)
        },
        show: |config| Ok(value::quoted(config.privileges.as_str())),
    },
    Setting {
        key: "seccomp",
        flag: Flag::Value("seccomp", "enforce|log|off"),
        help: "What happens to a system call outside the agent's list: enforce (it fails), log (the kernel logs it), off (nothing)",
        set: |config, given| {
            value::choice(given, &Seccomp::ALL, Seccomp::as_str).map(|v| config.seccomp = v)
        },
        show: |config| Ok(value::quoted(config.seccomp.as_str())),
    },
    Setting {
        key: "enter_namespaces",
        flag: Flag::Off(
            "no-enter-namespaces",
            "Disable entering network namespaces after startup (drops CAP_SYS_ADMIN; the holder of a port in a new container may stay unknown)",
        ),
        help: "Enter network namespaces after startup, to identify the holder of a port in a container (keeps CAP_SYS_ADMIN)",
        set: |config, given| value::boolean(given).map(|v| config.enter_namespaces = v),
        show: |config| Ok(config.enter_namespaces.to_string()),
    },
    Setting {
        key: "trusted_users",
        flag: Flag::Value("trusted-users", "UID,…"),
        help: "Numbers of users whose user namespaces are believed, like those of a rootless container engine; without it what happens only within them is in no metric but portolan_unverified_events_total",
        set: |config, given| value::users(given).map(|v| config.trusted_users = v),
        show: |config| Ok(value::quoted_list(&config.trusted_users)),
    },
    Setting {
        key: "check.skip",
        flag: Flag::Value("check.skip", "CODE[=SUBJECT],…"),
        help: "Findings that are known and that `portolan check` and `top` leave out, like PO301=legacy.js; * is any text. In a file a subject may have commas",
        set: |config, given| value::skips(given).map(|v| config.check.skip = v),
        show: |config| Ok(value::quoted_list(&config.check.skip)),
    },
    Setting {
        key: "docs_url",
        flag: Flag::Value("docs-url", "URL"),
        help: "Where the folder docs of this version is published; findings link there, as alerts do (cargo xtask dashboards --docs)",
        set: |config, given| value::base_url(given).map(|v| config.docs_url = v),
        show: |config| Ok(value::quoted(&config.docs_url)),
    },
    Setting {
        key: "bpf_log",
        flag: Flag::On("bpf-log"),
        help: "Log from the BPF programs, for debugging",
        set: |config, given| value::boolean(given).map(|v| config.bpf_log = v),
        show: |config| Ok(config.bpf_log.to_string()),
    },
];

/// A setting that was renamed.
#[derive(Debug)]
pub struct Renamed {
    /// Its old key.
    pub key: &'static str,
    /// Its old flag.
    pub flag: &'static str,
    /// The keys that replace it.
    pub new: &'static [&'static str],
}

/// Settings that were renamed: their old names are errors that name the new ones.
pub const RENAMED: &[Renamed] = &[
    Renamed { key: "sweep_interval", flag: "sweep-interval", new: &["collection_interval"] },
    Renamed { key: "masked", flag: "masked", new: &["disable_hooks", "disable_fields"] },
];

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// The setting with this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

// === impl Setting ===

impl Setting {
    /// The environment variable.
    pub fn env(&self) -> String {
        variable(self.key)
    }
}

// === impl Renamed ===

impl Renamed {
    /// The new names, written by `write`, as a part of a sentence.
    pub fn now(&self, write: impl Fn(&Setting) -> String) -> String {
        let new = self.new.iter().filter_map(|key| find(key));
        new.map(write).collect::<Vec<_>>().join(" or ")
    }
}

// === impl Flag ===

impl Flag {
    /// The name without the dashes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value(name, _) | Self::On(name) | Self::Off(name, _) => name,
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
            let Ok(shown) = (setting.show)(&config) else { continue };
            let text = shown.trim_matches(['[', ']', '"']).replace("\", \"", ",");
            (setting.set)(&mut config, &Given::Text(text)).expect(setting.key);
            assert_eq!(config, Config::default(), "{}", setting.key);
        }
    }

    #[test]
    fn examples_in_help_are_valid() {
        let mut examples = 0;
        for setting in SETTINGS {
            for example in setting.help.split('"').skip(1).step_by(2) {
                let set = (setting.set)(&mut Config::default(), &Given::Text(example.to_owned()));
                assert_eq!(set, Ok(()), "{}: {example}", setting.key);
                examples += 1;
            }
        }
        assert!(examples >= 4, "only {examples} examples are found");
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
