//! From where on something is a finding: the limits of the alerts, over the window of the report.

use api_types::{CODES, code};
use serde::Serialize;

use super::section::Section;
use crate::table::{self, Column};

/// Fewer than this are chance.
pub(super) const FEW: u64 = 3;
/// Failed connects a minute, and their share of all, from which on they are an error.
pub(super) const FAILED_PER_MINUTE: f64 = 1.2;
pub(super) const FAILED_SHARE: f64 = 0.05;
/// The share of connects that may fail, over a month, without a warning.
pub(super) const BUDGET: f64 = 0.001;
/// Requests without a response: a minute, and their share of all; of clients from the internet, who
/// go away at any time, another share.
pub(super) const UNANSWERED_PER_MINUTE: f64 = 3.0;
pub(super) const UNANSWERED_SHARE: f64 = 0.01;
pub(super) const UNANSWERED_SHARE_INTERNET: f64 = 0.1;
/// More requests without a response than with one, and at least this many: an error.
pub(super) const UNANSWERED_ERROR: u64 = 10;
/// Responses that are errors of the server: a minute, and their share of all; more of them than of
/// others, and at least this many: an error.
pub(super) const ERRORS_PER_MINUTE: f64 = 3.0;
pub(super) const ERRORS_SHARE: f64 = 0.05;
pub(super) const ERRORS_ERROR: u64 = 10;
/// Connections that died, and those reset after a pause, a minute.
pub(super) const DEAD_PER_MINUTE: f64 = 0.6;
/// Other resets: a minute, and their share of connects and requests.
pub(super) const RESETS_PER_MINUTE: f64 = 60.0;
pub(super) const RESETS_SHARE: f64 = 0.1;
/// A request takes long.
pub(super) const SLOW_SECONDS: f64 = 0.5;
/// Fewer requests say nothing about their 99th percentile.
pub(super) const LEAST_REQUESTS: u64 = 20;
/// Share of segments that are retransmitted, and how many a second.
pub(super) const RETRANSMITS_SHARE: f64 = 0.02;
pub(super) const RETRANSMITS_PER_SECOND: f64 = 0.2;
/// Bytes of payload in a segment.
pub(super) const SEGMENT_BYTES: f64 = 1448.0;
/// Dropped connection requests a minute.
pub(super) const DROPS_PER_MINUTE: f64 = 1.2;
/// Unread bytes, and the seconds of traffic that they are.
pub(super) const UNREAD_BYTES: u64 = 65_536;
pub(super) const UNREAD_SECONDS: f64 = 30.0;
/// Connections in CLOSE_WAIT.
pub(super) const CLOSE_WAIT: u64 = 20;
/// Share of local ports in use.
pub(super) const LOCAL_PORTS_SHARE: f64 = 0.8;
pub(super) const LOCAL_PORTS_SHARE_ERROR: f64 = 0.95;
/// Share of events that were dropped.
pub(super) const DROPPED_SHARE: f64 = 0.001;
/// Share of connections with a name.
pub(super) const NAMED_SHARE: f64 = 0.95;

/// Share of DNS lookups that fail, and how many, if they are most, are an error.
pub(super) const FAILED_LOOKUPS_SHARE: f64 = 0.05;
pub(super) const FAILED_LOOKUPS_ERROR: u64 = 10;
/// DNS lookups for names that do not exist, and their share.
pub(super) const ABSENT_NAMES: u64 = 100;
pub(super) const ABSENT_NAMES_SHARE: f64 = 0.75;

/// The limit of each code, in words. A test compares it with the table of codes.
const LIMITS: &[(&str, &str)] = &[
    (code::CONNECTS_REFUSED, CONNECTS),
    (code::CONNECTS_UNREACHABLE, CONNECTS),
    (code::CONNECTS_TIME_OUT, CONNECTS),
    (code::CONNECTS_FAIL_LOCALLY, CONNECTS),
    (code::NO_LOCAL_PORT, CONNECTS),
    (
        code::UNANSWERED,
        "more than 3 a minute and 1 % of requests; error if 10 or more and most requests",
    ),
    (code::CONNECTIONS_DIE, "more than 0.6 a minute"),
    (code::IDLE_REUSE, "more than 0.6 a minute"),
    (
        code::ERROR_RESPONSES,
        "more than 3 a minute and 5 % of responses; error if 10 or more and most responses",
    ),
    (code::CONNECTIONS_RESET, "more than 60 a minute and 10 % of connects and requests"),
    (code::SLOW, "p99 over 500 ms, of 20 requests or more, without long polling"),
    (
        code::UNBALANCED,
        "a share that differs from the expected one by more than the tolerance of `portolan balance`",
    ),
    (code::ACCEPT_QUEUE, "a dropped connection request, or a queue over its limit now"),
    (code::RETRANSMITS, "more than 2 % of segments and 0.2 a second"),
    (code::NOT_READING, "more than 64 KiB unread, and more than arrives in 30 seconds"),
    (code::NOT_CLOSED, "more than 20 connections in CLOSE_WAIT for a minute"),
    (code::LOCAL_PORTS_LOW, "80 % of a range in use; error from 95 % on"),
    (code::LISTENS_IN_EPHEMERAL, "a listener in ip_local_port_range that is not reserved there"),
    (code::CONNTRACK_FULL, "80 % of nf_conntrack_max; error from 95 % on"),
    (code::INTERFACE_DROPS, "more than 0.1 % of packets during the check"),
    (code::NEIGHBOURS_FULL, "80 % of gc_thresh3; error from 95 % on"),
    (code::TCP_MEMORY, "any in the second of the check"),
    (code::MTU_DIFFERS, "any veth pair"),
    (code::ADDRESS_TWICE, "any address in two network namespaces of one bridge or link"),
    (code::NO_DEFAULT_ROUTE, "a client with connects that are unreachable"),
    (code::SUBNETS_OVERLAP, "two networks of the container engine, or one and an interface"),
    (code::BACKLOG_CAPPED, "a full accept queue with the limit net.core.somaxconn"),
    (code::VIOLATION, "any connection in the window"),
    (code::STORE_EXPOSED, "a known port of a data store at 0.0.0.0 or ::, in no segment"),
    (code::RESOLVER_ABSENT, "a loopback address in resolv.conf without a socket at port 53"),
    (code::RESOLVER_FAILS, CONNECTS),
    (code::SERVICE_CERTIFICATE, "with --probe: less than 14 days; error if it has expired"),
    (
        code::LOOKUPS_FAIL,
        "3 and 5 % of a client's lookups at a server; error if 10 or more and most of them",
    ),
    (code::ABSENT_NAMES, "100 and 75 % of a client's lookups at a server, for information"),
    (code::RESOLVER_SILENT, "with --probe: no answer within 2 s, asked twice"),
    (code::EVENTS_DROPPED, "more than 0.1 % of a class since the agent started"),
    (code::UNIDENTIFIED, "less than 95 % of connections with a name at both ends"),
    (code::MEMORY_SHORT, "any"),
];

const CONNECTS: &str =
    "3 and 0.1 % of connects; error over 1.2 a minute and 5 %; fewer are for information";

/// What the agent itself reports.
const REPORTED: &str = "as the agent reports it";

const COLUMNS: &[Column] = &[
    Column::left("CODE"),
    Column::left("SECTION").rank(1),
    Column::left("MEANING"),
    Column::left("LIMIT"),
];

/// A code in `--list -o json`.
#[derive(Serialize)]
struct Listed {
    code: &'static str,
    section: Section,
    meaning: &'static str,
    limit: &'static str,
}

/// Every code with its limit, as a table or as JSON.
pub(super) fn list(json: bool) -> anyhow::Result<String> {
    let limit = |code: &str| {
        LIMITS.iter().find(|(known, _)| *known == code).map_or(REPORTED, |(_, limit)| limit)
    };
    let all = CODES.iter().map(|code| Listed {
        code: code.code,
        section: Section::of(code.code),
        meaning: code.meaning,
        limit: limit(code.code),
    });
    if json {
        return Ok(serde_json::to_string_pretty(&all.collect::<Vec<_>>())? + "\n");
    }
    let row = |one: Listed| {
        [one.code, one.section.heading(), one.meaning, one.limit].map(str::to_owned).to_vec()
    };
    let rows: Vec<_> = all.map(row).collect();
    // Words are not cut in a list that is read for them.
    Ok(table::render(COLUMNS, &rows, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_of_a_code_and_every_code_is_listed_once() {
        for (code, limit) in LIMITS {
            assert!(CODES.iter().any(|known| known.code == *code), "{code}");
            assert!(!limit.is_empty());
        }
        let text = list(false).expect("a table");
        for code in CODES {
            let lines = text.lines().filter(|line| line.starts_with(code.code));
            assert_eq!(lines.count(), 1, "{}", code.code);
        }
        let json: serde_json::Value =
            serde_json::from_str(&list(true).expect("JSON")).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(CODES.len()));
    }

    #[test]
    fn codes_without_a_limit_come_from_the_agent() {
        let without = CODES.iter().map(|code| code.code);
        let without = without.filter(|code| LIMITS.iter().all(|(known, _)| known != code));
        assert_eq!(
            without.collect::<Vec<_>>(),
            [
                "PP231", "PP232", "PO301", "PO302", "PO303", "PO304", "PO305", "PO306", "PO307",
                "PO310", "PO311", "PO312", "PO313", "PO314", "PS420", "PS421", "PS422", "PA501",
                "PA502", "PA503", "PA504"
            ]
        );
    }
}
