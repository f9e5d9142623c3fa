//! The objects of the Kubernetes API, as far as they are read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

/// The response to a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct List<T> {
    #[serde(default)]
    pub(super) metadata: ListMetadata,
    // An empty list may be written as null.
    #[serde(default = "Vec::new", deserialize_with = "or_empty")]
    pub(super) items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) go_on: String,
}

/// Metadata of every object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) controller: bool,
}

/// An object of which only the owner matters: a ReplicaSet, a Job.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Owned {
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    #[serde(default)]
    pub(super) host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    #[serde(default)]
    pub(super) phase: String,
    #[serde(default, rename = "podIPs")]
    pub(super) pod_ips: Vec<PodIp>,
    #[serde(default)]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodIp {
    #[serde(default)]
    pub(super) ip: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ContainerStatus {
    #[serde(default, rename = "containerID")]
    pub(super) container_id: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Service {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: ServiceSpec,
    #[serde(default)]
    pub(super) status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ServiceSpec {
    #[serde(default, rename = "clusterIP")]
    pub(super) cluster_ip: String,
    #[serde(default, rename = "clusterIPs")]
    pub(super) cluster_ips: Vec<String>,
    #[serde(default, rename = "externalIPs")]
    pub(super) external_ips: Vec<String>,
    #[serde(default)]
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServicePort {
    pub(super) port: u16,
    #[serde(default)]
    pub(super) protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceStatus {
    #[serde(default)]
    pub(super) load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct LoadBalancer {
    #[serde(default)]
    pub(super) ingress: Vec<PodIp>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct EndpointSlice {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default = "Vec::new", deserialize_with = "or_empty")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(default = "Vec::new", deserialize_with = "or_empty")]
    pub(super) ports: Vec<EndpointPort>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct EndpointPort {
    /// Without one it is any.
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) protocol: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) conditions: Conditions,
    #[serde(default)]
    pub(super) target_ref: Option<TargetReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Conditions {
    #[serde(default)]
    pub(super) ready: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct TargetReference {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
}

/// An object with a key and a version in a watch.
pub(super) trait Object {
    fn metadata(&self) -> &Metadata;
}

impl Object for Pod {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for Service {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for EndpointSlice {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Metadata {
    /// The owner that decides over the object.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

impl Endpoint {
    /// Whether connections are to go there; unknown counts as ready (API reference,
    /// EndpointConditions).
    pub(super) fn is_ready(&self) -> bool {
        self.conditions.ready != Some(false)
    }
}

impl EndpointSlice {
    /// The TCP ports that its endpoints listen on.
    pub(super) fn tcp_ports(&self) -> impl Iterator<Item = u16> {
        let tcp = self.ports.iter().filter(|port| matches!(port.protocol.as_str(), "" | "TCP"));
        tcp.filter_map(|port| port.port)
    }
}

impl Service {
    /// Every address and TCP port that clients reach it at.
    pub(super) fn frontends(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        let ServiceSpec { cluster_ip, cluster_ips, external_ips, ports } = &self.spec;
        let balanced = self.status.load_balancer.ingress.iter().map(|ingress| &ingress.ip);
        let texts =
            std::iter::once(cluster_ip).chain(cluster_ips).chain(external_ips).chain(balanced);
        // A headless Service has the address "None".
        let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let tcp = ports.iter().filter(|port| matches!(port.protocol.as_str(), "" | "TCP"));
        let ports: Vec<u16> = tcp.map(|port| port.port).collect();
        addresses
            .into_iter()
            .flat_map(move |ip| ports.clone().into_iter().map(move |port| (ip, port)))
    }
}

fn or_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
