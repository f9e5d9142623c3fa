//! Which services are walked: links the programs to the cgroups of those that were chosen, and says why
//! one is not.
//!
//! A service is chosen by name, and the kernel links programs to cgroups. So a service is walked only in
//! cgroups that it has for itself. A probe opens the folder of a cgroup; the core links it with a later
//! collection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use hashbrown::HashMap;

use linux::hierarchy::ROOT_ID;
use linux::probes::Pending;
use model::directory::Pattern;
use model::full_name::FullName;
use model::service::Service;
use model::snapshot::Disabled;

/// How long to wait until a cgroup that could not be linked is tried again.
const AGAIN_US: u64 = 60_000_000;

/// The folder of a cgroup.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// It, open.
    pub folder: File,
    /// Where it is.
    pub path: PathBuf,
    /// The ids of those below it.
    pub below: Vec<u64>,
}

/// The chosen services, and their cgroups. `L` is what links the programs as long as it lives.
pub(super) struct Walks<L> {
    chosen: Vec<Pattern>,
    cgroups: HashMap<u64, Known<L>>,
    /// Reasons that were logged, by what is not observed.
    told: BTreeMap<String, String>,
}

/// A cgroup of a chosen service.
struct Known<L> {
    state: State<L>,
    /// Why it is not walked, as far as that is known.
    why: Option<String>,
}

enum State<L> {
    Asked(Pending<Option<Cgroup>>),
    Linked { _link: L, below: Vec<u64> },
    Waits { since_us: u64 },
}

/// Who is in a cgroup.
type Members = BTreeMap<u64, BTreeSet<String>>;

// === impl Walks ===

impl<L> Walks<L> {
    /// Nothing is linked yet.
    pub(super) fn new(chosen: Vec<Pattern>) -> Self {
        Self { chosen, cgroups: HashMap::new(), told: BTreeMap::new() }
    }

    /// Whether no service was chosen.
    pub(super) fn are_none_chosen(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Takes in who is in which cgroup, by id; `ask` finds the folder of one, `link` links it. Returns what
    /// is not observed, and why.
    pub(super) fn update(
        &mut self,
        now_us: u64,
        owners: impl Iterator<Item = (u64, Service)>,
        ask: impl Fn(u64) -> Pending<Option<Cgroup>>,
        link: impl Fn(&Cgroup) -> Result<L, String>,
    ) -> Vec<Disabled> {
        let (mut members, mut wanted) = (Members::new(), Members::new());
        for (cgroup, service) in owners {
            let name = FullName::from(&service).to_string();
            if self.chosen.iter().any(|one| one.fits(&service.name, &service.namespace)) {
                wanted.entry(cgroup).or_default().insert(name.clone());
            }
            members.entry(cgroup).or_default().insert(name);
        }
        self.cgroups.retain(|cgroup, _| wanted.contains_key(cgroup));
        let mut off = BTreeMap::new();
        for (cgroup, services) in wanted {
            if let Some(why) = self.look_at(cgroup, &members, now_us, &ask, &link) {
                off.extend(services.into_iter().map(|service| (service, why.clone())));
            }
        }
        self.tell(&off);
        off.into_iter()
            .map(|(service, why)| Disabled {
                what: format!("operations of {service}"),
                why,
                is_observed: false,
            })
            .collect()
    }

    /// Brings a cgroup of a chosen service a step further; why it is not walked.
    fn look_at(
        &mut self,
        cgroup: u64,
        members: &Members,
        now_us: u64,
        ask: impl Fn(u64) -> Pending<Option<Cgroup>>,
        link: impl Fn(&Cgroup) -> Result<L, String>,
    ) -> Option<String> {
        if cgroup <= ROOT_ID {
            return Some("it runs in the root cgroup, which all others are below".to_owned());
        }
        let here = members.get(&cgroup)?;
        if here.len() > 1 {
            self.cgroups.remove(&cgroup);
            let all: Vec<&str> = here.iter().map(String::as_str).collect();
            return Some(format!("its cgroup has several services: {}", all.join(", ")));
        }
        let shared = |below: &[u64]| {
            let others = below.iter().filter_map(|id| members.get(id)).flatten();
            let other = others.into_iter().find(|name| !here.contains(*name))?;
            Some(format!("{other} runs in a cgroup below its own"))
        };
        let known = self
            .cgroups
            .entry(cgroup)
            .or_insert_with(|| Known { state: State::Asked(ask(cgroup)), why: None });
        match &known.state {
            State::Linked { below, .. } => {
                if let Some(why) = shared(below) {
                    *known = Known { state: State::Waits { since_us: now_us }, why: Some(why) };
                }
            }
            State::Waits { since_us } => {
                if now_us.saturating_sub(*since_us) >= AGAIN_US {
                    known.state = State::Asked(ask(cgroup));
                }
            }
            State::Asked(answer) => {
                let Some(answer) = answer.take() else { return known.why.clone() };
                let linked = match answer {
                    Ok(Some(found)) => match shared(&found.below) {
                        Some(why) => Err(Some(why)),
                        None => link(&found).map(|link| (link, found)).map_err(Some),
                    },
                    // It has ended, and what it counted is still shown.
                    Ok(None) => Err(None),
                    Err(failure) => Err(Some(format!("looking for its cgroup failed: {failure}"))),
                };
                *known = match linked {
                    Ok((link, Cgroup { path, below, .. })) => {
                        let name = here.first().map_or("", String::as_str);
                        let path = path.display();
                        tracing::info!("operations of {name} are counted in cgroup {path}");
                        Known { state: State::Linked { _link: link, below }, why: None }
                    }
                    Err(why) => Known { state: State::Waits { since_us: now_us }, why },
                };
            }
        }
        known.why.clone()
    }

    /// Logs each reason once.
    fn tell(&mut self, off: &BTreeMap<String, String>) {
        for (service, why) in off {
            if self.told.get(service) != Some(why) {
                tracing::warn!("operations of {service} are not counted: {why}");
            }
        }
        self.told.clone_from(off);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use model::service::Source;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    /// A host whose cgroups are numbers, each with those below it.
    struct Host {
        below: BTreeMap<u64, Vec<u64>>,
        linked: RefCell<u64>,
    }

    impl Host {
        fn round(&self, walks: &mut Walks<u64>, at: u64, owners: &[(u64, &str)]) -> Vec<String> {
            let owners = owners.iter().map(|(cgroup, name)| {
                (*cgroup, Service::new(name, Source::Process).within("shop"))
            });
            let ask = |cgroup: u64| {
                let (reply, pending) = Pending::channel();
                let answer = self.below.get(&cgroup).map(|below| Cgroup {
                    folder: File::open("/dev/null").expect("a file"),
                    path: format!("/{cgroup}").into(),
                    below: below.clone(),
                });
                reply.send(Ok(answer)).expect("it is waited for");
                pending
            };
            let link = |_: &Cgroup| {
                *self.linked.borrow_mut() += 1;
                Ok(*self.linked.borrow())
            };
            let off = walks.update(at * SECOND_US, owners, ask, link);
            off.into_iter().map(|off| format!("{}: {}", off.what, off.why)).collect()
        }
    }

    fn chosen(pattern: &str) -> Walks<u64> {
        Walks::new(vec![Pattern::parse(pattern).expect("a pattern")])
    }

    #[test]
    fn a_service_is_walked_in_a_cgroup_of_its_own_as_long_as_it_has_one() {
        let host =
            Host { below: BTreeMap::from([(7, vec![8]), (9, vec![])]), linked: RefCell::default() };
        let mut walks = chosen("shop/a*");
        let owners = [(7, "api"), (7, "api"), (8, "api"), (9, "db")];
        assert_eq!(host.round(&mut walks, 0, &owners[..2]), [""; 0]);
        assert_eq!(*host.linked.borrow(), 1);
        // Another one comes into it.
        let text = "operations of shop/api: its cgroup has several services: shop/api, shop/cron";
        assert_eq!(host.round(&mut walks, 1, &[(7, "api"), (7, "cron")]), [text]);
        assert!(walks.cgroups.is_empty());
        assert_eq!(host.round(&mut walks, 2, &[(7, "api")]), [""; 0]);
        let text = "operations of shop/api: shop/db runs in a cgroup below its own";
        let below = [(7, "api"), (8, "db")];
        assert_eq!(host.round(&mut walks, 3, &below), [text]);
        // It is tried again, later.
        assert_eq!(host.round(&mut walks, 4, &owners[..1]), [text]);
        assert_eq!(host.round(&mut walks, 64, &owners[..1]), [text]);
        assert_eq!(host.round(&mut walks, 65, &owners[..1]), [""; 0]);
        assert_eq!(*host.linked.borrow(), 3);
        // Its last process is gone.
        assert_eq!(host.round(&mut walks, 66, &owners[3..]), [""; 0]);
        assert!(walks.cgroups.is_empty());
    }

    #[test]
    fn who_has_no_cgroup_is_not_walked() {
        let host = Host { below: BTreeMap::new(), linked: RefCell::default() };
        let mut walks = chosen("*");
        let off = host.round(&mut walks, 0, &[(ROOT_ID, "init"), (0, "kernel"), (5, "gone")]);
        assert_eq!(
            off,
            [
                "operations of shop/init: it runs in the root cgroup, which all others are below",
                "operations of shop/kernel: it runs in the root cgroup, which all others are below",
            ]
        );
        assert_eq!(*host.linked.borrow(), 0);
    }
}
