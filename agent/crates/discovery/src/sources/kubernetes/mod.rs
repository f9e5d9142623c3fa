//! Kubernetes: the pods of this node with their workloads, Services and their endpoints.
//!
//! Pods, Services and EndpointSlices are listed and watched separately, so a role that denies one
//! of them disables only that part. A pod's owner determines the workload: a ReplicaSet's is its
//! Deployment, a Job's its CronJob; where the name is not sufficient, the owner is looked up once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agent_common::address::{self, Address};
use kube::{Client, Config};
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::objects::{EndpointSlice, Owned, Pod, Service as ServiceObject};
use self::watch::{Change, Part, follow};
use super::controller::{self, Controller};
use super::publisher::{DEBOUNCE, Publisher};
use super::supervise::FIRST_PAUSE;
use super::{Cluster, NameSource, SourceError, root_cause};
use crate::inventory::{Frontend, Inventory, Workload};
use model::service::{Entity, Kind, Service, Source};

mod objects;
mod watch;

/// Maximum number of objects of one kind.
const MAX_OBJECTS: usize = 65_536;
/// Changes in the queue at most; then the watch waits.
const WAITING: usize = 256;
/// The Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The API server, queried for the objects of this node.
pub(super) struct Kubernetes {
    cluster: Cluster,
    node: Option<String>,
    labels: Arc<[String]>,
}

/// A change from one of the watches.
enum News {
    Pods(Change<Pod>),
    Services(Change<ServiceObject>),
    Slices(Change<EndpointSlice>),
}

/// All objects, by kind.
#[derive(Default)]
struct Objects {
    pods: Part<Pod>,
    services: Part<ServiceObject>,
    slices: Part<EndpointSlice>,
    /// (kind, namespace, name) of an owner → its own owner; `None` if it has none or it is unknown.
    owners: HashMap<(String, String, String), Option<Controller>>,
}

impl Kubernetes {
    pub(super) fn new(cluster: Cluster, node: Option<String>, labels: Arc<[String]>) -> Self {
        Self { cluster, node, labels }
    }

    fn client(&self) -> Result<Client, SourceError> {
        let config = match &self.cluster {
            Cluster::At(uri) => Config::new(uri.clone()),
            Cluster::Own if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => {
                return Err(SourceError::Absent(
                    "not running in a pod: KUBERNETES_SERVICE_HOST is not set".to_owned(),
                ));
            }
            Cluster::Own => {
                Config::incluster().map_err(|error| SourceError::Failed(root_cause(&error)))?
            }
            Cluster::Off => return Err(SourceError::Absent("it is turned off".to_owned())),
        };
        Client::try_from(config).map_err(|error| SourceError::Failed(root_cause(&error)))
    }

    async fn follow(&self, publisher: &Publisher, client: &Client) -> SourceError {
        let (sender, mut news) = mpsc::channel(WAITING);
        let node = self.node.as_deref().unwrap_or_default();
        let on_node = format!("fieldSelector=spec.nodeName%3D{node}");
        let pods = follow(client, publisher, "/api/v1/pods", &on_node, &sender, News::Pods);
        let services = follow(client, publisher, "/api/v1/services", "", &sender, News::Services);
        let slices = "/apis/discovery.k8s.io/v1/endpointslices";
        let slices = follow(client, publisher, slices, "", &sender, News::Slices);
        let collect = async {
            let mut objects = Objects::default();
            loop {
                let Some(first) = news.recv().await else {
                    return SourceError::Failed("the task stopped".to_owned());
                };
                objects.take(first);
                sleep(DEBOUNCE).await;
                while let Ok(next) = news.try_recv() {
                    objects.take(next);
                }
                objects.look_up_owners(client, publisher).await;
                if let Some(why) = objects.all_refused() {
                    return SourceError::Failed(why);
                }
                if objects.something_is_known() {
                    publisher.publish(objects.inventory(&self.labels), objects.detail());
                }
            }
        };
        tokio::select! {
            error = collect => error,
            never = pods => match never {},
            never = services => match never {},
            never = slices => match never {},
        }
    }
}

impl NameSource for Kubernetes {
    async fn run(&mut self, publisher: &Publisher) -> SourceError {
        match self.client() {
            Ok(client) => self.follow(publisher, &client).await,
            Err(error) => error,
        }
    }
}

impl Objects {
    fn take(&mut self, news: News) {
        match news {
            News::Pods(change) => self.pods.take(change),
            News::Services(change) => self.services.take(change),
            News::Slices(change) => self.slices.take(change),
        }
    }

    fn refusals(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("pods", self.pods.refusal()),
            ("services", self.services.refusal()),
            ("endpoint slices", self.slices.refusal()),
        ]
    }

    /// Why nothing at all can be listed.
    fn all_refused(&self) -> Option<String> {
        let refusals = self.refusals();
        let all = refusals.iter().all(|(_, why)| why.is_some());
        all.then(|| refusals[0].1.unwrap_or_default().to_owned())
    }

    fn something_is_known(&self) -> bool {
        self.pods.is_listed() || self.services.is_listed() || self.slices.is_listed()
    }

    /// The parts that are missing, if any.
    fn detail(&self) -> Option<String> {
        let refused = self.refusals().into_iter();
        let parts: Vec<String> =
            refused.filter_map(|(part, why)| Some(format!("no {part}: {}", why?))).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Looks up the owners of ReplicaSets and Jobs whose names do not show them.
    async fn look_up_owners(&mut self, client: &Client, publisher: &Publisher) {
        let mut needed = HashMap::new();
        for pod in self.pods.objects() {
            if let Some(key) = unclear_owner(pod) {
                let known = self.owners.remove(&key);
                needed.insert(key, known);
            }
        }
        self.owners.clear();
        for (key, known) in needed {
            let owner = if let Some(owner) = known {
                owner
            } else {
                publisher.looked_up();
                let (kind, namespace, name) = &key;
                owner_of(client, kind, namespace, name).await.unwrap_or_else(|_| {
                    publisher.failed();
                    None
                })
            };
            self.owners.insert(key, owner);
        }
    }

    fn inventory(&self, keys: &[String]) -> Inventory {
        let mut inventory = Inventory::default();
        for pod in self.pods.objects() {
            self.add_pod(&mut inventory, pod, keys);
        }
        let mut backends: HashMap<(&str, &str), Vec<Address>> = HashMap::new();
        for slice in self.slices.objects() {
            let Some(service) = slice.metadata.labels.get(SERVICE_NAME) else { continue };
            let namespace = slice.metadata.namespace.as_str();
            for endpoint in &slice.endpoints {
                let (uid, pod) = endpoint
                    .target_ref
                    .as_ref()
                    .map_or(("", ""), |target| (&*target.uid, &*target.name));
                for text in &endpoint.addresses {
                    let Ok(ip) = text.parse() else { continue };
                    let address = address::from_ip(ip);
                    let id = if uid.is_empty() { text } else { uid };
                    inventory.add_endpoint(
                        address,
                        Workload {
                            service: in_cluster(
                                namespace,
                                service,
                                Kind::KubernetesService,
                                Source::ServiceAddress,
                            ),
                            entity: Entity::of(id),
                            instance: pod.into(),
                            labels: Arc::default(),
                        },
                    );
                    for port in slice.tcp_ports().filter(|_| endpoint.is_ready()) {
                        inventory.add_ready(address, port);
                    }
                    backends.entry((namespace, service.as_str())).or_default().push(address);
                }
            }
        }
        for service in self.services.objects() {
            let (namespace, name) =
                (service.metadata.namespace.as_str(), service.metadata.name.as_str());
            let backends = backends.get(&(namespace, name)).cloned().unwrap_or_default();
            for (ip, port) in service.frontends() {
                let service =
                    in_cluster(namespace, name, Kind::KubernetesService, Source::ServiceAddress);
                let frontend = Frontend { service, backends: backends.clone() };
                inventory.add_frontend(address::from_ip(ip), port, frontend);
            }
        }
        inventory
    }

    fn add_pod(&self, inventory: &mut Inventory, pod: &Pod, keys: &[String]) {
        // A pod that has ended has released its address.
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            return;
        }
        let Controller { kind, name } = self.controller(pod);
        let workload = Workload {
            service: in_cluster(&pod.metadata.namespace, &name, kind, Source::Kubernetes),
            entity: Entity::of(&pod.metadata.uid),
            instance: pod.metadata.name.as_str().into(),
            labels: controller::selected(&pod.metadata.labels, keys),
        };
        let status = &pod.status;
        let containers = status.container_statuses.iter();
        let containers = containers.chain(&status.init_container_statuses);
        for container in containers.chain(&status.ephemeral_container_statuses) {
            // `containerd://<id>`; empty until it has started.
            if let Some((_, id)) = container.container_id.split_once("://") {
                inventory.add_container(id, workload.clone());
            }
        }
        if !pod.spec.host_network {
            for ip in status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()) {
                inventory.add_address(address::from_ip(ip), &workload);
            }
        }
        inventory.add_pod(&pod.metadata.uid, workload);
    }

    fn controller(&self, pod: &Pod) -> Controller {
        let metadata = &pod.metadata;
        let Some(owner) = metadata.controller() else {
            return Controller { kind: Kind::Pod, name: metadata.name.clone() };
        };
        let named = |kind| Controller { kind, name: owner.name.clone() };
        let known = unclear_owner(pod).and_then(|key| self.owners.get(&key)?.clone());
        match owner.kind.as_str() {
            "ReplicaSet" => known.unwrap_or_else(|| {
                let hash = metadata.labels.get("pod-template-hash").map(String::as_str);
                controller::of_replica_set(&owner.name, hash)
            }),
            "Job" => known.unwrap_or_else(|| controller::of_job(&owner.name)),
            "StatefulSet" => named(Kind::StatefulSet),
            "DaemonSet" => named(Kind::DaemonSet),
            // A pod from a file of this node: the kubelet adds the node's name.
            "Node" => {
                let node = format!("-{}", owner.name);
                let name = metadata.name.strip_suffix(&node).unwrap_or(&metadata.name);
                Controller { kind: Kind::Pod, name: name.to_owned() }
            }
            _ => named(Kind::Workload),
        }
    }
}

/// The key of a pod's owner if only the owner object identifies the workload.
fn unclear_owner(pod: &Pod) -> Option<(String, String, String)> {
    let metadata = &pod.metadata;
    let owner = metadata.controller()?;
    let unclear = match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = metadata.labels.get("pod-template-hash").map(String::as_str);
            controller::of_replica_set(&owner.name, hash).kind == Kind::ReplicaSet
        }
        // The name of a CronJob's Job looks like that of any Job that ends in digits.
        "Job" => true,
        _ => false,
    };
    unclear.then(|| (owner.kind.clone(), metadata.namespace.clone(), owner.name.clone()))
}

/// The workload that a ReplicaSet or Job belongs to; itself if it belongs to none.
async fn owner_of(
    client: &Client,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Controller>, String> {
    let (path, own) = match kind {
        "ReplicaSet" => ("apps/v1", Kind::ReplicaSet),
        _ => ("batch/v1", Kind::Job),
    };
    let plural = if own == Kind::Job { "jobs" } else { "replicasets" };
    let path = format!("/apis/{path}/namespaces/{namespace}/{plural}/{name}");
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let within = Duration::from_secs(5).max(FIRST_PAUSE);
    let answer = tokio::time::timeout(within, client.request::<Owned>(request)).await;
    let owned = answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(Some(match owned.metadata.controller() {
        Some(owner) => {
            let kind = match owner.kind.as_str() {
                "Deployment" => Kind::Deployment,
                "CronJob" => Kind::CronJob,
                _ => Kind::Workload,
            };
            Controller { kind, name: owner.name.clone() }
        }
        None => Controller { kind: own, name: name.to_owned() },
    }))
}

fn in_cluster(namespace: &str, name: &str, kind: Kind, source: Source) -> Service {
    Service::new(name, source).within(namespace).of_kind(kind)
}

#[cfg(test)]
mod tests;
