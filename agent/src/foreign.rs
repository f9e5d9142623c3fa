//! Entrances to parsers of foreign bytes that nobody outside this crate needs but `agent/fuzz`.
//!
//! Each takes bytes, and panics only if a law of ours is broken.

use std::net::IpAddr;

use agent_common::address;
use hashbrown::HashSet;

use crate::api::occupant;
use crate::api::web::file::WebFile;
use crate::model::moment;
use crate::model::port_ranges::PortRules;
use crate::sockets::{conntrack, diag, drops, process_addresses};
use crate::state::file;
use crate::state::requests::{Free, Register, Release, Reserve, Unregister};

/// More translations than this are left out.
const LIMIT: usize = 8;

/// A datagram of netlink, as sockets and translated connections are listed in it.
pub fn netlink(datagram: &[u8]) {
    let mut dump = diag::Dump::default();
    let _ = diag::read_datagram(datagram, 1, &mut dump);
    // The header of a message has 16 bytes.
    assert!(dump.entries.len() <= datagram.len() / 16, "no socket out of nothing");
    let mut found = HashSet::new();
    let _ = conntrack::read_datagram(datagram, 1, LIMIT, &mut found);
    assert!(found.len() <= LIMIT);
}

/// Files below `/proc/PID/net` and `/proc/sys/net`, which a container's own kernel view fills.
pub fn network_files(text: &str) {
    let _ = drops::parse(text);
    let four = process_addresses::v4(text).map(IpAddr::from);
    four.chain(process_addresses::v6(text).map(IpAddr::from)).map(address::from_ip).for_each(drop);
    let _ = occupant::listeners(text, 80);
    let (range, kept_out) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(advice) = PortRules::parse(range, kept_out).advice(&[80, 40_000]) {
        assert!(!advice.problem.is_empty() && !advice.mend.is_empty());
    }
}

/// The file that the agent remembers what it was told in: what was read is written as it was.
pub fn state(text: &str) {
    let boot = "e2c6f8d0-0000-4000-8000-000000000000";
    match file::read(text, boot) {
        Err(broken) => assert!(!broken.to_string().is_empty(), "a refusal has words"),
        Ok(read) => {
            let again = file::read(&file::write(&read.book, boot), boot);
            let again = again.unwrap_or_else(|broken| panic!("what we wrote: {broken}"));
            assert_eq!((again.book, again.outdated), (read.book, 0));
        }
    }
}

/// The file of `--web.config.file`.
pub fn web_file(text: &str) {
    if let Err(refused) = WebFile::parse(text) {
        assert!(!refused.to_string().is_empty(), "a refusal has words");
    }
}

/// Bodies of requests that change what the agent remembers.
pub fn request(body: &[u8]) {
    let _ = serde_json::from_slice::<Reserve>(body);
    let _ = serde_json::from_slice::<Release>(body);
    let _ = serde_json::from_slice::<Free>(body);
    let _ = serde_json::from_slice::<Register>(body);
    let _ = serde_json::from_slice::<Unregister>(body);
}

/// A moment: what is read can be written down, and is read as the same again.
pub fn moment(text: &str) {
    match moment::parse(text, 1_800_000_000) {
        Ok(read) => assert_eq!(moment::absolute(&moment::rfc3339(read)), Some(read), "{text:?}"),
        Err(problem) => assert!(!problem.is_empty(), "a refusal has words"),
    }
}
