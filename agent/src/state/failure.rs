//! Why the state actor did not carry out a request.

use model::{registry, reservations};

/// Why a request was not carried out; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request is invalid.
    #[error("{0}")]
    Wrong(String),
    /// It contradicts the state or the configuration.
    #[error("{0}")]
    Contradiction(String),
    /// Its subject does not exist.
    #[error("{0}")]
    Missing(String),
    /// Not possible on this host or at this time.
    #[error("{0}")]
    Unable(String),
}

// === impl Failure ===

impl From<reservations::Refused> for Failure {
    fn from(refused: reservations::Refused) -> Self {
        use reservations::Refused;
        let message = refused.to_string();
        match refused {
            Refused::Taken(_) | Refused::InConfiguration(_) => Self::Contradiction(message),
            Refused::NotReserved(_) => Self::Missing(message),
            Refused::Ambiguous(_) | Refused::Over { .. } => Self::Wrong(message),
            Refused::Full => Self::Unable(message),
        }
    }
}

impl From<registry::Refused> for Failure {
    fn from(refused: registry::Refused) -> Self {
        use registry::Refused;
        let message = refused.to_string();
        match refused {
            Refused::Taken { .. } => Self::Contradiction(message),
            Refused::NotRegistered(_) => Self::Missing(message),
            Refused::Nowhere(_)
            | Refused::TooManyEndpoints(_)
            | Refused::Ttl(..)
            | Refused::Unchecked { .. } => Self::Wrong(message),
            Refused::Full => Self::Unable(message),
        }
    }
}
