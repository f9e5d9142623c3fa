//! Allocation of free ports.

use super::full_name::FullName;
use super::port_ranges::PortRules;
use super::well_known;

/// Maximum number of ports in one response.
pub const MOST: usize = 256;
/// Where to start by default: above the default ports of most programs.
pub const NEAR: u16 = 8080;
/// Ports below belong to root (net.ipv4.ip_unprivileged_port_start).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The nearest to this one first, upwards before downwards.
    pub near: u16,
    /// How many.
    pub count: usize,
    /// The service that the ports are for, if known.
    pub service: Option<FullName>,
}

/// As many ports as requested and possible, the best first. `is_taken` returns whether a port is
/// held, reserved or handed out; it is called last, because it may be the most expensive.
pub fn choose(
    wanted: &Wanted,
    rules: &PortRules,
    mut is_taken: impl FnMut(u16) -> bool,
) -> Vec<u16> {
    let name = wanted.service.as_ref().map(|service| &*service.name);
    let fits = |port: &u16| {
        let in_reach = *port >= FIRST_UNPRIVILEGED || wanted.near < FIRST_UNPRIVILEGED;
        in_reach && !rules.is_ephemeral(*port) && well_known::of_others(*port, name).is_none()
    };
    let upwards = wanted.near.max(1)..=u16::MAX;
    let downwards = (1..wanted.near).rev();
    upwards
        .chain(downwards)
        .filter(fits)
        .filter(|port| !is_taken(*port))
        .take(wanted.count.min(MOST))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(near: u16, count: usize, service: Option<&str>) -> Wanted {
        let service = service.map(|name| name.parse().expect("a name"));
        Wanted { near, count, service }
    }

    #[test]
    fn the_nearest_free_port_comes_first() {
        let rules = PortRules::parse("32768 60999", "50000-50001");
        let check = |wanted: Wanted, taken: &[u16], expected: &[u16]| {
            let found = choose(&wanted, &rules, |port| taken.contains(&port));
            assert_eq!(found, expected, "{wanted:?}");
        };
        check(wanted(8080, 3, None), &[8081], &[8080, 8082, 8083]);
        check(wanted(5432, 1, None), &[], &[5433]);
        check(wanted(5432, 1, Some("postgres")), &[], &[5432]);
        check(wanted(5432, 1, Some("shop/postgres")), &[5432], &[5433]);
        check(wanted(40_000, 3, None), &[], &[50_000, 50_001, 61_000]);
        check(wanted(65_534, 3, None), &[], &[65_534, 65_535, 65_533]);
        check(wanted(80, 2, None), &[80], &[81, 82]);
        check(wanted(0, 1, None), &[], &[1]);
        check(wanted(8080, 0, None), &[], &[]);
    }

    #[test]
    fn a_full_host_returns_fewer_ports() {
        let rules = PortRules::default();
        assert!(choose(&wanted(1024, 2, None), &rules, |port| port != 7).is_empty());
        assert_eq!(choose(&wanted(8080, 100_000, None), &rules, |_| false).len(), MOST);
    }

    proptest! {
        #[test]
        fn no_port_is_given_that_must_not_be(
            near: u16, count in 0usize..40, kept_out: (u16, u16), taken: u16,
        ) {
            let rules = PortRules { ephemeral: Some((32_768, 60_999)), kept_out: vec![kept_out] };
            let found = choose(&wanted(near, count, None), &rules, |port| port % 16 == taken % 16);
            let mut distinct = found.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), found.len());
            prop_assert_eq!(found.len(), count);
            for port in found {
                prop_assert!(port > 0 && port % 16 != taken % 16 && !rules.is_ephemeral(port));
                prop_assert!(well_known::of_others(port, None).is_none());
                prop_assert!(port >= 1024 || near < 1024);
            }
        }
    }
}
