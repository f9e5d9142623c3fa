//! Published ports that are in use elsewhere, and binds of published ports: the container is named,
//! not the engine's helper that binds for it.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::docker::{Docker, NEEDS};
use super::{lacking, run, until};
use crate::agent::Agent;

const PORT: &str = "5432";

/// A database outside of any container.
struct Redis(Child);

impl Redis {
    fn start(docker: &Docker, port: &str) -> Self {
        let mut command = docker.engine.command("redis-server");
        command.args(["--save", "", "--bind", "0.0.0.0", "--port", port]);
        command.current_dir(docker.engine.directory());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("redis-server is installed"))
    }

    /// Started where the port is free.
    fn listening(docker: &Docker, port: &str) -> Self {
        let redis = Self::start(docker, port);
        until("redis listens", || listens(docker, port));
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listens(docker: &Docker, port: &str) -> bool {
    let mut ss = docker.engine.command("ss");
    let output = ss.args(["-Htln", &format!("sport = :{port}")]).output();
    !output.expect("ss is installed").stdout.is_empty()
}

/// The agent's conflicts on our port in the engine's namespace; other namespaces may use it too.
fn list(agent: &Agent, docker: &Docker, what: &str) -> Vec<Value> {
    let all = agent.json(&format!("/api/v1/{what}?port={PORT}"));
    let rows = all[what].as_array().expect("a list").iter();
    rows.filter(|row| row["netns"] == docker.engine.namespace()).cloned().collect()
}

/// The conflicts, once there are as many.
#[track_caller]
fn conflicts(agent: &Agent, docker: &Docker, number: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let list = list(agent, docker, "conflicts");
        if list.len() == number {
            return list;
        }
        assert!(began.elapsed() < super::PATIENCE, "not {number}: {list:#?}");
        std::thread::sleep(super::PAUSE);
    }
}

fn sentences(list: &[Value]) -> Vec<&str> {
    list.iter().map(|one| one["finding"]["title"].as_str().expect("a sentence")).collect()
}

/// A container that cannot bind its port is named, and the holder is the database.
fn wanted_by_containers(mode: &[&str], helper: &str) {
    let docker = Docker::start_with(mode);
    let redis = Redis::listening(&docker, PORT);
    let agent = docker.agent();
    let publish = format!("{PORT}:{PORT}");
    // One that is removed at once, and one of a compose project that is created and stays.
    let once = ["run", "--rm", "--name", "tried", "--publish", &publish, "bb", "sleep", "9"];
    let said = docker.docker().args(once).output().expect("docker is installed");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("address already in use"), "{said}");
    conflicts(&agent, &docker, 1);
    let folder = docker.engine.directory().join("shop");
    fs::create_dir_all(&folder).expect("a directory");
    let project = format!(
        "version: \"3.3\"\nservices:\n  db:\n    image: bb\n    command: [sleep, \"9\"]\n    \
         ports: [\"{publish}\"]\n"
    );
    fs::write(folder.join("docker-compose.yml"), project).expect("writing a project");
    let up = docker.client("docker-compose").current_dir(&folder).args(["up", "-d"]).output();
    assert!(!up.expect("docker-compose is installed").status.success());
    conflicts(&agent, &docker, 2);
    // Started again, without being created again.
    let id = run(docker.docker().args(["ps", "--all", "--quiet", "--filter", "name=db"]));
    assert!(!docker.docker().args(["start", &id]).status().expect("docker").success());
    until("the second try of db is counted", || {
        conflicts(&agent, &docker, 2)[1]["count"].as_u64() >= Some(2)
    });
    for (one, (name, project)) in
        conflicts(&agent, &docker, 2).iter().zip([("tried", ""), ("db", "shop")])
    {
        let claimant = &one["claimant"];
        assert_eq!(
            (&claimant["service"]["name"], &claimant["service"]["namespace"]),
            (&name.into(), &project.into()),
            "{one:#}"
        );
        assert_eq!(claimant["command"], helper, "{one:#}");
        assert_eq!(one["errno"], "EADDRINUSE", "{one:#}");
        let holder = &one["holder"];
        assert_eq!(holder["service"]["name"], "redis-server", "{one:#}");
        assert_eq!(holder["pid"], redis.0.id(), "{one:#}");
        assert_eq!(holder["state"], "listening", "{one:#}");
        assert_eq!(one["reason"], "same_address", "{one:#}");
    }
    let found = conflicts(&agent, &docker, 2);
    let found = sentences(&found);
    assert!(found[0].starts_with(&format!("tried ({helper}, pid ")), "{found:?}");
    assert!(found[1].starts_with(&format!("db of shop ({helper}, pid ")), "{found:?}");
    let here = docker.engine.scope();
    for one in found {
        assert!(one.contains(&format!(" to bind 0.0.0.0:{PORT}: ")), "{one}");
        assert!(
            one.contains(&format!(": redis-server of {here} (pid {}) has held it", redis.0.id())),
            "{one}"
        );
    }
    let labels = [("claimant", "tried"), ("holder", "redis-server"), ("port", PORT)];
    let now = agent.ledger_adds_up();
    assert_eq!(now.sum("portolan_port_conflicts_total", &labels), 1);
    drop(redis);
    agent.stop();
}

/// For a program that fails to bind a published port the holder is the container.
fn had_by_a_container(mode: &[&str], helper: &str) {
    let docker = Docker::start_with(mode);
    let agent = docker.agent();
    let publish = format!("{PORT}:80");
    let serve = ["bb", "httpd", "-f", "-p", "80"];
    run(docker.docker().args(["run", "-d", "--name", "web", "--publish", &publish]).args(serve));
    let mut redis = Redis::start(&docker, PORT);
    until("redis gives up", || redis.0.try_wait().expect("a child of ours").is_some());
    let one = conflicts(&agent, &docker, 1).remove(0);
    assert_eq!(one["claimant"]["service"]["name"], "redis-server", "{one:#}");
    assert_eq!(one["claimant"]["pid"], redis.0.id(), "{one:#}");
    assert_eq!(one["holder"]["service"]["name"], "web", "{one:#}");
    assert_eq!(one["holder"]["command"], helper, "{one:#}");
    let sentence = one["finding"]["title"].as_str().expect("a sentence");
    assert!(sentence.contains(&format!(": web ({helper}, pid ")), "{sentence}");
    // The table of ports shows the same.
    let ports = list(&agent, &docker, "ports");
    let is_web = |port: &Value| port["holder"]["service"]["name"] == "web";
    assert!(!ports.is_empty() && ports.iter().all(is_web), "{ports:#?}");
    agent.stop();
}

/// A container whose port Docker has given to another one is not started, without any bind.
fn wanted_of_another_container() {
    let docker = Docker::start();
    let agent = docker.agent();
    let publish = format!("{PORT}:80");
    let serve = ["bb", "httpd", "-f", "-p", "80"];
    run(docker.docker().args(["run", "-d", "--name", "web", "--publish", &publish]).args(serve));
    until("the first has its port", || {
        list(&agent, &docker, "ports").iter().any(|row| row["holder"]["service"]["name"] == "web")
    });
    let second = ["run", "--name", "tried", "--publish", &publish, "bb", "sleep", "9"];
    let said = docker.docker().args(second).output().expect("docker is installed");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("port is already allocated"), "{said}");
    let one = conflicts(&agent, &docker, 1).remove(0);
    assert_eq!(one["claimant"]["service"]["name"], "tried", "{one:#}");
    assert_eq!(one["holder"]["service"]["name"], "web", "{one:#}");
    assert_eq!(one["reason"], "allocated", "{one:#}");
    assert_eq!((&one["count"], &one["inferred"]), (&1.into(), &true.into()), "{one:#}");
    let sentence = one["finding"]["title"].as_str().expect("a sentence");
    let expected =
        format!("tried could not be started with 0.0.0.0:{PORT} published: web has held it");
    assert!(sentence.starts_with(&expected), "{sentence}");
    let labels = [("claimant", "tried"), ("holder", "web"), ("port", PORT)];
    agent.eventually(1, |now| now.sum("portolan_port_conflicts_total", &labels));
    // A second try is a second conflict, and one after the port is free is none.
    assert!(!docker.docker().args(["start", "tried"]).status().expect("docker").success());
    until("the second try counts", || conflicts(&agent, &docker, 1)[0]["count"] == 2);
    run(docker.docker().args(["rm", "--force", "web"]));
    run(docker.docker().args(["start", "tried"]));
    run(docker.docker().args(["rm", "--force", "tried"]));
    assert_eq!(conflicts(&agent, &docker, 1)[0]["count"], 2);
    agent.stop();
}

/// Containers on the host's network bind themselves, and end before anybody looks at them.
fn wanted_on_the_hosts_network() {
    let docker = Docker::start();
    let redis = Redis::listening(&docker, PORT);
    let agent = docker.agent();
    let serve = ["bb", "httpd", "-f", "-p", PORT];
    let host = ["--network", "host", "--name"];
    let looping = ["run", "-d", "--restart", "always"];
    run(docker.docker().args(looping).args(host).arg("looping").args(serve));
    // Removed with its end, as by a unit of systemd that starts it again and again.
    let once = docker.docker().args(["run", "--rm"]).args(host).arg("once").args(serve).output();
    let said = once.expect("docker is installed").stderr;
    assert!(String::from_utf8_lossy(&said).contains("Address already in use"), "{said:?}");
    let count = |list: &[Value], name: &str| {
        let of = |one: &&Value| one["claimant"]["service"]["name"] == name;
        list.iter().find(of).map_or(0, |one| one["count"].as_u64().unwrap_or_default())
    };
    until("the loop goes on under one name", || {
        let list = conflicts(&agent, &docker, 2);
        count(&list, "looping") >= 3 && count(&list, "once") == 1
    });
    for one in conflicts(&agent, &docker, 2) {
        assert_eq!(one["claimant"]["command"], "httpd", "{one:#}");
        assert_eq!(one["claimant"]["service"]["source"], "docker", "{one:#}");
        assert_eq!(one["holder"]["pid"], redis.0.id(), "{one:#}");
        assert_eq!(one["errno"], "EADDRINUSE", "{one:#}");
    }
    let labels = [("claimant", "looping"), ("holder", "redis-server"), ("port", PORT)];
    assert!(agent.scrape().sum("portolan_port_conflicts_total", &labels) >= 3);
    run(docker.docker().args(["rm", "--force", "looping"]));
    drop(redis);
    agent.stop();
}

macro_rules! needs_docker {
    () => {
        needs_kernel!();
        if let Some(program) = lacking(NEEDS).or(lacking(&["redis-server", "ss"])) {
            println!("SKIPPED: {program} is not installed");
            return;
        }
    };
}

#[test]
fn a_container_that_fails_for_a_taken_port_is_named() {
    needs_docker!();
    wanted_by_containers(&[], "docker-proxy");
}

#[test]
fn a_container_that_fails_for_a_taken_port_is_named_if_the_daemon_binds() {
    needs_docker!();
    wanted_by_containers(&["--userland-proxy=false"], "dockerd");
}

#[test]
fn the_holder_of_a_published_port_is_its_container() {
    needs_docker!();
    had_by_a_container(&[], "docker-proxy");
}

#[test]
fn the_holder_of_a_published_port_is_its_container_if_the_daemon_binds() {
    needs_docker!();
    had_by_a_container(&["--userland-proxy=false"], "dockerd");
}

#[test]
fn a_port_that_docker_gave_to_another_container_is_a_conflict() {
    needs_docker!();
    wanted_of_another_container();
}

#[test]
fn a_container_on_the_hosts_network_that_crash_loops_on_a_taken_port_is_named() {
    needs_docker!();
    wanted_on_the_hosts_network();
}
