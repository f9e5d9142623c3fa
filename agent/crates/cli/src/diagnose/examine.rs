//! Gathers the evidence of one pair: from the agent's answers, by probes, from the host.

use std::net::{IpAddr, SocketAddr};

use super::DiagnoseArgs;
use super::burden::{self, Bearable};
use super::evidence::{Evidence, Host as Found, Live, Name, Pair, Probes};
use super::host::{self, Look};
use super::live::Answers;
use super::place::{self, Host, Place};
use super::probe::{self, Plan, Protocol};
use super::report::Report;
use super::verdict;
use super::words::Wanted;

/// What every examination needs.
pub(super) struct Examiner<'a> {
    arguments: &'a DiagnoseArgs,
    answers: Option<&'a Answers>,
    host: Host,
    /// The agent's URL, if it is on another host: what it says is not about this one.
    elsewhere: Option<String>,
}

// === impl Examiner ===

impl<'a> Examiner<'a> {
    pub(super) fn new(arguments: &'a DiagnoseArgs, answers: Option<&'a Answers>) -> Self {
        let elsewhere = answers.and_then(|_| arguments.agent.elsewhere());
        let host = if elsewhere.is_some() { Host::default() } else { Host::survey() };
        Self { arguments, answers, host, elsewhere }
    }

    /// What the agent alone knows of a pair, to compare pairs with each other.
    pub(super) fn counted(&self, pair: &Pair) -> Evidence {
        let live = self.answers.map(|answers| {
            let server = self.server(pair, &answers.addresses(pair), None);
            answers.live(pair, server, None)
        });
        let skipped = Some("not for a list of edges".to_owned());
        let probes = Probes { skipped: skipped.clone(), ..Probes::default() };
        let host = Found { skipped, ..Found::default() };
        Evidence { pair: pair.clone(), live, probes, host, ..Evidence::default() }
    }

    /// All evidence of a pair. `name`: the server by its DNS name, if it was named so.
    pub(super) fn examine(&self, pair: &Pair, name: Option<String>) -> Evidence {
        let Self { arguments, answers, host: places, elsewhere } = self;
        let seen = answers.map_or_else(Vec::new, |answers| answers.addresses(pair));
        let ports = answers.map(|answers| &answers.ports);
        let client: Option<Result<Place, String>> = match (&pair.client, elsewhere) {
            (Some(_), Some(url)) => {
                Some(Err(format!("the client is on the host of the agent ({url}): run this there")))
            }
            (Some(client), None) => Some(places.client(client, &seen, ports, arguments.pid)),
            (None, _) => {
                arguments.pid.map(|pid| places.client(&Name::default(), &seen, None, Some(pid)))
            }
        };
        let here = client.as_ref().and_then(|place| place.as_ref().ok());
        let client_netns = here.map(|place| place.namespace.inode);
        let server = self.server(pair, &seen, client_netns);
        let mut live = answers.map(|answers| answers.live(pair, server, client_netns));
        if let Some(live) = live.as_mut().filter(|live| !live.sees_listeners)
            && let Some(found) = server.and_then(|server| places.listening(server, pair.port))
        {
            // The agent's hook is missing; the kernel can be asked.
            (live.sees_listeners, live.is_here, live.listeners) = (true, true, found);
        }
        let process = self.server_process(pair, live.as_ref());
        let process = process.filter(|_| elsewhere.is_none());
        let look = process.map(Look::begin);
        let probes = if let Some(why) = arguments.agent.without_probes() {
            Probes { skipped: Some(why.to_owned()), ..Probes::default() }
        } else if arguments.no_probe {
            Probes { skipped: Some("--no-probe".to_owned()), ..Probes::default() }
        } else {
            let is_stopped = process.is_some_and(host::is_stopped);
            let before = live.as_ref().map_or(&[][..], |live| live.listeners.as_slice());
            let now = server.and_then(|inode| places.listening(inode, pair.port));
            let now = now.unwrap_or_default();
            let target = seen.first().copied();
            let bearable =
                burden::bearable(arguments.probe_count, is_stopped, before, &now, target);
            self.probes(pair, name, &seen, client, server, bearable)
        };
        let found = match (look, &live) {
            (Some(look), _) => look.finish(),
            (None, Some(_)) if elsewhere.is_some() => not_looked("the agent is on another host"),
            (None, _) => not_looked("the server's process is not known"),
        };
        let ended = ["service_stopped", "service_restarted", "service_changed"];
        let ended = live.as_ref().and_then(|live| live.change(&pair.server, &ended));
        let ended = ended.map(|change| change.seconds_ago);
        let killed = || host::killed(&pair.server, ended);
        let killed = if elsewhere.is_some() { None } else { killed() };
        let found = Found { killed, ..found };
        let mut evidence =
            Evidence { pair: pair.clone(), live, probes, host: found, ..Evidence::default() };
        if evidence.host.pid == 0
            && elsewhere.is_none()
            && evidence.live.as_ref().is_some_and(|live| !live.is_here)
        {
            evidence.host.skipped = Some(evidence.why_not_here().to_owned());
        }
        if verdict::failures(&evidence, &["timeout", "aborted"]).is_some() {
            let ends: Vec<u32> = client_netns.into_iter().chain(server).collect();
            evidence.full_tables = places.full_tables(&ends);
        }
        if elsewhere.is_none() && verdict::failures(&evidence, verdict::NO_ANSWER).is_some() {
            let source =
                evidence.probes.route.as_ref().and_then(|route| route.as_ref().ok()?.source);
            let target = evidence.address().map(|address| address.ip());
            let ends = [client_netns.zip(source), server.zip(target)];
            let mut dead = ends.into_iter().flatten();
            evidence.dead_link = dead.find_map(|(inode, address)| places.dead_link(inode, address));
        }
        evidence
    }

    /// A server that was named with its port, by probes alone.
    pub(super) fn without_agent(&self, wanted: &Wanted) -> Option<Report> {
        let (client, server, port) = wanted.endpoint()?;
        let client = client.map(|name| match name.split_once('/') {
            Some((namespace, name)) => Name::new(namespace, name),
            None => Name::new("", name),
        });
        let pair = Pair { client, server: Name::new("", server), port: port? };
        let evidence = self.examine(&pair, Some(server.to_owned()));
        Some(Report::of(evidence, Vec::new()))
    }

    /// The network namespace of the server: the one that has the address, else that of its listener.
    fn server(&self, pair: &Pair, addresses: &[SocketAddr], client: Option<u32>) -> Option<u32> {
        let named = pair.server.name.parse().ok();
        let address = addresses.first().map(SocketAddr::ip).or(named);
        let of_address = address.and_then(|address| {
            if address.is_loopback() {
                return client;
            }
            self.host.holder_of(address).map(|namespace| namespace.inode)
        });
        let of_listener = || {
            let ports = &self.answers?.ports;
            place::listeners(ports, &pair.server, Some(pair.port)).first().map(|port| port.netns)
        };
        of_address.or_else(of_listener)
    }

    /// A process of the server: one that listens there, else one of the service.
    fn server_process(&self, pair: &Pair, live: Option<&Live>) -> Option<u32> {
        let live = live?;
        let mut listening = live.listeners.iter().filter(|one| one.pid != 0);
        let listening = listening.next().map(|one| one.pid);
        listening.or_else(|| self.answers?.process(&pair.server, pair.port))
    }

    fn probes(
        &self,
        pair: &Pair,
        name: Option<String>,
        seen: &[SocketAddr],
        client: Option<Result<Place, String>>,
        server: Option<u32>,
        bearable: Bearable,
    ) -> Probes {
        let Self { arguments, answers, host, elsewhere: _ } = self;
        let place = match client {
            Some(Ok(place)) => Some(place),
            Some(Err(why)) => return Probes { skipped: Some(why), ..Probes::default() },
            None => None,
        };
        let client_netns = place.as_ref().map(|place| place.namespace.inode);
        let server_namespace = server.and_then(|inode| host.namespace(inode));
        let listener = || {
            let ports = &(*answers)?.ports;
            let port = *place::listeners(ports, &pair.server, Some(pair.port)).first()?;
            place::reached_at(port, host.namespace(port.netns), client_netns)
        };
        let literal = pair.server.name.parse::<IpAddr>().ok();
        let literal = literal.map(|address| SocketAddr::new(address, pair.port));
        let target = seen.first().copied().or_else(listener).or(literal);
        let Bearable { count, is_careful, why } = bearable;
        let plan = Plan {
            target,
            name: name
                .filter(|_| literal.is_none())
                .or_else(|| answers.and_then(|answers| answers.dns_name(pair))),
            port: pair.port,
            count,
            is_careful,
            why_fewer: why,
            http: arguments.http.clone(),
            tls_name: arguments.tls_name.clone(),
            hello: Protocol::of(&pair.server.name, pair.port),
            process: place.as_ref().and_then(|place| place.process),
        };
        let from = match (&place, &pair.client) {
            (Some(Place { process: Some(pid), .. }), Some(client)) => {
                format!("the network namespace of {client} (pid {pid})")
            }
            (Some(Place { process: Some(pid), .. }), None) => {
                format!("the network namespace of pid {pid}")
            }
            (Some(_), Some(client)) => format!("the network namespace of {client}"),
            _ => "this command's network namespace".to_owned(),
        };
        let mut probes = probe::run(place.as_ref().map(|place| &place.namespace), &plan, &from);
        let source = probes.route.as_ref().and_then(|route| route.as_ref().ok()?.source);
        if let (Some(source), Some(namespace)) = (source, server_namespace)
            && client_netns.is_some_and(|client| client != namespace.inode)
        {
            probes.back = Some(probe::route_from(namespace, source));
        }
        probes
    }
}

fn not_looked(why: &str) -> Found {
    Found { skipped: Some(why.to_owned()), ..Found::default() }
}
