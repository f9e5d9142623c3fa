//! Docker: a compose project on networks of its own, with a published port.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::engine::{self, Engine};
use super::{Edge, edge, edges, end, expect, lacking, net, ours, run, until};
use crate::agent::Agent;

/// The programs it takes.
pub(super) const NEEDS: &[&str] = &["dockerd", "docker", "docker-compose", "iptables", "busybox"];

/// Three services: `web` queries `db`, and `crawler`, on the host's network, queries `web` through
/// its published port.
const PROJECT: &str = r#"
version: "3.3"
services:
  db:
    image: bb
    command: [httpd, -f, -p, "5432"]
    networks: [back]
  web:
    image: bb
    command: [sh, -c, "httpd -p 80; while :; do wget -q -O /dev/null http://db:5432/; sleep 0.1; done"]
    networks: [front, back]
    ports: ["8080:80"]
  crawler:
    image: bb
    network_mode: host
    command: [sh, -c, "while :; do wget -q -O /dev/null http://127.0.0.1:8080/; sleep 0.1; done"]
networks:
  front:
    ipam: {config: [{subnet: NET.31.0/24}]}
  back:
    ipam: {config: [{subnet: NET.32.0/24}]}
"#;

/// Docker in a namespace of its own.
pub(super) struct Docker {
    pub(super) engine: Engine,
}

impl Docker {
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more flags for the daemon.
    pub(super) fn start_with(more: &[&str]) -> Self {
        let engine = Engine::start("dockerd", "docker.sock", |folder| {
            let path = |name: &str| folder.join(name).display().to_string();
            let mut arguments = vec![
                "--data-root".to_owned(),
                path("data"),
                "--exec-root".to_owned(),
                path("exec"),
                "--pidfile".to_owned(),
                path("pid"),
                "--bip".to_owned(),
                format!("{}.30.1/24", net()),
                "--host".to_owned(),
                format!("unix://{}", path("docker.sock")),
            ];
            arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
            arguments
        });
        let docker = Self { engine };
        until("docker answers", || {
            docker.docker().arg("version").output().is_ok_and(|o| o.status.success())
        });
        let image = engine::busybox(docker.engine.directory());
        run(docker.docker().args(["import"]).arg(image).arg("bb"));
        docker
    }

    pub(super) fn docker(&self) -> Command {
        self.client("docker")
    }

    pub(super) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.engine.socket.display()));
        command
    }

    pub(super) fn compose(&self, folder: &Path, arguments: &[&str]) {
        run(self.client("docker-compose").current_dir(folder).args(arguments));
    }

    /// An agent that uses this Docker, once it hears of its containers.
    pub(super) fn agent(&self) -> Agent {
        let agent = Agent::with(&[
            ("names.docker", &self.engine.socket.to_string_lossy()),
            ("names.conntrack", "true"),
        ]);
        until("names come from Docker", || {
            let status = agent.json("/api/v1/status");
            let mut sources = status["name_sources"].as_array().expect("a list").iter();
            sources.any(|source| source["name"] == "docker" && source["state"] == "up")
        });
        agent
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let list = self.docker().args(["ps", "--all", "--quiet"]).output();
        let list = list.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for id in list.unwrap_or_default().split_whitespace() {
            let _ = self.docker().args(["rm", "--force", id]).output();
        }
    }
}

pub(super) fn project(docker: &Docker) -> std::path::PathBuf {
    let folder = docker.engine.directory().join("shop");
    fs::create_dir_all(&folder).expect("a directory");
    fs::write(folder.join("docker-compose.yml"), PROJECT.replace("NET", &net()))
        .expect("writing a project");
    folder
}

pub(super) fn of_shop(name: &str) -> bool {
    name.starts_with("shop/")
        || name.ends_with("/visitor")
        || name.contains(&format!("/{}.3", net()))
}

pub(super) fn of_project(docker: &Docker) -> Vec<Edge> {
    of_project_with(&docker.engine.full_name("docker-proxy"))
}

/// The project's edges, where the proxy is called so.
pub(super) fn of_project_with(proxy: &str) -> Vec<Edge> {
    vec![
        edge("shop/web", "shop/db", 5432, "client", ("docker", "listener")),
        edge("shop/web", "shop/db", 5432, "server", ("docker", "docker")),
        edge("shop/crawler", "shop/web", 8080, "client", ("docker", "published_port")),
        edge("shop/crawler", "shop/web", 8080, "server", ("docker", "docker")),
        edge(proxy, "shop/web", 80, "client", ("process", "listener")),
        edge(proxy, "shop/web", 80, "server", ("process", "docker")),
    ]
}

macro_rules! needs_docker {
    () => {
        needs_kernel!();
        if let Some(program) = lacking(NEEDS) {
            println!("SKIPPED: {program} is not installed");
            return;
        }
    };
}

#[test]
fn a_compose_project_is_named_on_every_edge() {
    needs_docker!();
    let docker = Docker::start();
    // The agent is there first: names come late then.
    let agent = docker.agent();
    let folder = project(&docker);
    docker.compose(&folder, &["up", "-d"]);
    let all = expect(&agent, &of_project(&docker), of_shop);
    let kinds: Vec<_> = all.iter().filter(|edge| end(edge, "server") == "shop/db").collect();
    assert!(kinds.iter().all(|edge| edge["server_kind"] == "compose_service"), "{kinds:#?}");

    // From another host a published port is translated by the kernel; connection tracking shows
    // where to.
    let program = docker.engine.directory().join("visitor");
    fs::copy("/bin/busybox", &program).expect("busybox-static is installed");
    let url = format!("http://{}.32.1:8080/", net());
    // As `wget`, which would be the name of the program.
    let script = format!("exec -a wget {} -q -O /dev/null {url}", program.display());
    let asked = docker.engine.command("bash").args(["-c", &script]).output();
    assert!(asked.is_ok(), "{asked:?}");
    let mut expected = of_project(&docker);
    let visitor = &*docker.engine.full_name("visitor");
    expected.push(edge(visitor, "shop/web", 8080, "client", ("process", "conntrack")));
    // What the kernel translates arrives without the proxy, but from the gateway's address, which
    // is the proxy's too.
    expected.push(edge(visitor, "shop/web", 80, "server", ("conntrack", "docker")));
    expect(&agent, &expected, of_shop);
    assert_eq!(agent.json("/api/v1/status")["unidentified_processes"], 0);
    let metrics = agent.scrape();
    assert_eq!(metrics.sum("portolan_identity_source_up", &[("source", "docker")]), 1);
    assert!(metrics.sum("portolan_identity_source_lookups_total", &[("source", "docker")]) > 0);
    agent.stop();
}

#[test]
fn a_renamed_container_takes_its_counts_along() {
    needs_docker!();
    let docker = Docker::start();
    let agent = docker.agent();
    run(docker.docker().args(["run", "-d", "--name", "first", "bb", "httpd", "-f", "-p", "80"]));
    let address = run(docker.docker().args([
        "inspect",
        "--format",
        "{{.NetworkSettings.IPAddress}}",
        "first",
    ]));
    let script = format!("while :; do wget -q -O /dev/null http://{address}/; sleep 0.1; done");
    run(docker.docker().args(["run", "-d", "--name", "caller", "bb", "sh", "-c", &script]));
    let opened = |server: &str| -> u64 {
        let all = edges(&agent);
        let rows =
            all.iter().filter(|edge| edge["role"] == "client" && end(edge, "server") == server);
        rows.map(|edge| edge["opened"].as_u64().unwrap_or_default()).sum()
    };
    until("first is called", || opened("/first") > 5);
    let before = opened("/first");
    run(docker.docker().args(["rename", "first", "second"]));
    until("it has its new name", || opened("/second") > 0);
    assert!(opened("/second") >= before, "what was counted belongs to the same container");
    until("the former name is gone", || opened("/first") == 0);
    agent.stop();
}

#[test]
fn an_address_given_to_the_next_container_is_the_next_containers() {
    needs_docker!();
    let docker = Docker::start();
    let (subnet, address) = (format!("{}.33.0/24", net()), format!("{}.33.9", net()));
    run(docker.docker().args(["network", "create", "--subnet", &subnet, "reuse"]));
    let agent = docker.agent();
    let server = |name: &str| {
        let run_it = ["run", "-d", "--network", "reuse", "--ip", &address, "--name"];
        run(docker.docker().args(run_it).args([name, "bb", "httpd", "-f", "-p", "80"]));
    };
    server("one");
    let script = format!("while :; do wget -q -O /dev/null http://{address}/; sleep 0.05; done");
    let caller = ["run", "-d", "--network", "reuse", "--name", "caller", "bb", "sh", "-c", &script];
    run(docker.docker().args(caller));
    let ok = |role: &str, server: &str| -> u64 {
        let all = edges(&agent);
        let rows = all.iter().filter(|edge| edge["role"] == role && end(edge, "server") == server);
        rows.map(|edge| edge["connects"]["ok"].as_u64().unwrap_or_default()).sum()
    };
    until("one is called", || ok("client", "/one") > 5);
    run(docker.docker().args(["rm", "--force", "one"]));
    server("two");
    until("two is called", || ok("client", "/two") > 5);
    run(docker.docker().args(["rm", "--force", "caller"]));
    // Both sides count each connection once, so their names must agree.
    let whose = || ["/one", "/two"].map(|name| (ok("client", name), ok("server", name)));
    let began = std::time::Instant::now();
    while whose().iter().any(|(client, server)| client != server) {
        assert!(
            began.elapsed() < super::PATIENCE,
            "{:?} {:#?}",
            whose(),
            ours(&edges(&agent), |_| true)
        );
        std::thread::sleep(super::PAUSE);
    }
    agent.stop();
}
