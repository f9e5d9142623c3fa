//! `portolan serve`: the page, of an agent that has none within reach or of a snapshot.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use cli::{Class, Connection};
use server::relay::{self, Unanswered};
use server::web::{AllowedHost, Hosts};
use server::{Endpoint, Web};
use tokio::signal::unix::{SignalKind, signal};

use super::log;
use crate::config::{Config, ConfigError, own_names};
use crate::occupant;

pub(super) const ABOUT: &str = "\
Serve the page and the read-only API of an agent, or of a file of `portolan snapshot`.

For an agent that listens on its Unix socket only, or behind TLS and a password that a browser shall not
ask for; and for an incident that is over: with --from the page shows what the agent saw then. Nothing is
stored, and nothing can be changed. It needs no rights on this host. Who reaches the address reads: it is
the loopback unless you choose another, and --web.config.file adds TLS and passwords, as for the agent.";

pub(super) const EXAMPLES: &str = "\
Examples:
  portolan serve --from incident-4711.json.gz          then open http://127.0.0.1:10063
  portolan serve --url https://node7:10062 --ca-file ca.pem --user ann --password-file pw
  portolan serve --socket /run/portolan/control.sock --web.listen-address 0.0.0.0:8080 --web.config.file web.yml";

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    connection: Connection,
    /// Address that the page is served at.
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:10063"
    )]
    listen_address: SocketAddr,
    /// TLS, passwords and headers, in the format of Prometheus' exporters.
    #[arg(long = "web.config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Names, other than those of this host, that a browser may ask for the page by.
    #[arg(long = "web.allowed-hosts", value_name = "HOST", value_delimiter = ',', value_parser = allowed_host)]
    allowed_hosts: Vec<AllowedHost>,
}

fn allowed_host(text: &str) -> Result<AllowedHost, String> {
    text.parse().map_err(|()| {
        format!("\"{text}\" is not a host; write a name, *.example.com, or * for every name")
    })
}

pub(super) fn run(arguments: &ServeArgs) -> anyhow::Result<()> {
    let ServeArgs { connection, listen_address, config_file, allowed_hosts } = arguments;
    let config = Config::default();
    log::start(config.log);
    // What cannot be asked at all is said at once, and not to the first reader.
    connection.text("/api/v1/status")?;
    let (address, file) = (*listen_address, config_file.clone());
    let hosts = Hosts::new(&own_names(&config.names), allowed_hosts);
    let web = Arc::new(Web::open(Endpoint { address, file, hosts }).map_err(ConfigError::Web)?);
    let listener = server::bind(address, occupant::of)?;
    let asked = connection.clone();
    let source = move |path: &str| {
        asked.text(path).map_err(|error| match cli::class(&error) {
            Some(Class::Refused) => Unanswered::Refused(format!("{error:#}")),
            _ => Unanswered::Unreached(format!("{error:#}")),
        })
    };
    let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
    tracing::info!("the page is at {}://{address}/", web.scheme());
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        server::serve(listener, relay::router(Arc::new(source)), web, stop).await
    })?;
    // A request that somebody still waits for is not waited for.
    runtime.shutdown_background();
    Ok(())
}
