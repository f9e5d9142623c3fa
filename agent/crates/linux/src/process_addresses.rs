//! Local addresses of a process's network namespace, from `/proc/PID/net`: world-readable, so no
//! capability has to be kept for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_common::address::{self, Address};

/// A namespace with more routes than fit is a router's, not a container's.
const MOST_BYTES: u64 = 4 << 20;

/// Addresses of all interfaces that are up, each once.
pub fn of(tgid: u32) -> io::Result<Vec<Address>> {
    let read = |name: &str| -> io::Result<String> {
        let mut text = String::new();
        File::open(format!("/proc/{tgid}/net/{name}"))?
            .take(MOST_BYTES)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let mut found: Vec<IpAddr> = v4(&read("fib_trie")?).map(IpAddr::from).collect();
    // A kernel without IPv6 has no such file.
    found.extend(v6(&read("if_inet6").unwrap_or_default()).map(IpAddr::from));
    let mut found: Vec<Address> = found.into_iter().map(address::from_ip).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Leaves of the tree of routes whose kind is `LOCAL` (`fib_trie_seq_show`, net/ipv4/fib_trie.c):
/// `|-- 10.0.0.1`, and below it `/32 host LOCAL`.
pub fn v4(fib_trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    fib_trie.lines().filter_map(move |line| {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.trim_end().parse().ok();
            return None;
        }
        line.strip_prefix("/32 ")?.split_whitespace().any(|word| word == "LOCAL").then_some(leaf)?
    })
}

/// The first field of every line, 32 hexadecimal digits (`if6_seq_show`, net/ipv6/addrconf.c).
pub fn v6(if_inet6: &str) -> impl Iterator<Item = Ipv6Addr> {
    let field = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let address =
        |field: String| (field.len() == 32).then(|| u128::from_str_radix(&field, 16).ok())?;
    if_inet6.lines().filter_map(field).filter_map(address).map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.7.0.0/24 2 0 2
        +-- 10.7.0.0/30 2 0 2
           |-- 10.7.0.0
              /24 link UNICAST
           |-- 10.7.0.2
              /32 host LOCAL
        |-- 10.7.0.255
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
Local:
     |-- 10.7.0.2
        /32 host LOCAL
";

    #[test]
    fn only_local_leaves_count() {
        let found: Vec<String> = v4(TRIE).map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.7.0.2", "127.0.0.1", "10.7.0.2"]);
    }

    #[test]
    fn six_is_read_from_its_digits() {
        let text = "fd00000700010000000000000000a00f 02 40 00 80     eth0\nshort 01\n";
        assert_eq!(v6(text).collect::<Vec<_>>(), ["fd00:7:1::a00f".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn addresses_of_a_process_are_those_of_the_interfaces() {
        let of_process = of(std::process::id()).unwrap();
        let of_interfaces = super::super::addresses::local().unwrap();
        assert!(!of_process.is_empty());
        for address in &of_process {
            // An interface may be down: then it has an address, but no route.
            let known = of_interfaces.contains(address);
            let loopback = address::to_ip(*address).is_loopback();
            assert!(known || loopback, "{address:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = (v4(&text).count(), v6(&text).count());
        }
    }
}
