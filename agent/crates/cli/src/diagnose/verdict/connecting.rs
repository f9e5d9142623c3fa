//! What keeps a client from connecting, besides a refusal.

use std::net::IpAddr;

use super::{Certainty, NO_ANSWER, THROTTLED, Verdict, failures, sure};
use crate::diagnose::cause::Cause;
use crate::diagnose::evidence::{
    DeadLink, Evidence, FullTable, Killed, Live, in_words, is_noteworthy,
};
use crate::human;
use linux::hops::Hop as Passed;
use notation::duration::ago;

pub(super) fn process_stopped(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, pair, .. } = evidence;
    let how = match host.state? {
        'T' => "stopped (SIGSTOP or Ctrl-Z)",
        't' => "stopped by a debugger",
        _ => return None,
    };
    let pid = host.pid;
    let text = format!("{} (pid {pid}) is {how}: it neither accepts nor answers.", pair.server);
    let next = if host.state == Some('T') {
        format!("kill -CONT {pid}")
    } else {
        format!("grep TracerPid /proc/{pid}/status")
    };
    let reason = "the state of the process";
    Some(Verdict::new(Cause::ProcessStopped, text, Certainty::High, reason).look_at(&next))
}

pub(super) fn name_not_resolved(evidence: &Evidence) -> Option<Verdict> {
    let lookup = evidence.probes.name.as_ref()?;
    let why = lookup.result.as_ref().err()?;
    let text = format!("{} does not resolve: {why} ({}).", lookup.name, lookup.by);
    let connects = evidence.live.as_ref().is_some_and(|live| live.ok > 0);
    let (certainty, reason) = if connects {
        (Certainty::Medium, "it does not resolve now, but connects succeeded in the window")
    } else {
        (Certainty::High, "resolved as the client resolves names")
    };
    let verdict = Verdict::new(Cause::NameNotResolved, text, certainty, reason);
    Some(
        verdict.look_at(
            "the name in the client's configuration, its resolv.conf, and that DNS server",
        ),
    )
}

pub(super) fn oom_killed(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, live, pair, probes, .. } = evidence;
    let Killed { pid, command, seconds_ago, is_named } = host.killed.as_ref()?;
    failures(evidence, &["refused", "reset", "timeout", "aborted"])?;
    let works = probes.connect.as_ref().is_some_and(|connect| connect.ok() > 0);
    let since = match (works, live.as_ref().is_some_and(|live| live.listeners.is_empty())) {
        (true, _) => "; it accepts connects again",
        (false, true) => ", and nothing listens since",
        (false, false) => "",
    };
    let text = format!(
        "the OOM killer has killed {} ({command}, pid {pid}) {} ago{since}.",
        pair.server,
        ago(*seconds_ago)
    );
    let (certainty, reason) = if *is_named {
        (Certainty::High, "the kernel's log names it")
    } else {
        (Certainty::Medium, "the kernel's log has a kill at the moment at which the server ended")
    };
    let verdict = Verdict::new(Cause::OomKilled, text, certainty, reason);
    Some(
        verdict
            .look_at(
                "the memory limit of its cgroup (memory.max, limits.memory), and what it needs",
            )
            .look_at("dmesg, from `oom-kill:` on"),
    )
}

pub(super) fn no_local_port(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["ports_exhausted"])?;
    let used = evidence.live.as_ref().and_then(|live| live.local_ports);
    let used = used.map_or_else(String::new, |used| {
        format!(" ({} of its local ports are in use)", human::percent(used))
    });
    // What was opened is still open, or in TIME_WAIT.
    let is_kept = |live: &&Live| live.active > 0 && live.active >= live.opened / 2;
    let why = match evidence.live.as_ref().filter(is_kept) {
        Some(live) => format!(
            "{} of its connections to this server are open, and it needs more",
            human::count(live.active)
        ),
        None => "its connections are closed too fast to be used again".to_owned(),
    };
    let text = format!("{} has no local port left{used}: {why}.", evidence.pair.client());
    let verdict = sure(Verdict::of(Cause::NoLocalPort, text), evidence, live, probed);
    Some(
        verdict
            .look_at("keep connections open and use them again")
            .look_at("portolan explain PortolanLocalPortsExhausted"),
    )
}

pub(super) fn source_address(evidence: &Evidence) -> Option<Verdict> {
    let results = ["address_unavailable", "port_in_use", "time_wait"];
    let (live, _) = failures(evidence, &results)?;
    let what = evidence.live.as_ref().map(|live| words_of(live, &results)).unwrap_or_default();
    let text =
        format!("{} cannot connect from the source that it binds: {what}.", evidence.pair.client());
    let verdict = sure(Verdict::of(Cause::SourceAddress, text), evidence, live, 0);
    Some(verdict.look_at("the source address or port in the client's configuration"))
}

pub(super) fn denied(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["denied"])?;
    let text = format!(
        "the client's own host refuses the connect (EPERM, EACCES): a firewall rule for outgoing packets, a cgroup program, or a security module ({} {}).",
        human::count(live + probed),
        if live > 0 { "in the window" } else { "probes" }
    );
    let verdict = sure(Verdict::of(Cause::Denied, text), evidence, live, probed);
    Some(
        verdict
            .look_at("nft list ruleset, in the client's network namespace")
            .look_at("audit log (ausearch -m AVC)"),
    )
}

/// An interface of the client or of the server is down, or its other end is.
pub(super) fn link_down(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, NO_ANSWER)?;
    let DeadLink { interface, namespace, address, is_up } = evidence.dead_link.as_ref()?;
    let what = if *is_up { "has no carrier: the other end of its link is down" } else { "is down" };
    let text = format!("the interface {interface} of {namespace}, which has {address}, {what}.");
    let verdict = sure(Verdict::of(Cause::LinkDown, text), evidence, live, probed);
    let next = if *is_up {
        format!(
            "ip -d link show {interface}, in {namespace}: its peer or bridge port; ip link set DEVICE up"
        )
    } else {
        format!("ip link set {interface} up, in {namespace}")
    };
    Some(verdict.look_at(&next))
}

/// A link-local address is of no use without the interface that it is meant on (EINVAL).
pub(super) fn without_scope(evidence: &Evidence) -> Option<Verdict> {
    let address = evidence.address().map(|address| address.ip());
    let address = address.or_else(|| evidence.pair.server.name.parse().ok())?;
    let IpAddr::V6(v6) = address else { return None };
    let (live, probed) = failures(evidence, &["other"])?;
    if !v6.is_unicast_link_local() {
        return None;
    }
    let text = format!(
        "{} connects to {address}, a link-local address, without its interface: the kernel refuses that (EINVAL).",
        evidence.pair.client()
    );
    let verdict = sure(Verdict::of(Cause::NoRoute, text), evidence, live, probed);
    Some(verdict.look_at(&format!(
        "the address in the client's configuration: {address}%eth0, with the name of its interface"
    )))
}

pub(super) fn no_route(evidence: &Evidence) -> Option<Verdict> {
    if let Some(Err(blocked)) = &evidence.probes.route
        && blocked.is_certain
    {
        let text = format!("the client has no route to the server: {}.", blocked.text);
        let verdict = Verdict::new(
            Cause::NoRoute,
            text,
            Certainty::High,
            "the kernel's own answer, from the client's network namespace",
        );
        return Some(
            verdict
                .look_at("ip route get ADDRESS, in the client's network namespace")
                .look_at("ip rule"),
        );
    }
    let (live, probed) = failures(evidence, &["unreachable"])?;
    if is_silent(evidence) {
        return None;
    }
    let rejected = evidence.probes.hops.iter().flatten().find_map(|hop| match hop {
        Passed::Rejected { by, why } => Some((by, why)),
        _ => None,
    });
    // A SYN with a TTL is a probe as well. Few of those that follow are answered: hosts limit how many
    // ICMP messages they send (`icmp_ratelimit`).
    let probed = if rejected.is_some() { probed.max(1) } else { probed };
    let sure = |cause, text| sure(Verdict::of(cause, text), evidence, live, probed);
    let address = evidence.address().map(|address| address.ip());
    let is_direct = matches!(&evidence.probes.route, Some(Ok(path)) if path.is_direct);
    let of_server = "nft list ruleset (rules with `reject`), in the server's network namespace";
    let verdict = match rejected {
        Some((by, why)) if Some(*by) == address => {
            let text = format!(
                "the server's own host rejects the connects ({by}, ICMP: {why}); the client itself has a route."
            );
            sure(Cause::Rejected, text).look_at(of_server)
        }
        Some((by, why)) => {
            let text =
                format!("{by} rejects the connects (ICMP: {why}); the client itself has a route.");
            sure(Cause::NoRoute, text)
                .look_at(&format!("the routes of {by}, and its rules with `reject`"))
        }
        None if is_direct => {
            let text = "the server's host, or a rule of the client's own, answers that the server is unreachable (ICMP): no router is between them.".to_owned();
            sure(Cause::Rejected, text).look_at(of_server).look_at("the same in the client's")
        }
        None => {
            let text = "a router or a firewall on the way answers that the server is unreachable (ICMP); the client itself has a route.".to_owned();
            sure(Cause::NoRoute, text)
                .look_at("the routers on the way (tracepath ADDRESS) and their rules with `reject`")
        }
    };
    Some(verdict)
}

pub(super) fn host_gone(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, NO_ANSWER)?;
    if !is_silent(evidence) {
        return None;
    }
    let text = "the next hop on the link does not answer (ARP, neighbour discovery): the host is down, or its address has moved.".to_owned();
    let verdict = sure(Verdict::of(Cause::HostGone, text), evidence, live, probed);
    Some(
        verdict
            .look_at("ip neigh, in the client's network namespace")
            .look_at("whether the server's host, container or interface is up"),
    )
}

pub(super) fn out_of_descriptors(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, pair, .. } = evidence;
    if !host.is_short_of_descriptors() {
        return None;
    }
    let (open, limit) = host.descriptors?;
    let text = format!(
        "{} (pid {}) has {open} of {limit} descriptors open: it can hardly accept another connection.",
        pair.server, host.pid
    );
    let verdict = Verdict::new(Cause::OutOfDescriptors, text, Certainty::High, "counted in /proc");
    Some(
        verdict
            .look_at("connections that it does not close (CLOSE_WAIT): portolan edges --by address")
            .look_at("LimitNOFILE= of its unit, ulimits of its container"),
    )
}

pub(super) fn accept_queue_full(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, host, .. } = evidence;
    let live = live.as_ref()?;
    let full = live.listeners.iter().find(|one| one.is_full());
    if full.is_none() && !is_noteworthy(live.listen_drops, live.attempts()) {
        return None;
    }
    let queue = match full {
        Some(one) => {
            format!("{} connections wait for accept(), {} may", one.backlog, one.max_backlog)
        }
        None => format!(
            "{} in the window",
            human::counted(live.listen_drops, "dropped connection request")
        ),
    };
    let process = full.map_or(String::new(), |one| format!(" (pid {})", one.pid));
    let waits = if host.throttled_share().is_some_and(|share| share >= THROTTLED) {
        "; its cgroup is throttled"
    } else {
        ""
    };
    let text = format!(
        "the accept queue of {} is full ({queue}): {}{process} does not accept fast enough, and further connects time out{waits}.",
        pair.endpoint(),
        pair.server
    );
    let verdict = Verdict::new(
        Cause::AcceptQueueFull,
        text,
        Certainty::High,
        "the kernel counts the queue and what it drops",
    );
    Some(
        verdict
            .look_at("what the server does instead of accepting")
            .look_at("portolan explain PortolanListenOverflow"),
    )
}

/// A table of connection tracking is full: the kernel drops what it cannot track.
pub(super) fn tracking_full(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["timeout", "aborted"])?;
    let tables = &evidence.full_tables;
    let full = tables.iter().find(|table| table.is_of_an_end).or(tables.first())?;
    let FullTable { namespace, used, limit, is_of_an_end } = full;
    let text = format!(
        "connection tracking of {namespace} is full ({} of {} entries): the kernel drops new connections there.",
        human::count(*used),
        human::count(*limit)
    );
    let verdict = sure(Verdict::of(Cause::TrackingFull, text), evidence, live, probed);
    let verdict = if *is_of_an_end {
        verdict
    } else {
        Verdict {
            certainty: verdict.certainty.min(Certainty::Medium),
            reason: format!("{}; whether the way leads through it is not known", verdict.reason),
            ..verdict
        }
    };
    Some(
        verdict
            .look_at("portolan explain PN601")
            .look_at("conntrack -S there: `drop` and `early_drop` grow")
            .look_at("net.netfilter.nf_conntrack_max, and who makes so many connections"),
    )
}

pub(super) fn no_route_back(evidence: &Evidence) -> Option<Verdict> {
    let Some(Err(blocked)) = &evidence.probes.back else { return None };
    let (live, probed) = failures(evidence, &["timeout", "aborted"])?;
    if !blocked.is_certain {
        return None;
    }
    let text = format!("the server has no route back to the client: {}.", blocked.text);
    let verdict = sure(Verdict::of(Cause::NoRouteBack, text), evidence, live, probed);
    Some(verdict.look_at("ip route get ADDRESS, in the server's network namespace"))
}

/// Most SYNs get no answer. If only some do, it is loss.
pub(super) fn dropped(evidence: &Evidence) -> Option<Verdict> {
    let (live_timeouts, probed) = failures(evidence, &["timeout", "aborted"])?;
    let mostly = |timeouts: u64, ok: u64| timeouts > 0 && timeouts >= ok;
    let in_window = evidence.live.as_ref().is_some_and(|live| mostly(live_timeouts, live.ok));
    let in_probes = evidence.probes.connect.as_ref().map(|connect| mostly(probed, connect.ok()));
    if !in_probes.unwrap_or(in_window) {
        return None;
    }
    let where_ = match evidence.address() {
        Some(address) => format!(" to {address}"),
        None => String::new(),
    };
    let server = match &evidence.live {
        Some(live) if !live.listeners.is_empty() => {
            " The server listens, and its accept queue has room."
        }
        _ => "",
    };
    let behind = match evidence.probes.hops.as_deref() {
        Some([.., Passed::Router(last)]) => {
            format!(" The last hop that answers is {last}: they are lost behind it.")
        }
        _ => String::new(),
    };
    let text = format!(
        "packets{where_} are dropped silently: connects time out, and nothing refuses them.{behind}{server}"
    );
    let verdict = sure(Verdict::of(Cause::Dropped, text), evidence, live_timeouts, probed);
    Some(
        verdict
            .look_at("nft list ruleset (rules with `drop`), at both ends and on the way")
            .look_at(
                "security groups or network policies; whether the address is still the server's",
            ),
    )
}

fn words_of(live: &Live, results: &[&str]) -> String {
    let some = results.iter().filter_map(|result| Some((*result, live.failed.get(*result)?)));
    let words: Vec<String> = some.map(|(result, n)| format!("{n} {}", in_words(result))).collect();
    words.join(", ")
}

/// Whether the next hop, or the server on the link, does not answer for its address.
fn is_silent(evidence: &Evidence) -> bool {
    matches!(&evidence.probes.route, Some(Ok(path)) if path.is_silent)
}
