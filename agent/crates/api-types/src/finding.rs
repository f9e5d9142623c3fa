//! Findings: everything that needs attention has this one shape, wherever it is shown.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CODES, Timestamp};

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
    use crate::code;

    #[test]
    fn a_finding_says_where_to_read_more() {
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
