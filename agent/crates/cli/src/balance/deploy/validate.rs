//! The balancer's own judgement of a configuration before it is in place.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::super::intent::{Balancer, Intent};
use super::process::{self, Guard};

/// How a configuration is judged.
pub(super) struct Checker<'a> {
    pub balancer: Balancer,
    /// The program.
    pub program: PathBuf,
    /// The file that includes the deployed one (nginx, Caddy), or those that are read before it
    /// (HAProxy).
    pub main: &'a [PathBuf],
}

/// How long Traefik may take to start and read its file.
const STARTED: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

// === impl Checker ===

impl Checker<'_> {
    /// Judges `candidate`, which is to become `file`; says how it was judged.
    pub(super) fn check(
        &self,
        candidate: &Path,
        file: &Path,
        intent: &Intent,
    ) -> anyhow::Result<String> {
        match self.balancer {
            Balancer::Nginx => self.nginx(candidate, file),
            Balancer::Haproxy => self.haproxy(candidate),
            Balancer::Envoy => self.envoy(candidate),
            Balancer::Caddy => self.caddy(candidate, file),
            Balancer::Traefik => self.traefik(candidate, intent),
        }
    }

    fn nginx(&self, candidate: &Path, file: &Path) -> anyhow::Result<String> {
        let usual = [PathBuf::from("/etc/nginx/nginx.conf")];
        let main = self.main.first().unwrap_or(&usual[0]);
        let is_main = std::fs::canonicalize(main).is_ok_and(|main| main == file);
        if is_main || (!main.exists() && self.main.is_empty()) {
            let mut command = Command::new(&self.program);
            self.judge(command.arg("-t").arg("-q").arg("-c").arg(candidate))?;
            return Ok("nginx -t".to_owned());
        }
        let (mut command, _placeholder) = in_place(candidate, file, &self.program)?;
        let ended = self.judge(command.arg("-T").arg("-c").arg(main))?;
        let listed = |line: &str| {
            let path = line.strip_prefix("# configuration file ")?.strip_suffix(':')?;
            std::fs::canonicalize(path).ok()
        };
        if !ended.stdout.lines().any(|line| listed(line).is_some_and(|path| path == file)) {
            bail!(
                "{} does not include {}; add an include to it, or name the file that does with --main",
                main.display(),
                file.display()
            );
        }
        Ok(format!("nginx -T with {}", main.display()))
    }

    fn haproxy(&self, candidate: &Path) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("-c");
        for main in self.main {
            command.arg("-f").arg(main);
        }
        self.judge(command.arg("-f").arg(candidate))?;
        Ok("haproxy -c".to_owned())
    }

    fn envoy(&self, candidate: &Path) -> anyhow::Result<String> {
        // Envoy goes by the ending of the name.
        let (_directory, copy) = copy(candidate, "envoy.yaml")?;
        let mut command = Command::new(&self.program);
        command.args(["--mode", "validate", "--log-level", "error", "-c"]);
        self.judge(command.arg(&copy))?;
        Ok("envoy --mode validate".to_owned())
    }

    fn caddy(&self, candidate: &Path, file: &Path) -> anyhow::Result<String> {
        let arguments = ["validate", "--adapter", "caddyfile", "--config"];
        let including = self
            .main
            .first()
            .filter(|main| std::fs::canonicalize(main).is_ok_and(|main| main != file));
        let ((mut command, _placeholder), config) = match including {
            Some(main) => (in_place(candidate, file, &self.program)?, main.as_path()),
            None => ((Command::new(&self.program), None), candidate),
        };
        self.judge(command.args(arguments).arg(config))?;
        Ok("caddy validate".to_owned())
    }

    fn judge(&self, command: &mut Command) -> anyhow::Result<process::Ended> {
        let ended = process::run(command)?;
        if ended.stderr.starts_with("unshare: ") || ended.stderr.starts_with("mount: ") {
            bail!(
                "a part of a configuration is checked in its place, in a mount namespace, which needs root: {}; run this as root, or deploy a complete configuration (--whole)",
                ended.complaint()
            );
        }
        if !ended.status.success() {
            bail!("{} refuses the configuration: {}", self.balancer.title(), ended.complaint());
        }
        Ok(ended)
    }

    /// Traefik has no checker: a second instance reads the file, and its API says what it makes of
    /// it.
    fn traefik(&self, candidate: &Path, intent: &Intent) -> anyhow::Result<String> {
        let (directory, copy) = copy(candidate, "traefik.yaml")?;
        let (api, entry) = (free()?, free()?);
        let log = std::fs::File::create(directory.path().join("log")).context("a log")?;
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--providers.file.filename={}", copy.display()))
            .arg("--providers.file.watch=false")
            .arg(format!("--entryPoints.traefik.address={api}"))
            .arg(format!("--entryPoints.{}.address={entry}", intent.name))
            .args(["--api.insecure=true", "--log.level=ERROR", "--log.noColor=true"])
            .args(["--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("a log")?)
            .stderr(log);
        let _guard = Guard(process::spawn(&mut command, &self.program.to_string_lossy())?);
        let said = || {
            let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            let log: String = log.chars().filter(|c| !c.is_control() || *c == '\n').collect();
            log.lines().take(4).collect::<Vec<_>>().join("; ")
        };
        let began = Instant::now();
        loop {
            let objects = objects(api).ok();
            let ours = |object: &Object| object.provider == "file";
            if let Some(objects) = objects.filter(|objects| objects.iter().any(ours)) {
                let wrong = objects
                    .iter()
                    .filter(|object| ours(object))
                    .find(|object| !object.error.is_empty() || object.status == "disabled");
                if let Some(Object { name, error, .. }) = wrong {
                    bail!("Traefik refuses the configuration: {name}: {}", error.join("; "));
                }
                return Ok("a second Traefik, whose API reports no errors".to_owned());
            }
            let log = said();
            if log.contains("ERR") {
                bail!("Traefik refuses the configuration: {log}");
            }
            if began.elapsed() > STARTED {
                bail!(
                    "Traefik takes nothing from the configuration within {} s; {log}",
                    STARTED.as_secs()
                );
            }
            thread::sleep(PAUSE);
        }
    }
}

/// A router or a service of Traefik's API.
#[derive(Debug, Deserialize)]
struct Object {
    #[serde(default)]
    name: String,
    #[serde(default)]
    provider: String,
    #[serde(default)]
    status: String,
    #[serde(default, deserialize_with = "one_or_more")]
    error: Vec<String>,
}

/// Routers have a list of errors, other objects a text.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Errors {
        One(String),
        More(Vec<String>),
    }
    Ok(match Errors::deserialize(from)? {
        Errors::One(one) => vec![one],
        Errors::More(more) => more,
    })
}

/// What a Traefik has made of its files.
fn objects(api: SocketAddr) -> anyhow::Result<Vec<Object>> {
    let mut all = Vec::new();
    for path in ["http/routers", "http/services", "http/middlewares", "tcp/routers", "tcp/services"]
    {
        let mut stream = TcpStream::connect_timeout(&api, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /api/{path} HTTP/1.0\r\nHost: {api}\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        all.extend(serde_json::from_str::<Vec<Object>>(body)?);
    }
    Ok(all)
}

/// An empty file to mount on, which means nothing in the languages that include files; removed when
/// this is dropped.
struct Placeholder(PathBuf);

// === impl Placeholder ===

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A command that sees `candidate` in place of `file`: in a mount namespace of its own, so nobody
/// else does.
fn in_place(
    candidate: &Path,
    file: &Path,
    program: &Path,
) -> anyhow::Result<(Command, Option<Placeholder>)> {
    let mut placeholder = None;
    if !file.exists() {
        std::fs::write(file, "").with_context(|| format!("creating {}", file.display()))?;
        placeholder = Some(Placeholder(file.to_owned()));
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--", "sh", "-c"])
        .arg("mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"")
        .arg("sh")
        .arg(candidate)
        .arg(file)
        .arg(program);
    Ok((command, placeholder))
}

/// A copy with another name, for programs that go by it.
fn copy(candidate: &Path, name: &str) -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir().context("a temporary directory")?;
    let path = directory.path().join(name);
    std::fs::copy(candidate, &path).with_context(|| format!("copying {}", candidate.display()))?;
    Ok((directory, path))
}

/// A free port of the loopback.
fn free() -> anyhow::Result<SocketAddr> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    probe.local_addr().context("a free port")
}
