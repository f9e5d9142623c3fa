//! Binds at full speed: sockets that bind a taken port, or bind a free one and close. There is no
//! connection and no packet; the cost is the bind alone.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::agent::Agent;
use crate::cpu::process_seconds;
use crate::load::{Load, Server};

/// The port that is taken; each thread has a free one after it.
const TAKEN: u16 = 7000;
/// Binds between two reads of the clock.
const BATCH: u64 = 64;
/// How long an idle host is measured.
const IDLE: Duration = Duration::from_secs(10);
/// Hooks that run for binds and for nothing else.
const HOOKS: [&str; 6] =
    ["bind4", "bind6", "post_bind4", "post_bind6", "inet_bind_sk", "inet6_bind_sk"];

/// The cost of bind hooks on a host without binds.
pub struct Idle {
    /// Runs of their programs.
    pub runs: u64,
    /// Runs of all programs per second, the agent's own questions among them.
    pub all_per_second: f64,
    /// Thousandths of a processor that the daemon used.
    pub daemon_millicores: f64,
}

/// Binds in the calling thread's network namespace for `seconds`. Returns the count, and the result of
/// `look` while the threads were idle and had not ended: the CPU time of an ended thread is in no
/// file. Every bind must end as `load` expects.
pub fn run<T>(load: Load, seconds: u32, look: impl FnOnce() -> T) -> Result<(u64, T)> {
    let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, TAKEN)).context("taking a port")?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (done, seen) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    let until = Instant::now() + Duration::from_secs(seconds.into());
    thread::scope(|scope| {
        let binders: Vec<_> = (0..threads)
            .map(|number| {
                let (port, expected) = match load {
                    Load::FailedBinds => (TAKEN, Some(libc::EADDRINUSE)),
                    _ => (TAKEN + 1 + number as u16, None),
                };
                let (done, seen) = (&done, &seen);
                scope.spawn(move || {
                    let result = bind_until(until, port, expected);
                    done.wait();
                    seen.wait();
                    result
                })
            })
            .collect();
        done.wait();
        let looked = look();
        seen.wait();
        let join = |binder: thread::ScopedJoinHandle<'_, Result<u64>>| {
            binder.join().unwrap_or_else(|_| bail!("a thread of the load panicked"))
        };
        let binds: Result<u64> = binders.into_iter().map(join).sum();
        Ok((binds?, looked))
    })
}

/// Measures a host without binds.
pub fn idle(server: &Server, binary: &Path, directory: &Path) -> Result<Idle> {
    // Warm, and nothing pending.
    let agent = Agent::start(binary, &["--run-stats"], directory)?;
    server.within(|| run(Load::FailedBinds, 1, || ()).map(drop))?;
    thread::sleep(Duration::from_secs(5));
    let (runs, seconds) = (agent.runs()?, process_seconds(agent.process())?);
    thread::sleep(IDLE);
    let (later, used) = (agent.runs()?, process_seconds(agent.process())? - seconds);
    agent.stop()?;
    let sum = |runs: &[(String, crate::bpf::Runs)], only: &[&str]| -> u64 {
        let wanted =
            runs.iter().filter(|(name, _)| only.is_empty() || only.contains(&name.as_str()));
        wanted.map(|(_, runs)| runs.count).sum()
    };
    let grown = |only: &[&str]| sum(&later, only).saturating_sub(sum(&runs, only));
    Ok(Idle {
        runs: grown(&HOOKS),
        all_per_second: grown(&[]) as f64 / IDLE.as_secs_f64(),
        daemon_millicores: used / IDLE.as_secs_f64() * 1e3,
    })
}

fn bind_until(until: Instant, port: u16, expected: Option<i32>) -> Result<u64> {
    let mut binds = 0;
    while Instant::now() < until {
        for _ in 0..BATCH {
            let error = bind(port)?;
            if error != expected {
                bail!("binding to port {port} ended with {error:?}, expected {expected:?}");
            }
        }
        binds += BATCH;
    }
    Ok(binds)
}

/// A socket, a bind, a close: the errno of the bind.
fn bind(port: u16) -> Result<Option<i32>> {
    // SAFETY: socket touches no memory.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("making a socket");
    }
    // SAFETY: the descriptor is new and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zeros are a valid address.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: pointer and size are those of `address`, which bind only reads.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    Ok((result != 0).then(|| io::Error::last_os_error().raw_os_error().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_returns_its_errno() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert_eq!(bind(port).unwrap(), Some(libc::EADDRINUSE));
        drop(held);
        assert_eq!(bind(port).unwrap(), None);
        let soon = Instant::now() + Duration::from_millis(1);
        assert!(bind_until(soon, port, Some(libc::EADDRINUSE)).is_err());
        assert!(bind_until(soon + Duration::from_millis(5), port, None).is_ok());
    }
}
