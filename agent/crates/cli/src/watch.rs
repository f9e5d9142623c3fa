//! Refreshing output.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::print;

/// Back to the first line, and nothing behind it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints the result of `look` repeatedly, until it fails or the reader closes the pipe. A terminal
/// is cleared each time; a pipe gets one result after the other.
pub(super) fn every(
    pause: Duration,
    look: impl Fn() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        print(&format!("{clear}{}", look()?))?;
        if !io::stdout().is_terminal() && reader_is_gone() {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
}

/// Whether the reader of our standard output has closed the pipe (man 2 poll, POLLERR).
fn reader_is_gone() -> bool {
    let output = io::stdout();
    let mut output = [PollFd::new(&output, PollFlags::empty())];
    let ready = poll(&mut output, Some(&Timespec::default()));
    ready.is_ok_and(|ready| ready > 0)
        && output.iter().any(|end| end.revents().contains(PollFlags::ERR))
}
