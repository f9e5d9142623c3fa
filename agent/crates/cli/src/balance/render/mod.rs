//! A load balancer's intent in the language of a program: one file for each.
//!
//! What cannot be configured in a program is a line at the top of its configuration and on standard
//! error, never dropped silently. The same intent gives the same text.

mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod spec;
mod traefik;
mod write;

use self::write::Writer;
use super::intent::{Balancer, Intent, Mode};

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// Its text.
    pub text: String,
    /// What of the intent is not in it, and what can be done about that.
    pub missing: Vec<String>,
}

/// The configuration of `balancer`; `whole` is all that the program needs, else a part to include.
/// An error if it can do nothing of the kind.
pub(super) fn render(intent: &Intent, balancer: Balancer, whole: bool) -> Result<Rendered, String> {
    if (balancer, intent.mode) == (Balancer::Caddy, Mode::Tcp) {
        return Err(
            "mode = \"tcp\": Caddy forwards HTTP only; use nginx, HAProxy, Envoy or Traefik"
                .to_owned(),
        );
    }
    let mut writer = Writer::new();
    match balancer {
        Balancer::Nginx => nginx::render(intent, whole, &mut writer),
        Balancer::Haproxy => haproxy::render(intent, whole, &mut writer),
        Balancer::Envoy => envoy::render(intent, &mut writer),
        Balancer::Traefik => traefik::render(intent, &mut writer),
        Balancer::Caddy => caddy::render(intent, whole, &mut writer),
    }
    Ok(writer.finish(intent, balancer.title()))
}

/// The intent as `balance.toml`, to be edited.
pub(super) fn spec(intent: &Intent) -> Rendered {
    let mut writer = Writer::new();
    spec::render(intent, &mut writer);
    writer.finish(intent, "balance.toml")
}

#[cfg(test)]
mod tests;
