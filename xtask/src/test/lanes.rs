//! Which live tests run side by side; the others have the machine for themselves.
//!
//! A live test mostly waits: for a timeout of TCP, for the end of a window, for the agent's next
//! collection, for the kernel to accept the agent's programs. Each has network namespaces, an agent, a port and folders of its own, so several can
//! wait at once, in [`LANES`] processes (the harness borrows the name of its process, so threads of
//! one process would not do). But every agent sees the whole host: beside others only those may run
//! that look for services of their own, need no exact time, and load the host with nothing that fills
//! the tables of another agent. They are listed in [`BESIDE`]; a new module runs alone until it is.
//!
//! A lane takes a module at a time: modules may share work between their tests.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many modules run at once. A third one finds no idle time on two CPUs: half of what these tests
/// take is an agent that starts.
pub const LANES: usize = 2;

/// The beginning of the names of tests that may run beside each other, and what they wait for; what
/// takes longest comes first, so that no lane is left with it at the end.
const BESIDE: &[(&str, &str)] = &[
    ("queues::", "a minute of the kernel's clock"),
    ("names::translated::", "the look at the kernel's table of translations"),
    ("unanswered::", "silences that end a request"),
    ("recovery::", "retransmission timeouts"),
    ("dns::a_name_ends_with_its_time_to_live", "half a minute of a name's life"),
    ("tcp_receive_reset::", "connections that become idle"),
    ("diagnose::", "deadlines of probes"),
    ("stopping::", "the seconds after the end of a listener"),
    ("page::", "a browser"),
    ("exactness::", "counts of its own services"),
    ("names::", "programs and containers of its own"),
    ("inet_sock_set_state::", "connections of its own"),
    ("prometheus::", "scrapes of its own agent"),
    ("package::", "the installation in a root of its own"),
    ("enforcement::refusals_end_with_the_agent", "the end of an agent"),
    ("conflicts::", "ports of its own namespaces"),
    ("web::", "requests to its own agent"),
    ("shares::", "tenants of its own"),
    ("reservations::", "ports of its own namespaces"),
    ("degrade::rare::", "single events that come late, or must not come"),
    ("windows::", "the end of a window"),
    ("aborts::", "timeouts of TCP"),
    ("phases::", "retransmission timeouts"),
    ("applications::", "programs of its own"),
    ("balance", "balancers of its own"),
    ("check::", "findings about its own services"),
    ("cli::", "answers of its own agent"),
    ("conditions::", "interfaces and connection tracking of its own namespaces"),
    ("events::", "events of its own services"),
    ("foreign_memory::", "a process that answers no reads"),
    ("foreign_paths::", "files that never open"),
    ("impostors::", "programs of its own"),
    ("io_uring::", "connections of its own"),
    ("iterate_sockets::", "connections of its own"),
    ("map::", "services of its own"),
    ("notes::", "its own agent"),
    ("open_connections::", "connections of its own"),
    ("operations::", "services of its own"),
    ("otlp::", "a collector of its own"),
    ("policy::", "connections of its own"),
    ("recorded::", "a Prometheus of its own"),
    ("privileges::", "the start of an agent"),
    ("require_tls::", "connections of its own"),
    ("segments::", "services of its own"),
    ("sendmsg", "datagrams of its own"),
    ("services::", "services of its own"),
    ("sides::", "services of its own"),
    ("sk_data_ready::", "connections of its own"),
    ("sock_send_length::", "connections of its own"),
    ("snapshot::", "services of its own"),
    ("socket_lives::", "connections of its own"),
    ("source_address::", "connections of its own"),
    ("state::", "agents of its own"),
    ("tcp_retransmit_skb::", "lost segments"),
    ("tcp_send_reset::", "connections of its own"),
    ("timeouts::", "services of its own"),
    ("titles::", "programs of its own"),
    ("top::", "connections of its own"),
    ("unsent::", "connects that fail"),
];

/// Tests of one module of a test program.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// As in the tests' names; empty at the top of a program.
    pub name: String,
    /// The full names of its tests.
    pub tests: Vec<String>,
}

/// The modules of these tests: those that run side by side, longest first, and those that run alone.
pub fn split(tests: &[String]) -> (Vec<Module>, Vec<Module>) {
    let (beside, alone): (Vec<&String>, Vec<&String>) =
        tests.iter().partition(|test| entry(test).is_some());
    let mut beside = modules(&beside);
    beside.sort_by_key(|module| module.tests.first().and_then(|test| entry(test)));
    (beside, modules(&alone))
}

/// The entries of [`BESIDE`] that no test is called by.
pub fn unused(tests: &[String]) -> Vec<&'static str> {
    let names = BESIDE.iter().map(|(name, _)| *name);
    names.filter(|name| !tests.iter().any(|test| test.starts_with(name))).collect()
}

/// Does `work` for each item, for as many at once as there are lanes.
pub fn side_by_side<T: Send>(lanes: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    let queue = Mutex::new(VecDeque::from(items));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

/// The entry of [`BESIDE`] for a test.
fn entry(test: &str) -> Option<usize> {
    BESIDE.iter().position(|(name, _)| test.starts_with(name))
}

fn modules(tests: &[&String]) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for test in tests {
        let name = test.rsplit_once("::").map_or("", |(module, _)| module);
        match modules.iter_mut().find(|module| module.name == name) {
            Some(module) => module.tests.push((*test).clone()),
            None => modules.push(Module { name: name.to_owned(), tests: vec![(*test).clone()] }),
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_test_is_in_one_module_and_runs_alone_unless_listed() {
        let names =
            ["aborts::x", "queues::one", "a::x", "queues::deep::two", "queues::three", "top"];
        let (beside, alone) = split(&names.map(str::to_owned));
        let shown = |modules: &[Module]| -> Vec<String> {
            modules.iter().map(|one| format!("{}: {}", one.name, one.tests.join(" "))).collect()
        };
        let deep = "queues::deep: queues::deep::two";
        let long = "queues: queues::one queues::three";
        assert_eq!(shown(&beside), [long, deep, "aborts: aborts::x"]);
        assert_eq!(shown(&alone), ["a: a::x", ": top"]);
    }

    #[test]
    fn an_entry_without_a_test_is_found() {
        let all: Vec<String> = BESIDE.iter().map(|(name, _)| format!("{name}test")).collect();
        assert_eq!(unused(&all), [""; 0]);
        assert_eq!(unused(all.get(1..).unwrap()), [BESIDE[0].0]);
    }

    #[test]
    fn every_item_is_worked_on_once_and_as_many_at_once_as_there_are_lanes() {
        let (done, now, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        side_by_side(3, (1..=9).collect(), |item: usize| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(50));
            now.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(item, Ordering::SeqCst);
        });
        assert_eq!((done.into_inner(), most.into_inner()), (45, 3));
    }
}
