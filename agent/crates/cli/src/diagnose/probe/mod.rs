//! Probes: what a client would do, done by this command in the client's network namespace.
//!
//! All of it is bounded: [`Plan::count`] connects, one handshake, one request, a few seconds in all.
//! The agent takes no part in it.

mod connect;
mod deadline;
mod hello;
mod http;
mod resolve;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use linux::hops;
use linux::namespaces::{self, Namespace};
use linux::route::{self, Neighbour, NoRoute, Route};

pub(super) use self::hello::Protocol;
use super::evidence::{Blocked, Certificate, Path, Probes, TlsFault};

/// For a handshake, an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Further routers are not looked for.
const MOST_HOPS: u8 = 18;
/// For the answer of a hop; a SYN is repeated after a second.
const HOP_PATIENCE: Duration = Duration::from_millis(900);

/// MySQL counts connections that end without a login against the client's address, and refuses it
/// after a hundred (`max_connect_errors`).
const FEW: u32 = 3;

/// Ports on which TLS is tried without being asked for.
pub(crate) const TLS_PORTS: [u16; 12] =
    [443, 465, 636, 853, 989, 990, 993, 995, 5671, 6443, 8443, 8883];

/// What to try.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Where the client connects to, if that is known.
    pub(super) target: Option<SocketAddr>,
    /// The name to resolve; its address is the target if there is no other.
    pub(super) name: Option<String>,
    pub(super) port: u16,
    /// How often to connect.
    pub(super) count: u32,
    /// Why that is less than was asked for.
    pub(super) why_fewer: Option<String>,
    /// Whether connects are all that is tried.
    pub(super) is_careful: bool,
    /// The path to request.
    pub(super) http: Option<String>,
    /// The name to expect in the certificate.
    pub(super) tls_name: Option<String>,
    /// The protocol to greet in.
    pub(super) hello: Option<Protocol>,
    /// The client's process: its root has resolv.conf and hosts.
    pub(super) process: Option<u32>,
}

/// Makes the probes of a plan in `namespace`, or where the command is.
pub(super) fn run(namespace: Option<&Namespace>, plan: &Plan, from: &str) -> Probes {
    let failed = |why: String| Probes { skipped: Some(why), ..Probes::default() };
    let mut probes = match namespace {
        None => plan.run(),
        Some(namespace) => namespaces::run_in(namespace, || plan.run()).unwrap_or_else(|error| {
            failed(format!("entering the client's network namespace: {error}; run this as root"))
        }),
    };
    from.clone_into(&mut probes.from);
    probes
}

/// The route from `namespace` to `address`.
pub(super) fn route_from(namespace: &Namespace, address: IpAddr) -> Result<Path, Blocked> {
    let uncertain = |text: String| Blocked { text, is_certain: false };
    namespaces::run_in(namespace, || route(address))
        .unwrap_or_else(|error| Err(uncertain(format!("not looked up: {error}"))))
}

/// What a TLS server presents to a client in `namespace` that gives no name.
///
/// # Errors
/// What is wrong with the certificate, or with the handshake.
pub(crate) fn certificate(
    namespace: &Namespace,
    target: SocketAddr,
) -> Result<Certificate, TlsFault> {
    let handshake = || tls::handshake(target, None).map(|(_, certificate)| certificate);
    namespaces::run_in(namespace, handshake)
        .unwrap_or_else(|error| Err(TlsFault::Other(format!("entering its namespace: {error}"))))
}

/// How long one connect takes, from where this command is.
///
/// # Errors
/// Why it failed, in words.
pub(crate) fn connects(target: SocketAddr, patience: Duration) -> Result<Duration, String> {
    connect::one(target, patience).map_err(|error| connect::said(&error))
}

/// The status of the answer to `GET path`, from where this command is.
///
/// # Errors
/// Why there is none, in words.
pub(crate) fn http_status(
    target: SocketAddr,
    path: &str,
    patience: Duration,
) -> Result<u16, String> {
    http::answer(target, path, patience)
}

/// Whether a DNS server answers this command, whatever it answers.
///
/// # Errors
/// Why there was no answer, in words.
pub(crate) fn resolver_answers(server: IpAddr) -> Result<(), String> {
    resolve::answers(server)
}

// === impl Plan ===

impl Plan {
    fn run(&self) -> Probes {
        let mut probes = Probes::default();
        let mut target = self.target;
        if let Some(name) = &self.name {
            let lookup = resolve::lookup(name, self.process);
            let first =
                lookup.result.as_ref().ok().and_then(|addresses| addresses.first().copied());
            target = target.or_else(|| Some(SocketAddr::new(first?, self.port)));
            probes.name = Some(lookup);
        }
        let Some(target) = target else {
            if probes.name.is_none() {
                probes.skipped = Some("the server's address is not known".to_owned());
            }
            return probes;
        };
        let count =
            if self.hello == Some(Protocol::MySql) { self.count.min(FEW) } else { self.count };
        probes.skipped.clone_from(&self.why_fewer);
        if count == 0 {
            probes.route = Some(route(target.ip()));
            return probes;
        }
        let connects = connect::all(target, count);
        // Afterwards: the neighbour has been asked for then.
        probes.route = Some(route(target.ip()));
        let works = connects.ok() > 0;
        if connects.failed(&["timeout", "unreachable"]) > 0 || connects.after_a_second() > 0 {
            probes.hops = hops::trace(target, MOST_HOPS, HOP_PATIENCE).ok();
        }
        probes.connect = Some(connects);
        if works && !self.is_careful {
            self.talk(target, &mut probes);
        }
        probes
    }

    /// What takes an established connection.
    fn talk(&self, target: SocketAddr, probes: &mut Probes) {
        let is_tls =
            self.tls_name.is_some() || (self.hello.is_none() && TLS_PORTS.contains(&self.port));
        let name = self.tls_name.as_deref().or(self.name.as_deref());
        let mut stream = None;
        if is_tls {
            match tls::handshake(target, name) {
                Ok((connected, certificate)) => {
                    stream = Some(connected);
                    probes.tls = Some(Ok(certificate));
                }
                Err(fault) => probes.tls = Some(Err(fault)),
            }
        }
        if let Some(path) = &self.http {
            let host =
                name.map_or_else(|| target.to_string(), |name| format!("{name}:{}", target.port()));
            probes.http = match (is_tls, stream) {
                (false, _) => Some(http::get(target, &host, path)),
                (true, Some(mut stream)) => Some(http::get_over(&mut stream, &host, path)),
                (true, None) => None,
            };
        }
        if let Some(protocol) = self.hello.filter(|_| !is_tls) {
            probes.hello = Some(hello::greet(target, protocol));
        }
    }
}

/// The route from the namespace of the calling thread.
fn route(address: IpAddr) -> Result<Path, Blocked> {
    match route::lookup(address) {
        Ok(Route { is_local, gateway, source, interface, mtu, neighbour }) => {
            let from = source.map_or_else(String::new, |source| format!("{source} → "));
            let via = gateway.map_or_else(String::new, |gateway| format!("{gateway} → "));
            let through = interface.map_or_else(String::new, |name| format!(" through {name}"));
            let text = if is_local {
                format!("{address} is an address of the client's own network namespace")
            } else {
                format!("{from}{via}{address}{through}")
            };
            let (is_direct, is_silent) = (gateway.is_none(), neighbour == Neighbour::Silent);
            Ok(Path { text, source, mtu, is_direct, is_silent })
        }
        Err(NoRoute::Unknown(error)) => {
            Err(Blocked { text: format!("not looked up: {error}"), is_certain: false })
        }
        Err(none) => Err(Blocked { text: format!("{none} to {address}"), is_certain: true }),
    }
}
