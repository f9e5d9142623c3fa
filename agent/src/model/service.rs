//! Services: the names people know things by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A service: what the two ends of an edge are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// Name, as people say it: `nginx`, `server.js`, `shop-api`, `10.1.2.3`.
    pub name: Arc<str>,
    /// Where the name is unique: a Kubernetes namespace, a compose project; empty on a plain host.
    pub namespace: Arc<str>,
    /// How the name was found.
    pub source: Source,
}

/// How a name was found, from the surest to the last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From the container that owns the sockets.
    Container,
    /// From the command line of the process.
    Process,
    /// A listener of this host, in the right network namespace.
    Listener,
    /// The only service of this host that connects there.
    LocalClient,
    /// The address itself.
    Address,
    /// Outside the internal ranges.
    Internet,
    /// Not (yet) known, or folded into an overflow row.
    Unknown,
}

impl Source {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Process => "process",
            Self::Listener => "listener",
            Self::LocalClient => "local_client",
            Self::Address => "address",
            Self::Internet => "internet",
            Self::Unknown => "unknown",
        }
    }
}

impl Service {
    /// A service of this name without a namespace.
    pub fn new(name: &str, source: Source) -> Self {
        Self { name: name.into(), namespace: "".into(), source }
    }

    /// The row that takes what found no row of its own.
    pub fn other() -> Self {
        Self::new("other", Source::Unknown)
    }

    /// Clients outside the internal ranges.
    pub fn internet() -> Self {
        Self::new("internet", Source::Internet)
    }
}
