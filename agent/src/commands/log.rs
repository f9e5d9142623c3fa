//! The agent's log: lines to standard error, limited per statement.
//!
//! A fault that repeats a thousand times a second must not fill a disk. Each statement in the code
//! may write [`LINES`] lines in [`WINDOW`]; the number of suppressed lines is added to the next
//! line that is written. Lines for developers (`debug`, `trace`) were requested, and are not
//! limited.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{Log, LogFormat};

/// Lines of one statement in one window.
const LINES: u64 = 60;
const WINDOW: Duration = Duration::from_mins(1);

/// The crates of ours that log: the target of a line begins with its crate.
const OWN: [&str; 5] = ["portolan", "discovery", "loader", "server", "telemetry"];

/// Sends the log to standard error: our own lines from the chosen level on, and the libraries'
/// only when something is wrong.
pub(super) fn start(log: Log) {
    let filter = EnvFilter::new(filter(log.level.as_str()));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(has_colours()).with_target(false);
    let log_so_far = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => log_so_far.with(lines).with(Limit::default()).init(),
        LogFormat::Json => {
            log_so_far.with(lines.json().flatten_event(true)).with(Limit::default()).init();
        }
    }
}

/// Whether standard error shows colours.
fn has_colours() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !forbidden
}

/// Our own lines from this level on, warnings of libraries. kube logs each failed request as an
/// error, which the source of names reports once.
fn filter(level: &str) -> String {
    OWN.iter().fold("warn,kube_client=off".to_owned(), |all, own| format!("{all},{own}={level}"))
}

/// Suppresses repetitions.
#[derive(Default)]
struct Limit(Mutex<Statements>);

/// Recent lines of each statement.
#[derive(Default)]
struct Statements(HashMap<Identifier, Statement>);

struct Statement {
    /// Its position in the code.
    shown: String,
    since: Instant,
    lines: u64,
}

/// A statement, and the number of its suppressed lines.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    statement: String,
    lines: u64,
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // The report of suppressed lines is not suppressed itself.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let (is_written, over) = {
            let mut statements = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            statements.admit(metadata, Instant::now())
        };
        for LeftOut { statement, lines } in over {
            tracing::warn!(
                "{lines} more lines from {statement} were suppressed: at most {LINES} of each kind are logged in {} s",
                WINDOW.as_secs()
            );
        }
        is_written
    }
}

// === impl Statements ===

impl Statements {
    /// Whether a line of this statement is written, and the statements with suppressed lines whose
    /// window is over.
    fn admit(
        &mut self,
        metadata: &'static Metadata<'static>,
        now: Instant,
    ) -> (bool, Vec<LeftOut>) {
        let mut over = Vec::new();
        self.0.retain(|_, statement| {
            let is_over = now.duration_since(statement.since) >= WINDOW;
            if is_over && statement.lines > LINES {
                over.push(LeftOut {
                    statement: statement.shown.clone(),
                    lines: statement.lines - LINES,
                });
            }
            !is_over
        });
        let statement = self.0.entry(metadata.callsite()).or_insert_with(|| Statement {
            shown: shown(metadata),
            since: now,
            lines: 0,
        });
        statement.lines += 1;
        (statement.lines <= LINES, over)
    }
}

/// `server::serve, line 120`.
fn shown(metadata: &Metadata<'_>) -> String {
    match metadata.line() {
        Some(line) => format!("{}, line {line}", metadata.target()),
        None => metadata.target().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Counts lines that pass the limit.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().level().to_string());
        }
    }

    /// Records the statement of the last line.
    #[derive(Clone, Default)]
    struct Met(Arc<Mutex<Option<&'static Metadata<'static>>>>);

    impl<S: Subscriber> Layer<S> for Met {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap() = Some(event.metadata());
        }
    }

    #[test]
    fn the_level_is_that_of_every_crate_of_ours_and_of_no_library() {
        let crates = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/crates")).unwrap();
        let mut logging: Vec<String> = crates
            .map(|folder| folder.unwrap().path())
            .filter(|folder| logs(&folder.join("src")))
            .map(|folder| folder.file_name().unwrap().to_str().unwrap().replace('-', "_"))
            .collect();
        logging.sort();
        assert_eq!(logging, OWN[1..]);
        assert!(filter("info").starts_with("warn,kube_client=off,portolan=info,"));
    }

    /// Whether a source file in this folder, or below, logs.
    fn logs(folder: &std::path::Path) -> bool {
        std::fs::read_dir(folder).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return logs(&path);
            }
            std::fs::read_to_string(path).unwrap().contains("tracing::")
        })
    }

    #[test]
    fn a_line_that_repeats_is_written_so_often_and_others_are_not_kept_back() {
        let written = Written::default();
        let log = tracing_subscriber::registry().with(written.clone()).with(Limit::default());
        tracing::subscriber::with_default(log, || {
            for _ in 0..1000 {
                tracing::warn!("the same");
                tracing::debug!("asked for");
            }
            tracing::error!("another");
        });
        let written = written.0.lock().unwrap();
        let count = |level: &str| written.iter().filter(|one| *one == level).count() as u64;
        assert_eq!((count("WARN"), count("DEBUG"), count("ERROR")), (LINES, 1000, 1));
    }

    #[test]
    fn suppressed_lines_are_reported_with_the_next_line_after_the_window() {
        let met = Met::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(met.clone()), || {
            tracing::warn!("some statement");
        });
        let metadata = met.0.lock().unwrap().expect("an event");
        let (mut statements, start) = (Statements::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(statements.admit(metadata, start), (true, Vec::new()));
        }
        for _ in 0..7 {
            assert_eq!(statements.admit(metadata, start), (false, Vec::new()));
        }
        let (is_written, over) = statements.admit(metadata, start + WINDOW);
        assert!(is_written);
        assert_eq!(over.iter().map(|one| one.lines).collect::<Vec<_>>(), [7]);
        assert_eq!(statements.admit(metadata, start + WINDOW * 3), (true, Vec::new()));
    }
}
