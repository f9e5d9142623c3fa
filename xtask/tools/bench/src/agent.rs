//! The agent under test: started with its defaults, scraped, stopped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::bpf::Runs;
use crate::tool;

const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);
/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// A running agent.
pub struct Agent {
    child: Child,
    address: SocketAddr,
}

impl Agent {
    /// Starts `binary` and returns when it is ready; all its files are below `directory`.
    pub fn start(binary: &Path, flags: &[&str], directory: &Path) -> Result<Self> {
        let address = free_address()?;
        let log = directory.join("agent.log");
        let log_file = File::create(&log).context("creating a file for the agent's log")?;
        let mut command = Command::new(binary);
        command.args(["agent", "--web.listen-address"]).arg(address.to_string());
        command.arg("--run-directory").arg(directory.join("run"));
        command.arg("--state-directory").arg(directory.join("state")).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let child = command.spawn().context("starting the agent")?;
        let mut agent = Self { child, address };
        if let Err(error) = agent.wait() {
            drop(agent);
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(error.context(format!("the agent does not start:\n{}", text.trim_end())));
        }
        Ok(agent)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        tool::stop(&mut self.child, "TERM").context("stopping the agent")
    }

    /// Its metrics, as Prometheus would get them.
    pub fn scrape(&self) -> Result<String> {
        let (_, metrics) = self.ask("/metrics")?;
        Ok(metrics)
    }

    /// Duration of a scrape, from the request to its last byte. The body is dropped: storing and
    /// checking megabytes takes time of the reader, not of the agent.
    pub fn time_scrape(&self) -> Result<Duration> {
        let mut piece = vec![0; PIECE];
        let began = Instant::now();
        let mut stream = self.request("/metrics")?;
        while stream.read(&mut piece).context("the agent does not answer")? > 0 {}
        Ok(began.elapsed())
    }

    /// Runs of its programs so far, by hook; it must have been started with `--run-stats`.
    pub fn runs(&self) -> Result<Vec<(String, Runs)>> {
        Ok(runs(&self.scrape()?).into_iter().collect())
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().context("waiting for the agent")? {
                bail!("it ended ({status})");
            }
            if self.ask("/-/ready").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            sleep(STEP);
        }
        bail!("it is not ready after {} s", PATIENCE.as_secs())
    }

    /// A connection with the response to a GET. HTTP/1.0, so that it comes in one piece.
    fn request(&self, path: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        Ok(stream)
    }

    /// Status and body of one GET.
    fn ask(&self, path: &str) -> Result<(u16, String)> {
        let mut answer = Vec::new();
        self.request(path)?.read_to_end(&mut answer).context("the agent does not answer")?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) =
            answer.split_once("\r\n\r\n").context("the agent's answer is cut off")?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.context("the agent's answer has no status")?, body.to_owned()))
    }
}

impl Drop for Agent {
    /// Whatever went wrong, no agent stays. One that was stopped is waited for already.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on the loopback whose port is free now.
fn free_address() -> Result<SocketAddr> {
    let socket = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    socket.local_addr().context("looking for a free port")
}

fn runs(metrics: &str) -> BTreeMap<String, Runs> {
    let mut runs: BTreeMap<String, Runs> = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("portolan_hook_run") else { continue };
        let Some((name, rest)) = rest.split_once("{hook=\"") else { continue };
        let Some((hook, value)) = rest.split_once("\"} ") else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let entry = runs.entry(hook.to_owned()).or_default();
        match name {
            "s_total" => entry.count = value as u64,
            "_seconds_total" => entry.nanoseconds = (value * 1e9).round() as u64,
            _ => {}
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_by_hook() {
        let metrics = "# TYPE portolan_hook_runs_total counter\n\
                       portolan_hook_runs_total{hook=\"iterate_sockets\"} 40\n\
                       portolan_hook_run_seconds_total{hook=\"iterate_sockets\"} 0.000008\n\
                       portolan_hook_attached{hook=\"iterate_sockets\"} 1\n";
        let expected = Runs { count: 40, nanoseconds: 8000 };
        assert_eq!(runs(metrics), BTreeMap::from([("iterate_sockets".to_owned(), expected)]));
    }
}
