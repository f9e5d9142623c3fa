//! Rules, networks and the name sources.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::value::{self, Given};
use discovery::rules::{Network, Rule, Rules};
use discovery::sources::{Cluster, Settings};

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
}

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
        }
    }
}

impl Names {
    /// The parsed rules and networks.
    pub fn rules(&self) -> Rules {
        Rules::new(self.rules.clone(), self.networks.clone())
    }

    /// The settings of the sources.
    pub fn settings(&self, labels: Arc<[String]>) -> Settings {
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

    /// The sources at a place that the operator chose: they are expected to be there.
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

    #[test]
    fn a_source_at_a_chosen_place_is_expected_there() {
        let mut names = Names::default();
        assert_eq!(names.expected(), [""; 0]);
        names.docker = Some("/srv/docker.sock".into());
        assert_eq!(names.expected(), ["docker"]);
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
