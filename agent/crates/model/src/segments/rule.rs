//! A rule between segments, as it is written: `frontend -> backend`.

use std::fmt;
use std::sync::Arc;

use super::{ANY, OUTSIDE};

/// A pair of ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The client's segment.
    pub client: End,
    /// The server's segment.
    pub server: End,
}

/// One end of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Any segment.
    Any,
    /// Ends in no segment.
    Outside,
    /// A segment, by its name.
    Segment(Arc<str>),
}

// === impl Rule ===

impl Rule {
    /// How many of its ends it names.
    pub(super) fn names(&self) -> usize {
        [&self.client, &self.server].into_iter().filter(|end| **end != End::Any).count()
    }
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("contains \"{text}\"; write rules like \"frontend -> backend\"");
        let (client, server) = text.split_once("->").ok_or_else(wrong)?;
        let end = |text: &str| match text.trim() {
            "" => Err(wrong()),
            ANY => Ok(End::Any),
            OUTSIDE => Ok(End::Outside),
            name => Ok(End::Segment(name.into())),
        };
        Ok(Self { client: end(client)?, server: end(server)? })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, self.server)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => ANY,
            Self::Outside => OUTSIDE,
            Self::Segment(name) => name,
        })
    }
}
