//! The monitoring of the shop: the agent, Prometheus and Alertmanager, on the loopback.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_dashboards::{self as dashboards, Dashboards, Look};
use portolan_kit::tree;

use crate::cleanup::Cleanup;
use crate::programs::{Folder, Running, SERVICES, path_of};
use crate::stop;

const PATIENCE: Duration = Duration::from_secs(30);

/// The monitoring programs, and their addresses.
pub struct Watch {
    _programs: Vec<Running>,
    pub agent: String,
    pub prometheus: String,
    pub alertmanager: String,
}

impl Watch {
    /// Starts them; alerts go to `webhook`, and everything in the rules is `faster`.
    pub fn start(
        binary: &Path,
        folder: &Folder,
        webhook: &str,
        faster: u64,
        cleanup: &mut Cleanup,
    ) -> Result<Self> {
        let agent = free_address()?;
        let prometheus = free_address()?;
        let alertmanager = free_address()?;
        let cluster = free_address()?;
        let base = format!("http://{prometheus}/user");
        let look = Look { docs: format!("{base}/docs"), grafana: base, faster };
        let rules = Dashboards::read(tree::root())?.rule_files(&look);
        dashboards::write(&folder.path(""), &rules)?;
        let services = SERVICES.map(|name| name.replace('.', "\\.")).join("|");
        folder.fill(&[
            ("AGENT", &agent),
            ("ALERTMANAGER", &alertmanager),
            ("SERVICES", &services),
            ("PORT", prometheus.rsplit(':').next().unwrap_or_default()),
        ])?;
        fs::write(folder.path("alertmanager.yml"), alertmanager_config(webhook, faster)?)
            .context("writing Alertmanager's configuration")?;

        let mut programs = Vec::new();
        let mut command = Command::new(binary);
        command.args(["agent", "--run-stats", "--web.listen-address", &agent]);
        command.arg("--config").arg(folder.path("portolan.toml"));
        command.arg("--run-directory").arg(folder.path("run"));
        command.arg("--state-directory").arg(folder.path("state"));
        fs::create_dir_all(folder.path("run")).context("making room for the agent")?;
        let mut begin = |mut command: Command, name: &str| {
            let program = Running::start(&mut command, &folder.log(name))?;
            cleanup.note_process(program.pid())?;
            programs.push(program);
            anyhow::Ok(())
        };
        begin(command, "agent")?;
        let mut command = Command::new(path_of("prometheus-alertmanager")?);
        command.arg(format!("--config.file={}", folder.path("alertmanager.yml").display()));
        command.arg(format!("--storage.path={}", folder.path("alertmanager").display()));
        command.arg(format!("--web.listen-address={alertmanager}"));
        command.arg(format!("--cluster.listen-address={cluster}"));
        begin(command, "alertmanager")?;
        let mut command = Command::new(path_of("prometheus")?);
        command.arg(format!("--config.file={}", folder.path("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path("prometheus").display()));
        command.arg(format!("--web.listen-address={prometheus}"));
        command.arg(format!("--web.user-assets={}", folder.path("page").display()));
        command.arg("--rules.alert.resend-delay=1s");
        begin(command, "prometheus")?;
        for (name, address, path) in [
            ("agent", &agent, "/readyz"),
            ("alertmanager", &alertmanager, "/-/ready"),
            ("prometheus", &prometheus, "/-/ready"),
        ] {
            wait_for(name, address, path, folder)?;
        }
        Ok(Self { _programs: programs, agent, prometheus, alertmanager })
    }

    /// The result of an instant query.
    pub fn query(&self, expr: &str) -> Result<Vec<serde_json::Value>> {
        let mut path = String::from("/api/v1/query?query=");
        for byte in expr.bytes() {
            let _ = write!(path, "%{byte:02X}");
        }
        let body = get(&self.prometheus, &path).with_context(|| format!("asking for {expr}"))?;
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

/// The configuration that is shipped, with our receiver, and as much faster as the rules.
fn alertmanager_config(webhook: &str, faster: u64) -> Result<String> {
    let path = tree::root().join("dashboards/prometheus/alertmanager.yml");
    let text = fs::read_to_string(path).context("reading Alertmanager's configuration")?;
    let text = text.replace("http://127.0.0.1:9095/", webhook);
    let mut config = String::new();
    for line in text.lines() {
        let shipped = ["group_wait: 30s", "group_interval: 5m"];
        if faster > 1 && shipped.iter().any(|setting| line.trim() == *setting) {
            let (key, value) = line.split_once(": ").unwrap_or((line, "30s"));
            let _ = writeln!(config, "{key}: {}", dashboards::faster(value, faster));
        } else {
            config += line;
            config.push('\n');
        }
    }
    Ok(config)
}

fn wait_for(name: &str, address: &str, path: &str, folder: &Folder) -> Result<()> {
    let began = Instant::now();
    while get(address, path).is_err() {
        if began.elapsed() > PATIENCE {
            let log = fs::read_to_string(folder.log(name)).unwrap_or_default();
            bail!("{name} is not ready:\n{log}");
        }
        stop::pause(Duration::from_millis(100))?;
    }
    Ok(())
}

/// The body of a response with status 200. HTTP/1.0, so that it comes in one piece.
pub fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        bail!("{address}{path} answers {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// An address of the loopback whose port is free now.
pub fn free_address() -> Result<String> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(probe.local_addr().context("looking for a free port")?.to_string())
}
