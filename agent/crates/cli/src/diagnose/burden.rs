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

/// `asked` connects to `target`, or fewer. `listeners` are those of the port, as the kernel has them
/// now; none if the server is on another host.
pub(super) fn bearable(
    asked: u32,
    is_stopped: bool,
    listeners: &[Listening],
    target: Option<SocketAddr>,
) -> Bearable {
    let limited = |count: u32, why: String| Bearable { count, is_careful: true, why: Some(why) };
    if is_stopped {
        return limited(
            0,
            "the server is stopped: connects would fill its accept queue".to_owned(),
        );
    }
    let reached = |one: &&Listening| target.is_none_or(|target| one.accepts(target.ip()));
    // Of several sockets of a port (SO_REUSEPORT) the kernel chooses.
    let Some(fullest) = listeners.iter().filter(reached).min_by_key(|one| one.free()) else {
        return Bearable { count: asked, is_careful: false, why: None };
    };
    let Listening { backlog, max_backlog, .. } = fullest;
    match fullest.free() {
        0 => limited(0, format!("the accept queue is full: {backlog} wait, {max_backlog} may")),
        _ if *backlog > 0 => limited(
            asked.min(1),
            format!("{backlog} of {max_backlog} connections wait for accept()"),
        ),
        free => {
            let count = asked.min((free / PART).max(1));
            let why = format!("the accept queue holds {max_backlog} connections");
            Bearable { count, is_careful: false, why: (count < asked).then_some(why) }
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
        let check = |is_stopped, listeners: &[Listening], expected: (u32, bool)| {
            let found = bearable(20, is_stopped, listeners, target);
            assert_eq!((found.count, found.is_careful), expected, "{listeners:?}");
            assert_eq!(found.why.is_some(), found.count < 20, "{found:?}");
        };
        check(false, &[], (20, false));
        check(false, &[listening("0.0.0.0", 0, 511)], (20, false));
        check(false, &[listening("0.0.0.0", 0, 64)], (16, false));
        check(false, &[listening("0.0.0.0", 0, 1)], (1, false));
        check(false, &[listening("0.0.0.0", 3, 511)], (1, true));
        check(false, &[listening("0.0.0.0", 65, 64)], (0, true));
        check(true, &[listening("0.0.0.0", 0, 511)], (0, true));
        check(true, &[], (0, true));
        // The fullest of those that a connect may reach.
        let two = [listening("0.0.0.0", 0, 511), listening("0.0.0.0", 9, 8)];
        check(false, &two, (0, true));
        let other = [listening("0.0.0.0", 0, 511), listening("127.0.0.1", 9, 8)];
        check(false, &other, (20, false));
    }
}
