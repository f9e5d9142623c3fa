//! The desk: one thread that owns the book, and its only writer.
//!
//! Whoever wants something written down hands the desk a job and waits for the answer. Jobs run
//! one after the other, so no two callers can be given the same port. What has been written is
//! published for everybody else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot, watch};

use super::failure::Failure;
use super::port_use;
use super::store::Store;
use crate::api::convert::{ToApi as _, ToModel, whole_seconds};
use api_types::{
    AllocatePorts, AllocatedPorts, Finding, HOST_NETNS, Register, Registered, Release, Reserve,
    Reserved, Severity, Unregister, code,
};
use linux::diag::DiagError;
use linux::namespaces::{self, Namespace};
use model::allocation::{self, Wanted};
use model::book::Book;
use model::full_name::FullName;
use model::moment;
use model::port::{Port, Protocol};
use model::port_ranges::PortRules;
use model::registry::{Endpoint, Registration};
use model::reservations::{Environment, Origin, Reservation};

/// Who asks gets an answer within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Jobs waiting at most.
const WAITING: usize = 64;
/// A port that was handed out and not reserved is given to nobody else for so long, seconds.
const HANDED_OUT: u64 = 60;
/// Ports handed out and not reserved, at most.
const MOST_HANDED_OUT: usize = 4096;
/// How long a port that was handed out is reserved, if nobody says, seconds.
const LEASE: u64 = 24 * 60 * 60;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its process, as the agent's /proc numbers it; 0 if it has no number there.
    pub pid: u32,
}

/// The owner of the book.
pub struct Desk {
    store: Store,
    book: Book,
    publish: watch::Sender<Arc<Book>>,
    environment: Option<Environment>,
    host: Option<u32>,
    /// Why no port can be refused to anybody, if so.
    unenforceable: Option<String>,
    /// (network namespace, port) → when it may be handed out again.
    handed_out: HashMap<(Option<u32>, Port), u64>,
}

/// Everybody else's end.
#[derive(Clone, Debug)]
pub struct DeskHandle {
    jobs: mpsc::Sender<Job>,
    book: watch::Receiver<Arc<Book>>,
}

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

// === impl Desk ===

impl Desk {
    /// Starts the thread. `book` is what `store` had, and what the configuration adds.
    pub fn start(
        store: Store,
        book: Book,
        environment: Option<Environment>,
        unenforceable: Option<String>,
    ) -> std::io::Result<DeskHandle> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
        let (publish, published) = watch::channel(Arc::new(book.clone()));
        let host = namespaces::host().ok().map(|namespace| namespace.inode);
        let handed_out = HashMap::new();
        let mut desk = Self { store, book, publish, environment, host, unenforceable, handed_out };
        // It ends when the last handle has gone.
        std::thread::Builder::new().name("desk".to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut desk);
            }
        })?;
        Ok(DeskHandle { jobs, book: published })
    }

    /// Keeps a port for a service.
    pub fn reserve(&mut self, caller: Caller, request: Reserve) -> Result<Reserved, Failure> {
        let now = now();
        let Reserve { port, protocol, service, environment, until, enforce, netns } = request;
        let port = checked(port, protocol.to_model())?;
        let place = place(caller, netns)?;
        let reservation = Reservation {
            port,
            netns: self.stored(&place),
            environment: environment.map(ToModel::to_model),
            service: named(&service)?,
            until: until_when(until.as_deref(), now)?,
            enforce,
            origin: Origin::State,
        };
        let wanted = reservation.clone();
        self.change(|book| book.reservations.reserve(wanted, now).map_err(Failure::from))?;
        let mut findings = exposed(&rules_in(&place)?, &[port]);
        let inactive =
            |code, title| Finding::new(code, Severity::Warning, &port.to_string(), title);
        if !reservation.in_force(now, self.environment) {
            let kind = self.environment.map_or("", Environment::as_str);
            let title = format!("the reservation is not in force here: this is a {kind} host");
            findings.push(inactive(code::RESERVATION_INACTIVE, title));
        }
        if let (true, Some(why)) = (enforce, &self.unenforceable) {
            let title = "bind() by other services is reported but does not fail".to_owned();
            let finding = inactive(code::RESERVATION_NOT_ENFORCED, title);
            findings.push(finding.with("reason", why.as_str()));
        }
        Ok(Reserved { reservations: vec![reservation.to_api()], findings })
    }

    /// Keeps a port no longer.
    pub fn release(&mut self, caller: Caller, request: &Release) -> Result<Reserved, Failure> {
        let Release { port, protocol, environment, netns } = *request;
        let port = checked(port, protocol.to_model())?;
        let environment = environment.map(ToModel::to_model);
        let place = place(caller, netns)?;
        let netns = self.stored(&place);
        let released = self.change(|book| {
            let released = book.reservations.release(netns, port, environment, now());
            released.map_err(Failure::from)
        })?;
        Ok(Reserved { reservations: vec![released.to_api()], findings: Vec::new() })
    }

    /// Hands out ports that nobody has.
    pub fn free(
        &mut self,
        caller: Caller,
        request: AllocatePorts,
    ) -> Result<AllocatedPorts, Failure> {
        let now = now();
        let AllocatePorts { near, count, protocol, service, environment, until, enforce, netns } =
            request;
        let protocol = protocol.to_model();
        let environment = environment.map(ToModel::to_model);
        let service = service.as_deref().map(named).transpose()?;
        let wanted = Wanted {
            near: near.unwrap_or(allocation::NEAR),
            count: count.unwrap_or(1),
            service: service.clone(),
        };
        if wanted.count == 0 || wanted.count > allocation::MOST {
            return Err(Failure::Wrong(format!(
                "{} ports cannot be handed out at once; ask for 1 to {}",
                wanted.count,
                allocation::MOST
            )));
        }
        let until = until_when(until.as_deref(), now)?;
        let place = place(caller, netns)?;
        let netns = self.stored(&place);
        self.handed_out.retain(|_, until| *until > now);
        let ports = self.choose(&wanted, &place, protocol, now)?;
        if ports.len() < wanted.count {
            return Err(Failure::Unable(format!(
                "only {} such ports are free there; ask for fewer (--count), or release some (`portolan ports reservations` lists them)",
                ports.len()
            )));
        }
        let given: Vec<Port> = ports.iter().map(|&number| Port { number, protocol }).collect();
        let until = match service.clone() {
            Some(service) => {
                let until = until.unwrap_or(now + LEASE);
                let lease = |port| Reservation {
                    port,
                    netns,
                    environment,
                    service: service.clone(),
                    until: Some(until),
                    enforce,
                    origin: Origin::State,
                };
                self.lease(given.into_iter().map(lease), now)?;
                until
            }
            None => self.lend(netns, &given, now)?,
        };
        Ok(AllocatedPorts {
            ports,
            protocol: protocol.to_api(),
            netns,
            until: whole_seconds(until),
            service: service.map(|service| service.to_string()),
        })
    }

    /// Reserves ports that were chosen; all or none.
    fn lease(
        &mut self,
        leases: impl Iterator<Item = Reservation>,
        now: u64,
    ) -> Result<(), Failure> {
        self.change(|book| {
            for lease in leases {
                book.reservations.reserve(lease, now)?;
            }
            Ok(())
        })
    }

    /// Keeps ports that were chosen from other callers for a moment; returns how long.
    fn lend(&mut self, netns: Option<u32>, ports: &[Port], now: u64) -> Result<u64, Failure> {
        if self.handed_out.len() + ports.len() > MOST_HANDED_OUT {
            return Err(Failure::Unable(format!(
                "{MOST_HANDED_OUT} ports were handed out within the last {HANDED_OUT} seconds; wait a moment"
            )));
        }
        let until = now + HANDED_OUT;
        self.handed_out.extend(ports.iter().map(|port| ((netns, *port), until)));
        Ok(until)
    }

    /// Names an endpoint.
    pub fn register(&mut self, request: Register) -> Result<Registered, Failure> {
        let Register { service, addresses } = request;
        let endpoints: Result<Vec<Endpoint>, _> =
            addresses.iter().map(|address| address.parse()).collect();
        let registration = Registration {
            service: named(&service)?,
            endpoints: endpoints.map_err(Failure::Wrong)?,
        };
        let registered = shown(&registration);
        self.change(|book| book.registry.register(registration).map_err(Failure::from))?;
        Ok(registered)
    }

    /// Forgets a name.
    pub fn unregister(&mut self, request: &Unregister) -> Result<Registered, Failure> {
        let service = named(&request.service)?;
        let removed =
            self.change(|book| book.registry.unregister(&service).map_err(Failure::from))?;
        Ok(shown(&removed))
    }

    /// Changes the book: on disk first, so that what was answered is what a restart finds.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Book) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut book = self.book.clone();
        let answer = change(&mut book)?;
        self.store.save(&book).map_err(Failure::Unable)?;
        self.publish.send_replace(Arc::new(book.clone()));
        self.book = book;
        Ok(answer)
    }

    /// How a namespace is written down: the host's has no number, so that it outlives a boot.
    fn stored(&self, namespace: &Namespace) -> Option<u32> {
        (Some(namespace.inode) != self.host).then_some(namespace.inode)
    }

    fn choose(
        &self,
        wanted: &Wanted,
        place: &Namespace,
        protocol: Protocol,
        now: u64,
    ) -> Result<Vec<u16>, Failure> {
        let netns = self.stored(place);
        let unable = |what: String| {
            Failure::Unable(format!(
                "the agent cannot look into network namespace {}: {what}",
                place.inode
            ))
        };
        let (book, handed_out) = (&self.book, &self.handed_out);
        let chosen = namespaces::run_in(place, || -> Result<_, DiagError> {
            let taken = port_use::taken(protocol)?;
            let is_taken = |number: u16| {
                let port = Port { number, protocol };
                taken.contains(&number)
                    || handed_out.contains_key(&(netns, port))
                    || book.reservations.of(netns, port).any(|one| !one.is_over(now))
                    || !port_use::can_bind(port)
            };
            Ok(allocation::choose(wanted, &port_use::rules(), is_taken))
        });
        match chosen {
            Ok(Ok(ports)) => Ok(ports),
            Ok(Err(error)) => Err(unable(error.to_string())),
            Err(error) => Err(unable(error.to_string())),
        }
    }
}

/// The network namespace that is meant.
fn place(caller: Caller, netns: Option<u32>) -> Result<Namespace, Failure> {
    match netns {
        Some(HOST_NETNS) => namespaces::host().map_err(|error| {
            Failure::Unable(format!("the agent cannot open its own network namespace: {error}"))
        }),
        Some(inode) => namespaces::find(inode).ok_or_else(|| {
            Failure::Missing(format!(
                "there is no network namespace {inode} here that the agent could find; name one by a path, like --netns /proc/PID/ns/net"
            ))
        }),
        None if caller.pid == 0 => Err(Failure::Wrong(
            "the agent cannot tell your network namespace: your process is not in its PID namespace; say --netns host, or name one by a path"
                .to_owned(),
        )),
        None => Namespace::open(format!("/proc/{}/ns/net", caller.pid)).map_err(|error| {
            Failure::Unable(format!(
                "the agent cannot look up your network namespace: {error}; say --netns host, or name one by a path"
            ))
        }),
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn checked(number: u16, protocol: Protocol) -> Result<Port, Failure> {
    match number {
        0 => Err(Failure::Wrong("0 is no port; choose one from 1 to 65535".to_owned())),
        _ => Ok(Port { number, protocol }),
    }
}

fn until_when(text: Option<&str>, now: u64) -> Result<Option<u64>, Failure> {
    text.map(|text| moment::parse(text, now)).transpose().map_err(Failure::Wrong)
}

fn rules_in(place: &Namespace) -> Result<PortRules, Failure> {
    namespaces::run_in(place, port_use::rules).map_err(|error| {
        Failure::Unable(format!(
            "it is reserved, but the agent cannot look into network namespace {}: {error}",
            place.inode
        ))
    })
}

/// A finding if the kernel may give these ports to outgoing connections.
fn exposed(rules: &PortRules, ports: &[Port]) -> Vec<Finding> {
    let numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
    let subject: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let finding = rules.advice(&numbers).map(|advice| Finding {
        remediation: Some(advice.mend),
        ..Finding::new(
            code::RESERVED_EPHEMERAL,
            Severity::Warning,
            &subject.join(", "),
            advice.problem,
        )
    });
    finding.into_iter().collect()
}

fn named(service: &str) -> Result<FullName, Failure> {
    service.parse().map_err(Failure::Wrong)
}

fn shown(registration: &Registration) -> Registered {
    let Registration { service, endpoints } = registration;
    Registered {
        service: service.to_string(),
        addresses: endpoints.iter().map(ToString::to_string).collect(),
    }
}

// === impl DeskHandle ===

impl DeskHandle {
    /// Hands the desk a job and waits for its answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Desk) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            // Who has gone meanwhile needs no answer; the job is done all the same.
            let _ = reply.send(job(desk));
        });
        let stopping = || Failure::Unable("the agent is stopping".to_owned());
        let exchange = async {
            self.jobs.send(job).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
            Err(Failure::Unable(format!(
                "the agent did not answer within {} s; its disk may be slow, and what was asked may still be done: look with `portolan ports reservations`",
                PATIENCE.as_secs()
            )))
        })
    }

    /// What was written last.
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(directory: &std::path::Path) -> DeskHandle {
        let (store, book, warnings) = Store::open(directory);
        assert_eq!(warnings, Vec::<String>::new());
        Desk::start(store, book, None, None).expect("started")
    }

    fn me() -> Caller {
        Caller { pid: std::process::id() }
    }

    fn free(near: u16, count: usize, service: Option<&str>) -> AllocatePorts {
        AllocatePorts {
            near: Some(near),
            count: Some(count),
            protocol: api_types::Protocol::Tcp,
            service: service.map(str::to_owned),
            environment: None,
            until: None,
            enforce: false,
            netns: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_two_callers_are_given_the_same_port() {
        let directory = tempfile::tempdir().expect("a directory");
        let desk = desk(directory.path());
        let callers: Vec<_> = (0..20)
            .map(|i| {
                let desk = desk.clone();
                let service = (i % 2 == 0).then(|| format!("service-{i}"));
                tokio::spawn(async move {
                    desk.ask(move |desk| desk.free(me(), free(18_000, 3, service.as_deref()))).await
                })
            })
            .collect();
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.await.expect("no panic").expect("ports").ports);
        }
        assert_eq!(all.len(), 60);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 60);
        assert_eq!(desk.book().reservations.len(), 30);
        // The reservations are on disk; the others were only handed out.
        drop(desk);
        let reopened = loop {
            let (store, book, _) = Store::open(directory.path());
            if store.closed().is_none() {
                break book;
            }
            // The desk's thread ends by itself.
            std::thread::yield_now();
        };
        assert_eq!(reopened.reservations.len(), 30);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_that_somebody_holds_is_not_given() {
        let directory = tempfile::tempdir().expect("a directory");
        let desk = desk(directory.path());
        let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let held = holder.local_addr().expect("an address").port();
        let handed = desk.ask(move |desk| desk.free(me(), free(held, 50, None))).await;
        assert!(!handed.expect("ports").ports.contains(&held));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_written_is_not_done() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("state.json"), "{").expect("written");
        let (store, book, _) = Store::open(directory.path());
        let desk = Desk::start(store, book, None, None).expect("started");
        let failure = desk.ask(|desk| desk.free(me(), free(18_100, 1, Some("web")))).await;
        assert!(matches!(failure, Err(Failure::Unable(why)) if why.contains("state.json.broken")));
        assert!(desk.book().reservations.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn invalid_requests_are_refused_with_what_is_valid() {
        let directory = tempfile::tempdir().expect("a directory");
        let desk = desk(directory.path());
        let many = desk.ask(|desk| desk.free(me(), free(1, 0, None))).await;
        assert!(matches!(many, Err(Failure::Wrong(why)) if why.contains("ask for 1 to 256")));
        let nowhere = desk.ask(|desk| desk.free(Caller { pid: 0 }, free(1, 1, None))).await;
        assert!(matches!(nowhere, Err(Failure::Wrong(why)) if why.contains("--netns host")));
        let unknown = AllocatePorts { netns: Some(1), ..free(1, 1, None) };
        let unknown = desk.ask(move |desk| desk.free(me(), unknown)).await;
        assert!(matches!(unknown, Err(Failure::Missing(_))));
        let spaces = desk.ask(|desk| desk.free(me(), free(1, 1, Some("a b")))).await;
        assert!(matches!(spaces, Err(Failure::Wrong(why)) if why.contains("no spaces")));
    }
}
