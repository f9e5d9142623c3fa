//! Where a name is unique, besides the host: in a network namespace.
//!
//! A runtime or systemd gives a name once on a host. A program has the same name wherever it runs,
//! and `127.0.0.1` is another place in every network namespace: without a namespace of their own,
//! they would merge. Nothing is added in the host's network namespace. Elsewhere a program's
//! namespace is `netns-` and the name that root gave the network namespace (`ip netns`), or its
//! inode, as `lsns -t net` shows it.
//!
//! Bounded: names are root's, and at most [`MAX_UNNAMED`] namespaces have their inode as a name at a
//! time. The rest, and those that were gone before they were listed, share `netns-other`.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use model::service::{Service, Source};

/// Namespaces that are called by their inode, at most: of the host, and of tenants.
const MAX_UNNAMED: usize = 256;
const PREFIX: &str = "netns-";
const OTHER: &str = "netns-other";

/// Network namespaces and their names.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// The host's; `None`: nothing is known, and nothing told apart.
    host: Option<u32>,
    names: HashMap<u32, Arc<str>>,
    listed: HashSet<u32>,
    /// Called by their inodes: those that root of the host made, those of tenants.
    unnamed: [HashSet<u32>; 2],
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
    /// Takes in the host's network namespace, the names of others, and all that were listed; returns
    /// whether one may be called differently now.
    pub(super) fn update(
        &mut self,
        host: Option<u32>,
        names: &HashMap<u32, String>,
        listed: HashSet<u32>,
    ) -> bool {
        let is_same = self.host == host
            && self.names.len() == names.len()
            && names.iter().all(|(netns, name)| {
                let known = self.names.get(netns);
                known.is_some_and(|known| known.strip_prefix(PREFIX) == Some(name))
            });
        if !is_same {
            let label = |name: &String| format!("{PREFIX}{name}").into();
            self.names = names.iter().map(|(netns, name)| (*netns, label(name))).collect();
        }
        for unnamed in &mut self.unnamed {
            unnamed.retain(|netns| listed.contains(netns));
        }
        self.host = host;
        self.listed = listed;
        !is_same
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
        let names = names.iter().map(|(netns, name)| (*netns, (*name).to_owned())).collect();
        assert!(scopes.update(Some(HOST), &names, listed.into_iter().collect()));
        scopes
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
        let here = (2 * many..3 * many).collect();
        assert!(!scopes.update(Some(HOST), &HashMap::new(), here));
        assert_eq!(*scopes.of(2 * many + 1, true).label, format!("netns-{}", 2 * many + 1));
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
