//! The image, in Docker: the static binary and nothing else, with the capabilities of
//! `deploy/compose/old-docker.yml`, sees this host's containers by name, and leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde_json::Value;

use super::docker::{self, Docker, of_project_with, of_shop, project};
use super::{PATIENCE, PAUSE, lacking, ours, run, until};
use crate::facts::KernelObjects;

const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/image/Dockerfile.binary");
const COMPOSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/compose/old-docker.yml");

/// CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN: kept after startup.
pub(super) const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21;

/// The output of `cargo xtask image --binary-only`, unless a source has changed since.
pub(super) fn static_binary() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join("target/static/portolan");
    let built = fs::metadata(&path).and_then(|file| file.modified()).ok()?;
    let sources = ["Cargo.lock", "agent/src", "agent/crates", "agent-common/src", "agent-ebpf/src"];
    let newer = sources.iter().find_map(|source| changed_since(&root.join(source), built));
    if let Some(source) = &newer {
        println!("{} is older than {}", path.display(), source.display());
    }
    newer.is_none().then_some(path)
}

/// A file at or below `path` that was written after `time`.
fn changed_since(path: &Path, time: SystemTime) -> Option<PathBuf> {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder of sources").flatten();
        return entries.into_iter().find_map(|entry| changed_since(&entry.path(), time));
    }
    let written = fs::metadata(path).and_then(|file| file.modified()).expect("a source");
    (written > time).then(|| path.to_owned())
}

/// The agent in a container of this Docker.
struct Contained<'a> {
    docker: &'a Docker,
    folder: PathBuf,
    pid: u32,
}

impl<'a> Contained<'a> {
    fn start(docker: &'a Docker, binary: &Path) -> Self {
        let folder = docker.engine.directory().join("agent");
        fs::create_dir_all(&folder).expect("a directory");
        fs::copy(binary, folder.join("portolan")).expect("the static binary");
        fs::copy(DOCKERFILE, folder.join("Dockerfile")).expect("the Dockerfile");
        let mut build = docker.docker();
        build.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--tag", "portolan:test"]);
        run(build.arg(&folder));
        let size = run(docker.docker().args([
            "image",
            "inspect",
            "--format",
            "{{.Size}}",
            "portolan:test",
        ]));
        let size: u64 = size.parse().expect("bytes");
        let own = fs::metadata(binary).expect("the static binary").len();
        assert_eq!(size, own, "the image is the binary and nothing else");

        // The compose file's service, with this Docker's socket and folders of the test.
        let text = fs::read_to_string(COMPOSE).expect("the compose file");
        let path = |name: &str| folder.join(name).display().to_string();
        let socket = docker.engine.socket.display().to_string();
        let text = text
            .replace("${PORTOLAN_IMAGE:-portolan:0.1.0}", "portolan:test")
            .replace("/run/portolan:", &format!("{}:", path("run")))
            .replace("/var/lib/portolan:", &format!("{}:", path("state")))
            .replacen("/run/docker.sock:", &format!("{socket}:"), 1)
            .replace("restart: unless-stopped", "restart: \"no\"");
        fs::write(folder.join("docker-compose.yml"), text).expect("writing a compose file");
        docker.compose(&folder, &["up", "-d"]);
        let mut contained = Self { docker, folder, pid: 0 };
        contained.pid = contained.inspect("{{.State.Pid}}").parse().expect("a process");
        let began = Instant::now();
        until("the agent in the container answers", || contained.try_edges().is_some());
        println!("it answers after {} ms", began.elapsed().as_millis());
        contained
    }

    fn inspect(&self, format: &str) -> String {
        run(self.docker.docker().args(["inspect", "--format", format, &self.name()]))
    }

    /// The container's, as compose made it up.
    fn name(&self) -> String {
        run(self.docker.docker().args([
            "ps",
            "--all",
            "--quiet",
            "--filter",
            "ancestor=portolan:test",
        ]))
    }

    /// `portolan edges`, run in the container.
    fn try_edges(&self) -> Option<Vec<Value>> {
        let mut exec = self.docker.docker();
        exec.args(["exec", &self.name(), "/portolan", "edges", "--window", "start"]);
        exec.args(["--output", "json"]);
        let output = exec.output().ok().filter(|output| output.status.success())?;
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        answer["edges"].as_array().cloned()
    }

    fn log(&self) -> String {
        let output = self.docker.docker().args(["logs", &self.name()]).output();
        output.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default()
    }
}

/// `/proc/PID/status`, by field.
pub(super) fn status_of(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_image_sees_containers_by_name_with_few_privileges_and_leaves_nothing() {
    needs_kernel!();
    if let Some(program) = lacking(docker::NEEDS) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let Some(binary) = static_binary() else {
        println!("SKIPPED: no static binary of this build: `cargo xtask image --binary-only`");
        return;
    };
    let docker = Docker::start();
    let agent = Contained::start(&docker, &binary);

    let shop = project(&docker);
    docker.compose(&shop, &["up", "-d"]);
    // In the engine's network namespace, which is that of its host.
    let expected: BTreeSet<_> = of_project_with("/docker-proxy").into_iter().collect();
    let began = Instant::now();
    loop {
        let found = ours(&agent.try_edges().unwrap_or_default(), of_shop);
        if found == expected {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:#?}\n{}", agent.log());
        std::thread::sleep(PAUSE);
    }

    let status = status_of(agent.pid);
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(u64::from_str_radix(&status[set], 16), Ok(KEPT), "{set}: {}", agent.log());
    }
    for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapInh", "0000000000000000")] {
        assert_eq!(status[field], value, "{field}");
    }
    assert_eq!(
        agent.inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}}"),
        "true false"
    );

    let objects = KernelObjects::of(agent.pid);
    assert!(objects.programs.len() >= 9 && objects.maps.len() >= 10, "{objects:?}");
    run(docker.docker().args(["kill", &agent.name()]));
    objects.are_gone();
    let _ = fs::remove_dir_all(&agent.folder);
}
