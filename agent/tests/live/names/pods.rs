//! Pods of containerd behind its CRI, with a CNI bridge; the Kubernetes API stood in by a server
//! that lists and watches; a ClusterIP made by the kernel's address translation, as kube-proxy
//! does it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::api::Api;
use super::cri::{Cri, Pod};
use super::engine::{self, Engine};
use super::{Edge, edge, edges, end, expect, lacking, net, run, until};
use crate::agent::Agent;
use crate::segments::portolan;

/// The programs it takes.
pub(super) const NEEDS: &[&str] =
    &["containerd", "ctr", "runc", "iptables", "sha256sum", "busybox", "/usr/lib/cni/bridge"];
const CLUSTER_IP: &str = "10.96.0.10";
pub(super) const NODE: &str = "node-1";
pub(super) const PODS: &str = "/api/v1/pods";

/// containerd in a namespace of its own.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) cri: Cri,
}

impl Node {
    pub(super) fn start() -> Self {
        let engine = Engine::start("containerd", "containerd.sock", |folder| {
            configure(folder);
            vec!["--config".to_owned(), folder.join("config.toml").display().to_string()]
        });
        let address = engine.socket.display().to_string();
        until("containerd answers", || {
            let mut version = Command::new("ctr");
            version.args(["--address", &address, "version"]);
            version.output().is_ok_and(|output| output.status.success())
        });
        let cri = Cri::connect(&engine.socket);
        let node = Self { engine, cri };
        let layer = engine::busybox(node.engine.directory());
        let sleep = ["/bin/sleep", "100000"];
        node.import(&archive(node.engine.directory(), "portolan/busybox:1", &layer, &sleep));
        node
    }

    /// `ctr`, as root on the node would use it.
    pub(super) fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.engine.socket).args(["--namespace", "k8s.io"]);
        ctr
    }

    /// Imports an image into the runtime.
    pub(super) fn import(&self, archive: &Path) {
        run(self.ctr().args(["images", "import"]).arg(archive));
    }

    fn pod(&self, name: &str, uid: u8, labels: &[(&str, &str)], command: &[&str]) -> Pod {
        self.cri.run(name, "prod", uid, labels, command)
    }

    /// The rules of kube-proxy for a Service with these backends, each with the same share.
    fn balance(&self, backends: &[&Pod]) {
        for (index, pod) in backends.iter().enumerate() {
            let share = 1.0 / (backends.len() - index) as f64;
            let to = format!("{}:8080", pod.ip);
            let share = share.to_string();
            let rule = [
                "-t",
                "nat",
                "-A",
                "PREROUTING",
                "-d",
                CLUSTER_IP,
                "-p",
                "tcp",
                "--dport",
                "80",
                "-m",
                "statistic",
                "--mode",
                "random",
                "--probability",
                &share,
                "-j",
                "DNAT",
                "--to-destination",
                &to,
            ];
            run(self.engine.command("iptables").args(rule));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cri.remove_all();
    }
}

fn configure(folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/portolan/busybox:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        root = path("root"),
        state = path("state"),
        socket = path("containerd.sock"),
        cni = path("cni"),
    );
    fs::write(folder.join("config.toml"), config).expect("writing a configuration");
    let network = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": path("ipam"),
            "ranges": [[{"subnet": format!("{}.7.0/24", net())}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }]});
    fs::create_dir_all(folder.join("cni")).expect("a directory");
    fs::write(folder.join("cni/10-pods.conflist"), network.to_string()).expect("writing a network");
}

/// An image of one layer, as an archive that Docker would save.
pub(super) fn archive(
    folder: &Path,
    tag: &str,
    layer: &Path,
    command: &[&str],
) -> std::path::PathBuf {
    let digest = run(Command::new("sha256sum").arg(layer));
    let digest = digest.split(' ').next().expect("a digest").to_owned();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let layer = layer.file_name().expect("a file").to_string_lossy().into_owned();
    let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": [layer]}]);
    fs::write(folder.join("config.json"), config.to_string()).expect("writing an image");
    fs::write(folder.join("manifest.json"), manifest.to_string()).expect("writing an image");
    let archive = folder.join("image.tar");
    let files = ["manifest.json", "config.json", &layer];
    run(Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(&archive).args(files));
    archive
}

/// The pod as the Kubernetes API shows it.
fn object(pod: &Pod, owner: Option<(&str, &str)>) -> Value {
    let owners: Vec<Value> = owner
        .map(|(kind, name)| json!({"kind": kind, "name": name, "controller": true, "uid": "o", "apiVersion": "v1"}))
        .into_iter()
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": "prod", "uid": pod.uid, "labels": pod.labels,
            "ownerReferences": owners},
        "spec": {"nodeName": NODE, "containers": [{"name": "main"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": pod.ip}],
            "containerStatuses": [{"name": "main", "containerID": format!("containerd://{}", pod.container)}]},
    })
}

pub(super) fn expected(client: &str, cluster_ip: &str, direct: &str) -> Vec<Edge> {
    vec![
        edge("prod/shop", "prod/web", 80, "client", (client, cluster_ip)),
        // The backend sees another connection than the requested one.
        edge("prod/shop", "prod/web", 8080, "server", ("container_address", client)),
        edge("prod/probe", "prod/web", 8080, "client", (client, direct)),
        edge("prod/probe", "prod/web", 8080, "server", (client, client)),
    ]
}

pub(super) fn of_pods(name: &str) -> bool {
    name.starts_with("prod/")
        || name.contains(&format!("/{}.7.", net()))
        || name.contains(CLUSTER_IP)
}

/// Two backends of a Service, one client of it and one of a single backend, and their API objects,
/// without the last pod's: its object is returned.
pub(super) fn populate(node: &Node, api: &Api) -> Value {
    let hash = ("pod-template-hash", "7d4b9c8f6d");
    let server = ["httpd", "-f", "-p", "8080"];
    let web = [
        node.pod("web-7d4b9c8f6d-aaaaa", 1, &[hash], &server),
        node.pod("web-7d4b9c8f6d-bbbbb", 2, &[hash], &server),
    ];
    node.balance(&[&web[0], &web[1]]);
    let ask = |address: &str| {
        format!("while :; do wget -q -O /dev/null http://{address}/; sleep 0.1; done")
    };
    let set = ("statefulset.kubernetes.io/pod-name", "shop-0");
    let shop = node.pod("shop-0", 3, &[set], &["sh", "-c", &ask(CLUSTER_IP)]);
    let revision = ("controller-revision-hash", "6f9c");
    let direct = ask(&format!("{}:8080", web[0].ip));
    let probe = node.pod("probe-x2x9z", 4, &[revision], &["sh", "-c", &direct]);

    api.put(PODS, object(&web[0], Some(("ReplicaSet", "web-7d4b9c8f6d"))));
    api.put(PODS, object(&web[1], Some(("ReplicaSet", "web-7d4b9c8f6d"))));
    api.put(PODS, object(&shop, Some(("StatefulSet", "shop"))));
    api.put("/api/v1/services", json!({
        "metadata": {"name": "web-svc", "namespace": "prod", "uid": "s"},
        "spec": {"clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP], "ports": [{"port": 80, "targetPort": 8080}]},
    }));
    api.put("/apis/discovery.k8s.io/v1/endpointslices", json!({
        "metadata": {"name": "web-svc-1", "namespace": "prod", "labels": {"kubernetes.io/service-name": "web-svc"}},
        "addressType": "IPv4",
        "endpoints": web.iter().map(|pod| json!({"addresses": [pod.ip],
            "targetRef": {"kind": "Pod", "name": pod.name, "uid": pod.uid}})).collect::<Vec<_>>(),
        "ports": [{"port": 8080}],
    }));
    object(&probe, Some(("DaemonSet", "probe")))
}

/// Requests of `probe`, which uses one pod only, and of `shop`, which uses the Service, by pod.
fn shares_of_pods(agent: &Agent) {
    let shares = |client: &str| -> Vec<(String, bool)> {
        let answer = agent.json("/api/v1/balance?service=prod/web");
        let groups = answer["groups"].as_array().expect("a list").iter();
        let of_client =
            groups.filter(|group| group["client"] == client && group["role"] == "client");
        let backends = of_client.filter_map(|group| group["backends"].as_array()).flatten();
        let share = |backend: &Value| {
            let name = super::text(backend, "instance");
            (name, backend["connections"].as_u64().unwrap_or_default() > 0)
        };
        let mut shares: Vec<_> = backends.map(share).collect();
        shares.sort();
        shares
    };
    let of_probe =
        [("web-7d4b9c8f6d-aaaaa".to_owned(), true), ("web-7d4b9c8f6d-bbbbb".to_owned(), false)];
    // The endpoints of Services are looked up every few seconds.
    until("both pods have a share", || shares("probe") == of_probe);
    // Behind the Service's address the pod is unknown.
    assert_eq!(shares("shop"), [(String::new(), true)]);
    let said = portolan(agent, &["balance", "prod/web"]);
    let line =
        |pod: &str| said.lines().find(|line| line.contains(pod)).unwrap_or_default().to_owned();
    assert!(line("bbbbb").contains(":8080 web-7d4b9c8f6d-bbbbb  ····················"), "{said}");
    assert!(line("aaaaa").contains("100%"), "{said}");
}

#[test]
fn pods_are_their_workloads_and_a_cluster_ip_is_the_backend_that_answered() {
    needs_kernel!();
    if let Some(program) = lacking(NEEDS) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let node = Node::start();
    let api = Api::start();
    let late = populate(&node, &api);
    let with = |settings: &[(&str, &str)]| {
        let url = api.url();
        let mut all = vec![
            ("names.conntrack", "true"),
            ("names.node", NODE),
            ("names.kubernetes", url.as_str()),
            ("names.labels", "pod-template-hash"),
        ];
        all.extend_from_slice(settings);
        Agent::with(&all)
    };
    let asked = |edges: &[Value]| {
        let row = edges.iter().find(|row| row["port"] == 80 && end(row, "client") == "prod/shop");
        row.map(|row| {
            format!(
                "{}/{}",
                super::text(row, "virtual_service_namespace"),
                super::text(row, "virtual_service")
            )
        })
    };

    // All objects may be listed. One pod comes later, through the watch.
    let agent = with(&[]);
    until("the API is watched", || api.watchers() == 3);
    api.put(PODS, late);
    let all = expect(&agent, &expected("kubernetes", "conntrack", "listener"), of_pods);
    assert_eq!(asked(&all).as_deref(), Some("prod/web-svc"));
    let kind = |name: &str| {
        let row = all.iter().find(|row| end(row, "client") == name).expect("it is a client");
        super::text(row, "client_kind")
    };
    assert_eq!(
        (kind("prod/shop"), kind("prod/probe")),
        ("stateful_set".into(), "daemon_set".into())
    );
    assert_eq!(agent.json("/api/v1/status")["unidentified_processes"], 0);
    shares_of_pods(&agent);
    let label = ("label_pod_template_hash", "7d4b9c8f6d");
    let web = [("service", "web"), ("service_namespace", "prod"), label];
    assert!(agent.scrape().has("portolan_service_info", &web), "the label of both pods");
    agent.stop();

    // A role that may list pods only: the kernel shows which pod answered.
    api.deny(&["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"]);
    let agent = with(&[]);
    let all = expect(&agent, &expected("kubernetes", "conntrack", "listener"), of_pods);
    assert_eq!(asked(&all).as_deref(), Some(&*format!("/{CLUSTER_IP}")));
    let sources = agent.json("/api/v1/status")["name_sources"].clone();
    let detail = sources[0]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("no services") && detail.contains("forbidden"), "{sources}");
    agent.stop();

    // Nothing may be listed: the runtime has the pods' names from the kubelet.
    api.deny(&[PODS, "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"]);
    let socket = node.engine.socket.display().to_string();
    let agent = with(&[("names.cri", &socket)]);
    expect(&agent, &expected("cri", "conntrack", "listener"), of_pods);
    let metrics = agent.scrape();
    assert_eq!(metrics.sum("portolan_identity_source_up", &[("source", "kubernetes")]), 0);
    assert_eq!(metrics.sum("portolan_identity_source_up", &[("source", "cri")]), 1);
    let edges = edges(&agent);
    assert!(edges.iter().all(|row| !end(row, "server").contains(CLUSTER_IP)), "{edges:#?}");
    agent.stop();
}
