//! Steady load: every request on a connection of its own, and every failure kept.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Stage;
use crate::facts::patience;

const PATIENCE: Duration = Duration::from_secs(5);
/// Between two requests of a sender.
const PAUSE: Duration = Duration::from_millis(2);
/// Threads that send, each one request at a time.
pub const SENDERS: usize = 2;

/// Requests that are sent until it is stopped.
pub struct Load {
    ends: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    senders: Vec<JoinHandle<()>>,
}

// === impl Load ===

impl Load {
    /// Begins, and returns when the first requests were answered.
    pub fn start(stage: &Stage) -> Self {
        let address = SocketAddr::from((stage.pair.client.v4, stage.port));
        let load = Self {
            ends: Arc::default(),
            sent: Arc::default(),
            failures: Arc::default(),
            senders: Vec::new(),
        };
        let sender = || {
            let (ends, sent) = (load.ends.clone(), load.sent.clone());
            let failures = load.failures.clone();
            let run = move || {
                while !ends.load(Ordering::Relaxed) {
                    if let Err(why) = ask(address) {
                        failures.lock().expect("no panic").push(why.to_string());
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            };
            // A thread belongs to the namespace that it was started in.
            stage.pair.client.within(move || thread::spawn(run))
        };
        let senders = (0..SENDERS).map(|_| sender()).collect();
        let load = Self { senders, ..load };
        load.more(50);
        load
    }

    /// Waits until so many more have been sent.
    pub fn more(&self, count: u64) {
        let (began, from) = (Instant::now(), self.sent.load(Ordering::Relaxed));
        while self.sent.load(Ordering::Relaxed) < from + count {
            assert!(began.elapsed() < patience(PATIENCE), "the load has stopped");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it: how many were sent, and what failed.
    pub fn stop(self) -> (u64, Vec<String>) {
        let Self { ends, sent, failures, senders } = self;
        ends.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().expect("a sender");
        }
        let failures = std::mem::take(&mut *failures.lock().expect("no panic"));
        (sent.load(Ordering::Relaxed), failures)
    }
}

/// Waits until a request is answered: Traefik listens before it has read what it serves.
pub fn answers(stage: &Stage) {
    let (began, address) = (Instant::now(), SocketAddr::from((stage.pair.client.v4, stage.port)));
    while let Err(why) = stage.pair.client.within(|| ask(address)) {
        assert!(began.elapsed() < patience(PATIENCE), "no answer: {why}");
        thread::sleep(PAUSE);
    }
}

fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    Err(std::io::Error::other(format!("not 200: {answer:?}")))
}
