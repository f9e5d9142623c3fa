//! Rules, networks and the name sources.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::value::{self, Given};
use discovery::rules::{Network, Rule, Rules};
use discovery::sources::{Cluster, Settings};
use model::directory::{self, Classes, MAX_LABELS, Pattern};

/// Where names come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Names {
    /// The operator's rules and networks.
    pub rules: Vec<Rule>,
    /// Networks with names.
    pub networks: Vec<Network>,
    /// Docker's socket; `None` disables it.
    pub docker: Option<PathBuf>,
    /// Podman's socket; `None` disables it.
    pub podman: Option<PathBuf>,
    /// Sockets of CRI runtimes; the first that exists is used.
    pub cri: Vec<PathBuf>,
    /// The Kubernetes cluster.
    #[serde(serialize_with = "as_text")]
    pub kubernetes: Cluster,
    /// This node's name in the cluster.
    pub node: Option<String>,
    /// Query the kernel's connection tracking for translated connections.
    pub conntrack: bool,
    /// Read the names that programs resolve by DNS.
    pub dns: bool,
    /// Name processes of a systemd unit by the unit.
    pub units: bool,
    /// Labels of pods and containers that `portolan_service_info` exports.
    pub labels: Vec<String>,
    /// Services that monitor or check others.
    pub monitoring: Vec<Pattern>,
    /// Services of the system.
    pub system: Vec<Pattern>,
    /// Services whose clients wait for events.
    pub polled: Vec<Pattern>,
}

/// Names that programs of monitoring have wherever they run.
const MONITORING: &[&str] = &[
    "portolan",
    "monitoring/*",
    "prometheus*",
    "alertmanager*",
    "pushgateway",
    "node_exporter",
    "*_exporter",
    "*-exporter",
    "grafana*",
    "thanos*",
    "vmagent*",
    "vmalert*",
    "victoria-metrics*",
    "kube-state-metrics",
    "metrics-server",
    "cadvisor",
    "otelcol*",
    "*otel-collector*",
    "opentelemetry-collector*",
    "datadog-agent*",
    "telegraf",
    "collectd",
    "netdata",
    "zabbix*",
    "nagios*",
    "icinga2",
    "nrpe",
    "monit",
    "check_*",
    "healthcheck*",
    "health-check*",
    "fluent-bit*",
    "fluentd*",
    "filebeat*",
    "metricbeat*",
    "promtail*",
];
/// Names that programs of the system have wherever they run.
const SYSTEM: &[&str] = &[
    "kube-system/*",
    "systemd",
    "systemd-*",
    "ssh",
    "sshd",
    "chrony",
    "chronyd",
    "ntp",
    "ntpd",
    "ntpsec",
    "dbus*",
    "dockerd",
    "docker",
    "containerd",
    "crio",
    "kubelet",
    "kube-proxy",
    "snapd",
    "packagekit*",
    "unattended-upgr*",
    "apt",
    "apt-get",
    "dnf",
    "yum",
    "NetworkManager",
    "dhclient",
    "dhcpcd",
    "rpcbind",
    "rpc.*",
    "avahi-daemon",
    "cupsd",
    "sssd*",
    "nscd",
    "polkitd",
];

/// Servers with requests that wait for the next event: `BRPOP` and `XREAD BLOCK`, `fetch.max.wait.ms`,
/// `reserve`, blocking queries.
const POLLED: &[&str] = &["redis*", "valkey*", "keydb*", "kafka*", "beanstalkd", "consul"];

impl Default for Names {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            networks: Vec::new(),
            docker: Some("/run/docker.sock".into()),
            podman: Some("/run/podman/podman.sock".into()),
            cri: vec!["/run/containerd/containerd.sock".into(), "/run/crio/crio.sock".into()],
            kubernetes: Cluster::Own,
            node: None,
            conntrack: true,
            dns: true,
            units: true,
            labels: Vec::new(),
            monitoring: MONITORING.iter().filter_map(|name| Pattern::parse(name)).collect(),
            system: SYSTEM.iter().filter_map(|name| Pattern::parse(name)).collect(),
            polled: POLLED.iter().filter_map(|name| Pattern::parse(name)).collect(),
        }
    }
}

impl Names {
    /// The parsed rules and networks.
    pub fn rules(&self) -> Rules {
        Rules::new(self.rules.clone(), self.networks.clone())
    }

    /// Which services are of which class, and which are polled.
    pub fn classes(&self) -> Classes {
        let Self { monitoring, system, polled, .. } = self;
        let [monitoring, system, polled] = [monitoring, system, polled].map(Clone::clone);
        Classes { monitoring, system, polled }
    }

    /// The settings of the sources; `matched` are the labels that rules match.
    pub fn settings(&self, matched: &[String]) -> Settings {
        let mut labels = [matched, &self.labels[..]].concat();
        labels.sort();
        labels.dedup();
        let labels: Arc<[String]> = labels.into();
        Settings {
            docker: self.docker.clone(),
            podman: self.podman.clone(),
            cri: self.cri.clone(),
            cluster: self.kubernetes.clone(),
            node: self.node.clone().or_else(own_node),
            conntrack: self.conntrack,
            labels,
            expected: self.expected(),
        }
    }

    /// The sources at an address that the operator chose: they are expected to be there.
    fn expected(&self) -> Vec<&'static str> {
        let usual = Self::default();
        let chosen = [
            ("docker", self.docker != usual.docker),
            ("podman", self.podman != usual.podman),
            ("cri", self.cri != usual.cri),
        ];
        chosen.into_iter().filter(|(_, is_chosen)| *is_chosen).map(|(name, _)| name).collect()
    }
}

/// The node's name: from the downward API, else this host's.
fn own_node() -> Option<String> {
    let given = std::env::var("NODE_NAME").ok();
    given.or_else(host_name).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The name of this host.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The names by which others may call this host: its host name, the other names on that line of
/// /etc/hosts (which is how `hostname --fqdn` finds the full one), and that of the node.
pub fn own_names(names: &Names) -> Vec<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let own = host_name().map(|name| with_aliases(name, &hosts)).unwrap_or_default();
    own.into_iter().chain(names.node.clone()).chain(own_node()).collect()
}

/// `name`, and the names that the text of /etc/hosts has on a line with it (man 5 hosts).
fn with_aliases(name: String, hosts: &str) -> Vec<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let names = lines.map(|line| line.split_whitespace().skip(1));
    let of_this = names.filter(|names| names.clone().any(|one| one.eq_ignore_ascii_case(&name)));
    let aliases: Vec<String> = of_this.flatten().map(str::to_owned).collect();
    std::iter::once(name).chain(aliases).collect()
}

fn as_text<S: Serializer>(cluster: &Cluster, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cluster)
}

/// A list of rules.
pub(super) fn rules(given: &Given) -> Result<Vec<Rule>, String> {
    value::parts(given).map(Rule::parse).collect()
}

/// A list of networks with names.
pub(super) fn networks(given: &Given) -> Result<Vec<Network>, String> {
    value::parts(given).map(Network::parse).collect()
}

/// Keys of labels of pods and containers.
pub(super) fn labels(given: &Given) -> Result<Vec<String>, String> {
    let mut keys: Vec<String> = Vec::new();
    for key in value::parts(given) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.len() > 317 || !key.chars().all(plain) {
            return Err(format!(
                "contains \"{key}\"; write keys of labels, like team or app.kubernetes.io/version"
            ));
        }
        let name = directory::label_name(key);
        if let Some(other) = keys.iter().find(|other| directory::label_name(other) == name) {
            return Err(format!(
                "contains \"{other}\" and \"{key}\", which are both exported as {name}; leave one out"
            ));
        }
        keys.push(key.to_owned());
    }
    if keys.len() > MAX_LABELS {
        return Err(format!("lists {} labels; at most {MAX_LABELS} are exported", keys.len()));
    }
    Ok(keys)
}

/// Patterns of services' names.
pub(super) fn patterns(given: &Given) -> Result<Vec<Pattern>, String> {
    let pattern = |part: &str| {
        Pattern::parse(part).ok_or_else(|| {
            format!("contains \"{part}\"; write [NAMESPACE/]NAME, like prometheus, *-exporter or monitoring/*")
        })
    };
    value::parts(given).map(pattern).collect()
}

/// The path of a socket, or `off`.
pub(super) fn socket(given: &Given) -> Result<Option<PathBuf>, String> {
    let text = value::text(given)?;
    Ok(if text == "off" { None } else { Some(path(&text)?) })
}

/// Paths of sockets, or `off`.
pub(super) fn sockets(given: &Given) -> Result<Vec<PathBuf>, String> {
    let parts: Vec<&str> = value::parts(given).collect();
    if parts.is_empty() && matches!(given, Given::Text(_)) {
        return Err("is empty; write paths of sockets, or off".to_owned());
    }
    if parts == ["off"] { Ok(Vec::new()) } else { parts.into_iter().map(path).collect() }
}

/// A cluster.
pub(super) fn cluster(given: &Given) -> Result<Cluster, String> {
    let text = value::text(given)?;
    text.parse().map_err(|()| {
        format!("is \"{text}\"; write auto, off, or a URL like http://127.0.0.1:8001 (as `kubectl proxy` serves)")
    })
}

/// A socket in its textual form.
pub(super) fn shown(socket: Option<&PathBuf>) -> String {
    value::quoted(socket.map_or_else(|| "off".into(), |path| path.to_string_lossy()))
}

fn path(text: &str) -> Result<PathBuf, String> {
    let bare = text.strip_prefix("unix://").unwrap_or(text);
    if bare.starts_with('/') {
        Ok(bare.into())
    } else {
        Err(format!(
            "contains \"{text}\"; write the path of a socket like /run/docker.sock, or off"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::directory::Class;

    #[test]
    fn a_source_at_a_chosen_place_is_expected_there() {
        let mut names = Names::default();
        assert_eq!(names.expected(), [""; 0]);
        names.docker = Some("/srv/docker.sock".into());
        assert_eq!(names.expected(), ["docker"]);
    }

    #[test]
    fn every_name_that_is_of_a_class_by_default_is_a_pattern() {
        let names = Names::default();
        assert_eq!(names.monitoring.len(), MONITORING.len());
        assert_eq!(names.system.len(), SYSTEM.len());
        assert_eq!(names.polled.len(), POLLED.len());
        let classes = names.classes();
        let check = |name: &str, namespace: &str, expected: Class| {
            assert_eq!(classes.of(name, namespace), expected, "{namespace}/{name}");
        };
        check("prometheus-server", "", Class::Monitoring);
        check("postgres_exporter", "shop", Class::Monitoring);
        check("systemd-resolved", "", Class::System);
        check("coredns", "kube-system", Class::System);
        check("kubelet", "", Class::System);
        for name in ["redis", "redis-server", "valkey-server", "kafka.Kafka"] {
            assert!(classes.is_polled(name, "shop"), "{name}");
            check(name, "shop", Class::Application);
        }
        assert!(!classes.is_polled("postgres", ""));
        for name in ["orders.js", "nginx", "postgres", "internet", "10.0.0.1", "unknown", "other"] {
            check(name, "", Class::Application);
        }
    }

    #[test]
    fn labels_to_export_are_keys_of_different_names() {
        let check = |text: &str, expected: Result<&[&str], &str>| match (
            labels(&Given::Text(text.to_owned())),
            expected,
        ) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        };
        check("team, app.kubernetes.io/version", Ok(&["team", "app.kubernetes.io/version"]));
        check("", Ok(&[]));
        check("a b", Err("contains \"a b\"; write keys of labels"));
        check("a.b, a/b", Err("both exported as label_a_b"));
        check("1,2,3,4,5,6,7,8,9", Err("lists 9 labels; at most 8"));
    }

    #[test]
    fn sources_keep_the_labels_that_rules_match_and_those_to_export() {
        let names = Names { labels: vec!["team".to_owned(), "app".to_owned()], ..Names::default() };
        let settings = names.settings(&["app".to_owned(), "tier".to_owned()]);
        assert_eq!(*settings.labels, ["app", "team", "tier"].map(str::to_owned));
    }

    #[test]
    fn the_full_name_of_the_host_is_beside_its_name_in_etc_hosts() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 Node1.example.com node1 # the host\n\
                     10.0.0.9 other.example node11\n0.0.0.0 evil.example # node1\n";
        assert_eq!(
            with_aliases("node1".to_owned(), hosts),
            ["node1", "Node1.example.com", "node1"]
        );
        assert_eq!(with_aliases("node2".to_owned(), hosts), ["node2"]);
    }
}
