//! Asking a running agent on this host to change something, through its socket.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Serialize;

use super::Output;
use super::client::split_answer;
use api_types::HOST_NETNS;

/// The agent itself gives up after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(15);

/// More than any answer is long.
const MOST_BYTES: u64 = 16 << 20;

/// Which agent to ask, and how to show its answer.
#[derive(Debug, Args)]
pub(super) struct Control {
    /// The agent's socket: control.sock in its run directory.
    #[arg(long, env = "PORTOLAN_SOCKET", default_value = "/run/portolan/control.sock")]
    socket: PathBuf,
    /// How to show the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

// === impl Control ===

impl Control {
    /// Sends `request` and returns the answer's JSON.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        request: &impl Serialize,
    ) -> anyhow::Result<String> {
        let body = serde_json::to_string(request).context("writing the request")?;
        let raw =
            exchange(&self.socket, method, path, &body).map_err(|error| self.explain(&error))?;
        let (status, body) = split_answer(&raw).ok_or_else(|| {
            anyhow!("what answers at {} is no agent; check --socket", self.socket.display())
        })?;
        if status != 200 {
            let said = serde_json::from_str(body).map_or_else(
                |_| format!("the agent answered with status {status}; is it of another version than this command?"),
                |api_types::Error { error }| error,
            );
            bail!("{said}");
        }
        Ok(body.to_owned())
    }

    fn explain(&self, error: &io::Error) -> anyhow::Error {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => anyhow!(
                "you may not use {socket}; run this as root, or let your group with --control-group of the agent"
            ),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow!(
                "no agent listens at {socket}; start one with `portolan agent`, or name its socket with --socket"
            ),
            _ => anyhow!("asking the agent at {socket}: {error}"),
        }
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A network namespace by its inode: `host` (which the agent knows), a name as `ip netns` knows it,
/// or a path.
pub(super) fn netns(text: &str) -> Result<u32, String> {
    let path = match text {
        "host" => return Ok(HOST_NETNS),
        path if path.contains('/') => path.to_owned(),
        name => format!("/run/netns/{name}"),
    };
    match fs::metadata(&path) {
        // Inodes of namespaces have 32 bits.
        Ok(file) => Ok(file.ino() as u32),
        Err(error) => Err(format!(
            "cannot look at {path}: {error}; write host, a name as `ip netns` lists it, or a path like /proc/PID/ns/net"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn control(socket: PathBuf) -> Control {
        Control { socket, output: Output::Json }
    }

    /// A socket that answers once.
    fn serve(answer: &'static str) -> (tempfile::TempDir, Control) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).expect("a request");
            stream.write_all(answer.as_bytes()).expect("answered");
        });
        (directory, control(path))
    }

    #[test]
    fn a_refusal_is_told_in_the_agents_words_and_nothing_else() {
        let (_directory, control) =
            serve("HTTP/1.1 409 Conflict\r\n\r\n{\"error\":\"5432/tcp is reserved for postgres\"}");
        let error = control.ask("POST", "/x", &()).expect_err("refused").to_string();
        assert_eq!(error, "5432/tcp is reserved for postgres");
    }

    #[test]
    fn without_an_agent_the_mend_is_told() {
        let error = control("/nowhere/control.sock".into()).ask("POST", "/x", &());
        let error = error.expect_err("nobody there").to_string();
        assert_eq!(
            error,
            "no agent listens at /nowhere/control.sock; start one with `portolan agent`, or name its socket with --socket"
        );
    }

    #[test]
    fn a_namespace_is_named_by_path_or_refused_with_the_mend() {
        let own = netns("/proc/self/ns/net").expect("our own");
        assert_eq!(u64::from(own), fs::metadata("/proc/self/ns/net").expect("ours").ino());
        let error = netns("no-such-namespace").expect_err("refused");
        assert!(error.starts_with("cannot look at /run/netns/no-such-namespace"), "{error}");
    }
}
