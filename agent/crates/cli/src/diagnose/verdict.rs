//! The verdict: the first cause that explains the rest, from the evidence alone.
//!
//! [`CANDIDATES`] are in the order in which one explains another: a stopped process fills its accept
//! queue, a full queue makes connects time out, timeouts look like loss, loss makes requests slow.

use serde::Serialize;

use super::cause::Cause;
use super::evidence::{Evidence, Hop, Live, Silence, TlsFault, is_noteworthy};
use super::refusal;
use crate::human;

/// A share of retransmitted segments that delays many requests; the alert
/// PortolanRetransmitsHigh has the same.
const LOSS: f64 = 0.02;
/// Fewer retransmissions are chance.
const FEW_RETRANSMITS: u64 = 5;
/// Requests that take this long are slow, as for the health of services.
const SLOW_SECONDS: f64 = 0.5;
/// A latency that has grown by this factor has changed.
const GROWTH: f64 = 3.0;
/// A share of the latency that explains it.
const MOST_OF_IT: f64 = 0.6;
/// Below this nobody notices a slower request or round trip.
const UNNOTICED_SECONDS: f64 = 0.01;
const UNNOTICED_RTT_SECONDS: f64 = 0.002;
/// A share of throttled periods that slows a service.
const THROTTLED: f64 = 0.1;
/// Bytes that nobody reads, as in WHY.
const UNREAD: u64 = 65_536;
/// Connections in CLOSE_WAIT that a pool does not explain, as in WHY.
const CLOSE_WAIT: u64 = 20;

/// What a diagnosis says in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    /// In one or two sentences.
    pub(super) text: String,
    pub(super) certainty: Certainty,
    /// Why it is so certain.
    pub(super) reason: String,
    /// What to do or to run next.
    pub(super) look_at: Vec<String>,
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Certainty {
    Low,
    Medium,
    High,
}

/// The first that applies is the verdict.
const CANDIDATES: &[fn(&Evidence) -> Option<Verdict>] = &[
    process_stopped,
    name_not_resolved,
    no_local_port,
    source_address,
    denied,
    no_route,
    host_gone,
    refusal::refused,
    out_of_descriptors,
    accept_queue_full,
    no_route_back,
    dropped,
    tls_fails,
    loss,
    keepalive_mismatch,
    not_reading,
    unanswered,
    connections_die,
    resets,
    server_error,
    slow,
    cpu_throttled,
    not_closed,
    forbidden,
];

/// The verdict on this evidence.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    CANDIDATES.iter().find_map(|candidate| candidate(evidence)).unwrap_or_else(|| well(evidence))
}

fn process_stopped(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, pair, .. } = evidence;
    let how = match host.state? {
        'T' => "stopped (SIGSTOP or Ctrl-Z)",
        't' => "stopped by a debugger",
        _ => return None,
    };
    let pid = host.pid;
    let text = format!("{} (pid {pid}) is {how}: it neither accepts nor answers.", pair.server);
    let next = if host.state == Some('T') { format!("kill -CONT {pid}") } else { format!("grep TracerPid /proc/{pid}/status") };
    let reason = "the state of the process says so";
    Some(Verdict::new(Cause::ProcessStopped, text, Certainty::High, reason).look_at(&next))
}

fn name_not_resolved(evidence: &Evidence) -> Option<Verdict> {
    let lookup = evidence.probes.name.as_ref()?;
    let why = lookup.result.as_ref().err()?;
    let text = format!("{} does not resolve: {why} ({}).", lookup.name, lookup.by);
    let connects = evidence.live.as_ref().is_some_and(|live| live.ok > 0);
    let (certainty, reason) = if connects {
        (Certainty::Medium, "it does not resolve now, but connects succeeded in the window")
    } else {
        (Certainty::High, "asked as the client asks")
    };
    let verdict = Verdict::new(Cause::NameNotResolved, text, certainty, reason);
    Some(verdict.look_at("the name in the client's configuration, its resolv.conf, and that DNS server"))
}

fn no_local_port(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["ports_exhausted"])?;
    let used = evidence.live.as_ref().and_then(|live| live.local_ports);
    let used = used.map_or_else(String::new, |used| format!(" ({} of its local ports are in use)", human::percent(used)));
    let text = format!(
        "{} has no local port left{used}: its connections are closed too fast to be used again.",
        evidence.pair.client()
    );
    let verdict = sure(Verdict::of(Cause::NoLocalPort, text), evidence, live, probed);
    Some(verdict.look_at("keep connections open and use them again").look_at("portolan explain PortolanLocalPortsExhausted"))
}

fn source_address(evidence: &Evidence) -> Option<Verdict> {
    let results = ["address_unavailable", "port_in_use", "time_wait"];
    let (live, _) = failures(evidence, &results)?;
    let what = evidence.live.as_ref().map(|live| words_of(live, &results)).unwrap_or_default();
    let text = format!("{} cannot connect from the source that it binds: {what}.", evidence.pair.client());
    let verdict = sure(Verdict::of(Cause::SourceAddress, text), evidence, live, 0);
    Some(verdict.look_at("the source address or port in the client's configuration"))
}

fn denied(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["denied"])?;
    let text = format!(
        "the client's own host refuses the connect (EPERM, EACCES): a firewall rule for outgoing packets, a cgroup program, or a security module ({} {}).",
        human::count(live + probed),
        if live > 0 { "in the window" } else { "probes" }
    );
    let verdict = sure(Verdict::of(Cause::Denied, text), evidence, live, probed);
    Some(verdict.look_at("nft list ruleset, in the client's network namespace").look_at("audit log (ausearch -m AVC)"))
}

fn no_route(evidence: &Evidence) -> Option<Verdict> {
    if let Some(Err(blocked)) = &evidence.probes.route
        && blocked.is_certain
    {
        let text = format!("the client has no route to the server: {}.", blocked.text);
        let verdict = Verdict::new(Cause::NoRoute, text, Certainty::High, "the kernel's own answer, from the client's network namespace");
        return Some(verdict.look_at("ip route get ADDRESS, in the client's network namespace").look_at("ip rule"));
    }
    let (live, probed) = failures(evidence, &["unreachable"])?;
    if is_silent(evidence) {
        return None;
    }
    let text = "a router or a firewall on the way answers that the server is unreachable (ICMP); the client itself has a route.".to_owned();
    let verdict = sure(Verdict::of(Cause::NoRoute, text), evidence, live, probed);
    Some(verdict.look_at("the routers on the way (tracepath ADDRESS) and their rules with `reject`"))
}

fn host_gone(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["unreachable", "timeout", "aborted"])?;
    if !is_silent(evidence) {
        return None;
    }
    let text = "nobody answers for the next hop on the link (ARP, neighbour discovery): the host is gone, or its address has moved.".to_owned();
    let verdict = sure(Verdict::of(Cause::HostGone, text), evidence, live, probed);
    Some(verdict.look_at("ip neigh, in the client's network namespace").look_at("whether the server's host, container or interface is up"))
}

fn out_of_descriptors(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, pair, .. } = evidence;
    if !host.is_short_of_descriptors() {
        return None;
    }
    let (open, limit) = host.descriptors?;
    let text = format!("{} (pid {}) has {open} of {limit} descriptors open: it can hardly accept another connection.", pair.server, host.pid);
    let verdict = Verdict::new(Cause::OutOfDescriptors, text, Certainty::High, "counted in /proc");
    Some(verdict.look_at("connections that it does not close (CLOSE_WAIT): portolan edges --by address").look_at("LimitNOFILE= of its unit, ulimits of its container"))
}

fn accept_queue_full(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, host, .. } = evidence;
    let live = live.as_ref()?;
    let full = live.listeners.iter().find(|one| one.is_full());
    if full.is_none() && !is_noteworthy(live.listen_drops, live.attempts()) {
        return None;
    }
    let queue = match full {
        Some(one) => format!("{} connections wait for accept(), {} may", one.backlog, one.max_backlog),
        None => format!("{} in the window", human::counted(live.listen_drops, "dropped connection request")),
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
    let verdict = Verdict::new(Cause::AcceptQueueFull, text, Certainty::High, "the kernel counts the queue and what it drops");
    Some(verdict.look_at("what the server does instead of accepting").look_at("portolan explain PortolanListenOverflow"))
}

fn no_route_back(evidence: &Evidence) -> Option<Verdict> {
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
fn dropped(evidence: &Evidence) -> Option<Verdict> {
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
        Some(live) if !live.listeners.is_empty() => " The server listens, and its accept queue has room.",
        _ => "",
    };
    let text = format!("packets{where_} are dropped silently: connects time out, and nothing refuses them.{server}");
    let verdict = sure(Verdict::of(Cause::Dropped, text), evidence, live_timeouts, probed);
    Some(verdict.look_at("nft list ruleset (rules with `drop`), at both ends and on the way").look_at("security groups or network policies; whether the address is still the server's"))
}

fn tls_fails(evidence: &Evidence) -> Option<Verdict> {
    let Some(Err(fault)) = &evidence.probes.tls else { return None };
    let server = evidence.pair.endpoint();
    let (cause, text, next) = match fault {
        TlsFault::Expired { days_ago } => {
            let since = days_ago.map_or_else(String::new, |days| format!(" {} ago", human::counted(days.max(0) as u64, "day")));
            (Cause::CertificateExpired, format!("the certificate of {server} has expired{since}."), "renew the certificate, and let the server load it")
        }
        TlsFault::NotYetValid => (Cause::CertificateExpired, format!("the certificate of {server} is not valid yet."), "the clocks of both hosts"),
        TlsFault::OtherName { wanted, presented } => (
            Cause::CertificateName,
            format!("the certificate of {server} is for {}, not for {wanted}.", list(presented)),
            "the name that the client connects to, or the certificate that the server presents for it (SNI)",
        ),
        TlsFault::Alert(alert) => (Cause::TlsFails, format!("{server} ends the TLS handshake with the alert {alert}."), "versions, ciphers and client certificates that the server requires"),
        TlsFault::NotTls => (Cause::TlsFails, format!("{server} does not speak TLS."), "the scheme and the port in the client's configuration"),
        TlsFault::Silent => (Cause::TlsFails, format!("{server} does not answer the TLS handshake."), "whether the port expects TLS"),
        TlsFault::Other(why) => (Cause::TlsFails, format!("the TLS handshake with {server} fails: {why}."), "openssl s_client -connect ADDRESS"),
    };
    let verdict = Verdict::new(cause, text, Certainty::High, "a handshake from the client's network namespace");
    Some(verdict.look_at(next))
}

fn loss(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, probes, .. } = evidence;
    let retransmits = live.as_ref().is_some_and(|live| live.retransmits >= FEW_RETRANSMITS && live.loss() >= LOSS);
    let (timeouts, failed_probes) = failures(evidence, &["timeout", "aborted"]).unwrap_or_default();
    let late = probes.connect.as_ref().map_or(0, |connect| connect.after_a_second());
    if !retransmits && timeouts == 0 && failed_probes + late == 0 {
        return None;
    }
    let mut facts = Vec::new();
    if let Some(live) = live.as_ref().filter(|_| retransmits) {
        facts.push(format!("{} of the segments are retransmitted", human::percent(live.loss())));
    }
    if timeouts > 0 && let Some(live) = live {
        facts.push(format!("{timeouts} of {} time out", human::counted(live.attempts(), "connect")));
    }
    let mut reason = String::from("seen in live traffic only");
    if let Some(connect) = &probes.connect {
        let lost = failed_probes + late;
        if lost > 0 {
            facts.push(format!("the SYN of {lost} of {} was lost", human::counted(connect.attempts, "probe")));
        }
        reason = margin(lost, connect.attempts);
    }
    let rtt = live.as_ref().and_then(|live| Some((live.rtt.p50?, live.usual_rtt.p50?)));
    let queueing = match rtt {
        Some((now, usual)) if now < usual * GROWTH => " The round-trip time has not grown: it is loss, not congestion.",
        Some(_) => " The round-trip time has grown, too: a queue on the way is full.",
        None => "",
    };
    let text = format!("packets between them are lost: {}.{queueing}", facts.join(", "));
    let agree = (retransmits || timeouts > 0) && failed_probes + late > 0;
    let certainty = if agree { Certainty::High } else { Certainty::Medium };
    let reason = if agree { format!("live and probes agree; {reason}") } else { reason };
    let verdict = Verdict::new(Cause::Loss, text, certainty, &reason);
    Some(verdict.look_at("nft list ruleset: rules with a limit or a probability").look_at("tc -s qdisc; ip -s link: a policer, a full queue, errors of an interface"))
}

fn keepalive_mismatch(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, .. } = evidence;
    let count = *live.as_ref()?.resets.get("idle_reuse")?;
    let text = format!(
        "{} closes idle connections while {} still uses them: {} in the window met a connection that was already closed.",
        pair.server,
        pair.client(),
        human::counted(count, "request")
    );
    let verdict = Verdict::new(Cause::KeepaliveMismatch, text, Certainty::High, "the kernel's reason of the resets");
    Some(verdict.look_at("keep-alive timeouts: the client's has to be shorter than the server's").look_at("portolan explain PortolanKeepaliveMismatch"))
}

fn not_reading(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, .. } = evidence;
    let unread = live.as_ref()?.unread;
    if unread < UNREAD {
        return None;
    }
    let text = format!("{} does not read: {} wait in its receive queues.", pair.server, human::bytes(unread));
    let verdict = Verdict::new(Cause::NotReading, text, Certainty::High, "the kernel counts what is unread");
    Some(verdict.look_at("what the server's threads wait for").look_at("portolan explain PortolanReceiverNotReading"))
}

fn unanswered(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, probes, pair, .. } = evidence;
    let silent = |result: Option<&Silence>| matches!(result, Some(Silence::Timeout | Silence::Closed));
    let http = probes.http.as_ref().is_some_and(|http| silent(http.result.as_ref().err()));
    let hello = probes.hello.as_ref().is_some_and(|hello| silent(hello.result.as_ref().err()));
    let open = live.as_ref().filter(|live| is_noteworthy(live.unanswered, live.requests + live.unanswered));
    let probed = u64::from(http || hello);
    let count = open.map_or(0, |live| live.unanswered);
    if count == 0 && probed == 0 {
        return None;
    }
    let facts = match open {
        Some(live) => format!("{count} of {} in the window got no answer", human::counted(live.requests + live.unanswered, "request")),
        None => "a probe got no answer".to_owned(),
    };
    if let Some(hop) = open.and_then(|live| live.dependencies.iter().find(|hop| hop.is_failing())) {
        let text = format!("{} does not answer because of a service that it calls: {}; {facts}.", pair.server, waits_for(hop));
        let verdict = sure(Verdict::of(Cause::SlowDependency, text), evidence, count, probed);
        return Some(verdict.look_at(&command_for(hop)));
    }
    let text = format!("{} does not answer: {facts}.", pair.server);
    let verdict = sure(Verdict::of(Cause::NeverAnswers, text), evidence, count, probed);
    Some(verdict.look_at("its log, and what its threads wait for").look_at("portolan explain PortolanRequestsUnanswered"))
}

fn connections_die(evidence: &Evidence) -> Option<Verdict> {
    let live = evidence.live.as_ref()?;
    let count: u64 = live.aborts.values().sum();
    if !is_noteworthy(count, live.opened) {
        return None;
    }
    let causes: Vec<String> = live.aborts.iter().map(|(cause, n)| format!("{n} {cause}")).collect();
    let text = format!(
        "established connections die: a kernel gave {} up because the other end did not answer ({}).",
        human::counted(count, "connection"),
        causes.join(", ")
    );
    let verdict = Verdict::new(Cause::ConnectionsDie, text, Certainty::High, "counted by the kernel that gave up");
    Some(verdict.look_at("a firewall or NAT that forgets idle connections; a host that went away").look_at("portolan explain PortolanConnectionsAborted"))
}

fn resets(evidence: &Evidence) -> Option<Verdict> {
    let live = evidence.live.as_ref()?;
    let ours = live.resets.iter().filter(|(cause, _)| !matches!(cause.as_str(), "idle_reuse" | "stopping" | "unused" | "no_listener"));
    let (causes, count) = ours.fold((Vec::new(), 0), |(mut causes, sum), (cause, n)| {
        causes.push(format!("{n} {cause}"));
        (causes, sum + n)
    });
    if !is_noteworthy(count, live.opened.max(live.requests)) {
        return None;
    }
    let text = format!("connections are cut with a reset: {} ({}).", human::counted(count, "reset"), causes.join(", "));
    let verdict = Verdict::new(Cause::Resets, text, Certainty::Medium, "the kernel's reason; which program did it and why is in its log");
    Some(verdict.look_at("the logs of both programs at these times: portolan events --kind reset").look_at("portolan explain PortolanResetStorm"))
}

fn server_error(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { probes, pair, live, .. } = evidence;
    let http = probes.http.as_ref().and_then(|http| match http.result {
        Ok(status) if status >= 500 => Some(format!("GET {} is answered with {status}", http.path)),
        _ => None,
    });
    let hello = probes.hello.as_ref().and_then(|hello| match &hello.result {
        Err(Silence::Refused(said)) => Some(format!("{} says: {said}", hello.protocol)),
        _ => None,
    });
    let what = http.or(hello)?;
    let failing = live.as_ref().and_then(|live| live.dependencies.iter().find(|hop| hop.is_failing()));
    if let Some(hop) = failing {
        let text = format!("{} answers with an error ({what}), and a service that it calls fails: {}.", pair.server, waits_for(hop));
        let verdict = Verdict::new(Cause::SlowDependency, text, Certainty::Medium, "both at the same time");
        return Some(verdict.look_at(&command_for(hop)));
    }
    let text = format!("{} can be reached, and answers with an error: {what}.", pair.server);
    let verdict = Verdict::new(Cause::ServerError, text, Certainty::High, "the server's own words");
    Some(verdict.look_at("its log"))
}

fn slow(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, host, pair, .. } = evidence;
    let live = live.as_ref()?;
    let grown = |now: Option<f64>, usual: Option<f64>| match (now, usual) {
        (Some(now), Some(usual)) => now > usual * GROWTH && now - usual > UNNOTICED_SECONDS,
        _ => false,
    };
    let total = live.client.p99.or(live.server.p99)?;
    if total < SLOW_SECONDS && !grown(live.client.p50, live.usual.p50) {
        return None;
    }
    let usual = live.usual.p50.filter(|_| grown(live.client.p50, live.usual.p50));
    let usual = usual.map_or_else(String::new, |usual| format!(", median {} instead of {}", human::quantile(live.client.p50), human::duration(usual)));
    let latency = format!("p99 {}{usual}", human::quantile(Some(total)));
    let inside = live.server.p99;
    if inside.is_none_or(|inside| inside < total * MOST_OF_IT) {
        if let Some(verdict) = slow_path(live, &latency) {
            return Some(verdict);
        }
        if inside.is_some() {
            let text = format!("requests are slow ({latency}), but {} itself answers in {}: the time is spent between the two programs.", pair.server, human::quantile(inside));
            let verdict = Verdict::new(Cause::SlowPath, text, Certainty::Medium, "both sides are measured, and they differ");
            return Some(verdict.look_at("the client's own delay in reading, and the path: retransmits, a proxy"));
        }
    }
    if let Some(share) = host.throttled_share().filter(|share| *share >= THROTTLED) {
        let text = format!("{} is slow ({latency}): its cgroup has used up its CPU quota in {} of the periods.", pair.server, human::percent(share));
        let verdict = Verdict::new(Cause::CpuThrottled, text, Certainty::High, "the cgroup counts throttled periods");
        return Some(verdict.look_at("cpu.max of its cgroup (limits.cpu of its container)"));
    }
    let waited = inside.unwrap_or(total);
    let slowest = live.dependencies.iter().filter(|hop| hop.p99_seconds.is_some_and(|p99| p99 >= waited * MOST_OF_IT) || hop.is_failing());
    let slowest = slowest.max_by(|a, b| a.p99_seconds.unwrap_or_default().total_cmp(&b.p99_seconds.unwrap_or_default()));
    if let Some(hop) = slowest {
        let text = format!("{} is slow ({latency}) because it waits for {}.", pair.server, waits_for(hop));
        let verdict = Verdict::new(Cause::SlowDependency, text, Certainty::Medium, "the service that it calls takes as long at the same time");
        return Some(verdict.look_at(&command_for(hop)));
    }
    let (certainty, reason) = match (inside, live.dependencies.is_empty()) {
        (Some(_), false) => (Certainty::High, "measured at the server, and what it calls is fast"),
        (Some(_), true) => (Certainty::Medium, "measured at the server; it calls nothing that the agent sees"),
        (None, _) => (Certainty::Medium, "the server has no agent on its host; the path is fast"),
    };
    let pressure = host.cpu_pressure.filter(|share| *share >= 0.2);
    let pressure = pressure.map_or_else(String::new, |share| format!(" Its processes waited for a CPU in {} of the last ten seconds.", human::percent(share)));
    let text = format!("{} itself is slow: {latency}.{pressure}", pair.server);
    let verdict = Verdict::new(Cause::SlowServer, text, certainty, reason);
    Some(verdict.look_at("a profile or thread dump of it").look_at("portolan explain PortolanLatencyHigh"))
}

fn slow_path(live: &Live, latency: &str) -> Option<Verdict> {
    let (now, usual) = (live.rtt.p50?, live.usual_rtt.p50?);
    if now < usual * GROWTH || now - usual < UNNOTICED_RTT_SECONDS {
        return None;
    }
    let text = format!(
        "the network between them is slow ({latency}): a round trip takes {} instead of {}.",
        human::duration(now),
        human::duration(usual)
    );
    let verdict = Verdict::new(Cause::SlowPath, text, Certainty::High, "measured by TCP itself");
    Some(verdict.look_at("tc -s qdisc and ip -s link on the way: a full queue, a shaper").look_at("tracepath ADDRESS"))
}

/// Throttled, although nothing was slow in the window.
fn cpu_throttled(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, pair, .. } = evidence;
    let share = host.throttled_share().filter(|share| *share >= 0.5)?;
    let text = format!("the cgroup of {} has used up its CPU quota in {} of the periods.", pair.server, human::percent(share));
    let verdict = Verdict::new(Cause::CpuThrottled, text, Certainty::Medium, "counted by the cgroup; no request was slow in the window");
    Some(verdict.look_at("cpu.max of its cgroup (limits.cpu of its container)"))
}

fn not_closed(evidence: &Evidence) -> Option<Verdict> {
    let count = evidence.live.as_ref()?.close_wait;
    if count <= CLOSE_WAIT {
        return None;
    }
    let text = format!("{} in CLOSE_WAIT: the other end has closed them, and the program has not.", human::counted(count, "connection"));
    let verdict = Verdict::new(Cause::NotClosed, text, Certainty::High, "counted by the kernel");
    Some(verdict.look_at("portolan explain PortolanConnectionsNotClosed"))
}

fn forbidden(evidence: &Evidence) -> Option<Verdict> {
    let (client, server, verdict) = evidence.live.as_ref()?.segments_of.as_ref()?;
    if *verdict != api_types::SegmentVerdict::Violation {
        return None;
    }
    let text = format!("the connection works, but the segments do not allow it: {client} → {server}.");
    let verdict = Verdict::new(Cause::Forbidden, text, Certainty::High, "the rules of the agent's configuration");
    Some(verdict.look_at("portolan segments violations"))
}

/// Nothing is wrong, or nothing is known.
fn well(evidence: &Evidence) -> Verdict {
    let Evidence { live, probes, .. } = evidence;
    let seen = live.as_ref().filter(|live| live.is_busy());
    let tried = probes.connect.as_ref().filter(|connect| connect.ok() > 0);
    let window = seen.map(|live| format!("in the last {}", human::span(live.seconds)));
    let count = tried.map(|connect| format!("in {}", human::counted(connect.ok(), "probe")));
    let both: Vec<String> = window.into_iter().chain(count).collect();
    if both.is_empty() {
        let text = "there was no traffic, and no probe: nothing can be said.".to_owned();
        let why = probes.skipped.clone().unwrap_or_else(|| "no traffic in the window".to_owned());
        let verdict = Verdict::new(Cause::NotEnoughData, text, Certainty::Low, &why);
        return verdict.look_at("a longer --window (5m), or name SERVER:PORT to probe it");
    }
    let text = format!("nothing is wrong {}.", both.join(" and "));
    let (certainty, reason) = match (seen, tried) {
        (Some(_), Some(_)) => (Certainty::High, "live traffic and probes agree"),
        (Some(_), None) => (Certainty::Medium, "live traffic only"),
        _ => (Certainty::Medium, "probes only: there was no traffic"),
    };
    Verdict::new(Cause::Healthy, text, certainty, reason)
}

/// Attempts to connect with these results, in the window and of the probes, if they are more than
/// exceptions.
pub(super) fn failures(evidence: &Evidence, results: &[&str]) -> Option<(u64, u64)> {
    let live = evidence.live.as_ref().map_or(0, |live| {
        let failed = live.failed(results);
        if is_noteworthy(failed, live.attempts()) { failed } else { 0 }
    });
    let probed = evidence.probes.connect.as_ref().map_or(0, |connect| connect.failed(results));
    (live + probed > 0).then_some((live, probed))
}

/// Whether the next hop, or the server on the link, does not answer for its address.
fn is_silent(evidence: &Evidence) -> bool {
    matches!(&evidence.probes.route, Some(Ok(path)) if path.is_silent)
}

/// How certain it is, by whether live traffic and probes agree.
pub(super) fn sure(verdict: Verdict, evidence: &Evidence, live: u64, probed: u64) -> Verdict {
    let probes = evidence.probes.connect.is_some();
    let (certainty, reason) = match (live > 0, probed > 0) {
        (true, true) => (Certainty::High, "live traffic and probes agree".to_owned()),
        (true, false) if probes => {
            (Certainty::Medium, "seen in live traffic; the probes succeed now, so it has passed or comes and goes".to_owned())
        }
        (true, false) => {
            let why = evidence.probes.skipped.as_deref().unwrap_or("not asked for");
            (Certainty::Medium, format!("seen in live traffic; no probe ({why})"))
        }
        (false, true) if evidence.live.as_ref().is_some_and(|live| live.ok > 0) => {
            (Certainty::Low, "only probes fail: live connects succeeded in the window".to_owned())
        }
        (false, _) => (Certainty::Medium, "probes alone: there was no such traffic in the window".to_owned()),
    };
    Verdict { certainty, reason, ..verdict }
}

/// A share of probes with its margin of error (95 %).
fn margin(n: u64, all: u64) -> String {
    if all == 0 {
        return "no probes".to_owned();
    }
    let share = n as f64 / all as f64;
    let error = 1.96 * (share * (1.0 - share) / all as f64).sqrt();
    format!("{n} of {all} probes is {:.0} % ± {:.0}", share * 100.0, error * 100.0)
}

fn words_of(live: &Live, results: &[&str]) -> String {
    let some = results.iter().filter_map(|result| Some((*result, live.failed.get(*result)?)));
    let words: Vec<String> = some.map(|(result, n)| format!("{n} {}", result.replace('_', " "))).collect();
    words.join(", ")
}

fn waits_for(hop: &Hop) -> String {
    let server = if hop.port == 0 { hop.server.clone() } else { format!("{}:{}", hop.server, hop.port) };
    match (&hop.p99_seconds, hop.why.is_empty()) {
        (_, false) => format!("{server} ({})", hop.why),
        (Some(p99), true) => format!("{server} (p99 {})", human::quantile(Some(*p99))),
        (None, true) => server,
    }
}

/// The command that looks at an edge.
pub(super) fn command_for(hop: &Hop) -> String {
    format!("portolan diagnose {} {}:{}", hop.client, hop.server, hop.port)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn new(cause: Cause, text: String, certainty: Certainty, reason: &str) -> Self {
        Self { cause, text, certainty, reason: reason.to_owned(), look_at: Vec::new() }
    }

    /// Before it is known how certain it is.
    pub(super) fn of(cause: Cause, text: String) -> Self {
        Self::new(cause, text, Certainty::Low, "")
    }

    /// The same with one more thing to do.
    #[must_use]
    pub(super) fn look_at(mut self, what: &str) -> Self {
        self.look_at.push(what.to_owned());
        self
    }
}

// === impl Certainty ===

impl Certainty {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

#[cfg(test)]
mod tests;
