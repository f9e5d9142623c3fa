//! `portolan snapshot`: all that an agent shows, in one file that other commands read with `--from`.
//!
//! A snapshot is the agent's answers to the requests that commands make, in as few collections as
//! possible, and nothing else: no configuration, no environment, and none of the credentials that the
//! agent was asked with.

mod chains;
mod file;
mod history;
mod question;
mod raw;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use api_types::{Status, Timestamp, WindowChoice};
use clap::Args;
use client::{Class, Error};
use serde_json::value::RawValue;

pub(crate) use self::file::Snapshot;
use super::check::host_name;
use super::target::Connection;
use super::{Usage, human, note, print, window};

/// Requests at the same time: half of the connections of the agent's socket. Those that arrive
/// together share a collection.
const AT_ONCE: usize = 8;

/// Standard output in place of a file.
const STANDARD_OUTPUT: &str = "-";

const EXAMPLES: &str = "\
Examples:
  portolan snapshot                                portolan-HOST-TIME.json.gz, in this directory
  portolan snapshot incident-4711.json.gz --window 2m
  portolan snapshot --url http://node7:10062 node7.json.gz
  ssh node7 portolan snapshot - > node7.json.gz
  portolan check --from node7.json.gz              any command that reads: edges, events, top, diagnose, …
  portolan events --from node7.json.gz --since 10m --kind connect
  zcat node7.json.gz | jq '.responses | keys'

In it: edges (also by address), services, balance, timeouts, segments and the map over 10s, 1m, 5m and since the
agent's start; ports, failed binds, reservations, listeners and flows; the last 10000 events;
an hour of history; endpoints; the agent's status with its version and the kernel's. Not in it: the
agent's configuration, passwords and other credentials. Names, addresses and process ids of the host
are, so the file has mode 0600.

With --from, `--since` counts back from when the snapshot was taken. What needs the host, a probe or a
running agent is skipped or refused: network namespaces and DNS servers in `check`, probes in
`diagnose`, --follow, --watch and changes.";

/// Arguments of `portolan snapshot`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SnapshotArgs {
    /// The file; - is standard output [default: portolan-HOST-TIME.json.gz in this directory].
    file: Option<PathBuf>,
    /// Also the numbers of this window: a duration from 1s to 5m; may be repeated.
    #[arg(long = "window", value_name = "WINDOW", value_delimiter = ',', value_parser = window::parse)]
    windows: Vec<WindowChoice>,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(arguments: &SnapshotArgs) -> anyhow::Result<()> {
    let SnapshotArgs { file, windows, force, connection } = arguments;
    connection.live("snapshot")?;
    let is_standard_output = file.as_deref() == Some(Path::new(STANDARD_OUTPUT));
    if is_standard_output && io::stdout().is_terminal() {
        let why = "standard output is a terminal, and a snapshot is compressed: name a file, or send the output to one";
        return Err(Usage(why.to_owned()).into());
    }
    // Before the agent is asked.
    if let Some(file) = file.as_ref().filter(|_| !is_standard_output) {
        may_write(file, *force)?;
    }
    let snapshot = Snapshot::take(connection, windows)?;
    for (request, said) in &snapshot.refused {
        // That no segments are declared is an answer.
        if !request.starts_with(SEGMENTS) {
            note(&format!("not in the snapshot: {request} ({said})"));
        }
    }
    if is_standard_output {
        let mut packed = Vec::new();
        snapshot.write(&mut packed).context("packing the snapshot")?;
        return match io::stdout().lock().write_all(&packed) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("writing to standard output")
            }
            _ => Ok(()),
        };
    }
    let file = file.clone().unwrap_or_else(|| snapshot.usual_name().into());
    let size = snapshot.save(&file, *force)?;
    let shown = file.display();
    print(&format!(
        "written to {shown} ({}): {} at {}; read it with --from, like `portolan check --from {shown}`\n",
        human::bytes(size),
        snapshot.host,
        Timestamp::from_seconds(snapshot.taken_at.seconds().floor())
    ))
}

/// What a file, if it is a snapshot, answers to each request that it has a response to, and to some
/// that choose of it.
pub fn answers(bytes: &[u8]) -> Option<Vec<Result<String, Error>>> {
    /// What a file of a test may decompress to.
    const MOST_BYTES: u64 = 1 << 20;
    const CHOOSING: [&str; 6] = [
        "/api/v1/edges?window=60&role=client&service=web",
        "/api/v1/events?kind=connect&service=shop/web&limit=1",
        "/api/v1/map?window=60&service=web",
        "/api/v1/timeouts?window=60&service=web",
        "/api/v1/ports?port=80",
        "/api/v1/endpoints?window=1h&service=web",
    ];
    let snapshot = Snapshot::read(bytes, MOST_BYTES).ok()?;
    let stored = snapshot.responses.keys().map(String::as_str);
    Some(stored.chain(CHOOSING).map(|request| snapshot.text(request)).collect())
}

/// What an agent without segments refuses.
const SEGMENTS: &str = "/api/v1/segments?";

/// What was asked, and what came of it.
type Asked = (String, anyhow::Result<String>);

/// Asks for all of these, so many at the same time.
fn ask(agent: &Connection, requests: Vec<String>) -> Vec<Asked> {
    let waiting = Mutex::new(requests.into_iter());
    let work = || {
        let mut asked = Vec::new();
        loop {
            // The lock is held for no longer than this line.
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(request) = next else { return asked };
            let result = agent.text(&request);
            asked.push((request, result));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .flat_map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    })
}

/// An error if there is a file that has to stay, or something that is not a file.
fn may_write(path: &Path, force: bool) -> anyhow::Result<()> {
    let shown = path.display();
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(format!("looking at {shown}")),
        Ok(present) if !present.is_file() => {
            Err(Usage(format!("{shown} is not a regular file: name another")).into())
        }
        Ok(_) if !force => {
            Err(Usage(format!("{shown} is there already: name another file, or add --force"))
                .into())
        }
        Ok(_) => Ok(()),
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Asks an agent for all of it, and for the numbers of further windows.
    fn take(agent: &Connection, windows: &[WindowChoice]) -> anyhow::Result<Self> {
        let status: Status = client::read(&agent.text("/api/v1/status")?)?;
        let host = agent.elsewhere().unwrap_or_else(host_name);
        let mut snapshot = Self::new(status.timestamp, host, status.version, status.kernel);
        let mut left = file::MOST_BYTES;
        for (request, result) in ask(agent, question::requests(windows)) {
            match result {
                Ok(body) => {
                    left = left.checked_sub(body.len() as u64).with_context(|| {
                        format!(
                            "the agent's answers have more than {} MiB together; no command would read such a snapshot",
                            file::MOST_BYTES >> 20
                        )
                    })?;
                    let body = RawValue::from_string(body)
                        .map_err(|error| Error::Version { why: error.to_string() })?;
                    snapshot.responses.insert(request, body);
                }
                // An older agent does not know of all.
                Err(error) if super::class(&error) == Some(Class::Refused) => {
                    snapshot.refused.insert(request, format!("{error:#}"));
                }
                Err(error) => return Err(error.context(format!("asking for {request}"))),
            }
        }
        Ok(snapshot)
    }

    /// The name of a file that was not named: `portolan-shop-20261130T120133Z.json.gz`.
    fn usual_name(&self) -> String {
        let host = self.host.split_once("://").map_or(&*self.host, |(_, rest)| rest);
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' };
        let host: String = host.chars().map(plain).take(64).collect();
        let time = Timestamp::from_seconds(self.taken_at.seconds().floor());
        let time: String = time.to_string().chars().filter(|c| !":-".contains(*c)).collect();
        format!("portolan-{}-{time}.json.gz", host.trim_matches('-'))
    }

    /// Writes a whole file or none, which only its owner reads; returns its size in bytes.
    fn save(&self, path: &Path, force: bool) -> anyhow::Result<u64> {
        may_write(path, force)?;
        let what = || format!("writing {}", path.display());
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::NamedTempFile::new_in(directory).with_context(what)?;
        self.write(file.as_file()).with_context(what)?;
        file.as_file().sync_all().with_context(what)?;
        let size = file.as_file().metadata().with_context(what)?.len();
        if force {
            file.persist(path).with_context(what)?;
        } else if let Err(error) = file.persist_noclobber(path) {
            if error.error.kind() == io::ErrorKind::AlreadyExists {
                bail!("{} is there already: name another file, or add --force", path.display());
            }
            return Err(error).with_context(what);
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests;
