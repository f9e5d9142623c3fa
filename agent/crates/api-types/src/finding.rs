//! Findings: everything that needs attention has this one shape, wherever it is shown.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;

/// Something that needs attention: the problem, its subject, the evidence, and the remediation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The kind of finding. Two letters give the area (PC connectivity, PP performance, PO ports,
    /// PN network, PS security, PD DNS, PA the agent itself), three digits the kind.
    #[schema(pattern = "^P[CPONSDA][0-9]{3}$", example = "PO301")]
    pub code: String,
    /// Severity.
    pub severity: Severity,
    /// The problem in one sentence that names everything involved.
    pub title: String,
    /// The service, port or feature concerned.
    pub subject: String,
    /// The facts it rests on, by name.
    pub evidence: BTreeMap<String, Evidence>,
    /// The code of the finding that it follows from, if it does.
    pub caused_by: Option<String>,
    /// How to fix it, if that is known.
    pub remediation: Option<String>,
    /// Where to read more: the URL of a page and a heading there.
    #[schema(example = "https://portolan.example/docs/runbooks/PortolanPortConflict.md#fix")]
    pub docs: Option<String>,
    /// Since when, if known.
    pub since: Option<Timestamp>,
}

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Info,
    /// It may become an error.
    Warning,
    /// Something fails.
    Error,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Evidence {
    /// A count or a number.
    Number(u64),
    /// Anything else.
    Text(String),
}

/// A code and its meaning, independent of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code.
    pub code: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
    /// Where to read more: a page of the documentation and a heading there.
    pub docs: &'static str,
}

/// The codes, by meaning.
pub mod code {
    /// A server closes idle connections that its client still uses.
    pub const KEEPALIVE_MISMATCH: &str = "PP231";
    /// A bind or listen failed because another socket has the port.
    pub const PORT_IN_USE: &str = "PO301";
    /// A bind failed because the port needs a privilege.
    pub const PORT_PRIVILEGED: &str = "PO302";
    /// A bind failed because the host does not have the address.
    pub const ADDRESS_NOT_LOCAL: &str = "PO303";
    /// A program bound a socket twice.
    pub const ALREADY_BOUND: &str = "PO304";
    /// No ephemeral port was free.
    pub const EPHEMERAL_EXHAUSTED: &str = "PO305";
    /// A policy denied the bind.
    pub const BIND_DENIED: &str = "PO306";
    /// A bind or listen failed for another reason.
    pub const BIND_FAILED: &str = "PO307";
    /// Another service has, or tried to get, a reserved port.
    pub const RESERVATION_BREACH: &str = "PO310";
    /// A reserved port lies in the ephemeral range.
    pub const RESERVED_EPHEMERAL: &str = "PO311";
    /// A reservation is for the other environment, or has expired.
    pub const RESERVATION_INACTIVE: &str = "PO312";
    /// A reservation cannot be enforced on this host.
    pub const RESERVATION_NOT_ENFORCED: &str = "PO313";
    /// Enforcement recognizes workloads by names that programs choose.
    pub const ENFORCED_BY_NAME: &str = "PO314";
    /// The HTTP endpoint can be read from the network without a password.
    pub const ENDPOINT_OPEN: &str = "PS420";
    /// The certificate of the HTTP endpoint is not valid, or not for long.
    pub const CERTIFICATE_EXPIRED: &str = "PS421";
    /// Every user can read a secret of the HTTP endpoint.
    pub const SECRET_READABLE: &str = "PS422";
    /// Something cannot be observed on this host.
    pub const NOT_OBSERVED: &str = "PA501";
    /// Something takes more CPU time on this host than it could.
    pub const MORE_CPU_TIME: &str = "PA502";
    /// A kernel table is full.
    pub const TABLE_FULL: &str = "PA503";
    /// A source of names fails, or is not where it is configured to be.
    pub const NAMES_MISSING: &str = "PA504";
}

/// Every code.
pub const CODES: &[Code] = &[
    Code {
        code: code::KEEPALIVE_MISMATCH,
        meaning: "the server closes idle connections that its client still uses",
        docs: "docs/runbooks/PortolanKeepaliveMismatchAhead.md#fix",
    },
    Code {
        code: code::PORT_IN_USE,
        meaning: "bind or listen failed: the port is in use",
        docs: "docs/runbooks/PortolanPortConflict.md#fix",
    },
    Code {
        code: code::PORT_PRIVILEGED,
        meaning: "bind failed: the port needs a privilege",
        docs: "docs/findings.md#po302",
    },
    Code {
        code: code::ADDRESS_NOT_LOCAL,
        meaning: "bind failed: the host lacks the address",
        docs: "docs/findings.md#po303",
    },
    Code {
        code: code::ALREADY_BOUND,
        meaning: "bind failed: the socket has a port already",
        docs: "docs/findings.md#po304",
    },
    Code {
        code: code::EPHEMERAL_EXHAUSTED,
        meaning: "bind failed: no ephemeral port is free",
        docs: "docs/runbooks/PortolanLocalPortsExhausted.md#fix",
    },
    Code {
        code: code::BIND_DENIED,
        meaning: "bind failed: a policy denies it",
        docs: "docs/runbooks/PortolanPortReservationBreach.md#what-it-means",
    },
    Code {
        code: code::BIND_FAILED,
        meaning: "bind or listen failed for another reason",
        docs: "docs/findings.md#po307",
    },
    Code {
        code: code::RESERVATION_BREACH,
        meaning: "a reserved port is used by another service",
        docs: "docs/runbooks/PortolanPortReservationBreach.md#fix",
    },
    Code {
        code: code::RESERVED_EPHEMERAL,
        meaning: "a reserved port is in the ephemeral range",
        docs: "docs/runbooks/PortolanPortConflict.md#usual-causes",
    },
    Code {
        code: code::RESERVATION_INACTIVE,
        meaning: "a reservation is not in force here",
        docs: "docs/findings.md#po312",
    },
    Code {
        code: code::RESERVATION_NOT_ENFORCED,
        meaning: "a reservation cannot be enforced",
        docs: "docs/findings.md#po313",
    },
    Code {
        code: code::ENFORCED_BY_NAME,
        meaning: "enforcement stops accidents, not attacks",
        docs: "docs/findings.md#po314",
    },
    Code {
        code: code::ENDPOINT_OPEN,
        meaning: "the HTTP endpoint is open to the network",
        docs: "docs/findings.md#ps420",
    },
    Code {
        code: code::CERTIFICATE_EXPIRED,
        meaning: "the certificate of the HTTP endpoint has to be renewed",
        docs: "docs/findings.md#ps421",
    },
    Code {
        code: code::SECRET_READABLE,
        meaning: "a secret of the HTTP endpoint is readable by every user",
        docs: "docs/findings.md#ps422",
    },
    Code {
        code: code::NOT_OBSERVED,
        meaning: "something is not observed on this host",
        docs: "docs/runbooks/PortolanHookMissing.md#usual-causes",
    },
    Code {
        code: code::MORE_CPU_TIME,
        meaning: "something takes more CPU time on this host",
        docs: "docs/findings.md#pa502",
    },
    Code {
        code: code::TABLE_FULL,
        meaning: "a kernel table is full",
        docs: "docs/findings.md#pa503",
    },
    Code {
        code: code::NAMES_MISSING,
        meaning: "a source of names fails",
        docs: "docs/findings.md#pa504",
    },
];

/// The base URL of `docs/` unless another is set, as in the rule files of the alerts.
pub const DOCS_URL: &str = "https://portolan.example/docs";

static DOCS: OnceLock<String> = OnceLock::new();

/// Sets the base URL of `docs/` for this process, without a slash at its end; false if it was set
/// before.
pub fn set_docs_url(base: &str) -> bool {
    DOCS.set(base.to_owned()).is_ok()
}

/// The URL of a page of this repository.
fn url(page: &str) -> String {
    let base = DOCS.get().map_or(DOCS_URL, String::as_str);
    format!("{base}/{}", page.strip_prefix("docs/").unwrap_or(page))
}

// === impl Finding ===

impl Finding {
    /// A finding without evidence, cause or remediation; callers set the fields they know.
    pub fn new(code: &str, severity: Severity, subject: &str, title: String) -> Self {
        let docs = CODES.iter().find(|known| known.code == code).map(|known| known.docs);
        Self {
            code: code.to_owned(),
            severity,
            title,
            subject: subject.to_owned(),
            evidence: BTreeMap::new(),
            caused_by: None,
            remediation: None,
            docs: docs.map(url),
            since: None,
        }
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, name: &str, fact: impl Into<Evidence>) -> Self {
        self.evidence.insert(name.to_owned(), fact.into());
        self
    }

    /// The same with how to fix it.
    #[must_use]
    pub fn remediation(mut self, remediation: String) -> Self {
        self.remediation = Some(remediation);
        self
    }
}

// === impl Severity ===

impl Severity {
    /// The JSON value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

// === impl Evidence ===

impl From<u64> for Evidence {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Evidence {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Evidence {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_begin_with_their_area() {
        for (at, Code { code, meaning, .. }) in CODES.iter().enumerate() {
            let (area, number) = code.split_at(2);
            assert!(["PC", "PP", "PO", "PN", "PS", "PD", "PA"].contains(&area), "{code}");
            assert!(number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()), "{code}");
            assert!(CODES.iter().skip(at + 1).all(|other| other.code != *code), "{code} twice");
            assert!(!meaning.is_empty(), "{code}");
        }
    }

    #[test]
    fn where_to_read_more_exists() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
        let list =
            std::fs::read_to_string(format!("{root}/docs/findings.md")).expect("findings.md");
        for Code { code, meaning, docs } in CODES {
            assert!(
                list.contains(&format!("| {code} | {meaning} |")),
                "{code} in docs/findings.md"
            );
            let (page, anchor) = docs.split_once('#').expect(docs);
            let text = std::fs::read_to_string(format!("{root}/{page}")).expect(docs);
            let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
            let mut anchors = headings.map(|heading| heading.to_lowercase().replace(' ', "-"));
            assert!(anchors.any(|one| one == anchor), "{docs}");
        }
        let conflict = Finding::new(code::PORT_IN_USE, Severity::Error, "shop", String::new());
        assert_eq!(
            conflict.docs.as_deref(),
            Some("https://portolan.example/docs/runbooks/PortolanPortConflict.md#fix")
        );
    }

    #[test]
    fn facts_are_plain_json() {
        let finding = Finding::new(code::PORT_IN_USE, Severity::Error, "shop", "x".to_owned())
            .with("attempts", 16)
            .with("errno", "EADDRINUSE");
        let json = serde_json::to_value(&finding).expect("JSON");
        assert_eq!(json["evidence"], serde_json::json!({"attempts": 16, "errno": "EADDRINUSE"}));
        assert_eq!(serde_json::from_value::<Finding>(json).expect("read"), finding);
    }
}
