//! When a program was first met in a network namespace.
//!
//! A namespace is found when its mount appears, some milliseconds before its interfaces have addresses:
//! these come before programs. So addresses are looked for again after the first program. The number
//! of a namespace that has ended is soon another's: then the first program is that of the next one,
//! although programs were met under this number before. Cookies tell the two apart.

use hashbrown::{HashMap, HashSet};

/// Namespaces in which programs were met.
#[derive(Debug, Default)]
pub(super) struct Inhabited {
    /// When the last one was entered first, CLOCK_MONOTONIC microseconds.
    since_us: u64,
    /// Cookies of the last look, by inode.
    cookies: HashMap<u32, u64>,
    /// Found since the agent started, and nobody was met in them yet.
    empty: HashSet<u32>,
}

// === impl Inhabited ===

impl Inhabited {
    /// When the last first program was met.
    pub(super) fn since_us(&self) -> u64 {
        self.since_us
    }

    /// Takes in which namespaces there are, by their cookies.
    pub(super) fn look(&mut self, cookies: &HashMap<u32, u64>) {
        let is_first = self.cookies.is_empty();
        let Self { cookies: before, empty, .. } = self;
        empty.retain(|netns| cookies.contains_key(netns));
        let new = cookies.iter().filter(|(netns, cookie)| before.get(*netns) != Some(*cookie));
        // Those from before the agent have their addresses.
        empty.extend(new.filter(|_| !is_first).map(|(netns, _)| *netns));
        before.clone_from(cookies);
    }

    /// A program was met at `born_us`; `is_unknown` is whether none was in this namespace before.
    pub(super) fn meet(&mut self, netns: u32, born_us: u64, is_unknown: bool) {
        let was_empty = self.empty.remove(&netns);
        if netns != 0 && (is_unknown || was_empty) {
            self.since_us = self.since_us.max(born_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_program_of_the_next_namespace_with_a_number_is_one() {
        let mut inhabited = Inhabited::default();
        let look = |inhabited: &mut Inhabited, cookies: &[(u32, u64)]| {
            inhabited.look(&cookies.iter().copied().collect());
        };
        let host = (1, 100);
        look(&mut inhabited, &[host]);
        inhabited.meet(1, 5, false);
        assert_eq!(inhabited.since_us(), 0, "from before the agent");
        inhabited.meet(0, 6, true);
        assert_eq!(inhabited.since_us(), 0, "in no namespace");
        // Nobody knows it yet.
        inhabited.meet(2, 10, true);
        look(&mut inhabited, &[host, (2, 200)]);
        assert_eq!(inhabited.since_us(), 10);
        inhabited.meet(2, 20, false);
        assert_eq!(inhabited.since_us(), 20, "the first after it was found");
        look(&mut inhabited, &[host, (2, 200)]);
        inhabited.meet(2, 30, false);
        assert_eq!(inhabited.since_us(), 20, "one of many");
        // It ends, and another one has its number.
        look(&mut inhabited, &[host]);
        look(&mut inhabited, &[host, (2, 300)]);
        look(&mut inhabited, &[host, (2, 300)]);
        inhabited.meet(2, 40, false);
        assert_eq!(inhabited.since_us(), 40);
        // The same between two looks.
        look(&mut inhabited, &[host, (2, 400)]);
        inhabited.meet(2, 50, false);
        assert_eq!(inhabited.since_us(), 50);
        inhabited.meet(2, 60, false);
        assert_eq!(inhabited.since_us(), 50);
        // One in which nobody was met ends.
        look(&mut inhabited, &[host, (3, 500)]);
        look(&mut inhabited, &[host]);
        inhabited.meet(3, 70, false);
        assert_eq!(inhabited.since_us(), 50);
    }
}
