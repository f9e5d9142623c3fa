//! The state actor: one thread that owns the agent's state and is its only writer.
//!
//! A caller sends a job and waits for the result. Jobs run in order, so no two callers get the same
//! port. Every change is written to disk first and then published to readers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot, watch};

use super::checked::{checked, named, until_when};
use super::failure::Failure;
use super::findings::{by_name, exposed};
use super::port_use;
use super::state_file::StateFile;
use api_types::{
    AllocatePorts, AllocatedPorts, Finding, HOST_NETNS, Release, Reserve, Reserved, Severity, code,
};
use linux::diag::DiagError;
use linux::namespaces::{self, Namespace};
use linux::probes::{Kind, Probes};
use model::allocation::{self, Wanted};
use model::port::{Port, Protocol};
use model::port_ranges::PortRules;
use model::reservations::{Environment, Origin, Reservation};
use model::state::State;
use server::Caller;
use server::convert::{ToApi as _, ToModel, whole_seconds};

/// Timeout of a job.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Jobs waiting at most.
const WAITING: usize = 64;
/// How long a port that was handed out without a reservation is withheld from other callers,
/// seconds.
const HANDED_OUT: u64 = 60;
/// Ports handed out and not reserved, at most.
const MOST_HANDED_OUT: usize = 4096;
/// How long a port that was handed out is reserved by default, seconds.
const LEASE: u64 = 24 * 60 * 60;

/// The owner of the state.
pub struct StateActor {
    file: StateFile,
    state: State,
    publish: watch::Sender<Arc<State>>,
    environment: Option<Environment>,
    host: Option<u32>,
    /// Why binds cannot be denied on this host, if so.
    unenforceable: Option<String>,
    /// Inspects namespaces.
    probes: Probes,
    /// (network namespace, port) → when it may be handed out again.
    handed_out: HashMap<(Option<u32>, Port), u64>,
}

/// The handle of callers and readers.
#[derive(Clone, Debug)]
pub struct StateHandle {
    jobs: mpsc::Sender<Job>,
    state: watch::Receiver<Arc<State>>,
}

type Job = Box<dyn FnOnce(&mut StateActor) + Send>;

// === impl StateActor ===

impl StateActor {
    /// Starts the thread. `state` is the content of `file` with the entries of the configuration.
    pub fn start(
        file: StateFile,
        state: State,
        environment: Option<Environment>,
        unenforceable: Option<String>,
        probes: Probes,
    ) -> io::Result<StateHandle> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
        let (publish, published) = watch::channel(Arc::new(state.clone()));
        let host = namespaces::host().ok().map(|namespace| namespace.inode);
        let handed_out = HashMap::new();
        let mut state =
            Self { file, state, publish, environment, host, unenforceable, probes, handed_out };
        // The thread ends with the last handle.
        std::thread::Builder::new().name("state".to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut state);
            }
        })?;
        Ok(StateHandle { jobs, state: published })
    }

    /// Reserves a port for a service.
    pub fn reserve(&mut self, caller: Caller, request: Reserve) -> Result<Reserved, Failure> {
        let now = now();
        let Reserve { port, protocol, service, environment, until, enforce, netns } = request;
        let port = checked(port, protocol.to_model())?;
        let namespace = self.namespace(caller, netns)?;
        let reservation = Reservation {
            port,
            netns: self.stored(&namespace),
            environment: environment.map(ToModel::to_model),
            service: named(&service)?,
            until: until_when(until.as_deref(), now)?,
            enforce,
            origin: Origin::State,
        };
        let wanted = reservation.clone();
        self.change(|state| state.reservations.reserve(wanted, now).map_err(Failure::from))?;
        let mut findings = exposed(&self.rules_in(&namespace)?, &[port]);
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
        } else if enforce {
            findings.push(by_name(port, &reservation.service));
        }
        Ok(Reserved { reservations: vec![reservation.to_api()], findings })
    }

    /// Removes a reservation.
    pub fn release(&mut self, caller: Caller, request: &Release) -> Result<Reserved, Failure> {
        let Release { port, protocol, environment, netns } = *request;
        let port = checked(port, protocol.to_model())?;
        let environment = environment.map(ToModel::to_model);
        let namespace = self.namespace(caller, netns)?;
        let netns = self.stored(&namespace);
        let released = self.change(|state| {
            let released = state.reservations.release(netns, port, environment, now());
            released.map_err(Failure::from)
        })?;
        Ok(Reserved { reservations: vec![released.to_api()], findings: Vec::new() })
    }

    /// Hands out free ports.
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
        let namespace = self.namespace(caller, netns)?;
        let netns = self.stored(&namespace);
        self.handed_out.retain(|_, until| *until > now);
        let ports = self.choose(&wanted, &namespace, protocol, now)?;
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
        self.change(|state| {
            for lease in leases {
                state.reservations.reserve(lease, now)?;
            }
            Ok(())
        })
    }

    /// Withholds the chosen ports from other callers for a minute; returns until when.
    fn lend(&mut self, netns: Option<u32>, ports: &[Port], now: u64) -> Result<u64, Failure> {
        if self.handed_out.len() + ports.len() > MOST_HANDED_OUT {
            return Err(Failure::Unable(format!(
                "{MOST_HANDED_OUT} ports were handed out within the last {HANDED_OUT} seconds; try again in a minute"
            )));
        }
        let until = now + HANDED_OUT;
        self.handed_out.extend(ports.iter().map(|port| ((netns, *port), until)));
        Ok(until)
    }

    /// Changes the state: on disk first, so that a restart finds what was confirmed.
    pub(super) fn change<T>(
        &mut self,
        change: impl FnOnce(&mut State) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut state = self.state.clone();
        let answer = change(&mut state)?;
        self.file.save(&state).map_err(Failure::Unable)?;
        self.publish.send_replace(Arc::new(state.clone()));
        self.state = state;
        Ok(answer)
    }

    /// How a namespace is stored: the host's without an inode number, so that it stays valid after a
    /// reboot.
    fn stored(&self, namespace: &Namespace) -> Option<u32> {
        (Some(namespace.inode) != self.host).then_some(namespace.inode)
    }

    fn choose(
        &self,
        wanted: &Wanted,
        namespace: &Arc<Namespace>,
        protocol: Protocol,
        now: u64,
    ) -> Result<Vec<u16>, Failure> {
        let netns = self.stored(namespace);
        let unable = |what: String| {
            Failure::Unable(format!(
                "the agent cannot read the ports of network namespace {}: {what}",
                namespace.inode
            ))
        };
        let (state, handed_out) = (self.state.clone(), self.handed_out.clone());
        let (wanted, inside) = (wanted.clone(), Arc::clone(namespace));
        let choose = move || -> Result<_, DiagError> {
            let taken = port_use::taken(protocol)?;
            let first_unprivileged = port_use::first_unprivileged();
            let is_taken = |number: u16| {
                let port = Port { number, protocol };
                taken.contains(&number)
                    || handed_out.contains_key(&(netns, port))
                    || state.reservations.of(netns, port).any(|one| !one.is_over(now))
                    || number >= first_unprivileged && !port_use::can_bind(port)
            };
            Ok(allocation::choose(&wanted, &port_use::rules(), is_taken))
        };
        let look = move || namespaces::run_in(&inside, choose)?.map_err(io::Error::other);
        self.probes.ask(Kind::FreePorts, look).wait().map_err(|error| unable(error.to_string()))
    }

    /// The network namespace of a request.
    fn namespace(&self, caller: Caller, netns: Option<u32>) -> Result<Arc<Namespace>, Failure> {
        let open = move || match netns {
            Some(HOST_NETNS) => namespaces::host().map(Some),
            Some(inode) => Ok(namespaces::find(inode)),
            None if caller.pid == 0 => Ok(None),
            None => Namespace::open(format!("/proc/{}/ns/net", caller.pid)).map(Some),
        };
        let found = self.probes.ask(Kind::FreePorts, open).wait();
        match (found, netns) {
            (Ok(Some(namespace)), _) => Ok(Arc::new(namespace)),
            (Ok(None), Some(inode)) => Err(Failure::Missing(format!(
                "the agent finds no network namespace {inode} on this host; use a path, like --netns /proc/PID/ns/net"
            ))),
            (Ok(None), None) => Err(Failure::Wrong(
                "the agent cannot find your network namespace: your process is not in its PID namespace; use --netns host, or a path"
                    .to_owned(),
            )),
            (Err(error), Some(HOST_NETNS)) => Err(Failure::Unable(format!(
                "the agent cannot open its own network namespace: {error}"
            ))),
            (Err(error), Some(inode)) => Err(Failure::Unable(format!(
                "the agent cannot look for network namespace {inode}: {error}"
            ))),
            (Err(error), None) => Err(Failure::Unable(format!(
                "the agent cannot look up your network namespace: {error}; use --netns host, or a path"
            ))),
        }
    }

    fn rules_in(&self, namespace: &Arc<Namespace>) -> Result<PortRules, Failure> {
        let inside = Arc::clone(namespace);
        let look = move || namespaces::run_in(&inside, port_use::rules);
        self.probes.ask(Kind::FreePorts, look).wait().map_err(|error| {
            Failure::Unable(format!(
                "it is reserved, but the agent cannot read the port ranges of network namespace {}: {error}",
                namespace.inode
            ))
        })
    }
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

// === impl StateHandle ===

impl StateHandle {
    /// Sends a job and waits for its result.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut StateActor) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            // The caller may be gone; the job is done all the same.
            let _ = reply.send(job(state));
        });
        let stopping = || Failure::Unable("the agent is stopping".to_owned());
        let exchange = async {
            self.jobs.send(job).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        };
        tokio::time::timeout(ANSWER_WITHIN, exchange).await.unwrap_or_else(|_| {
            Err(Failure::Unable(format!(
                "the agent did not answer within {} s; its disk may be slow, and the change may still be made: check with `portolan ports reservations`",
                ANSWER_WITHIN.as_secs()
            )))
        })
    }

    /// The last published state.
    pub fn current(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(directory: &std::path::Path) -> StateHandle {
        let (file, state, warnings) = StateFile::open(directory);
        assert_eq!(warnings, Vec::<String>::new());
        StateActor::start(file, state, None, None, Probes::inline()).expect("started")
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
        let state = state(directory.path());
        let callers: Vec<_> = (0..20)
            .map(|i| {
                let state = state.clone();
                let service = (i % 2 == 0).then(|| format!("service-{i}"));
                tokio::spawn(async move {
                    state
                        .ask(move |state| state.free(me(), free(18_000, 3, service.as_deref())))
                        .await
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
        assert_eq!(state.current().reservations.len(), 30);
        // The reservations are on disk; the other ports were only handed out.
        drop(state);
        let reopened = loop {
            let (file, state, _) = StateFile::open(directory.path());
            if file.closed().is_none() {
                break state;
            }
            // The thread of the actor ends by itself.
            std::thread::yield_now();
        };
        assert_eq!(reopened.reservations.len(), 30);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_in_use_is_not_handed_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = state(directory.path());
        let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let held = holder.local_addr().expect("an address").port();
        let handed = state.ask(move |state| state.free(me(), free(held, 50, None))).await;
        assert!(!handed.expect("ports").ports.contains(&held));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_written_is_not_done() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("state.json"), "{").expect("written");
        let (file, state, _) = StateFile::open(directory.path());
        let state = StateActor::start(file, state, None, None, Probes::inline()).expect("started");
        let failure = state.ask(|state| state.free(me(), free(18_100, 1, Some("web")))).await;
        assert!(matches!(failure, Err(Failure::Unable(why)) if why.contains("state.json.broken")));
        assert!(state.current().reservations.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn invalid_requests_are_refused_with_what_is_valid() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = state(directory.path());
        let many = state.ask(|state| state.free(me(), free(1, 0, None))).await;
        assert!(matches!(many, Err(Failure::Wrong(why)) if why.contains("ask for 1 to 256")));
        let nowhere = state.ask(|state| state.free(Caller { pid: 0 }, free(1, 1, None))).await;
        assert!(matches!(nowhere, Err(Failure::Wrong(why)) if why.contains("--netns host")));
        let unknown = AllocatePorts { netns: Some(1), ..free(1, 1, None) };
        let unknown = state.ask(move |state| state.free(me(), unknown)).await;
        assert!(matches!(unknown, Err(Failure::Missing(_))));
        let spaces = state.ask(|state| state.free(me(), free(1, 1, Some("a b")))).await;
        assert!(matches!(spaces, Err(Failure::Wrong(why)) if why.contains("no spaces")));
    }
}
