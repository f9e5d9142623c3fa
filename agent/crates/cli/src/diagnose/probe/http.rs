//! One HTTP request and the status of its answer.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::evidence::{Http, Silence};
use super::deadline::Bounded;
use super::{PATIENCE, connect};

/// Longer status lines are not HTTP.
const LONGEST_LINE: usize = 1024;

/// Requests `path` on a connection of its own.
pub(super) fn get(target: SocketAddr, host: &str, path: &str) -> Http {
    let began = Instant::now();
    match Bounded::connect(target, PATIENCE) {
        Ok(mut stream) => get_over(&mut stream, host, path),
        Err(error) => {
            let result = Err(silence(&error));
            Http { path: path.to_owned(), seconds: began.elapsed().as_secs_f64(), result }
        }
    }
}

/// The status with which `path` is answered within `patience`.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn answer(target: SocketAddr, path: &str, patience: Duration) -> Result<u16, String> {
    let mut stream = Bounded::connect(target, patience).map_err(|error| connect::said(&error))?;
    let answer = get_over(&mut stream, &target.to_string(), path);
    answer.result.map_err(|silence| match silence {
        Silence::Timeout => "timeout".to_owned(),
        Silence::Closed => "closed without an answer".to_owned(),
        Silence::Refused(said) | Silence::Other(said) => format!("no HTTP status: {said}"),
    })
}

/// Requests `path` on this connection.
pub(super) fn get_over(stream: &mut (impl Read + Write), host: &str, path: &str) -> Http {
    let began = Instant::now();
    let result = status(stream, host, path).unwrap_or_else(|error| Err(silence(&error)));
    Http { path: path.to_owned(), seconds: began.elapsed().as_secs_f64(), result }
}

fn status(
    stream: &mut (impl Read + Write),
    host: &str,
    path: &str,
) -> io::Result<Result<u16, Silence>> {
    let agent = concat!("portolan/", env!("CARGO_PKG_VERSION"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut line = Vec::new();
    let mut buffer = [0; LONGEST_LINE];
    while !line.contains(&b'\n') && line.len() < LONGEST_LINE {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        line.extend(buffer.iter().take(length));
    }
    Ok(parse(&line))
}

/// The status of `HTTP/1.1 200 OK`.
fn parse(bytes: &[u8]) -> Result<u16, Silence> {
    if bytes.is_empty() {
        return Err(Silence::Closed);
    }
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let status = text.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    status
        .ok_or_else(|| Silence::Other(text.chars().filter(|c| !c.is_control()).take(60).collect()))
}

/// What an error of the connection means.
pub(super) fn silence(error: &io::Error) -> Silence {
    match error.kind() {
        io::ErrorKind::TimedOut => Silence::Timeout,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Silence::Closed,
        _ => Silence::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        let check = |bytes: &[u8], expected| assert_eq!(parse(bytes), expected);
        check(b"HTTP/1.1 200 OK\r\nServer: x\r\n", Ok(200));
        check(b"HTTP/1.0 503", Ok(503));
        check(b"", Err(Silence::Closed));
        check(b"SSH-2.0-OpenSSH\r\n", Err(Silence::Other("SSH-2.0-OpenSSH".to_owned())));
        check(b"HTTP/1.1 many\r\n", Err(Silence::Other("HTTP/1.1 many".to_owned())));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
