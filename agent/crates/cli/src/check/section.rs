//! The sections of a report, by the first letters of codes.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A section.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(super) enum Section {
    /// Failed connects, broken connections, unanswered requests (PC).
    Connectivity,
    /// Slow requests, load, accept queues, loss, programs that do not read (PP).
    Performance,
    /// Bind conflicts, local ports, reservations (PO).
    Ports,
    /// Connection tracking, interfaces, routes, addresses, kernel settings (PN).
    Network,
    /// Segments, exposed listeners, the agent's own endpoint (PS).
    Security,
    /// DNS servers (PD).
    Dns,
    /// What the agent does not observe, drops or cannot name (PA).
    Coverage,
}

impl Section {
    /// All, in the order of a report.
    pub const ALL: [Self; 7] = [
        Self::Connectivity,
        Self::Performance,
        Self::Ports,
        Self::Network,
        Self::Security,
        Self::Dns,
        Self::Coverage,
    ];

    /// The section of a code.
    pub fn of(code: &str) -> Self {
        match code.get(..2) {
            Some("PC") => Self::Connectivity,
            Some("PP") => Self::Performance,
            Some("PO") => Self::Ports,
            Some("PN") => Self::Network,
            Some("PS") => Self::Security,
            Some("PD") => Self::Dns,
            _ => Self::Coverage,
        }
    }

    /// Its heading.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Connectivity => "Connectivity",
            Self::Performance => "Performance",
            Self::Ports => "Ports",
            Self::Network => "Network",
            Self::Security => "Security",
            Self::Dns => "DNS",
            Self::Coverage => "Coverage",
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.heading())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::CODES;

    #[test]
    fn every_section_but_none_other_has_codes() {
        for section in Section::ALL {
            assert!(CODES.iter().any(|code| Section::of(code.code) == section), "{section}");
        }
        let mut coverage = CODES.iter().filter(|code| Section::of(code.code) == Section::Coverage);
        assert!(coverage.all(|code| code.code.starts_with("PA")));
    }
}
