//! Reading the namespaces, twice.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use linux::links::Counters;
use linux::namespace_names;
use linux::namespaces::{self, Namespace};
use linux::network::{self, Neighbours, Network};

use super::subnets::{self, Subnet};

/// Between the two readings at least.
const PAUSE: Duration = Duration::from_secs(1);
/// Further namespaces are left out.
const MOST: usize = 256;

/// The first reading.
pub(in crate::check) struct Reading {
    began: Instant,
    spaces: Vec<Namespace>,
    first: HashMap<u32, Network>,
}

/// What two readings show.
#[derive(Debug)]
pub(in crate::check) struct Seen {
    /// The namespaces as they are now; the host's or our own is the first.
    pub networks: Vec<Network>,
    /// How counters of interfaces grew between the readings, by namespace and interface.
    pub grown: HashMap<(u32, u32), Counters>,
    /// How often TCP was short of memory between the readings, by namespace.
    pub pressure: HashMap<u32, u64>,
    /// The tables of neighbours.
    pub neighbours: Neighbours,
    /// Why the tables of neighbours could not be read.
    pub neighbours_denied: Option<String>,
    /// Networks of container engines, or why an engine does not answer.
    pub(super) subnets: Result<Vec<Subnet>, String>,
    /// Inode of the host's namespace.
    pub host: Option<u32>,
    /// Names of namespaces by their inodes.
    pub names: HashMap<u32, String>,
    /// Why namespaces are missing, if any are.
    pub denied: Option<String>,
}

impl Reading {
    /// Reads the namespaces that the caller may enter.
    pub fn begin() -> Self {
        let (mut spaces, _) = namespaces::all();
        spaces.truncate(MOST + 1);
        let first = spaces.iter().take(MOST).filter_map(|space| {
            // Where the other ends are is found in the second reading.
            Some((space.inode, network::read(space, &[]).ok()?))
        });
        Self { began: Instant::now(), first: first.collect(), spaces }
    }

    /// Reads them again.
    pub fn finish(self) -> Seen {
        let Self { began, spaces, first } = self;
        thread::sleep(PAUSE.saturating_sub(began.elapsed()));
        let (mut names, _) = namespace_names::read();
        let host = namespaces::host().ok();
        let mut seen = Seen {
            subnets: subnets::read(),
            host: host.as_ref().map(|host| host.inode),
            ..Seen::default()
        };
        if let Some(host) = &host {
            names.insert(host.inode, "host".to_owned());
        }
        let (mut denied, mut why) = (0, String::new());
        for space in spaces.iter().take(MOST) {
            let now = match network::read(space, &spaces) {
                Ok(now) => now,
                Err(error) => {
                    denied += 1;
                    why = error.to_string();
                    continue;
                }
            };
            if let Some(before) = first.get(&now.inode) {
                seen.grew(before, &now);
            }
            seen.networks.push(now);
        }
        seen.denied = match (denied, spaces.len() > MOST) {
            (0, false) => None,
            (0, true) => Some(format!("more than {MOST}: only these were read")),
            (n, _) => Some(format!("{n} cannot be entered ({why}): run this as root to read all")),
        };
        match host.map(|host| network::neighbours(&host)) {
            Some(Ok(neighbours)) => seen.neighbours = neighbours,
            Some(Err(error)) => {
                seen.neighbours_denied = Some(format!("the host's namespace: {error}"));
            }
            None => seen.neighbours_denied = Some("the host's namespace is hidden".to_owned()),
        }
        seen.names = names.into_iter().collect();
        seen
    }
}

// === impl Seen ===

impl Default for Seen {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            grown: HashMap::new(),
            pressure: HashMap::new(),
            neighbours: Neighbours::default(),
            neighbours_denied: None,
            subnets: Ok(Vec::new()),
            host: None,
            names: HashMap::new(),
            denied: None,
        }
    }
}

impl Seen {
    /// Compares the two readings of a namespace.
    fn grew(&mut self, before: &Network, now: &Network) {
        for link in &now.links {
            let earlier = before.links.iter().find(|it| it.index == link.index);
            if let Some(earlier) = earlier.filter(|it| it.name == link.name) {
                let grown = link.counters.since(earlier.counters);
                self.grown.insert((now.inode, link.index), grown);
            }
        }
        if let (Some(earlier), Some(pressure)) = (before.memory_pressure, now.memory_pressure) {
            self.pressure.insert(now.inode, pressure.saturating_sub(earlier));
        }
    }
}
