//! Where an intent comes from: a service that is observed, a file, or both, of which the file wins.

use std::net::SocketAddr;
use std::path::PathBuf;

use api_types::WindowChoice;
use clap::Args;

use super::checked;
use super::intent::{Intent, Setting};
use super::observe::Observed;
use super::spec::{self, Spec};
use crate::target::Connection;
use crate::{Usage, known, window};

/// What the balancer is to do.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Balance this service, by its observed and registered endpoints: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME", required_unless_present = "spec")]
    service: Option<String>,
    /// File with what the balancer is to do; it wins over what is observed. `portolan balance
    /// generate --help` shows all keys.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Port of the service, if it has several.
    #[arg(long, value_name = "PORT", requires = "service")]
    port: Option<u16>,
    /// Where the balancer listens, like 0.0.0.0:8080.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = spec::listen)]
    listen: Option<SocketAddr>,
    /// Time that endpoints and request times are taken from: 1m, 5m (at most), or start.
    #[arg(long, value_name = "WINDOW", default_value = "5m", value_parser = window::parse)]
    observed: WindowChoice,
}

// === impl Source ===

impl Source {
    /// The intent. Asks the agent only if a service is named.
    pub(super) fn intent(&self, agent: &Connection) -> anyhow::Result<Intent> {
        let spec = match &self.spec {
            Some(path) => Spec::read(path)?,
            None => Spec::default(),
        };
        let written = spec.backends().map_err(Usage)?;
        let listen = match self.listen {
            Some(listen) => Some(listen),
            None => spec.listen().map_err(Usage)?,
        };
        let Some(listen) = listen else {
            let what = "where does the balancer listen? Add --listen 0.0.0.0:8080, or listen = \"0.0.0.0:8080\" to the file";
            return Err(Usage(what.to_owned()).into());
        };
        let mut intent = if let Some(service) = &self.service {
            let observed = self.observed(service, agent)?;
            let endpoints =
                observed.endpoints(service, self.port).map_err(|why| anyhow::anyhow!(why))?;
            let name = match spec.name().map_err(Usage)? {
                Some(name) => name,
                None => plain(&endpoints.service),
            };
            let backends =
                if written.is_empty() { endpoints.backends.clone() } else { written.clone() };
            let mut intent = Intent::new(name, listen, backends);
            observed.apply(&endpoints, &mut intent);
            if !written.is_empty() {
                intent.reasons.remove(&Setting::Backends);
                intent.remarks.clear();
            }
            intent
        } else {
            if written.is_empty() {
                let what = "no backends: add [[backends]] to the file, or --service NAME to take those that are observed";
                return Err(Usage(what.to_owned()).into());
            }
            let name = spec.name().map_err(Usage)?.unwrap_or_else(|| "balanced".to_owned());
            Intent::new(name, listen, written)
        };
        spec.apply(&mut intent).map_err(Usage)?;
        Ok(intent)
    }

    fn observed(&self, service: &str, agent: &Connection) -> anyhow::Result<Observed> {
        let named = [service.to_owned()];
        known::check(agent, &named, &[])?;
        let query = window::query(self.observed, &named);
        let idle = window::query(WindowChoice::Start, &named);
        Ok(Observed {
            balance: client::read(&agent.text(&format!("/api/v1/balance{query}"))?)?,
            edges: client::read(&agent.text(&format!("/api/v1/edges{query}"))?)?,
            timeouts: client::read(&agent.text(&format!("/api/v1/timeouts{idle}"))?)?,
            services: client::read(&agent.text("/api/v1/services")?)?,
        })
    }
}

/// A service's name as one of a configuration: `api.js` is `api-js`.
fn plain(service: &str) -> String {
    let plain: String = service
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .collect();
    checked::name(&plain).unwrap_or_else(|_| {
        let cut: String = plain.chars().take(50).collect();
        format!("s-{cut}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_service_has_a_name_for_configurations() {
        for (service, expected) in
            [("api", "api"), ("api.js", "api-js"), ("10.0.0.1", "s-10-0-0-1"), ("größe", "gr--e")]
        {
            assert_eq!(plain(service), expected);
            assert!(checked::name(&plain(service)).is_ok(), "{service}");
        }
        assert!(checked::name(&plain(&"a".repeat(300))).is_ok());
        assert!(checked::name(&plain("")).is_ok());
    }
}
