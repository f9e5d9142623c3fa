//! Connects, several at a time, each with its duration or its error.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::super::evidence::Connects;

/// Long enough for the second SYN, which the kernel sends after a second.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Between two connects.
const GAP: Duration = Duration::from_millis(5);

/// Connects `count` times and closes each connection at once.
pub(super) fn all(target: SocketAddr, count: u32) -> Connects {
    let mut connects =
        Connects { target: Some(target), attempts: u64::from(count), ..Connects::default() };
    // Threads are in the network namespace of the thread that starts them.
    let results: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .map(|index| {
                if index > 0 {
                    thread::sleep(GAP);
                }
                thread::Builder::new()
                    .name("probe".into())
                    .spawn_scoped(scope, move || one(target, PATIENCE))
            })
            .collect();
        let joined = running.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(error),
        });
        joined.collect()
    });
    for result in results {
        match result {
            Ok(taken) => connects.times.push(taken.as_secs_f64()),
            Err(error) => {
                *connects.failed.entry(word(&error)).or_default() += 1;
                connects.error = Some(words(&error));
            }
        }
    }
    connects.times.sort_by(f64::total_cmp);
    connects
}

/// Connects once, and closes the connection; how long it took.
pub(super) fn one(target: SocketAddr, patience: Duration) -> io::Result<Duration> {
    let began = Instant::now();
    TcpStream::connect_timeout(&target, patience)?;
    Ok(began.elapsed())
}

/// Why a connect failed, in a word if there is one.
pub(super) fn said(error: &io::Error) -> String {
    match word(error) {
        "other" => error.to_string(),
        word => word.to_owned(),
    }
}

/// The result of a failed connect, as the API calls it.
fn word(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::PermissionDenied => "denied",
        io::ErrorKind::AddrNotAvailable => "ports_exhausted",
        _ => "other",
    }
}

fn words(error: &io::Error) -> String {
    if error.raw_os_error().is_none() && error.kind() == io::ErrorKind::TimedOut {
        return format!("no answer within {} s", PATIENCE.as_secs_f64());
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connects_are_timed_and_failures_have_the_words_of_the_api() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        let connects = all(target, 5);
        assert_eq!((connects.ok(), connects.after_a_second()), (5, 0), "{connects:?}");
        drop(listener);
        let connects = all(target, 2);
        assert_eq!((connects.ok(), connects.failed(&["refused"])), (0, 2), "{connects:?}");
        assert!(connects.error.is_some_and(|error| error.contains("refused")));
        for (errno, expected) in [
            (111, "refused"),
            (110, "timeout"),
            (113, "unreachable"),
            (101, "unreachable"),
            (1, "denied"),
            (13, "denied"),
            (99, "ports_exhausted"),
            (22, "other"),
        ] {
            assert_eq!(word(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }
}
