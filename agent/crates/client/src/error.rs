//! What can go wrong between a command and an agent, with the fix.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a request failed. Each message is one sentence with the fault and its fix.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be one of an agent.
    #[error("invalid URL \"{url}\": {why}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong and what is expected.
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
        /// The system's error.
        why: io::Error,
    },
    /// No process listens on the socket.
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
    /// Timeout.
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
        /// The reason and the fix.
        problem: CertificateProblem,
    },
    /// The server requires a client certificate.
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
        /// The error of rustls.
        why: String,
    },
    /// `http://` was used for a server with TLS.
    #[error(
        "{at} speaks TLS: use https:// in --url, and --ca-file unless its certificate is publicly trusted"
    )]
    IsTls {
        /// The URL.
        at: String,
    },
    /// `https://` was used for a server without TLS.
    #[error("{at} does not speak TLS: use http:// in --url")]
    IsNotTls {
        /// The URL.
        at: String,
    },
    /// Not an HTTP server.
    #[error("{at} is not an HTTP server ({why}): check the address")]
    NotHttp {
        /// The URL or socket.
        at: String,
        /// The unexpected part of its response.
        why: String,
    },
    /// Another HTTP server.
    #[error(
        "{at} is not a Portolan agent (it answered with status {status}, but not in its JSON): check the address"
    )]
    NotPortolan {
        /// The URL or socket.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// A server other than an agent, such as Prometheus, cannot be asked or has no answer; the message says
    /// which and why.
    #[error("{said}")]
    Foreign {
        /// The message.
        said: String,
    },
    /// The agent refused; the message is the agent's.
    #[error("{said}")]
    Refused {
        /// The agent's message.
        said: String,
    },
    /// A response that this version cannot parse.
    #[error(
        "cannot read the agent's answer ({why}): is the agent of another version than this command?"
    )]
    Version {
        /// The unexpected part.
        why: String,
    },
}

/// Whose fault an error is, for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Flags or files that were named cannot be used.
    Usage,
    /// No agent was reached, it does not let us in, or its answer cannot be read.
    Unreached,
    /// An agent answered, and refused.
    Refused,
}

/// Why a certificate cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// Not issued by a trusted authority.
    UnknownIssuer,
    /// Issued for other hosts: these.
    OtherName(Vec<String>),
    /// Expired, or not valid yet.
    Expired,
    /// Another reason.
    Other(String),
}

// === impl Error ===

impl Error {
    /// Whose fault it is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Url { .. } | Self::File { .. } | Self::Incomplete(_) => Class::Usage,
            Self::Refused { .. } => Class::Refused,
            _ => Class::Unreached,
        }
    }
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
