//! `portolan services register` and `unregister`: names given by hand.

use std::fmt::Write as _;

use api_types::{Register, Registered, Unregister};
use clap::Args;
use http::Method;
use notation::{Check, Endpoint, FullName};

use crate::target::Target;
use crate::{Output, print};

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// Its name, like billing.
    name: FullName,
    /// Its endpoint: IP:PORT, IP, CIDR, CIDR:PORT or PORT; may be repeated.
    #[arg(long = "address", value_name = "ADDRESS", required = true, value_delimiter = ',')]
    addresses: Vec<Endpoint>,
    /// Namespace of the name.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// An address expires after this time unless it is renewed, by this command or by `services
    /// monitor`: 30s, 15m [default: until it is unregistered].
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<String>,
    /// How `services monitor` checks each address: tcp, http or http=/healthz.
    #[arg(long, value_name = "CHECK")]
    check: Option<Check>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct UnregisterArgs {
    /// Its name, like billing or acme/partner.
    name: FullName,
    #[command(flatten)]
    target: Target,
}

pub(super) fn register(arguments: &RegisterArgs) -> anyhow::Result<()> {
    let RegisterArgs { name, addresses, namespace, ttl, check, target } = arguments;
    let service = match namespace {
        Some(namespace) => {
            let full = format!("{namespace}/{name}").parse::<FullName>();
            full.map_err(anyhow::Error::msg)?.to_string()
        }
        None => name.to_string(),
    };
    let addresses = addresses.iter().map(ToString::to_string).collect();
    let check = check.as_ref().map(ToString::to_string);
    let request = Register { service, addresses, ttl: ttl.clone(), check };
    show(target, &target.change(Method::POST, "/api/v1/services", &request)?, sentence)
}

pub(super) fn unregister(arguments: &UnregisterArgs) -> anyhow::Result<()> {
    let UnregisterArgs { name, target } = arguments;
    let request = Unregister { service: name.to_string() };
    let body = target.change(Method::DELETE, "/api/v1/services", &request)?;
    show(target, &body, |Registered { service, addresses, .. }| {
        format!("{service} is no longer registered at {}", addresses.join(", "))
    })
}

fn show(
    target: &Target,
    body: &str,
    sentence: impl Fn(&Registered) -> String,
) -> anyhow::Result<()> {
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Text => print(&format!("{}\n", sentence(&client::read(body)?))),
    }
}

/// What was registered, and what keeps it.
fn sentence(registered: &Registered) -> String {
    let Registered { service, addresses, ttl, check } = registered;
    let mut text = format!("{service} is registered at {}", addresses.join(", "));
    // Writing into a String cannot fail.
    if let Some(ttl) = ttl {
        let _ = write!(text, ", for {ttl} after each renewal");
    }
    if let Some(check) = check {
        let _ = write!(text, ", checked by {check}");
    }
    text
}

fn ttl(text: &str) -> Result<String, String> {
    let ttl =
        notation::duration::parse(text).ok_or("write a number with a unit, like 30s or 15m")?;
    Ok(notation::duration::text(ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_registered_is_said_with_what_keeps_it() {
        let said = |ttl: Option<&str>, check: Option<&str>| {
            sentence(&Registered {
                service: "api".to_owned(),
                addresses: vec!["10.0.0.1:80".to_owned(), "10.0.0.2:80".to_owned()],
                ttl: ttl.map(str::to_owned),
                check: check.map(str::to_owned),
            })
        };
        let bare = "api is registered at 10.0.0.1:80, 10.0.0.2:80";
        assert_eq!(said(None, None), bare);
        assert_eq!(
            said(Some("30s"), Some("tcp")),
            format!("{bare}, for 30s after each renewal, checked by tcp")
        );
    }
}
