//! `events.log`: events as lines of JSON, in a file or on standard output.
//!
//! A thread of its own writes, so that a full disk or a pipe without a reader delays nothing: what
//! it is too slow for is counted (`portolan_reported_events_dropped_total`). A file is opened for
//! each batch of lines, so it may be renamed at any time to rotate it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use server::convert::ToApi as _;
use telemetry::event_feed::{EventFeed, Follower, Losses, Next};

use crate::config::EventsLog;

/// Lines that are written at once end with the first beyond this.
const BATCH_BYTES: usize = 256 * 1024;
/// How long the last lines may take at the end.
const LAST_LINES: Duration = Duration::from_millis(300);

/// The writing thread.
pub(super) struct EventLog {
    /// Closed when it has ended.
    ended: Receiver<()>,
}

struct Writer {
    to: EventsLog,
    losses: Losses,
    /// Whether the last lines could not be written.
    has_failed: bool,
    /// Dropped with the thread.
    _ended: Sender<()>,
}

// === impl EventLog ===

impl EventLog {
    /// Writes the events of `feed` from now on. A file that cannot be opened now is an error.
    pub(super) fn start(to: &EventsLog, feed: &EventFeed) -> anyhow::Result<Self> {
        write(to, "").with_context(|| format!("opening {to} for events (events.log)"))?;
        let (sender, ended) = channel();
        let (to, losses) = (to.clone(), feed.losses().clone());
        let mut writer = Writer { to, losses, has_failed: false, _ended: sender };
        let mut follower = feed.follow();
        thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || writer.run(&mut follower))
            .context("starting the thread that writes events.log")?;
        Ok(Self { ended })
    }

    /// Waits for the last lines, for a moment; the feed has ended.
    pub(super) fn finish(self) {
        // It ends by being closed, or is too slow.
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

// === impl Writer ===

impl Writer {
    fn run(&mut self, follower: &mut Follower) {
        let (mut lines, mut events) = (String::new(), 0);
        loop {
            let next = if lines.is_empty() {
                follower.blocking_next()
            } else if lines.len() < BATCH_BYTES
                && let Some(next) = follower.next_now()
            {
                next
            } else {
                self.write(&lines, events);
                lines.clear();
                events = 0;
                continue;
            };
            match next {
                Next::Event(event) => match serde_json::to_string(&event.to_api()) {
                    Ok(line) => {
                        lines.push_str(&line);
                        lines.push('\n');
                        events += 1;
                    }
                    Err(error) => self.failed(&error.into(), 1),
                },
                Next::Missed(missed) => {
                    tracing::warn!(
                        "events are written to {} too slowly: {missed} are missing there",
                        self.to
                    );
                    self.losses.count_not_logged(missed);
                }
                Next::End => {
                    self.write(&lines, events);
                    return;
                }
            }
        }
    }

    /// Writes these lines, which are so many events.
    fn write(&mut self, lines: &str, events: u64) {
        match write(&self.to, lines) {
            Ok(()) if self.has_failed => {
                self.has_failed = false;
                self.losses.set_log_problem(None);
                tracing::info!("events are written to {} again", self.to);
            }
            Ok(()) => {}
            Err(error) => self.failed(&error, events),
        }
    }

    fn failed(&mut self, error: &io::Error, events: u64) {
        self.losses.count_not_logged(events);
        if !self.has_failed {
            self.has_failed = true;
            let problem = format!("events cannot be written to {}: {error}", self.to);
            tracing::error!("{problem}");
            self.losses.set_log_problem(Some(problem));
        }
    }
}

/// Writes whole lines.
fn write(to: &EventsLog, lines: &str) -> io::Result<()> {
    match to {
        EventsLog::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(lines.as_bytes())?;
            out.flush()
        }
        EventsLog::File(path) => {
            OpenOptions::new().append(true).create(true).open(path)?.write_all(lines.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use model::fixture;

    #[test]
    fn every_event_is_a_line_of_json_and_a_file_that_was_renamed_is_made_again() {
        let folder = tempfile::tempdir().expect("a directory");
        let (path, rotated) = (folder.path().join("events"), folder.path().join("events.1"));
        let feed = EventFeed::default();
        let log = EventLog::start(&EventsLog::File(path.clone()), &feed).expect("started");
        let events = fixture::snapshot()
            .events
            .ring
            .after(0, |_| true)
            .into_iter()
            .cloned()
            .collect::<Vec<_>>();
        fs::rename(&path, &rotated).expect("renamed");
        for event in &events {
            feed.publish(event.clone());
        }
        drop(feed);
        log.ended.recv_timeout(Duration::from_secs(30)).expect_err("it ends by being closed");
        let text = fs::read_to_string(&path).expect("made again");
        let written: Vec<api_types::Event> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(!events.is_empty());
        assert_eq!(written, events.iter().map(|event| event.to_api()).collect::<Vec<_>>());
        assert_eq!(fs::read_to_string(&rotated).expect("there"), "");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_agent_says_why() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("there/events");
        let missing = EventLog::start(&EventsLog::File(path.clone()), &EventFeed::default());
        let error = format!("{:#}", missing.err().expect("no such folder"));
        assert!(error.contains("events.log") && error.contains("No such file"), "{error}");
        let parent = path.parent().expect("it has one");
        fs::create_dir(parent).expect("made");
        let feed = EventFeed::default();
        let losses = feed.losses().clone();
        let log = EventLog::start(&EventsLog::File(path.clone()), &feed).expect("started");
        fs::remove_dir_all(parent).expect("removed");
        let events = fixture::snapshot().events;
        feed.publish(events.ring.after(0, |_| true)[0].clone());
        drop(feed);
        log.ended.recv_timeout(Duration::from_secs(30)).expect_err("it ends by being closed");
        assert_eq!(losses.not_logged(), 1);
        assert!(losses.log_problem().expect("a problem").contains("No such file"));
    }
}
