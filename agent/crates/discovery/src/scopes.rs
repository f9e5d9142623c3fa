//! Where a name is unique, besides the host: in a network namespace.
//!
//! A runtime or systemd gives a name once on a host. A program has the same name wherever it runs,
//! and `127.0.0.1` is another place in every network namespace: without a namespace of their own,
//! they would merge. Nothing is added in the host's network namespace. Elsewhere a program's
//! namespace is `netns-` and the name that root gave the network namespace (`ip netns`), or its
//! inode, as `lsns -t net` shows it.
//!
//! A namespace keeps its name when that is taken away, and when it ends, for the rows of those that
//! were in it. The number that it leaves is soon another namespace's; their cookies tell them apart.
//! An owner stays in the namespace that it was met in ([`Place`]), until its program acts in the next
//! one with the number: the kernel half has one row for both.
//!
//! Bounded: names are root's, and at most [`MAX_UNNAMED`] namespaces have their inode as a name at a
//! time. The rest, and those that were gone before they were listed, share `netns-other`.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use model::service::{Entity, Service, Source};

/// Namespaces that are called by their inode, at most: of the host, and of tenants.
const MAX_UNNAMED: usize = 256;
const PREFIX: &str = "netns-";
const OTHER: &str = "netns-other";

/// Network namespaces and their names.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// The host's; `None`: unknown, and namespaces are not told apart.
    host: Option<u32>,
    names: HashMap<u32, Arc<str>>,
    /// Which namespaces have their numbers now, as far as that could be seen.
    present: HashMap<u32, Present>,
    /// When they were looked at last.
    looked_us: u64,
    /// Whether namespaces may have come and gone since.
    in_doubt: bool,
    /// Those whose name was taken away: nothing shows when they end.
    kept: HashSet<u32>,
    listed: HashSet<u32>,
    /// Called by their inodes: those that root of the host made, those of tenants.
    unnamed: [HashSet<u32>; 2],
}

/// The network namespaces of this host, as they were found.
#[derive(Clone, Debug, Default)]
pub struct Namespaces<'a> {
    /// The host's.
    pub host: Option<u32>,
    /// Names of some, by inode.
    pub names: Option<&'a HashMap<u32, String>>,
    /// Cookies of those that could be entered, by inode.
    pub cookies: Option<&'a HashMap<u32, u64>>,
    /// All of them, and those that were looked for.
    pub listed: HashSet<u32>,
    /// When the search began.
    pub began_us: u64,
}

/// What has changed in an update.
#[derive(Debug, Default)]
pub(super) struct Updated {
    /// Whether a namespace may be called differently now.
    pub(super) is_renamed: bool,
    /// Numbers that another namespace has now.
    pub(super) others: HashSet<u32>,
    /// When the former ones were looked for last, microseconds.
    pub(super) seen_us: u64,
}

/// The namespace that has a number.
#[derive(Clone, Debug)]
struct Present {
    cookie: u64,
    entity: Entity,
    /// Not before this it got the number from another one; 0 if it is the first.
    got_us: u64,
}

/// The network namespace that an owner was met in, which stays its own when another one has the
/// number.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Which one; [`Entity::UNKNOWN`] while that is not sure.
    entity: Entity,
    /// The label that a name of this owner had there last.
    label: Option<Arc<str>>,
}

/// The namespace of names in a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// Its label; empty on the host.
    pub(super) label: Arc<str>,
    /// Whether it stays: the namespace was listed.
    pub(super) is_final: bool,
}

// === impl Scopes ===

impl Scopes {
    /// Takes in network namespaces.
    pub(super) fn update(&mut self, found: Namespaces<'_>) -> Updated {
        let Namespaces { host, names, cookies, listed, began_us } = found;
        let (no_names, no_cookies) = (HashMap::new(), HashMap::new());
        let (names, cookies) = (names.unwrap_or(&no_names), cookies.unwrap_or(&no_cookies));
        let mut is_same = self.host == host;
        let seen_us = self.looked_us;
        let mut others = HashSet::new();
        for (netns, cookie) in cookies {
            let known = self.present.get(netns);
            if known.is_some_and(|known| known.cookie == *cookie) {
                continue;
            }
            let is_other = known.is_some();
            others.extend(is_other.then_some(*netns));
            let got_us = if is_other { self.looked_us } else { 0 };
            let entity = Entity::of(&format!("netns {cookie}"));
            self.present.insert(*netns, Present { cookie: *cookie, entity, got_us });
        }
        self.present.retain(|netns, _| listed.contains(netns));
        for (netns, name) in names {
            let known = self.names.get(netns);
            if known.is_none_or(|known| known.strip_prefix(PREFIX) != Some(name)) {
                self.names.insert(*netns, format!("{PREFIX}{name}").into());
                is_same = false;
            }
        }
        self.names.retain(|netns, _| {
            let stays =
                names.contains_key(netns) || (listed.contains(netns) && !others.contains(netns));
            is_same &= stays;
            stays
        });
        self.kept =
            self.names.keys().filter(|netns| !names.contains_key(*netns)).copied().collect();
        for unnamed in &mut self.unnamed {
            unnamed.retain(|netns| listed.contains(netns));
        }
        self.host = host;
        self.listed = listed;
        self.looked_us = began_us;
        Updated { is_renamed: !is_same, others, seen_us }
    }

    /// Whether namespaces may have come and gone since they were looked at.
    pub(super) fn set_doubt(&mut self, in_doubt: bool) {
        self.in_doubt = in_doubt;
    }

    /// Whether it is sure in which namespace an owner was met at `born_us`: else another one may have
    /// had the number when namespaces were looked for.
    pub(super) fn has_seen(&self, netns: u32, born_us: u64) -> bool {
        let is_doubtful = self.in_doubt || self.kept.contains(&netns);
        self.is_host(netns) || born_us <= self.looked_us || !is_doubtful
    }

    /// Where an owner is that was met first at `born_us` and of which nothing else is known.
    pub(super) fn place(&self, netns: u32, born_us: u64) -> Place {
        let entity = match self.present.get(&netns) {
            _ if !self.has_seen(netns, born_us) => Entity::UNKNOWN,
            // Who was met between two surveys is taken to be in the later namespace.
            Some(Present { got_us, .. }) if born_us < *got_us => {
                Entity::of(&format!("netns {netns} before {got_us}"))
            }
            Some(Present { entity, .. }) => *entity,
            None => Entity::UNKNOWN,
        };
        Place { entity, label: None }
    }

    /// Where an owner is that acts now.
    pub(super) fn present(&self, netns: u32) -> Place {
        let present = self.present.get(&netns);
        Place { entity: present.map_or(Entity::UNKNOWN, |present| present.entity), label: None }
    }

    /// Whether another namespace has the number of this one now.
    pub(super) fn is_past(&self, netns: u32, place: &Place) -> bool {
        place.entity.differs(self.present(netns).entity)
    }

    /// Whether this is the host's network namespace, or cannot be told from it.
    pub(super) fn is_host(&self, netns: u32) -> bool {
        netns == 0 || self.host.is_none_or(|host| host == netns)
    }

    /// The namespace of names in a network namespace, which may belong to a tenant.
    pub(super) fn of(&mut self, netns: u32, is_tenants: bool) -> Scope {
        let scope = |label: &str, is_final| Scope { label: label.into(), is_final };
        if self.is_host(netns) {
            return scope("", true);
        }
        if let Some(name) = self.names.get(&netns) {
            return Scope { label: Arc::clone(name), is_final: true };
        }
        if !self.listed.contains(&netns) {
            return scope(OTHER, false);
        }
        let [of_host, of_tenants] = &mut self.unnamed;
        let unnamed = if is_tenants { of_tenants } else { of_host };
        if unnamed.len() >= MAX_UNNAMED && !unnamed.contains(&netns) {
            return scope(OTHER, true);
        }
        unnamed.insert(netns);
        scope(&format!("{PREFIX}{netns}"), true)
    }
}

// === impl Place ===

impl Place {
    /// Not known yet.
    pub(super) const fn unknown() -> Self {
        Self { entity: Entity::UNKNOWN, label: None }
    }

    /// Whether it is sure which namespace it is.
    pub(super) fn is_known(&self) -> bool {
        self.entity != Entity::UNKNOWN
    }

    /// Now it is known which namespace it is.
    pub(super) fn settle(&mut self, place: &Self) {
        self.entity = place.entity;
    }

    /// Which namespace it is.
    pub(super) fn entity(&self) -> Entity {
        self.entity
    }

    /// What the namespace is called, now that it has ended.
    pub(super) fn scope(&self) -> Scope {
        let label = self.label.clone().unwrap_or_else(|| OTHER.into());
        Scope { label, is_final: true }
    }

    /// Takes note of what the namespace is called while it is there.
    pub(super) fn set_scope(&mut self, scope: &Scope) {
        self.label = Some(Arc::clone(&scope.label));
    }
}

/// Whether the name is one of a program, which is unique in its network namespace only, unless it
/// has a namespace that does not come from a network namespace.
pub(super) fn needs_scope(service: &Service) -> bool {
    let is_program = service.source == Source::Process;
    is_program && (service.namespace.is_empty() || service.namespace.starts_with(PREFIX))
}

/// The namespace of loopback addresses of a workload: its full name.
pub(super) fn of_workload(service: &Service) -> Arc<str> {
    match &*service.namespace {
        "" => Arc::clone(&service.name),
        namespace => format!("{}.{namespace}", service.name).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u32 = 1;

    fn scopes(names: &[(u32, &str)], listed: impl IntoIterator<Item = u32>) -> Scopes {
        let mut scopes = Scopes::default();
        assert!(update(&mut scopes, names, &[], listed).is_renamed);
        scopes
    }

    fn update(
        scopes: &mut Scopes,
        names: &[(u32, &str)],
        cookies: &[(u32, u64)],
        listed: impl IntoIterator<Item = u32>,
    ) -> Updated {
        let names = names.iter().map(|(netns, name)| (*netns, (*name).to_owned())).collect();
        let cookies = cookies.iter().copied().collect();
        let now_us = scopes.looked_us + 10;
        scopes.update(Namespaces {
            host: Some(HOST),
            names: Some(&names),
            cookies: Some(&cookies),
            listed: listed.into_iter().collect(),
            began_us: now_us,
        })
    }

    #[test]
    fn where_an_owner_was_met_is_in_doubt_while_namespaces_come_and_go_and_where_a_name_is_gone() {
        let mut scopes = scopes(&[(2, "blue"), (3, "red")], [HOST, 2, 3]);
        let later = scopes.looked_us + 1;
        let sure = |scopes: &Scopes| [HOST, 2, 3].map(|netns| scopes.has_seen(netns, later));
        assert_eq!(sure(&scopes), [true; 3]);
        scopes.set_doubt(true);
        assert_eq!(sure(&scopes), [true, false, false]);
        assert!(scopes.has_seen(2, later - 1), "met before namespaces were looked for");
        scopes.set_doubt(false);
        update(&mut scopes, &[(3, "red")], &[], [HOST, 2, 3]);
        let later = scopes.looked_us + 1;
        assert_eq!([2, 3].map(|netns| scopes.has_seen(netns, later)), [false, true]);
    }

    #[test]
    fn a_namespace_is_called_by_its_name_or_inode_and_the_hosts_not_at_all() {
        let mut scopes = scopes(&[(2, "blue")], [HOST, 2, 3]);
        let mut check = |netns, label: &str, is_final| {
            let expected = Scope { label: label.into(), is_final };
            assert_eq!(scopes.of(netns, false), expected, "{netns}");
        };
        check(HOST, "", true);
        check(2, "netns-blue", true);
        check(3, "netns-3", true);
        check(4, "netns-other", false);
        check(0, "", true);
        let mut nothing_known = Scopes::default();
        assert_eq!(&*nothing_known.of(3, false).label, "");
    }

    #[test]
    fn only_so_many_are_called_by_their_inodes_and_tenants_take_no_room_of_the_hosts() {
        let many = MAX_UNNAMED as u32;
        let mut scopes = scopes(&[], 2..=3 * many + 10);
        let labels: HashSet<Arc<str>> =
            (2..2 * many).map(|netns| scopes.of(netns, true).label).collect();
        assert_eq!(labels.len(), MAX_UNNAMED + 1);
        assert_eq!(&*scopes.of(2 * many, true).label, OTHER);
        assert_eq!(*scopes.of(2 * many, false).label, format!("netns-{}", 2 * many));
        // The room of those that are gone is free again.
        assert!(!update(&mut scopes, &[], &[], 2 * many..3 * many).is_renamed);
        assert_eq!(*scopes.of(2 * many + 1, true).label, format!("netns-{}", 2 * many + 1));
    }

    #[test]
    fn a_namespace_keeps_its_name_until_its_number_is_anothers_and_owners_stay_in_theirs() {
        let mut scopes = Scopes::default();
        let label = |scopes: &mut Scopes| scopes.of(2, false).label.to_string();
        assert!(update(&mut scopes, &[(2, "blue")], &[(2, 77)], [HOST, 2]).is_renamed);
        let mut blue = scopes.place(2, 3);
        assert!(blue.entity() != Entity::UNKNOWN);
        let scope = scopes.of(2, false);
        blue.set_scope(&scope);
        // Its name is taken away; it ends, and only rows are left of it.
        for cookies in [&[(2, 77)][..], &[]] {
            assert!(!update(&mut scopes, &[], cookies, [HOST, 2]).is_renamed);
            assert_eq!(label(&mut scopes), "netns-blue");
            assert!(!scopes.is_past(2, &blue));
        }
        let ended_us = scopes.looked_us;
        // Another one has its number, with a name or without.
        let updated = update(&mut scopes, &[], &[(2, 78)], [HOST, 2]);
        assert_eq!((updated.others, updated.seen_us), ([2].into(), ended_us));
        assert_eq!(label(&mut scopes), "netns-2");
        assert!(scopes.is_past(2, &blue));
        assert_eq!(&*blue.scope().label, "netns-blue");
        let unnoticed = scopes.place(2, 3);
        assert!(scopes.is_past(2, &unnoticed), "met in one before");
        assert_eq!(&*unnoticed.scope().label, OTHER);
        for place in [scopes.place(2, ended_us + 1), scopes.present(2)] {
            assert!(!scopes.is_past(2, &place), "met since");
        }
        assert!(update(&mut scopes, &[(2, "green")], &[(2, 79)], [HOST, 2]).is_renamed);
        assert_eq!(label(&mut scopes), "netns-green");
        assert!(scopes.is_past(2, &blue));
        // Nothing is left of it.
        assert!(update(&mut scopes, &[], &[], [HOST]).is_renamed);
        assert_eq!(label(&mut scopes), OTHER);
        assert!(scopes.present.is_empty() && scopes.names.is_empty());
    }

    #[test]
    fn names_that_a_runtime_made_unique_stay_as_they_are() {
        let check = |service: Service, expected| assert_eq!(needs_scope(&service), expected);
        check(Service::new("web", Source::Process), true);
        check(Service::new("web", Source::Process).within("netns-blue"), true);
        check(Service::new("web", Source::Process).within("box"), false);
        check(Service::new("web", Source::Docker), false);
        check(Service::new("web", Source::Unit), false);
        check(Service::new("web", Source::Rule), false);
        let of = |service: &Service| of_workload(service).to_string();
        assert_eq!(of(&Service::new("web", Source::Docker)), "web");
        assert_eq!(of(&Service::new("api", Source::Kubernetes).within("shop")), "api.shop");
    }
}
