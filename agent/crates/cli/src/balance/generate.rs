//! `portolan balance generate`: the configuration of a load balancer.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use similar::TextDiff;

use super::intent::Balancer;
use super::render::{self, Rendered};
use super::source::Source;
use crate::target::Target;
use crate::{Outcome, Output, Usage, print};

const EXAMPLES: &str = "\
Examples:
  portolan balance generate --service api --for nginx --listen 0.0.0.0:8080 > /tmp/api.conf
  portolan balance generate --service api --for haproxy --listen 0.0.0.0:8080 --diff /etc/haproxy/haproxy.cfg
  portolan balance generate --service api --for toml --listen 0.0.0.0:8080 > balance.toml
  portolan balance generate --spec balance.toml --for envoy

The first three take backends, weights, algorithm and timeouts from what the agent has observed of
the service; comments give the figures. --for toml writes all of it as a file, to be edited, kept
and used with --spec. Settings that a program does not support are listed at the top of its
configuration and on standard error. Nothing is written to the balancer: `portolan balance deploy` does that.

All keys of the file, with their defaults or an example:

";

#[derive(Debug, Args)]
#[command(after_long_help = help())]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    source: Source,
    /// The program to write it for.
    #[arg(long = "for", value_name = "BALANCER")]
    format: Format,
    /// A complete configuration instead of a part to include (nginx, haproxy, caddy).
    #[arg(long)]
    whole: bool,
    /// Show how this file would change instead; with --exit-code, 1 if it would.
    #[arg(long, value_name = "FILE")]
    diff: Option<PathBuf>,
    /// With --diff: exit with 1 if the file would change.
    #[arg(long, requires = "diff")]
    exit_code: bool,
    #[command(flatten)]
    target: Target,
}

/// What is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A file to include in http {} of nginx.conf (mode tcp: in stream {}).
    Nginx,
    /// Sections for haproxy.cfg.
    Haproxy,
    /// A bootstrap file.
    Envoy,
    /// A file for the file provider.
    Traefik,
    /// A site for the Caddyfile.
    Caddy,
    /// balance.toml, for --spec.
    Toml,
}

// === impl Format ===

impl Format {
    fn balancer(self) -> Option<Balancer> {
        match self {
            Self::Nginx => Some(Balancer::Nginx),
            Self::Haproxy => Some(Balancer::Haproxy),
            Self::Envoy => Some(Balancer::Envoy),
            Self::Traefik => Some(Balancer::Traefik),
            Self::Caddy => Some(Balancer::Caddy),
            Self::Toml => None,
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    text: &'a str,
    not_expressed: &'a [String],
    remarks: &'a [String],
}

fn help() -> String {
    let indented = super::spec::EXAMPLE.lines().map(|line| format!("  {line}\n"));
    format!("{EXAMPLES}{}", indented.collect::<String>())
}

pub(super) fn run(arguments: &GenerateArgs) -> anyhow::Result<Outcome> {
    let GenerateArgs { source, format, whole, diff, exit_code, target } = arguments;
    let intent = source.intent(&target.connection)?;
    let rendered = match format.balancer() {
        Some(balancer) => render::render(&intent, balancer, *whole).map_err(Usage)?,
        None => render::spec(&intent),
    };
    tell(&rendered);
    if let Some(path) = diff {
        let present = present(path)?.unwrap_or_default();
        print(&difference(&present, &rendered.text, path))?;
        let differs = present != rendered.text;
        return Ok(if *exit_code && differs { Outcome::Found } else { Outcome::Done });
    }
    match target.output {
        Output::Text => print(&rendered.text)?,
        Output::Json => {
            let Rendered { text, missing } = &rendered;
            let answer = Answer { text, not_expressed: missing, remarks: &intent.remarks };
            print(&(serde_json::to_string(&answer).context("writing JSON")? + "\n"))?;
        }
    }
    Ok(Outcome::Done)
}

/// Says on standard error what is not in the text.
pub(super) fn tell(rendered: &Rendered) {
    for missing in &rendered.missing {
        // If standard error is closed, the head of the text still has it.
        let _ = writeln!(std::io::stderr(), "portolan: not in the configuration: {missing}");
    }
}

/// The text of a file; `None` if there is none.
pub(super) fn present(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// How a file would change, as `diff -u` shows it.
pub(super) fn difference(old: &str, new: &str, path: &Path) -> String {
    let name = path.display().to_string();
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(3).header(&name, &format!("{name} (generated)")).to_string()
}
