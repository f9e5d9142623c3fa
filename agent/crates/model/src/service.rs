//! Services: the names of the two ends of an edge.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::Arc;

pub use notation::character::{is_invisible, is_printable};
use serde::{Deserialize, Serialize};

/// Maximum length of a name or a namespace in characters: the limit of DNS and Kubernetes.
const LONGEST: usize = 253;

/// A service: the name of an end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// Name, as an operator would say it: `nginx`, `server.js`, `shop-api`, `10.1.2.3`.
    pub name: Arc<str>,
    /// Where the name is unique: a Kubernetes namespace, a compose project; empty on a plain host.
    pub namespace: Arc<str>,
    /// Its kind.
    pub kind: Kind,
    /// How the name was found.
    pub source: Source,
}

/// An enum whose variants are written with the word that output uses for them: `ALL`, `as_str` and
/// serde follow from that list, so none of them can lack a variant.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$what])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in this order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word used in output.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// Kind of a service.
    pub enum Kind {
        /// A Kubernetes Deployment.
        Deployment = "deployment",
        /// A Kubernetes StatefulSet.
        StatefulSet = "stateful_set",
        /// A Kubernetes DaemonSet.
        DaemonSet = "daemon_set",
        /// A Kubernetes ReplicaSet of its own.
        ReplicaSet = "replica_set",
        /// A Kubernetes CronJob.
        CronJob = "cron_job",
        /// A Kubernetes Job.
        Job = "job",
        /// A Kubernetes workload of another kind.
        Workload = "workload",
        /// A Kubernetes pod that nothing owns.
        Pod = "pod",
        /// A Kubernetes Service whose backends are unknown.
        KubernetesService = "kubernetes_service",
        /// A service of a compose project.
        ComposeService = "compose_service",
        /// A container.
        Container = "container",
        /// A systemd unit.
        Unit = "unit",
        /// A program.
        Process = "process",
        /// Declared in the configuration, or registered by hand.
        Declared = "declared",
        /// A name from DNS.
        DnsName = "dns_name",
        /// An address without a name.
        Address = "address",
        /// Everything outside the internal ranges.
        Internet = "internet",
        /// Unknown, or several services in one row.
        Unknown = "unknown",
    }
}

words! {
    /// How a name was found, from the surest to the last resort.
    pub enum Source {
        /// A rule of the configuration.
        Rule = "rule",
        /// Kubernetes lists the pod.
        Kubernetes = "kubernetes",
        /// Docker lists the container.
        Docker = "docker",
        /// Podman lists the container.
        Podman = "podman",
        /// The container runtime lists the pod or container.
        Cri = "cri",
        /// The id of the container that the owner's cgroup belongs to.
        Container = "container",
        /// The systemd unit that the owner's cgroup belongs to.
        Unit = "unit",
        /// From the command line of the process.
        Process = "process",
        /// The backends that answered, from connection tracking.
        Conntrack = "conntrack",
        /// The container behind a published port.
        PublishedPort = "published_port",
        /// A listener of this host, in the right network namespace.
        Listener = "listener",
        /// The address of a container or pod.
        ContainerAddress = "container_address",
        /// A Kubernetes Service: the address is its own or one of its endpoints'.
        ServiceAddress = "service_address",
        /// A client of this host: the only one that connects there, or one whose own name may still
        /// change.
        LocalClient = "local_client",
        /// Registered by hand for the address.
        Registered = "registered",
        /// A network that the configuration names.
        Network = "network",
        /// The name that a program resolved by DNS.
        Dns = "dns",
        /// The address itself.
        Address = "address",
        /// Outside the internal ranges.
        Internet = "internet",
        /// Unknown, or several services in one row.
        Unknown = "unknown",
    }
}

/// The identity behind a name, to distinguish a better name from another service: two names of one
/// entity are one service, two entities at one address are two. [`Entity::UNKNOWN`] equals none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entity(pub u64);

impl Entity {
    /// The identity is unknown.
    pub const UNKNOWN: Self = Self(0);

    /// Connections of one edge have led to several services that cannot be told apart: whatever
    /// name the end had, it is not right for all of them.
    pub const SEVERAL: Self = Self(u64::MAX);

    /// The entity that has this identifier: a container's id, a pod's uid.
    pub fn of(id: &str) -> Self {
        // Zero stands for unknown.
        Self(BuildHasherDefault::<DefaultHasher>::default().hash_one(id).max(1))
    }

    /// Whether both are known and different.
    pub fn differs(self, other: Self) -> bool {
        let is_one = |entity: Self| entity != Self::UNKNOWN && entity != Self::SEVERAL;
        is_one(self) && is_one(other) && self != other
    }
}

impl Source {
    /// Whether the name is provisional, for whatever has the address: when an identified service
    /// appears there, that is a better name and not another service.
    pub const fn is_provisional(self) -> bool {
        matches!(
            self,
            Self::LocalClient
                | Self::Registered
                | Self::Network
                | Self::Dns
                | Self::Address
                | Self::Internet
                | Self::Unknown
        )
    }

    /// The kind of a service of which only the source is known.
    const fn kind(self) -> Kind {
        match self {
            Self::Rule | Self::Registered | Self::Network => Kind::Declared,
            Self::Kubernetes => Kind::Workload,
            Self::ServiceAddress => Kind::KubernetesService,
            Self::Docker
            | Self::Podman
            | Self::Cri
            | Self::Container
            | Self::PublishedPort
            | Self::ContainerAddress => Kind::Container,
            Self::Unit => Kind::Unit,
            Self::Process | Self::Listener | Self::LocalClient | Self::Conntrack => Kind::Process,
            Self::Dns => Kind::DnsName,
            Self::Address => Kind::Address,
            Self::Internet => Kind::Internet,
            Self::Unknown => Kind::Unknown,
        }
    }
}

impl Service {
    /// A service of this name without a namespace. Characters that labels cannot have are replaced.
    pub fn new(name: &str, source: Source) -> Self {
        let name = printable(name);
        Self { name: name.as_ref().into(), namespace: "".into(), kind: source.kind(), source }
    }

    /// The same service in a namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: printable(namespace).as_ref().into(), ..self }
    }

    /// The same service with a known kind.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same service, of which the name was found in another way.
    #[must_use]
    pub fn found_by(&self, source: Source) -> Self {
        Self { source, ..self.clone() }
    }

    /// The overflow row.
    pub fn other() -> Self {
        Self::new("other", Source::Unknown)
    }

    /// No particular service.
    pub fn any() -> Self {
        Self::new("any", Source::Unknown)
    }

    /// Clients outside the internal ranges.
    pub fn internet() -> Self {
        Self::new("internet", Source::Internet)
    }

    /// Whether this is a loopback address that no service listens on: a place of the one that
    /// connects to it, and no service.
    pub fn is_loopback(&self) -> bool {
        self.source == Source::Address && self.name.parse().is_ok_and(is_loopback)
    }

    /// Whether the names are equal, whatever their sources.
    pub fn is_called_as(&self, other: &Self) -> bool {
        (&self.name, &self.namespace) == (&other.name, &other.namespace)
    }
}

/// Whether an address is of the namespace that connects to it, whichever that is: 127.0.0.0/8,
/// `::1`, and the unspecified ones, which connect(2) takes for them.
pub fn is_loopback(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// A text fit for labels and terminals, of bounded length.
pub fn printable(text: &str) -> Cow<'_, str> {
    let text = match text.trim() {
        "" if !text.is_empty() => "_",
        trimmed => trimmed,
    };
    if text.len() <= LONGEST && text.chars().all(is_printable) {
        return text.into();
    }
    let fit = |c: char| if is_printable(c) { c } else { '_' };
    text.chars().map(fit).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_listed_in_their_order_and_words_are_as_they_are_written() {
        assert!(Source::ALL.is_sorted());
        for source in Source::ALL {
            let written = serde_json::to_string(source).unwrap();
            assert_eq!(written, format!("\"{}\"", source.as_str()));
        }
        for kind in Kind::ALL {
            let written = serde_json::to_string(kind).unwrap();
            assert_eq!(written, format!("\"{}\"", kind.as_str()));
        }
    }

    #[test]
    fn names_and_namespaces_are_fit_for_labels_whatever_gave_them() {
        let check = |text: &str, expected: &str| {
            let service = Service::new(text, Source::Docker).within(text);
            assert_eq!((&*service.name, &*service.namespace), (expected, expected), "{text:?}");
        };
        check("shop", "shop");
        check(" grüß 店 ", "grüß 店");
        check("a\u{1b}[31m\n\u{85}b", "a_[31m__b");
        check("a\u{202e}b\u{2066}c\u{200b}d\u{feff}\u{61c}e\u{e0041}", "a_b_c_d__e_");
        check("a\u{fffd}", "a_");
        check("\n ", "_");
        check("", "");
        check(&"x".repeat(300_000), &"x".repeat(LONGEST));
    }

    #[test]
    fn two_entities_differ_only_if_both_are_known() {
        assert!(Entity(1).differs(Entity(2)));
        assert!(!Entity(1).differs(Entity(1)));
        assert!(!Entity(1).differs(Entity::UNKNOWN));
        assert!(!Entity::UNKNOWN.differs(Entity(1)));
        assert!(!Entity::SEVERAL.differs(Entity(1)));
    }
}
