//! The environment of a host.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The environment of a host; a reservation for the other one is listed but not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Development.
    Dev,
    /// Production.
    Prod,
}

// === impl Environment ===

impl Environment {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dev, Self::Prod];

    /// The name used in files, flags and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Prod => "prod",
        }
    }
}

impl FromStr for Environment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| format!("\"{text}\" is not an environment; use dev or prod"))
    }
}
