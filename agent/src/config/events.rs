//! Where events are written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The words for standard output.
const STDOUT: [&str; 2] = ["-", "stdout"];

/// Events, as the agent reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventsConfig {
    /// Where they are written as JSON lines; `None`: nowhere.
    pub log: Option<EventsLog>,
}

/// Where events are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventsLog {
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

// === impl EventsLog ===

impl FromStr for EventsLog {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            text if STDOUT.contains(&text) => Ok(Self::Stdout),
            path if path.starts_with('/') => Ok(Self::File(path.into())),
            _ => Err(()),
        }
    }
}

impl fmt::Display for EventsLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for EventsLog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
