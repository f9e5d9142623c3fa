//! From text to checked values. Every error says what is expected.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::{EventsLog, Listen, MAX_INTERNAL_RANGES};
use api_types::Skip;
use model::balance::Weights;
use model::reservations::{MOST as MAX_RESERVATIONS, Reservation, Reservations};
use notation::duration;
use server::web::AllowedHost;

/// A value as written, before its type is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A scalar; also how the environment and flags write a list, with commas.
    Text(String),
    /// A list in a file.
    List(Vec<String>),
}

/// An address with a port, or the Unix socket.
pub(super) fn listen(given: &Given) -> Result<Listen, String> {
    let right = "write an address and a port, like 127.0.0.1:10062 or [::1]:10062, or \"unix\" for the Unix socket only";
    parse(given, right, |text| text.parse().ok())
}

/// true or false.
pub(super) fn boolean(given: &Given) -> Result<bool, String> {
    parse(given, "write true or false", |text| match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    })
}

/// One of `all`, by name.
pub(super) fn choice<T: Copy>(
    given: &Given,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
    parse(given, &format!("choose one of {}", names.join(", ")), |text| {
        all.iter().copied().find(|one| name(*one) == text)
    })
}

/// A text that is not empty.
pub(super) fn text(given: &Given) -> Result<String, String> {
    parse(given, "must not be empty", |text| (!text.is_empty()).then(|| text.to_owned()))
}

/// A path like `/portolan`, without a slash at its end; `/` is none.
pub(super) fn external_path(given: &Given) -> Result<String, String> {
    parse(given, "write a path of letters, digits and - . _ ~, like /portolan", |text| {
        let path = text.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let is_part =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
        let mut parts = path.strip_prefix('/').unwrap_or("").split('/');
        (text == "/" || parts.all(is_part)).then(|| path.to_owned())
    })
}

/// A file, or standard output.
pub(super) fn events_log(given: &Given) -> Result<EventsLog, String> {
    parse(given, "write the path of a file from / on, or stdout", |text| text.parse().ok())
}

/// Names of the `Host` header.
pub(super) fn allowed_hosts(given: &Given) -> Result<Vec<AllowedHost>, String> {
    let host = |part: &str| {
        part.parse().map_err(|()| {
            format!(
                "contains \"{part}\"; write a name without scheme and port, like portolan.example, *.example for all names below it, or * for any"
            )
        })
    };
    parts(given).map(host).collect()
}

/// Numbers of users.
pub(super) fn users(given: &Given) -> Result<Vec<u32>, String> {
    let user = |part: &str| {
        part.parse().map_err(|_| {
            format!("contains \"{part}\"; write numbers of users, like 1000 (`id -u NAME`)")
        })
    };
    parts(given).map(user).collect()
}

/// Names of hooks, separated by commas, or of parts of them behind a prefix, as `way:NAME`.
pub(super) fn hooks(given: &Given) -> Result<Vec<String>, String> {
    names(given, |part| part.split_once(':').map_or(part, |(_, name)| name))
}

/// Names of kernel fields, separated by commas.
pub(super) fn fields(given: &Given) -> Result<Vec<String>, String> {
    names(given, |part| part)
}

fn names(given: &Given, bare: fn(&str) -> &str) -> Result<Vec<String>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = |part: &str| {
        let wrong = || format!("contains \"{part}\"; write names like sk_data_ready");
        bare(part).chars().all(plain).then(|| part.to_owned()).ok_or_else(wrong)
    };
    parts(given).map(name).collect()
}

/// Codes of findings, each with a subject or without.
pub(super) fn skips(given: &Given) -> Result<Vec<Skip>, String> {
    let wrong = |part: &str, why: String| format!("contains \"{part}\": {why}");
    let skip = |part: &str| part.parse().map_err(|why| wrong(part, why));
    parts(given).map(skip).collect()
}

/// A URL without a slash at its end.
pub(super) fn base_url(given: &Given) -> Result<String, String> {
    parse(given, "write a URL like https://docs.example/portolan/docs", |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let plain =
            !rest.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c));
        (plain && !rest.trim_matches('/').is_empty()).then(|| text.trim_end_matches('/').to_owned())
    })
}

/// Networks in CIDR notation; a bare address is a network of one.
pub(super) fn networks(given: &Given) -> Result<Vec<IpNet>, String> {
    let parts: Vec<&str> = parts(given).collect();
    if parts.len() > MAX_INTERNAL_RANGES {
        return Err(format!(
            "lists {} networks; at most {MAX_INTERNAL_RANGES} fit, so write fewer and wider ones",
            parts.len()
        ));
    }
    // Also a variable that a template leaves empty; a file can say [].
    if parts.is_empty() && matches!(given, Given::Text(_)) {
        return Err(
            "is empty; write networks like 10.0.0.0/8 or fd00::/8, or leave it out for the default"
                .to_owned(),
        );
    }
    let network = |part: &&str| {
        let address = || part.parse::<IpAddr>().ok().map(IpNet::from);
        part.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(address).ok_or_else(|| {
            format!("contains \"{part}\"; write networks like 10.0.0.0/8 or fd00::/8")
        })
    };
    parts.iter().map(network).collect()
}

/// Port reservations without contradictions.
pub(super) fn reservations(given: &Given) -> Result<Vec<Reservation>, String> {
    let read = |part| {
        Reservation::from_config(part).map_err(|why| format!("has an entry that is refused: {why}"))
    };
    let all: Vec<Reservation> = parts(given).map(read).collect::<Result<_, String>>()?;
    if all.len() > MAX_RESERVATIONS {
        return Err(format!("lists {} ports; at most {MAX_RESERVATIONS} fit", all.len()));
    }
    match Reservations::default().configure(&all) {
        Ok(()) => Ok(all),
        Err(both) => Err(format!(
            "contradicts itself: \"{}\" and \"{}\" are for the same port; keep one, or make them different with env=dev and env=prod",
            both.0, both.1
        )),
    }
}

/// A group by name or number; names are looked up in /etc/group.
pub(super) fn group(given: &Given) -> Result<u32, String> {
    parse(given, "write the name or number of a group that is in /etc/group", |text| {
        text.parse().ok().or_else(|| group_id(&std::fs::read_to_string("/etc/group").ok()?, text))
    })
}

/// The number of a group in the text of /etc/group (man 5 group).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Writes a list of texts.
pub(super) fn serialize_texts<S: serde::Serializer>(
    values: &[impl Display],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

/// Weights of backends: `ADDRESS = N` or `ADDRESS:PORT = N`.
pub(super) fn weights(given: &Given) -> Result<Weights, String> {
    let mut weights = Weights::default();
    for part in parts(given) {
        let wrong = || {
            format!(
                "contains \"{part}\"; write weights like \"10.0.0.1:8080 = 10\" or, for any port, \"10.0.0.1 = 10\""
            )
        };
        let (backend, weight) = part.split_once('=').ok_or_else(wrong)?;
        let weight: u32 = weight.trim().parse().map_err(|_| wrong())?;
        let backend = backend.trim();
        let exact = backend.parse().map(|address: SocketAddr| (address.ip(), Some(address.port())));
        let any_port = || backend.parse().map(|address: IpAddr| (address, None));
        let (address, port) = exact.or_else(|_| any_port()).map_err(|_| wrong())?;
        if weights.insert(address, port, weight).is_some_and(|other| other != weight) {
            return Err(format!("gives {backend} two weights; keep one"));
        }
    }
    Ok(weights)
}

/// The parts of a list, however it was given.
pub(super) fn parts(given: &Given) -> impl Iterator<Item = &str> {
    let (text, list) = match given {
        Given::Text(text) => (text.as_str(), &[][..]),
        Given::List(list) => ("", &list[..]),
    };
    text.split(',').chain(list.iter().map(String::as_str)).map(str::trim).filter(|p| !p.is_empty())
}

/// The time between two collections.
pub(super) fn collection_interval(given: &Given) -> Result<Duration, String> {
    duration_within(given, Duration::from_millis(100), Duration::from_mins(1))
}

/// A duration within bounds.
pub(super) fn duration_within(
    given: &Given,
    least: Duration,
    most: Duration,
) -> Result<Duration, String> {
    let right = format!("write {}", duration::FORM);
    let value = parse(given, &right, duration::parse)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let (least, most) = (duration::text(least), duration::text(most));
    Err(wrong(given, &format!("choose between {least} and {most}")))
}

/// The size of a kernel table.
pub(super) fn table_size(given: &Given) -> Result<u32, String> {
    parse(given, "write a whole number from 8 to 1048576", |text| {
        text.parse().ok().filter(|size| (8..=1_048_576).contains(size))
    })
}

/// Bytes of a ring buffer: the kernel takes powers of two, at least a page.
pub(super) fn ring_size(given: &Given) -> Result<u32, String> {
    parse(given, "write a power of two from 4096 to 16777216", |text| {
        let fits = |size: &u32| size.is_power_of_two() && (4096..=1 << 24).contains(size);
        text.parse().ok().filter(fits)
    })
}

/// Memory for the agent itself.
pub(super) fn memory_size(given: &Given) -> Result<u64, String> {
    parse(given, "write a number of bytes, at least 25165824 (24 MiB)", |text| {
        text.parse().ok().filter(|bytes| *bytes >= 24 << 20)
    })
}

/// Writes a duration as text.
pub(super) fn serialize_duration<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration::text(*duration))
}

/// A TOML string.
pub(super) fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

/// A TOML list of strings.
pub(super) fn quoted_list(values: &[impl Display]) -> String {
    let quoted: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

/// Loopback, private use (RFC 1918, RFC 4193), shared (RFC 6598) and link-local addresses.
pub(super) fn default_internal_ranges() -> Vec<IpNet> {
    [
        ([127, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([172, 16, 0, 0], 12),
        ([192, 168, 0, 0], 16),
        ([100, 64, 0, 0], 10),
        ([169, 254, 0, 0], 16),
    ]
    .map(|(address, prefix)| IpNet::new_assert(IpAddr::from(address), prefix))
    .into_iter()
    .chain(
        [
            ([0, 0, 0, 0, 0, 0, 0, 1], 128),
            ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
            ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        ]
        .map(|(address, prefix): ([u16; 8], u8)| IpNet::new_assert(IpAddr::from(address), prefix)),
    )
    .collect()
}

/// Reads one scalar; `right` describes the expected value.
fn parse<T>(given: &Given, right: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    match given {
        Given::Text(text) => read(text.trim()).ok_or_else(|| wrong(given, right)),
        Given::List(_) => Err(wrong(given, right)),
    }
}

fn wrong(given: &Given, right: &str) -> String {
    match given {
        Given::Text(text) => format!("is \"{text}\"; {right}"),
        Given::List(_) => format!("is a list; {right}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nports:x:990:ann,bob\nbroken\nodd:x:many:\n";
        assert_eq!(group_id(groups, "root"), Some(0));
        assert_eq!(group_id(groups, "ports"), Some(990));
        for unknown in ["ann", "broken", "odd", ""] {
            assert_eq!(group_id(groups, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn reservations_that_contradict_each_other_are_both_shown() {
        let list = |parts: &[&str]| Given::List(parts.iter().map(|&part| part.into()).collect());
        let good = list(&["5432 postgres enforce", "3001 a env=dev", "3001 b env=prod"]);
        let text: Vec<_> =
            reservations(&good).expect("valid").iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["5432/tcp postgres enforce", "3001/tcp a env=dev", "3001/tcp b env=prod"]
        );
        let error = reservations(&list(&["80 a", "80/udp b", "80 c"])).expect_err("refused");
        assert!(error.contains("\"80/tcp a\" and \"80/tcp c\" are for the same port"), "{error}");
        let error = reservations(&list(&["80"])).expect_err("refused");
        assert!(
            error.starts_with("has an entry that is refused: \"80\" is not a reservation; write"),
            "{error}"
        );
    }
}
