//! CPU time of the daemon itself: of its process while the kernel half counts, and, at a steady
//! rate of requests, of the programs too.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::agent::Agent;
use crate::bpf;
use crate::cpu::process_seconds;
use crate::empty::Empty;
use crate::load::{Load, PORT, Server};

/// How long each load runs.
const SECONDS: u32 = 10;
/// Prometheus' default is a minute, many use this.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);

/// Clients of the steady load, each with one connection.
const CLIENTS: u32 = 10;
/// Requests of each client per beat, and the beat: together 10 000 per second.
const BURST: u32 = 2;
const BEAT: Duration = Duration::from_millis(2);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

/// The daemon's figures.
pub struct Daemon {
    /// Its CPU seconds per million connections, including scrapes and periodic collections.
    pub per_million_connections: f64,
    /// The same per million requests.
    pub per_million_requests: f64,
    pub paced: Paced,
}

/// Under a steady rate of requests.
pub struct Paced {
    /// Requests per second that were answered.
    pub rate: f64,
    /// Thousandths of a processor that the daemon used.
    pub daemon_millicores: f64,
    /// Thousandths of a processor that the programs used, the clock reads of the statistics
    /// included.
    pub program_millicores: f64,
    /// The same of empty programs on the same hooks: the least that any user of these hooks pays.
    pub floor_millicores: f64,
}

/// Measures them.
pub fn measure(server: &Server, binary: &Path, directory: &Path) -> Result<Daemon> {
    Ok(Daemon {
        per_million_connections: per_million(Load::Connections, server, binary, directory)?,
        per_million_requests: per_million(Load::Requests, server, binary, directory)?,
        paced: paced(server, binary, directory)?,
    })
}

fn per_million(load: Load, server: &Server, binary: &Path, directory: &Path) -> Result<f64> {
    let agent = Agent::start(binary, &[], directory)?;
    let before = process_seconds(agent.process())?;
    let window = scraped(&agent, || server.run(load, SECONDS, &[]))?;
    let used = process_seconds(agent.process())? - before;
    agent.stop()?;
    Ok(used / window.operations as f64 * 1e6)
}

fn paced(server: &Server, binary: &Path, directory: &Path) -> Result<Paced> {
    let agent = Agent::start(binary, &["--run-stats"], directory)?;
    let nanoseconds =
        || -> Result<u64> { Ok(agent.runs()?.iter().map(|(_, runs)| runs.nanoseconds).sum()) };
    let (seconds, programs) = (process_seconds(agent.process())?, nanoseconds()?);
    let began = Instant::now();
    let answered = scraped(&agent, || server.within(clients))?;
    let wall = began.elapsed().as_secs_f64();
    let (seconds, programs) =
        (process_seconds(agent.process())? - seconds, nanoseconds()? - programs);
    agent.stop()?;
    Ok(Paced {
        rate: answered as f64 / wall,
        daemon_millicores: seconds / wall * 1e3,
        program_millicores: programs as f64 / 1e9 / wall * 1e3,
        floor_millicores: floor(server)?,
    })
}

/// Thousandths of a processor that empty programs use under the steady load.
fn floor(server: &Server) -> Result<f64> {
    let statistics = bpf::enable_statistics().context("turning on run-time statistics")?;
    let empty = Empty::attach()?;
    let began = Instant::now();
    server.within(clients)?;
    let wall = began.elapsed().as_secs_f64();
    let nanoseconds: u64 = empty.runs()?.iter().map(|(_, runs)| runs.nanoseconds).sum();
    drop((empty, statistics));
    Ok(nanoseconds as f64 / 1e9 / wall * 1e3)
}

/// Does `work` while the agent is scraped as by Prometheus.
fn scraped<T>(agent: &Agent, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let scrapes = scope.spawn(move || {
            while ended
                .recv_timeout(SCRAPE_EVERY)
                .is_err_and(|error| matches!(error, std::sync::mpsc::RecvTimeoutError::Timeout))
            {
                agent.scrape()?;
            }
            Ok(())
        });
        let result = work();
        drop(done);
        let scrapes: Result<()> =
            scrapes.join().unwrap_or_else(|_| anyhow::bail!("a scrape panicked"));
        scrapes.and(result)
    })
}

/// The clients of the steady load, in the namespace of the caller; how much was answered.
fn clients() -> Result<u64> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let answered = clients.into_iter().map(|client| {
            client.join().unwrap_or_else(|_| anyhow::bail!("a client of the load panicked"))
        });
        answered.sum()
    })
}

fn client() -> Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).context("connecting to nginx")?;
    stream.set_nodelay(true)?;
    let began = Instant::now();
    let mut beats = 0;
    let mut answered = 0;
    let mut answer = [0; 1024];
    while began.elapsed() < Duration::from_secs(SECONDS.into()) {
        for _ in 0..BURST {
            stream.write_all(REQUEST).context("asking nginx")?;
            let read = stream.read(&mut answer).context("nginx's answer")?;
            answered += u64::from(read > 0);
        }
        beats += 1;
        let next = BEAT * beats;
        thread::sleep(next.saturating_sub(began.elapsed()));
    }
    Ok(answered)
}
