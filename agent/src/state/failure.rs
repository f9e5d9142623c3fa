//! Why something that was asked of the desk is not done.

use model::{registry, reservations};

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What was asked makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// It contradicts what is written down.
    #[error("{0}")]
    Contradiction(String),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// It cannot be done here or now.
    #[error("{0}")]
    Unable(String),
}

// === impl Failure ===

impl From<reservations::Refused> for Failure {
    fn from(refused: reservations::Refused) -> Self {
        use reservations::Refused;
        let said = refused.to_string();
        match refused {
            Refused::Taken(_) | Refused::InConfiguration(_) => Self::Contradiction(said),
            Refused::NotReserved(_) => Self::Missing(said),
            Refused::Ambiguous(_) | Refused::Over { .. } => Self::Wrong(said),
            Refused::Full => Self::Unable(said),
        }
    }
}

impl From<registry::Refused> for Failure {
    fn from(refused: registry::Refused) -> Self {
        use registry::Refused;
        let said = refused.to_string();
        match refused {
            Refused::Taken { .. } => Self::Contradiction(said),
            Refused::NotRegistered(_) => Self::Missing(said),
            Refused::Nowhere(_) | Refused::TooManyEndpoints(_) => Self::Wrong(said),
            Refused::Full => Self::Unable(said),
        }
    }
}
