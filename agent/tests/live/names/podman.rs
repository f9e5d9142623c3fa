//! Podman: two services of a compose project on a network of its own, listed by its API service.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::engine::{self, Engine};
use super::{edge, expect, lacking, net, run, until};
use crate::agent::Agent;

/// The programs it takes.
const NEEDS: &[&str] = &["podman", "runc", "iptables", "busybox", "/usr/lib/cni/bridge"];

/// Podman and its service in a namespace of their own, with all their data in one folder.
struct Podman {
    engine: Engine,
}

impl Podman {
    fn start() -> Self {
        // Podman has no daemon; its API service responds for it.
        let engine = Engine::start("env", "podman.sock", |folder| {
            configure(folder);
            let mut arguments = vec![format!("CONTAINERS_CONF={}", conf(folder))];
            arguments.push("podman".to_owned());
            arguments.extend(places(folder));
            arguments.extend(["system", "service", "--time", "0"].map(str::to_owned));
            arguments.push(format!("unix://{}", folder.join("podman.sock").display()));
            arguments
        });
        let podman = Self { engine };
        until("podman answers", || {
            podman.podman().arg("version").output().is_ok_and(|output| output.status.success())
        });
        let image = engine::busybox(podman.engine.directory());
        run(podman.podman().arg("import").arg(image).arg("localhost/bb"));
        podman
    }

    fn podman(&self) -> Command {
        let folder = self.engine.directory();
        let mut command = self.engine.command("podman");
        command.env("CONTAINERS_CONF", conf(folder)).args(places(folder));
        command
    }

    /// Runs a service of the project `shop`.
    fn service(&self, name: &str, more: &[&str], command: &[&str]) {
        let labels = [
            "io.podman.compose.project=shop".to_owned(),
            format!("com.docker.compose.service={name}"),
            format!("team=crew of {name}"),
            "stage=test".to_owned(),
        ];
        let mut podman = self.podman();
        podman.args(["run", "--detach", "--name", &format!("shop_{name}_1"), "--network", "shop"]);
        for label in &labels {
            podman.args(["--label", label]);
        }
        run(podman.args(more).arg("localhost/bb").args(command));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.podman().args(["rm", "--all", "--force", "--time", "0"]).output();
    }
}

fn conf(folder: &Path) -> String {
    folder.join("containers.conf").display().to_string()
}

/// Networks of this test, and limits that need no privilege.
fn configure(folder: &Path) {
    let text = format!(
        "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"/usr/lib/cni\"]\n\
         network_config_dir = \"{}\"\n\
         [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
        folder.join("networks").display()
    );
    fs::write(conf(folder), text).expect("writing a configuration");
}

fn places(folder: &Path) -> Vec<String> {
    let mut arguments = Vec::new();
    for (flag, name) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
        arguments.extend([flag.to_owned(), folder.join(name).display().to_string()]);
    }
    let choices = [
        ("--storage-driver", "vfs"),
        ("--runtime", "runc"),
        ("--cgroup-manager", "cgroupfs"),
        ("--events-backend", "file"),
    ];
    arguments.extend(choices.iter().flat_map(|(flag, value)| [*flag, *value]).map(str::to_owned));
    arguments
}

#[test]
fn services_that_podman_runs_are_called_by_their_names() {
    needs_kernel!();
    if let Some(program) = lacking(NEEDS) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let podman = Podman::start();
    let agent = Agent::with(&[
        ("names.podman", &podman.engine.socket.to_string_lossy()),
        ("names.labels", "team, app.kubernetes.io/version"),
        ("names.monitoring", "shop/web"),
    ]);
    let subnet = format!("{}.34", net());
    run(podman.podman().args(["network", "create", "--subnet", &format!("{subnet}.0/24"), "shop"]));
    let db = format!("{subnet}.9");
    podman.service("db", &["--ip", &db], &["httpd", "-f", "-p", "5432"]);
    let script = format!("while :; do wget -q -O /dev/null http://{db}:5432/; sleep 0.1; done");
    podman.service("web", &[], &["sh", "-c", &script]);
    let expected = [
        edge("shop/web", "shop/db", 5432, "client", ("podman", "listener")),
        edge("shop/web", "shop/db", 5432, "server", ("podman", "podman")),
    ];
    expect(&agent, &expected, |name| name.starts_with("shop/") || name.contains(&subnet));
    // The labels that were asked for are on the services, and no others.
    let scrape = agent.scrape();
    for (name, class, team) in
        [("web", "monitoring", "crew of web"), ("db", "application", "crew of db")]
    {
        let service = [("service", name), ("service_namespace", "shop")];
        let infos: Vec<_> = scrape.matching("portolan_service_info", &service).collect();
        assert_eq!(infos.len(), 1, "{name}: {infos:?}");
        let label = |label: &str| infos[0].label(label);
        assert_eq!((label("class"), label("label_team")), (Some(class), Some(team)));
        assert_eq!(label("label_stage"), None, "it was not asked for");
        assert_eq!(label("label_app_kubernetes_io_version"), None, "no container has it");
    }
    agent.stop();
}

/// Podman keeps no table of the ports that it has given away: it binds them, and the kernel refuses.
#[test]
fn a_port_that_podman_gave_to_another_container_is_a_failed_bind_with_that_container_as_holder() {
    needs_kernel!();
    if let Some(program) = lacking(NEEDS) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let podman = Podman::start();
    let agent = Agent::with(&[("names.podman", &podman.engine.socket.to_string_lossy())]);
    let subnet = format!("{}.35.0/24", net());
    run(podman.podman().args(["network", "create", "--subnet", &subnet, "shop"]));
    let (port, publish) = (5435, "5435:80");
    podman.service("web", &["--publish", publish], &["httpd", "-f", "-p", "80"]);
    let mut second = podman.podman();
    second.args(["run", "--name", "tried", "--network", "shop", "--publish", publish]);
    let said = second.args(["localhost/bb", "sleep", "9"]).output().expect("podman is installed");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("address already in use"), "{said}");
    let found = || -> Vec<serde_json::Value> {
        let answer = agent.json(&format!("/api/v1/conflicts?port={port}"));
        let all = answer["conflicts"].as_array().expect("a list").iter();
        all.filter(|one| one["netns"] == podman.engine.namespace()).cloned().collect()
    };
    until("the conflict is there", || found().len() == 1);
    let one = found().remove(0);
    assert_eq!(one["claimant"]["command"], "podman", "{one:#}");
    assert_eq!(one["errno"], "EADDRINUSE", "{one:#}");
    let holder = &one["holder"]["service"];
    assert_eq!((&holder["name"], &holder["namespace"]), (&"web".into(), &"shop".into()), "{one:#}");
    agent.stop();
}
