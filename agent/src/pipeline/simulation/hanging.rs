//! Lookups that never end: they delay neither scrapes nor the end of the agent.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use agent_common::ledger::CONNECTION;
use tokio::sync::watch;

use super::super::host::{HeldBy, Holders, Host, Socket};
use super::super::walks::Cgroup;
use super::agent::Bench;
use super::fake::{Fake, World};
use linux::addresses::Held;
use linux::conditions::Conditions;
use linux::current_holders::Bound;
use linux::existing::Survey;
use linux::inspection::Inspection;
use linux::probes::{Kind, Pending, Probes};
use model::probes::ProbesView;

/// A host on which a lookup in a namespace hangs.
struct Hanging {
    fake: Fake,
    probes: Probes,
    /// Opening it waits for a writer.
    fifo: PathBuf,
}

impl Host for Hanging {
    fn refusal(&self, _netns: u32, _tgid: u32, _local: u16, _remote: SocketAddr) -> Pending<u8> {
        let fifo = self.fifo.clone();
        self.probes.ask(Kind::ConnectErrno, move || File::open(fifo).map(|_| 0))
    }

    fn addresses(&self, known: &[Held], mounts: Option<u64>) -> Pending<Option<Survey>> {
        self.fake.addresses(known, mounts)
    }

    fn listen_drops(&self, netns: u32, tgid: u32) -> Pending<Option<u64>> {
        self.fake.listen_drops(netns, tgid)
    }

    fn sockets(&self, netns: u32, processes: Vec<u32>) -> Pending<Inspection> {
        self.fake.sockets(netns, processes)
    }

    fn holder(&self, bound: Bound, netns: u32) -> Pending<HeldBy> {
        self.fake.holder(bound, netns)
    }

    fn holders(&self, bound: Vec<Socket>) -> Pending<Holders> {
        self.fake.holders(bound)
    }

    fn proxy_arguments(&self, tgid: u32) -> Pending<Vec<u8>> {
        self.fake.proxy_arguments(tgid)
    }

    fn conditions(&self, trusted: Vec<u32>) -> Pending<Conditions> {
        self.fake.conditions(trusted)
    }

    fn cgroup(&self, id: u64) -> Pending<Option<Cgroup>> {
        self.fake.cgroup(id)
    }

    fn probes(&self) -> ProbesView {
        Host::probes(&self.probes)
    }
}

#[tokio::test]
async fn a_look_that_hangs_delays_neither_scrapes_nor_the_end() {
    const SOON: Duration = Duration::from_secs(1);
    let directory = tempfile::tempdir().expect("a directory");
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let probes = Probes::start().expect("threads");
    let fake = Fake::new(World::new(8, 8));
    fake.world().connect_unsent(0, 2);
    let host = Hanging { fake: fake.clone(), probes: probes.clone(), fifo: fifo.clone() };
    let core = Bench::new().core(&fake, Box::new(host));
    let (source, requests) = telemetry::source::channel();
    let (stop, stopping) = watch::channel(());
    let hour = Duration::from_hours(1);
    let running = thread::spawn(move || core.run(requests, stopping, hour, &probes, None));
    // It counts once no lookup is pending any more.
    let mut is_given_up = false;
    while !is_given_up || source.stuck() == 0 {
        let began = Instant::now();
        let snapshot = source.fresh().await.expect("a snapshot");
        assert!(began.elapsed() < SOON, "a scrape took {:?}", began.elapsed());
        is_given_up = snapshot.ledger.exported[CONNECTION] == 1;
    }
    assert_eq!(source.stuck(), 1);
    let began = Instant::now();
    drop(stop);
    running.join().expect("no panic").expect("no error");
    assert!(began.elapsed() < SOON, "the end took {:?}", began.elapsed());
    // Let the thread go.
    drop(File::options().read(true).write(true).open(fifo));
}
