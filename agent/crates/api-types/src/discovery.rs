//! `/api/v1/endpoints`, and the same as Prometheus and Envoy take it.
//!
//! The conversions are here because the server and `portolan services export` use them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Kind, Source, Timestamp, Window};

/// Where services can be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Endpoints {
    /// When it was read.
    pub timestamp: Timestamp,
    /// Observed endpoints had a connection, or moved a byte, in this time.
    pub window: Window,
    /// The endpoints, sorted by service and address.
    pub endpoints: Vec<ServiceEndpoint>,
}

/// One address and port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceEndpoint {
    /// The service.
    pub service: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// Kind of the service.
    pub kind: Kind,
    /// How the name was found.
    pub source: Source,
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How it is known.
    pub found_by: FoundBy,
    /// How connects of this host to it went in the last minute.
    pub health: EndpointHealth,
}

/// How an endpoint is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// It had connections.
    Traffic,
    /// A socket of this host listens at the address.
    Listener,
    /// Registered by hand.
    Registration,
}

/// How connects of this host to an endpoint went in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndpointHealth {
    /// Some succeeded.
    Ok,
    /// All failed.
    Failing,
    /// None was made.
    Unknown,
}

/// Targets for Prometheus, as its HTTP and file service discovery take them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct TargetGroups(pub Vec<TargetGroup>);

/// Targets with the same labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetGroup {
    /// Addresses with ports.
    pub targets: Vec<String>,
    /// Labels for relabeling: `__meta_portolan_service`, `_namespace`, `_kind`, `_port`, `_found_by`,
    /// `_health`.
    pub labels: BTreeMap<String, String>,
}

/// What Envoy asks: a `DiscoveryRequest`, of which the names of clusters matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveryRequest {
    /// Clusters: `NAME` or `NAMESPACE/NAME`, with `:PORT` if the service has several ports.
    #[serde(default, alias = "resourceNames")]
    pub resource_names: Vec<String>,
}

/// What Envoy takes: a `DiscoveryResponse` with a `ClusterLoadAssignment` for each cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveryResponse {
    /// Changes if any endpoint does.
    pub version_info: String,
    /// The type of the resources.
    pub type_url: String,
    /// The clusters.
    pub resources: Vec<ClusterLoadAssignment>,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ClusterLoadAssignment {
    /// The type of the resource.
    #[serde(rename = "@type")]
    pub type_url: String,
    /// The cluster, as it was asked for.
    pub cluster_name: String,
    /// Its endpoints, in one locality.
    pub endpoints: Vec<Locality>,
}

/// Endpoints of one locality.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Locality {
    /// The endpoints.
    pub lb_endpoints: Vec<LbEndpoint>,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LbEndpoint {
    /// `UNHEALTHY` if all connects of the last minute failed, else `UNKNOWN`, which Envoy uses.
    pub health_status: String,
    /// Where it is.
    pub endpoint: LbAddress,
}

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LbAddress {
    /// The address.
    pub address: LbSocket,
}

/// A socket address in a field of its own, as Envoy writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LbSocket {
    /// The address and port.
    pub socket_address: LbSocketAddress,
}

/// An address and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LbSocketAddress {
    /// The address.
    pub address: String,
    /// The port.
    pub port_value: u16,
}

const ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

// === impl ServiceEndpoint ===

impl ServiceEndpoint {
    /// Address and port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Namespace and name, by which it is one service.
    fn identity(&self) -> (&str, &str) {
        (&self.service_namespace, &self.service)
    }

    /// The name of the cluster that has it: `NAME` or `NAMESPACE/NAME`, and the port.
    fn cluster(&self) -> String {
        format!("{}:{}", self.full_name(), self.port)
    }

    fn full_name(&self) -> String {
        match self.service_namespace.as_str() {
            "" => self.service.clone(),
            namespace => format!("{namespace}/{}", self.service),
        }
    }

    /// Every name of a cluster that means it: without its namespace, and without its port, too.
    fn clusters(&self) -> BTreeSet<String> {
        let full = self.full_name();
        BTreeSet::from([
            self.service.clone(),
            format!("{}:{}", self.service, self.port),
            format!("{full}:{}", self.port),
            full,
        ])
    }
}

// === impl FoundBy ===

impl FoundBy {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Listener => "listener",
            Self::Registration => "registration",
        }
    }
}

// === impl EndpointHealth ===

impl EndpointHealth {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Unknown => "unknown",
        }
    }
}

// === impl TargetGroups ===

impl From<&Endpoints> for TargetGroups {
    fn from(endpoints: &Endpoints) -> Self {
        let mut groups: BTreeMap<BTreeMap<String, String>, Vec<String>> = BTreeMap::new();
        for one in &endpoints.endpoints {
            let label =
                |name: &str, value: &str| (format!("__meta_portolan_{name}"), value.to_owned());
            let labels = BTreeMap::from([
                label("service", &one.service),
                label("namespace", &one.service_namespace),
                label("kind", one.kind.as_str()),
                label("port", &one.port.to_string()),
                label("found_by", one.found_by.as_str()),
                label("health", one.health.as_str()),
            ]);
            groups.entry(labels).or_default().push(one.socket().to_string());
        }
        Self(groups.into_iter().map(|(labels, targets)| TargetGroup { targets, labels }).collect())
    }
}

// === impl DiscoveryResponse ===

impl DiscoveryResponse {
    /// The clusters that were asked for; without any, each service with each of its ports. A name that
    /// several services share gets no cluster.
    pub fn new(endpoints: &Endpoints, wanted: &[String]) -> Self {
        let all = &endpoints.endpoints;
        let mut by_cluster: HashMap<String, Vec<&ServiceEndpoint>> = HashMap::new();
        for one in all {
            for cluster in one.clusters() {
                by_cluster.entry(cluster).or_default().push(one);
            }
        }
        // Each once, or a request that repeats a name would make a long answer.
        let names: BTreeSet<String> = if wanted.is_empty() {
            all.iter().map(ServiceEndpoint::cluster).collect()
        } else {
            wanted.iter().cloned().collect()
        };
        let resource = |name: String| assignment(by_cluster.get(&name)?, name);
        let resources: Vec<_> = names.into_iter().filter_map(resource).collect();
        Self { version_info: version(&resources), type_url: ASSIGNMENT.to_owned(), resources }
    }
}

fn assignment(found: &[&ServiceEndpoint], cluster_name: String) -> Option<ClusterLoadAssignment> {
    let first = found.first()?;
    let is_one = found.iter().all(|one| one.identity() == first.identity());
    let lb_endpoints = found.iter().map(|one| LbEndpoint {
        health_status: match one.health {
            EndpointHealth::Failing => "UNHEALTHY",
            EndpointHealth::Ok | EndpointHealth::Unknown => "UNKNOWN",
        }
        .to_owned(),
        endpoint: LbAddress {
            address: LbSocket {
                socket_address: LbSocketAddress {
                    address: one.address.to_string(),
                    port_value: one.port,
                },
            },
        },
    });
    is_one.then(|| ClusterLoadAssignment {
        type_url: ASSIGNMENT.to_owned(),
        cluster_name,
        endpoints: vec![Locality { lb_endpoints: lb_endpoints.collect() }],
    })
}

/// A number that is the same as long as the resources are.
fn version(resources: &[ClusterLoadAssignment]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    resources.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(full: &str, address: &str, port: u16) -> ServiceEndpoint {
        let (namespace, service) = full.split_once('/').unwrap_or(("", full));
        ServiceEndpoint {
            service: service.to_owned(),
            service_namespace: namespace.to_owned(),
            kind: Kind::Process,
            source: Source::Listener,
            address: address.parse().expect("an address"),
            port,
            found_by: FoundBy::Traffic,
            health: EndpointHealth::Ok,
        }
    }

    fn endpoints() -> Endpoints {
        let timestamp = Timestamp::from_seconds(1.8e9);
        let failing = EndpointHealth::Failing;
        Endpoints {
            timestamp,
            window: Window::before(timestamp, 3600.0),
            endpoints: vec![
                endpoint("api", "10.0.0.1", 80),
                ServiceEndpoint { health: failing, ..endpoint("api", "10.0.0.2", 80) },
                endpoint("api", "10.0.0.2", 9090),
                endpoint("dev/db", "10.0.1.1", 5432),
                endpoint("prod/db", "fd00::1", 5432),
            ],
        }
    }

    #[test]
    fn a_cluster_is_a_service_with_a_port_or_without() {
        let check = |cluster: &str, expected: Option<&[(&str, u16, &str)]>| {
            let answer = DiscoveryResponse::new(&endpoints(), &[cluster.to_owned()]);
            let found = answer.resources.first().map(|one| {
                assert_eq!(one.cluster_name, cluster);
                let all = one.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
                all.map(|one| {
                    let LbSocketAddress { address, port_value } =
                        &one.endpoint.address.socket_address;
                    (address.as_str(), *port_value, one.health_status.as_str())
                })
                .collect::<Vec<_>>()
            });
            assert_eq!(found.as_deref(), expected, "{cluster}");
        };
        let web = [("10.0.0.1", 80, "UNKNOWN"), ("10.0.0.2", 80, "UNHEALTHY")];
        check("api:80", Some(&web));
        check("api", Some(&[web[0], web[1], ("10.0.0.2", 9090, "UNKNOWN")]));
        check("prod/db:5432", Some(&[("fd00::1", 5432, "UNKNOWN")]));
        check("ap", None);
        check("api:8", None);
        // In two namespaces: it could be either.
        check("db", None);
        check("db:5432", None);
        assert_eq!(DiscoveryResponse::new(&endpoints(), &[]).resources.len(), 4);
    }

    #[test]
    fn no_name_of_a_service_takes_over_the_cluster_of_another_one() {
        let mut endpoints = endpoints();
        endpoints.endpoints.push(endpoint("api:80", "10.6.6.6", 6666));
        let asked = |name: &str| DiscoveryResponse::new(&endpoints, &[name.to_owned()]).resources;
        // It could be either.
        assert_eq!(asked("api:80"), []);
        assert_eq!(asked("api").len(), 1);
        assert_eq!(asked("api:80:6666").len(), 1);
    }

    #[test]
    fn a_cluster_that_is_asked_for_twice_is_answered_once() {
        let twice = vec!["api:80".to_owned(); 2];
        assert_eq!(DiscoveryResponse::new(&endpoints(), &twice).resources.len(), 1);
    }

    #[test]
    fn the_version_changes_with_the_endpoints_and_only_with_them() {
        let version = |endpoints: &Endpoints| DiscoveryResponse::new(endpoints, &[]).version_info;
        let before = endpoints();
        let mut after = Endpoints { timestamp: Timestamp::from_seconds(1.9e9), ..endpoints() };
        assert_eq!(version(&before), version(&after));
        after.endpoints.pop();
        assert_ne!(version(&before), version(&after));
    }

    #[test]
    fn targets_with_the_same_labels_are_one_group() {
        let mut endpoints = endpoints();
        endpoints.endpoints[1].health = EndpointHealth::Ok;
        let TargetGroups(groups) = TargetGroups::from(&endpoints);
        let api = groups.iter().find(|group| group.labels["__meta_portolan_port"] == "80");
        assert_eq!(api.expect("a group").targets, ["10.0.0.1:80", "10.0.0.2:80"]);
        let six = groups.iter().find(|group| group.labels["__meta_portolan_namespace"] == "prod");
        assert_eq!(six.expect("a group").targets, ["[fd00::1]:5432"]);
    }
}
