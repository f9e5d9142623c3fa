//! `portolan state`: reservations and registered services as a file, for backups and to copy them to
//! another host.
//!
//! The agent's own file (`state.json`) is written by the agent alone. This one is made of its answers,
//! and imported by the requests of the other commands: nothing is bypassed, and an import that was
//! interrupted can be run again.

mod backup;
mod steps;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use api_types::{
    HOST_NETNS, Origin, Register, Registration, Reservations, Reserve, ServiceStatus, Services,
    Timestamp,
};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::target::Connection;
use super::{Outcome, bounded, human, print};

const EXAMPLES: &str = "\
Examples:
  portolan state export > state.json
  portolan state import state.json --dry-run
  portolan state import state.json             add what is missing
  portolan state import state.json --replace   and remove what is not in the file
  portolan state backup /var/backups/portolan --keep 30

What is in it: reserved ports (`portolan ports reserve`) and registered services (`portolan services
register`). Reservations of the configuration are not: they are in its file. A reservation in a network
namespace other than the host's is brought back only until the next boot, because the namespace has no
number after it. The TTL of a registered service begins anew with the import.

An import makes one request after the other, and none that changes nothing: run it again if it was
interrupted. It needs the agent's Unix socket.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Print reservations and registered services as JSON.
    Export(ExportArgs),
    /// Bring back what `export` or `backup` has written.
    Import(ImportArgs),
    /// Write them to a new file in a directory, and remove old ones.
    Backup(backup::BackupArgs),
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The file.
    file: PathBuf,
    /// Remove reservations and registered services that are not in the file.
    #[arg(long)]
    replace: bool,
    /// Print what would be done; change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// The form of the file that is written, and the newest that is read.
const VERSION: u32 = 1;
/// A file at most, bytes: some ten thousand entries.
const MOST_BYTES: u64 = 4 << 20;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// [`VERSION`].
    #[serde(rename = "portolan_state")]
    version: u32,
    /// When it was written.
    exported: Timestamp,
    /// The boot of the agent's host, of which the numbers of network namespaces are; empty if not
    /// known.
    #[serde(default)]
    boot: String,
    services: Vec<Register>,
    reservations: Vec<Reserve>,
}

pub(super) fn run(arguments: &StateArgs) -> anyhow::Result<Outcome> {
    match &arguments.command {
        StateCommand::Export(ExportArgs { connection }) => {
            print(&State::of(connection)?.text()?).map(|()| Outcome::Done)
        }
        StateCommand::Import(arguments) => import(arguments).map(|()| Outcome::Done),
        StateCommand::Backup(arguments) => backup::run(arguments).map(|()| Outcome::Done),
    }
}

fn import(arguments: &ImportArgs) -> anyhow::Result<()> {
    let ImportArgs { file, replace, dry_run, connection } = arguments;
    connection.live("state import")?;
    let wanted = State::read(file)?;
    let now = State::of(connection)?;
    let (wanted, outdated) = wanted.on(&now.boot);
    for one in outdated {
        print(&format!(
            "left out: {}, of a network namespace that has ended with its boot, or is another host's\n",
            steps::named(&one)
        ))?;
    }
    let steps = steps::between(&now, &wanted, *replace);
    let mut refused = Vec::new();
    for step in &steps {
        if *dry_run {
            print(&format!("would be {step}\n"))?;
            continue;
        }
        match step.request(connection) {
            Ok(()) => print(&format!("{step}\n"))?,
            // The others are independent of it.
            Err(why) => refused.push(format!("not {step}: {why:#}")),
        }
    }
    if !refused.is_empty() {
        bail!("{}", refused.join("; "));
    }
    if steps.is_empty() {
        print("the agent has all of it\n")?;
    }
    Ok(())
}

/// The request that registers a service as it is. An expired address is part of it, because it comes back
/// when it passes its check.
fn registered(one: ServiceStatus) -> Option<Register> {
    let (addresses, ttl, check) = match one.registration {
        Some(Registration { ttl, check, addresses }) => {
            (addresses.into_iter().map(|one| one.address).collect(), ttl, check)
        }
        None => (one.registered, None, None),
    };
    let service = human::full_name(&one.service_namespace, &one.service);
    (!addresses.is_empty()).then_some(Register { service, addresses, ttl, check })
}

// === impl State ===

impl State {
    /// What the agent has now.
    fn of(connection: &Connection) -> anyhow::Result<Self> {
        let services: Services = client::read(&connection.text("/api/v1/services")?)?;
        let reservations: Reservations = client::read(&connection.text("/api/v1/reservations")?)?;
        // Only of this host can the boot be known.
        let boot = match connection.elsewhere() {
            None => std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            Some(_) => String::new(),
        };
        let registered = services.services.into_iter().filter_map(registered);
        let reserved = reservations.reservations.into_iter().map(|one| one.reservation);
        let reserved = reserved.filter(|one| one.origin == Origin::State).map(|one| Reserve {
            port: one.port,
            protocol: one.protocol,
            service: one.service,
            environment: one.environment,
            until: one.until.map(|until| until.to_string()),
            enforce: one.enforce,
            netns: Some(one.netns.unwrap_or(HOST_NETNS)),
        });
        Ok(Self {
            version: VERSION,
            exported: services.timestamp,
            boot: boot.trim().to_owned(),
            services: registered.collect(),
            reservations: reserved.collect(),
        })
    }

    /// Reads a file that [`State::text`] wrote, or that was edited since.
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = bounded::text(path, MOST_BYTES, "portolan state export")?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "portolan_state")]
            version: u32,
        }
        let Version { version } =
            serde_json::from_str(text).context("it was not written by `portolan state export`")?;
        if version > VERSION {
            bail!(
                "it has version {version}, and this command reads up to {VERSION}; use the Portolan that wrote it"
            );
        }
        serde_json::from_str(text).context("fix or remove this entry")
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// What can be brought back in this boot, and the reservations that cannot.
    fn on(mut self, boot: &str) -> (Self, Vec<Reserve>) {
        let is_same = !boot.is_empty() && self.boot == boot;
        let is_of_host = |one: &Reserve| matches!(one.netns, None | Some(HOST_NETNS));
        let (kept, outdated) =
            self.reservations.into_iter().partition(|one| is_same || is_of_host(one));
        self.reservations = kept;
        (self, outdated)
    }
}

#[cfg(test)]
mod tests {
    use api_types::Protocol;

    use super::*;

    fn state() -> State {
        State {
            version: VERSION,
            exported: Timestamp::from_seconds(1.8e9),
            boot: "b1".to_owned(),
            services: vec![Register {
                service: "acme/billing".to_owned(),
                addresses: vec!["203.0.113.7:443".to_owned()],
                ttl: Some("30s".to_owned()),
                check: Some("http=/healthz".to_owned()),
            }],
            reservations: [HOST_NETNS, 4_026_532_001]
                .map(|netns| Reserve {
                    port: 5432,
                    protocol: Protocol::Tcp,
                    service: "postgres".to_owned(),
                    environment: None,
                    until: Some("2030-12-01T00:00:00Z".to_owned()),
                    enforce: true,
                    netns: Some(netns),
                })
                .to_vec(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let state = state();
        assert_eq!(State::parse(&state.text().expect("JSON")).expect("ours"), state);
    }

    #[test]
    fn files_of_others_and_of_the_future_are_refused_with_the_place() {
        let check = |text: &str, expected: &str| {
            let why = format!("{:#}", State::parse(text).expect_err("refused"));
            assert!(why.contains(expected), "{why}");
        };
        let good = state().text().expect("JSON");
        check("{", "was not written by `portolan state export`");
        check(r#"{"version": 1}"#, "was not written by `portolan state export`");
        check(&good.replace("\"portolan_state\": 1", "\"portolan_state\": 2"), "version 2");
        check(&good.replace("\"port\": 5432", "\"port\": 70000"), "line ");
        check(&good.replace("\"enforce\"", "\"enforced\""), "unknown field `enforced`");
    }

    #[test]
    fn a_number_of_a_network_namespace_ends_with_its_boot() {
        let left = |boot: &str| {
            let (kept, outdated) = state().on(boot);
            (kept.reservations.len(), outdated.len())
        };
        assert_eq!(left("b1"), (2, 0));
        assert_eq!(left("b2"), (1, 1));
        assert_eq!(left(""), (1, 1));
    }
}
