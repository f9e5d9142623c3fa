//! What can go wrong between a command and an agent, with the fix.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no answer. Each message is one sentence that says what happened and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be one of an agent.
    #[error("invalid URL \"{url}\": {why}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A file that was named cannot be used.
    #[error("{flag} {}: {why}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Flags that only make sense together.
    #[error("{0}")]
    Incomplete(&'static str),
    /// Nothing listens there.
    #[error("no agent answers at {at}: start it with `portolan agent`, or name another with --url")]
    NoAgent {
        /// The URL.
        at: String,
    },
    /// The host cannot be reached.
    #[error("cannot reach {at}: {why}")]
    Unreachable {
        /// The URL or socket.
        at: String,
        /// What the system says.
        why: io::Error,
    },
    /// Nobody listens on the socket.
    #[error(
        "no agent listens on {}: start it with `portolan agent`, or name its socket with --socket",
        path.display()
    )]
    NoSocket {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error(
        "permission denied on {}: run this as root, or start the agent with --control-group and join that group",
        path.display()
    )]
    SocketForbidden {
        /// The socket.
        path: PathBuf,
    },
    /// No answer in time.
    #[error(
        "{at} does not answer within {seconds} s: is it overloaded, or does a firewall drop the packets?"
    )]
    Timeout {
        /// The URL or socket.
        at: String,
        /// How long it was given.
        seconds: u64,
    },
    /// Status 401, and no password was sent.
    #[error("{at} wants a user and a password (401): give them with --user and --password-file")]
    PasswordNeeded {
        /// The URL.
        at: String,
    },
    /// Status 401, although a password was sent.
    #[error("{at} does not accept this user and password (401): check --user and --password-file")]
    WrongPassword {
        /// The URL.
        at: String,
    },
    /// The server's certificate cannot be trusted.
    #[error("the certificate of {at} cannot be trusted: {problem}")]
    Certificate {
        /// The URL.
        at: String,
        /// Why not, and what to do.
        problem: CertificateProblem,
    },
    /// The server wants a client certificate.
    #[error("{at} wants a client certificate: give one with --cert and --key")]
    CertificateNeeded {
        /// The URL.
        at: String,
    },
    /// The server does not take the client certificate.
    #[error("{at} does not accept this client certificate ({why}): check --cert and --key")]
    CertificateRefused {
        /// The URL.
        at: String,
        /// The TLS alert.
        why: String,
    },
    /// TLS failed in another way.
    #[error("TLS with {at} failed: {why}")]
    Tls {
        /// The URL.
        at: String,
        /// What rustls says.
        why: String,
    },
    /// `http://` was asked of a server that speaks TLS.
    #[error(
        "{at} speaks TLS: use https:// in --url, and --ca-file unless its certificate is publicly trusted"
    )]
    IsTls {
        /// The URL.
        at: String,
    },
    /// `https://` was asked of a server that does not speak TLS.
    #[error("{at} does not speak TLS: use http:// in --url")]
    IsNotTls {
        /// The URL.
        at: String,
    },
    /// It is not an HTTP server.
    #[error("{at} is not an HTTP server ({why}): check the address")]
    NotHttp {
        /// The URL or socket.
        at: String,
        /// What is odd about its answer.
        why: String,
    },
    /// It is another HTTP server.
    #[error(
        "{at} is not a Portolan agent (it answered with status {status}, but not in its JSON): check the address"
    )]
    NotPortolan {
        /// The URL or socket.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// The agent refuses; these are its words.
    #[error("{said}")]
    Refused {
        /// What it says.
        said: String,
    },
    /// An answer that this version does not understand.
    #[error(
        "cannot read the agent's answer ({why}): is the agent of another version than this command?"
    )]
    Version {
        /// What is odd about it.
        why: String,
    },
}

/// Why a certificate cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// No known authority has issued it.
    UnknownIssuer,
    /// It is for other hosts: these.
    OtherName(Vec<String>),
    /// It is no longer valid, or not yet.
    Expired,
    /// Another reason.
    Other(String),
}

// === impl CertificateProblem ===

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str(
                "no known authority has issued it; name the certificate of its authority with --ca-file",
            ),
            Self::OtherName(names) if names.is_empty() => f.write_str(
                "it names no host (subjectAltName is missing); issue it for the host's name, or name this very certificate with --ca-file",
            ),
            Self::OtherName(names) => {
                write!(f, "it is for {}; use a name of these in --url", names.join(", "))
            }
            Self::Expired => f.write_str(
                "it has expired or is not valid yet; renew it, and check the clocks of both hosts",
            ),
            Self::Other(why) => f.write_str(why),
        }
    }
}
