//! Whether a service that was named on the command line exists.

use anyhow::bail;
use api_types::{ServiceStatus, Services};

use super::human;
use super::target::Connection;

/// An error if the agent knows no service of one of these names; `seen` are those that its answer
/// has, as `NAME` or `NAMESPACE/NAME`.
pub(super) fn check(target: &Connection, wanted: &[String], seen: &[String]) -> anyhow::Result<()> {
    among(|| Ok(client::read(&target.text("/api/v1/services")?)?), wanted, seen)
}

/// The same, where `all` asks for the services that there are.
pub(super) fn among(
    all: impl FnOnce() -> anyhow::Result<Services>,
    wanted: &[String],
    seen: &[String],
) -> anyhow::Result<()> {
    let unseen: Vec<&String> = wanted.iter().filter(|wanted| !is_among(wanted, seen)).collect();
    if unseen.is_empty() {
        return Ok(());
    }
    let Services { services, .. } = all()?;
    let full = |one: &ServiceStatus| human::full_name(&one.service_namespace, &one.service);
    let known: Vec<String> = services.iter().map(full).chain(seen.iter().cloned()).collect();
    match unseen.into_iter().find(|wanted| !is_among(wanted, &known)) {
        Some(unknown) => bail!("{}", message(unknown, &known)),
        None => Ok(()),
    }
}

/// That no service has this name, and the nearest that one has.
pub(super) fn message(unknown: &str, known: &[String]) -> String {
    let bare =
        known.iter().map(|full| full.rsplit_once('/').map_or(full.as_str(), |(_, name)| name));
    // A namespace is part of the comparison if one was written.
    let near = if unknown.contains('/') {
        notation::nearest(unknown, known.iter().map(String::as_str))
    } else {
        notation::nearest(unknown, bare)
    };
    match near {
        Some(near) => format!("no service is named {unknown}; did you mean {near}?"),
        None => format!("no service is named {unknown}; `portolan services` lists the names"),
    }
}

/// Whether one of `wanted` is among `names`, which are `NAME` or `NAMESPACE/NAME`.
pub(super) fn is_any(wanted: &[String], names: &[String]) -> bool {
    wanted.iter().any(|wanted| is_among(wanted, names))
}

/// Whether `wanted` is one of these, with its namespace or without.
fn is_among(wanted: &str, names: &[String]) -> bool {
    let same = |full: &String| {
        full == wanted || full.rsplit_once('/').is_some_and(|(_, name)| name == wanted)
    };
    names.iter().any(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_service_names_the_nearest() {
        let known = ["postgres".to_owned(), "shop/cart".to_owned()];
        let check = |unknown, expected| assert_eq!(message(unknown, &known), expected);
        check("postgers", "no service is named postgers; did you mean postgres?");
        check("crat", "no service is named crat; `portolan services` lists the names");
        check("carts", "no service is named carts; did you mean cart?");
        check("shop/crat", "no service is named shop/crat; did you mean shop/cart?");
        for name in ["postgres", "cart", "shop/cart"] {
            assert!(is_among(name, &known), "{name}");
        }
        assert!(!is_among("shop", &known));
    }
}
