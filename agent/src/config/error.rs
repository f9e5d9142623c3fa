//! Why a configuration is refused, and where the mistake is.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

/// What to do about a file that cannot be read.
fn fix_of(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::PermissionDenied => "make it readable for the agent's user",
        std::io::ErrorKind::InvalidData => "save it as UTF-8",
        _ => "check the path given with --config",
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {error}; {}", path.display(), fix_of(error.kind()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Neither TOML nor YAML by its name.
    #[error("{}: unknown format; name the file .toml, .yaml or .yml", .0.display())]
    UnknownFormat(PathBuf),
    /// The content does not match the file name's ending.
    #[error("{location}: {message}")]
    Syntax {
        /// The position.
        location: Location,
        /// The parser's error.
        message: String,
    },
    /// A key that has been renamed.
    #[error("{location}: {old} has been renamed: use {new}")]
    RenamedKey {
        /// The position.
        location: Location,
        /// The key, or `it` if the position names it.
        old: String,
        /// The new key.
        new: String,
    },
    /// An unknown key.
    #[error("{location}: unknown key `{key}`{}", suggestion(near.as_deref()))]
    UnknownKey {
        /// The position.
        location: Location,
        /// The key.
        key: String,
        /// The most similar known key.
        near: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("{location}: `{key}` {problem}")]
    BadValue {
        /// The position.
        location: Location,
        /// The key.
        key: String,
        /// The error and what is expected.
        problem: String,
    },
    /// The web configuration file cannot be used.
    #[error("{0:#}")]
    Web(anyhow::Error),
    /// A value that does not go with another.
    #[error("{location}: {problem}{}", the_other(first.as_ref()))]
    Contradiction {
        /// The position.
        location: Location,
        /// The position of the other value, if there is one.
        first: Option<Location>,
        /// The error and what is expected.
        problem: String,
    },
}

// === impl Location ===

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// The end of a sentence that names the other position.
fn the_other(first: Option<&Location>) -> String {
    first.map_or_else(String::new, |first| format!("; the other value is at {first}"))
}

/// The end of a sentence that names the nearest candidate.
pub(super) fn suggestion(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}
