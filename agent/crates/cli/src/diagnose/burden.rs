//! How many probes a server can bear: each connect takes a place in its accept queue until the program
//! accepts, and a stopped program never does. A diagnosis must not add to what it finds.

use std::net::SocketAddr;

use super::evidence::Listening;

/// A part of the free places, at most, that probes take.
const PART: u32 = 4;

/// How many connects are tried, and why they are fewer than asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearable {
    pub(super) count: u32,
    /// Whether nothing is tried that takes a connection more.
    pub(super) is_careful: bool,
    pub(super) why: Option<String>,
}

/// `asked` connects to `target`, or fewer. `now` is what listens on the port by the kernel's list, none
/// if the server is on another host; `before`: the same as the agent has read it.
pub(super) fn bearable(
    asked: u32,
    is_stopped: bool,
    before: &[Listening],
    now: &[Listening],
    target: Option<SocketAddr>,
) -> Bearable {
    let careful = |count: u32, why: String| Bearable { count, is_careful: true, why: Some(why) };
    if is_stopped {
        let why = "the server is stopped: connects would fill its accept queue";
        return careful(0, why.to_owned());
    }
    let reached = |one: &&Listening| target.is_none_or(|target| one.accepts(target.ip()));
    // Of several sockets of a port (SO_REUSEPORT) the kernel chooses.
    let Some(fullest) = now.iter().filter(reached).min_by_key(|one| one.free()) else {
        return Bearable { count: asked, is_careful: false, why: None };
    };
    let Listening { address, backlog, max_backlog, .. } = fullest;
    let waits = format!("{backlog} of {max_backlog} connections wait for accept()");
    let earlier = before.iter().filter(|one| one.address == *address);
    let earlier = earlier.map(|one| one.backlog).max();
    if earlier.is_some_and(|earlier| *backlog > earlier) {
        return careful(asked.min(1).min(fullest.free()), format!("{waits}, and more come"));
    }
    let part = fullest.free() / PART;
    match backlog {
        0 => {
            let count = asked.min(part.max(1));
            let why = format!("the accept queue holds {max_backlog} connections");
            Bearable { count, is_careful: false, why: (count < asked).then_some(why) }
        }
        _ if part == 0 => careful(0, waits),
        _ => {
            let count = asked.min(part);
            Bearable { count, is_careful: false, why: (count < asked).then_some(waits) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_take_a_small_part_of_what_is_free_and_nothing_of_a_stopped_server() {
        let listening = |address: &str, backlog, max_backlog| Listening {
            address: address.parse().expect("an address"),
            v6_only: false,
            backlog,
            max_backlog,
            pid: 1,
            command: String::new(),
        };
        let target = Some("10.0.0.1:80".parse().expect("an address"));
        let check = |before: &[Listening], now: &[Listening], expected: (u32, bool)| {
            let found = bearable(20, false, before, now, target);
            assert_eq!((found.count, found.is_careful), expected, "{now:?}");
            assert_eq!(found.why.is_some(), found.count < 20, "{found:?}");
        };
        check(&[], &[], (20, false));
        check(&[], &[listening("0.0.0.0", 0, 511)], (20, false));
        check(&[], &[listening("0.0.0.0", 0, 64)], (16, false));
        check(&[], &[listening("0.0.0.0", 0, 1)], (1, false));
        // Some wait, and no more come.
        let waits = [listening("0.0.0.0", 3, 511)];
        check(&waits, &waits, (20, false));
        check(&[], &[listening("0.0.0.0", 3, 8)], (1, false));
        check(&[], &[listening("0.0.0.0", 6, 8)], (0, true));
        check(&[], &[listening("0.0.0.0", 9, 8)], (0, true));
        // More come.
        check(&[listening("0.0.0.0", 2, 511)], &waits, (1, true));
        check(&[listening("0.0.0.0", 2, 8)], &[listening("0.0.0.0", 9, 8)], (0, true));
        // The fullest of those that a connect may reach.
        let two = [listening("0.0.0.0", 0, 511), listening("0.0.0.0", 9, 8)];
        check(&[], &two, (0, true));
        let other = [listening("0.0.0.0", 0, 511), listening("127.0.0.1", 9, 8)];
        check(&[], &other, (20, false));
        for now in [&[][..], &waits] {
            let found = bearable(20, true, &[], now, target);
            assert_eq!((found.count, found.is_careful), (0, true), "{now:?}");
        }
    }
}
