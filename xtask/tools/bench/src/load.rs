//! The traffic: nginx and wrk, or iperf3, in a network namespace of their own, both ends on this
//! machine; and binds there, which cause no traffic.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_kit::shell;

use crate::binds;
use crate::cpu::{Clocks, Spent};

/// Where nginx listens.
pub const PORT: u16 = 8080;
const STREAM_PORT: u16 = 5201;
/// Connections that wrk keeps open, or reopens for every request.
const CONNECTIONS: u32 = 64;
/// Bytes of the file behind [`Load::Bulk`].
const BULK_BYTES: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// The behaviour of wrk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A new connection for every request.
    Connections,
    /// Small requests on connections that stay open.
    Requests,
    /// Large responses on connections that stay open.
    Bulk,
    /// One connection at full speed; an operation is a MiB.
    Stream,
    /// Binds to a port that is taken.
    FailedBinds,
    /// Binds to a port that is free, given back at once.
    Binds,
}

/// One run of wrk.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Operations that were done.
    pub operations: u64,
    /// Operations that failed according to wrk.
    pub errors: u64,
    /// Processor time that they took.
    pub spent: Spent,
}

/// nginx in its namespace; both end with this value.
pub struct Server {
    child: Child,
}

impl Load {
    /// One operation, in words.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::Connections => "connection",
            Self::Requests | Self::Bulk => "request",
            Self::Stream => "MiB",
            Self::FailedBinds => "failed bind",
            Self::Binds => "bind",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Bulk => "/bulk",
            _ => "/",
        }
    }
}

impl Window {
    /// Operations per second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.spent.wall.as_secs_f64()
    }

    /// Processor seconds of the whole machine per operation.
    pub fn cost(&self) -> f64 {
        self.spent.busy / self.operations as f64
    }

    /// Processor seconds of the load, of the tool under test and of the kernel's threads per
    /// operation.
    pub fn own_cost(&self) -> f64 {
        (self.spent.own + self.spent.kernel) / self.operations as f64
    }
}

impl Server {
    /// Starts nginx with a configuration of its own below `directory`.
    pub fn start(directory: &Path) -> Result<Self> {
        let here = directory.display().to_string();
        let config = directory.join("nginx.conf");
        fs::write(&config, configuration(&here)).context("writing nginx' configuration")?;
        fs::write(directory.join("bulk"), vec![b'x'; BULK_BYTES]).context("writing a file")?;
        // A storm uses up ports faster than TIME_WAIT gives them back.
        let script = "ip link set lo up && \
                      echo 10000 65535 > /proc/sys/net/ipv4/ip_local_port_range && \
                      exec nginx -e \"$0/error.log\" -p \"$0\" -c \"$0/nginx.conf\"";
        // If this process is killed, nginx gets a signal too and stops.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "unshare", "--net", "sh", "-c", script]).arg(&here);
        let child = command.stdin(Stdio::null()).spawn().context("starting nginx")?;
        let mut server = Self { child };
        server.wait(directory)?;
        Ok(server)
    }

    /// The processes that serve.
    pub fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let workers = children.split_whitespace().filter_map(|word| word.parse().ok());
        std::iter::once(id).chain(workers).collect()
    }

    /// One run of the load; the CPU time of `others` counts as the participants'.
    pub fn run(&self, load: Load, seconds: u32, others: &[u32]) -> Result<Window> {
        let mut taking_part = self.processes();
        taking_part.extend_from_slice(others);
        match load {
            Load::Stream => return self.stream(seconds, &taking_part),
            Load::Binds | Load::FailedBinds => return self.binds(load, seconds, taking_part),
            Load::Connections | Load::Requests | Load::Bulk => {}
        }
        let mut wrk = self.inside("wrk");
        let connections = if load == Load::Bulk { 2 } else { CONNECTIONS };
        wrk.args(["--threads", "2", "--connections"]).arg(connections.to_string());
        wrk.arg("--duration").arg(format!("{seconds}s"));
        if load == Load::Connections {
            wrk.args(["--header", "Connection: close"]);
        }
        wrk.arg(format!("http://127.0.0.1:{PORT}{}", load.path()));
        let before = Clocks::read(&taking_part)?;
        let output = shell::output(&mut wrk)?;
        let spent = Clocks::read(&taking_part)?.since(&before);
        let (operations, errors) = results(&output)
            .with_context(|| format!("wrk printed no sum of its requests:\n{output}"))?;
        if operations == 0 {
            bail!("not one request was answered: look at what else runs on this machine");
        }
        Ok(Window { operations, errors, spent })
    }

    /// One run of binds, in threads of ours.
    fn binds(&self, load: Load, seconds: u32, mut taking_part: Vec<u32>) -> Result<Window> {
        taking_part.push(std::process::id());
        self.within(|| {
            let before = Clocks::read(&taking_part)?;
            let (operations, after) = binds::run(load, seconds, || Clocks::read(&taking_part))?;
            Ok(Window { operations, errors: 0, spent: after?.since(&before) })
        })
    }

    /// One run of iperf3. Its server is our child too, so that its time counts when it has ended.
    fn stream(&self, seconds: u32, taking_part: &[u32]) -> Result<Window> {
        let before = Clocks::read(taking_part)?;
        let mut server = self.inside("iperf3");
        server.args(["--server", "--port"]).arg(STREAM_PORT.to_string());
        let mut server = server.stdout(Stdio::null()).spawn().context("starting iperf3")?;
        let streamed = self.stream_client(seconds);
        server.kill().context("ending iperf3")?;
        server.wait().context("waiting for iperf3's end")?;
        let spent = Clocks::read(taking_part)?.since(&before);
        let (bytes, sent_for) = streamed?;
        // The handshake of iperf3 and its end are not the stream.
        let spent = Spent { wall: Duration::from_secs_f64(sent_for), ..spent };
        Ok(Window { operations: bytes >> 20, errors: 0, spent })
    }

    /// The other end of [`Self::stream`], repeated until the server listens.
    fn stream_client(&self, seconds: u32) -> Result<(u64, f64)> {
        let began = Instant::now();
        loop {
            let mut client = self.inside("iperf3");
            client.args(["--client", "127.0.0.1", "--json", "--port"]);
            client.arg(STREAM_PORT.to_string()).arg("--time").arg(seconds.to_string());
            // With --json its exit status is 0 even if no server listened yet.
            let output = shell::output(&mut client)?;
            if let Some(streamed) = streamed(&output) {
                return Ok(streamed);
            }
            if began.elapsed() > PATIENCE {
                bail!("iperf3 could not measure:\n{output}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs `work` in a thread inside the namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.child.id());
        let namespace = fs::File::open(&path).context("opening the load's network namespace")?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // SAFETY: an open namespace; only this thread moves.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    let error = std::io::Error::last_os_error();
                    return Err(error).context("entering the load's network namespace");
                }
                work()
            });
            inside.join().unwrap_or_else(|_| bail!("a thread of the load panicked"))
        })
    }

    /// TCP segments received in the namespace so far.
    pub fn segments(&self) -> Result<u64> {
        let snmp = shell::output(self.inside("cat").arg("/proc/net/snmp"))?;
        tcp_counter(&snmp, "InSegs").context("/proc/net/snmp does not count TCP segments")
    }

    /// A command that will run inside the namespace.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.child.id())).arg(program);
        command
    }

    fn wait(&mut self, directory: &Path) -> Result<()> {
        let started = Instant::now();
        let log = directory.join("error.log");
        loop {
            if let Some(status) = self.child.try_wait().context("waiting for nginx")? {
                let text = fs::read_to_string(&log).unwrap_or_default();
                bail!("nginx ended at once ({status}): {}", text.trim());
            }
            if self.processes().len() > 1 {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("nginx did not start its workers in time");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master takes its workers along on SIGTERM, not on SIGKILL.
        shell::probe(
            Command::new("sh").args(["-c", "kill -TERM $0"]).arg(self.child.id().to_string()),
        );
        if let Err(error) = self.child.wait() {
            let _ = writeln!(std::io::stderr(), "nginx did not end: {error}");
        }
    }
}

fn configuration(directory: &str) -> String {
    format!(
        "user root; daemon off; worker_processes auto; pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{PORT} reuseport backlog=4096;
        root {directory};
        location = / {{ return 200 \"ok\\n\"; }}
    }}
}}
"
    )
}

/// Requests answered and requests that went wrong, from wrk's report.
fn results(report: &str) -> Option<(u64, u64)> {
    let mut operations = None;
    let mut errors = 0;
    for line in report.lines().map(str::trim) {
        if let Some((number, _)) = line.split_once(" requests in ") {
            operations = number.parse().ok();
        } else if let Some(counts) = line.strip_prefix("Socket errors: ") {
            let counts = counts.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
            errors += counts.sum::<u64>();
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            errors += count.parse::<u64>().unwrap_or(0);
        }
    }
    operations.map(|operations| (operations, errors))
}

/// Bytes received and seconds it took, from iperf3's report.
fn streamed(report: &str) -> Option<(u64, f64)> {
    let report: serde_json::Value = serde_json::from_str(report).ok()?;
    let sum = &report["end"]["sum_received"];
    Some((sum["bytes"].as_u64()?, sum["seconds"].as_f64()?))
}

/// A counter of TCP by its name in /proc/net/snmp.
pub fn tcp_counter(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let column = lines.next()?.split(' ').position(|column| column == name)?;
    lines.next()?.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_parsed_with_its_errors() {
        let report = "Running 1s test\n  8212 requests in 1.01s, 1.20MB read\n  \
                      Socket errors: connect 0, read 2, write 1, timeout 3\n  \
                      Non-2xx or 3xx responses: 4\nRequests/sec:   8130.7\n";
        assert_eq!(results(report), Some((8212, 10)));
        assert_eq!(results("unable to connect"), None);
    }

    #[test]
    fn the_output_of_iperf3_is_parsed() {
        let report = r#"{"end": {"sum_received": {"seconds": 1.5, "bytes": 3145728}}}"#;
        assert_eq!(streamed(report), Some((3 << 20, 1.5)));
        assert_eq!(streamed(r#"{"error": "unable to connect"}"#), None);
    }

    #[test]
    fn counters_of_tcp_are_found_by_name() {
        let snmp = "Ip: A B\nIp: 1 2\nTcp: RtoMin InSegs OutSegs\nTcp: 200 41 42\n";
        assert_eq!(tcp_counter(snmp, "InSegs"), Some(41));
        assert_eq!(tcp_counter(snmp, "OutRsts"), None);
    }
}
