//! The verdicts of enforced reservations, for the kernel half.
//!
//! Only identified foreign workloads are denied: those that have had another service's name for
//! some seconds, and a meaningful one: a container id whose runtime has not reported a name yet may
//! well be the owner. Unknown workloads are allowed, and reported as breaches.

use std::collections::BTreeMap;

use agent_common::enforced::{
    ALLOW, COMMANDS, DENY, Enforced, EnforcedPort, VerdictKey, is_go_between,
};
use agent_common::owner::OwnerKey;
use agent_common::wire::Wire as _;
use hashbrown::{HashMap, HashSet};

use super::breaches::SETTLES;
use super::reservations::Reservation;
use super::service::{Service, Source};

/// Maximum number of verdicts; workloads beyond it are allowed.
pub const MOST_VERDICTS: usize = 65_536;

/// An owner of sockets, with its name.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its key in the kernel half.
    pub key: OwnerKey,
    /// Its name.
    pub service: Service,
    /// For how long the name has been known, seconds.
    pub age: u64,
}

/// The tables of the kernel half.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Reserved ports that are enforced.
    pub ports: HashMap<EnforcedPort, Enforced>,
    /// Denied and allowed workloads.
    pub verdicts: HashMap<VerdictKey, u32>,
    /// Verdicts that did not fit into the table.
    pub dropped: usize,
}

/// Verdicts for enforced reservations, each with the inode of its network namespace.
/// `is_given_by_rule` returns whether a rule of the configuration gives the name: then workloads
/// without a known name are undecided.
pub fn verdicts(
    reservations: &[(u32, &Reservation)],
    owners: &[Known],
    is_given_by_rule: impl Fn(&Reservation) -> bool,
) -> Verdicts {
    let mut all = Verdicts::default();
    for (netns, reservation) in reservations {
        let port = EnforcedPort {
            netns: *netns,
            port: reservation.port.number,
            protocol: reservation.port.protocol.number(),
            zero: 0,
        };
        let mut commands = vec![command(&reservation.service.name)];
        // A cgroup is denied as a whole if a workload in it is denied and all others are foreign,
        // however young: a new one that was just denied must not let itself in by its own row.
        let mut cgroups: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
        let mut seen = HashSet::new();
        for Known { key, service, age } in owners {
            let verdict = judge(reservation, key, service, *age);
            if verdict == Some(ALLOW) && seen.insert(key.comm) && commands.len() < COMMANDS {
                commands.push(key.comm);
            }
            let (denied, foreign) = cgroups.entry(key.cgroup).or_insert((false, true));
            *denied |= verdict == Some(DENY);
            *foreign &= is_foreign(reservation, key, service);
            if let (Some(verdict), true) = (verdict, key.netns == *netns) {
                all.add(VerdictKey { owner: *key, port }, verdict);
            }
        }
        if !is_given_by_rule(reservation) {
            let wholly = cgroups.into_iter().filter(|(_, (denied, foreign))| *denied && *foreign);
            for (cgroup, _) in wholly.filter(|(cgroup, _)| *cgroup != 0) {
                let owner = OwnerKey { netns: 0, app: 0, cgroup, comm: [0; 16] };
                all.add(VerdictKey { owner, port }, DENY);
            }
        }
        let mut enforced = Enforced::zeroed();
        for (place, command) in enforced.commands.iter_mut().zip(commands) {
            *place = command;
        }
        all.ports.insert(port, enforced);
    }
    all
}

/// The verdict on one owner; `None`: undecided.
fn judge(reservation: &Reservation, key: &OwnerKey, service: &Service, age: u64) -> Option<u32> {
    if service.is_meant_by(&reservation.service) {
        return Some(ALLOW);
    }
    (age >= SETTLES && is_foreign(reservation, key, service)).then_some(DENY)
}

/// Whether an owner's name is another service's, so far.
fn is_foreign(reservation: &Reservation, key: &OwnerKey, service: &Service) -> bool {
    let says_nothing = matches!(service.source, Source::Unknown | Source::Container);
    !says_nothing && !is_go_between(&key.comm) && !service.is_meant_by(&reservation.service)
}

/// A name as a command name: at most fifteen bytes.
pub(super) fn command(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().take(15).zip(name.as_bytes()).for_each(|(to, from)| *to = *from);
    bytes
}

// === impl Verdicts ===

impl Verdicts {
    fn add(&mut self, key: VerdictKey, verdict: u32) {
        if self.verdicts.len() < MOST_VERDICTS {
            self.verdicts.insert(key, verdict);
        } else {
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::enforced::is_denied;

    use super::*;

    const HOST: u32 = 1;

    fn key(cgroup: u64, comm: &str) -> OwnerKey {
        OwnerKey { netns: HOST, app: 0, cgroup, comm: command(comm) }
    }

    fn known(cgroup: u64, comm: &str, name: &str, source: Source) -> Known {
        Known { key: key(cgroup, comm), service: Service::new(name, source), age: SETTLES }
    }

    /// The decision of the kernel half.
    fn denied(verdicts: &Verdicts, cgroup: u64, comm: &str) -> bool {
        let port = EnforcedPort { netns: HOST, port: 5432, protocol: 6, zero: 0 };
        let verdict = |owner| verdicts.verdicts.get(&VerdictKey { owner, port }).copied();
        let who = key(cgroup, comm);
        let everybody = OwnerKey { netns: 0, app: 0, cgroup, comm: [0; 16] };
        verdicts.ports.get(&port).is_some_and(|enforced| {
            let exact = verdict(who).unwrap_or_default();
            is_denied(enforced, &who.comm, exact, verdict(everybody).unwrap_or_default())
        })
    }

    fn decide(service: &str, owners: &[Known]) -> Verdicts {
        let text = format!("5432 {service} enforce");
        let reservation = Reservation::from_config(&text).expect("valid");
        verdicts(&[(HOST, &reservation)], owners, |_| false)
    }

    #[test]
    fn foreign_workloads_are_denied_and_possible_owners_are_not() {
        let owners = [
            known(10, "nc", "nc", Source::Process),
            known(10, "curl", "curl", Source::Process),
            known(20, "postgres", "postgres", Source::Process),
            known(20, "psql", "psql", Source::Process),
            known(30, "postgres", "other", Source::Docker),
        ];
        let verdicts = decide("postgres", &owners);
        let check = |cgroup, comm, expected| {
            assert_eq!(denied(&verdicts, cgroup, comm), expected, "{comm} in {cgroup}");
        };
        check(10, "nc", true);
        check(10, "ncat", true); // Never seen, in a cgroup of which everybody is known.
        check(10, "postgres", false); // Started by hand there: it may be the owner.
        check(10, "python3", false); // What it runs is not known before it has asked.
        check(10, "docker-proxy", false);
        check(20, "postgres", false);
        check(20, "psql", true);
        check(20, "pg_upgrade", false); // Beside the owner: it may be it.
        check(30, "postgres", true); // A container that is someone else by name.
        check(99, "nc", false); // A cgroup without a known process.
    }

    #[test]
    fn a_container_that_has_no_name_yet_is_let_in() {
        let digits = known(40, "mysqld", "3f2a9c81d0e4", Source::Container);
        assert!(!denied(&decide("db", std::slice::from_ref(&digits)), 40, "mysqld"));
        let named = known(40, "mysqld", "db", Source::Docker);
        assert!(!denied(&decide("db", std::slice::from_ref(&named)), 40, "mysqld"));
        // The owner's commands are learned, because its next container is unknown at first.
        let verdicts = decide("db", &[named, known(50, "sh", "x", Source::Docker)]);
        assert!(!denied(&verdicts, 50, "mysqld"));
        let young = Known { age: 0, ..known(60, "nc", "nc", Source::Process) };
        assert!(!denied(&decide("db", std::slice::from_ref(&young)), 60, "nc"));
    }

    #[test]
    fn a_new_program_of_a_foreign_cgroup_stays_denied_once_it_has_a_row() {
        let foreign = known(10, "curl", "curl", Source::Process);
        let before = decide("db", std::slice::from_ref(&foreign));
        assert!(denied(&before, 10, "nc"));
        let young = Known { age: 0, ..known(10, "nc", "nc", Source::Process) };
        let after = decide("db", &[foreign.clone(), young]);
        assert!(denied(&after, 10, "nc") && denied(&after, 10, "ncat"));
        let unnamed = Known { age: 0, ..known(10, "nc", "3f2a9c81d0e4", Source::Container) };
        assert!(!denied(&decide("db", &[foreign, unnamed]), 10, "nc"));
    }

    #[test]
    fn a_name_given_by_a_rule_may_be_anybodys() {
        let reservation = Reservation::from_config("5432 billing enforce").expect("valid");
        let owners = [known(10, "nc", "nc", Source::Process)];
        let by_rule = verdicts(&[(HOST, &reservation)], &owners, |_| true);
        assert!(denied(&by_rule, 10, "nc") && !denied(&by_rule, 10, "java-billing"));
    }

    #[test]
    fn there_is_an_end_to_how_many() {
        let owners: Vec<_> = (1..=MOST_VERDICTS as u64)
            .map(|cgroup| known(cgroup, "nc", "nc", Source::Process))
            .collect();
        let verdicts = decide("db", &owners);
        assert_eq!(verdicts.verdicts.len(), MOST_VERDICTS);
        assert_eq!(verdicts.dropped, MOST_VERDICTS);
    }
}
