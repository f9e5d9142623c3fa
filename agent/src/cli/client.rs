//! Asking a running agent over HTTP.
//!
//! One GET a run, mostly over loopback: HTTP/1.0 on a plain socket does it, and a library for it
//! would be the largest dependency of the command line.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use serde::de::DeserializeOwned;

use super::Output;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The agent itself gives up after five seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// More than any agent has to say; a wrong address may be an endless stream.
const MOST_BYTES: u64 = 256 << 20;

/// Which agent to ask, and how to show its answer.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Where the agent listens.
    #[arg(long, env = "PORTOLAN_URL", default_value = "http://127.0.0.1:10062")]
    url: String,
    /// How to show the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

// === impl Target ===

impl Target {
    /// The JSON at `path`.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<String> {
        let (host, prefix) = split_url(&self.url)?;
        let raw = exchange(host, &format!("{prefix}{path}")).with_context(|| {
            format!(
                "no agent answers at {}; start one with `portolan agent`, or name its address with --url",
                self.url
            )
        })?;
        let (status, body) = split_answer(&raw).ok_or_else(|| {
            anyhow!("what answers at {} is no HTTP server; check --url", self.url)
        })?;
        if status != 200 {
            let said = serde_json::from_str(body).map_or_else(
                |_| "it does not seem to be Portolan; check --url".to_owned(),
                |api_types::Error { error }| error,
            );
            bail!("{} answered with status {status}: {said}", self.url);
        }
        Ok(body.to_owned())
    }

    /// An answer of [`text`](Self::text), read.
    pub(super) fn read<T: DeserializeOwned>(&self, body: &str) -> anyhow::Result<T> {
        serde_json::from_str(body).map_err(|error| {
            anyhow!(
                "cannot read the answer of {} ({error}); is the agent of another version than this command?",
                self.url
            )
        })
    }
}

/// Host with port, and the path before ours.
fn split_url(url: &str) -> anyhow::Result<(&str, &str)> {
    ensure!(
        !url.starts_with("https://"),
        "{url}: https is not spoken by this command; use the agent's http address"
    );
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    ensure!(
        host.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
        "{url} is no address of an agent; write it like http://127.0.0.1:10062"
    );
    Ok((host, path.trim_end_matches('/')))
}

fn exchange(host: &str, path: &str) -> anyhow::Result<String> {
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
    let mut refused = anyhow!("the name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
                // In one piece: a server may answer and close after the first.
                stream.write_all(request.as_bytes())?;
                let mut answer = Vec::new();
                stream.take(MOST_BYTES).read_to_end(&mut answer)?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            Err(error) => refused = error.into(),
        }
    }
    Err(refused)
}

/// Status and body.
pub(super) fn split_answer(raw: &str) -> Option<(u16, &str)> {
    let (head, body) = raw.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn target(url: String) -> Target {
        Target { url, output: Output::Json }
    }

    /// A server that says `answer` once.
    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).expect("a request");
            stream.write_all(answer.as_bytes()).expect("answered");
        });
        format!("http://{address}/")
    }

    #[test]
    fn urls_are_split_or_refused_with_the_mend() {
        let check = |url, expected: Result<(&str, &str), &str>| {
            let split = split_url(url).map_err(|error| error.to_string());
            assert_eq!(split.as_ref().map_err(String::as_str).copied(), expected, "{url}");
        };
        check("http://127.0.0.1:10062", Ok(("127.0.0.1:10062", "")));
        check("http://[::1]:10062/", Ok(("[::1]:10062", "")));
        check("host:1/behind/a/proxy/", Ok(("host:1", "/behind/a/proxy")));
        check(
            "http://host",
            Err("http://host is no address of an agent; write it like http://127.0.0.1:10062"),
        );
        check(
            "https://host:1",
            Err(
                "https://host:1: https is not spoken by this command; use the agent's http address",
            ),
        );
    }

    #[test]
    fn an_answer_is_its_body() {
        let url = serve("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":1}");
        assert_eq!(target(url).text("/x").expect("an answer"), "{\"a\":1}");
    }

    #[test]
    fn a_refusal_is_told_in_the_agents_words() {
        let url =
            serve("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"the agent is stopping\"}");
        let error = target(url.clone()).text("/x").expect_err("refused").to_string();
        assert_eq!(error, format!("{url} answered with status 503: the agent is stopping"));
    }

    #[test]
    fn another_server_is_told_from_an_agent() {
        let url = serve("HTTP/1.1 404 Not Found\r\n\r\n<html>nginx</html>");
        let error = target(url).text("/x").expect_err("refused").to_string();
        assert!(error.ends_with("it does not seem to be Portolan; check --url"), "{error}");
        let url = serve("220 mail.example ESMTP\r\n");
        let error = target(url).text("/x").expect_err("refused").to_string();
        assert!(error.contains("is no HTTP server"), "{error}");
    }

    #[test]
    fn without_an_agent_the_mend_is_told() {
        // Bound and dropped: nobody listens there.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("bound");
        let error = target(format!("http://{address}")).text("/x").expect_err("refused");
        assert_eq!(
            format!("{error:#}"),
            format!(
                "no agent answers at http://{address}; start one with `portolan agent`, or name its address with --url: Connection refused (os error 111)"
            )
        );
    }
}
