//! How far the running agent confines itself.

use serde::{Deserialize, Serialize};

/// Which capabilities are kept after startup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those that the enabled features need while the agent runs.
    Needed,
    /// None, whatever is lost by it.
    None,
    /// All that were given, for finding out whether a missing one is the trouble.
    All,
}

/// How the seccomp filter treats system calls that the running agent does not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// They fail with EPERM.
    Enforce,
    /// They pass, and the kernel logs them.
    Log,
    /// They pass.
    Off,
}

// === impl Keep, Seccomp ===

impl Keep {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Needed, Self::None, Self::All];

    /// The name used in files, flags and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Needed => "needed",
            Self::None => "none",
            Self::All => "all",
        }
    }
}

impl Seccomp {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Enforce, Self::Log, Self::Off];

    /// The name used in files, flags and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Log => "log",
            Self::Off => "off",
        }
    }
}
