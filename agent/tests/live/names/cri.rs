//! A kubelet's part: making pods over CRI (k8s.io/cri-api, `runtime.v1.RuntimeService`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

const IMAGE: &str = "docker.io/portolan/busybox:1";

/// A connection to the runtime.
pub(super) struct Cri {
    runtime: Runtime,
    grpc: RefCell<Grpc<Channel>>,
    pods: RefCell<Vec<String>>,
}

/// A pod with one container.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) ip: String,
    pub(super) container: String,
    pub(super) labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security: Option<SandboxSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

/// Namespace mode: 0 the pod's, 2 the node's.
#[derive(Clone, Copy, PartialEq, Message)]
struct Namespaces {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    mounts: Vec<Mount>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

/// A folder or socket of the node in a container.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Mount {
    #[prost(string, tag = "1")]
    pub(super) inside: String,
    #[prost(string, tag = "2")]
    pub(super) outside: String,
    #[prost(bool, tag = "3")]
    pub(super) readonly: bool,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "2")]
    security: Option<Security>,
}

#[derive(Clone, PartialEq, Message)]
struct Security {
    #[prost(message, optional, tag = "1")]
    capabilities: Option<Capabilities>,
    #[prost(message, optional, tag = "3")]
    namespaces: Option<Namespaces>,
    #[prost(message, optional, tag = "5")]
    user: Option<Number>,
    #[prost(bool, tag = "7")]
    readonly_root: bool,
    #[prost(string, tag = "10")]
    seccomp: String,
    #[prost(bool, tag = "11")]
    no_new_privileges: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(int64, tag = "1")]
    value: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Capabilities {
    #[prost(string, repeated, tag = "1")]
    add: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    drop: Vec<String>,
}

/// The configuration of a container with access to its node, as a kubelet sends it.
pub(super) struct OnNode {
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    pub(super) add: Vec<String>,
    pub(super) drop: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

/// Most requests and responses are one id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
}

impl Cri {
    pub(super) fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = runtime.block_on(endpoint.connect_with_connector(connector));
        let grpc = RefCell::new(Grpc::new(channel.expect("containerd speaks CRI")));
        Self { runtime, grpc, pods: RefCell::default() }
    }

    fn ask<Q, A>(&self, method: &str, question: Q) -> Result<A, tonic::Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"));
        let mut grpc = self.grpc.borrow_mut();
        self.runtime.block_on(async {
            grpc.ready().await.expect("the connection stays");
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(Request::new(question), path.expect("a path"), codec).await;
            answer.map(tonic::Response::into_inner)
        })
    }

    /// Runs a pod with one container, labelled as the kubelet does it.
    pub(super) fn run(
        &self,
        name: &str,
        namespace: &str,
        number: u8,
        labels: &[(&str, &str)],
        command: &[&str],
    ) -> Pod {
        let uid = format!("{number:08x}-1111-2222-3333-{:012x}", std::process::id());
        let mut all: HashMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (key, value) in [("name", name), ("namespace", namespace), ("uid", &uid)] {
            all.insert(format!("io.kubernetes.pod.{key}"), value.to_owned());
        }
        let config = SandboxConfig {
            metadata: Some(Metadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: namespace.to_owned(),
            }),
            hostname: name.to_owned(),
            labels: all.clone(),
            linux: Some(LinuxSandbox {
                cgroup_parent: format!("/kubepods/burstable/pod{uid}"),
                security: None,
            }),
        };
        let question = RunSandbox { config: Some(config.clone()) };
        let sandbox: Id = self.ask("RunPodSandbox", question).expect("a pod");
        self.pods.borrow_mut().push(sandbox.id.clone());
        let question = CreateContainer {
            sandbox: sandbox.id.clone(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata { name: "main".to_owned() }),
                image: Some(Image { image: IMAGE.to_owned() }),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                ..ContainerConfig::default()
            }),
            sandbox_config: Some(config),
        };
        let container: Id = self.ask("CreateContainer", question).expect("a container");
        let _: Empty = self.ask("StartContainer", container.clone()).expect("it starts");
        let answer: StatusAnswer = self.ask("PodSandboxStatus", sandbox).expect("its status");
        let ip = answer.status.and_then(|status| status.network).map(|network| network.ip);
        let ip = ip.filter(|ip| !ip.is_empty()).expect("the pod has an address");
        Pod { name: name.to_owned(), uid, ip, container: container.id, labels: all }
    }

    /// Runs a pod with the node's network and processes, as root and without seccomp; returns its
    /// container's id.
    pub(super) fn run_on_node(&self, name: &str, form: OnNode) -> String {
        const NODE: i32 = 2;
        let OnNode { image, command, mounts, add, drop } = form;
        let namespaces = Some(Namespaces { network: NODE, pid: NODE });
        let uid = format!("99999999-1111-2222-3333-{:012x}", std::process::id());
        let config = SandboxConfig {
            metadata: Some(Metadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: name.to_owned(),
            }),
            hostname: String::new(),
            labels: HashMap::new(),
            linux: Some(LinuxSandbox {
                cgroup_parent: format!("/kubepods/burstable/pod{uid}"),
                security: Some(SandboxSecurity { namespaces }),
            }),
        };
        let question = RunSandbox { config: Some(config.clone()) };
        let sandbox: Id = self.ask("RunPodSandbox", question).expect("a pod");
        self.pods.borrow_mut().push(sandbox.id.clone());
        let security = Security {
            capabilities: Some(Capabilities { add, drop }),
            namespaces,
            user: Some(Number { value: 0 }),
            readonly_root: true,
            seccomp: "unconfined".to_owned(),
            no_new_privileges: true,
        };
        let question = CreateContainer {
            sandbox: sandbox.id,
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata { name: name.to_owned() }),
                image: Some(Image { image }),
                command,
                mounts,
                linux: Some(LinuxContainer { security: Some(security) }),
            }),
            sandbox_config: Some(config),
        };
        let container: Id = self.ask("CreateContainer", question).expect("a container");
        let _: Empty = self.ask("StartContainer", container.clone()).expect("it starts");
        container.id
    }

    /// Stops everything that was started.
    pub(super) fn remove_all(&self) {
        for id in self.pods.borrow_mut().drain(..) {
            let _: Result<Empty, _> = self.ask("StopPodSandbox", Id { id: id.clone() });
            let _: Result<Empty, _> = self.ask("RemovePodSandbox", Id { id });
        }
    }
}
