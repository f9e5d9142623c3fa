//! Memory of the daemon by number of series, duration of a scrape, and kernel memory of a live
//! socket.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::agent::Agent;
use crate::load::Server;
use crate::stats::median;

/// Sizes to measure, in series.
const STEPS: [usize; 2] = [10_000, 100_000];
/// Edges made at once.
const EDGES: usize = 50;
/// More series than an edge has, so that no step goes far beyond its size.
const SERIES_PER_EDGE: usize = 100;
/// More than this many rounds of new edges do not help.
const MOST_ROUNDS: usize = 300;
const SCRAPES: usize = 15;
/// Open connections while the kernel's memory is measured.
const CONNECTIONS: usize = 8000;
/// The kernel frees sockets' memory some time after their end.
const RECLAIM: Duration = Duration::from_secs(2);

/// The figures.
pub struct Size {
    /// Resident MiB after the start.
    pub start: f64,
    pub steps: Vec<Step>,
    /// Kernel memory that the agent's state takes per socket.
    pub bytes_per_socket: f64,
}

/// At this number of series.
pub struct Step {
    pub series: usize,
    pub resident_mib: f64,
    /// Median time of a scrape in milliseconds, from the request to the last byte.
    pub scrape_ms: f64,
}

/// Measures them.
pub fn measure(server: &Server, binary: &Path, directory: &Path) -> Result<Size> {
    let agent = Agent::start(binary, &[], directory)?;
    agent.scrape()?;
    let start = resident_mib(agent.process())?;
    let mut steps = Vec::new();
    let mut listeners = Vec::new();
    for wanted in STEPS {
        let mut series = 0;
        for _ in 0..MOST_ROUNDS {
            series = series_of(&agent.scrape()?);
            if series >= wanted {
                break;
            }
            let missing = (wanted - series).div_ceil(SERIES_PER_EDGE);
            listeners.extend(server.within(|| edges(missing.min(EDGES)))?);
        }
        if series < wanted {
            bail!(
                "there are only {series} series instead of {wanted}: is the table of edges full?"
            );
        }
        let mut times = Vec::new();
        for _ in 0..SCRAPES {
            times.push(agent.time_scrape()?.as_secs_f64() * 1e3);
        }
        steps.push(Step {
            series,
            resident_mib: resident_mib(agent.process())?,
            scrape_ms: median(&times).unwrap_or(f64::NAN),
        });
    }
    drop(listeners);
    agent.stop()?;
    let without = server.within(connections)?;
    let agent = Agent::start(binary, &[], directory)?;
    let with = server.within(connections)?;
    agent.stop()?;
    let bytes_per_socket = (with - without) / (2 * CONNECTIONS) as f64;
    Ok(Size { start, steps, bytes_per_socket })
}

/// New edges: a listener each, and a connection to it that ends.
fn edges(count: usize) -> Result<Vec<TcpListener>> {
    let edge = |_| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        drop((client, server));
        Ok(listener)
    };
    let edges: std::io::Result<Vec<_>> = (0..count).map(edge).collect();
    edges.context("making edges")
}

/// Bytes that the kernel's general caches grow by while many connections are open.
fn connections() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    let address = listener.local_addr()?;
    sleep(RECLAIM);
    let before = slab_bytes()?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(address).context("connecting")?;
        open.push((client, listener.accept().context("accepting")?));
    }
    sleep(RECLAIM);
    let after = slab_bytes()?;
    drop(open);
    Ok(after - before)
}

/// Bytes in use in the kernel's caches for allocations without a cache of their own.
fn slab_bytes() -> Result<f64> {
    let slabs = fs::read_to_string("/proc/slabinfo").context("reading /proc/slabinfo")?;
    let general = slabs.lines().filter(|line| line.starts_with("kmalloc"));
    let bytes = general.filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let objects: f64 = words.next()?.parse().ok()?;
        let size: f64 = words.nth(1)?.parse().ok()?;
        Some(objects * size)
    });
    Ok(bytes.sum())
}

fn resident_mib(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .context("reading the daemon's status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.context("the daemon's status has no VmRSS")? / 1024.0)
}

/// Lines of a scrape that are samples.
fn series_of(scrape: &str) -> usize {
    scrape.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_series() {
        assert_eq!(series_of("# TYPE a counter\na 1\na{b=\"c\"} 2\n# EOF\n"), 2);
    }

    #[test]
    fn our_own_memory_is_resident() {
        assert!(resident_mib(std::process::id()).unwrap() > 0.1);
    }
}
