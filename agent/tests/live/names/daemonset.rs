//! The DaemonSet's pod in containerd, through its CRI, with what `deploy/kubernetes` says of
//! arguments, configuration, mounts and privileges.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::api::Api;
use super::cri::{Mount, OnNode};
use super::image::{KEPT, static_binary, status_of};
use super::pods::{self, Node};
use super::{PATIENCE, PAUSE, lacking, ours, run, until};
use crate::facts::KernelObjects;

const MANIFESTS: &str = include_str!("../../../../deploy/kubernetes/portolan.yaml");
const IMAGE: &str = "docker.io/library/portolan:0.1.0";

/// The manifest of this kind.
fn manifest(kind: &str) -> Value {
    let line = format!("\nkind: {kind}\n");
    let text = MANIFESTS.split("\n---\n").find(|part| part.contains(&line));
    serde_saphyr::from_str(text.expect("it is there")).expect("it is YAML")
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The container as a kubelet would pass it on, with the node's folders in `folder`.
fn container(folder: &Path, runtime: &Path) -> OnNode {
    let daemonset = manifest("DaemonSet");
    let pod = &daemonset["spec"]["template"]["spec"];
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&Value::Bool(true), &Value::Bool(true)));
    let container = &pod["containers"][0];
    assert!(container["image"].as_str().is_some_and(|image| IMAGE.ends_with(image)));
    let security = &container["securityContext"];
    for (key, value) in [("privileged", false), ("readOnlyRootFilesystem", true)] {
        assert_eq!(security[key], value, "{key}");
    }
    assert_eq!(security["allowPrivilegeEscalation"], false);

    let config = manifest("ConfigMap")["data"]["portolan.yaml"].clone();
    let mount = |mount: &Value| {
        let (name, inside) = (&mount["name"], mount["mountPath"].as_str().expect("a path"));
        let volumes = pod["volumes"].as_array().into_iter().flatten();
        let volume = volumes.into_iter().find(|volume| volume["name"] == *name).expect("a volume");
        let outside = match volume["hostPath"]["path"].as_str() {
            Some(path) if path.starts_with("/sys/") => path.to_owned(),
            // The pod's volumes on this host, and the ConfigMap as the kubelet would mount it.
            _ => {
                let path = folder.join(name.as_str().expect("a name"));
                fs::create_dir_all(&path).expect("a directory");
                path.display().to_string()
            }
        };
        if volume["configMap"].is_object() {
            let text = config.as_str().expect("a file");
            fs::write(Path::new(&outside).join("portolan.yaml"), text).expect("writing it");
        }
        Mount { inside: inside.to_owned(), outside, readonly: mount["readOnly"] == true }
    };
    let mut mounts: Vec<Mount> =
        container["volumeMounts"].as_array().into_iter().flatten().map(mount).collect();
    // `criSocketDirectory`: this pod cannot reach an API server.
    let directory = runtime.parent().expect("a directory").display().to_string();
    mounts.push(Mount { inside: "/run/cri".to_owned(), outside: directory, readonly: true });
    let mut command = vec!["/portolan".to_owned()];
    command.extend(texts(&container["args"]));
    let socket = Path::new("/run/cri").join(runtime.file_name().expect("a socket"));
    command.extend(["--names.cri".to_owned(), socket.display().to_string()]);
    OnNode {
        image: IMAGE.to_owned(),
        command,
        mounts,
        add: texts(&security["capabilities"]["add"]),
        drop: texts(&security["capabilities"]["drop"]),
    }
}

fn edges(node: &Node, binary: &Path) -> Vec<Value> {
    let mut command = node.engine.command(&binary.display().to_string());
    let output = command.args(["edges", "--window", "start", "--output", "json"]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
    answer["edges"].as_array().cloned().unwrap_or_default()
}

#[test]
fn the_daemonsets_pod_sees_pods_by_name_and_leaves_nothing() {
    needs_kernel!();
    if let Some(program) = lacking(pods::NEEDS) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let Some(binary) = static_binary() else {
        println!("SKIPPED: no static binary of this build: `cargo xtask image --binary-only`");
        return;
    };
    let node = Node::start();
    let api = Api::start();
    let folder = node.engine.directory().join("agent");
    fs::create_dir_all(&folder).expect("a directory");
    fs::copy(&binary, folder.join("portolan")).expect("the static binary");
    let layer = folder.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&layer).arg("portolan"));
    node.import(&pods::archive(&folder, "portolan:0.1.0", &layer, &["/portolan", "agent"]));
    let id = node.cri.run_on_node("portolan", container(&folder, &node.engine.socket));
    pods::populate(&node, &api);

    let expected: BTreeSet<_> =
        pods::expected("cri", "conntrack", "listener").into_iter().collect();
    let began = Instant::now();
    loop {
        let found = ours(&edges(&node, &binary), pods::of_pods);
        if found == expected {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:#?}");
        std::thread::sleep(PAUSE);
    }

    let tasks = run(node.ctr().args(["tasks", "list"]));
    let pid =
        tasks.lines().find_map(|line| line.strip_prefix(id.as_str())?.split_whitespace().next());
    let pid: u32 = pid.expect("it runs").parse().expect("a process");
    let status = status_of(pid);
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(u64::from_str_radix(&status[set], 16), Ok(KEPT), "{set}");
    }
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));
    let objects = KernelObjects::of(pid);
    assert!(objects.programs.len() >= 9 && objects.maps.len() >= 10, "{objects:?}");
    node.cri.remove_all();
    objects.are_gone();
    until("its process is gone", || !Path::new(&format!("/proc/{pid}")).exists());
}
